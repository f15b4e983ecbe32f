"""RP3β against numbers worked by hand, walks taken one by one, and its limits."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.sparse import csr_array

from tfvae.evaluation.scoring import top_k
from tfvae.models import rp3beta
from tfvae.models.rp3beta import RP3Beta
from tfvae.nn.batches import RowStore
from tfvae.system.errors import InputError


def random_rows(n_users=50, n_items=23, seed=0):
    rng = np.random.default_rng(seed)
    return csr_array((rng.random((n_users, n_items)) < np.linspace(0.05, 0.5, n_items)).astype(np.float32))


def fitted(train, lines=None, **settings):
    model = RP3Beta(train.shape[1], **settings)
    model.fit_matrix(train, log=[].append if lines is None else lines.append)
    return model


def weights(model) -> np.ndarray:
    """W as a dense matrix, from the weights that are kept."""
    dense = np.zeros((model.n_items, model.n_items))
    rows = np.arange(model.n_items)[:, None]
    np.add.at(dense, (rows, model.neighbor_items.numpy()), model.neighbor_weights.numpy())
    return dense


def walks(train, alpha, beta) -> np.ndarray:
    """W by walking from each item over each user to each other item."""
    x = train.toarray()
    of_item, of_user = x.sum(axis=0), x.sum(axis=1)
    found = np.zeros((x.shape[1], x.shape[1]))
    for i in range(x.shape[1]):
        for user in np.flatnonzero(x[:, i]):
            for j in np.flatnonzero(x[user]):
                if i != j:
                    found[i, j] += (1 / of_item[i]) ** alpha * (1 / of_user[user]) ** alpha / of_item[j] ** beta
    return found


def scores_of(model, rows) -> np.ndarray:
    return model.scores(RowStore(rows).gather(tf.range(rows.shape[0], dtype=tf.int64))).numpy()


def test_three_items_by_hand():
    # Items have 1, 2 and 1 users, users have 2 items each. 0 → 1: 1 · ½ / 2^β, 1 → 0: ½ · ½ / 1, 0 → 2: no walk.
    train = csr_array(np.array([[1, 1, 0], [0, 1, 1]], np.float32))
    model = fitted(train, alpha=1.0, beta=2.0)
    expected = np.array([[0, 1 / 8, 0], [1 / 4, 0, 1 / 4], [0, 1 / 8, 0]])
    np.testing.assert_allclose(weights(model), expected)
    np.testing.assert_allclose(scores_of(model, train), [[1 / 4, 1 / 8, 1 / 4], [1 / 4, 1 / 8, 1 / 4]])


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (0.5, 0.6), (1.3, 0.4), (0.0, 0.0)])
@pytest.mark.parametrize("items_at_once", [1, 7, 1000])
def test_weights_are_those_of_all_walks_whatever_the_blocks(alpha, beta, items_at_once, monkeypatch):
    monkeypatch.setattr(rp3beta, "ITEMS_AT_ONCE", items_at_once)
    train = random_rows()
    expected = walks(train, alpha, beta)
    model = fitted(train, alpha=alpha, beta=beta)
    np.testing.assert_allclose(weights(model), expected, rtol=1e-6)
    np.testing.assert_allclose(scores_of(model, train), train.toarray() @ expected, rtol=1e-5)


def test_only_the_largest_weights_of_each_item_are_kept():
    train, kept = random_rows(), 4
    model, expected = fitted(train, alpha=1.0, beta=0.5, neighbors=kept), walks(train, 1.0, 0.5)
    for item, row in enumerate(expected):
        largest = np.argsort(-row, kind="stable")[:kept]
        assert model.neighbor_items.numpy()[item].tolist() == largest.tolist()
        np.testing.assert_allclose(model.neighbor_weights.numpy()[item], row[largest], rtol=1e-6)


def test_equal_weights_are_kept_in_the_order_of_the_items():
    train = csr_array(np.ones((3, 6), np.float32))
    assert fitted(train, neighbors=2).neighbor_items.numpy().tolist() == [[1, 2]] + [[0, 2]] + [[0, 1]] * 4


def test_popularity_is_damped_by_beta():
    # One rare and one popular item, each met beside item 0 by the same single user.
    train = csr_array(np.array([[1, 1, 1, 0]] + [[0, 1, 0, 1]] * 8, np.float32))
    history = csr_array(np.array([[1, 0, 0, 0]], np.float32))
    plain, damped = (scores_of(fitted(train, beta=beta), history)[0] for beta in (0.0, 1.0))
    assert plain[1] == pytest.approx(plain[2]) and damped[1] == pytest.approx(damped[2] / 9)


def test_items_without_users_users_without_items_and_empty_histories_are_zero_and_finite():
    train = csr_array(np.array([[1, 1, 0], [0, 0, 0], [1, 0, 0]], np.float32))
    model = fitted(train, alpha=0.5, beta=0.7)
    found = scores_of(model, csr_array(np.array([[0, 0, 0], [0, 0, 1], [1, 0, 0]], np.float32)))
    assert (found[:2] == 0).all() and found[2, 1] > 0 and np.isfinite(found).all()


def test_memory_does_not_grow_with_the_square_of_the_catalogue():
    model = RP3Beta(200_000, neighbors=3)
    assert model.n_parameters == 2 * 3 * 200_000
    train = csr_array(([1.0, 1.0, 1.0], ([0, 0, 1], [5, 199_999, 5])), shape=(2, 200_000), dtype=np.float32)
    model.fit_matrix(train, log=[].append)
    items, scores = top_k(model, train, k=1)
    assert items[:, 0].tolist() == [0, 199_999] and scores[1, 0] > 0


def test_it_comes_back_from_its_file_bit_by_bit(tmp_path):
    train = random_rows()
    model = fitted(train, neighbors=5, alpha=0.8)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert again.get_config() == model.get_config()
    np.testing.assert_array_equal(scores_of(again, train), scores_of(model, train))


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="made for 4 items, the training matrix has 23"):
        RP3Beta(4).fit_matrix(random_rows(), log=[].append)
    with pytest.raises(InputError, match="expects a binary training matrix"):
        RP3Beta(23).fit_matrix(random_rows() * 2, log=[].append)
    for wrong in ({"alpha": -0.1}, {"beta": -1.0}, {"neighbors": 0}):
        with pytest.raises(InputError):
            RP3Beta(4, **wrong)
