"""EDLAE against hand-worked numbers, its formula in float64, and the dropout loss summed over all masks."""

from __future__ import annotations

from itertools import product

import keras
import numpy as np
import pytest
from scipy.sparse import csr_array

from tfvae.models.ease import EASE
from tfvae.models.edlae import EDLAE
from tfvae.system.errors import InputError, TooLargeError


def random_rows(n_users=300, n_items=25, seed=0):
    rng = np.random.default_rng(seed)
    return csr_array((rng.random((n_users, n_items)) < np.linspace(0.05, 0.5, n_items)).astype(np.float32))


def weights(train, model=EDLAE, **settings):
    fitted = model(train.shape[1], **settings)
    fitted.fit_matrix(train, log=[].append)
    return fitted.item_weights.numpy()


def dropout_loss(x, b, regularization, dropout):
    """Expected over all masks: the squared error on the dropped entries, divided by their share; and its gradient."""
    loss, gradient = regularization * np.sum(b**2), 2 * regularization * b
    for mask in np.array(list(product([0, 1], repeat=x.shape[1]))):  # 1 is dropped; the same items for all users
        chance = np.prod(np.where(mask, dropout, 1 - dropout))
        kept = x * (1 - mask) / (1 - dropout)
        error = (kept @ b - x) * mask
        loss += chance / dropout * np.sum(error**2)
        gradient += chance / dropout * 2 * kept.T @ error
    return loss, gradient


def test_two_items_by_hand():
    # G = [[3,2],[2,4]], λ = 1 and p/(1−p) = 3: with one other item, b = 2 / (G_ii + 1 + 3 G_ii).
    train = csr_array(np.array([[1, 1], [1, 1], [1, 0], [0, 1], [0, 1]], np.float32))
    found = weights(train, regularization=1.0, dropout=0.75)
    np.testing.assert_allclose(found, [[0, 2 / 13], [2 / 17, 0]], rtol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize(("regularization", "dropout"), [(300.0, 0.33), (0.5, 0.9), (10.0, 0.1)])
def test_it_is_the_formula(regularization, dropout, precision):
    train = random_rows()
    co_occurrence = (train.T @ train).toarray().astype(float)
    added = regularization + dropout / (1 - dropout) * np.diagonal(co_occurrence)
    inverse = np.linalg.inv(co_occurrence + np.diag(added))
    expected = np.eye(25) - inverse / np.diagonal(inverse)
    found = weights(train, regularization=regularization, dropout=dropout, gram_precision=precision)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(np.diagonal(found), 0)
    assert np.abs(expected).max() > 0.02


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_without_dropout_it_is_ease(precision):
    train = random_rows()
    settings = {"regularization": 7.0, "gram_precision": precision}
    ease = weights(train, EASE, **settings)
    np.testing.assert_array_equal(weights(train, dropout=0.0, **settings), ease)
    assert np.abs(weights(train, dropout=0.1, **settings) - ease).max() > 0.01


@pytest.mark.parametrize(("regularization", "dropout"), [(2.0, 0.33), (0.1, 0.75)])
def test_it_minimises_the_expected_loss_on_the_dropped(regularization, dropout):
    train = random_rows(n_users=30, n_items=6)
    x = train.toarray().astype(float)
    b = weights(train, regularization=regularization, dropout=dropout, gram_precision="float64").astype(float)
    least, gradient = dropout_loss(x, b, regularization, dropout)
    np.testing.assert_allclose(
        gradient, 0, atol=1e-4
    )  # on the diagonal too, since a dropped item cannot be its own input
    rng = np.random.default_rng(0)
    for scale in (1e-3, 0.1):
        assert dropout_loss(x, b + scale * rng.normal(size=b.shape), regularization, dropout)[0] > least
    ease = weights(train, EASE, regularization=regularization).astype(float)
    assert np.abs(dropout_loss(x, ease, regularization, dropout)[1]).max() > 1


def test_dropout_shrinks_what_frequent_items_tell():
    train = random_rows()
    users = np.bincount(train.indices, minlength=25)
    model = EDLAE(25, regularization=3.0, dropout=0.5)
    np.testing.assert_array_equal(model.penalty(users), 3.0 + users)
    sizes = [np.abs(weights(train, regularization=3.0, dropout=dropout)).sum() for dropout in (0.0, 0.3, 0.6, 0.9)]
    assert np.all(np.diff(sizes) < 0)


def test_saved_and_loaded_it_is_the_same(tmp_path):
    model = EDLAE(25, regularization=3.0, dropout=0.2, gram_precision="float64")
    model.fit_matrix(random_rows(), log=[].append)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is EDLAE
    np.testing.assert_array_equal(loaded.item_weights, model.item_weights)
    assert (loaded.regularization, loaded.dropout, loaded.gram_precision) == (3.0, 0.2, "float64")


def test_its_settings_are_those_of_ease_and_its_own():
    settings = EDLAE.settings()
    assert settings.keys() == {"regularization", "dropout", "gram_precision", "seed"}
    assert (settings["regularization"].default, settings["dropout"].default) == (300.0, 0.33)


def test_bad_settings_and_matrices_are_refused():
    for dropout in (-0.1, 1.0, float("nan")):
        with pytest.raises(InputError, match=f"dropout = {dropout}: Input should be"):
            EDLAE(3, dropout=dropout)
    with pytest.raises(InputError, match="regularization = 0: Input should be"):
        EDLAE(3, regularization=0)
    with pytest.raises(InputError, match="EDLAE was made for 25 items, the training matrix has 24"):
        EDLAE(25).fit_matrix(random_rows(n_items=24))
    with pytest.raises(InputError, match="EDLAE expects a binary training matrix"):
        weights(random_rows() * 2)
    with pytest.raises(TooLargeError, match="EDLAE: the item-item matrix of 1,000,000 items"):
        EDLAE(1_000_000)
