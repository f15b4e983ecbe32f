"""The stored runs of `paper_results/`: each is read as today's, whatever has been renamed since it was made."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest

from tfvae.experiments.definitions import load_table
from tfvae.experiments.plan import Job, Plan, outdated, plans_of
from tfvae.experiments.records import StoredRun
from tfvae.experiments.report import render, render_overview
from tfvae.experiments.results_folder import stored_runs, sweep_of
from tfvae.training.settings import FORMER_NAMES, stored_settings, todays_flat

RESULTS = Path(__file__).parents[1] / "paper_results"
STORED = sorted({(p.parts[-3], p.parts[-2], p.name.split(".seed")[0]) for p in RESULTS.glob("*/*/*.seed*.json")})


@cache
def runs_of(table: str, dataset: str, slug: str) -> list[StoredRun]:
    return stored_runs(table, dataset, slug, RESULTS)


def plan_of(run: StoredRun) -> Plan:
    """What would be run today for the same row, seed and data."""
    table = load_table(run.table, RESULTS)
    chosen = table.protocol == "strong-generalization"
    split = SimpleNamespace(digest=run.data_digest, validation=object() if chosen else None)
    searched = sweep_of(table.name, run.dataset, table.row(run.slug), RESULTS)
    first = SimpleNamespace(**vars(split) | ({"digest": searched.data_digest} if searched else {}))

    def splits(seed: int, by: str) -> SimpleNamespace:
        return split if seed == run.seed and run.tuned is None else first

    job = Job(table, run.dataset, splits, RESULTS, Path("runs"), False, lambda line: None)
    cut = run.epochs if run.shortened_why and "epochs" in run.shortened_why else None
    plans = plans_of(job, table.row(run.slug), [run.seed], cut, run.overrides)
    (plan,) = [plan for plan in plans if plan.seed == run.seed]
    return replace(plan, job=replace(job, splits=lambda seed, by: split))


def test_all_runs_are_there():
    assert sum(len(runs_of(*row)) for row in STORED) >= 256


@pytest.mark.slow
@pytest.mark.parametrize("row", STORED, ids="/".join)
def test_a_stored_run_is_not_run_again(row):
    for run in runs_of(*row):
        assert outdated(run, plan_of(run)) is None, run.seed


@pytest.mark.slow
def test_the_committed_pages_are_what_rendering_gives(tmp_path):
    shutil.copytree(RESULTS, tmp_path / "results", ignore=shutil.ignore_patterns("*.md", "*.png"))
    for page in RESULTS.glob("*/*/README.md"):
        again = render(page.parts[-3], page.parts[-2], tmp_path / "results")
        assert again.read_text(encoding="utf-8") == page.read_text(encoding="utf-8"), page
    overview = render_overview(tmp_path / "results").read_text(encoding="utf-8")
    assert overview == (RESULTS / "README.md").read_text(encoding="utf-8")
    pictures = {path.relative_to(RESULTS) for path in RESULTS.rglob("*.png")}
    assert pictures == {path.relative_to(tmp_path / "results") for path in (tmp_path / "results").rglob("*.png")}


def test_another_setting_makes_a_stored_run_outdated():
    run = runs_of("multvae-table2", "movietweetings", "mult-vae")[0]
    other = run.model_copy(update={"settings": run.settings | {"latent_dim": 7}})
    assert outdated(other, plan_of(run)) == "other settings"
    gone = run.model_copy(update={"settings": run.settings | {"flux": 1.21}})
    assert outdated(gone, plan_of(run)) == "settings that no longer exist"


def test_former_names_are_read_as_todays():
    assert todays_flat({"cooling": 0.1, "epochs": 3}) == {"final_learning_rate_factor": 0.1, "epochs": 3}
    for former, name in FORMER_NAMES.items():
        assert former != name
    assert stored_settings({"model": "mult-dae", "cooling": 0.5}).training.final_learning_rate_factor == 0.5
