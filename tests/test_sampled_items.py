"""Likelihoods estimated from sampled items, in exact expectation over all samples and drawn; rankings in blocks."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from dense_reference import random_rows, rows_of
from plain_fit import fit
from scipy.sparse import csr_array
from wide_tensors import wide_tensors

from tfvae.data.synthetic import synthetic
from tfvae.evaluation.scoring import top_k
from tfvae.models.blocks import ScoresBlocks
from tfvae.models.multvae import MultDAE, MultVAE
from tfvae.nn.batches import RowStore
from tfvae.nn.item_layers import ItemLogits
from tfvae.nn.item_sampler import ItemSampler, Sample
from tfvae.nn.likelihoods import LIKELIHOODS, Gaussian, Logistic, Multinomial
from tfvae.nn.noise import Noise
from tfvae.nn.ranking import best_in_blocks, best_unseen
from tfvae.serving.ranker import Ranker
from tfvae.training.adapt import settings_for
from tfvae.training.loop import prepare_to_fit
from tfvae.training.settings import settings_of

N_USERS, N_ITEMS = 7, 13
SAMPLED = {"gaussian": lambda f: Gaussian(f, 3.0, 0.5), "logistic": Logistic, "multinomial": Multinomial}


def noise(update: int, seed: int = 1) -> Noise:
    return Noise(seed, tf.constant(update, tf.int64))


# ---- the sampler ------------------------------------------------------------------------------------


def test_items_are_drawn_in_proportion_to_their_weights_and_weigh_the_reciprocal():
    weights = np.array([5.0, 0.0, 1.0, 2.0, 1e-9, 12.0])
    sampler = ItemSampler(weights, n_draws=50_000)
    assert sampler.shares.sum() == 1 and (sampler.shares > 0).all()
    np.testing.assert_allclose(sampler.shares, weights / weights.sum(), atol=1e-8)
    items, log_weights = (part.numpy() for part in sampler.draw(noise(0)))
    counts = np.zeros(6)
    counts[items] = np.rint(np.exp(log_weights) * 50_000 * sampler.shares[items])
    assert len(set(items)) == len(items) and counts.sum() == 50_000
    spread = np.sqrt(50_000 * sampler.shares * (1 - sampler.shares))
    assert (np.abs(counts - 50_000 * sampler.shares) <= 4 * spread + 1e-6).all()


def test_each_item_of_a_large_catalogue_can_be_drawn():
    n_items = 1_000_000
    sampler = ItemSampler(np.ones(n_items), n_draws=100_000)
    np.testing.assert_allclose(sampler.shares, 1 / n_items, rtol=1e-3)
    items = sampler.draw(noise(0)).items.numpy()
    assert 0 <= items.min() < 200 and n_items - 200 < items.max() < n_items
    # If a float32 chose among a million items, neighbours would be chosen unequally often.
    assert abs(np.mean(items % 2) - 0.5) < 0.01


def test_a_draw_is_a_function_of_seed_and_step_and_the_same_on_all_replicas(two_replicas):
    sampler = ItemSampler(np.ones(1000), n_draws=20)
    drawn = sampler.draw(noise(3)).items.numpy()
    np.testing.assert_array_equal(sampler.draw(noise(3)).items, drawn)
    assert not np.array_equal(sampler.draw(noise(4)).items, drawn)
    found = two_replicas.run(lambda: sampler.draw(noise(3)).items)
    for replica in two_replicas.experimental_local_results(found):
        np.testing.assert_array_equal(replica, drawn)


# ---- the estimates ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLED)
@pytest.mark.parametrize("order", [range(N_ITEMS), range(N_ITEMS - 1, -1, -1)], ids=["in order", "reversed"])
def test_from_all_items_once_each_value_and_gradients_are_exact(name, order):
    x, rng = random_rows(), np.random.default_rng(2)
    layer = ItemLogits(N_ITEMS, 4)
    hidden = tf.constant(rng.normal(size=(N_USERS, 4)), tf.float32)
    upstream = tf.constant(rng.normal(size=N_USERS), tf.float32)
    sample = Sample(tf.constant([*order], tf.int32), tf.zeros(N_ITEMS))

    def sampled():
        own, others, log_weights = layer.at_a_sample(rows_of(x), hidden, sample)
        return SAMPLED[name](others).log_prob_sampled(rows_of(x), own, log_weights)

    found = []
    for value in (lambda: SAMPLED[name](layer(hidden)).log_prob_rows(rows_of(x)), sampled):
        with tf.GradientTape() as tape:
            tape.watch(hidden)
            each = value()
            total = tf.reduce_sum(each * upstream)
        weights = [hidden, layer.kernel.value, layer.bias.value]
        found.append([each, *map(tf.convert_to_tensor, tape.gradient(total, weights))])
    assert np.abs(found[0][2]).max() > 0.1
    for exact, estimate in zip(*found, strict=True):
        np.testing.assert_allclose(estimate, exact, rtol=1e-4, atol=1e-5)


def test_likelihoods_of_two_names_are_all_tested():
    assert SAMPLED.keys() == LIKELIHOODS.keys() - {"bernoulli"}  # EVCF's, which has no sampled form of its own


def expectations(name: str, n_draws: int, scale: float, of_own: float = 0.0) -> dict[str, np.ndarray]:
    """The exact value and gradient of one user's likelihood, and the expectations of its estimates over all samples.

    Each of the 5ⁿ samples becomes a user of a batch, all with the same history and logits, and its probability weighs
    what is estimated from it.
    """
    rng = np.random.default_rng(4)
    own = np.array([1, 3])
    f = tf.constant(rng.normal(0, scale, 5) + of_own * np.isin(range(5), own), tf.float32)
    shares = np.array([0.3, 0.2, 0.1, 0.15, 0.25])
    samples = np.array([*itertools.product(range(5), repeat=n_draws)])
    weights = np.where(np.isin(samples, own), -np.inf, -np.log(n_draws * shares[samples])).astype(np.float32)
    chance = tf.constant(shares[samples].prod(axis=1), tf.float32)
    x = np.zeros((len(samples), 5), np.float32)
    x[:, own] = 1
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(f)
        exact = SAMPLED[name](f[None]).log_prob_rows(rows_of(x[:1]))[0]
        estimates = SAMPLED[name](tf.gather(f, samples)).log_prob_sampled(
            rows_of(x), tf.tile(tf.gather(f, own), [len(samples)]), weights
        )
        normalizers = tf.exp((tf.reduce_sum(tf.gather(f, own)) - estimates) / len(own))
        normalizer, all_of = tf.reduce_sum(chance * normalizers), tf.reduce_sum(tf.exp(f))
        value = tf.reduce_sum(chance * estimates)
    return {
        "exact": exact.numpy(),
        "estimate": value.numpy(),
        "exact gradient": tf.convert_to_tensor(tape.gradient(exact, f)).numpy(),
        "gradient": tf.convert_to_tensor(tape.gradient(value, f)).numpy(),
        "exact normalizer": np.append(all_of, tape.gradient(all_of, f)),
        "normalizer": np.append(normalizer, tf.convert_to_tensor(tape.gradient(normalizer, f))),
    }


@pytest.mark.parametrize("n_draws", [1, 2, 4])
def test_the_normalizer_and_its_gradient_are_unbiased(n_draws):
    of = expectations("multinomial", n_draws, scale=2.0)
    np.testing.assert_allclose(of["normalizer"], of["exact normalizer"], rtol=1e-5)


@pytest.mark.parametrize("name", ["gaussian", "logistic"])
def test_likelihoods_that_are_sums_over_items_have_unbiased_estimates_and_gradients(name):
    for n_draws in (1, 3):
        of = expectations(name, n_draws, scale=2.0)
        np.testing.assert_allclose(of["estimate"], of["exact"], rtol=1e-5)
        np.testing.assert_allclose(of["gradient"], of["exact gradient"], rtol=1e-4, atol=1e-5)


def test_the_bias_of_the_multinomial_gradient_falls_as_one_over_the_number_of_draws():
    def bias(n_draws):
        of = expectations("multinomial", n_draws, scale=0.5, of_own=3.0)  # so that few draws tell Z already
        return np.linalg.norm(of["gradient"] - of["exact gradient"]) / np.linalg.norm(of["exact gradient"])

    few, twice, more = bias(2), bias(4), bias(6)
    assert few > 0.005  # there is one
    assert 2 * twice == pytest.approx(few, rel=0.2)
    assert 3 * more == pytest.approx(few, rel=0.2)


@pytest.mark.slow
def test_at_a_thousand_draws_the_bias_is_within_the_error_of_a_hundred_gradients():
    n_items, train = 300, _interactions(40, 300)
    model = MultDAE(n_items, latent_dim=8, n_sampled=1024)
    model.attach(train)
    batch, kernel = model.histories.gather(tf.range(40)), model.decoder.last.kernel.value
    kernel.assign(0.3 * tf.random.stateless_normal(kernel.shape, [1, 2]))
    code = tf.random.stateless_normal([40, 8], [3, 4])

    @tf.function
    def gradient(update, exact):
        with tf.GradientTape() as tape:
            tape.watch(code)
            total = tf.reduce_sum(model.log_likelihood(code, batch, None if exact else Noise(1, update)))
        return tape.gradient(total, code)

    exact = gradient(tf.constant(0, tf.int64), True).numpy()
    drawn = np.array([gradient(tf.constant(update, tf.int64), False) for update in range(100)])
    off = (drawn.mean(axis=0) - exact) / (drawn.std(axis=0) / 10)
    assert np.mean(off**2) < 1.4  # 320 values, whose mean square is 1 without a bias
    assert drawn.std(axis=0).mean() < 0.2 * np.abs(exact).mean()


# ---- a step of a model ------------------------------------------------------------------------------


def _interactions(n_users: int, n_items: int) -> csr_array:
    events = synthetic(n_users, n_items, 5 * n_users)
    ones = np.ones(len(events.users), np.float32)
    return csr_array((ones, (events.users, events.items)), shape=(n_users, n_items))


# A number that no other dimension of the models has.
WIDE = 1009
SMALL = {"n_sampled": 16, "optimizer": "sparse-adam"}
STEPS = {
    "mult-vae": SMALL | {"hidden": [8], "latent_dim": 4, "weight_decay": 0.01},
    "mult-dae": SMALL | {"latent_dim": 4, "likelihood": "logistic"},
    "recvae": SMALL | {"hidden": [8, 8], "latent_dim": 4, "weight_decay": 0.01},
    "p-vae": {"embedding_dim": 5, "latent_dim": 4, "sparse_updates": True, "optimizer": "sparse-adam"},
}


def prepared(name: str, settings: dict):
    given = settings_of(name, settings)
    model = given.build(WIDE)
    train = _interactions(60, WIDE)
    prepare_to_fit(model, SimpleNamespace(train=train, scale=(1, 5)), 0.01, given.training.optimizer)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_nothing_in_a_step_is_as_wide_as_the_catalogue(name):
    model = prepared(name, STEPS[name])
    for phase in {model.phase_of(epoch) for epoch in range(4)}:
        model.phase = phase
        step = tf.function(model.train_step, autograph=False).get_concrete_function(tf.TensorSpec([None], tf.int64))
        assert wide_tensors(step, WIDE) == set(), phase


def test_what_is_wide_is_found():
    model = prepared("mult-vae", STEPS["mult-vae"] | {"n_sampled": 0})
    step = tf.function(model.train_step, autograph=False).get_concrete_function(tf.TensorSpec([None], tf.int64))
    assert {"MatMul", "Softmax", "ResourceApplyAdam"} <= wide_tensors(step, WIDE)


@pytest.mark.slow
def test_rows_that_a_step_does_not_need_keep_their_weights_to_the_bit():
    model = prepared("mult-vae", STEPS["mult-vae"])
    tables = [model.encoder.first.kernel, model.decoder.last.kernel, model.decoder.last.bias]
    before = [table.numpy() for table in tables]
    fit(model, 60, 60, epochs=1)
    own = np.unique(model.histories.gather(tf.range(60)).items)
    needed = np.union1d(own, model.sampler.draw(Noise(model.seed, tf.zeros([], tf.int64))).items)
    assert len(own) < len(needed) < WIDE
    for table, old, changed in zip(tables, before, (own, needed, needed), strict=True):
        moved = (table.numpy() != old).reshape(WIDE, -1).any(axis=1)
        np.testing.assert_array_equal(np.flatnonzero(moved), changed, err_msg=table.path)


def test_weight_decay_is_that_of_the_rows_of_a_step():
    model = prepared("mult-vae", STEPS["mult-vae"])
    batch, draw = model.histories.gather(tf.constant([0, 1, 2])), noise(5)
    own = np.unique(batch.items)
    both = np.union1d(own, model.sampler.draw(draw).items)
    first, last = model.encoder.first.kernel.numpy(), model.decoder.last.kernel.numpy()
    expected = 0.01 * ((first[own] ** 2).sum() + (last[both] ** 2).sum())
    np.testing.assert_allclose(model.row_decay(batch, draw), expected, rtol=1e-5)
    dense = [variable.path for variable in model.trainable_variables if variable.regularizer is not None]
    assert len(dense) == 2 and not any("logits" in path or "encoder_0" in path for path in dense)


def test_scores_and_bounds_are_those_of_all_items():
    plain, sampled = MultVAE(30, hidden=[8], latent_dim=4), MultVAE(30, hidden=[8], latent_dim=4, n_sampled=3)
    sampled.set_weights(plain.get_weights())
    x = np.eye(6, 30, dtype=np.float32)
    np.testing.assert_allclose(sampled(x), plain(x), rtol=1e-5, atol=1e-6)
    weights = [model.importance(rows_of(x))(noise(0)) for model in (sampled, plain)]
    np.testing.assert_allclose(*weights, rtol=1e-5)


def test_settings_for_data_take_the_sparse_optimiser_unless_one_is_given(tiny_split):
    said: list[str] = []
    assert settings_for("mult-vae", {"n_sampled": 9}, tiny_split, said.append).training.optimizer == "sparse-adam"
    assert sum(line.startswith("optimizer: sparse-adam instead of adam") for line in said) == 1
    given = {"n_sampled": 9, "optimizer": "adam"}
    assert settings_for("mult-vae", given, tiny_split, said.append).training.optimizer == "adam"
    assert settings_for("mult-vae", {}, tiny_split, said.append).training.optimizer == "adam"


# ---- rankings in blocks -----------------------------------------------------------------------------


@pytest.mark.parametrize(("block", "k", "again"), [(4, 5, False), (4, 15, True), (1, 3, False), (20, 13, False)])
def test_a_ranking_in_blocks_is_that_of_all_scores_to_the_last_rank(block, k, again):
    rng = np.random.default_rng(0)
    scores = tf.constant(rng.integers(0, 4, (N_USERS, N_ITEMS)), tf.float32)  # with many ties
    batch, masks = rows_of(random_rows()), [tf.constant(rng.random(shape) < 0.7) for shape in ((13,), (1, 13))]
    for allowed in ([], masks):
        masked = scores
        for mask in allowed:
            masked = tf.where(mask, masked, -np.inf)
        items, best, finite = best_in_blocks(
            lambda start, stop: scores[:, start:stop], N_ITEMS, block, batch, k, again=again, allowed=allowed
        )
        expected = best_unseen(masked, batch, k, again=again)
        np.testing.assert_array_equal(items, expected[0])
        np.testing.assert_array_equal(best, expected[1])
        assert finite.numpy().all()


def test_a_score_that_is_not_finite_is_found_in_any_block():
    scores = np.zeros((N_USERS, N_ITEMS), np.float32)
    scores[2, 11], scores[4, 0] = np.nan, np.inf
    found = best_in_blocks(lambda a, b: tf.constant(scores)[:, a:b], N_ITEMS, 5, rows_of(random_rows()), 3)[2]
    assert np.flatnonzero(~found.numpy()).tolist() == [2, 4]


BLOCKWISE = {
    "mult-vae": {"hidden": [8], "latent_dim": 4},
    "mult-dae": {"hidden": [8], "latent_dim": 4, "n_sampled": 5},
    "recvae": {"hidden": [8, 8], "latent_dim": 4, "n_sampled": 5},
    "p-vae": {"embedding_dim": 5, "latent_dim": 4, "sparse_updates": True},
}


@pytest.mark.parametrize("name", BLOCKWISE)
def test_evaluation_and_serving_rank_a_large_catalogue_in_blocks(name, monkeypatch):
    model, train = settings_of(name, BLOCKWISE[name]).build(40), _interactions(30, 40)
    assert isinstance(model, ScoresBlocks)
    rank = Ranker(model, range(40), None, (1, 5) if model.predicts_ratings else None)
    store = RowStore(train, with_values=model.predicts_ratings)
    batch, whole, served = (
        store.gather(tf.range(30)),
        *(top_k(model, train, 40), rank.places(store.gather(tf.constant([3])), 40)),
    )
    code = model.block_input(batch)
    parts = [model.scores_of_block(code, start, min(start + 7, 40)) for start in range(0, 40, 7)]
    np.testing.assert_allclose(tf.concat(parts, axis=1), model.scores(batch), rtol=1e-5, atol=1e-6)
    monkeypatch.setattr("tfvae.models.blocks.BLOCK", 7)
    monkeypatch.setattr(type(model), "scores", None)
    items, scores = top_k(model, train, 40)
    np.testing.assert_array_equal(items, whole[0])
    np.testing.assert_allclose(scores, whole[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(rank.places(store.gather(tf.constant([3])), 40)["items"], served["items"])
