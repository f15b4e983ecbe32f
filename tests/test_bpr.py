"""BPR: what it ranks first, what it regularises, how a user is folded in."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from dense_reference import rows_of
from scipy.sparse import csr_array

from tfvae.models.bpr import BPR
from tfvae.nn.batches import unpad
from tfvae.system.errors import DivergedError, InputError


def random_rows(n_users=80, n_items=20, seed=0):
    """Users of two tastes, of whom one item in two is theirs; item 0 is everybody's."""
    rng = np.random.default_rng(seed)
    same = np.arange(n_users)[:, None] % 2 == np.arange(n_items) % 2
    x = (rng.random((n_users, n_items)) < np.where(same, 0.6, 0.05)).astype(np.float32)
    x[:, 0] = 1
    return x


def fitted(x, **settings):
    model = BPR(x.shape[1], **{"factors": 4, "iterations": 60} | settings)
    model.fit_matrix(csr_array(x), log=[].append)
    return model


def test_a_user_is_the_mean_of_his_items():
    model = BPR(3, factors=2, scale=2.0)
    model.item_factors.assign([[1.0, 0.0], [3.0, 1.0], [0.0, -1.0]])
    model.item_biases.assign([0.0, 0.5, -0.25])
    # Items 0 and 1: u = 2 · (2, ½) = (4, 1); nothing: u = 0.
    scores = model.scores(rows_of(np.array([[1, 1, 0], [0, 0, 0]], np.float32)))
    np.testing.assert_allclose(scores, [[4, 13.5, -1.25], [0, 0.5, -0.25]], rtol=1e-6)


def test_what_users_have_is_ranked_above_what_they_have_not():
    x = random_rows()
    scores = fitted(x, scale=2.0).scores(rows_of(x)).numpy()
    above = [np.mean(s[row == 1][:, None] > s[row == 0]) for s, row in zip(scores, x, strict=True)]
    assert np.mean(above) > 0.85  # the area under the curve, which BPR raises
    strangers = np.zeros((2, 20), np.float32)
    strangers[0, [2, 4]] = strangers[1, [1, 3]] = 1
    even, odd = fitted(x, scale=2.0).scores(rows_of(strangers)).numpy()
    assert even[6::2].min() > even[5::2].max() and odd[5::2].min() > odd[6::2].max()


def test_the_bias_is_of_what_everybody_has():
    biases = fitted(random_rows(), regularization=0.05, popularity_weight=0).item_biases.numpy()
    assert biases[0] > 2 * np.abs(biases[1:]).max()


def test_popularity_is_given_back_to_the_biases():
    x = random_rows()
    x[:, 7] = 0
    found = {c: fitted(x, popularity_weight=c) for c in (0.0, 0.5, 1.0)}
    logarithms = np.log(np.maximum(x.sum(axis=0), 1))
    for c, model in found.items():
        gained = model.item_biases.numpy() - found[0.0].item_biases.numpy()
        np.testing.assert_allclose(gained, c * logarithms, atol=1e-6)
        np.testing.assert_array_equal(model.item_factors, found[0.0].item_factors)


def test_without_tastes_the_scores_are_logits_of_popularity():
    chances = np.linspace(0.05, 0.6, 12)
    x = (np.random.default_rng(0).random((3000, 12)) < chances).astype(np.float32)
    logits = np.log(x.mean(axis=0) / (1 - x.mean(axis=0)))
    for c, shift in ((1.0, 0), (0.0, -np.log(x.sum(axis=0)))):
        biases = fitted(x, factors=1, ascent_rate=0.02, regularization=0.0, popularity_weight=c).item_biases.numpy()
        np.testing.assert_allclose(biases - biases.mean(), (logits + shift) - (logits + shift).mean(), atol=0.25)


def test_more_regularization_makes_shorter_factors():
    lengths = [np.linalg.norm(fitted(random_rows(), regularization=r).item_factors) for r in (0.0, 0.05, 0.5)]
    assert lengths[0] > 1.2 * lengths[1] > 1.4 * lengths[2]


def test_the_seed_decides_the_factors_on_one_thread():
    one, same, other = (fitted(random_rows(), seed=seed, iterations=5).item_factors.numpy() for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3


def test_the_order_of_a_rows_items_does_not_matter():
    x = random_rows()
    shuffled = csr_array(x)
    for start, stop in zip(shuffled.indptr[:-1], shuffled.indptr[1:], strict=True):
        shuffled.indices[start:stop] = shuffled.indices[start:stop][::-1]
    shuffled.has_sorted_indices = False
    model = BPR(20, factors=4, iterations=60)
    model.fit_matrix(shuffled, log=[].append)
    np.testing.assert_array_equal(model.item_factors, fitted(x).item_factors)


def test_saved_and_loaded_it_scores_the_same(tmp_path):
    x = random_rows()
    model = fitted(x, scale=1.5)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.scores(rows_of(x)), model.scores(rows_of(x)))
    assert loaded.scale == 1.5


def test_an_item_without_users_has_no_factors_and_no_bias():
    x = random_rows()
    x[:, 7] = 0
    model = fitted(x)
    assert not np.any(model.item_factors.numpy()[7]) and model.item_biases.numpy()[7] == 0
    assert np.isfinite(model.scores(unpad(tf.constant([[7, -1], [-1, -1]])))).all()


def test_what_makes_no_sense_is_refused():
    for name in ("factors", "ascent_rate", "iterations", "scale", "threads"):
        with pytest.raises(InputError, match=f"{name} = 0: Input should be"):
            BPR(3, **{name: 0})
    with pytest.raises(InputError, match="regularization = -1: Input should be"):
        BPR(3, regularization=-1)
    with pytest.raises(InputError, match="expects a binary training matrix"):
        fitted(2 * random_rows())


def test_factors_that_are_no_numbers_are_an_error():
    with pytest.raises(DivergedError, match=r"lower ascent_rate \(now 1e\+20\)"):
        fitted(random_rows(), ascent_rate=1e20)
