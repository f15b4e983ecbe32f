"""What every registered model of ratings owes, beside the tests of its own."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from plain_fit import fit
from rating_rows import random_ratings, ready
from scipy.sparse import csr_array

from tfvae.models import MODELS, model_class
from tfvae.models.gradient import GradientRecommender
from tfvae.nn.batches import RowStore, SparseBatch
from tfvae.training.settings import settings_of

N_ROWS, N_ITEMS = 24, 15
RATINGS = random_ratings(N_ROWS, N_ITEMS)
EVERYONE = tf.range(N_ROWS, dtype=tf.int64)


def of_anybody(name):
    kind = model_class(name)
    return kind.predicts_ratings and issubclass(kind, GradientRecommender) and kind.scores_new_users


NAMES = [name for name in MODELS if of_anybody(name)]
every_model = pytest.mark.parametrize("name", NAMES)


def build(name, n_rows=N_ROWS, **changes):
    return settings_of(name, model_class(name).example_settings | changes).build(N_ITEMS, n_rows)


@pytest.fixture(scope="module")
def fitted():
    """Every model, fitted for two epochs; made when first asked for."""
    made = {}

    def model(name):
        if name not in made:
            made[name] = ready(build(name), RATINGS)
            fit(made[name], N_ROWS, 10, epochs=2)
        return made[name]

    return model


@pytest.fixture(scope="module")
def rows():
    """All rows, ratings with them."""
    return RowStore(RATINGS, with_values=True).gather(EVERYONE)


def assert_equal_weights(one, other):
    for first, second in zip(one.variables, other.variables, strict=True):
        np.testing.assert_array_equal(first.numpy(), second.numpy(), err_msg=first.path)


@every_model
def test_no_setting_here_is_a_default(name):
    defaults = settings_of(name, {}).flat()
    for key, value in settings_of(name, model_class(name).example_settings).model.items():
        assert value != defaults[key], f"{key} should not be tested at its default"


@every_model
def test_scores_are_finite_ratings_without_noise(name, fitted, rows):
    scores = fitted(name).scores(rows)
    assert scores.dtype == tf.float32 and scores.shape == (N_ROWS, N_ITEMS)
    assert np.isfinite(scores).all() and np.ptp(scores, axis=0).min() > 0
    np.testing.assert_array_equal(fitted(name)(rows), scores)
    compiled = tf.function(fitted(name).scores)
    np.testing.assert_allclose(compiled(rows), scores, rtol=1e-6, atol=1e-6)


@every_model
def test_config_and_keras_file_round_trips(name, fitted, rows, tmp_path):
    model = fitted(name)
    config = model.get_config()
    for key, value in settings_of(name, model_class(name).example_settings).model.items():
        assert config[key] == (tuple(value) if isinstance(value, list) else value)
    assert type(model).from_config(json.loads(json.dumps(config))).get_config() == config
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_equal_weights(loaded, model)
    np.testing.assert_array_equal(loaded.scores(rows), model.scores(rows))


@every_model
def test_an_empty_row_and_no_rows(name, fitted):
    store = RowStore(RATINGS, with_values=True)
    empty = fitted(name).scores(store.gather(tf.constant([2, 0, 5])))
    assert np.isfinite(empty).all()
    np.testing.assert_allclose(empty[0], empty[2], rtol=1e-5, atol=1e-6)
    assert fitted(name).scores(store.gather(tf.zeros([0], tf.int64))).shape == (0, N_ITEMS)


@every_model
def test_order_of_rows_and_of_ratings_does_not_matter(name, fitted, rows):
    scores = fitted(name).scores(rows).numpy()
    order = np.random.default_rng(0).permutation(N_ROWS)
    permuted = RowStore(RATINGS, with_values=True).gather(tf.constant(order))
    np.testing.assert_allclose(fitted(name).scores(permuted), scores[order], rtol=1e-5, atol=1e-5)
    flat = np.lexsort((-rows.items.numpy(), rows.segment_ids))  # each row backwards
    backwards = SparseBatch(tf.gather(rows.items, flat), rows.segment_ids, rows.lengths, tf.gather(rows.values, flat))
    np.testing.assert_allclose(fitted(name).scores(backwards), scores, rtol=1e-5, atol=1e-5)


@every_model
def test_values_matter(name, fitted, rows):
    others = rows._replace(values=6.0 - rows.values)
    assert np.abs(fitted(name).scores(others) - fitted(name).scores(rows)).max() > 1e-3


@every_model
def test_rows_never_trained_on_and_columns_without_ratings_are_scored(name, fitted):
    strangers = random_ratings(4, N_ITEMS, seed=9, empty=())
    scores = fitted(name).scores(RowStore(strangers, with_values=True).gather(tf.range(4)))
    assert np.isfinite(scores).all()
    assert 1 < scores.numpy()[:, -1].mean() < 5  # nobody has rated the last column


@every_model
def test_mixed_precision_scores_are_float32_and_near(name, fitted, rows):
    model = fitted(name)
    half = type(model).from_config(model.get_config() | {"dtype": "mixed_bfloat16"})
    half.set_weights(model.get_weights())
    scores = half.scores(rows)
    assert scores.dtype == tf.float32
    np.testing.assert_allclose(scores, model.scores(rows), atol=0.1)
    ready(half, RATINGS)
    fit(half, N_ROWS, 10, epochs=1)  # its gradients have the right types too


@every_model
def test_two_epochs_and_two_more_are_four(name):
    whole, halves = (ready(build(name), RATINGS) for _ in range(2))
    fit(whole, N_ROWS, 10, epochs=4)
    fit(halves, N_ROWS, 10, epochs=2)
    fit(halves, N_ROWS, 10, epochs=4, first_epoch=2)
    assert_equal_weights(halves, whole)


@every_model
def test_one_step_on_two_replicas_equals_one_on_one(name, silent_noise, two_replicas):
    dropout = model_class(name).example_settings.get("dropout")
    still = {} if dropout is None else {"dropout": [0.0, 0.0] if isinstance(dropout, list) else 0.0}
    alone, start = ready(build(name, **still), RATINGS), ready(build(name, **still), RATINGS)
    with two_replicas.scope():
        together = ready(build(name, **still), RATINGS)
    for model in (alone, together):
        fit(model, 7, 7, epochs=1)  # of which one replica gets four, the other three
    for variable, *others in zip(alone.variables, together.variables, start.variables, strict=True):
        one, two, first = (v.numpy() for v in (variable, *others))
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=5e-6, err_msg=variable.path)
        assert not variable.trainable or not np.array_equal(one, first), variable.path


@every_model
def test_rows_without_ratings_can_be_trained_on(name):
    ratings = csr_array((np.float32([1, 2, 3, 4, 5]), ([0] * 5, range(5))), shape=(6, N_ITEMS))
    model = ready(build(name, n_rows=6), ratings)
    fit(model, 6, 2, epochs=1)
    assert all(np.isfinite(v.numpy()).all() for v in model.variables)


@every_model
def test_a_saved_model_scores_alike(name, fitted, rows, tmp_path):
    module = tf.Module()
    flat = [tf.TensorSpec([None], dtype) for dtype in (tf.int32, tf.int32, tf.float32, tf.float32)]
    module.model = fitted(name)
    module.scores = tf.function(lambda *given: fitted(name).scores(SparseBatch(*given)), input_signature=flat)
    tf.saved_model.save(module, str(tmp_path / "saved"))
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    found = loaded.scores(rows.items, rows.segment_ids, rows.lengths, rows.values)
    np.testing.assert_allclose(found, fitted(name).scores(rows), rtol=1e-6, atol=1e-6)


@every_model
def test_the_readme_lists_it(name):
    assert f"`{name}`" in (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
