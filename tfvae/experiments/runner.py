"""A table from one command: run what is missing, go on with what was interrupted, render what is stored.

A run is stored when it has finished (`tfvae.experiments.records`). Its checkpoints and TensorBoard files lie in a
working folder named after a digest of its settings and data, so that an interrupted run goes on by itself
and a run of other settings never meets it. Nothing here knows a model: each is trained by
`tfvae.training.loop.train` and measured by `tfvae.evaluation.users.evaluate`. A row that is another table's
(`alias_of`) is run, tuned and stored as that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfvae.data.datasets import DATASETS
from tfvae.data.splits import Split
from tfvae.evaluation.latents import LatentDiagnostics, has_latents, latent_diagnostics
from tfvae.evaluation.predictive import describe_predictions, has_rating_posterior
from tfvae.evaluation.users import evaluate
from tfvae.experiments import report
from tfvae.experiments.definitions import RESULTS, Row, Table, load_table, table_names
from tfvae.experiments.protocols import Splits, splits_of
from tfvae.experiments.records import (
    Attributes,
    Run,
    Sweep,
    Tuned,
    store_attributes,
    store_run,
    stored_run,
    sweep_of,
)
from tfvae.models import model_class
from tfvae.system.environment import commit, environment
from tfvae.system.errors import DivergedError, InputError, TooLargeError
from tfvae.system.files import digest
from tfvae.system.memory import forget_peak, peak_gb
from tfvae.training.loop import WATCHED, TrainedModel, train
from tfvae.training.settings import Settings, settings_of, stored_settings

__all__ = [
    "WORK",
    "row_settings",
    "run_folder",
    "run_table",
    "trained_by_epochs",
    "validation_value",
]

WORK = Path("runs/tables")
Log = Callable[[str], None]


@dataclass(frozen=True)
class _Job:
    """What all runs of one call share."""

    table: Table
    dataset: str
    splits: Splits
    results: Path
    work: Path
    progress: bool
    log: Log


@dataclass(frozen=True)
class _Plan:
    """One run that is asked for: `settings` are what to run, `full` the same without a cut of epochs."""

    job: _Job
    row: Row
    settings: Settings
    full: Settings
    overrides: dict[str, Any]
    tuned: Tuned | None
    cut: str | None

    @property
    def seed(self) -> int:
        return self.settings.training.seed

    @property
    def split(self) -> Split:
        return self.job.splits(self.seed, self.row.by)


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
    log: Log = print,
) -> list[Run]:
    """Brings a table up to date on a data set and renders it, and other tables that show the same runs.

    A stored run is kept when its settings and data are today's; otherwise it is run again and replaced once
    the new one has finished. A run cut by `epochs` never replaces a full one. A row that diverges or does
    not fit into memory does not stop the others; its error is raised after rendering.

    Args:
        name: Folder name of the table.
        dataset: Name of the data set; any of the table's protocol.
        seeds: Seeds to run; the table's own when None (of a `alias_of` row those of the table it is stored in). A
            is_deterministic model runs once, with the table's first.
        rows: Slugs of the rows to run; all when None.
        epochs: Cuts the training of every row; its cells then say so.
        overrides: Settings that go before all others (`--set`); the run keeps a list of them.
        source: Data fetched by hand (see `load_dataset`), or a pre-split folder in the vae_cf layout.
        results: The results folder.
        work: Where working folders lie.
        progress: Whether training shows its progress.
        log: Receives one line per run.

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
    job = _Job(table, dataset, splits_of(table, dataset, source), results, work, progress, log)
    if table.kind == "data-attributes":
        _store_counts(job, time.perf_counter() - started)
    runs, failures = [], []
    stored_as = [_stored_as(job, row) for row in chosen]
    for plan in [plan for job, row in stored_as for plan in _plans(job, row, seeds, epochs, overrides or {})]:
        try:
            runs.append(_up_to_date(plan))
        except (DivergedError, TooLargeError) as error:
            log(f"{plan.row.name}, seed {plan.seed}: failed: {error}")
            failures.append(error)
    for shown in _tables_showing(name, {row.stored_in(name) for row in chosen}, results):
        log(f"written: {report.render(shown, dataset, results)}")
    report.render_overview(results)
    if failures:
        raise failures[0]
    return runs


def run_folder(run: Run, work: Path = WORK) -> Path:
    """Where a stored run's model and TensorBoard files lie, if they still do."""
    return Path(work) / run.table / run.dataset / run.work


def row_settings(table: Table, row: Row, dataset: str) -> dict[str, Any]:
    """A row's own settings on a data set, before any sweep: what differs from the model's defaults."""
    return {"monitor": table.monitor} | row.settings | row.datasets.get(dataset, {})


def trained_by_epochs(model: str) -> bool:
    """Whether a model is trained by epochs, which can be cut, rather than fitted to the whole matrix."""
    return not hasattr(model_class(model), "fit_matrix")


def validation_value(run: TrainedModel, split: Split, monitor: str) -> float | None:
    """The value on the validation part that selects a run: its best epoch's, or that of the whole fit.

    None where the split has no validation part.
    """
    if split.validation is None:
        return None
    if run.history:
        return run.history[run.best_epoch][f"val_{monitor}"]
    return evaluate(run.model, split.validation, (monitor,)).mean(monitor)


def _stored_as(job: _Job, row: Row) -> tuple[_Job, Row]:
    """The row as it is stored, with the table it is stored in, whose metrics, monitor and published sizes count."""
    if row.alias_of is None:
        return job, row
    job.log(f"{row.name}: run and stored as {row.alias_of}")
    home, slug = row.stored_in(job.table.name)
    table = load_table(home, job.results)
    return replace(job, table=table), table.row(slug)


def _tables_showing(name: str, rows: set[tuple[str, str]], results: Path) -> list[str]:
    """The table of this name, and all others that have one of these rows, each given as (table, slug)."""
    others = [load_table(other, results) for other in table_names(results) if other != name]
    return [name, *(table.name for table in others if rows & {row.stored_in(table.name) for row in table.rows})]


def _plans(
    job: _Job, row: Row, seeds: Sequence[int] | None, epochs: int | None, overrides: dict[str, Any]
) -> list[_Plan]:
    """The runs of one row. What comes later wins: model, row, data set, sweep, by hand, cut of epochs."""
    own = row_settings(job.table, row, job.dataset)
    sweep = sweep_of(job.table.name, job.dataset, row, job.results)
    searched = job.splits(job.table.seeds[0], row.by)
    if sweep and sweep.data_digest != searched.digest:
        job.log(f"{row.name}: the stored sweep searched other data; its settings are not used.")
        sweep = None
    tuned = sweep is not None and sweep.best is not None
    ordered = settings_of(row.model, own | (_found(sweep, searched) if tuned else {}))
    if row.refined and not (model_class(row.model).predicts_ratings and ordered.model.get("stochastic")):
        raise InputError(f"{job.table.name}: row {row.slug!r} is refined, but its model has no posterior of ratings.")
    by_epochs = trained_by_epochs(row.model)
    # Without a seed of its own a model still differs from one split of ratings to the next.
    once = model_class(row.model).is_deterministic and job.table.protocol != "rating-holdout"
    plans = []
    for seed in job.table.seeds[:1] if once else seeds or job.table.seeds:
        full = ordered.with_changes(**overrides | {"seed": seed})
        last, due = min(epochs or full.training.epochs, full.training.epochs), ordered.training.epochs
        plans.append(
            _Plan(
                job=job,
                row=row,
                settings=full.with_changes(epochs=last) if by_epochs else full,
                full=full,
                overrides=overrides,
                tuned=sweep.tuned if tuned else None,
                cut=f"{last} of {due} epochs" if last < due and by_epochs else None,
            )
        )
    return plans


def _found(sweep: Sweep, split: Split) -> dict[str, Any]:
    """What a search found: the settings, and the number of epochs where a run has nothing to choose it by."""
    best = sweep.best
    if best.best_epoch is None or split.validation is not None or best.best_epoch + 1 == sweep.epochs:
        return best.params  # where a search was cut, its last epoch is no choice
    # The epochs of a learning rate that falls to the end are a setting like others.
    cooled = (sweep.settings | best.params).get("final_learning_rate_factor", 1.0) < 1
    return best.params | ({} if cooled else {"epochs": best.best_epoch + 1})


def _shortened_why(plan: _Plan) -> str | None:
    """What a run lacks, in words: epochs, and what the data lack of the whole set and of the paper's split."""
    job, split, report = plan.job, plan.split, plan.split.counts
    sizes = [(report.get("events_read", report.get("ratings")), DATASETS[job.dataset].n_events, "events")]
    if published := job.table.published.get(job.dataset):
        users, items = split.train.shape[:: -1 if plan.row.by == "items" else 1]
        sizes += [(users, published.train_users, "training users"), (items, published.n_items, "items")]
    missing = [
        f"{ours:,} of {whole:,} {what}" for ours, whole, what in sizes if None not in (ours, whole) and ours != whole
    ]
    return "; ".join(filter(None, [plan.cut, *missing])) or None


def _up_to_date(plan: _Plan) -> Run:
    """The stored run of a plan, made first where there is none or it is no longer today's."""
    job = plan.job
    label = f"{plan.row.name}, seed {plan.seed}"
    run = stored_run(job.table.name, job.dataset, plan.row.slug, plan.seed, job.results)
    if run:
        outdated = _outdated(run, plan)
        if not outdated:
            job.log(f"{label}: stored")
            return run
        job.log(f"{label}: stored with {outdated}; it is run again and then replaced.")
    job.log(f"{label}: running")
    return _run(plan)


def _outdated(run: Run, plan: _Plan) -> str | None:
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


def _run(plan: _Plan) -> Run:
    """Trains, measures on the test part, and stores."""
    job, row = plan.job, plan.row
    table, dataset, split = job.table, job.dataset, plan.split
    settings, shortened_why = plan.settings.flat(), _shortened_why(plan)
    key = digest(settings, split.digest)[:8]
    folder = Path(job.work) / table.name / dataset / f"{row.slug}.seed{plan.seed}-{key}"
    forget_peak()
    watched = split.test if table.watch_test else None
    trained = train(plan.settings, split, folder, watched=watched, progress=job.progress, log=job.log)
    evaluation = evaluate(trained.model, split.test, tuple(table.metrics))
    predictive = None
    if has_rating_posterior(trained.model):
        predictive, refined = describe_predictions(trained.model, split.test, plan.seed, refine=row.refined)
        evaluation = refined if row.refined else evaluation
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
        shortened=shortened_why is not None,
        shortened_why=shortened_why,
        environment=environment(),
        seconds=round(trained.seconds, 1),
        peak_memory_gb=peak and round(peak, 3),
        epochs=trained.epochs,
        best_epoch=trained.best_epoch,
        selected_beta=trained.selected_beta,
        parameters=trained.model.n_parameters,
        latents=latents and latents.values,
        predictive=predictive,
        watched=_watched(trained),
        history=[round(trained.history[epoch][monitor], 6) for epoch in validated],
        validated=None if len(validated) in (0, trained.epochs) else validated,
        work=folder.name,
        commit=commit(),
        data=_counts(split),
        data_digest=split.digest,
    )
    points = latents and {"posterior": latents.posterior, "prior": latents.prior}
    store_run(run, evaluation.per_user, job.results, points)
    return run


def _watched(trained: TrainedModel) -> dict[str, list[float]] | None:
    """What was measured on the test part after each round, which of most models is an epoch, by metric."""
    curves = {}
    for name, value in (entry for epoch in trained.history for entry in epoch.items()):
        if name.startswith(WATCHED):
            curves.setdefault(name.removeprefix(WATCHED), []).append(round(value, 6))
    return curves or None


def _described(plan: _Plan, trained: TrainedModel) -> LatentDiagnostics | None:
    """The model as a generative model, where the table asks for that and the model has latent codes.

    Described by the users whose rankings are measured, so that a run's vectors are all of the same users.
    """
    if not (plan.job.table.generative and has_latents(trained.model)):
        return None
    test = plan.split.test
    measured = np.flatnonzero(np.diff(test.targets.indptr))
    return latent_diagnostics(trained.model, test.history[measured], seed=plan.seed)


def _counts(split: Split) -> dict[str, int | float]:
    """The split's own report; with held-out users also the density over training users' items (Mult-VAE, Table 1)."""
    if split.protocol != "strong-generalization":
        return split.counts
    events, cells = split.counts["events"], split.counts["users"] * split.n_items
    return split.counts | {"percent_of_interactions": 100 * events / cells}


def _store_counts(job: _Job, seconds: float) -> None:
    split = job.splits(job.table.seeds[0], "users")
    counts = Attributes(
        table=job.table.name,
        row="data attributes",
        dataset=job.dataset,
        counts=_counts(split),
        environment=environment(),
        seconds=round(seconds, 1),
        commit=commit(),
        data_digest=split.digest,
    )
    store_attributes(counts, job.results)
