"""A leave-one-out table that watches the test part: the last epoch beside the best one on test."""

from __future__ import annotations

import numpy as np
import pytest
from stored_runs import page, section

from tfvae.data.synthetic import synthetic
from tfvae.experiments import runner as tables
from tfvae.experiments.results_folder import stored_run

pytestmark = pytest.mark.slow

TABLE = """
title = "Items"
caption = "For tests."
protocol = "leave-one-out"
metrics = ["hr@10", "ndcg@10", "full-hr@10"]
monitor = "ndcg@10"
seeds = [1, 2]
watch_test = true

[published]
ml-1m = { source = "Table 9" }

[[rows]]
name = "Mult-VAE"
slug = "mult-vae"
model = "mult-vae"
settings = { hidden = [], latent_dim = 6, epochs = 4, batch_size = 20, learning_rate = 0.05 }

[[rows]]
name = "Popularity"
slug = "popularity"
model = "popularity"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched")
    (folder / "results" / "table").mkdir(parents=True)
    (folder / "results" / "table" / "table.toml").write_text(TABLE)
    with pytest.MonkeyPatch.context() as patch:
        interactions = synthetic(60, 250, 900, n_tastes=3, seed=1)
        patch.setattr("tfvae.data.open_split.load_dataset", lambda *_, **__: interactions)
        quiet = {"progress": False, "log": lambda line: None}
        yield {"results": folder / "results", "work": folder / "work"} | quiet


@pytest.fixture(scope="module")
def runs(place):
    return tables.run_table("table", "synthetic", **place)


def test_a_run_is_watched_on_the_test_items_and_measured_after_its_last_epoch(runs):
    *neural, popularity = runs
    assert [(run.slug, run.seed) for run in runs] == [("mult-vae", 1), ("mult-vae", 2), ("popularity", 1)]
    for run in neural:
        assert run.watched.keys() == {"hr@10", "ndcg@10"} and {len(curve) for curve in run.watched.values()} == {4}
        for metric, curve in run.watched.items():
            assert run.metrics[metric]["mean"] == pytest.approx(curve[-1], abs=1e-6)
        assert (run.validation, run.best_epoch, run.history, run.validated) == (None, None, [], None)
        assert run.epochs == 4 and run.metrics.keys() == {"hr@10", "ndcg@10", "full-hr@10"} and run.users == 60
        assert run.lists["k"] == 20 and 0 < run.lists["similarity"] < 1 and run.intervals is None
    assert popularity.watched is None and popularity.epochs == 0
    assert neural[0].watched != neural[1].watched and neural[0].data_digest == popularity.data_digest


def test_the_page_has_the_last_epoch_and_the_best_one_on_test(place, runs):
    text = page(place["results"], "synthetic")
    shown = section(text, "The best epoch on test")
    cells = []
    for metric in ("hr@10", "ndcg@10"):
        last = np.mean([run.metrics[metric]["mean"] for run in runs[:2]])
        best = np.mean([max(run.watched[metric]) for run in runs[:2]])
        assert best > last
        cells.append((f"{last:.4f} ± ", f"{best:.4f}"))
    (line,) = [line for line in shown.splitlines() if line.startswith("| Mult-VAE")]
    _, _, *found, _ = line.split("|")
    assert [cell.strip().startswith(expected) for cell, expected in zip(found, sum(cells, ()), strict=True)] == [
        True
    ] * 4
    assert "| HR@10: last epoch | best epoch on test | NDCG@10: last epoch |" in shown
    (line,) = [line for line in shown.splitlines() if line.startswith("| Popularity")]
    assert line.count("| – |") == 2 and "full HR@10" in text and "full HR@10: last" not in text
    assert "| Mult-VAE | 1, 2 |" in section(text, "Runs") and "| 4, 4 | – |" in section(text, "Runs")


def test_rendering_twice_gives_the_same_bytes_without_training(place, runs, monkeypatch):
    folder = place["results"] / "table" / "synthetic"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(tables, "train", lambda *_, **__: pytest.fail("trained a stored run"))
    assert tables.run_table("table", "synthetic", **place) == runs
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_rounds_of_several_epochs_are_watched_where_they_end(place, runs, monkeypatch):
    real = tables.train

    def train(*arguments, **keywords):
        done = real(*arguments, **keywords)
        for epoch in (0, 2):
            for name in ("test_hr@10", "test_ndcg@10"):
                done.history[epoch].pop(name)
        return done

    monkeypatch.setattr(tables, "train", train)
    (place["results"] / "table" / "synthetic" / "mult-vae.seed1.json").rename(place["work"] / "set-aside.json")
    tables.run_table("table", "synthetic", [1], ["mult-vae"], **place)
    found = stored_run("table", "synthetic", "mult-vae", 1, place["results"])
    assert found.watched == {metric: curve[1::2] for metric, curve in runs[0].watched.items()}
