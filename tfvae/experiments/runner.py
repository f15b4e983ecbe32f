"""A table from one command: runs what is missing, resumes what was interrupted, and renders what is stored.

A run is stored when it has finished (`tfvae.experiments.records`). Its checkpoints and TensorBoard files are in a
working folder whose name contains a digest of its settings and data, so that an interrupted run is resumed and a run
with other settings never uses its files. This module has no code for particular models: each is trained by
`tfvae.training.loop.train` and measured by `tfvae.evaluation.evaluate.evaluate`. A row that is an `alias_of` another
table's row is run, tuned and stored as that row.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tfvae.data.splits import HeldOutRatings, Split
from tfvae.evaluation.evaluate import evaluate
from tfvae.evaluation.groups import groups_by_size
from tfvae.evaluation.intervals import describe_intervals
from tfvae.evaluation.latents import LatentDiagnostics, has_latents, latent_diagnostics
from tfvae.evaluation.lists import describe_lists
from tfvae.evaluation.predictive import describe_predictions, has_rating_posterior
from tfvae.evaluation.ratings import errors_by_number
from tfvae.evaluation.results import Evaluation, RatingEvaluation
from tfvae.experiments import report
from tfvae.experiments.definitions import RESULTS, WORK, Row, load_table
from tfvae.experiments.plan import (
    Job,
    Log,
    Plan,
    lacking_for,
    outdated,
    plans_of_rows,
    rows_to_run,
    shortened_why,
    tables_showing,
)
from tfvae.experiments.protocols import OwnData, data_name, splits_of
from tfvae.experiments.records import Activity, Attributes, StoredRun
from tfvae.experiments.results_folder import (
    searched_as,
    store_activity,
    store_attributes,
    store_run,
    stored_run,
    stored_sweep,
)
from tfvae.experiments.sections import PICTURES
from tfvae.experiments.sweep import run_sweep, validation_value
from tfvae.experiments.tensorboard import log_pictures
from tfvae.system.environment import commit, environment
from tfvae.system.errors import DivergedError, TooLargeError
from tfvae.system.files import digest
from tfvae.system.memory import forget_peak, peak_gb
from tfvae.training.fitting import WATCHED
from tfvae.training.loop import TrainedModel, train

__all__ = ["run_folder", "run_table"]


def run_table(
    name: str,
    dataset: str | None = None,
    seeds: Sequence[int] | None = None,
    rows: Sequence[str] | None = None,
    *,
    epochs: int | None = None,
    overrides: dict[str, Any] | None = None,
    source: str | Path | None = None,
    own: OwnData | None = None,
    results: Path = RESULTS,
    work: Path = WORK,
    progress: bool = True,
    log: Log = print,
) -> list[StoredRun]:
    """Brings a table up to date on a data set, and renders it and all other tables that show the same runs.

    A figure's table is brought up to date for its own seeds only, and what else its picture needs is stored with it. If
    the table has a budget, the settings of each row are first searched until the row's search has used it. A stored
    run is kept if its settings and data are still the same; otherwise it is run again, and replaced once the new run
    has finished. A run that is cut by `epochs` does not replace a full one with the same settings. If a row diverges or
    does not fit into memory, the other rows are run all the same; the first such error is raised after rendering.

    Args:
        name: Name of the table.
        dataset: Name of a data set that suits the table's protocol; None for a user's own data.
        seeds: Seeds to run; None takes the table's (for an `alias_of` row, those of the table that stores it as well).
            A deterministic model runs once, with the table's first seed, unless each seed cuts other ratings.
        rows: Slugs of the rows to run; None runs all that have a model.
        epochs: The largest number of epochs of each run; the cells of a cut run say so.
        overrides: Settings that take precedence over all others (`--set`); they are stored with the run.
        source: Data fetched by hand (see `load_dataset`), or a pre-split folder in the vae_cf layout.
        own: A user's own data, instead of a named data set.
        results: The results folder.
        work: The folder of working folders.
        progress: Whether training shows its progress.
        log: Called with one line at a time.

    Returns:
        The runs of the chosen rows and seeds, in the order of the rows; none for a table of data attributes.

    Raises:
        InputError: If a name, a setting or the data are not as they should be.
        DivergedError: If a run's loss or scores are NaN or infinite.
        TooLargeError: If a run needs more memory than there is.
    """
    table = load_table(name, results)
    chosen = rows_to_run(table, rows)
    started = time.perf_counter()
    splits = splits_of(table, dataset, source, own)
    stored_under = data_name(dataset, own)
    job = Job(table, stored_under, splits, results, work, progress, log, table.figure)
    if table.kind == "data-attributes":
        _store_counts(job, time.perf_counter() - started)
    if table.figure == "activity":
        _store_activity(job)
    for row in chosen if table.budget else []:
        _search(job, row, epochs, source, own)
    runs, failures = [], []
    for plan in plans_of_rows(job, chosen, seeds, epochs, overrides or {}):
        try:
            runs.append(_up_to_date(plan))
        except (DivergedError, TooLargeError) as error:
            log(f"{plan.row.name}, seed {plan.seed}: failed: {error}")
            failures.append(error)
    for shown in tables_showing(name, {row.stored_in(name) for row in chosen}, results):
        page = report.render(shown, stored_under, results)
        log_pictures(Path(work) / shown / stored_under / "pictures", [page.parent / name for name in PICTURES])
        log(f"written: {page}")
    report.render_overview(results)
    if failures:
        raise failures[0]
    return runs


def run_folder(run: StoredRun, work: Path = WORK) -> Path:
    """The folder of a stored run's model and TensorBoard files, which may have been removed since."""
    return Path(work) / run.table / run.dataset / run.work


def _search(job: Job, row: Row, epochs: int | None, source: str | Path | None, own: OwnData | None) -> None:
    """Goes on with the search of a row's settings until it has used the table's budget."""
    budget = job.table.budget
    if budget is None or not (row.search or row.tuning_from):
        return
    table, slug = searched_as(row, job.table.name)
    begun = stored_sweep(table, job.dataset, slug, job.results)
    found = run_sweep(
        table,
        slug,
        job.dataset if own is None else None,
        budget.trials,
        begun.seed if begun else 0,
        epochs=begun.epochs if begun else epochs,
        budget_seconds=budget.seconds,
        source=source,
        own=own,
        results=job.results,
        work=job.work,
        progress=job.progress,
        log=job.log,
    )
    job.log(f"{row.name}: searched in {len(found.trials)} trials of {found.seconds:,.0f} s")


def _up_to_date(plan: Plan) -> StoredRun:
    """The stored run of a plan, which is run first if there is none or it differs from the plan."""
    job = plan.job
    label = f"{plan.row.name}, seed {plan.seed}"
    run = stored_run(job.table.name, job.dataset, plan.row.slug, plan.seed, job.results)
    if run:
        difference = outdated(run, plan) or lacking_for(run, job.figure)
        if not difference:
            job.log(f"{label}: stored")
            return run
        job.log(f"{label}: stored with {difference}; it is run again and then replaced.")
    job.log(f"{label}: running")
    return _run(plan)


def _run(plan: Plan) -> StoredRun:
    """Trains a plan's model, measures it on the test part and stores the run."""
    job, row = plan.job, plan.row
    table, dataset, split = job.table, job.dataset, plan.split
    key = digest(plan.settings.flat(), split.digest)[:8]
    folder = Path(job.work) / table.name / dataset / f"{row.slug}.seed{plan.seed}-{key}"
    forget_peak()
    watched = split.test if table.watch_test else None
    trained = train(
        plan.settings, split, folder, watched=watched, progress=job.progress, tensorboard="curves", log=job.log
    )
    test = split.test_part
    evaluation = evaluate(trained.model, test, tuple(table.metrics))
    predictive = None
    if isinstance(test, HeldOutRatings) and has_rating_posterior(trained.model):
        predictive, refined = describe_predictions(trained.model, test, plan.seed, refine=row.refined)
        evaluation = refined if row.refined else evaluation
    peak = None if trained.resumed else peak_gb()
    latents = _described(plan, trained)
    # After the peak is read, so that it is of the same work as in runs that were stored before these were described.
    lists = describe_lists(trained.model, test, split.train)
    intervals = describe_intervals(trained.model, test)
    by_number = None
    if isinstance(test, HeldOutRatings) and isinstance(evaluation, RatingEvaluation):
        by_number = errors_by_number(evaluation, test, users_are_rows=row.by == "users")
    if latents:
        evaluation = replace(evaluation, per_user=evaluation.per_user | latents.per_user)
    run = StoredRun(
        **_what(plan),
        **_how(plan),
        **_outcome(trained, evaluation, split, table.monitor),
        peak_memory_gb=peak and round(peak, 3),
        latents=latents and latents.values,
        predictive=predictive,
        lists=lists and lists.values,
        intervals=intervals and intervals.values,
        by_number=by_number,
        work=folder.name,
        **_provenance(split),
    )
    points = {"posterior": latents.posterior, "prior": latents.prior} if latents else None
    store_run(run, evaluation.per_user, job.results, points)
    return run


def _what(plan: Plan) -> dict[str, Any]:
    """The fields of a stored run that identify it."""
    job, row = plan.job, plan.row
    return {
        "table": job.table.name,
        "row": row.name,
        "slug": row.slug,
        "dataset": job.dataset,
        "model": row.model,
        "seed": plan.seed,
    }


def _how(plan: Plan) -> dict[str, Any]:
    """The fields of a stored run for its settings, where they come from, and what the run lacks."""
    why = shortened_why(plan)
    return {
        "settings": plan.settings.flat(),
        "overrides": plan.overrides,
        "tuned": plan.tuned,
        "shortened": why is not None,
        "shortened_why": why,
    }


def _outcome(
    trained: TrainedModel, evaluation: Evaluation | RatingEvaluation, split: Split, monitor: str
) -> dict[str, Any]:
    """The fields of a stored run for the results of training and evaluation."""
    validated = [epoch for epoch, entry in enumerate(trained.history) if f"val_{monitor}" in entry]
    return {
        "metrics": evaluation.summary(),
        "validation": validation_value(trained, split, monitor),
        "users": evaluation.n_users,
        "users_without_targets": evaluation.n_without_targets,
        "seconds": round(trained.seconds, 1),
        "epochs": trained.epochs,
        "best_epoch": trained.best_epoch,
        "selected_beta": trained.selected_beta,
        "parameters": trained.model.n_parameters,
        "watched": _watched(trained),
        "history": [round(trained.history[epoch][f"val_{monitor}"], 6) for epoch in validated],
        "validated": None if len(validated) in (0, trained.epochs) else validated,
    }


def _provenance(split: Split) -> dict[str, Any]:
    """The fields of a stored run for its code, machine and data."""
    return {
        "environment": environment(),
        "commit": commit(),
        "data": _counts(split),
        "data_digest": split.digest,
    }


def _watched(trained: TrainedModel) -> dict[str, list[float]] | None:
    """The values on the test part after each round, which for most models is an epoch, by metric."""
    curves: dict[str, list[float]] = {}
    for name, value in (entry for epoch in trained.history for entry in epoch.items()):
        if name.startswith(WATCHED):
            curves.setdefault(name.removeprefix(WATCHED), []).append(round(value, 6))
    return curves or None


def _described(plan: Plan, trained: TrainedModel) -> LatentDiagnostics | None:
    """The model's diagnostics as a generative model, if the table asks for them and the model has latent codes.

    They are for the users whose rankings are measured, so that all vectors of a run belong to the same users.
    """
    if not (plan.job.table.generative and has_latents(trained.model)):
        return None
    test = plan.split.test_part
    measured = np.flatnonzero(np.diff(test.targets.indptr))
    return latent_diagnostics(trained.model, test.history[measured], seed=plan.seed)


def _counts(split: Split) -> dict[str, int | float]:
    """The counts of a split; with held-out users also the density in percent (Mult-VAE, Table 1).

    The density is that of the matrix of all users and the items of the training users.
    """
    if split.protocol != "strong-generalization":
        return split.counts
    events, cells = split.counts["events"], split.counts["users"] * split.n_items
    return split.counts | {"percent_of_interactions": 100 * events / cells}


def _store_activity(job: Job) -> None:
    """Stores the fifth of each test user whose metrics are stored, by how many items are told of them."""
    split = job.splits(job.table.seeds[0], "users")
    test = split.test_part
    measured = np.flatnonzero(np.diff(test.targets.indptr))
    groups = groups_by_size(np.diff(test.history.indptr)[measured])
    activity = Activity(
        table=job.table.name,
        dataset=job.dataset,
        groups="".join(map(str, groups.number)),
        bounds=groups.bounds,
        data_digest=split.digest,
    )
    store_activity(activity, job.results)


def _store_counts(job: Job, seconds: float) -> None:
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
