"""The unit of the ratings changes nothing: the same ratings times c have the same predictions times c."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from model_kinds import of_each_kind
from scipy.sparse import csr_array

from tfvae.data.splits import RatingHoldout, RatingHoldoutSettings, rating_holdout
from tfvae.data.synthetic import synthetic
from tfvae.evaluation.calibration import TOLERANCE, calibration
from tfvae.evaluation.evaluate import evaluate
from tfvae.evaluation.predictive import describe_predictions
from tfvae.models import MODELS, model_class
from tfvae.models.base import knows_rating_sd
from tfvae.nn.batches import RowStore
from tfvae.training.loop import train
from tfvae.training.settings import settings_of

pytestmark = pytest.mark.slow

RATING = [name for name in MODELS if model_class(name).predicts_ratings]


@pytest.fixture(scope="module")
def split() -> RatingHoldout:
    """Ratings from 2 to 5 of 90 users, with a validation part."""
    return rating_holdout(synthetic(n_users=90, n_items=40, n_tastes=4, taste=0.9)).for_tuning()


def times(split: RatingHoldout, c: float) -> RatingHoldout:
    """The split with its ratings multiplied, as if they were measured in another unit."""

    def scaled(matrix):
        return csr_array((matrix.data * np.float32(c), matrix.indices, matrix.indptr), shape=matrix.shape)

    targets = scaled(split.validation.targets)
    history = scaled(split.train)
    validation = dataclasses.replace(split.validation, history=history, targets=targets)
    return dataclasses.replace(
        split, train=history, validation=validation, settings=RatingHoldoutSettings(), digest=f"times {c}"
    )


def fitted(name, split, folder):
    training = {"epochs": 3, "batch_size": 30, "monitor": "rmse"}
    example = {key: value for key, value in model_class(name).example_settings.items() if key != "stochastic"}
    return train(settings_of(name, training | example), split, folder, progress=False, log=[].append).model


@pytest.mark.parametrize("name", of_each_kind(RATING))
def test_the_unit_of_the_ratings_changes_no_prediction_but_by_itself(name, split, tmp_path):
    models = {c: fitted(name, times(split, c), tmp_path / str(c)) for c in (1, 20)}
    assert all(model.rating_unit == c * models[1].rating_unit for c, model in models.items())
    rmse = {c: evaluate(models[c], times(split, c).validation).mean("rmse") / c for c in models}
    for c, model in models.items():
        store = RowStore(times(split, c).train, with_values=True)
        rows = store.gather(tf.range(20, dtype=tf.int64))
        mine = model.scores(rows).numpy() / c
        if c == 1:
            expected = mine
        np.testing.assert_allclose(mine, expected, rtol=2e-3, atol=2e-3)
        assert rmse[c] == pytest.approx(rmse[1], rel=1e-3)
        if knows_rating_sd(model):
            spread = model.rating_sd(rows).numpy() / c
            first = spread if c == 1 else first  # noqa: F821, set in the first round
            np.testing.assert_allclose(spread, first, rtol=2e-3)
        model.save(tmp_path / f"{c}.keras")
        again = keras.models.load_model(tmp_path / f"{c}.keras")
        np.testing.assert_array_equal(again.scores(rows), model.scores(rows))
        assert again.get_config() == model.get_config()


@pytest.mark.long
def test_the_predictive_distributions_are_in_the_users_unit(split, tmp_path):
    found = {}
    for c in (1, 20):
        scaled = times(split, c)
        model = fitted("p-vae", scaled, tmp_path / str(c))
        found[c], _ = describe_predictions(model, scaled.validation, refine=True)
    for way in ("encoder", "hmc"):
        one, other = found[1][way], found[20][way]
        assert other["sd"] / 20 == pytest.approx(one["sd"], rel=0.02)
        assert other["rmse"] / 20 == pytest.approx(one["rmse"], rel=0.02)
        for share in ("within_50", "within_90"):
            assert other[share] == pytest.approx(one[share], abs=0.03)


@pytest.mark.parametrize("variance", [0.001, 0.2, 50.0])
def test_intervals_hold_what_they_say_on_validation_ratings(variance, split, tmp_path):
    lines: list[str] = []
    settings = settings_of("p-vae", {"epochs": 5, "batch_size": 30, "variance": variance, "latent_dim": 4})
    model = train(settings, split, tmp_path, progress=False, log=lines.append).model
    found = calibration(model, split.validation)
    assert abs(found.coverage - 0.95) <= TOLERANCE and found.factor == 1
    assert any("intervals of" in line for line in lines)
    assert (model.sd_factor != 1) == any("multiplied by" in line for line in lines)
    assert variance == 0.2 or model.sd_factor != 1


def test_ratings_that_are_all_equal_have_a_unit():
    for name in ("p-vae", "autorec", "bias-mf"):
        model = model_class(name)(4)
        model.rate_as((3.0, 3.0))
        assert model.rating_unit == 1
        model.rate_as((0.0, 10.0))
        assert model.rating_unit == 2.5
