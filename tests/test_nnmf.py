"""NNMF against NumPy: the network by hand; loss and gradients on the ratings that are there, and on no others."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from plain_fit import fit
from rating_examples import low_rank, predicted
from scipy.sparse import csr_array

from tfvae.models.nnmf import NNMF
from tfvae.nn.batches import RowStore, unpad
from tfvae.nn.noise import Noise
from tfvae.nn.optimizers import FusedAdam
from tfvae.system.errors import InputError

N_USERS, N_ITEMS = 12, 9
SMALL = {"features": 2, "products": 3, "product_rank": 2, "hidden": (4, 5), "regularization": 0.7}


def some_ratings(seed=0):
    """Whole numbers of stars; user 3 and item 7 have none."""
    rng = np.random.default_rng(seed)
    dense = rng.integers(1, 6, size=(N_USERS, N_ITEMS)) * (rng.random((N_USERS, N_ITEMS)) < 0.5)
    dense[3], dense[:, 7] = 0, 0
    return csr_array(dense.astype(np.float32))


def ready(train, learning_rate=0.01, **settings):
    model = NNMF(train.shape[1], train.shape[0], **SMALL | settings)
    model.attach(train)
    model.compile(optimizer=FusedAdam(learning_rate), jit_compile=False)
    return model


def by_hand(model, users, items):
    """The prediction for each of the pairs, in float64, one at a time."""
    d, products, rank = model.features, model.products, model.product_rank
    tables = [table.numpy().astype(float) for table in (model.user_features, model.item_features)]
    weights = [[w.numpy().astype(float) for w in (layer.kernel, layer.bias)] for layer in model.network]
    found = []
    for user, item in zip(users, items, strict=True):
        u, v = tables[0][user], tables[1][item]
        inner = [sum(u[d + j * rank + k] * v[d + j * rank + k] for k in range(rank)) for j in range(products)]
        code = np.concatenate([u[:d], v[:d], inner])
        for kernel, bias in weights[:-1]:
            code = 1 / (1 + np.exp(-(code @ kernel + bias)))
        found.append((code @ weights[-1][0] + weights[-1][1])[0] + float(model.rating_mean.numpy()))
    return np.array(found)


@pytest.mark.parametrize("rank", [1, 2])
def test_all_scores_are_the_network_by_hand(rank):
    train = some_ratings()
    model = ready(train, product_rank=rank)
    users, items = np.indices(train.shape).reshape(2, -1)
    np.testing.assert_allclose(predicted(model, train).ravel(), by_hand(model, users, items), rtol=1e-5)
    assert np.ptp(predicted(model, train)) > 0.01


def test_the_loss_is_that_of_the_paper_for_any_batch():
    # Over all batches of an epoch, weighted by their users, it is the whole sum divided by the number of users.
    train = some_ratings()
    model = ready(train)
    there = train.tocoo()
    errors = there.data - by_hand(model, *there.coords)
    tables = [table.numpy().astype(float) for table in (model.user_features, model.item_features)]
    whole = np.sum(errors**2) + 0.7 * sum(np.sum(table**2) for table in tables)
    noise = Noise(0, tf.constant(0, tf.int64))
    parts = [model.objective(model.histories.gather(tf.constant(users)), noise) for users in ([0, 3, 5, 11], [6])]
    rest = [user for user in range(N_USERS) if user not in (0, 3, 5, 11, 6)]
    parts.append(model.objective(model.histories.gather(tf.constant(rest)), noise))
    sizes = (4, 1, len(rest))
    total = sum(size * part["loss"].numpy() for size, part in zip(sizes, parts, strict=True))
    np.testing.assert_allclose(total, whole, rtol=1e-5)
    total = sum(size * part["squared_error"].numpy() for size, part in zip(sizes, parts, strict=True))
    np.testing.assert_allclose(total, np.sum(errors**2), rtol=1e-5)


def gradients(model, users):
    with tf.GradientTape() as tape:
        batch = model.histories.gather(tf.constant(users))
        loss = model.objective(batch, Noise(0, tf.constant(0, tf.int64)))["loss"]
    found = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    return [tf.convert_to_tensor(gradient).numpy() for gradient in found]


def test_only_the_pairs_that_are_rated_have_a_gradient():
    train = some_ratings()
    model = ready(train, regularization=0.0)
    names = [variable.name for variable in model.trainable_variables]
    of = dict(zip(names, gradients(model, [0, 3, 5]), strict=True))
    rated = np.zeros(N_ITEMS, bool)
    rated[train[[0, 5]].indices] = True
    assert 0 < rated.sum() < N_ITEMS
    np.testing.assert_array_equal(np.any(of["item_features"], axis=1), rated)
    np.testing.assert_array_equal(np.flatnonzero(np.any(of["user_features"], axis=1)), [0, 5])
    assert all(np.any(gradient) for gradient in of.values())


def test_the_gradient_is_that_of_finite_differences():
    train = some_ratings()
    model = ready(train)
    everyone = list(range(N_USERS))
    noise = Noise(0, tf.constant(0, tf.int64))
    for variable, gradient in zip(model.trainable_variables, gradients(model, everyone), strict=True):
        place = np.unravel_index(np.argmax(np.abs(gradient)), gradient.shape)
        kept, values = variable.numpy(), []
        for step in (1e-2, -1e-2):
            moved = kept.copy()
            moved[place] += step
            variable.assign(moved)
            values.append(float(model.objective(model.histories.gather(tf.constant(everyone)), noise)["loss"]))
        variable.assign(kept)
        np.testing.assert_allclose((values[0] - values[1]) / 2e-2, gradient[place], rtol=2e-2, err_msg=variable.name)


@pytest.mark.slow
def test_what_is_held_out_is_never_read():
    # The model of a matrix in which other ratings are hidden is not trained on these, whatever they are.
    train = some_ratings()
    model = ready(train)
    fit(model, N_USERS, 5, epochs=2)
    before = predicted(model, train)
    other = train.copy()
    other.data[:] = 1.0
    np.testing.assert_array_equal(predicted(model, other), before)  # scores read the user's number alone
    again = ready(train)
    fit(again, N_USERS, 5, epochs=2)
    np.testing.assert_array_equal(predicted(again, train), before)


@pytest.mark.slow
def test_it_learns_ratings_of_low_rank_that_it_has_not_seen():
    train, full, hidden = low_rank(200, 60)
    settings = {"features": 4, "products": 8, "product_rank": 1, "hidden": (16,), "regularization": 0.02}
    model = ready(train, 0.01, **settings)
    fit(model, 200, 20, epochs=60)
    error = np.sqrt(np.mean((predicted(model, train) - full)[hidden] ** 2))
    assert error < 0.4 < 0.9 < full[hidden].std()


def test_initial_weights_are_those_of_the_paper():
    model = NNMF(3000, 4000)
    for table in (model.user_features, model.item_features):
        assert table.shape[1] == 70 and np.abs(table).max() <= 0.2
        # A normal cut at two deviations has 0.88 of its deviation.
        assert np.std(table) == pytest.approx(0.088, rel=0.01)
    assert [layer.kernel.shape for layer in model.network] == [(80, 50), (50, 50), (50, 1)]
    for layer in model.network:
        limit = 4 * np.sqrt(6 / sum(layer.kernel.shape))
        kernel = layer.kernel.numpy()
        assert 0.9 * limit < np.abs(kernel).max() <= limit
        if layer is not model.network[-1]:
            np.testing.assert_array_equal(layer.bias, 0)
    nobody = tf.zeros([1, 70])  # of whom it says the mean rating, which is 0 before there are ratings
    assert abs(model.predict_pairs(nobody, nobody)[0]) < 1e-5 < abs(model.network[-1].bias[0])
    assert model.n_parameters == 7000 * 70 + 80 * 50 + 50 + 50 * 50 + 50 + 50 + 1


def test_features_and_network_learn_at_rates_of_their_own():
    train = some_ratings()
    model = ready(train, 0.01, network_learning_rate=1e-6)
    before = [variable.numpy() for variable in model.trainable_variables]
    fit(model, N_USERS, N_USERS, epochs=1)
    moved = [np.abs(v.numpy() - b).max() for v, b in zip(model.trainable_variables, before, strict=True)]
    # Adam's first step is as long as the rate.
    np.testing.assert_allclose(moved[:2], 0.01, rtol=1e-2)
    np.testing.assert_allclose(moved[2:], 1e-6, rtol=0.5)


def test_an_empty_row_and_an_item_without_ratings_are_finite():
    train = some_ratings()
    model = ready(train)
    fit(model, N_USERS, 5, epochs=2)
    found = predicted(model, train)
    assert np.isfinite(found).all() and found.dtype == np.float32


def test_compiled_it_scores_the_same():
    model = ready(some_ratings())
    store = RowStore(some_ratings(), with_values=True)
    whole = model.scores(store.gather(tf.range(N_USERS))).numpy()
    scores = tf.function(
        lambda users: model.scores(store.gather(users)), [tf.TensorSpec([None], tf.int64)], autograph=False
    )
    for size in (0, 1, N_USERS):
        np.testing.assert_allclose(scores(tf.range(size, dtype=tf.int64)), whole[:size], rtol=1e-5)


def test_mixed_precision_is_float32_and_near():
    train = some_ratings()
    model = ready(train)
    half = NNMF.from_config(model.get_config() | {"dtype": "mixed_bfloat16"})
    half.set_weights(model.get_weights())
    scores = predicted(half, train)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, predicted(model, train), atol=0.05)
    assert not np.array_equal(scores, predicted(model, train))


def test_saved_and_loaded_it_predicts_the_same(tmp_path):
    train = some_ratings()
    model = ready(train)
    fit(model, N_USERS, 5, epochs=1)
    model.detach()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_config() == model.get_config() and loaded.n_users == N_USERS
    np.testing.assert_array_equal(predicted(loaded, train), predicted(model, train))


def test_whom_it_does_not_know_it_refuses():
    with pytest.raises(InputError, match="give it n_users"):
        NNMF(9)
    model = ready(some_ratings())
    with pytest.raises(InputError, match="knows only the .* users it was trained on"):
        model.scores(unpad(tf.constant([[1, 2]])))
    with pytest.raises(InputError, match="12 users, the training matrix has 11"):
        model.attach(some_ratings()[:11])
    with pytest.raises(InputError, match="9 items, the training matrix has 8"):
        model.attach(some_ratings()[:, :8])
