"""The Boltzmann machine against enumeration of all its states, and contrastive divergence written out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf
from dense_reference import Recorded
from plain_fit import fit
from rating_rows import dense, random_ratings, ratings_at, ready
from scipy.sparse import csr_array
from scipy.special import expit, logsumexp, softmax

from tfvae.data.interactions import Interactions
from tfvae.data.splits import rating_holdout
from tfvae.models.rbm import RBM
from tfvae.nn.batches import RowStore
from tfvae.nn.noise import Noise
from tfvae.system.errors import InputError

N_ITEMS, N_LEVELS, N_UNITS = 3, 2, 3
LEVELS = (2.0, 5.0)
HIDDEN = np.array(list(itertools.product([0.0, 1.0], repeat=N_UNITS)))
RATINGS = ratings_at(
    np.array([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]], bool),
    np.array([[2, 5, 5], [5, 0, 2], [0, 2, 0], [0, 0, 0]], float),
)


def random_weights(model, seed=0):
    """Weights large enough that no two states are alike."""
    generator = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(generator.normal(size=variable.shape))
    return model


@pytest.fixture
def tiny() -> RBM:
    """Three items of two levels, three hidden units: all states can be enumerated."""
    return random_weights(ready(RBM(N_ITEMS, units=N_UNITS, n_levels=N_LEVELS, weight_decay=0.0), RATINGS))


def rows_of(ratings):
    return RowStore(ratings, with_values=True).gather(tf.range(ratings.shape[0]))


def parameters(model):
    """W [n_items, n_levels, units], b [n_items, n_levels] and c [units] in float64."""
    shape = (model.n_items, model.n_levels)
    kernel, c = (weight.numpy().astype(float) for weight in model.hidden_field.weights)
    return kernel.reshape(*shape, -1), model.visible_bias.numpy().astype(float).reshape(shape), c


def energy(model, levels: dict[int, int], hidden):
    """E(v, h) for the level of each observed item."""
    w, b, c = parameters(model)
    return -sum(b[i, k] + w[i, k] @ (hidden - 0.5) for i, k in levels.items()) - c @ hidden


def observed_levels(row):
    """The levels of a dense row of ratings by item."""
    return {i: LEVELS.index(r) for i, r in enumerate(row) if r}


def marginal(model, levels):
    """log Σ_h exp(-E(v, h))."""
    return logsumexp([-energy(model, levels, hidden) for hidden in HIDDEN])


def test_free_energy_and_hidden_probabilities_equal_the_sum_over_all_states(tiny):
    visibles = tiny.visibles(rows_of(RATINGS))
    free, probabilities = tiny.free_energy(visibles), tf.sigmoid(tiny.hidden_field(visibles))
    for user, row in enumerate(RATINGS.toarray()):
        levels = observed_levels(row)
        assert float(free[user]) == pytest.approx(-marginal(tiny, levels), rel=1e-5)
        weights = softmax([-energy(tiny, levels, hidden) for hidden in HIDDEN])
        np.testing.assert_allclose(probabilities[user], weights @ HIDDEN, rtol=1e-5)


def test_ratings_given_hidden_units_equal_the_sum_over_all_states(tiny):
    found = tf.nn.softmax(tiny.logits(tf.constant(HIDDEN, tf.float32))).numpy()
    states = [dict(enumerate(levels)) for levels in itertools.product(range(N_LEVELS), repeat=N_ITEMS)]
    for hidden, probabilities in zip(HIDDEN, found, strict=True):
        weights = softmax([-energy(tiny, state, hidden) for state in states])
        for item, level in itertools.product(range(N_ITEMS), range(N_LEVELS)):
            expected = sum(w for w, state in zip(weights, states, strict=True) if state[item] == level)
            assert probabilities[item, level] == pytest.approx(expected, rel=1e-5)


def test_scores_are_expectations_given_the_mean_field(tiny):
    rows = rows_of(RATINGS)
    w, b, c = parameters(tiny)
    for user, row in enumerate(RATINGS.toarray()):
        hidden = expit(c + sum(w[i, k] for i, k in observed_levels(row).items()))
        expected = softmax(b + w @ (hidden - 0.5), axis=1) @ LEVELS
        np.testing.assert_allclose(tiny.scores(rows)[user], expected, rtol=1e-5)


def test_logits_at_the_items_of_rows_are_those_of_all(tiny):
    rows, hidden = rows_of(RATINGS), tf.constant(HIDDEN[2:6], tf.float32)
    at_items = tiny.logits(hidden).numpy()[dense(RATINGS)[1]]
    np.testing.assert_allclose(tiny.logits(hidden, rows), at_items, rtol=1e-6)


def weights_of(model):
    return [model.hidden_field.kernel, model.hidden_field.bias, model.visible_bias]


def gradients(model, rows, noise):
    """Of the loss, in the order of `weights_of`, dense."""
    with tf.GradientTape() as tape:
        loss = model.objective(rows, noise)["loss"]
    found = tape.gradient(loss, [weight.value for weight in weights_of(model)])
    return [tf.convert_to_tensor(gradient).numpy() for gradient in found]


def assert_equal_gradients(found, expected, smallest, **tolerance):
    for one, other in zip(found, expected, strict=True):
        assert np.abs(other).max() > smallest
        np.testing.assert_allclose(one, other.reshape(one.shape), **tolerance)


def divergence_by_hand(model, ratings, drawn, steps):
    """The gradient of contrastive divergence in NumPy, from the same uniform draws."""
    w, b, c = parameters(model)
    values, observed = dense(ratings)

    def on(levels):
        return np.eye(model.n_levels)[levels] * observed[..., None]

    def probabilities(on):
        return expit(c + np.einsum("uik,ikj->uj", on, w))

    start = end = on(np.abs(values[..., None] - model.levels.numpy()).argmin(axis=2))
    for step in range(steps):
        hidden = (drawn[f"hidden/{step}"] < probabilities(end)).astype(float)
        below = softmax(b + np.einsum("ikj,uj->uik", w, hidden - 0.5), axis=2).cumsum(axis=2)
        uniform = np.zeros_like(values)
        uniform[observed] = drawn[f"visible/{step}"]
        end = on((uniform[..., None] > below[..., :-1]).sum(axis=2))

    def correlations(on):
        hidden = probabilities(on)
        return np.einsum("uik,uj->ikj", on, hidden - 0.5), hidden.sum(axis=0), on.sum(axis=0)

    pairs = zip(correlations(start), correlations(end), strict=True)
    return [(at_end - at_start) / len(values) for at_start, at_end in pairs]


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_the_gradient_is_that_of_contrastive_divergence(epoch):
    ratings = random_ratings(levels=(1, 2, 3.5))
    schedule = {"steps": 1, "later_steps": 3, "later_from": 2}
    model = random_weights(ready(RBM(13, units=4, n_levels=3, weight_decay=0.0, **schedule), ratings))
    model.rows_seen.assign(7 * epoch + 3)
    Recorded.drawn = {}
    found = gradients(model, rows_of(ratings), Recorded(1, tf.constant(0)))
    steps = 3 if epoch == 2 else 1
    assert Recorded.drawn.keys() == {f"{of}/{step}" for of in ("hidden", "visible") for step in range(steps)}
    expected = divergence_by_hand(model, ratings, Recorded.drawn, steps)
    assert_equal_gradients(found, expected, 0.05, rtol=1e-4, atol=1e-5)


def gradient_of_the_likelihood(model, ratings):
    """Of the mean log-likelihood of dense rows: all ratings at their places, all hidden units."""
    w, _, c = parameters(model)

    def expectations(states, weights):
        on = np.array([[[state.get(i) == k for k in range(N_LEVELS)] for i in range(N_ITEMS)] for state in states])
        hidden = expit(c + np.einsum("sik,ikj->sj", on, w))
        of_weights = np.einsum("s,sik,sj->ikj", weights, on, hidden - 0.5)
        return of_weights, weights @ hidden, np.einsum("s,sik->ik", weights, on)

    total = [0.0, 0.0, 0.0]
    for row in ratings:
        data = observed_levels(row)
        states = [dict(zip(data, levels, strict=True)) for levels in itertools.product(range(2), repeat=len(data))]
        weights = softmax([marginal(model, state) for state in states])
        pairs = zip(expectations([data], np.ones(1)), expectations(states, weights), strict=True)
        total = [
            sum_ + (at_data - at_model) / len(ratings) for sum_, (at_data, at_model) in zip(total, pairs, strict=True)
        ]
    return total


@pytest.mark.slow
def test_long_chains_give_the_gradient_of_the_likelihood():
    n_chains, given = 20_000, {"units": N_UNITS, "n_levels": N_LEVELS, "weight_decay": 0.0}
    rated = RATINGS[:2].toarray()
    many = np.tile(rated, (n_chains, 1))
    model = random_weights(ready(RBM(N_ITEMS, **given, steps=30), ratings_at(many > 0, many)))
    found = gradients(model, model.histories.gather(tf.range(2 * n_chains)), Noise(1, tf.constant(0)))
    expected = gradient_of_the_likelihood(model, rated)
    # An entry is a mean of 2 · n_chains draws from [-1, 1], of a sd of 0.5 at most.
    tolerance = 4 * 0.5 / (2 * n_chains) ** 0.5
    assert_equal_gradients(found, [-of for of in expected], 4 * tolerance, atol=tolerance)
    short = random_weights(ready(RBM(N_ITEMS, **given, steps=1), ratings_at(many > 0, many)))
    biased = gradients(short, short.histories.gather(tf.range(2 * n_chains)), Noise(1, tf.constant(0)))
    assert np.abs(biased[0] + expected[0].reshape(biased[0].shape)).max() > 2 * tolerance  # the tolerance tells


def test_weight_decay_is_of_the_weights_and_no_bias():
    model = random_weights(RBM(N_ITEMS, units=N_UNITS, weight_decay=0.25))
    squares = (model.hidden_field.kernel.numpy().astype(float) ** 2).sum()
    assert float(sum(model.losses)) == pytest.approx(0.25 * squares, rel=1e-5)


@pytest.mark.slow
def test_levels_and_first_biases_come_from_the_ratings():
    ratings = random_ratings(levels=(0.5, 1, 2, 4.5))
    model = ready(RBM(13, units=4, n_levels=4), ratings)
    np.testing.assert_array_equal(model.levels, [0.5, 1, 2, 4.5])
    frequencies = np.exp(model.visible_bias.numpy()).reshape(13, 4)
    np.testing.assert_allclose(frequencies.sum(axis=1), 1, rtol=1e-5)
    counts = np.array([(ratings.data == level).sum() for level in model.levels.numpy()])
    np.testing.assert_allclose(frequencies[-1], (counts + 1) / (counts + 1).sum(), rtol=1e-5)  # nobody rated it
    of_first = np.array([(ratings[:, [0]].data == level).sum() for level in model.levels.numpy()])
    np.testing.assert_allclose(frequencies[0], (of_first + frequencies[-1]) / (of_first.sum() + 1), rtol=1e-5)
    fit(model, 7, 3, epochs=2)
    learnt = model.visible_bias.numpy()
    model.attach(ratings)
    np.testing.assert_array_equal(model.visible_bias, learnt)


def test_a_rating_counts_as_the_nearest_level_and_a_missing_level_as_none():
    model = ready(RBM(13, units=4, n_levels=5), random_ratings(levels=(1, 3, 4)))
    np.testing.assert_array_equal(model.levels, [1, 3, 4, 4, 4])
    row = ratings_at(np.ones((1, 13), bool), np.array([[0, 1, 1.9, 2.1, 3, 3.4, 3.6, 4, 4.1, 5, 9, 1, 1]]))
    levels = model.visibles(rows_of(row)).items.numpy() % 5
    np.testing.assert_array_equal(levels, [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 0, 0])


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        (csr_array((4, 13)), "need ratings"),
        (random_ratings(levels=(1, 2, np.nan)), "finite"),
        (random_ratings(levels=(1, 2, np.inf)), "finite"),
        (random_ratings(levels=(1, 2, 2.5, 3)), "4 different ratings, from 1 to 3.*n_levels=4"),
    ],
    ids=["none", "nan", "infinite", "too many"],
)
def test_ratings_that_are_no_levels_are_refused(ratings, message):
    model = RBM(13, units=4, n_levels=3)
    with pytest.raises(InputError, match=message):
        model.attach(ratings)
    with pytest.raises(InputError, match="has no training rows"):
        model.histories.gather(tf.range(1))
    assert not model.levels.numpy().any()


@pytest.mark.slow
def test_a_trained_machine_refuses_ratings_that_it_has_not_met():
    model = ready(RBM(13, units=4, n_levels=3), random_ratings(levels=(1, 2, 3)))
    fit(model, 7, 3, epochs=1)
    model.attach(random_ratings(levels=(1, 3), seed=5))
    with pytest.raises(InputError, match=r"not \[4"):
        model.attach(random_ratings(levels=(1, 4)))


@pytest.mark.slow
def test_it_learns_tastes():
    generator = np.random.default_rng(0)
    users, items = np.indices((80, 30)).reshape(2, -1)
    agree = (users % 2) == (items % 2)
    values = np.where(agree, 4.0, 2.0) + generator.integers(0, 2, users.size)
    split = rating_holdout(Interactions.from_events(users, items, values))
    model = ready(RBM(30, units=10, weight_decay=1e-4, seed=1), split.train, 0.02)

    def error():
        users, items, values = split.test.triples()
        scores = model.scores(model.histories.gather(tf.range(80))).numpy()
        return np.sqrt(np.mean((scores[users, items] - values) ** 2))

    before = error()
    fit(model, 80, 10, epochs=40)
    # The noise alone is 0.5; without tastes it is 1.12.
    assert before > 1.0 and error() < 0.56
