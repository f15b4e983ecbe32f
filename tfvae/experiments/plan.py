"""The plan of a table: the runs that are asked for, with their settings, and which stored runs are outdated.

This module trains nothing. A row that is an `alias_of` another table's row is planned as that row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tfvae.data.datasets import DATASETS
from tfvae.data.splits import Split
from tfvae.experiments.definitions import Picture, Row, Table, load_table, table_names
from tfvae.experiments.protocols import Splits, whole_size
from tfvae.experiments.records import StoredRun, Sweep, Tuned
from tfvae.experiments.results_folder import sweep_of
from tfvae.models import model_class
from tfvae.models.gradient import GradientRecommender
from tfvae.system.errors import InputError
from tfvae.training.adapt import settings_for
from tfvae.training.settings import Settings, as_member, member_settings, settings_of, stored_settings

__all__ = [
    "Job",
    "Plan",
    "chosen_for",
    "lacking_for",
    "outdated",
    "plans_of",
    "plans_of_rows",
    "row_settings",
    "rows_to_run",
    "shortened_why",
    "stored_as",
    "tables_showing",
    "trained_by_epochs",
]

Log = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """What all runs of one call have in common.

    Attributes:
        table: The table.
        dataset: The name under which runs on the data are stored.
        splits: The splits of the data.
        results: The results folder.
        work: The folder of working folders.
        progress: Whether training shows its progress.
        log: Called with one line at a time.
        figure: The picture for which the runs are asked for, if it is for one.
    """

    table: Table
    dataset: str
    splits: Splits
    results: Path
    work: Path
    progress: bool
    log: Log
    figure: Picture | None = None


@dataclass(frozen=True)
class Plan:
    """One run that is asked for.

    Attributes:
        job: What it has in common with the other runs of the call.
        row: The row.
        settings: The settings of the run.
        full: The same settings with all epochs, if `settings` has fewer.
        overrides: Settings that were given by hand.
        tuned: The sweep whose settings are used, if there is one.
        cut: How many epochs the run lacks, in words; None if it lacks none.
    """

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
        """The split on which the model is trained and measured."""
        return self.job.splits(self.seed, self.row.by)


def row_settings(table: Table, row: Row, dataset: str) -> dict[str, Any]:
    """The settings in which a row differs from the model's defaults on a data set, before any sweep."""
    return {"monitor": table.monitor} | row.settings | row.datasets.get(dataset, {})


def chosen_for(table: Table, row: Row, dataset: str) -> bool:
    """Whether a paper or the table has chosen settings for data of this size.

    A model that is fitted at once has no settings that depend on it.
    """
    chosen = dataset in row.datasets or dataset in row.published or dataset in table.published
    return dataset in DATASETS and (chosen or not trained_by_epochs(row.built_model))


def trained_by_epochs(model: str) -> bool:
    """Whether a model is trained by epochs, whose number can be cut, rather than fitted to the whole matrix at once."""
    return issubclass(model_class(model), GradientRecommender)


def stored_as(job: Job, row: Row) -> tuple[Job, Row]:
    """The row under which a row's runs are stored, with a job of that row's table, whose metrics and monitor apply."""
    if row.alias_of is None:
        return job, row
    job.log(f"{row.name}: run and stored as {row.alias_of}")
    home, slug = row.stored_in(job.table.name)
    table = load_table(home, job.results)
    return replace(job, table=table), table.row(slug)


def tables_showing(name: str, rows: set[tuple[str, str]], results: Path) -> list[str]:
    """The names of this table and of all other tables that show one of these rows.

    Args:
        name: Name of the table.
        rows: The table and the slug under which each row is stored.
        results: The results folder.
    """
    others = [load_table(other, results) for other in table_names(results) if other != name]
    return [name, *(table.name for table in others if rows & {row.stored_in(table.name) for row in table.rows})]


def rows_to_run(table: Table, slugs: Sequence[str] | None) -> list[Row]:
    """The rows with these slugs; None for all rows that have a model.

    Raises:
        InputError: If there is no such row, or it has published values only.
    """
    chosen = [table.row(slug) for slug in slugs] if slugs else [row for row in table.rows if row.model]
    for row in chosen:
        if row.model is None:
            raise InputError(f"{table.name}: row {row.slug!r} has published values only; tfvae does not run it.")
    return chosen


def plans_of_rows(
    job: Job, rows: Sequence[Row], seeds: Sequence[int] | None, epochs: int | None, overrides: dict[str, Any]
) -> list[Plan]:
    """Plans the runs of rows, each by the table under which its runs are stored; see `plans_of`.

    If no seeds are given, they are the table's and those of the table that stores the row as well, but for a figure.
    """
    plans = []
    for home, row in [stored_as(job, row) for row in rows]:
        asked = seeds or (job.table.seeds if job.table.figure else sorted({*job.table.seeds, *home.table.seeds}))
        plans += plans_of(home, row, asked, epochs, overrides)
    return plans


def plans_of(
    job: Job, row: Row, seeds: Sequence[int] | None, epochs: int | None, overrides: dict[str, Any]
) -> list[Plan]:
    """Plans the runs of one row.

    Each of these sources of settings takes precedence over those before it: the model's defaults, the row, the row's
    settings for the data set, the sweep, settings given by hand, the cut of epochs. Where nobody has chosen settings
    for the data set, what the row leaves open is adapted to the size of the data (`settings_for`); for a user's own
    data, what the row says is too.

    Args:
        job: The job, whose table has the row.
        row: The row.
        seeds: Seeds to run; None takes the table's. A deterministic model runs once, with the table's first seed,
            unless each seed cuts other ratings.
        epochs: The largest number of epochs; None trains all.
        overrides: Settings given by hand.

    Returns:
        One plan for each seed.

    Raises:
        InputError: If the row has no model, a setting is unknown or wrong, the data cannot be split, or the row is
            `refined` and its model has no posterior of ratings.
    """
    own = row_settings(job.table, row, job.dataset) | _members(job, row)
    sweep = sweep_of(job.table.name, job.dataset, row, job.results)
    searched = job.splits(job.table.seeds[0], row.by)
    if sweep and sweep.data_digest != searched.digest:
        job.log(f"{row.name}: the stored sweep searched other data; its settings are not used.")
        sweep = None
    found = _found(sweep, searched) if sweep else {}
    if chosen_for(job.table, row, job.dataset):
        ordered = settings_of(row.built_model, own | found)
    elif job.dataset in DATASETS:
        ordered = settings_for(row.built_model, own | found, searched, job.log)
    else:  # the row's own settings are for the papers' data
        by_hand = {**found, **overrides}
        ordered = settings_for(row.built_model, own | by_hand, searched, job.log, fixed={"monitor", *by_hand})
    if row.refined and not model_class(row.built_model).has_rating_posterior(ordered.model):
        raise InputError(f"{job.table.name}: row {row.slug!r} is refined, but its model has no posterior of ratings.")
    # Even a deterministic model gives other values on another split of the ratings.
    once = model_class(row.built_model).is_deterministic and job.table.protocol != "rating-holdout"
    plans = []
    for seed in job.table.seeds[:1] if once else seeds or job.table.seeds:
        full = ordered.with_changes(**overrides | {"seed": seed})
        settings = full if epochs is None else _cut(full, epochs)
        plans.append(
            Plan(
                job=job,
                row=row,
                settings=settings,
                full=full,
                overrides=overrides,
                tuned=sweep.tuned if sweep else None,
                cut=_lacking(settings, ordered),
            )
        )
    return plans


def _cut(full: Settings, epochs: int) -> Settings:
    """The same settings with at most so many epochs, of an ensemble for each of its members."""
    if trained_by_epochs(full.name):
        return full.with_changes(epochs=min(epochs, full.training.epochs))
    if not full.members:
        return full
    cut = [_cut(member_settings(member), epochs) for member in full.members]
    members = [
        member | {"training": member["training"] | {"epochs": settings.training.epochs}}
        for member, settings in zip(full.members, cut, strict=True)
    ]
    return full.with_changes(members=members)


def _lacking(settings: Settings, ordered: Settings) -> str | None:
    """How many epochs a run lacks to what its row orders, in words; None if it lacks none."""
    if trained_by_epochs(ordered.name):
        last, due = settings.training.epochs, ordered.training.epochs
        return f"{last} of {due} epochs" if last < due else None
    pairs = zip(map(member_settings, settings.members), map(member_settings, ordered.members), strict=True)
    lacking = [why for why in (_lacking(*pair) for pair in pairs) if why]
    return f"a member has {lacking[0]}" if lacking else None


def _members(job: Job, row: Row) -> dict[str, Any]:
    """The setting `members` of an ensemble of other rows, each with its row's settings, but for its seed."""
    if not row.members:
        return {}
    members = []
    for reference in row.members:
        home, slug = reference.split("/")
        table = load_table(home, job.results)
        member = plans_of(replace(job, table=table), table.row(slug), [0], None, {})[0].settings
        described = as_member(member)
        del described["training"]["seed"]  # that of the ensemble, and the member's number
        members.append(described)
    return {"members": members}


def _found(sweep: Sweep, split: Split) -> dict[str, Any]:
    """The settings that a sweep found, and the number of epochs if a run has no validation part to choose it by."""
    best = sweep.best
    if best is None:
        return {}
    if best.best_epoch is None or split.validation is not None or best.best_epoch + 1 == sweep.epochs:
        return best.params  # if the trials were cut, the best epoch may lie beyond their last one
    # A decay of the learning rate is stretched over all epochs, so their number cannot be changed afterwards.
    cooled = (sweep.settings | best.params).get("final_learning_rate_factor", 1.0) < 1
    return best.params | ({} if cooled else {"epochs": best.best_epoch + 1})


def shortened_why(plan: Plan) -> str | None:
    """Why a run is not the full experiment, in words; None if it is.

    It may have fewer epochs than the row, or data whose size differs from the whole data set or from the paper's split.
    """
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
    """In what a stored run differs from the plan, in words; None if it can stand for it.

    A run with all epochs also stands for a plan that cuts them.
    """
    if run.data_digest != plan.split.digest:
        return "other data"
    try:
        settings = _complete(stored_settings(run.settings))
    except InputError:
        return "settings that no longer exist"
    if plan.row.refined != ("hmc" in (run.predictive or {})):
        return "codes that were not refined" if plan.row.refined else "refined codes"
    return None if settings in map(_complete, (plan.settings, plan.full)) else "other settings"


def _complete(settings: Settings) -> dict[str, Any]:
    """Flat settings, those of members too with the defaults of settings that did not exist when they were stored."""
    if not settings.members:
        return settings.flat()
    members = [as_member(member_settings(member)) for member in settings.members]
    return settings.with_changes(members=members).flat()


def lacking_for(run: StoredRun, figure: Picture | None) -> str | None:
    """What a stored run lacks that a figure shows, in words; None if it lacks nothing, or is asked for by no figure."""
    return "no errors by number of ratings" if figure == "ratings" and run.by_number is None else None
