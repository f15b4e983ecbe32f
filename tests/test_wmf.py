"""WMF against float64 closed forms: the fold-in, the optimum of the stated objective, the soft-thresholded SVD."""

from __future__ import annotations

import warnings

import implicit.utils
import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.sparse import csr_array
from threadpoolctl import threadpool_info, threadpool_limits

from tfvae.models.wmf import WMF
from tfvae.nn.batches import RowStore, unpad
from tfvae.system import progress
from tfvae.system.errors import DivergedError, InputError

SOLVERS = ["conjugate-gradients", "cholesky"]


def random_rows(n_users=60, n_items=20, seed=0):
    """Users of three tastes, so that there is something to factorise."""
    rng = np.random.default_rng(seed)
    same = rng.integers(3, size=(n_users, 1)) == np.arange(n_items) % 3
    return csr_array((rng.random((n_users, n_items)) < np.where(same, 0.6, 0.1)).astype(np.float32))


def fitted(train, lines=None, **settings):
    model = WMF(train.shape[1], **{"factors": 4, "weight": 5.0, "regularization": 2.0} | settings)
    model.fit_matrix(train, log=[].append if lines is None else lines.append)
    return model


def scores(model, histories):
    return model.scores(RowStore(csr_array(histories)).gather(tf.range(histories.shape[0]))).numpy()


def least_squares(x, fixed, weight, regularization):
    """The factors of each row of x in float64, the other side being fixed: equation 4 with its dense C^u."""
    confidence = np.where(x == 1, weight, 1.0)
    ridge = regularization * np.eye(fixed.shape[1])
    factors = [
        np.linalg.solve(fixed.T * c @ fixed + ridge, fixed.T @ (c * row)) for row, c in zip(x, confidence, strict=True)
    ]
    return np.array(factors)


def objective(x, users, items, weight, regularization):
    confidence = np.where(x == 1, weight, 1.0)
    return np.sum(confidence * (x - users @ items.T) ** 2) + regularization * (np.sum(users**2) + np.sum(items**2))


@pytest.mark.parametrize(
    ("weight", "regularization"), [(0.5, 3.0), (1.0, 1.0), (2.0, 100.0), (10.0, 0.1), (100.0, 1e-3)]
)
def test_the_fold_in_is_the_closed_form(weight, regularization):
    rng = np.random.default_rng(1)
    model = WMF(200, factors=30, weight=weight, regularization=regularization)
    items = rng.normal(size=(200, 30)).astype(np.float32)
    model.item_factors.assign(items)
    x = (rng.random((12, 200)) < np.linspace(0.005, 0.5, 12)[:, None]).astype(np.float32)
    x[[0, 11]] = [[0], [1]]  # nothing, and everything
    expected = least_squares(x, items.astype(float), weight, regularization) @ items.T
    found = scores(model, x)
    assert np.all(np.abs(found - expected) <= 1e-4 * np.abs(expected).max(axis=1, keepdims=True))
    np.testing.assert_array_equal(found[0], 0)
    assert found.dtype == np.float32 and np.ptp(found[11]) > 0


def test_two_items_by_hand():
    # One factor, V = (1, 2), λ = 1: with item 0, (5 + (3 − 1)·1 + 1) u = 3·1, hence u = 3/8.
    model = WMF(2, factors=1, weight=3.0, regularization=1.0)
    model.item_factors.assign([[1.0], [2.0]])
    np.testing.assert_allclose(
        scores(model, np.array([[1, 0], [0, 1]])), [[3 / 8, 6 / 8], [6 / 14, 12 / 14]], rtol=1e-6
    )


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("weight", [2.0, 10.0])
def test_what_it_converges_to_minimises_the_stated_objective(solver, weight):
    train = random_rows()
    model = fitted(train, factors=3, weight=weight, solver=solver, iterations=100)
    x, items = train.toarray().astype(float), model.item_factors.numpy().astype(float)
    users = least_squares(x, items, weight, 2.0)
    errors = np.where(x == 1, weight, 1.0) * (users @ items.T - x)
    gradient = errors.T @ users + 2.0 * items  # of the users' own optimum too: they do not add to it
    assert np.abs(items).max() > 0.5
    np.testing.assert_allclose(gradient, 0, atol=1e-3 * np.abs(errors.T).dot(np.abs(users)).max())
    np.testing.assert_allclose(least_squares(x.T, users, weight, 2.0), items, atol=1e-3)
    np.testing.assert_allclose(scores(model, x), users @ items.T, atol=1e-5)


def test_by_cholesky_an_iteration_is_two_closed_forms():
    x = random_rows().toarray().astype(float)
    draw = np.random.default_rng(3)
    _, items = (draw.random((n, 12), dtype=np.float32) * 0.01 for n in x.shape)  # as the library begins
    for _ in range(4):
        users = least_squares(x, items.astype(float), 5.0, 2.0)
        items = least_squares(x.T, users, 5.0, 2.0)
    exact, near = (
        fitted(random_rows(), factors=12, iterations=4, seed=3, solver=solver).item_factors.numpy()
        for solver in ("cholesky", "conjugate-gradients")
    )
    np.testing.assert_allclose(exact, items, atol=1e-3)
    assert np.abs(near - exact).max() > 1e-2


@pytest.mark.parametrize("solver", SOLVERS)
def test_more_iterations_lower_the_objective(solver):
    train = random_rows()
    x = train.toarray().astype(float)
    values = []
    for iterations in (1, 2, 4, 8, 16):
        items = fitted(train, solver=solver, iterations=iterations).item_factors.numpy().astype(float)
        values.append(objective(x, least_squares(x, items, 5.0, 2.0), items, 5.0, 2.0))
    assert np.all(np.diff(values) < 0), values


def test_with_weight_one_it_is_the_svd_with_lowered_singular_values():
    # min ‖X − UV'‖² + λ(‖U‖² + ‖V‖²) lowers the first K singular values by λ (Srebro et al. 2004).
    train = random_rows(n_users=200)
    left, singular, right = np.linalg.svd(train.toarray().astype(float), full_matrices=False)
    lowered = np.maximum(singular[:3] - 2.0, 0)
    model = fitted(train, factors=3, weight=1.0, iterations=100, solver="cholesky")
    np.testing.assert_allclose(scores(model, train.toarray()), left[:, :3] * lowered @ right[:3], atol=2e-3)


def test_the_seed_decides_the_factors():
    one, same, other = (fitted(random_rows(), seed=seed, iterations=3).item_factors.numpy() for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3


def test_users_never_trained_on_score_their_block(checkerboard):
    model = fitted(checkerboard[:10], factors=2, weight=10.0, regularization=0.1)
    histories = np.zeros((2, 16), np.float32)
    histories[0, [0, 2, 4]] = histories[1, [11, 13]] = 1
    even, odd = scores(model, histories)
    assert even[6::2].min() > 0.5 > 0.2 > np.abs(even[1::2]).max()
    assert odd[1:11:2].min() > 0.5 > 0.2 > np.abs(odd[0::2]).max()


def test_compiled_it_scores_the_same_whatever_the_order_and_the_padding():
    model = fitted(random_rows())
    histories = unpad(tf.constant([[3, 17, 8, -1], [-1, 8, 17, 3], [-1, -1, -1, -1], [3, 17, -1, -1]]))
    eager = model.scores(histories).numpy()
    np.testing.assert_allclose(tf.function(model.scores, autograph=False)(histories), eager, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(eager[0], eager[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(eager[2], 0)
    assert np.abs(eager[0] - eager[3]).max() > 1e-2
    nobody = model.scores(unpad(tf.zeros([0, 3], tf.int32)))
    assert nobody.shape == (0, 20) and nobody.dtype == tf.float32


def test_mixed_precision_changes_nothing():
    train = random_rows()
    expected = scores(fitted(train), train.toarray())
    found = scores(fitted(train, dtype="mixed_bfloat16"), train.toarray())
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_saved_and_loaded_it_scores_the_same(tmp_path):
    train = random_rows()
    model = fitted(train, weight=7.0, regularization=3.0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.item_factors, model.item_factors)
    np.testing.assert_array_equal(scores(loaded, train.toarray()), scores(model, train.toarray()))


def test_items_and_users_without_events_have_no_factors():
    train = random_rows()
    train = csr_array(train.toarray() * (np.arange(20) != 7) * (np.arange(60) != 3)[:, None])
    items = fitted(train).item_factors.numpy()
    np.testing.assert_array_equal(items[7], 0)
    assert np.all(np.abs(np.delete(items, 7, axis=0)).max(axis=1) > 0)


def test_it_reports_and_nothing_else_is_said(monkeypatch, capfd):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    monkeypatch.setattr(implicit.utils, "_checked_blas_config", False)  # it warns once per process
    lines = []
    with threadpool_limits(2, user_api="blas"), warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted(random_rows(), lines, iterations=3)
        assert all(pool["num_threads"] == 2 for pool in threadpool_info() if pool["user_api"] == "blas")
    assert lines[0].startswith("WMF: 3 iterations on") and "60 users, 4 factors" in lines[0]
    assert [line.split(",")[0] for line in lines[1:]] == [f"WMF: {n} of 3 iterations" for n in (1, 2, 3)]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["factors", "weight", "regularization", "iterations"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_settings_that_are_not_positive_are_refused(name, value):
    with pytest.raises(InputError, match=f"{name} = {value}: Input should be"):
        WMF(3, **{name: value})


def test_bad_solvers_and_matrices_are_refused():
    with pytest.raises(InputError, match="Input should be 'conjugate-gradients' or 'cholesky'"):
        WMF(3, solver="cholseky")
    with pytest.raises(InputError, match="20 items, the training matrix has 19"):
        WMF(20).fit_matrix(random_rows(n_items=19))
    with pytest.raises(InputError, match="binary"):
        fitted(random_rows() * 2)


@pytest.mark.parametrize("solver", SOLVERS)
def test_factors_that_are_no_numbers_are_an_error_and_are_not_kept(solver):
    model = WMF(20, factors=4, weight=1e38, solver=solver)
    with pytest.raises(DivergedError, match="weight 1e.38 and regularization 50.0 .*raise the regularization"):
        model.fit_matrix(random_rows(), log=[].append)
    np.testing.assert_array_equal(model.item_factors, 0)
