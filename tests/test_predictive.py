"""Predictive distributions of ratings: closed forms, coverage of simulated data, figures worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rating_rows import dense, random_ratings, ratings_at
from scipy.stats import norm

from tfvae.data.splits import HeldOutRatings
from tfvae.evaluation import predictive
from tfvae.evaluation.predictive import (
    Predictions,
    describe_predictions,
    encoder_codes,
    has_rating_posterior,
    mixture_quantiles,
    predict,
    refined_codes,
)
from tfvae.models.autorec import AutoRec
from tfvae.models.pvae import PVAE
from tfvae.nn.batches import RowStore
from tfvae.nn.hmc import Sampler, Samples

RATINGS = random_ratings()  # [7, 13]; rows 2 and 5 are empty


def randomized(scale=0.5, **settings):
    """A p-VAE of RATINGS with weights that tell formulas apart."""
    model = PVAE(13, **{"embedding_dim": 6, "latent_dim": 2, "variance": 0.6} | settings)
    generator = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(generator.normal(scale=scale, size=variable.shape))
    return model


# ---- codes ------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.slow
def test_refined_codes_have_the_moments_of_the_true_posterior():
    # With a linear decoder p(z | r_O) is normal: precision I + V'V / σ², mean its inverse times V'(r - b) / σ².
    model = randomized(decoder_hidden=())
    samples = refined_codes(model, RATINGS, seed=1, sampler=Sampler(n_samples=1500, n_burn_in=150, n_leapfrog=8))
    values, observed = dense(RATINGS)
    for row in range(7):
        at = observed[row]
        vectors, residuals = model.decoder.kernel.numpy()[at], values[row, at] - model.decoder.bias.numpy()[at]
        covariance = np.linalg.inv(np.eye(2) + vectors.T @ vectors / 0.6)
        mean, draws = covariance @ vectors.T @ residuals / 0.6, samples.codes[:, row]
        sds = np.sqrt(np.diag(covariance))
        np.testing.assert_allclose((draws.mean(axis=0) - mean) / sds, 0, atol=0.15, err_msg=str(row))
        spread = np.cov(draws.T, bias=True) / np.outer(sds, sds)
        np.testing.assert_allclose(spread, covariance / np.outer(sds, sds), atol=0.15, err_msg=str(row))
    # It is the ratings that say so: an empty row has the prior, a full one a narrower posterior around another mean.
    assert samples.codes[:, 2].std() > 0.9 and samples.codes[:, 0].std(axis=0).max() < 0.88


def test_the_encoders_codes_are_drawn_from_its_posterior():
    model, ratings = randomized(scale=0.8, decoder_hidden=(5,)), random_ratings(n_rows=80)
    codes = encoder_codes(model, ratings, n_samples=20, seed=4)
    posterior = model.posterior(RowStore(ratings, with_values=True).gather(np.arange(80)))
    mean, sd = posterior.mean().numpy(), posterior.stddev().numpy()
    assert codes.shape == (20, 80, 2) and mean.std(axis=0).min() > 0.2 * sd.mean() and sd.max() > 2 * sd.min()
    standard = ((codes - mean) / sd).reshape(-1, 2)
    np.testing.assert_allclose(standard.mean(axis=0), 0, atol=0.1)  # 4 / √1600
    np.testing.assert_allclose(np.cov(standard.T), np.eye(2), atol=0.15)
    assert np.abs(np.corrcoef(codes[:, :, 0])[np.triu_indices(20, 1)] - 1).min() > 1e-3  # no two samples are one
    np.testing.assert_array_equal(encoder_codes(model, ratings, n_samples=2, seed=4), codes[:2])
    assert np.abs(encoder_codes(model, ratings, n_samples=2, seed=5) - codes[:2]).min() > 0


def test_more_rows_than_are_taken_at_once_are_each_predicted(monkeypatch):
    model = randomized(decoder_hidden=(5,))
    codes = np.random.default_rng(0).normal(size=(3, 7, 2)).astype(np.float32)
    rows, columns = np.array([6, 0, 3, 3, 6, 1, 2]), np.array([0, 12, 4, 3, 0, 1, 9])
    expected = [model.decoder(model.hidden(code)).numpy()[rows, columns] for code in codes]
    for at_once in (500, 3, 1):
        monkeypatch.setattr(predictive, "ROWS_AT_ONCE", at_once)
        found = predict(model, codes, rows, columns)
        np.testing.assert_allclose(found.means, expected, rtol=1e-5, atol=1e-6)
        assert found.variance == 0.6
    order = np.random.default_rng(1).permutation(7)
    np.testing.assert_allclose(predict(model, codes, rows[order], columns[order]).means, found.means[:, order])


def test_only_a_model_of_ratings_with_a_posterior_has_predictive_distributions():
    assert has_rating_posterior(randomized())
    assert not has_rating_posterior(randomized(stochastic=False)) and not has_rating_posterior(AutoRec(13))


# ---- distributions ----------------------------------------------------------------------------------


def random_predictions(n=50, samples=6):
    means = np.random.default_rng(0).normal(3, 1.2, size=(samples, n)).astype(np.float32)
    return Predictions(means, variance=0.7)


def test_moments_and_distribution_function_are_those_of_the_mixture():
    found, ratings = random_predictions(), np.random.default_rng(1).uniform(0, 6, 50)
    each = norm(found.means, 0.7**0.5)
    np.testing.assert_allclose(found.below(ratings), each.cdf(ratings).mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found.mean, found.means.mean(axis=0), rtol=1e-6)
    second = (0.7 + found.means.astype(float) ** 2).mean(axis=0)
    np.testing.assert_allclose(found.sd, np.sqrt(second - found.means.astype(float).mean(axis=0) ** 2), rtol=1e-5)


@pytest.mark.parametrize("probability", [0.001, 0.25, 0.5, 0.95])
def test_quantiles_invert_the_distribution_function(probability):
    found = random_predictions()
    quantiles = mixture_quantiles(found, probability)
    np.testing.assert_allclose(found.below(quantiles), probability, atol=1e-5)
    one = Predictions(np.zeros((1, 1), np.float32), 4.0)
    assert mixture_quantiles(one, probability) == pytest.approx(2 * norm.ppf(probability), abs=1e-6)


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_ratings_drawn_from_their_distributions_lie_within_a_level_as_often_as_it_says(level):
    generator, found = np.random.default_rng(3), random_predictions(n=20_000)
    chosen = found.means[generator.integers(0, 6, 20_000), np.arange(20_000)]
    ratings = chosen + generator.normal(0, 0.7**0.5, 20_000)
    within = found.within(ratings, level)
    assert within.mean() == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 20_000))
    low, high = (mixture_quantiles(found, (1 + sign * level) / 2) for sign in (-1, 1))
    np.testing.assert_array_equal(within, (low <= ratings) & (ratings <= high))
    overconfident = Predictions(found.means, 0.1)
    assert overconfident.within(ratings, level).mean() < level - 0.05


# ---- what is reported -------------------------------------------------------------------------------


def plain(monkeypatch, codes, refined=None):
    """A p-VAE that predicts the code itself, σ = 2, and given codes [S, n_rows] instead of drawn ones."""
    model = PVAE(4, embedding_dim=2, latent_dim=1, decoder_hidden=(), variance=4.0)
    model.decoder.kernel.assign(np.ones((4, 1)))
    model.decoder.bias.assign(np.zeros(4))
    samples = Samples(
        np.float32(codes if refined is None else refined)[..., None],
        np.array([0.8, 0.9]),
        np.array([0.1, 0.1]),
        np.array([0, 3]),
    )
    monkeypatch.setattr(predictive, "encoder_codes", lambda *_, **__: np.float32(codes)[..., None])
    monkeypatch.setattr(predictive, "refined_codes", lambda *_: samples)
    return model


def test_the_figures_are_those_worked_out_by_hand(monkeypatch):
    # Row 0 has one told rating, row 1 three. Both samples of a code are equal, so that each rating is N(z, 4).
    told = np.array([[1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]]) > 0
    asked = np.array([[0, 1, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]]) > 0
    values = np.array([[1.0, 3, 6, 2], [5, 2, 3, 1], [0, 0, 0, 3]])
    held_out = HeldOutRatings(ratings_at(told, values), ratings_at(asked, values), np.arange(len(told)))
    model = plain(monkeypatch, [[2, 4, 0]] * 2, refined=[[2, 9, 0]] * 2)
    found, evaluation = describe_predictions(model, held_out)
    # Off by 1, 4, 0 and -3, in σ ½, 2, 0 and 1.5; half lie within 0.674 and nine tenths within 1.645 of them.
    encoder = found["encoder"]
    assert encoder["within_50"] == 0.5 and encoder["within_90"] == 0.75
    assert encoder["sd"] == pytest.approx(2.0)
    # Errors of the mean, 2, 2, 2 and 4 within the told 1 to 5: 1, 4, 0, 3.
    assert encoder["rmse"] == pytest.approx(np.sqrt(26 / 4))
    assert encoder["groups"] == [
        {"from": 1, "to": 3, "ratings": 3, "within_50": pytest.approx(2 / 3), "within_90": pytest.approx(2 / 3)},
        {"from": 3, "to": 3, "ratings": 1, "within_50": 0.0, "within_90": 1.0},
    ]
    # Refined, row 1 has 9, which is clipped to 5: errors 1, 4, 0 and 4, the last of them 8 / σ off.
    hmc = found["hmc"]
    assert hmc["rmse"] == pytest.approx(np.sqrt(33 / 4)) == evaluation.mean("rmse")
    assert (hmc["within_50"], hmc["within_90"]) == (0.5, 0.5)
    assert hmc["acceptance"] == pytest.approx(0.85) and hmc["divergences"] == 3 and hmc["seconds"] >= 0
    json.dumps(found, allow_nan=False)

    found, evaluation = describe_predictions(model, held_out, refine=False)
    assert found.keys() == {"encoder"} and evaluation.mean("rmse") == encoder["rmse"]


@pytest.mark.parametrize(
    "sizes",
    [[3, 3, 3, 3], [1, 3, 3, 3], [0, 0, 0, 3], [0, 1, 2, 3], [1, 1, 3, 3], [0, 3, 3, 3], [2], [0, 3], [0, 3, 3]],
    ids=str,
)
def test_every_held_out_rating_falls_into_one_group(monkeypatch, sizes):
    columns = np.arange(4)
    told = columns < np.array(sizes)[:, None]
    asked = (columns == 3) & np.ones((len(sizes), 1), bool)
    values = np.arange(4.0 * len(sizes)).reshape(told.shape)
    held_out = HeldOutRatings(ratings_at(told, values), ratings_at(asked, values), np.arange(len(told)))
    codes = np.tile(values[:, 3], (2, 1)) + np.where(np.arange(len(sizes)) % 2, 20.0, 0.0)
    found, _ = describe_predictions(plain(monkeypatch, codes), held_out, refine=False)
    groups = found["encoder"]["groups"]
    assert sum(group["ratings"] for group in groups) == len(sizes) and all(group["ratings"] for group in groups)
    assert [group["from"] for group in groups] == sorted({group["from"] for group in groups})
    assert groups[0]["from"] == min(sizes) and groups[-1]["to"] == max(sizes)
    for one, other in zip(groups[:-1], groups[1:], strict=True):
        assert one["to"] == other["from"]
    for level in ("within_50", "within_90"):
        share = sum(group["ratings"] * group[level] for group in groups) / len(sizes)
        assert share == pytest.approx(found["encoder"][level]) == pytest.approx(np.mean(np.arange(len(sizes)) % 2 == 0))
    json.dumps(found, allow_nan=False)
