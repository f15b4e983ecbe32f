"""Mult-VAE and Mult-DAE against an independent dense reference, and where Keras goes wrong without a word."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from dense_reference import Recorded, dense_loss, on_the_items, random_rows, rows_of, weights_of
from scipy.sparse import csr_array

from tfvae.models.multvae import MultDAE, MultVAE
from tfvae.nn.batches import row_numbers, steps_per_epoch
from tfvae.nn.noise import Noise
from tfvae.nn.optimizers import FusedAdam

LEARNING_RATE = 0.01
VAE = {"hidden": (9,), "latent_dim": 4, "anneal_updates": 10, "beta_cap": 1.0}


def ready(model, x, optimizer=None):
    """Compiled, with the rows attached."""
    model.attach(csr_array(x))
    model.compile(optimizer=optimizer or FusedAdam(LEARNING_RATE), jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model


def fit(model, x, batch_size, epochs=1, first_epoch=0, seed=1, **options):
    return model.fit(
        row_numbers(len(x), batch_size, seed, first_epoch),
        initial_epoch=first_epoch,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch(len(x), batch_size),
        shuffle=False,
        verbose=0,
        **options,
    ).history


MODELS = {
    "vae": lambda **s: MultVAE(13, **VAE, **s),
    "vae without hidden layers": lambda **s: MultVAE(13, **VAE | {"hidden": ()}, **s),
    "vae with two": lambda **s: MultVAE(13, **VAE | {"hidden": (9, 6)}, **s),
    "dae": lambda **s: MultDAE(13, latent_dim=4, **s),
    "dae with one hidden layer": lambda **s: MultDAE(13, hidden=(9,), latent_dim=4, **s),
}


@pytest.mark.slow
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
@pytest.mark.parametrize("name", MODELS)
def test_loss_and_one_adam_step_equal_the_dense_reference(name, weight_decay, monkeypatch):
    monkeypatch.setattr("tfvae.models.gradient.Noise", Recorded)
    x = random_rows()
    model = ready(MODELS[name](dropout=0.4, weight_decay=weight_decay), x)
    model.step.assign(7)  # β is 0.7
    encoder, decoder = weights_of(model)
    logs = model.train_step(tf.range(7, dtype=tf.int64))

    kept = on_the_items(x, Recorded.drawn["encoder_0/dropout"] < 0.6)
    assert 0 < kept.sum() < x.sum()
    part = {"beta": 0.7, "noise": Recorded.drawn["z"]} if isinstance(model, MultVAE) else {}
    flat = [weight for layer in [*encoder, *decoder] for weight in layer]
    with tf.GradientTape() as tape:
        loss = dense_loss(x, encoder, decoder, kept, dropout=0.4, weight_decay=weight_decay, **part)
    gradients = tape.gradient(loss, flat)

    assert float(logs["loss"]) == pytest.approx(float(loss), rel=1e-6)
    for variable, before, gradient, m, v in zip(
        model.trainable_variables,
        flat,
        gradients,
        model.optimizer._momentums,
        model.optimizer._velocities,
        strict=True,
    ):
        # After one step from zero the moments are the gradient and its square, scaled.
        m, v, scale = m.numpy(), v.numpy(), np.abs(gradient).max()
        np.testing.assert_allclose(m / 0.1, gradient, rtol=1e-5, atol=2e-6 * scale, err_msg=variable.path)
        np.testing.assert_allclose(v / 0.001, gradient**2, rtol=1e-4, atol=2e-6 * scale**2)
        rate = LEARNING_RATE * np.sqrt(1 - 0.999) / (1 - 0.9)
        step = rate * m / (np.sqrt(v) + 1e-8)
        np.testing.assert_allclose(variable.numpy(), before - step, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_scores_equal_the_dense_reference_without_noise(name):
    x = random_rows()
    model = MODELS[name](dropout=0.4)
    encoder, decoder = weights_of(model)
    part = {"beta": 0.0, "noise": 0.0} if isinstance(model, MultVAE) else {}
    nll = -tf.reduce_mean(tf.reduce_sum(x * tf.nn.log_softmax(model.scores(rows_of(x))), axis=1))
    assert float(nll) == pytest.approx(float(dense_loss(x, encoder, decoder, **part)), rel=1e-6)


def test_weight_decay_is_added_to_the_loss():
    x = random_rows()
    losses = {}
    for weight_decay in (0.0, 1.0):
        model = ready(MultDAE(13, latent_dim=4, weight_decay=weight_decay), x)
        squares = sum(float(tf.reduce_sum(w**2)) for w in model.trainable_variables if "kernel" in w.path)
        losses[weight_decay] = float(model.train_step(tf.range(7, dtype=tf.int64))["loss"])
    assert losses[1.0] - losses[0.0] == pytest.approx(squares, rel=1e-5)


@pytest.mark.parametrize("likelihood", ["gaussian", "logistic"])
def test_other_likelihoods_take_their_place_in_the_loss(likelihood, silent_noise):
    x = random_rows()
    model = ready(MultVAE(13, **VAE, likelihood=likelihood, c1=3.0, c0=0.5), x)
    f = model.scores(rows_of(x)).numpy()
    by_item = {
        "gaussian": np.where(x > 0, 3.0, 0.5) * (x - f) ** 2 / 2,
        "logistic": np.logaddexp(0, f) - x * f,
    }
    found = float(model.train_step(tf.range(7, dtype=tf.int64))["nll"])
    # dropout is silenced by uniform draws of 0, but divides by what it would keep
    assert found != pytest.approx(by_item[likelihood].sum(axis=1).mean(), rel=1e-4)
    model = ready(MultVAE(13, **VAE, likelihood=likelihood, c1=3.0, c0=0.5, dropout=0.0), x)
    found = float(model.train_step(tf.range(7, dtype=tf.int64))["nll"])
    assert found == pytest.approx(by_item[likelihood].sum(axis=1).mean(), rel=1e-5)


@pytest.mark.parametrize("model_class", [MultVAE, MultDAE])
def test_an_untrained_model_costs_n_log_items_a_user(model_class):
    # A mean over items, or a target that was normalised, would be hundreds of times less.
    x = random_rows(200, 1000, 0.03, empty=())
    logs = ready(model_class(1000), x).train_step(tf.range(200, dtype=tf.int64))
    assert float(logs["nll"]) == pytest.approx(x.sum(axis=1).mean() * np.log(1000), rel=0.03)


def test_the_first_half_of_the_code_is_the_mean_the_second_the_log_variance():
    model = MultVAE(13, hidden=(), latent_dim=2)
    model.encoder.first.kernel.assign(np.zeros((13, 4)))
    model.encoder.first.bias.assign([1.0, 2.0, np.log(9.0), np.log(16.0)])
    posterior = model.posterior(rows_of(random_rows()))
    np.testing.assert_allclose(posterior.mean()[0], [1, 2], rtol=1e-6)
    np.testing.assert_allclose(posterior.stddev()[0], [3, 4], rtol=1e-6)


def test_z_has_the_posteriors_mean_and_sd_in_training(monkeypatch):
    codes = []
    model = MultVAE(13, hidden=(), latent_dim=2, dropout=0.0)
    monkeypatch.setattr(model, "log_likelihood", lambda z, *_: codes.append(z) or tf.zeros(len(z)))
    rows = rows_of(np.tile(random_rows()[:1], (20_000, 1)))
    model.objective(rows, Noise(1, tf.constant(0)))
    posterior = model.posterior(rows)
    noise = ((codes[0] - posterior.mean()) / posterior.stddev()).numpy()
    assert noise.std() == pytest.approx(1, abs=5 / np.sqrt(2 * noise.size))
    assert noise.mean() == pytest.approx(0, abs=5 / np.sqrt(noise.size))


def test_predictions_have_no_noise_but_training_has():
    x = random_rows()
    model = ready(MultVAE(13, **VAE), x, FusedAdam(0.0))
    rows = rows_of(x)
    np.testing.assert_array_equal(model.scores(rows), model.scores(rows))
    np.testing.assert_array_equal(model(rows, training=True), model.scores(rows))
    np.testing.assert_allclose(model.scores(rows), model.decoder(model.posterior(rows).mean()), rtol=1e-6)
    nlls = [float(fit(model, x, 7, epochs=e + 1, first_epoch=e)["nll"][0]) for e in range(3)]
    assert len(set(nlls)) == 3


def test_logged_losses_are_means_over_users_with_a_partial_last_batch():
    x = random_rows(empty=(2,))
    model = ready(MultDAE(13, latent_dim=4, dropout=0.0, weight_decay=0.3), x, FusedAdam(0.0))
    history = fit(model, x, batch_size=4, epochs=2)
    by_user = -tf.reduce_sum(x * tf.nn.log_softmax(model.scores(rows_of(x))), axis=1)
    penalty = float(sum(model.losses))
    assert history["nll"] == pytest.approx([float(tf.reduce_mean(by_user))] * 2, rel=1e-6)
    assert history["loss"] == pytest.approx([float(tf.reduce_mean(by_user)) + penalty] * 2, rel=1e-6)
    # so a mean over batches would have been seen
    order = np.concatenate(list(row_numbers(7, 4, 1).take(2).as_numpy_iterator()))
    batches = by_user.numpy()[order]
    assert abs((batches[:4].mean() + batches[4:].mean()) / 2 - by_user.numpy().mean()) > 1e-3


def test_beta_rises_inside_the_compiled_step_and_is_logged():
    x = random_rows()
    model = ready(MultVAE(13, **VAE | {"beta_cap": 0.5}), x)
    history = fit(model, x, batch_size=4, epochs=4)  # updates 0, 1 | 2, 3 | 4, 5 | 6, 7
    assert history["beta"] == pytest.approx([0.1, 0.3, 0.5, 0.5])
    assert (int(model.step.numpy()), int(model.rows_seen.numpy())) == (8, 28)


def test_loss_is_nll_plus_beta_times_kl():
    x = random_rows()
    model = ready(MultVAE(13, **VAE), x)
    model.step.assign(3)
    logs = {name: float(value) for name, value in model.train_step(tf.range(7, dtype=tf.int64)).items()}
    assert logs["beta"] == pytest.approx(0.3) and logs["kl"] > 0.01
    assert logs["loss"] == pytest.approx(logs["nll"] + 0.3 * logs["kl"], rel=1e-6)


@pytest.mark.slow
def test_counters_and_beta_are_saved_but_not_trained(tmp_path):
    x = random_rows()
    model = ready(MultVAE(13, **VAE), x)
    fit(model, x, 4, epochs=3)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    states = [float(v.numpy()) for v in (loaded.step, loaded.rows_seen, loaded.beta)]
    assert states == pytest.approx([6, 21, 0.5])
    assert len(loaded.weights) == 11 and len(loaded.trainable_weights) == 8


def test_the_step_is_traced_once_whatever_the_batch_sizes(monkeypatch):
    x, traces = random_rows(11, empty=(3,)), []
    model = ready(MultVAE(13, **VAE), x)
    objective = model.objective
    monkeypatch.setattr(model, "objective", lambda *given: traces.append(1) or objective(*given))
    fit(model, x, batch_size=4, epochs=3)  # batches of 4, 4 and 3 users with varying numbers of items
    fit(model, x, batch_size=5, epochs=5, first_epoch=3)
    assert len(traces) == 1


def test_new_training_rows_are_not_ignored_by_a_compiled_step():
    x = random_rows(empty=())
    model = ready(MultDAE(13, latent_dim=4, dropout=0.0), x, FusedAdam(0.0))
    before = fit(model, x, 7)["nll"][0]
    model.attach(csr_array(np.ones_like(x)))
    assert fit(model, x, 7)["nll"][0] > 1.5 * before


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(("n_users", "batch_size"), [(8, 4), (7, 7), (8, 7)], ids=["even", "4 and 3", "1 and 0"])
def test_two_replicas_train_like_one(n_users, batch_size, silent_noise, two_replicas):
    x = random_rows(n_users)

    def build():
        return ready(MultVAE(13, **VAE, dropout=0.0, weight_decay=0.05), x)

    alone = build()
    with two_replicas.scope():
        together = build()
    histories = [fit(model, x, batch_size, epochs=2) for model in (alone, together)]
    for name, values in histories[0].items():
        assert histories[1][name] == pytest.approx(values, rel=1e-5), name
    start = build()
    for variable, *others in zip(alone.variables, together.variables, start.variables, strict=True):
        one, two, first = (v.numpy() for v in (variable, *others))
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6, err_msg=variable.path)
        assert not np.array_equal(one, first) or variable.path.endswith("cap")


@pytest.mark.slow
def test_mixed_precision_trains_like_float32():
    x = random_rows(40, 30, empty=(1,))
    histories = {}
    for dtype in ("float32", "mixed_bfloat16"):
        model = ready(MultVAE(30, hidden=(16,), latent_dim=8, anneal_updates=100, dtype=dtype), x)
        histories[dtype] = fit(model, x, 10, epochs=5)
        assert {v.dtype for v in model.trainable_variables} == {"float32"}
        assert model.scores(rows_of(x)).dtype == tf.float32
    assert histories["mixed_bfloat16"]["loss"] == pytest.approx(histories["float32"]["loss"], rel=0.01)
    assert histories["mixed_bfloat16"]["loss"] != histories["float32"]["loss"]


@pytest.mark.parametrize("door", ["scores", "__call__"])
def test_mixed_precision_counts_long_histories_exactly(door):
    # bfloat16 has no 257: a count cast on the way in would be 256, and the row too long.
    x = np.zeros((1, 300), np.float32)
    x[0, :257] = 1
    model = MultDAE(300, latent_dim=4, dtype="mixed_bfloat16")
    seen = []
    call = model.encoder.first.call
    model.encoder.first.call = lambda batch, noise=None: seen.append(batch.lengths) or call(batch, noise)
    getattr(model, door)(rows_of(x))
    assert seen[0].dtype == tf.float32 and float(seen[0][0]) == 257


def test_the_importance_weights_average_to_the_evidence_that_a_linear_gaussian_model_has_in_closed_form():
    model = MultVAE(13, hidden=(), latent_dim=2, likelihood="gaussian", c1=1.5, c0=0.5, dropout=0.0, seed=3)
    user = np.eye(13, dtype=np.float32)[[1, 4, 5]].sum(axis=0)
    kernel, bias = (weights.numpy().astype(float) for weights in (model.decoder.last.kernel, model.decoder.last.bias))
    confidence = np.where(user, 1.5, 0.5)
    rest, precision = user - bias, np.eye(2) + kernel.T * confidence @ kernel
    pull = kernel.T * confidence @ rest
    evidence = 0.5 * (pull @ np.linalg.solve(precision, pull) - confidence @ rest**2 - np.linalg.slogdet(precision)[1])

    n_draws = 20_000
    weights = np.exp(
        model.importance(rows_of(np.tile(user, (n_draws, 1))))(Noise(1, tf.constant(0))).numpy() - evidence
    )
    assert abs(weights.mean() - 1) < 5 * weights.std() / np.sqrt(n_draws) < 0.05
