"""The linear map of low rank: EDLAE's where nothing is cut off, a zero diagonal everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy.sparse import csr_array

from tfvae.data.synthetic import synthetic
from tfvae.models.edlae import EDLAE
from tfvae.nn.batches import RowStore, unpad
from tfvae.nn.low_rank_map import LowRankMap

N_USERS, N_ITEMS = 200, 40


@pytest.fixture(scope="module")
def train() -> csr_array:
    found = synthetic(n_users=N_USERS, n_items=N_ITEMS, n_events=2_000, n_tastes=4)
    return csr_array((np.ones(found.n_events, np.float32), (found.users, found.items)), shape=(N_USERS, N_ITEMS))


def penalties(train: csr_array, regularization: float = 5.0, dropout: float = 0.25) -> np.ndarray:
    return regularization + dropout / (1 - dropout) * np.bincount(train.indices, minlength=N_ITEMS)


def fitted(train: csr_array, rank: int) -> LowRankMap:
    layer = LowRankMap(N_ITEMS, rank)
    layer.fit(train, penalties(train))
    return layer


def test_at_full_rank_it_is_edlae(train):
    edlae = EDLAE(N_ITEMS, regularization=5.0, dropout=0.25, gram_precision="float64")
    edlae.fit_matrix(train, log=[].append)
    rows = RowStore(train).gather(tf.range(30, dtype=tf.int64))
    np.testing.assert_allclose(fitted(train, N_ITEMS)(rows), edlae.scores(rows), atol=2e-5)
    assert fitted(train, 10_000).factors.shape == (N_ITEMS, N_ITEMS)


def test_a_lower_rank_is_the_inverse_of_a_nearer_gram_matrix(train):
    """P of the map is the inverse of the Gram matrix's best approximation in the metric of Λ, plus Λ."""
    rank, diagonal = 4, penalties(train)  # one for each taste, beyond which the eigenvalues fall
    layer = fitted(train, rank)
    half = np.sqrt(diagonal)
    values, vectors = np.linalg.eigh((train.T @ train).toarray().astype(float) / np.outer(half, half))
    nearest = (vectors[:, -rank:] * values[-rank:]) @ vectors[:, -rank:].T * np.outer(half, half)
    precision = np.linalg.inv(nearest + np.diag(diagonal))
    expected = -precision / precision.diagonal()
    np.fill_diagonal(expected, 0)
    found = layer(unpad(tf.range(N_ITEMS)[:, None])).numpy()  # each row has one item
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_an_item_adds_nothing_to_itself(train):
    found = fitted(train, 6)(unpad(tf.constant([[3, -1], [3, 7], [-1, -1]]))).numpy()
    assert abs(found[0, 3]) < 1e-6
    only_seven = fitted(train, 6)(unpad(tf.constant([[7]]))).numpy()
    np.testing.assert_allclose(found[1, 3], only_seven[0, 3], atol=1e-6)
    assert not found[2].any()


def test_the_same_seed_gives_the_same_bits(train):
    one, other = fitted(train, 6), fitted(train, 6)
    np.testing.assert_array_equal(one.factors.numpy(), other.factors.numpy())
