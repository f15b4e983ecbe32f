"""A table from one command: run what is missing, go on with what was interrupted, render what is stored.

A run is stored when it has finished (`tfvae.records`). Its checkpoints and TensorBoard files lie in a
working folder named after a digest of its settings and data, so that an interrupted run goes on by itself
and a run of other settings never meets it. Nothing here knows a model: each is trained by
`tfvae.training.train` and measured by `tfvae.evaluation.evaluate`. A row that is another table's (`same_as`) is
run, tuned and stored as that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfvae import report
from tfvae.data.datasets import DATASETS, default_split, load_dataset
from tfvae.data.splits import StrongGeneralization, strong_generalization
from tfvae.data.vae_cf import read_vae_cf
from tfvae.definitions import RESULTS, Row, Table, load_table, table_names
from tfvae.environment import commit, environment
from tfvae.errors import DivergedError, InputError, TooLargeError, unknown_name
from tfvae.evaluation import evaluate
from tfvae.files import digest
from tfvae.generative import Generative, describe, has_latents
from tfvae.memory import forget_peak, peak_gb
from tfvae.models import model_class
from tfvae.records import (
    Attributes,
    Run,
    Tuned,
    store_attributes,
    store_run,
    stored_run,
    sweep_of,
)
from tfvae.settings import Settings, settings_of
from tfvae.training import TrainedRun, train

__all__ = [
    "WORK",
    "load_split_of",
    "restored",
    "row_settings",
    "run_folder",
    "run_table",
    "trained_by_epochs",
    "validation_value",
]

WORK = Path("runs/tables")
Say = Callable[[str], None]


@dataclass(frozen=True)
class _Job:
    """What all runs of one call share."""

    table: Table
    dataset: str
    split: StrongGeneralization
    results: Path
    work: Path
    progress: bool
    say: Say


@dataclass(frozen=True)
class _Plan:
    """One run that is asked for: `settings` are what to run, `full` the same without a cut of epochs."""

    job: _Job
    row: Row
    settings: Settings
    full: Settings
    overrides: dict[str, Any]
    tuned: Tuned | None
    shortened_why: str | None

    @property
    def seed(self) -> int:
        return self.settings.training.seed


def run_table(
    name: str,
    dataset: str,
    seeds: Sequence[int] | None = None,
    rows: Sequence[str] | None = None,
    *,
    epochs: int | None = None,
    overrides: dict[str, Any] | None = None,
    source: str | Path | None = None,
    results: Path = RESULTS,
    work: Path = WORK,
    progress: bool = True,
    say: Say = print,
) -> list[Run]:
    """Brings a table up to date on a data set and renders it, and other tables that show the same runs.

    A stored run is kept when its settings and data are today's; otherwise it is run again and replaced once
    the new one has finished. A run cut by `epochs` never replaces a full one. A row that diverges or does
    not fit into memory does not stop the others; its error is raised after rendering.

    Args:
        name: Folder name of the table.
        dataset: Name of the data set; any of the table's protocol.
        seeds: Seeds to run; the table's own when None (of a `same_as` row those of the table it is stored in). A
            seedless model runs once, with the table's first.
        rows: Slugs of the rows to run; all when None.
        epochs: Cuts the training of every row; its cells then say so.
        overrides: Settings that go before all others (`--set`); the run keeps a list of them.
        source: Data fetched by hand (see `load_dataset`), or a pre-split folder in the vae_cf layout.
        results: The results folder.
        work: Where working folders lie.
        progress: Whether training shows its progress.
        say: Receives one line per run.

    Returns:
        The runs of the asked-for rows and seeds, in the table's order; none for a table of data attributes.

    Raises:
        InputError: If a name, a setting or the data are not as they should be.
        DivergedError: If a run's loss or scores stopped being numbers.
        TooLargeError: If a run needs more memory than there is.
    """
    table = load_table(name, results)
    chosen = [table.row(slug) for slug in rows] if rows else [row for row in table.rows if row.model]
    for row in chosen:
        if row.model is None:
            raise InputError(f"{name}: row {row.slug!r} has published values only; its model is not built yet.")
    started = time.perf_counter()
    split = load_split_of(table, dataset, source)
    job = _Job(table, dataset, split, results, work, progress, say)
    if table.kind == "data-attributes":
        _store_counts(job, time.perf_counter() - started)
    runs, failures = [], []
    stored_as = [_stored_as(job, row) for row in chosen]
    for plan in [plan for job, row in stored_as for plan in _plans(job, row, seeds, epochs, overrides or {})]:
        try:
            runs.append(_up_to_date(plan))
        except (DivergedError, TooLargeError) as error:
            say(f"{plan.row.name}, seed {plan.seed}: failed: {error}")
            failures.append(error)
    for shown in _tables_showing(name, {row.home(name) for row in chosen}, results):
        say(f"written: {report.render(shown, dataset, results)}")
    report.render_overview(results)
    if failures:
        raise failures[0]
    return runs


def load_split_of(table: Table, dataset: str, source: str | Path | None = None) -> StrongGeneralization:
    """The split a table uses on a data set: by the papers' protocol, or as it lies in a vae_cf folder.

    Raises:
        InputError: If the data set is unknown, absent or has no such split.
    """
    if dataset not in DATASETS:
        raise unknown_name("data set", dataset, DATASETS)
    if source is not None and (Path(source) / "unique_sid.txt").is_file():
        return read_vae_cf(source)
    interactions = load_dataset(dataset, source=source)
    return strong_generalization(interactions, default_split(dataset, interactions.n_users))


def run_folder(run: Run, work: Path = WORK) -> Path:
    """Where a stored run's model and TensorBoard files lie, if they still do."""
    return Path(work) / run.table / run.dataset / run.work


def row_settings(table: Table, row: Row, dataset: str) -> dict[str, Any]:
    """A row's own settings on a data set, before any sweep: what differs from the model's defaults."""
    return {"monitor": table.monitor} | row.settings | row.datasets.get(dataset, {})


def restored(flat: dict[str, Any]) -> Settings:
    """Stored settings, with today's defaults for those that did not exist when they were stored.

    Raises:
        InputError: If one of them no longer exists.
    """
    given = dict(flat)
    return settings_of(given.pop("model"), given)


def trained_by_epochs(model: str) -> bool:
    """Whether a model is trained by epochs, which can be cut, rather than fitted to the whole matrix."""
    return not hasattr(model_class(model), "fit_matrix")


def validation_value(run: TrainedRun, split: StrongGeneralization, monitor: str) -> float:
    """The value on validation users that selects a run: its best epoch's, or that of the whole fit."""
    if run.history:
        return run.history[run.best_epoch][f"val_{monitor}"]
    return evaluate(run.model, split.validation, (monitor,)).mean(monitor)


def _stored_as(job: _Job, row: Row) -> tuple[_Job, Row]:
    """The row as it is stored, with the table it is stored in, whose metrics, monitor and published sizes count."""
    if row.same_as is None:
        return job, row
    job.say(f"{row.name}: run and stored as {row.same_as}")
    home, slug = row.home(job.table.name)
    table = load_table(home, job.results)
    return replace(job, table=table), table.row(slug)


def _tables_showing(name: str, rows: set[tuple[str, str]], results: Path) -> list[str]:
    """The table of this name, and all others that have one of these rows, each given as (table, slug)."""
    others = [load_table(other, results) for other in table_names(results) if other != name]
    return [name, *(table.name for table in others if rows & {row.home(table.name) for row in table.rows})]


def _plans(
    job: _Job, row: Row, seeds: Sequence[int] | None, epochs: int | None, overrides: dict[str, Any]
) -> list[_Plan]:
    """The runs of one row. What comes later wins: model, row, data set, sweep, by hand, cut of epochs."""
    own = row_settings(job.table, row, job.dataset)
    sweep = sweep_of(job.table.name, job.dataset, row, job.results)
    if sweep and sweep.data_digest != job.split.digest:
        job.say(f"{row.name}: the stored sweep searched other data; its settings are not used.")
        sweep = None
    tuned = sweep is not None and sweep.best is not None
    ordered = settings_of(row.model, own | (sweep.best.params if tuned else {}))
    by_epochs = trained_by_epochs(row.model)
    plans = []
    for seed in job.table.seeds[:1] if model_class(row.model).seedless else seeds or job.table.seeds:
        full = ordered.with_changes(**overrides | {"seed": seed})
        last, due = min(epochs or full.training.epochs, full.training.epochs), ordered.training.epochs
        reasons = [f"{last} of {due} epochs"] if last < due and by_epochs else []
        plans.append(
            _Plan(
                job=job,
                row=row,
                settings=full.with_changes(epochs=last) if by_epochs else full,
                full=full,
                overrides=overrides,
                tuned=sweep.tuned if tuned else None,
                shortened_why="; ".join(reasons + _missing(job)) or None,
            )
        )
    return plans


def _missing(job: _Job) -> list[str]:
    """What the data lack of the whole set and of the paper's split, in words, as far as sizes are known."""
    sizes = [(job.split.report.get("events_read"), DATASETS[job.dataset].n_events, "events")]
    if published := job.table.published.get(job.dataset):
        sizes.append((job.split.train.shape[0], published.train_users, "training users"))
        sizes.append((job.split.n_items, published.n_items, "items"))
    return [
        f"{ours:,} of {whole:,} {what}" for ours, whole, what in sizes if None not in (ours, whole) and ours != whole
    ]


def _up_to_date(plan: _Plan) -> Run:
    """The stored run of a plan, made first where there is none or it is no longer today's."""
    job = plan.job
    label = f"{plan.row.name}, seed {plan.seed}"
    run = stored_run(job.table.name, job.dataset, plan.row.slug, plan.seed, job.results)
    if run:
        outdated = _outdated(run, plan, job.split)
        if not outdated:
            job.say(f"{label}: stored")
            return run
        job.say(f"{label}: stored with {outdated}; it is run again and then replaced.")
    job.say(f"{label}: running")
    return _run(plan)


def _outdated(run: Run, plan: _Plan, split: StrongGeneralization) -> str | None:
    """What about a stored run is not today's, in words; None if nothing is."""
    if run.data_digest != split.digest:
        return "other data"
    try:
        settings = restored(run.settings).flat()
    except InputError:
        return "settings that no longer exist"
    return None if settings in (plan.settings.flat(), plan.full.flat()) else "other settings"


def _run(plan: _Plan) -> Run:
    """Trains, measures on the test users, and stores."""
    job, row = plan.job, plan.row
    table, dataset, split = job.table, job.dataset, job.split
    settings = plan.settings.flat()
    key = digest(settings, split.digest)[:8]
    folder = Path(job.work) / table.name / dataset / f"{row.slug}.seed{plan.seed}-{key}"
    forget_peak()
    trained = train(plan.settings, split, folder, progress=job.progress, report=job.say)
    evaluation = evaluate(trained.model, split.test, tuple(table.metrics))
    peak = None if trained.resumed else peak_gb()
    latents = _described(plan, trained)
    if latents:
        evaluation = replace(evaluation, per_user=evaluation.per_user | latents.per_user)
    monitor = f"val_{table.monitor}"
    validated = [epoch for epoch, entry in enumerate(trained.history) if monitor in entry]
    run = Run(
        table=table.name,
        row=row.name,
        slug=row.slug,
        dataset=dataset,
        model=row.model,
        seed=plan.seed,
        metrics=evaluation.summary(),
        validation=validation_value(trained, split, table.monitor),
        users=evaluation.n_users,
        users_without_targets=evaluation.n_without_targets,
        settings=settings,
        overrides=plan.overrides,
        tuned=plan.tuned,
        shortened=plan.shortened_why is not None,
        shortened_why=plan.shortened_why,
        environment=environment(),
        seconds=round(trained.seconds, 1),
        peak_memory_gb=peak and round(peak, 3),
        epochs=trained.epochs,
        best_epoch=trained.best_epoch,
        selected_beta=trained.selected_beta,
        parameters=trained.model.n_parameters,
        latents=latents and latents.figures,
        history=[round(trained.history[epoch][monitor], 6) for epoch in validated],
        validated=None if len(validated) == trained.epochs else validated,
        work=folder.name,
        commit=commit(),
        data=_counts(split),
        data_digest=split.digest,
    )
    points = latents and {"posterior": latents.posterior, "prior": latents.prior}
    store_run(run, evaluation.per_user, job.results, points)
    return run


def _described(plan: _Plan, trained: TrainedRun) -> Generative | None:
    """The model as a generative model, where the table asks for that and the model has latent codes.

    Described by the users whose rankings are measured, so that a run's vectors are all of the same users.
    """
    if not (plan.job.table.generative and has_latents(trained.model)):
        return None
    test = plan.job.split.test
    measured = np.flatnonzero(np.diff(test.targets.indptr))
    return describe(trained.model, test.fold_in[measured], seed=plan.seed)


def _counts(split: StrongGeneralization) -> dict[str, int | float]:
    """The split's own report, and the density over the items of training users, as in Mult-VAE's Table 1."""
    events, cells = split.report["events"], split.report["users"] * split.n_items
    return split.report | {"percent_of_interactions": 100 * events / cells}


def _store_counts(job: _Job, seconds: float) -> None:
    counts = Attributes(
        table=job.table.name,
        row="data attributes",
        dataset=job.dataset,
        counts=_counts(job.split),
        environment=environment(),
        seconds=round(seconds, 1),
        commit=commit(),
        data_digest=job.split.digest,
    )
    store_attributes(counts, job.results)
