"""SLIM against its conditions of optimality, another solver, hand-worked numbers, and itself after it was killed."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import nnls
from scipy.sparse import csr_array, vstack
from threadpoolctl import threadpool_info, threadpool_limits

from tfvae.models import item_item, slim
from tfvae.models.slim import SLIM
from tfvae.nn.batches import unpad
from tfvae.system import progress
from tfvae.system.errors import InputError, TooLargeError

EXACT = {"tolerance": 1e-12, "gram_precision": "float64", "max_iterations": 100_000}


def random_rows(n_users=200, n_items=18, seed=0):
    """Users of three tastes, items from rare to frequent."""
    rng = np.random.default_rng(seed)
    same = rng.integers(3, size=(n_users, 1)) == np.arange(n_items) % 3
    return csr_array((rng.random((n_users, n_items)) < np.linspace(0.02, 0.4, n_items) * (1 + same)).astype(np.float32))


def fitted(train, lines=None, folder=None, n_jobs=1, **settings):
    model = SLIM(train.shape[1], **settings)
    model.fit_matrix(train, [].append if lines is None else lines.append, folder, n_jobs)
    return model


def weights(train, **settings):
    return fitted(train, **settings).item_weights.numpy()


def count_columns(monkeypatch, killed_at=None):
    """The items whose columns are solved; at one of them the fit is killed."""
    solve, solved = SLIM._column, []

    def column(self, counts, item):
        if item == killed_at:
            raise KeyboardInterrupt
        solved.append(item)
        return solve(self, counts, item)

    monkeypatch.setattr(SLIM, "_column", column)
    return solved


def test_two_items_by_hand():
    # G = [[3,2],[2,4]]; with one other item, w = (2 − λ) / (G_ii + β).
    train = csr_array(np.array([[1, 1], [1, 1], [1, 0], [0, 1], [0, 1]], np.float32))
    model = fitted(train, l1=0.5, l2=2.0, **EXACT)
    np.testing.assert_allclose(model.item_weights, [[0, 1.5 / 5], [1.5 / 6, 0]], rtol=1e-6)
    np.testing.assert_allclose(model.scores(unpad(tf.constant([[-1], [1]]))), [[0, 0], [1.5 / 6, 0]], rtol=1e-6)


@pytest.mark.parametrize("share", [0, 2], ids=["in place", "copied"])
@pytest.mark.parametrize(("l1", "l2"), [(0.1, 5.0), (5.0, 0.1), (0.5, 0.5), (1e-6, 1e-3)])
def test_the_conditions_of_optimality_hold(monkeypatch, l1, l2, share):
    monkeypatch.setattr(slim, "SHARE_TO_COPY", share)
    w = weights(random_rows(), l1=l1, l2=l2, **EXACT).astype(float)
    x = random_rows().toarray().astype(float)
    gradient = x.T @ (x @ w - x) + l2 * w + l1
    others = ~np.eye(18, dtype=bool)
    np.testing.assert_array_equal(np.diagonal(w), 0)
    assert w.min() == 0 and 30 < np.count_nonzero(w) < 200
    np.testing.assert_allclose(gradient[w > 0], 0, atol=1e-4)
    assert gradient[others & (w == 0)].min() > -1e-4
    assert np.median(gradient[others & (w == 0)]) > 1


@pytest.mark.parametrize(("l1", "l2"), [(0.1, 5.0), (5.0, 0.1)])
def test_another_solver_finds_the_same(l1, l2):
    # ½‖Aw − b‖² with A = [X; √β I] and b = [x; −λ/√β] is the objective and a constant.
    train = random_rows()
    x, expected = train.toarray().astype(float), np.zeros((18, 18))
    for item in range(18):
        others = np.arange(18) != item
        a = np.vstack([x[:, others], np.sqrt(l2) * np.eye(17)])
        expected[others, item] = nnls(a, np.append(x[:, item], np.full(17, -l1 / np.sqrt(l2))))[0]
    np.testing.assert_allclose(weights(train, l1=l1, l2=l2, **EXACT), expected, atol=1e-6)
    np.testing.assert_allclose(weights(train, l1=l1, l2=l2, tolerance=1e-6), expected, atol=1e-4)
    assert expected.max() > 0.1


def test_the_error_is_a_sum_over_users_not_a_mean():
    train = random_rows()
    once = weights(train, l1=0.5, l2=2.0, **EXACT)
    twice = weights(csr_array(vstack([train, train])), l1=1.0, l2=4.0, **EXACT)
    np.testing.assert_allclose(twice, once, atol=1e-6)
    assert np.abs(weights(train, l1=1.0, l2=4.0, **EXACT) - once).max() > 0.01


def test_a_larger_l1_makes_it_sparser_and_above_all_counts_it_is_empty():
    train = random_rows()
    counts = (train.T @ train).toarray()
    np.fill_diagonal(counts, 0)
    assert np.all(np.diff([np.count_nonzero(weights(train, l1=l1)) for l1 in (0.1, 1.0, 5.0, 20.0)]) < 0)
    lines = []
    assert not fitted(train, lines, l1=float(counts.max()) + 0.1).item_weights.numpy().any() and len(lines) == 1
    only = weights(train, l1=float(counts.max()) - 0.1, **EXACT)
    assert np.all(counts[only > 0] == counts.max()) and only.any()


def test_items_and_users_without_events_have_no_weights():
    w = weights(csr_array(random_rows().toarray() * (np.arange(18) != 7) * (np.arange(200) != 3)[:, None]))
    assert not w[7].any() and not w[:, 7].any() and np.all(np.delete(w, 7, axis=1).max(axis=0) > 0)
    assert not weights(csr_array((3, 18), dtype=np.float32)).any()


@pytest.mark.parametrize("columns_at_once", [1, 5, 18, 50])
def test_neither_parts_nor_threads_change_the_bits(monkeypatch, columns_at_once):
    expected = weights(random_rows())
    monkeypatch.setattr(slim, "COLUMNS_AT_ONCE", columns_at_once)
    np.testing.assert_array_equal(weights(random_rows(), n_jobs=3), expected)


def test_a_killed_fit_goes_on_to_equal_bits(monkeypatch, tmp_path):
    monkeypatch.setattr(slim, "COLUMNS_AT_ONCE", 5)
    train, folder, lines = random_rows(), tmp_path / "new" / "fit", []
    whole = weights(train)
    with monkeypatch.context() as patch:
        count_columns(patch, killed_at=12)
        with pytest.raises(KeyboardInterrupt):
            fitted(train, folder=folder)
    stored = {path.name for path in folder.iterdir()}
    # The thread may have begun the last part before the fit heard of the kill.
    assert {"columns-0.npz", "columns-5.npz", "slim.json"} <= stored
    last = "columns-15.npz" in stored
    assert len(stored) == 3 + last
    solved = count_columns(monkeypatch)
    np.testing.assert_array_equal(fitted(train, lines, folder).item_weights, whole)
    assert solved == list(range(10, 15 if last else 18))
    assert lines[0] == f"SLIM: {2 + last} of 4 parts are in {folder} already"
    n_solved = len(solved)
    np.testing.assert_array_equal(fitted(train, folder=folder, n_jobs=2, seed=7).item_weights, whole)
    assert len(solved) == n_solved


@pytest.mark.parametrize("other", [{"l1": 0.3}, {"gram_precision": "float64"}, {"train": random_rows(seed=1)}])
def test_the_folder_of_another_fit_is_refused_and_left_alone(tmp_path, other):
    fitted(random_rows(), folder=tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match="other data or by other settings"):
        fitted(**{"train": random_rows(), "folder": tmp_path} | other)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_items_that_do_not_converge_are_reported_again_when_resumed(monkeypatch, tmp_path):
    monkeypatch.setattr(slim, "COLUMNS_AT_ONCE", 5)
    train = csr_array(random_rows().toarray() * (np.arange(18) >= 12))  # an item without users is done at once
    lines, again, done = [], [], []
    for told in (lines, again):
        fitted(train, told, tmp_path, max_iterations=1, tolerance=1e-9, l1=0.1)
    assert lines[-1].startswith("SLIM: 6 items did not converge in 1 iterations, the first is number 12; raise")
    assert again[-1] == lines[-1]
    fitted(train, done)
    assert len(done) == 1


def test_it_reports_progress_and_nothing_else_is_said(monkeypatch, capfd):
    monkeypatch.setattr(slim, "COLUMNS_AT_ONCE", 10)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    lines = []
    with threadpool_limits(2, user_api="blas"), warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted(random_rows(), lines, max_iterations=1, n_jobs=2)
        assert all(pool["num_threads"] == 2 for pool in threadpool_info() if pool["user_api"] == "blas")
    assert lines[0] == "SLIM: 0.00 GB for the Gram matrix of 18 items"
    assert lines[1:3] == ["SLIM: 10 of 18 items, 0 s", "SLIM: 18 of 18 items, 0 s"]
    assert "".join(capfd.readouterr()) == ""


def test_the_memory_is_stated_before_it_is_allocated(monkeypatch):
    monkeypatch.setattr(item_item.psutil, "virtual_memory", lambda: SimpleNamespace(available=10_000))
    monkeypatch.setattr(slim, "gram", lambda *_: pytest.fail("allocated without memory"))
    with pytest.raises(
        TooLargeError, match="SLIM: the Gram matrix of 50 items needs .* in float64.*min_users_per_item"
    ):
        fitted(random_rows(n_items=50), gram_precision="float64")
    with pytest.raises(TooLargeError, match="SLIM: the item-item matrix of 1,000,000 items needs 4,000.00 GB"):
        SLIM(1_000_000)


@pytest.mark.parametrize("name", ["l1", "l2", "tolerance", "max_iterations"])
@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf")])
def test_a_setting_that_is_no_positive_number_is_refused(name, value):
    with pytest.raises(InputError, match=f"{name} = {value}: Input should be"):
        SLIM(3, **{name: value})


def test_bad_precision_and_matrices_are_refused(tmp_path):
    with pytest.raises(InputError, match="Input should be 'float32'"):
        SLIM(3, gram_precision="float23")
    with pytest.raises(InputError, match="SLIM was made for 18 items, the training matrix has 17"):
        SLIM(18).fit_matrix(random_rows(n_items=17), folder=tmp_path)
    with pytest.raises(InputError, match="binary"):
        fitted(random_rows() * 2, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def changed(path, **arrays):
    """Changes arrays of a file, whose checksums are then right; None drops one."""
    with np.load(path) as stored:
        kept = {name: array for name, array in (dict(stored) | arrays).items() if array is not None}
    np.savez(path, **kept)


def other(array, place, value):
    array = array.copy()
    array[place] = value
    return array


@pytest.mark.parametrize(
    "damage",
    [
        lambda path, w, c: path.write_bytes(path.read_bytes()[:-40]),
        lambda path, w, c: path.write_bytes(b""),
        lambda path, w, c: path.write_bytes(path.read_bytes().replace(b"weights.npy", b"weightz.npy")),
        lambda path, w, c: changed(path, weights=None),
        lambda path, w, c: changed(path, converged=None),
        lambda path, w, c: changed(path, weights=w[:, :1]),
        lambda path, w, c: changed(path, weights=w[0, 0]),
        lambda path, w, c: changed(path, weights=w.astype(np.float64)),
        lambda path, w, c: changed(path, weights=other(w, (0, 2), np.nan)),
        lambda path, w, c: changed(path, weights=other(w, (0, 2), np.inf)),
        lambda path, w, c: changed(path, weights=other(w, (0, 2), -0.5)),
        lambda path, w, c: changed(path, weights=other(w, (7, 2), 0.5)),  # column 2 of this part is item 7's
        lambda path, w, c: changed(path, converged=c[:-1]),
        lambda path, w, c: changed(path, converged=c.astype(np.float32)),
    ],
)
def test_a_damaged_part_is_told_and_solved_again(monkeypatch, tmp_path, damage):
    monkeypatch.setattr(slim, "COLUMNS_AT_ONCE", 5)
    train, lines = random_rows(), []
    whole = fitted(train, folder=tmp_path).item_weights.numpy()
    path = tmp_path / "columns-5.npz"
    with np.load(path) as stored:
        damage(path, stored["weights"], stored["converged"])
    solved = count_columns(monkeypatch)
    np.testing.assert_array_equal(fitted(train, lines, tmp_path).item_weights, whole)
    assert solved == list(range(5, 10))
    (told,) = [line for line in lines if "solved again" in line]
    assert str(path) in told
    np.testing.assert_array_equal(fitted(train, folder=tmp_path).item_weights, whole)
    assert len(solved) == 5


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000])
def test_a_damaged_mark_is_named(tmp_path, content):
    fitted(random_rows(), folder=tmp_path)
    (tmp_path / "slim.json").write_bytes(content)
    with pytest.raises(InputError, match=r"slim\.json"):
        fitted(random_rows(), folder=tmp_path)


def test_parts_without_a_mark_are_of_nobody(tmp_path):
    fitted(random_rows(seed=1), folder=tmp_path)
    (tmp_path / "slim.json").unlink()
    np.testing.assert_array_equal(fitted(random_rows(), folder=tmp_path).item_weights, weights(random_rows()))
