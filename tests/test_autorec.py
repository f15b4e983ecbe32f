"""AutoRec against dense formulas, and what must not reach it: test ratings, the missing ones."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from dense_reference import Recorded
from plain_fit import fit
from rating_rows import dense, random_ratings, ratings_at, ready

from tfvae.data.interactions import Interactions
from tfvae.data.splits import rating_holdout
from tfvae.models.autorec import AutoRec
from tfvae.nn.batches import RowStore
from tfvae.nn.item_layers import ItemLogits, WeightedEmbeddingBag
from tfvae.nn.layer_config import LayerConfig
from tfvae.nn.noise import Noise

EVERYONE = tf.range(7, dtype=tf.int64)


def make(**given):
    return AutoRec(13, units=6, seed=1, **given)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def predicted(model, ratings, inputs=None):
    """Equation 1 in float64, for the rows of a matrix."""
    (v, mu), (w, b) = ([x.numpy().astype(float) for x in (at.kernel, at.bias)] for at in (model.encoder, model.decoder))
    values, observed = dense(ratings)
    inputs = (values - observed * model.means.numpy()) if inputs is None else inputs
    return sigmoid(inputs @ v + mu) @ w.T + b


@pytest.mark.parametrize("center", [False, True])
def test_scores_equal_the_dense_formula(center):
    ratings = random_ratings()
    model = ready(make(center=center), ratings)
    found = model.scores(model.histories.gather(EVERYONE))
    np.testing.assert_allclose(found, predicted(model, ratings), rtol=1e-5, atol=1e-5)
    assert np.any(model.means.numpy() != 0) == center
    assert np.ptp(found, axis=0).min() > 0.01  # rows do differ


@pytest.mark.parametrize("given", [{}, {"center": True}, {"dropout": 0.4}], ids=str)
def test_loss_and_gradients_equal_the_dense_ones(given):
    ratings = random_ratings()
    model = ready(make(**given), ratings)
    (values, observed), rows = dense(ratings), model.histories.gather(EVERYONE)
    Recorded.drawn = {}
    with tf.GradientTape() as tape:
        loss = model.objective(rows, Recorded(1, tf.constant(0)))["loss"]
    found = tape.gradient(loss, [variable.value for variable in model.trainable_variables])

    inputs = values - observed * model.means.numpy()
    if "dropout" in given:
        kept = np.zeros_like(observed)
        kept[observed] = Recorded.drawn["encoder/dropout"] < 0.6
        assert 0 < kept.sum() < observed.sum()
        inputs = inputs * kept / 0.6
    copies = [tf.Variable(variable.numpy()) for variable in model.trainable_variables]
    with tf.GradientTape() as tape:
        v, mu, w, b = copies
        errors = tf.where(observed, tf.sigmoid(inputs @ v + mu) @ tf.transpose(w) + b - values, 0.0)
        expected = 0.5 * tf.reduce_sum(errors**2) / 7
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    for one, other in zip(found, tape.gradient(expected, copies), strict=True):
        assert np.abs(other).max() > 1e-3
        np.testing.assert_allclose(tf.convert_to_tensor(one), other, rtol=1e-4, atol=1e-5)


def test_outputs_that_are_not_observed_have_no_gradient():
    ratings = random_ratings()
    model = ready(make(weight_decay=0.0), ratings)
    observed = dense(ratings)[1][:2].any(axis=0)
    with tf.GradientTape() as tape:
        loss = model.objective(model.histories.gather(EVERYONE[:2]), Noise(1, tf.constant(0)))["loss"]
    kernel, bias = map(tf.convert_to_tensor, tape.gradient(loss, [w.value for w in model.decoder.weights]))
    assert 0 < observed.sum() < 12
    np.testing.assert_array_equal(np.abs(kernel).sum(axis=1) > 0, observed)
    np.testing.assert_array_equal(np.abs(bias) > 0, observed)


def test_a_rating_of_zero_is_no_missing_rating():
    values = random_ratings(empty=()).toarray()
    observed = values > 0
    row, column = np.argwhere(~observed[:, :-1])[0]
    stored = observed.copy()
    stored[row, column] = True
    missing, zero = (ready(make(), ratings_at(at, values)) for at in (observed, stored))
    losses = []
    for model in (missing, zero):
        model.decoder.bias.assign(np.full(13, 2.5))
        model.means.assign(np.zeros(13))
        losses.append(float(model.objective(model.histories.gather(EVERYONE), Noise(1, tf.constant(0)))["loss"]))
    expected = predicted(missing, ratings_at(observed, values))[row, column] ** 2 / 2 / 7
    assert losses[1] - losses[0] == pytest.approx(expected, rel=1e-3)


def test_weight_decay_is_of_both_kernels_and_no_bias():
    model = make(weight_decay=0.25)
    squares = sum((layer.kernel.numpy().astype(float) ** 2).sum() for layer in (model.encoder, model.decoder))
    for layer in (model.encoder, model.decoder):
        layer.bias.assign(layer.bias + 100.0)
    assert float(sum(model.losses)) == pytest.approx(0.25 * squares, rel=1e-5)


def test_it_starts_from_the_columns_damped_means_and_keeps_what_it_learnt():
    ratings = random_ratings()
    model = ready(make(), ratings)
    values, observed = dense(ratings)
    overall = values[observed].mean()
    expected = (values.sum(0) + 5 * overall) / (observed.sum(0) + 5)
    assert expected[~observed.any(0)] == pytest.approx(overall) and np.ptp(expected) > 0.1
    np.testing.assert_allclose(model.decoder.bias, expected, rtol=1e-6)
    fit(model, 7, 3, epochs=2)
    learnt = model.decoder.bias.numpy()
    assert np.abs(learnt - expected)[:-1].max() > 0.01
    model.attach(ratings)
    np.testing.assert_array_equal(model.decoder.bias, learnt)


def low_rank(n_users=60, n_items=40):
    """Ratings of one taste, with every pair observed."""
    generator = np.random.default_rng(0)
    taste, charm = generator.normal(size=(n_users, 1)), generator.normal(size=(1, n_items))
    users, items = np.indices((n_users, n_items)).reshape(2, -1)
    return Interactions.from_events(users, items, (3 + taste * charm).ravel().astype(np.float32))


@pytest.mark.slow
def test_it_learns_a_matrix_of_rank_one():
    split = rating_holdout(low_rank())
    model = ready(AutoRec(40, units=20, weight_decay=1e-3, seed=1), split.train, 0.01)
    before = root_mean_square(model, split)
    fit(model, 60, 10, epochs=60)
    assert before > 0.7 and root_mean_square(model, split) < 0.3 * before


def root_mean_square(model, split):
    users, items, values = split.test.triples()
    scores = model.scores(model.histories.gather(tf.range(split.train.shape[0]))).numpy()
    return np.sqrt(np.mean((scores[users, items] - values) ** 2))


@pytest.mark.slow
def test_test_ratings_do_not_reach_the_model():
    interactions = low_rank()
    split = rating_holdout(interactions)
    users, items, values = interactions.users, interactions.items, interactions.values
    is_test = split.test.targets.toarray()[users, items] != 0
    assert is_test.sum() == split.test.targets.nnz

    def scores(changed):
        other = rating_holdout(Interactions.from_events(users, items, np.where(changed, 1.0, values)))
        model = ready(AutoRec(40, units=6, seed=1), other.train)
        fit(model, 60, 20, epochs=2)
        return model.scores(model.histories.gather(tf.range(60)))

    untouched = scores(np.zeros_like(is_test))
    np.testing.assert_array_equal(scores(is_test), untouched)
    assert np.abs(scores(~is_test) - untouched).max() > 0.1


def test_the_outputs_at_stored_items_are_those_of_all():
    ratings = random_ratings()
    rows, layer = RowStore(ratings, with_values=True).gather(EVERYONE), ItemLogits(13, 6, LayerConfig(seed=1))
    hidden = tf.random.stateless_normal([7, 6], [1, 2])
    found = layer.at_the_items_of(rows, hidden)
    np.testing.assert_allclose(found, layer(hidden).numpy()[dense(ratings)[1]], rtol=1e-5, atol=1e-6)


def test_gradients_have_the_same_bits_each_time():
    # Large enough that TensorFlow divides the products among threads.
    ratings = random_ratings(500, 3000, density=0.1)
    rows, layer = (
        RowStore(ratings, with_values=True).gather(tf.range(500)),
        WeightedEmbeddingBag(3000, 300, LayerConfig(seed=1)),
    )
    upstream = tf.random.stateless_normal([500, 300], [1, 2])

    @tf.function
    def gradient():
        with tf.GradientTape() as tape:
            output = layer(rows)
        return tape.gradient(output, layer.kernel.value, output_gradients=upstream)

    first = gradient()
    for _ in range(10):
        np.testing.assert_array_equal(gradient(), first)
