"""Tables: definitions that are checked, runs that are stored once, and what makes a stored run outdated."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array, vstack

from tfvae.data.datasets import default_split
from tfvae.data.interactions import Interactions
from tfvae.data.splits import StrongGeneralizationSettings, strong_generalization
from tfvae.data.vae_cf import write_vae_cf
from tfvae.experiments import runner as tables
from tfvae.experiments.definitions import load_table, table_names
from tfvae.experiments.plan import row_settings
from tfvae.experiments.protocols import splits_of
from tfvae.experiments.results_folder import (
    per_user_metrics,
    stored_attributes,
    stored_latents,
    stored_run,
    stored_runs,
)
from tfvae.experiments.sweep import search_problem
from tfvae.system.errors import DivergedError, InputError
from tfvae.training.settings import settings_of

pytestmark = pytest.mark.slow

COMMITTED = Path(__file__).parents[1] / "paper_results"
TINY = """
title = "Tiny"
paper = "None, 2018"
caption = "For tests."
metrics = ["recall@5", "ndcg@10"]
monitor = "ndcg@10"
seeds = [1, 2]

[published]
ml-20m = { source = "Table 9" }
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
published.ml-20m = { "ndcg@10" = 0.5 }
search.dropout = { low = 0.2, high = 0.8 }

[[rows]]
name = "WMF"
slug = "wmf"
published.ml-20m = { "ndcg@10" = 0.4 }
"""
COUNTS = """
title = "Counts"
caption = "For tests."
kind = "data-attributes"
[[attributes]]
name = "# of users"
key = "users"
published = { synthetic = 200, ml-20m = 136677 }
"""
ASKED_OF_A_RUN = (
    "table row dataset seed metrics settings shortened environment seconds epochs best_epoch parameters "
    "commit data_digest validation history users_without_targets tuned peak_memory_gb latents lists intervals"
)


@pytest.fixture(scope="module")
def split():
    """200 users in two clusters of 15 items; 30 are held out for validation and 30 for test."""
    random = np.random.default_rng(0)
    users, items = np.nonzero(random.random((200, 30)) < np.where(_cluster(200)[:, None] == _cluster(30), 0.6, 0.1))
    settings = StrongGeneralizationSettings(held_out_users=30)
    return strong_generalization(Interactions.from_events(users, items), settings)


def _cluster(size):
    return np.arange(size) % 2


@pytest.fixture
def place(tmp_path, split, monkeypatch):
    """Keyword arguments for `run_table` in an empty folder whose only data set is the tiny split."""
    for name, definition in (("tiny", TINY), ("counts", COUNTS)):
        (tmp_path / "results" / name).mkdir(parents=True)
        (tmp_path / "results" / name / "table.toml").write_text(definition)
    monkeypatch.setattr(tables, "splits_of", lambda *_: lambda seed, by: split)
    quiet = {"progress": False, "log": lambda line: None}
    return {"results": tmp_path / "results", "work": tmp_path / "work"} | quiet


@pytest.fixture
def asked(monkeypatch):
    """The settings that were trained, in order; training itself fails at once."""
    settings = []

    def train(wanted, *_, **__):
        settings.append(wanted)
        raise DivergedError("for the test")

    monkeypatch.setattr(tables, "train", train)
    return settings


def test_every_committed_table_can_be_run_and_searched():
    assert table_names(COMMITTED)
    for name in table_names(COMMITTED):
        table = load_table(name, COMMITTED)
        for row in table.rows:
            for dataset in [*table.published, "ml-1m"] if row.model else ():
                settings = settings_of(row.model, row_settings(table, row, dataset))
                assert not row.search or search_problem(row.search, settings.flat()) is None


def test_unknown_names_name_the_nearest(place):
    with pytest.raises(InputError, match="did you mean 'tiny'"):
        tables.run_table("tinny", "synthetic", **place)
    with pytest.raises(InputError, match="did you mean 'mult-dae'"):
        tables.run_table("tiny", "synthetic", rows=["mult-da"], **place)
    with pytest.raises(InputError, match="published values only"):
        tables.run_table("tiny", "synthetic", rows=["wmf"], **place)


def test_a_tables_split_is_the_papers_or_lies_ready_in_a_folder(tmp_path, split):
    table = load_table("multvae-table2", COMMITTED)
    write_vae_cf(split, tmp_path / "ready")
    ready = splits_of(table, "ml-20m", tmp_path / "ready")(1, "users")
    assert (ready.train != split.train).nnz == 0 and (ready.test.targets != split.test.targets).nnz == 0
    assert splits_of(table, "movietweetings")(1, "users").settings == default_split("movietweetings")
    with pytest.raises(InputError, match="did you mean 'ml-20m'"):
        splits_of(table, "ml-20")


def test_a_run_is_stored_whole_rendered_and_never_trained_again(place, split, monkeypatch):
    runs = tables.run_table("tiny", "synthetic", **place)
    # Nothing about popularity is random: one run.
    assert [(run.slug, run.seed) for run in runs] == [("popularity", 1), ("mult-dae", 1), ("mult-dae", 2)]
    folder = place["results"] / "tiny" / "synthetic"
    assert {path.name for path in folder.iterdir()} >= {"README.md", "learning-curves.png"}
    assert (place["results"] / "README.md").is_file()

    stored = json.loads((folder / "mult-dae.seed2.json").read_text())
    assert set(ASKED_OF_A_RUN.split()) <= stored.keys()
    assert (
        stored["settings"]
        == settings_of(
            "mult-dae", {"latent_dim": 8, "epochs": 2, "batch_size": 50, "seed": 2, "monitor": "ndcg@10"}
        ).flat()
    )
    assert stored["shortened"] is False and stored["epochs"] == 2 and len(stored["history"]) == 2
    assert stored["validation"] == pytest.approx(max(stored["history"]), abs=1e-6)
    assert stored["users"] + stored["users_without_targets"] == len(split.test.user_ids)
    n_items = split.n_items
    assert stored["parameters"] >= 2 * 8 * n_items + 8 + n_items
    for metric, values in per_user_metrics(runs[2], place["results"]).items():
        assert len(values) == stored["users"]
        assert stored["metrics"][metric]["mean"] == pytest.approx(values.mean())
        assert stored["metrics"][metric]["se"] == pytest.approx(values.std() / np.sqrt(len(values)))
    assert runs[1].metrics != runs[2].metrics
    assert (tables.run_folder(runs[2], place["work"]) / "model.keras").is_file()

    def refuse(*_, **__):
        raise AssertionError("trained a stored run")

    monkeypatch.setattr(tables, "train", refuse)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert tables.run_table("tiny", "synthetic", **place) == runs
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert tables.run_table("tiny", "synthetic", [9], ["popularity"], **place) == runs[:1]


def test_a_run_stores_its_peak_memory_unless_it_found_earlier_work(place):
    def run():
        return tables.run_table("tiny", "synthetic", [1], ["mult-dae"], **place)[0]

    first = run()
    assert 0.1 < first.peak_memory_gb < 200 and first.latents is None
    (place["results"] / "tiny" / "synthetic" / "mult-dae.seed1.json").unlink()
    again = run()
    assert again.metrics == first.metrics and again.peak_memory_gb is None


def test_what_was_interrupted_goes_on_in_its_folder(place, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(tables, "store_run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            tables.run_table("tiny", "synthetic", [1], ["mult-dae"], **place)
    assert stored_runs("tiny", "synthetic", "mult-dae", place["results"]) == []
    trained, real = [], tables.train

    def watched(*arguments, **keywords):
        trained.append(real(*arguments, **keywords))
        return trained[-1]

    monkeypatch.setattr(tables, "train", watched)
    tables.run_table("tiny", "synthetic", [1], ["mult-dae"], **place)
    assert [run.resumed for run in trained] == [True]


def test_later_settings_win(place, asked, split):
    sweep = {
        "table": "tiny",
        "row": "Mult-DAE",
        "dataset": "netflix",
        "seed": 0,
        "monitor": "ndcg@10",
        "epochs": None,
        "settings": {},
        "space": {"dropout": {"low": 0.2, "high": 0.8}},
        "environment": {},
        "commit": None,
        "data_digest": split.digest,
        "trials": [
            {
                "number": 0,
                "state": "complete",
                "params": {"dropout": 0.3},
                "value": 0.1,
                "best_epoch": 4,
                "seconds": 1,
            },
            {
                "number": 1,
                "state": "complete",
                "params": {"dropout": 0.7},
                "value": 0.2,
                "best_epoch": 4,
                "seconds": 1,
            },
        ],
    }
    path = place["results"] / "tiny" / "netflix" / "mult-dae.sweep.json"

    def trained(dataset, **changes):
        with pytest.raises(DivergedError):
            tables.run_table("tiny", dataset, [5], ["mult-dae"], **(place | changes))
        flat = asked[-1].flat()
        return flat["latent_dim"], flat["epochs"], flat["dropout"], flat["seed"]

    assert trained("synthetic") == (8, 2, 0.5, 5)
    assert trained("netflix") == (8, 1, 0.3, 5)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(sweep))
    assert trained("netflix") == (8, 1, 0.7, 5)
    assert trained("netflix", overrides={"dropout": 0.4, "latent_dim": 4}) == (4, 1, 0.4, 5)
    path.write_text(json.dumps(sweep | {"data_digest": "of other data"}))
    lines = []
    assert trained("netflix", log=lines.append) == (8, 1, 0.3, 5)
    assert any("other data" in line for line in lines)
    with pytest.raises(InputError, match="did you mean 'dropout'"):
        tables.run_table("tiny", "synthetic", overrides={"dropuot": 0.1}, rows=["mult-dae"], **place)


def test_a_diverged_row_does_not_stop_the_others(place, monkeypatch):
    real = tables.train

    def train(settings, *arguments, **keywords):
        if settings.name == "popularity":
            raise DivergedError("not a number")
        return real(settings, *arguments, **keywords)

    monkeypatch.setattr(tables, "train", train)
    with pytest.raises(DivergedError):
        tables.run_table("tiny", "synthetic", [1], **place)
    assert stored_run("tiny", "synthetic", "mult-dae", 1, place["results"])
    assert "not run" in (place["results"] / "tiny" / "synthetic" / "README.md").read_text()


def test_a_cut_run_says_so_and_never_replaces_a_full_one(place):
    def run(**changes):
        return tables.run_table("tiny", "synthetic", [1], ["mult-dae"], **(place | changes))[0]

    cut = run(epochs=1)
    assert (cut.shortened, cut.shortened_why, cut.epochs) == (True, "1 of 2 epochs", 1)
    lines = []
    full = run(log=lines.append)
    assert (full.shortened, full.epochs) == (False, 2)
    assert any("other settings; it is run again" in line for line in lines)
    assert run(epochs=1) == full == run(epochs=7)
    assert run(overrides={"epochs": 1}).shortened_why == "1 of 2 epochs"


def test_a_run_on_other_data_is_run_again(place, split, monkeypatch):
    (first,) = tables.run_table("tiny", "synthetic", rows=["popularity"], **place)
    other = dataclasses.replace(split, digest="of other data")
    monkeypatch.setattr(tables, "splits_of", lambda *_: lambda seed, by: other)
    (second,) = tables.run_table("tiny", "synthetic", rows=["popularity"], **place)
    assert (first.data_digest, second.data_digest) == (split.digest, "of other data")


def test_a_subset_of_the_data_is_a_shortened_run(place, split):
    (run,) = tables.run_table("tiny", "netflix", rows=["popularity"], **place)
    events, users = split.counts["events_read"], split.train.shape[0]
    assert run.shortened_why == f"{events:,} of 100,480,507 events; {users} of 1,000,000 training users"


def test_counts_are_stored_and_compared(place, split):
    assert tables.run_table("counts", "synthetic", **place) == []
    stored = stored_attributes("counts", "synthetic", place["results"])
    events = sum(m.nnz for m in (split.train, split.validation.history, split.validation.targets))
    events += split.test.history.nnz + split.test.targets.nnz
    assert stored.counts["percent_of_interactions"] == pytest.approx(100 * events / (200 * split.n_items))
    text = (place["results"] / "counts" / "synthetic" / "README.md").read_text()
    assert "| # of users | 200 | 200 | same |" in text
    tables.run_table("counts", "ml-20m", **place)
    text = (place["results"] / "counts" / "ml-20m" / "README.md").read_text()
    assert "| # of users | 200 | 136,677 | differs |" in text


def test_a_number_changed_by_hand_is_found(place):
    tables.run_table("tiny", "synthetic", rows=["popularity"], **place)
    path = place["results"] / "tiny" / "synthetic" / "popularity.seed1.json"
    stored = json.loads(path.read_text())
    stored["metrics"]["ndcg@10"]["mean"] += 0.01
    path.write_text(json.dumps(stored))
    with pytest.raises(InputError, match="does not have the mean ndcg@10"):
        tables.run_table("tiny", "synthetic", rows=["popularity"], **place)


# ---- generative models ------------------------------------------------------------------------------


def test_a_generative_table_describes_the_models_that_have_latent_codes(place, split, monkeypatch):
    results = place["results"]
    # The first test user has nothing held out, and is neither ranked for nor described.
    targets = vstack([csr_array((1, split.n_items), dtype=split.test.targets.dtype), split.test.targets[1:]], "csr")
    without = dataclasses.replace(split.test, targets=targets)
    reduced = dataclasses.replace(split, test=without)
    monkeypatch.setattr(tables, "splits_of", lambda *_: lambda seed, by: reduced)
    described = TINY.replace("mult-dae", "mult-vae").replace("[published]", "generative = true\n[published]", 1)
    (results / "tiny" / "table.toml").write_text(described)
    popular, run = tables.run_table("tiny", "synthetic", [1], ["popularity", "mult-vae"], **place)
    assert popular.latents is None and popular.metrics.keys() == {"recall@5", "ndcg@10"}
    assert stored_latents(popular, results) is None
    assert run.metrics.keys() == {"recall@5", "ndcg@10", "elbo", "iwae"}
    assert run.metrics["elbo"]["low"] < run.metrics["elbo"]["mean"] < run.metrics["iwae"]["mean"] < 0
    per_user = per_user_metrics(run, results)
    assert {len(values) for values in per_user.values()} == {run.users} == {29}
    assert (per_user["iwae"] >= per_user["elbo"]).all()
    assert run.latents["latent_dim"] == 8 and run.latents["samples"] == 100
    assert run.latents["marginal_users"] == run.users
    points = stored_latents(run, results)
    assert {name: array.shape for name, array in points.items()} == dict.fromkeys(
        ("posterior", "prior"), (run.users, 2)
    )
    folder = results / "tiny" / "synthetic"
    assert "## As a generative model" in (folder / "README.md").read_text() and (folder / "latents.png").is_file()
