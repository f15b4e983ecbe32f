"""Rows that are another table's: run, tuned and stored there, once, and shown by both."""

from __future__ import annotations

import json

import pytest

from tfvae.experiments import runner as tables
from tfvae.experiments.definitions import load_table
from tfvae.experiments.records import Sweep
from tfvae.experiments.results_folder import datasets_of, stored_runs, sweep_of
from tfvae.experiments.runner import run_table
from tfvae.system.errors import DivergedError

pytestmark = pytest.mark.slow

HOME = """
title = "Home"
caption = "For tests."
metrics = ["recall@5", "ndcg@10"]
monitor = "ndcg@10"
seeds = [1, 2]

[published]
netflix = { source = "Table 9", train_users = 1000000 }

[[rows]]
name = "Popularity"
slug = "popularity"
model = "popularity"

[[rows]]
name = "Mult-DAE"
slug = "mult-dae"
model = "mult-dae"
settings = { latent_dim = 8, epochs = 2, batch_size = 50 }
datasets.netflix = { epochs = 1, dropout = 0.3 }
search.dropout = { low = 0.2, high = 0.8 }
"""
GUEST = """
title = "Guest"
caption = "For tests."
metrics = ["ndcg@10", "recall@1"]
monitor = "recall@1"
seeds = [7]

[published]
netflix = { source = "Table 10" }

[[rows]]
name = "Denoising"
slug = "denoising"
alias_of = "home/mult-dae"
"""


@pytest.fixture
def place(tmp_path, tiny_split, monkeypatch):
    """Keyword arguments for `run_table` in a folder of two tables whose only data set is the tiny split."""
    for name, definition in (("home", HOME), ("guest", GUEST)):
        (tmp_path / "results" / name).mkdir(parents=True)
        (tmp_path / "results" / name / "table.toml").write_text(definition)
    monkeypatch.setattr(tables, "splits_of", lambda *_: lambda seed, by: tiny_split)
    quiet = {"progress": False, "log": lambda line: None}
    return {"results": tmp_path / "results", "work": tmp_path / "work"} | quiet


def page(place, table):
    return (place["results"] / table / "synthetic" / "README.md").read_text()


def test_a_shared_row_is_run_and_stored_in_its_home_and_both_tables_are_rendered(place, monkeypatch):
    results = place["results"]
    assert datasets_of(load_table("guest", results), results) == []
    runs = run_table("guest", "synthetic", **place)
    # Metrics and monitor are those of its home; the seeds are those of both tables.
    assert [(run.table, run.slug, run.row, run.seed) for run in runs] == [
        ("home", "mult-dae", "Mult-DAE", 1),
        ("home", "mult-dae", "Mult-DAE", 2),
        ("home", "mult-dae", "Mult-DAE", 7),
    ]
    assert all(run.metrics.keys() == {"recall@5", "ndcg@10"} for run in runs)
    assert all(run.settings["monitor"] == "ndcg@10" for run in runs)
    assert stored_runs("home", "synthetic", "mult-dae", results) == runs
    assert tables.run_folder(runs[0], place["work"]).is_dir()
    assert [path.name for path in (results / "guest" / "synthetic").iterdir()] == ["README.md"]
    assert datasets_of(load_table("guest", results), results) == ["synthetic"]
    mean = sum(run.metrics["ndcg@10"]["mean"] for run in runs) / 3
    assert f" | {mean:.4f} ± " in page(place, "home")
    assert f"| Denoising | {mean:.4f} ± " in page(place, "guest") and "| not run |" in page(place, "guest")

    monkeypatch.setattr(tables, "train", lambda *_, **__: pytest.fail("trained a stored run"))
    assert run_table("home", "synthetic", rows=["mult-dae"], **place) == runs[:2]
    assert run_table("guest", "synthetic", [2], **place) == runs[1:2]


def test_a_run_renders_the_tables_that_share_it(place):
    run_table("home", "synthetic", [1], ["popularity"], **place)
    assert not (place["results"] / "guest" / "synthetic").exists()
    run_table("home", "synthetic", [1], ["mult-dae"], **place)
    assert "Denoising" in page(place, "guest")
    # Where the overview links to a page there is one.
    overview = (place["results"] / "README.md").read_text()
    assert "(guest/synthetic/README.md)" in overview and "(home/synthetic/README.md)" in overview


def test_a_shared_row_is_set_and_tuned_as_its_home(place, tiny_split, monkeypatch):
    asked, lines = [], []

    def train(wanted, *_, **__):
        asked.append(wanted.flat())
        raise DivergedError("for the test")

    monkeypatch.setattr(tables, "train", train)
    with pytest.raises(DivergedError):
        run_table("guest", "netflix", [1], **(place | {"log": lines.append}))
    found = asked[0]
    assert (found["latent_dim"], found["dropout"], found["epochs"], found["monitor"]) == (8, 0.3, 1, "ndcg@10")
    assert "Denoising: run and stored as home/mult-dae" in lines

    best = {"number": 0, "state": "complete", "params": {"dropout": 0.7}, "value": 0.2, "best_epoch": 0, "seconds": 1}
    sweep = Sweep(
        table="home",
        row="Mult-DAE",
        dataset="netflix",
        seed=0,
        monitor="ndcg@10",
        epochs=None,
        settings={},
        space={"dropout": {"low": 0.2, "high": 0.8}},
        environment={},
        commit=None,
        data_digest=tiny_split.digest,
        trials=[best],
    )
    (place["results"] / "home" / "netflix" / "mult-dae.sweep.json").write_text(json.dumps(sweep.model_dump()))
    row = load_table("guest", place["results"]).row("denoising")
    assert sweep_of("guest", "netflix", row, place["results"]) == sweep
    with pytest.raises(DivergedError):
        run_table("guest", "netflix", [1], **place)
    assert asked[1] == found | {"dropout": 0.7}


def test_the_published_sizes_of_the_home_shorten_a_shared_run(place):
    (run,) = run_table("guest", "netflix", [1], **place)
    assert "90 of 1,000,000 training users" in run.shortened_why
