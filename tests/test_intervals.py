"""What predicted ratings are worth as distributions: closed forms, simulated ratings, what is stored and printed."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given
from hypothesis import strategies as st
from rating_rows import dense, random_ratings, ratings_at
from scipy.integrate import quad
from scipy.sparse import csr_array
from scipy.stats import norm
from stored_runs import page, section, store, values

from tfvae.data.splits import HeldOutRatings, RatingHoldoutSettings, rating_holdout
from tfvae.data.synthetic import synthetic
from tfvae.evaluation.evaluate import evaluate
from tfvae.evaluation.intervals import Intervals, describe_intervals, normal_crps
from tfvae.evaluation.scoring import moments_at
from tfvae.experiments import runner as tables
from tfvae.experiments.results_folder import store_run, stored_run
from tfvae.models.autorec import AutoRec
from tfvae.models.popularity import Popularity
from tfvae.models.pvae import PVAE
from tfvae.models.rating_model import RatingModel
from tfvae.nn.batches import RowStore
from tfvae.system.errors import DivergedError, InputError

TABLE = """
title = "A table"
caption = "For tests."
protocol = "rating-holdout"
metrics = ["rmse"]
monitor = "rmse"
seeds = [0, 1]

[[rows]]
name = "U-p-VAE"
slug = "u-p-vae"
model = "p-vae"
settings = { embedding_dim = 4, latent_dim = 3, epochs = 2, batch_size = 30 }

[[rows]]
name = "U-AutoRec"
slug = "u-autorec"
model = "autorec"
settings = { units = 6, epochs = 2, batch_size = 20 }
"""
COUNTS = {"users": 9, "items": 8, "ratings": 70, "test_ratings": 7, "cold_items": 0, "test_ratings_of_cold_items": 0}
INTERVALS = {"crps": 0.5, "within_50": 0.4, "within_90": 0.8, "sd": 0.75}


class Known(RatingModel):
    """Predicts given ratings with given standard deviations, [n_rows, n_items] each; None knows none."""

    def __init__(self, means, sds=None, most_rows=1000):
        super().__init__(means.shape[1], name="known")
        self.means, self.most_rows = tf.constant(means, tf.float32), most_rows
        self.sds = None if sds is None else tf.constant(sds, tf.float32)

    @property
    def has_rating_sd(self):
        return self.sds is not None

    def scores(self, batch):
        with tf.control_dependencies([tf.debugging.assert_less_equal(tf.size(batch.users), self.most_rows)]):
            return tf.gather(self.means, batch.users)

    def rating_sd(self, batch):
        return tf.gather(self.sds, batch.users)


def held_out_of(told, asked):
    return HeldOutRatings(told, asked, np.arange(told.shape[0]))


def some_held_out():
    """Ratings from 1 to 5 that are told, of which rows 2 and 5 and column 12 have none, and others of 1 and 5."""
    told, generator = random_ratings(), np.random.default_rng(1)
    asked = (generator.random((7, 13)) < 0.4) & ~dense(told)[1]
    return held_out_of(told, ratings_at(asked, generator.choice(np.float32([1, 5]), (7, 13))))


# ---- the score --------------------------------------------------------------------------------------


def by_integration(mean, sd, rating):
    """∫ (F(y) − 1{y ≥ r})² dy, in parts between which nothing bends sharply."""
    inside = (mean + sd * np.array([-12, -4, -1, 0, 1, 4, 12])).tolist()
    ends = sorted({rating, *inside})

    def at(y, above):
        return (norm.cdf(y, mean, sd) - above) ** 2

    # Left of all the others F is 0, and right of them 1, so that what is left of the integral is a length.
    total = max(inside[0] - rating, 0) + max(rating - inside[-1], 0)
    for low, high in zip(ends, ends[1:], strict=False):
        if inside[0] <= low and high <= inside[-1]:
            total += quad(at, low, high, args=(float(low >= rating),), epsabs=1e-12)[0]
    return total


@given(mean=st.floats(-5, 5), sd=st.floats(0.01, 20), rating=st.floats(-30, 30))
@example(mean=0.12, sd=0.01, rating=0.0)  # a rating at the border of the integral's first part
def test_the_score_is_the_integral_that_defines_it(mean, sd, rating):
    assert normal_crps(mean, sd, rating) == pytest.approx(by_integration(mean, sd, rating), rel=1e-7, abs=1e-9)


def test_scores_worked_out_by_hand():
    # At the mean: (√2 − 1)/√π standard deviations. The third is what scoringRules' tests of crps_norm(-3) have.
    found = normal_crps(np.array([2.0, 2, 0, 4]), np.array([1.0, 3, 1, 0]), np.array([2.0, 2, -3, 1]))
    at_mean = (2**0.5 - 1) / math.pi**0.5
    np.testing.assert_allclose(found, [at_mean, 3 * at_mean, 2.43657473, 3], rtol=1e-8)
    assert found.dtype == np.float64


@given(
    errors=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5),
    sd=st.one_of(st.just(0.0), st.floats(5e-324, 1e6)),
)
def test_a_score_is_finite_not_negative_and_at_most_that_of_a_point_or_of_the_spread(errors, sd):
    errors = np.array(errors)
    with np.errstate(all="raise", under="ignore"):
        found = normal_crps(np.zeros(len(errors)), np.full(len(errors), sd), errors)
    assert np.isfinite(found).all() and (found >= 0).all()
    assert (found <= np.abs(errors) + sd).all() and (found >= np.abs(errors) - sd - 1e-9).all()
    np.testing.assert_array_equal(found, normal_crps(errors, np.full(len(errors), sd), np.zeros(len(errors))))


def test_a_point_scores_its_error():
    errors = np.array([0.0, 1.5, -2.0])
    np.testing.assert_array_equal(normal_crps(np.zeros(3), np.zeros(3), errors), np.abs(errors))
    np.testing.assert_array_equal(normal_crps(np.zeros(2), np.full(2, 1e-310), errors[1:]), np.abs(errors[1:]))


# ---- what is measured -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def simulated():
    """Means and standard deviations [200, 150], and a normal rating of each place; a fifth of them are told."""
    generator = np.random.default_rng(0)
    means, sds = generator.normal(3, 1, (200, 150)), generator.uniform(0.3, 2, (200, 150))
    ratings, told = generator.normal(means, sds), generator.random((200, 150)) < 0.2
    told[:, 0], told[0] = True, True  # no row and no column is cold
    return means, sds, held_out_of(ratings_at(told, ratings), ratings_at(~told, ratings))


def test_intervals_of_ratings_that_are_as_said_hold_what_they_say(simulated):
    means, sds, held_out = simulated
    n = held_out.targets.nnz
    found = describe_intervals(Known(means, sds), held_out)
    assert found.within_50 == pytest.approx(0.5, abs=4 * 0.5 / n**0.5)
    assert found.within_90 == pytest.approx(0.9, abs=4 * 0.3 / n**0.5)
    rows, columns, _ = held_out.triples()
    assert found.sd == pytest.approx(sds[rows, columns].mean())
    # E CRPS = E|X − r| − E|X − X'|/2 = σ/√π, where all three have the same distribution.
    assert found.crps == pytest.approx(found.sd / math.pi**0.5, rel=0.02)


def test_other_standard_deviations_than_the_true_ones_score_worse(simulated):
    means, sds, held_out = simulated
    half, true, double = (describe_intervals(Known(means, factor * sds), held_out) for factor in (0.5, 1, 2))
    assert true.crps < min(half.crps, double.crps) and double.sd == pytest.approx(4 * half.sd)
    assert half.within_50 < true.within_50 < double.within_50 and half.within_90 < true.within_90 < double.within_90


def test_figures_worked_out_by_hand():
    told = csr_array(np.array([[1.0, 0, 0, 5], [2, 4, 3, 0]]))
    asked = csr_array(np.array([[0.0, 3, 4, 0], [0, 0, 0, 2]]))
    # Errors 0, 1 and 3.5; 0.674 standard deviations are 0.674, 1.349 and 0.674, and 1.645 are 1.645, 3.290 and 1.645.
    means = np.array([[0, 3, 3, 0], [0, 0, 0, 5.5]])
    sds = np.array([[9, 1, 2, 9], [9, 9, 9, 1]])
    found = describe_intervals(Known(means, sds), held_out_of(told, asked))
    scores = [by_integration(3, 1, 3), by_integration(3, 2, 4), by_integration(5.5, 1, 2)]
    assert (found.within_50, found.within_90, found.sd) == (
        pytest.approx(2 / 3),
        pytest.approx(2 / 3),
        pytest.approx(4 / 3),
    )
    assert found.crps == pytest.approx(np.mean(scores)), "5.5 is not clipped to 5"
    assert found.values == {name: getattr(found, name) for name in ("crps", "within_50", "within_90", "sd")}


def test_a_model_without_standard_deviations_is_a_point_whose_score_is_its_bounded_error():
    held_out = some_held_out()
    means = np.random.default_rng(2).normal(3, 4, (7, 13))
    for model in (Known(means), AutoRec(13, units=3)):
        found = describe_intervals(model, held_out)
        assert found == Intervals(crps=evaluate(model, held_out).mean("mae")) and found.values.keys() == {"crps"}
    assert describe_intervals(Known(means, np.zeros((7, 13))), held_out).crps > found.crps, "that is not clipped"


def test_what_has_no_known_rating_is_predicted_by_the_middle_with_the_models_own_standard_deviation():
    told = csr_array(np.array([[1.0, 4.0, 0], [0, 0, 0], [2.0, 0, 0]]))
    asked = csr_array(np.array([[0, 0, 4.0], [3.0, 0, 0], [0, 3.0, 0]]))  # column 2 and row 1 are cold
    means, sds = np.full((3, 3), 3.5), np.array([[9, 9, 2.0], [0.5, 9, 9], [9, 1, 9]])
    found = describe_intervals(Known(means, sds), held_out_of(told, asked))
    # Errors from the middle 2.5 are 1.5 and 0.5, and from 3.5 it is 0.5; in standard deviations 0.75, 1 and 0.5.
    assert (found.within_50, found.within_90) == (pytest.approx(1 / 3), 1.0) and found.sd == pytest.approx(3.5 / 3)
    expected = normal_crps(np.array([2.5, 2.5, 3.5]), np.array([2, 0.5, 1]), np.array([4, 3, 3]))
    assert found.crps == pytest.approx(expected.mean())


def test_of_a_p_vae_it_is_the_encoders_prediction_and_its_sd():
    model, held_out = PVAE(13, embedding_dim=6, latent_dim=2, variance=0.6), some_held_out()
    generator = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(generator.normal(scale=0.8, size=variable.shape))
    observed = dense(held_out.history)[1]
    batch = RowStore(held_out.history, with_values=True).gather(np.arange(7))
    means, sds = model.scores(batch).numpy(), model.rating_sd(batch).numpy()
    rows, columns, ratings = held_out.triples()
    assert sds[rows, columns].std() > 0.05
    cold = ~observed.any(axis=1)[rows] | ~observed.any(axis=0)[columns]
    middles = np.where(cold, 3, means[rows, columns])
    z = (ratings - middles) / sds[rows, columns]
    found = describe_intervals(model, held_out)
    assert 0 < cold.mean() < 1 and found.within_50 == pytest.approx((np.abs(z) <= norm.ppf(0.75)).mean())
    assert found.within_90 == pytest.approx((np.abs(z) <= norm.ppf(0.95)).mean())
    assert found.crps == pytest.approx(normal_crps(middles, sds[rows, columns], ratings).mean(), rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 199])  # 199 rows have a held-out rating
def test_no_more_rows_are_predicted_at_once_than_a_batch_has(simulated, batch_size):
    means, sds, held_out = simulated
    expected = describe_intervals(Known(means, sds), held_out)
    assert describe_intervals(Known(means, sds, most_rows=batch_size), held_out, batch_size) == expected
    with pytest.raises(tf.errors.InvalidArgumentError):
        describe_intervals(Known(means, sds, most_rows=batch_size - 1), held_out, batch_size)


def test_moments_are_of_the_pairs_in_their_order():
    means, sds = np.arange(20.0).reshape(5, 4), 100 + np.arange(20.0).reshape(5, 4)
    users, items = np.array([4, 0, 4, 2, 0]), np.array([3, 1, 0, 2, 1])
    for batch_size in (1, 2, 5):
        found = moments_at(Known(means, sds), csr_array((5, 4), dtype=np.float32), users, items, batch_size)
        np.testing.assert_array_equal(found, [means[users, items], sds[users, items]])


def test_there_are_no_intervals_but_of_ratings(tiny_split):
    assert describe_intervals(Popularity(tiny_split.n_items), tiny_split.test) is None


def test_what_cannot_be_measured_is_refused():
    told, asked = csr_array([[4.0, 0.0], [0.0, 2.0]]), csr_array([[0.0, 3.0], [0.0, 0.0]])
    whole = held_out_of(told, asked)
    for wrong in (np.nan, np.inf):
        spoilt = np.array([[1, wrong], [1, 1]])
        for model in (Known(spoilt, np.ones((2, 2))), Known(np.ones((2, 2)), spoilt), Known(spoilt)):
            with pytest.raises(DivergedError, match="known gave NaN or infinite scores for 1 of"):
                describe_intervals(model, whole)
    for model in (Known(np.ones((2, 3)), np.ones((2, 3))), Known(np.ones((2, 3)))):
        with pytest.raises(InputError, match="scores 3 items, but the histories have 2 columns"):
            describe_intervals(model, whole)
        with pytest.raises(InputError, match="no held-out ratings"):
            describe_intervals(model, held_out_of(told, csr_array((2, 2), dtype=np.float32)))


# ---- stored and printed -----------------------------------------------------------------------------


@pytest.fixture
def results(tmp_path):
    (tmp_path / "results" / "table").mkdir(parents=True)
    (tmp_path / "results" / "table" / "table.toml").write_text(TABLE)
    return tmp_path / "results"


@pytest.mark.long
@pytest.mark.slow
def test_a_run_stores_what_its_intervals_hold_and_the_page_shows_it(results, monkeypatch):
    interactions, trained, real = synthetic(60, 25, 600, n_tastes=3, seed=1), [], tables.train
    monkeypatch.setattr("tfvae.data.open_split.load_dataset", lambda *_, **__: interactions)
    monkeypatch.setattr(tables, "train", lambda *given, **named: trained.append(real(*given, **named)) or trained[-1])
    place = {"results": results, "work": results.parent / "work", "progress": False, "log": lambda line: None}
    runs = tables.run_table("table", "synthetic", **place)
    for run, done in zip(runs, trained, strict=True):
        split = rating_holdout(interactions, RatingHoldoutSettings(seed=run.seed))
        assert run.intervals == describe_intervals(done.model, split.test).values and run.lists is None
        assert stored_run("table", "synthetic", run.slug, run.seed, results) == run
    assert runs[0].intervals.keys() == set(INTERVALS) and runs[2].intervals == {"crps": runs[2].metrics["mae"]["mean"]}
    mean = {name: np.mean([run.intervals[name] for run in runs[:2]]) for name in INTERVALS}
    text = section(page(results, "synthetic"), "Intervals")
    shares = f"{mean['within_50']:.3f} | {mean['within_90']:.3f} | {mean['sd']:.3f}"
    assert f"| U-p-VAE | {mean['crps']:.4f} | {shares} |" in text
    assert f"| U-AutoRec | {np.mean([run.intervals['crps'] for run in runs[2:]]):.4f} | – | – | – |" in text
    assert "point forecast: its CRPS is its mean absolute error" in text

    before = runs[0].model_copy(update={"intervals": None})  # as runs of earlier versions are
    store_run(before, {}, results)
    assert tables.run_table("table", "synthetic", **place) == [before, *runs[1:]] and len(trained) == 4
    assert f"| U-p-VAE | {runs[1].intervals['crps']:.4f} |" in section(page(results, "synthetic"), "Intervals")


def test_a_page_without_such_runs_has_no_such_section(results):
    metrics = {"rmse": values(0.9, 0.1)}
    store(results, "u-p-vae", 0, metrics, data=COUNTS)
    assert "## Intervals" not in page(results)
    store(results, "u-p-vae", 1, metrics, data=COUNTS, intervals=INTERVALS)
    text = section(page(results), "Intervals")
    assert "| U-p-VAE | 0.5000 | 0.400 | 0.800 | 0.750 |" in text and "U-AutoRec" not in text


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (INTERVALS | {"crps": math.nan}, "NaN"),
        (INTERVALS | {"sd": math.inf}, "Infinity"),
        (INTERVALS | {"crps": -0.1}, "expected a crps of at least 0, found -0.1"),
        (INTERVALS | {"sd": -0.1}, "expected a sd of at least 0, found -0.1"),
        (INTERVALS | {"within_50": 1.1}, "expected a within_50 from 0 to 1, found 1.1"),
        (INTERVALS | {"within_90": -0.1}, "expected a within_90 of at least 0, found -0.1"),
        (INTERVALS | {"within_90": "most"}, "within_90"),
        (INTERVALS | {"coverage": 0.5}, "found .*coverage"),
        ({name: INTERVALS[name] for name in ("crps", "sd")}, "expected crps, alone or with sd, within_50, within_90"),
        ({name: INTERVALS[name] for name in ("within_50", "within_90", "sd")}, "expected crps, alone or with"),
        ({}, "expected crps, alone or with"),
        ([0.5], "intervals"),
    ],
)
def test_damaged_intervals_of_a_stored_run_are_refused(results, damaged, message):
    store(results, "u-p-vae", 0, {"rmse": values(0.9, 0.1)}, intervals=INTERVALS)
    path = results / "table" / "ml-20m" / "u-p-vae.seed0.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"intervals": damaged}))
    with pytest.raises(InputError, match=message) as refused:
        stored_run("table", "ml-20m", "u-p-vae", 0, results)
    assert str(path) in str(refused.value)
