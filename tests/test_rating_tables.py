"""Tables of rating models: a split for each seed, epochs from a search, cells and tests over splits."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
from scipy.stats import sem, ttest_rel
from stored_runs import page, section

from tfvae.data.splits import RatingHoldoutSettings, rating_holdout
from tfvae.data.synthetic import synthetic
from tfvae.evaluation.evaluate import evaluate
from tfvae.evaluation.intervals import describe_intervals
from tfvae.experiments import runner as tables
from tfvae.experiments.report import render_overview
from tfvae.experiments.results_folder import store_run, stored_run
from tfvae.nn.hmc import Sampler
from tfvae.system.errors import DivergedError, InputError

pytestmark = pytest.mark.slow

TABLE = """
title = "Ratings"
caption = "For tests."
protocol = "rating-holdout"
metrics = ["rmse"]
monitor = "rmse"
seeds = [0, 1]
orderings = [
    { above = "u-autorec", below = "i-autorec", source = "here" },
    { above = "i-autorec", below = "u-autorec", source = "there" },
]

[published]
ml-1m = { source = "Table 9", train_users = 60, n_items = 25 }

[[rows]]
name = "U-AutoRec"
slug = "u-autorec"
model = "autorec"
settings = { units = 6, epochs = 2, batch_size = 20 }
published.ml-1m = { rmse = 0.9 }
search.learning_rate = { low = 1e-4, high = 1e-2, log = true }

[[rows]]
name = "I-AutoRec"
slug = "i-autorec"
model = "autorec"
by = "items"
settings = { units = 6, epochs = 3, batch_size = 10 }

[[rows]]
name = "U-p-VAE"
slug = "u-p-vae"
model = "p-vae"
refined = true
settings = { embedding_dim = 4, latent_dim = 3, decoder_hidden = [], epochs = 1, batch_size = 30 }
"""
INTERACTIONS = synthetic(60, 25, 600, n_tastes=3, seed=1)


def split_of(seed):
    return rating_holdout(INTERACTIONS, RatingHoldoutSettings(seed=seed))


@pytest.fixture(scope="module")
def patched():
    """The only data set is the tiny one, and what is trained is noted."""
    noted, real = [], tables.train

    def train(settings, split, *arguments, **keywords):
        done = real(settings, split, *arguments, **keywords)
        noted.append((settings, split, done))
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfvae.data.open_split.load_dataset", lambda *_, **__: INTERACTIONS)
        patch.setattr(tables, "train", train)
        quick = functools.partial(Sampler, n_burn_in=10, n_leapfrog=3, jit_compile=False)
        patch.setattr("tfvae.evaluation.predictive.Sampler", quick)
        yield noted


def keywords(folder):
    (folder / "results" / "table").mkdir(parents=True)
    (folder / "results" / "table" / "table.toml").write_text(TABLE)
    quiet = {"progress": False, "log": lambda line: None}
    return {"results": folder / "results", "work": folder / "work"} | quiet


@pytest.fixture
def place(patched, tmp_path):
    return keywords(tmp_path)


@pytest.fixture(scope="module")
def whole(patched, tmp_path_factory):
    """The table, run: its place, its runs and what was trained for them."""
    place = keywords(tmp_path_factory.mktemp("whole"))
    before = len(patched)
    runs = tables.run_table("table", "ml-1m", **place)
    return place, runs, patched[before:]


def test_each_seed_has_a_split_of_its_own_and_a_row_by_items_its_transpose(whole):
    _, runs, trained = whole
    assert [(run.slug, run.seed) for run in runs] == [
        (slug, seed) for slug in ("u-autorec", "i-autorec", "u-p-vae") for seed in (0, 1)
    ]
    for run, (settings, split, done) in zip(runs, trained, strict=True):
        expected = split_of(run.seed)
        expected = expected.by_items() if run.slug == "i-autorec" else expected
        assert run.data_digest == split.digest == expected.digest and settings.training.seed == run.seed
        assert (split.train != expected.train).nnz == 0 and done.model.n_items == expected.train.shape[1]
        assert done.best_epoch is None and split.validation is None
    assert len({run.data_digest for run in runs}) == 4
    assert (runs[0].data["users"], runs[2].data["users"]) == (60, 60)


def test_a_run_keeps_the_error_of_its_test_ratings_and_all_its_epochs(whole):
    _, runs, trained = whole
    for run, (_, split, done) in zip(runs[:4], trained, strict=False):
        found = evaluate(done.model, split.test)
        assert run.metrics == found.summary() and run.metrics.keys() == {"rmse", "mae"}
        assert (run.validation, run.best_epoch, run.history, run.validated, run.watched) == (None, None, [], None, None)
    assert [run.epochs for run in runs] == [2, 2, 3, 3, 1, 1]


def test_a_refined_row_reports_the_refined_error(whole):
    _, runs, trained = whole
    for run, (_, split, done) in zip(runs[4:], trained[4:], strict=True):
        assert run.predictive.keys() == {"encoder", "hmc"}
        assert run.metrics["rmse"]["mean"] == run.predictive["hmc"]["rmse"]
        assert run.metrics["rmse"]["mean"] != evaluate(done.model, split.test).mean("rmse")
        for way in run.predictive.values():
            assert sum(group["ratings"] for group in way["groups"]) == split.test.targets.nnz
        assert run.intervals == describe_intervals(done.model, split.test).values, "of the encoder, not refined"
    assert all(run.predictive is None for run in runs[:4]) and all(run.lists is None for run in runs)


def test_a_cell_is_the_mean_over_splits_with_its_standard_error(whole):
    place, runs, _ = whole
    text = page(place["results"], "ml-1m")
    for name, pair in (("U-AutoRec", runs[:2]), ("I-AutoRec", runs[2:4]), ("U-p-VAE", runs[4:])):
        values = [run.metrics["rmse"]["mean"] for run in pair]
        assert f"| {name} | {np.mean(values):.4f} ± {np.std(values, ddof=1) / 2**0.5:.4f}† |" in text
        epochs = pair[0].epochs
        assert f"| {name} | 0, 1 | {np.std(values, ddof=1):.4f} | – | {epochs}, {epochs} | – |" in section(text, "Runs")
    assert "60 in each of 2 random splits" in text and "60 users, 25 items, 600 ratings" in text
    assert all(run.data_digest[:16] in text for run in runs)
    assert "¶" not in text and "§" not in text


def test_a_part_of_the_data_is_shortened_whatever_the_rows_are(whole):
    place, runs, _ = whole
    assert {run.shortened_why for run in runs} == {"600 of 1,000,209 events"}
    assert "no verdict †" in page(place["results"], "ml-1m")


def test_what_is_stored_is_not_run_again_and_gives_the_same_bytes(whole, monkeypatch):
    place, runs, _ = whole
    folder = place["results"] / "table" / "ml-1m"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert not list(folder.glob("*.npz"))
    monkeypatch.setattr(tables, "train", lambda *_, **__: pytest.fail("trained a stored run"))
    assert tables.run_table("table", "ml-1m", **place) == runs
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_row_that_is_newly_refined_or_no_longer_is_measured_again(whole, tmp_path):
    place, runs, _ = whole
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "table.toml").write_text(TABLE.replace("refined = true\n", ""))
    store_run(runs[4], {}, tmp_path)
    lines = []
    options = place | {"results": tmp_path, "log": lines.append}
    (plain,) = tables.run_table("table", "ml-1m", [0], ["u-p-vae"], **options)
    assert any("stored with refined codes; it is run again" in line for line in lines)
    assert plain.predictive.keys() == {"encoder"} and plain.metrics != runs[4].metrics
    assert plain.work == runs[4].work and plain.seconds == runs[4].seconds  # measured again, not trained
    (tmp_path / "table" / "table.toml").write_text(TABLE.replace('by = "items"', 'by = "items"\nrefined = true'))
    with pytest.raises(InputError, match="row 'i-autorec' is refined, but its model has no posterior"):
        tables.run_table("table", "ml-1m", [0], ["i-autorec"], **options)


def test_one_split_of_two_is_marked_and_its_error_is_over_ratings(place):
    (run,) = tables.run_table("table", "synthetic", [1], ["u-autorec"], **place)
    text = page(place["results"], "synthetic")
    mean, se = run.metrics["rmse"]["mean"], run.metrics["rmse"]["se"]
    assert f"| U-AutoRec | {mean:.4f} ± {se:.4f}¶ |" in text and "¶ U-AutoRec: 1 of 2 splits." in text
    assert not run.shortened and "| U-AutoRec | I-AutoRec | here | – | – | not run |" in text
    store_run(run.model_copy(update={"slug": "i-autorec"}), {}, place["results"])
    assert "| U-AutoRec | I-AutoRec | here | – | – | too few splits |" in page(place["results"], "synthetic")
    (cut,) = tables.run_table("table", "synthetic", [0], ["u-autorec"], **place, epochs=1)
    assert cut.shortened_why == "1 of 2 epochs"
    text = page(place["results"], "synthetic")
    assert "†§ |" in text and "differing settings" in text  # its other split has two epochs
    render_overview(place["results"])
    assert "†§" in (place["results"] / "README.md").read_text()


def test_rows_are_paired_by_the_number_of_the_split_and_a_lower_error_is_the_better_one(whole, tmp_path):
    _, runs, _ = whole
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "table.toml").write_text(TABLE)
    values = {"u-autorec": {0: 0.80, 1: 0.83, 2: 0.81}, "i-autorec": {2: 0.92, 0: 0.90, 5: 0.1, 1: 0.94}}
    for number, errors in enumerate(values.values()):
        for seed, error in errors.items():
            metrics = {"rmse": {"mean": error, "se": 0.01, "low": 0, "high": 1}}
            changes = {"seed": seed, "metrics": metrics, "shortened": False, "shortened_why": None}
            store_run(runs[2 * number].model_copy(update=changes), {}, tmp_path)
    ours, theirs = ([values[slug][seed] for seed in range(3)] for slug in values)
    expected = ttest_rel(ours, theirs)
    assert expected.pvalue < 0.05
    difference, se = np.mean(ours) - np.mean(theirs), sem(np.subtract(ours, theirs))
    text = page(tmp_path, "ml-1m")
    p_value = f"{expected.pvalue:.3f}" if expected.pvalue >= 0.001 else "< 0.001"
    assert f"| U-AutoRec | I-AutoRec | here | {difference:+.4f} ± {se:.4f} | {p_value} | holds |" in text
    assert f"| I-AutoRec | U-AutoRec | there | {-difference:+.4f} ± {se:.4f} | {p_value} | reversed |" in text
    assert f"| U-AutoRec | I-AutoRec | {difference:+.4f} ± {se:.4f} | {p_value} |" in section(text, "Paired tests")
    assert "A is to be below B in RMSE" in text
    mean, error = np.mean(ours), sem(ours)
    assert f"| U-AutoRec | RMSE | {mean:.4f} ± {error:.4f} | 0.900 | {mean - 0.9:+.4f} | below |" in text


@pytest.mark.long
@pytest.mark.parametrize(
    ("final_learning_rate_factor", "cut", "expected"), [(1.0, None, 8), (1.0, 9, 8), (1.0, 8, 2), (0.1, None, 2)]
)
def test_a_search_gives_the_number_of_epochs_unless_the_rate_is_cooled_or_it_was_cut_there(
    place, monkeypatch, final_learning_rate_factor, cut, expected
):
    asked = []

    def train(settings, *_, **__):
        asked.append(settings.training)
        raise DivergedError("for the test")

    monkeypatch.setattr(tables, "train", train)
    trial = {"state": "complete", "params": {"learning_rate": 0.002}, "seconds": 1}
    trials = [
        {"number": n, "value": v, "best_epoch": b} | trial for n, v, b in ((0, 0.9, 4), (1, 0.8, 7), (2, 0.95, 1))
    ]
    sweep = {"table": "table", "row": "U-AutoRec", "dataset": "synthetic", "seed": 0, "monitor": "rmse", "epochs": cut}
    sweep |= {
        "settings": {"final_learning_rate_factor": final_learning_rate_factor},
        "space": {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}},
        "environment": {},
        "commit": None,
        "trials": trials,
    }
    folder = place["results"] / "table" / "synthetic"
    folder.mkdir()
    (folder / "u-autorec.sweep.json").write_text(json.dumps(sweep | {"data_digest": split_of(0).digest}))
    for options in ({}, {"overrides": {"epochs": 5}}):
        with pytest.raises(DivergedError):
            tables.run_table("table", "synthetic", [0, 1], ["u-autorec"], **place, **options)
    assert [training.epochs for training in asked] == [expected, expected, 5, 5]
    assert {training.learning_rate for training in asked} == {0.002}
    assert stored_run("table", "synthetic", "u-autorec", 0, place["results"]) is None
