"""Searches on ratings and on held-out items: the lower error wins, and what is for test stays unseen."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tfvae.data.splits import LeaveOneOutSettings, leave_one_out, rating_holdout
from tfvae.data.synthetic import synthetic
from tfvae.experiments import sweep
from tfvae.experiments.definitions import load_table
from tfvae.experiments.protocols import splits_of
from tfvae.experiments.sweep import run_sweep
from tfvae.training.loop import TrainedModel

pytestmark = pytest.mark.slow

TABLE = """
title = "Ratings"
caption = "For tests."
protocol = "rating-holdout"
metrics = ["rmse"]
monitor = "rmse"
seeds = [0, 1]

[[rows]]
name = "I-AutoRec"
slug = "i-autorec"
model = "autorec"
by = "items"
settings = { units = 6, epochs = 3, batch_size = 10 }
search.learning_rate = { low = 1e-4, high = 1e-1, log = true }
"""
ITEMS = (
    TABLE.replace("rating-holdout", "leave-one-out")
    .replace('"rmse"', '"ndcg@10"')
    .replace('by = "items"\n', "")
    .replace('"autorec"', '"ease"')
    .replace("settings = { units = 6, epochs = 3, batch_size = 10 }", "")
    .replace("learning_rate = { low = 1e-4, high = 1e-1", "regularization = { low = 1.0, high = 1e4")
)
INTERACTIONS = synthetic(60, 250, 900, n_tastes=3, seed=1)


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "results" / "table").mkdir(parents=True)
    (tmp_path / "results" / "table" / "table.toml").write_text(TABLE)
    monkeypatch.setattr("tfvae.data.open_split.load_dataset", lambda *_, **__: INTERACTIONS)
    quiet = {"progress": False, "log": lambda line: None}
    return {"results": tmp_path / "results", "work": tmp_path / "work"} | quiet


@pytest.fixture
def given(monkeypatch):
    """The splits that trials were given."""
    splits, real = [], sweep.train

    def train(settings, split, *arguments, **keywords):
        splits.append(split)
        return real(settings, split, *arguments, **keywords)

    monkeypatch.setattr(sweep, "train", train)
    return splits


def test_a_search_on_ratings_sees_no_test_rating_and_takes_the_least_error(place, given):
    found = run_sweep("table", "i-autorec", "synthetic", 3, **place)
    whole = rating_holdout(INTERACTIONS).by_items()
    assert len(given) == 3 and found.data_digest == whole.digest
    for split in given:
        told = split.train + split.validation.targets
        assert split.test is None and (told != whole.train).nnz == 0
        assert told.multiply(whole.test.targets).nnz == 0
    values = [trial.value for trial in found.trials]
    assert found.best.value == min(values) < max(values) < 3 and found.tuned.value == pytest.approx(min(values))
    assert all(0 <= trial.best_epoch < 3 for trial in found.trials)


def test_trials_gather_where_the_error_is_least(place, monkeypatch):
    def train(settings, split, folder, **_):
        error = 0.8 + 0.1 * math.log10(settings.training.learning_rate / 0.02) ** 2
        return TrainedModel(
            None, settings, [{"val_rmse": error + 0.1, "seconds": 1}, {"val_rmse": error, "seconds": 1}], best_epoch=1
        )

    monkeypatch.setattr(sweep, "train", train)
    found = run_sweep("table", "i-autorec", "synthetic", 40, **place)
    rates = np.array([trial.params["learning_rate"] for trial in found.trials])
    assert found.best.value < 0.801
    near = np.abs(np.log10(rates[20:] / 0.02)) < 0.5
    assert near.mean() > 0.6  # of the whole space, from 1e-4 to 1e-1, a third


def test_a_search_on_items_sees_no_test_item_and_takes_the_greatest_gain(place, given):
    (place["results"] / "table" / "table.toml").write_text(ITEMS)
    found = run_sweep("table", "i-autorec", "synthetic", 3, **place)
    whole = leave_one_out(INTERACTIONS, LeaveOneOutSettings())
    for split in given:
        assert split.test is None and split.train.nnz == whole.train.nnz - 60
        assert (split.validation.items != whole.test.items).all()
    values = [trial.value for trial in found.trials]
    assert found.best.value == max(values) > min(values) and found.best.best_epoch is None


def test_ratings_are_cut_anew_for_each_seed_and_other_protocols_once(place):
    ratings = splits_of(load_table("table", place["results"]), "synthetic")
    digests = {(seed, by): ratings(seed, by).digest for seed in (0, 1) for by in ("users", "items")}
    assert len(set(digests.values())) == 4 and ratings(0, "items").digest == digests[0, "items"]
    (place["results"] / "table" / "table.toml").write_text(ITEMS)
    items = splits_of(load_table("table", place["results"]), "synthetic")
    assert items(0, "users") is items(1, "users")
