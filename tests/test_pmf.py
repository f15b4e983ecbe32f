"""PMF and BiasMF against float64 closed forms: each half-step, the fixed point, the fold-in, and who is left out."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from rating_examples import low_rank, predicted
from scipy.sparse import csr_array

from tfvae.models import als
from tfvae.models.als import alternate, ridge_rows
from tfvae.models.pmf import PMF, BiasMF
from tfvae.nn.batches import RowStore, unpad
from tfvae.nn.noise import derive_seed
from tfvae.system import progress
from tfvae.system.errors import InputError

N_USERS, N_ITEMS = 40, 25
both = pytest.mark.parametrize("kind", [PMF, BiasMF])


def some_ratings():
    return low_rank(N_USERS, N_ITEMS, noise=0.1)[0]


def fitted(kind, train, lines=None, **settings):
    model = kind(train.shape[1], **{"factors": 3, "regularization": 1.0, "iterations": 8} | settings)
    model.fit_matrix(train, log=[].append if lines is None else lines.append)
    return model


def lambdas(weighted, biased):
    """λ and λ_b of about the same strength, weighted or not; with less the last digits take thousands of rounds."""
    times = 1 if weighted else 10
    return 0.1 * times, 0.3 * times if biased else None


def objective(ratings, users, items, weighted, biased):
    """The stated objective on ratings that are centred already."""
    there = ratings.tocoo()
    if biased:
        guess = users[:, :1] + items[:, 0] + users[:, 1:] @ items[:, 1:].T
    else:
        guess = users @ items.T
    regularization, bias_regularization = lambdas(weighted, biased)
    penalty = np.array([bias_regularization] * biased + [regularization] * 3)
    n_user, n_item = (np.bincount(ids, minlength=n) for ids, n in zip(there.coords, there.shape, strict=True))
    if not weighted:
        n_user, n_item = np.ones_like(n_user), np.ones_like(n_item)
    errors = there.data - guess[there.coords]
    return np.sum(errors**2) + np.sum(n_user @ (users**2 * penalty)) + np.sum(n_item @ (items**2 * penalty))


@pytest.mark.parametrize("weighted", [False, True])
def test_a_half_step_is_each_row_s_dense_ridge_regression(weighted, monkeypatch):
    monkeypatch.setattr(als, "ROWS_AT_ONCE", 7)  # of which 40 is no multiple
    ratings = some_ratings()
    rng = np.random.default_rng(1)
    vectors, offsets, penalties = rng.normal(size=(N_ITEMS, 3)), rng.normal(size=N_ITEMS), np.array([0.5, 2.0, 7.0])
    found = ridge_rows(ratings.astype(float), vectors, offsets, penalties, weighted)
    for user in range(N_USERS):
        row = ratings[[user]]
        x, y = vectors[row.indices], row.data - offsets[row.indices]
        count = max(len(y), 1) if weighted else 1
        # The ridge is D more observations of zero.
        design = np.vstack([x, np.diag(np.sqrt(count * penalties))])
        expected = np.linalg.lstsq(design, np.append(y, np.zeros(3)), rcond=None)[0]
        np.testing.assert_allclose(found[user], expected, atol=1e-12)
    np.testing.assert_array_equal(found[3], 0)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_half_step_lowers_the_objective(biased, weighted, monkeypatch):
    ratings = some_ratings()
    state = {N_USERS: None, N_ITEMS: None}
    values = []

    def watched(half, vectors, offsets, penalties, by_count):
        state[half.shape[0]] = ridge_rows(half, vectors, offsets, penalties, by_count)
        if state[N_ITEMS] is not None:
            values.append(objective(ratings, state[N_USERS], state[N_ITEMS], weighted, biased))
        return state[half.shape[0]]

    monkeypatch.setattr(als, "ridge_rows", watched)
    regularization, bias_regularization = lambdas(weighted, biased)
    alternate(ratings, 3, regularization, 6, 0, weighted=weighted, bias_regularization=bias_regularization)
    assert len(values) == 11
    assert np.all(np.diff(values) < 0), values


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_where_it_stops_the_stated_objective_has_no_gradient(biased, weighted):
    ratings = some_ratings()
    regularization, bias_regularization = lambdas(weighted, biased)
    given = {"weighted": weighted, "bias_regularization": bias_regularization}
    users, items = alternate(ratings, 3, regularization, 400, 0, **given)
    assert np.abs(users).max() > 0.3
    for side in (users, items):
        for place in [(0, 0), (5, 1), (11, side.shape[1] - 1)]:
            kept, slope = side[place], []
            for step in (1e-4, -1e-4):
                side[place] = kept + step
                slope.append(objective(ratings, users, items, weighted, biased))
            side[place] = kept
            assert abs(slope[0] - slope[1]) / 2e-4 < 1e-4, place


def test_one_factor_by_hand():
    # Mean 3, q = (1, 2), λ = 1: from ratings 5 and 4, hence 2 and 1, p = (1·2 + 2·1) / (1 + 4 + 1) = 2/3; of item 0
    # alone p = 2 / (1 + 1) = 1. Weighted, the first has λ = 2: p = 4/7.
    for weighted, first in ((False, 2 / 3), (True, 4 / 7)):
        model = PMF(2, factors=1, regularization=1.0, weighted_regularization=weighted)
        model.item_coefficients.assign([[1.0], [2.0]])
        model.rating_mean.assign(3.0)
        rows = csr_array(np.array([[5, 4], [5, 0]], np.float32))
        np.testing.assert_allclose(predicted(model, rows), [[3 + first, 3 + 2 * first], [4, 5]], rtol=1e-6)


def test_a_bias_by_hand():
    # Mean 3, b_i = ½, q = 0, λ_b = 3, constant: b_u = (5 − 3 − ½) / (1 + 3) = 3/8.
    model = BiasMF(2, factors=1, bias_regularization=3.0)
    model.item_coefficients.assign([[0.5, 0.0], [-1.0, 0.0]])
    model.rating_mean.assign(3.0)
    found = predicted(model, csr_array(np.array([[5, 0], [0, 0]], np.float32)))
    np.testing.assert_allclose(found, [[3.875, 2.375], [3.5, 2.0]], rtol=1e-6)


@pytest.mark.slow
@both
@pytest.mark.parametrize("weighted", [False, True])
def test_folded_in_training_users_are_those_that_were_trained(kind, weighted):
    train = some_ratings()
    biased = kind is BiasMF
    regularization, bias_regularization = lambdas(weighted, biased)
    own = {"bias_regularization": bias_regularization} if biased else {}
    settings = {"regularization": regularization, "weighted_regularization": weighted, "iterations": 300}
    model = fitted(kind, train, **settings, **own)
    mean = train.data.mean(dtype=float)
    centred = csr_array((train.data - mean, train.indices, train.indptr), shape=train.shape)
    seed, given = derive_seed(model.seed, "items"), {"weighted": weighted, "bias_regularization": bias_regularization}
    users, _ = alternate(centred, 3, regularization, 300, seed, **given)
    batch = RowStore(train, with_values=True).gather(tf.range(N_USERS))
    np.testing.assert_allclose(model.user_vectors(batch), users, atol=2e-4)
    assert np.abs(users).max() > 0.3


@both
def test_it_learns_ratings_of_low_rank_that_it_has_not_seen(kind):
    train, full, hidden = low_rank(200, 60)
    found = predicted(fitted(kind, train, factors=4, regularization=1e-3, iterations=60), train)
    error = np.sqrt(np.mean((found - full)[hidden] ** 2))
    assert error < 0.1 < 0.9 < full.std()


@both
def test_a_rating_that_was_not_given_changes_nothing_and_one_that_was_does(kind):
    train = some_ratings()
    with_zero = train.copy()
    with_zero.data[0] = 0  # a rating of zero
    without = csr_array((train.data[1:], train.indices[1:], np.maximum(train.indptr - 1, 0)), shape=train.shape)
    one, other = (predicted(fitted(kind, ratings), train) for ratings in (with_zero, without))
    assert np.abs(one - other).max() > 1e-2


@both
def test_permuted_users_give_the_same_items(kind):
    train = some_ratings()
    order = np.random.default_rng(2).permutation(N_USERS)
    expected = predicted(fitted(kind, train), train)[order]
    np.testing.assert_allclose(predicted(fitted(kind, train[order]), train[order]), expected, atol=1e-5)


@both
def test_a_stranger_without_ratings_gets_the_mean_and_the_items_biases(kind):
    train = some_ratings()
    model = fitted(kind, train)
    stranger = predicted(model, csr_array((1, N_ITEMS), dtype=np.float32))[0]
    biases = model.item_coefficients.numpy()[:, 0] if kind is BiasMF else 0
    np.testing.assert_allclose(stranger, train.data.mean(dtype=float) + biases, rtol=1e-6)
    # An item without ratings has no vector: everyone is given the mean, in BiasMF with one's own bias.
    np.testing.assert_array_equal(model.item_coefficients.numpy()[7], 0)
    assert (np.ptp(predicted(model, train)[:, 7]) > 1e-2) == (kind is BiasMF)


@both
def test_compiled_it_scores_the_same(kind):
    train = some_ratings()
    model = fitted(kind, train)
    store = RowStore(train, with_values=True)
    whole = model.scores(store.gather(tf.range(N_USERS))).numpy()
    scores = tf.function(
        lambda users: model.scores(store.gather(users)), [tf.TensorSpec([None], tf.int64)], autograph=False
    )
    for size in (0, 1, N_USERS):
        np.testing.assert_allclose(scores(tf.range(size, dtype=tf.int64)), whole[:size], rtol=1e-5, atol=1e-5)
    assert whole.dtype == np.float32


@both
def test_mixed_precision_changes_nothing(kind):
    train = some_ratings()
    expected = predicted(fitted(kind, train), train)
    np.testing.assert_array_equal(predicted(fitted(kind, train, dtype="mixed_bfloat16"), train), expected)


@both
def test_saved_and_loaded_it_predicts_the_same(kind, tmp_path):
    train = some_ratings()
    model = fitted(kind, train, weighted_regularization=True, regularization=0.1)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_config() == model.get_config()
    np.testing.assert_array_equal(predicted(loaded, train), predicted(model, train))


@both
def test_the_seed_decides_the_vectors(kind):
    train = some_ratings()
    one, same, other = (fitted(kind, train, seed=seed, iterations=2).item_coefficients.numpy() for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3


def test_it_reports(monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    lines = []
    fitted(BiasMF, some_ratings(), lines, iterations=2)
    assert lines[0].startswith("BiasMF: 2 iterations on") and "40 users, 3 factors" in lines[0]
    assert [line.split(",")[0] for line in lines[1:]] == [f"BiasMF: {n} of 2 iterations" for n in (1, 2)]


@pytest.mark.parametrize(
    ("kind", "name"),
    [(PMF, "factors"), (PMF, "regularization"), (PMF, "iterations"), (BiasMF, "bias_regularization")],
)
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_settings_that_are_not_positive_are_refused(kind, name, value):
    with pytest.raises(InputError, match=f"{name} = {value}: Input should be"):
        kind(3, **{name: value})


@both
def test_what_is_no_matrix_of_ratings_is_refused(kind):
    train = some_ratings()
    with pytest.raises(InputError, match="24 items, the training matrix has 25"):
        kind(24).fit_matrix(train)
    with pytest.raises(InputError, match="no ratings"):
        kind(25).fit_matrix(csr_array((4, 25), dtype=np.float32))
    train.data[5] = np.nan
    with pytest.raises(InputError, match="not a number"):
        kind(25).fit_matrix(train)


@both
def test_rows_without_ratings_are_refused(kind):
    with pytest.raises(InputError, match=f"{kind.__name__} needs the ratings of a user"):
        kind(9).scores(unpad(tf.constant([[1, 2, -1]])))
