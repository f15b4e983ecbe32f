"""What should be run of a table: the runs that are asked for, with their settings, and which stored ones are outdated.

Nothing is trained here. A row that is another table's (`alias_of`) is planned as that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tfvae.data.datasets import DATASETS
from tfvae.data.splits import Split
from tfvae.experiments.definitions import Row, Table, load_table, table_names
from tfvae.experiments.protocols import Splits, whole_size
from tfvae.experiments.records import StoredRun, Sweep, Tuned, sweep_of
from tfvae.models import model_class
from tfvae.models.gradient import GradientRecommender
from tfvae.system.errors import InputError
from tfvae.training.adapt import settings_for
from tfvae.training.settings import Settings, settings_of, stored_settings

__all__ = [
    "Job",
    "Plan",
    "outdated",
    "plans_of",
    "row_settings",
    "shortened_why",
    "stored_as",
    "tables_showing",
    "trained_by_epochs",
]

Log = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """What all runs of one call share."""

    table: Table
    dataset: str
    splits: Splits
    results: Path
    work: Path
    progress: bool
    log: Log


@dataclass(frozen=True)
class Plan:
    """One run that is asked for: `settings` are what to run, `full` the same without a cut of epochs."""

    job: Job
    row: Row
    settings: Settings
    full: Settings
    overrides: dict[str, Any]
    tuned: Tuned | None
    cut: str | None

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.settings.training.seed

    @property
    def split(self) -> Split:
        """The split it is trained and measured on."""
        return self.job.splits(self.seed, self.row.by)


def row_settings(table: Table, row: Row, dataset: str) -> dict[str, Any]:
    """A row's own settings on a data set, before any sweep: what differs from the model's defaults."""
    return {"monitor": table.monitor} | row.settings | row.datasets.get(dataset, {})


def trained_by_epochs(model: str) -> bool:
    """Whether a model is trained by epochs, which can be cut, rather than fitted to the whole matrix."""
    return issubclass(model_class(model), GradientRecommender)


def stored_as(job: Job, row: Row) -> tuple[Job, Row]:
    """The row as it is stored, with the table it is stored in, whose metrics, monitor and published sizes count."""
    if row.alias_of is None:
        return job, row
    job.log(f"{row.name}: run and stored as {row.alias_of}")
    home, slug = row.stored_in(job.table.name)
    table = load_table(home, job.results)
    return replace(job, table=table), table.row(slug)


def tables_showing(name: str, rows: set[tuple[str, str]], results: Path) -> list[str]:
    """The table of this name, and all others that have one of these rows, each given as (table, slug)."""
    others = [load_table(other, results) for other in table_names(results) if other != name]
    return [name, *(table.name for table in others if rows & {row.stored_in(table.name) for row in table.rows})]


def plans_of(
    job: Job, row: Row, seeds: Sequence[int] | None, epochs: int | None, overrides: dict[str, Any]
) -> list[Plan]:
    """The runs of one row. What comes later wins: model, row, data set, sweep, by hand, cut of epochs.

    For data of one's own, the settings that follow from the size of the data stand in the data set's place.
    """
    own = row_settings(job.table, row, job.dataset)
    sweep = sweep_of(job.table.name, job.dataset, row, job.results)
    searched = job.splits(job.table.seeds[0], row.by)
    if sweep and sweep.data_digest != searched.digest:
        job.log(f"{row.name}: the stored sweep searched other data; its settings are not used.")
        sweep = None
    found = _found(sweep, searched) if sweep else {}
    if job.dataset in DATASETS:
        ordered = settings_of(row.built_model, own | found)
    else:  # nobody has chosen settings for data of this size
        by_hand = {**found, **overrides}
        ordered = settings_for(row.built_model, own | by_hand, searched, job.log, fixed={"monitor", *by_hand})
    if row.refined and not model_class(row.built_model).has_rating_posterior(ordered.model):
        raise InputError(f"{job.table.name}: row {row.slug!r} is refined, but its model has no posterior of ratings.")
    by_epochs = trained_by_epochs(row.built_model)
    # Without a seed of its own a model still differs from one split of ratings to the next.
    once = model_class(row.built_model).is_deterministic and job.table.protocol != "rating-holdout"
    plans = []
    for seed in job.table.seeds[:1] if once else seeds or job.table.seeds:
        full = ordered.with_changes(**overrides | {"seed": seed})
        last, due = min(epochs or full.training.epochs, full.training.epochs), ordered.training.epochs
        plans.append(
            Plan(
                job=job,
                row=row,
                settings=full.with_changes(epochs=last) if by_epochs else full,
                full=full,
                overrides=overrides,
                tuned=sweep.tuned if sweep else None,
                cut=f"{last} of {due} epochs" if last < due and by_epochs else None,
            )
        )
    return plans


def _found(sweep: Sweep, split: Split) -> dict[str, Any]:
    """What a search found: the settings, and the number of epochs where a run has nothing to choose it by."""
    best = sweep.best
    if best is None:
        return {}
    if best.best_epoch is None or split.validation is not None or best.best_epoch + 1 == sweep.epochs:
        return best.params  # where a search was cut, its last epoch is no choice
    # The epochs of a learning rate that falls to the end are a setting like others.
    cooled = (sweep.settings | best.params).get("final_learning_rate_factor", 1.0) < 1
    return best.params | ({} if cooled else {"epochs": best.best_epoch + 1})


def shortened_why(plan: Plan) -> str | None:
    """What a run lacks, in words: epochs, and what the data lack of the whole set and of the paper's split."""
    job, split, report = plan.job, plan.split, plan.split.counts
    sizes = [(report.get("events_read", report.get("ratings")), whole_size(job.dataset), "events")]
    if published := job.table.published.get(job.dataset):
        users, items = split.train.shape[:: -1 if plan.row.by == "items" else 1]
        sizes += [(users, published.train_users, "training users"), (items, published.n_items, "items")]
    missing = [
        f"{ours:,} of {whole:,} {what}" for ours, whole, what in sizes if None not in (ours, whole) and ours != whole
    ]
    return "; ".join(filter(None, [plan.cut, *missing])) or None


def outdated(run: StoredRun, plan: Plan) -> str | None:
    """What about a stored run is not today's, in words; None if nothing is."""
    if run.data_digest != plan.split.digest:
        return "other data"
    try:
        settings = stored_settings(run.settings).flat()
    except InputError:
        return "settings that no longer exist"
    if plan.row.refined != ("hmc" in (run.predictive or {})):
        return "codes that were not refined" if plan.row.refined else "refined codes"
    return None if settings in (plan.settings.flat(), plan.full.flat()) else "other settings"
