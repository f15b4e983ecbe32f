"""LLORMA: kernel weights by hand, the weighted mean of local models, gradients on the ratings that are there only."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from plain_fit import fit
from rating_examples import low_rank, predicted
from scipy.sparse import csr_array

from tfvae.models.llorma import LLORMA, epanechnikov
from tfvae.nn.batches import RowStore, unpad
from tfvae.nn.noise import Noise
from tfvae.nn.optimizers import FusedAdam
from tfvae.system.errors import InputError

N_USERS, N_ITEMS = 14, 10
SMALL = {"local_models": 3, "rank": 2, "pre_rank": 2, "pre_regularization": 1.0, "regularization": 0.4}
START = Noise(0, tf.constant(0, tf.int64))


def some_ratings():
    return low_rank(N_USERS, N_ITEMS, noise=0.1)[0]


def ready(train, learning_rate=0.01, **settings):
    model = LLORMA(train.shape[1], train.shape[0], **SMALL | settings)
    model.attach(train)
    model.compile(optimizer=FusedAdam(learning_rate), jit_compile=False)
    return model


def float64(variable):
    return variable.numpy().astype(float)


def by_hand(model):
    """All predictions, in float64, one pair and one local model at a time."""
    k, kernel, p, q = map(float64, (model.user_weights, model.item_weights, model.user_factors, model.item_factors))
    found = np.full((len(p), len(q)), float(model.rating_mean.numpy()))
    for user, item in np.ndindex(found.shape):
        total = sum_of_weights = 0
        for t in range(model.local_models):
            own = slice(t * model.rank, (t + 1) * model.rank)
            weight = k[user, t] * kernel[item, t]
            total += weight * (p[user, own] @ q[item, own])
            sum_of_weights += weight
        found[user, item] += total / sum_of_weights if sum_of_weights else 0
    return found


def test_the_kernel_by_hand():
    # Angles to the first vector: 0, π/6, π/4, π/2, none; to the second: π/6, 0, π/12, π/3, none.
    vectors = np.array([[2, 0], [np.sqrt(3), 1], [3, 3], [0, 1], [0, 0]], float)
    found = epanechnikov(vectors, np.array([0, 1]), 0.8)
    sixth, fourth, twelfth = (1 - (np.pi / n) ** 2 for n in (6, 4, 12))
    np.testing.assert_allclose(found, [[1, sixth], [sixth, 1], [fourth, twelfth], [0, 0], [0, 0]], atol=1e-7)
    # 1 − (π/3)² is below zero, which is no weight, however wide the kernel.
    np.testing.assert_array_equal(epanechnikov(vectors, np.array([1]), 3.0)[3], 0)
    np.testing.assert_array_equal(epanechnikov(vectors, np.array([0]), 0.7)[2], 0)


def test_all_scores_are_the_weighted_mean_by_hand():
    train = some_ratings()
    model = ready(train, bandwidth=0.9)
    expected = by_hand(model)
    np.testing.assert_allclose(predicted(model, train), expected, rtol=1e-5)
    far = (model.user_weights.numpy() @ model.item_weights.numpy().T) == 0
    assert 0 < far.sum() < far.size
    np.testing.assert_array_equal(predicted(model, train)[far], model.rating_mean.numpy())


def test_two_local_models_by_hand():
    # μ = 3; weights ½·1 and 1·¼, of models that say 2 and −4: 3 + (½·2 − ¼·4) / ¾ = 3; without the second, 5.
    model = LLORMA(1, 2, local_models=2, rank=1)
    model.rating_mean.assign(3.0)
    model.user_weights.assign([[0.5, 1.0], [0.5, 0.0]])
    model.item_weights.assign([[1.0, 0.25]])
    model.user_factors.assign([[1.0, 2.0], [1.0, 2.0]])
    model.item_factors.assign([[2.0, -2.0]])
    found = model.scores(RowStore(csr_array((2, 1), dtype=np.float32), with_values=True).gather(tf.range(2)))
    np.testing.assert_allclose(found, [[3.0], [5.0]], rtol=1e-6)


def test_each_local_model_starts_able_to_hold_biases():
    model = LLORMA(300, 400, local_models=6, rank=5)
    for table, ones in ((model.user_factors, 0), (model.item_factors, 4)):
        start = table.numpy().reshape(-1, 6, 5)
        np.testing.assert_array_equal(start[:, :, ones], 1)
        assert np.delete(start, ones, axis=2).std() == pytest.approx(0.05, rel=0.02)
    rank_one = LLORMA(300, 400, local_models=6, rank=1)
    np.testing.assert_array_equal(rank_one.item_factors, 1)
    assert rank_one.user_factors.numpy().std() == pytest.approx(0.05, rel=0.1)


def test_anchors_are_ratings_and_follow_from_the_seed():
    train = some_ratings()
    weights = [
        (model.user_weights.numpy(), model.item_weights.numpy())
        for model in (ready(train, seed=1), ready(train, seed=1), ready(train, seed=2))
    ]
    np.testing.assert_array_equal(weights[0][0], weights[1][0])
    np.testing.assert_array_equal(weights[0][1], weights[1][1])
    assert not np.array_equal(weights[0][0], weights[2][0])
    for users, items in weights:
        for t in range(3):
            at = np.ix_(users[:, t] > 1 - 1e-6, items[:, t] > 1 - 1e-6)
            assert train.toarray()[at].any()
    np.testing.assert_array_equal(weights[0][0][3], 0)  # without ratings there is no vector, hence no angle
    np.testing.assert_array_equal(weights[0][1][7], 0)


def test_the_loss_is_that_of_the_paper_for_any_batch():
    train = some_ratings()
    model = ready(train)
    there = train.tocoo()
    errors = there.data - by_hand(model)[there.coords]
    penalty = 0.4 * sum(np.sum(float64(table) ** 2) for table in (model.user_factors, model.item_factors))
    batches = ([0, 3, 5, 11], [6], [user for user in range(N_USERS) if user not in (0, 3, 5, 11, 6)])
    parts = [model.objective(model.histories.gather(tf.constant(users)), START) for users in batches]
    for name, expected in (("loss", np.sum(errors**2) + penalty), ("squared_error", np.sum(errors**2))):
        total = sum(len(users) * part[name].numpy() for users, part in zip(batches, parts, strict=True))
        np.testing.assert_allclose(total, expected, rtol=1e-5)


def gradients(model, users):
    with tf.GradientTape() as tape:
        loss = model.objective(model.histories.gather(tf.constant(users)), START)["loss"]
    found = tape.gradient(loss, [model.user_factors.value, model.item_factors.value])
    return [tf.convert_to_tensor(gradient).numpy() for gradient in found]


def test_only_the_pairs_that_are_rated_have_a_gradient():
    train = some_ratings()
    model = ready(train, regularization=0.0, bandwidth=3.0)
    of_users, of_items = gradients(model, [0, 3, 5])
    near = (model.user_weights.numpy()[[0, 5]] @ model.item_weights.numpy().T) > 0
    rated = (train[[0, 5]].toarray() != 0) & near
    assert 0 < rated.any(axis=0).sum() < N_ITEMS
    np.testing.assert_array_equal(np.any(of_items, axis=1), rated.any(axis=0))
    np.testing.assert_array_equal(np.flatnonzero(np.any(of_users, axis=1)), [0, 5])


def test_the_gradient_is_that_of_finite_differences():
    model = ready(some_ratings())
    everyone = list(range(N_USERS))
    for variable, gradient in zip((model.user_factors, model.item_factors), gradients(model, everyone), strict=True):
        place = np.unravel_index(np.argmax(np.abs(gradient)), gradient.shape)
        kept, values = variable.numpy(), []
        for step in (1e-2, -1e-2):
            moved = kept.copy()
            moved[place] += step
            variable.assign(moved)
            values.append(float(model.objective(model.histories.gather(tf.constant(everyone)), START)["loss"]))
        variable.assign(kept)
        np.testing.assert_allclose((values[0] - values[1]) / 2e-2, gradient[place], rtol=1e-2)


@pytest.mark.slow
def test_it_learns_ratings_of_low_rank_and_scores_read_the_user_s_number_alone():
    train, full, hidden = low_rank(200, 60)
    model = ready(train, local_models=4, rank=4, bandwidth=1.5, regularization=0.05, pre_rank=2)
    fit(model, 200, 20, epochs=60)
    found = predicted(model, train)
    assert np.sqrt(np.mean((found - full)[hidden] ** 2)) < 0.4 < 0.9 < full[hidden].std()
    other = train.copy()
    other.data[:] = 1.0
    np.testing.assert_array_equal(predicted(model, other), found)


def test_compiled_it_scores_the_same():
    model = ready(some_ratings())
    store = RowStore(some_ratings(), with_values=True)
    whole = model.scores(store.gather(tf.range(N_USERS))).numpy()
    scores = tf.function(
        lambda users: model.scores(store.gather(users)), [tf.TensorSpec([None], tf.int64)], autograph=False
    )
    for size in (0, 1, N_USERS):
        np.testing.assert_allclose(scores(tf.range(size, dtype=tf.int64)), whole[:size], rtol=1e-5)
    assert whole.dtype == np.float32 and np.isfinite(whole).all()


def test_saved_and_loaded_it_predicts_the_same(tmp_path):
    train = some_ratings()
    model = ready(train)
    fit(model, N_USERS, 5, epochs=1)
    model.detach()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_config() == model.get_config() and loaded.n_users == N_USERS
    np.testing.assert_array_equal(predicted(loaded, train), predicted(model, train))
    assert np.ptp(predicted(loaded, train)) > 0.01


def test_whom_it_does_not_know_and_too_few_ratings_are_refused():
    with pytest.raises(InputError, match="give it n_users"):
        LLORMA(9)
    model = ready(some_ratings())
    with pytest.raises(InputError, match="knows only the .* users it was trained on"):
        model.scores(unpad(tf.constant([[1, 2]])))
    with pytest.raises(InputError, match="14 users, the training matrix has 11"):
        model.attach(some_ratings()[:11])
    with pytest.raises(InputError, match="90 local models need as many ratings"):
        ready(some_ratings(), local_models=90)
