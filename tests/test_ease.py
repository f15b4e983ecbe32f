"""EASE against hand-worked numbers, its conditions of optimality, float64 and planted structure."""

from __future__ import annotations

import gc
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from scipy.sparse import csr_array

from tfvae.evaluation.scoring import top_k
from tfvae.models import ease, inversion, item_item
from tfvae.models.ease import EASE
from tfvae.models.item_item import gram
from tfvae.nn.arrays import aligned_zeros, handed_over
from tfvae.nn.batches import RowStore
from tfvae.system.errors import InputError, TooLargeError
from tfvae.system.memory import forget_peak, peak_gb

ML_1M = Path(__file__).parents[2] / "shared" / "data" / "ml-1m" / "ratings.csv.xz"


def random_rows(n_users=300, n_items=25, seed=0):
    rng = np.random.default_rng(seed)
    return csr_array((rng.random((n_users, n_items)) < np.linspace(0.05, 0.5, n_items)).astype(np.float32))


def fitted(train, lines=None, **settings):
    model = EASE(train.shape[1], **settings)
    model.fit_matrix(train, log=[].append if lines is None else lines.append)
    return model


@pytest.fixture(scope="module")
def ml_1m() -> csr_array:
    if not ML_1M.exists():
        pytest.skip(f"MovieLens-1M is not at {ML_1M}")
    ratings = pd.read_csv(ML_1M).query("rating >= 4")
    users, items = ratings.userId.factorize()[0], ratings.movieId.factorize()[0]
    return csr_array((np.ones(len(users), np.float32), (users, items)))


def test_memory_holds_the_matrix_once_to_fit_and_to_score():
    n_items = 6000
    train = csr_array((np.ones(n_items, np.float32), (np.arange(n_items), np.arange(n_items))))
    rows = RowStore(train).gather(tf.range(3, dtype=tf.int64))
    fitted(train[:100, :100])  # loads LAPACK
    gc.collect()
    forget_peak()
    before = peak_gb()
    model = fitted(train)
    assert peak_gb() - before < 1.8 * 0.144, "the matrix has 0.144 GB, and blocks of its rows some more"
    tf.function(model.scores, autograph=False)(rows)
    forget_peak()
    before = peak_gb()
    assert not tf.function(model.scores, autograph=False)(rows).numpy().any()
    assert peak_gb() - before < 0.1


def test_only_what_tensorflow_can_use_is_handed_over():
    array = aligned_zeros((3, 5), np.float32)
    array[:] = np.arange(15).reshape(3, 5)
    np.testing.assert_array_equal(handed_over(array), np.arange(15).reshape(3, 5))
    for other in (array[:, 1:], array[1:], array.T):
        with pytest.raises(ValueError, match="only a whole array from aligned_zeros"):
            handed_over(other)


def test_three_items_by_hand():
    # G + I = [[2,1,0],[1,3,1],[0,1,2]] has the inverse [[5,-2,1],[-2,4,-2],[1,-2,5]] / 8.
    train = csr_array(np.array([[1, 1, 0], [0, 1, 1]], np.float32))
    expected = [[0, 1 / 2, -1 / 5], [2 / 5, 0, 2 / 5], [-1 / 5, 1 / 2, 0]]
    model = fitted(train, regularization=1.0)
    np.testing.assert_allclose(model.item_weights, expected, atol=1e-6)
    scores = model.scores(RowStore(train).gather(tf.constant([1, 0])))
    np.testing.assert_allclose(scores, [[1 / 5, 1 / 2, 2 / 5], [2 / 5, 1 / 2, 1 / 5]], atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize(("block", "strip"), [(4, 7), (7, 4), (25, 25), (100, 100), (1, 1)])
def test_a_wide_catalogue_is_inverted_in_blocks_with_the_same_result(block, strip, precision, monkeypatch):
    train, settings = random_rows(), {"regularization": 10.0, "gram_precision": precision}
    at_once = fitted(train, **settings).item_weights.numpy()
    monkeypatch.setattr(ease, "MOST_AT_ONCE", 0)
    monkeypatch.setattr(inversion, "BLOCK", block)
    monkeypatch.setattr(inversion, "STRIP", strip)
    lines = []
    in_blocks = fitted(train, lines, **settings).item_weights.numpy()
    np.testing.assert_allclose(in_blocks, at_once, atol=2e-6 if precision == "float32" else 1e-7)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_blocks_read_the_lower_triangle_only_and_see_what_is_not_positive_definite(precision, monkeypatch):
    monkeypatch.setattr(inversion, "BLOCK", 5)
    rows = np.random.default_rng(0).normal(size=(40, 23))
    matrix = (rows.T @ rows + np.eye(23)).astype(precision)
    half = np.tril(matrix) + np.triu(np.full_like(matrix, np.nan), 1)
    done = []
    assert inversion.invert_in_blocks(half, done.append) and done == [5, 10, 15, 20, 23]
    np.testing.assert_allclose(np.tril(half), np.tril(np.linalg.inv(matrix.astype(float))), atol=1e-5)
    matrix[12, 12] = -1
    assert not inversion.invert_in_blocks(matrix)


@pytest.mark.parametrize("rows_at_once", [1, 7, 1000])
def test_the_gradient_of_the_lagrangian_vanishes_off_the_diagonal(monkeypatch, rows_at_once):
    monkeypatch.setattr(ease, "ROWS_AT_ONCE", rows_at_once)
    train = random_rows()
    weights = fitted(train, regularization=10.0, gram_precision="float64").item_weights.numpy().astype(float)
    co_occurrence = (train.T @ train).toarray().astype(float)
    gradient = co_occurrence @ weights - co_occurrence + 10 * weights
    multipliers = np.diagonal(gradient).copy()
    np.fill_diagonal(gradient, 0)
    np.testing.assert_allclose(gradient, 0, atol=1e-4)
    assert np.abs(multipliers).min() > 1
    np.testing.assert_array_equal(np.diagonal(weights), 0)
    assert np.abs(weights - weights.T).max() > 0.01


def test_the_gram_matrix_counts_exactly():
    train = random_rows()
    counts = gram(train)
    np.testing.assert_array_equal(counts, (train.T @ train).toarray())
    np.testing.assert_array_equal(np.diagonal(counts), np.bincount(train.indices, minlength=25))
    assert counts.dtype == np.float32 and counts.flags.c_contiguous


def test_items_and_users_without_events_are_counted_as_none():
    train = csr_array(np.array([[1, 0, 0], [0, 0, 0]], np.float32))
    np.testing.assert_array_equal(gram(train), [[1, 0, 0], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(fitted(train).item_weights, np.zeros((3, 3)))


@pytest.mark.slow
def test_on_real_data_the_diagonal_is_exact_and_float32_suffices(monkeypatch, ml_1m):
    counts = gram(ml_1m)
    np.testing.assert_array_equal(np.diagonal(counts), np.bincount(ml_1m.indices))

    def counted(_, dtype):
        again = aligned_zeros(counts.shape, dtype)
        again[:] = counts
        return again

    monkeypatch.setattr(ease, "gram", counted)
    single, double = (fitted(ml_1m, gram_precision=precision) for precision in ("float32", "float64"))
    difference = single.item_weights.numpy() - double.item_weights.numpy()
    assert 0 < np.abs(difference).max() < 1e-5
    ranked, exact = (top_k(model, ml_1m[:500], k=20)[0] for model in (single, double))
    assert np.mean(ranked == exact) > 0.999


def test_scores_are_the_row_times_the_weights_and_an_empty_history_scores_zero():
    train = random_rows()
    model = fitted(train)
    histories = csr_array(np.vstack([np.zeros((1, 25)), train[:40].toarray()]).astype(np.float32))
    scores = model.scores(RowStore(histories).gather(tf.range(41)))
    np.testing.assert_allclose(scores, histories @ model.item_weights.numpy(), atol=1e-6)
    np.testing.assert_array_equal(scores[0], 0)


def test_a_checkerboard_is_recovered():
    rng = np.random.default_rng(0)
    taste = np.arange(200) % 2
    allowed = (np.arange(30) % 2)[None, :] == taste[:, None]
    train = csr_array((allowed & (rng.random((200, 30)) < 0.5)).astype(np.float32))
    items, _ = top_k(fitted(train, regularization=5.0), train, k=5)
    seen = np.diff(train.indptr)
    enough = seen <= 10
    assert enough.sum() > 150
    assert np.all(items[enough] % 2 == taste[enough, None])


def test_saved_and_loaded_it_scores_the_same(tmp_path):
    model = fitted(random_rows(), regularization=3.0, gram_precision="float64")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.item_weights, model.item_weights)
    assert (loaded.regularization, loaded.gram_precision) == (3.0, "float64")


def test_the_memory_is_stated_before_it_is_allocated(monkeypatch):
    free = SimpleNamespace(available=10_000)
    monkeypatch.setattr(item_item.psutil, "virtual_memory", lambda: free)
    lines = []
    fitted(random_rows(), lines)
    assert lines[0].startswith("EASE: 0.00 GB for the Gram matrix of 25 items")

    monkeypatch.setattr(ease, "gram", lambda *_: pytest.fail("allocated without memory"))
    with pytest.raises(TooLargeError, match="Gram matrix of 50 items needs .* in float64.*min_users_per_item"):
        fitted(random_rows(n_items=50), gram_precision="float64")
    with pytest.raises(TooLargeError, match="item-item matrix of 1,000,000 items needs 4,000.00 GB"):
        EASE(1_000_000)


def test_bad_settings_and_matrices_are_refused():
    with pytest.raises(InputError, match="regularization = 0"):
        EASE(3, regularization=0)
    with pytest.raises(InputError, match="Input should be 'float32'"):
        EASE(3, gram_precision="float23")
    with pytest.raises(InputError, match="25 items, the training matrix has 24"):
        EASE(25).fit_matrix(random_rows(n_items=24))
    with pytest.raises(InputError, match="binary"):
        fitted(random_rows() * 2)
