"""RaCT: the actor is Mult-VAE, the critic an independent forward pass, and each phase follows its own gradient."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from dense_reference import Recorded, on_the_items, perceptron, random_rows, rows_of, weights_of
from ract_reference import (
    ALL,
    DROPOUT,
    N_ITEMS,
    actor_forward,
    changed,
    critic_forward,
    critic_of,
    drawn,
    ready,
    values_of,
    withheld_ndcg,
)
from scipy.sparse import csr_array

from tfvae.models.multvae import MultVAE
from tfvae.models.ract import RaCT
from tfvae.nn.noise import Noise
from tfvae.nn.optimizers import FusedAdam
from tfvae.system.errors import InputError


@pytest.fixture
def recorded(monkeypatch):
    """The training step's noise is remembered."""
    monkeypatch.setattr("tfvae.models.gradient.Noise", Recorded)


PARTS = ("kernel", "bias")
ACTORS = {f"{layer}/{p}" for layer in ("encoder_0", "encoder_1", "decoder_1", "decoder_logits") for p in PARTS}
CRITICS = {f"{layer}/{p}" for layer in ("critic_1", "critic_2", "critic_output") for p in PARTS}
COUNTERS = {"step", "rows_seen", "beta"}
MOMENTS = {"feature_updates", "feature_means", "feature_squares"}


# ---- the actor --------------------------------------------------------------------------------------


def test_the_actors_phase_is_mult_vae_to_the_bit():
    x, changes = random_rows(), {"separate_heads": False, "weight_decay": 0.01}
    ract = ready(x, FusedAdam(0.01), moments=False, critic_weight_decay=0.0, **changes)
    vae = ready(x, FusedAdam(0.01), model_class=MultVAE, weight_decay=0.01)
    before = values_of(ract)
    for users in (ALL, ALL[:4], ALL[4:]):
        one, other = ract.train_step(users), vae.train_step(users)
        assert {name: float(one[name]) for name in other} == {name: float(value) for name, value in other.items()}
    after, vae_after = values_of(ract), values_of(vae)
    for name, value in vae_after.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)
    others = {name for name in after if name not in vae_after}
    assert others == CRITICS | MOMENTS and changed(before, after) & others == MOMENTS
    assert float(ract.beta.numpy()) == pytest.approx(0.2)


def test_scores_are_mult_vaes_whatever_the_critic():
    x = random_rows()
    model, vae = ready(x), ready(x, model_class=MultVAE)
    np.testing.assert_array_equal(model.scores(rows_of(x)), vae.scores(rows_of(x)))
    for layer in model.critic:
        layer.kernel.assign(5 + 0 * layer.kernel)
    model.begin_epoch(4)
    np.testing.assert_array_equal(model.scores(rows_of(x)), vae.scores(rows_of(x)))


# ---- what the critic sees and predicts --------------------------------------------------------------


def test_moments_are_plain_means_over_the_first_updates_of_what_dropout_kept_dropped_and_cost(recorded):
    x = random_rows()
    model = ready(x, moments=False)
    assert not model.feature_means.numpy().any() and (model.feature_squares.numpy() == 1).all()
    means, squares = [], []
    for users in ([0, 1, 3], [4, 6], [2, 3, 4, 5, 6], [1]):
        encoder, decoder = weights_of(model)
        model.train_step(tf.constant(users, tf.int64))
        kept, draw = drawn(x[users])
        assert kept.any() and (x[users] - kept).any()
        nll = actor_forward(x[users], encoder, decoder, kept, draw)[1].numpy()  # of the whole history
        features = np.stack([kept.sum(axis=1), (x[users] - kept).sum(axis=1), nll], axis=1)
        means.append(features.mean(axis=0))
        squares.append((features**2).mean(axis=0))
        # Each update weighs the same, however many users it had.
        np.testing.assert_allclose(model.feature_means, np.mean(means, axis=0), rtol=1e-5)
        np.testing.assert_allclose(model.feature_squares, np.mean(squares, axis=0), rtol=1e-5)
    assert int(model.feature_updates.numpy()) == 4


@pytest.mark.parametrize(("updates", "share"), [(9, 1 / 10), (999, 1 / 1000), (5000, 1 / 1000)])
def test_moments_forget_no_faster_than_their_memory(updates, share, recorded):
    x = random_rows()
    model = ready(x, keras.optimizers.SGD(0.0))
    fresh = ready(x, keras.optimizers.SGD(0.0), moments=False)
    fresh.train_step(ALL)
    old = model.feature_means.numpy().copy(), model.feature_squares.numpy().copy()
    model.feature_updates.assign(updates)
    model.train_step(ALL)
    found = (model.feature_means, model.feature_squares)
    for was, now, new in zip(old, found, (fresh.feature_means, fresh.feature_squares), strict=True):
        np.testing.assert_allclose((now - was) / (new - was), share, rtol=2e-3)


def test_unless_they_are_normalised_the_features_are_what_they_are():
    x = random_rows()
    model = ready(x, phase="actor", moments=False, normalize_features=False)
    for _ in range(3):
        model.train_step(ALL)
    np.testing.assert_array_equal(model.feature_means, [0, 0, 0])
    np.testing.assert_array_equal(model.feature_squares, [1, 1, 1])
    features = np.float32([[2.0, 3.0, 40.0], [0.0, 1.0, 5.0]])
    activations = [tf.nn.relu] * (len(model.critic) - 1) + [tf.sigmoid]
    expected = perceptron(features / 1.001**0.5, critic_of(model), activations)[:, 0]
    np.testing.assert_allclose(model._predicted(tf.constant(features)), expected, rtol=1e-5)


@pytest.mark.parametrize("phase", ["critic", "both"])
def test_beta_rises_in_the_first_phase_only(phase):
    model = ready(random_rows(), phase="actor")
    model.step.assign(3)
    model.train_step(ALL)
    assert float(model.beta.numpy()) == pytest.approx(0.3)
    model.begin_epoch({"critic": 2, "both": 4}[phase])
    model.train_step(ALL)
    assert float(model.beta.numpy()) == pytest.approx(0.3)


@pytest.mark.parametrize("phase", ["critic", "both"])
def test_moments_are_frozen_after_the_actors_phase(phase):
    model = ready(random_rows(), phase=phase)
    before = values_of(model)
    for _ in range(3):
        model.train_step(ALL)
    assert not changed(before, values_of(model)) & MOMENTS


@pytest.mark.slow
@pytest.mark.parametrize(
    "features", [("seen", "unseen", "nll"), ("nll", "unseen"), ("seen", "nll"), ("nll",)], ids=" ".join
)
def test_the_critic_predicts_each_user_from_counts_and_likelihood_normalised(features):
    x = random_rows(8)
    model = ready(x, phase="critic", critic_features=features)
    squares = model.feature_squares.numpy()
    squares[0] = model.feature_means.numpy()[0] ** 2 * 0.99  # rounding may leave less than nothing for a variance
    encoder, decoder = weights_of(model)
    found, expected = [], []
    for floor in (False, True):
        if floor:
            model.feature_squares.assign(squares)
        for user in range(8):
            row = x[user : user + 1]
            means = model.objective(rows_of(row), Recorded(3, tf.constant(user)))
            kept = on_the_items(row, Recorded.drawn["encoder_0/dropout"] < 1 - DROPOUT)
            _, nll = actor_forward(row, encoder, decoder, kept, Recorded.drawn["z"])
            expected.append(float(critic_forward(model, row, kept, nll, critic_of(model))[0]))
            found.append(float(means["predicted_ndcg"]))
            assert float(means["shortfall"]) == pytest.approx(1 - found[-1], abs=1e-6)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-6)
    assert (
        len(np.unique(np.round(expected[:8], 5))) > 4 and np.abs(np.subtract(expected[:8], expected[8:])).max() > 0.01
    )


def test_the_target_is_the_ndcg_of_what_dropout_withheld_and_has_no_gradient(recorded):
    x = random_rows(200, density=0.4, empty=(3,))
    model = ready(x, phase="critic")
    encoder, decoder = weights_of(model)
    critic = critic_of(model)
    logs = model.train_step(tf.range(200, dtype=tf.int64))
    kept, draw = drawn(x)
    logits, nll = actor_forward(x, encoder, decoder, kept, draw)
    target = withheld_ndcg(x, kept, logits)
    assert (target == 0).any() and target.std() > 0.1
    predicted = critic_forward(model, x, kept, nll, critic).numpy()
    assert float(logs["ndcg"]) == pytest.approx(target.mean(), rel=1e-5)
    assert float(logs["predicted_ndcg"]) == pytest.approx(predicted.mean(), rel=1e-4)
    assert float(logs["critic_error"]) == pytest.approx(np.mean((target - predicted) ** 2), rel=1e-4)
    assert float(logs["nll"]) == pytest.approx(float(tf.reduce_mean(nll)), rel=1e-5)

    with tf.GradientTape() as tape:
        means = model.objective(rows_of(x), Noise(1, tf.constant(0)))
    assert tape.gradient(means["ndcg"], [v.value for v in model.trainable_variables]) == [None] * len(
        model.trainable_variables
    )


@pytest.mark.parametrize(("features", "inputs"), [(("seen", "unseen", "nll"), 3), (("nll", "seen"), 2), (("nll",), 1)])
def test_the_critic_has_an_input_for_each_feature_and_the_papers_widths(features, inputs):
    model = RaCT(N_ITEMS, hidden=(5,), latent_dim=2, critic_features=features)
    shapes = [tuple(layer.kernel.shape) for layer in model.critic]
    assert shapes == [(inputs, 100), (100, 100), (100, 10), (10, 1)]
    assert [layer.activation.__name__ for layer in model.critic] == ["relu", "relu", "relu", "sigmoid"]
    count = sum(int(np.prod(v.shape)) for v in model.objectives["critic"].variables)
    assert count == 100 * inputs + 100 + 100 * 100 + 100 + 100 * 10 + 10 + 10 + 1
    assert model.feature_means.shape == model.feature_squares.shape == (inputs,)


def test_a_critic_that_does_not_see_the_likelihood_is_refused():
    with pytest.raises(InputError, match=r"critic_features are \['seen', 'unseen'\]; the critic needs \"nll\""):
        RaCT(N_ITEMS, critic_features=("seen", "unseen"))


def test_the_critic_computes_in_float32_though_the_actor_does_not():
    x = random_rows()
    model = ready(x, phase="critic", dtype="mixed_bfloat16")
    assert {layer.compute_dtype for layer in model.critic} == {"float32"}
    assert model.encoder.first.compute_dtype == "bfloat16"
    means = model.objective(rows_of(x), Noise(1, tf.constant(0)))
    assert {value.dtype for value in means.values()} == {tf.float32}


# ---- who learns what --------------------------------------------------------------------------------


def test_aims_and_phases():
    model = RaCT(N_ITEMS, hidden=(5,), latent_dim=2, actor_epochs=3, critic_epochs=2)
    phases = [("actor",)] * 3 + [("critic",)] * 2 + [("actor-critic", "critic")] * 2
    assert [model.phase_of(epoch) for epoch in range(7)] == phases
    assert model.patient_from == 5
    assert [model.starts_from_best(epoch) for epoch in range(7)] == [False] * 3 + [True] + [False] * 3
    assert all(model.round_ends(epoch) for epoch in range(7))
    actor, critic, both = model.objectives.values()
    assert [v.path for v in actor.variables] == [v.path for v in both.variables]
    everything = {v.path for v in model.trainable_variables}
    assert {v.path for v in [*actor.variables, *critic.variables]} == everything
    assert len(actor.variables) + len(critic.variables) == len(everything)


@pytest.mark.parametrize("critic_weight_decay", [0.0, 0.5])
def test_the_critics_phase_changes_the_critic_alone_by_the_gradient_of_its_error(critic_weight_decay, recorded):
    x = random_rows(30, density=0.4)
    model = ready(x, phase="critic", critic_weight_decay=critic_weight_decay, weight_decay=0.3)
    (encoder, decoder), critic, before = weights_of(model), critic_of(model), values_of(model)
    model.train_step(tf.range(30, dtype=tf.int64))
    after = values_of(model)
    assert changed(before, after) - COUNTERS == CRITICS

    kept, draw = drawn(x)
    logits, nll = actor_forward(x, encoder, decoder, kept, draw)
    target = withheld_ndcg(x, kept, logits).astype(np.float32)
    flat = [weight for layer in critic for weight in layer]
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((target - critic_forward(model, x, kept, nll, critic)) ** 2)
        loss += critic_weight_decay * sum(tf.reduce_sum(kernel**2) for kernel, _ in critic)
    for variable, weight, slope in zip(
        model.objectives["critic"].variables, flat, tape.gradient(loss, flat), strict=True
    ):
        step = 0.02 * slope.numpy()
        assert np.abs(step).max() > 1e-6
        np.testing.assert_allclose(variable.numpy(), weight - step, rtol=1e-5, atol=1e-6 * np.abs(step).max() + 1e-7)


def lively(x, **changes):
    """In the third phase, with a critic whose predictions depend on the likelihood."""
    model = ready(x, phase="both", critic_weight_decay=0.0, **changes)
    rng = np.random.default_rng(4)
    for layer in model.critic:
        layer.kernel.assign(rng.normal(0, 0.8, layer.kernel.shape))
        layer.bias.assign(rng.normal(0, 0.5, layer.bias.shape))
    return model


def test_the_third_phase_raises_the_prediction_by_its_own_rate_while_the_critic_goes_on_by_its(recorded):
    x = random_rows(30, density=0.4)
    model = lively(x)
    (encoder, decoder), critic, before = weights_of(model), critic_of(model), values_of(model)
    logs = model.train_step(tf.range(30, dtype=tf.int64))
    after = values_of(model)
    assert changed(before, after) - COUNTERS == ACTORS | CRITICS
    kept, draw = drawn(x)
    actor = [weight for layer in [*encoder, *decoder] for weight in layer]
    flat = [weight for layer in critic for weight in layer]
    with tf.GradientTape(persistent=True) as tape:
        logits, nll = actor_forward(x, encoder, decoder, kept, draw)
        predicted = critic_forward(model, x, kept, nll, critic)
        mean = tf.reduce_mean(predicted)
        error = tf.reduce_mean((withheld_ndcg(x, kept, logits.numpy()).astype(np.float32) - predicted) ** 2)
    assert float(logs["predicted_ndcg"]) == pytest.approx(float(mean), rel=1e-4)

    actors_step = [0.5 * slope.numpy() for slope in tape.gradient(mean, actor)]
    critics_error = [0.5 * slope.numpy() for slope in tape.gradient(error, actor)]
    for variable, weight, up, other in zip(
        model.objectives["actor-critic"].variables, actor, actors_step, critics_error, strict=True
    ):
        largest = np.abs(up).max()
        assert largest > 1e-5 and np.abs(other).max() > 0.01 * largest  # so that either gradient would be seen
        np.testing.assert_allclose(variable.numpy() - weight, up, rtol=1e-2, atol=2e-3 * largest, err_msg=variable.path)
    # The critic's gradient is that of the same forward pass, before the actor has moved.
    for variable, weight, slope in zip(
        model.objectives["critic"].variables, flat, tape.gradient(error, flat), strict=True
    ):
        step = -0.02 * slope.numpy()
        largest = np.abs(step).max()
        np.testing.assert_allclose(
            variable.numpy() - weight, step, rtol=1e-2, atol=5e-3 * largest + 2e-7, err_msg=variable.path
        )


def test_the_actors_step_in_the_third_phase_raises_what_the_critic_predicts():
    x = random_rows(30, density=0.4)
    model = lively(x, fine_tuning_rate=0.01, critic_learning_rate=1e-12)
    rows, values = rows_of(x), []
    for _ in range(5):
        model.step.assign(0)  # the same noise again
        values.append(float(model.objective(rows, Noise(model.seed, tf.constant(0)))["predicted_ndcg"]))
        model.train_step(tf.range(30, dtype=tf.int64))
    assert np.all(np.diff(values) > 0)


def test_the_kl_has_no_influence_on_the_third_phase_but_has_on_the_first():
    x, after = random_rows(), {}
    for phase in ("both", "actor"):
        for cap in (0.0, 1.0):
            model = ready(x, phase=phase, beta_cap=cap, anneal_updates=0)
            model.beta.assign(cap)  # which the third phase leaves as it is
            model.train_step(ALL)
            assert float(model.beta.numpy()) == cap
            after[phase, cap] = {name: values_of(model)[name] for name in ACTORS | CRITICS}
    assert not changed(after["both", 0.0], after["both", 1.0])
    assert changed(after["actor", 0.0], after["actor", 1.0])


@pytest.mark.slow
def test_the_critic_learns_to_tell_by_the_likelihood_whom_the_actor_ranks_well():
    # Half of the users have items of the first half, which the actor puts first whoever asks; the others of the second.
    rng = np.random.default_rng(0)
    x = np.zeros((200, 40), np.float32)
    for user in range(200):
        x[user, rng.choice(20, 8, replace=False) + 20 * (user % 2)] = 1
    model = RaCT(40, hidden=(), latent_dim=2, separate_heads=False, actor_epochs=1, critic_epochs=30, cutoff=10)
    model = RaCT.from_config(model.get_config() | {"critic_learning_rate": 0.01, "critic_hidden": (8,), "dropout": 0.5})
    model.decoder.last.kernel.assign(0 * model.decoder.last.kernel)
    model.decoder.last.bias.assign(np.repeat([3.0, 0.0], 20))
    model.attach(csr_array(x))
    model.compile(optimizer=keras.optimizers.Adam(0.0), jit_compile=False)
    noise = Noise(7, tf.constant(0))
    model.begin_epoch(1)
    well, badly = (float(model.objective(rows_of(x[part::2]), noise)["ndcg"]) for part in (0, 1))
    between = (well - badly) ** 2 / 4  # of the variance, what tells the two kinds of users
    assert between > 0.01
    batches = tf.data.Dataset.from_tensor_slices(np.arange(200).reshape(2, 100)).repeat()
    history = model.fit(batches, epochs=31, steps_per_epoch=2, shuffle=False, verbose=0).history
    assert history["critic_error"][0] > between
    # What remains is the variance within each kind, which depends on what dropout took.
    kinds = [float(model.objective(rows_of(x[part::2]), noise)["predicted_ndcg"]) for part in (0, 1)]
    assert kinds == pytest.approx([well, badly], abs=0.1) and well > badly + 0.3
    assert history["critic_error"][-1] < history["critic_error"][0] - 0.8 * between
