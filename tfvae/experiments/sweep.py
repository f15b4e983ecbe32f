"""A budgeted search for a row's settings on the validation part, stored trial by trial (Optuna, TPE).

The test part is never used: every trial trains on a split without it (`for_tuning`). Trial 0 has the row's own
settings, so that the best trial is never worse than these, unless trial 0 fails. Each trial has a random generator of
its own, seeded by the search's seed and the trial's number, and TPE is given all stored trials, so that an interrupted
sweep continues exactly as it would have without the interruption.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from tfvae.data.datasets import DATASETS
from tfvae.data.splits import Split
from tfvae.evaluation.evaluate import evaluate
from tfvae.evaluation.metrics import lower_is_better
from tfvae.experiments.definitions import RESULTS, WORK, Row, Table, load_table
from tfvae.experiments.plan import chosen_for, row_settings, trained_by_epochs
from tfvae.experiments.protocols import OwnData, data_name, splits_of
from tfvae.experiments.records import Sweep, Trial
from tfvae.experiments.results_folder import stored_sweep, sweep_path
from tfvae.experiments.search import SearchSpace
from tfvae.experiments.tensorboard import log_stored_trials, log_trial
from tfvae.models import model_class
from tfvae.models.gradient import GradientRecommender
from tfvae.system.environment import commit, environment
from tfvae.system.errors import DivergedError, InputError, TooLargeError
from tfvae.system.files import digest, write_json
from tfvae.system.locks import held
from tfvae.training.adapt import settings_for
from tfvae.training.loop import TrainedModel, train
from tfvae.training.run_folder import RunFolder
from tfvae.training.settings import settings_of, stored_settings

__all__ = ["run_sweep", "search_problem", "validation_value"]

TENSORBOARD = "tensorboard"  # in the sweep's working folder, with a run for each trial; it is kept


def run_sweep(
    table: str,
    row: str,
    dataset: str | None,
    trials: int,
    seed: int = 0,
    *,
    epochs: int | None = None,
    seconds: float | None = None,
    budget_seconds: float = np.inf,
    source: str | Path | None = None,
    own: OwnData | None = None,
    results: Path = RESULTS,
    work: Path = WORK,
    progress: bool = True,
    log: Callable[[str], None] = print,
) -> Sweep:
    """Searches for the settings of one row on one data set; stored trials are not repeated.

    Args:
        table: The table's name.
        row: The row's slug; the row must have a search space.
        dataset: The data set's name; None for a user's own data.
        trials: Number of trials in all, stored and failed ones included.
        seed: Seed of the search.
        epochs: The largest number of epochs of a trial.
        seconds: Time of this call, in seconds, after which no new trial begins.
        budget_seconds: Seconds of all trials together, those of earlier calls included, after which no new one begins.
        source: Data fetched by hand (see `tfvae.experiments.runner.run_table`).
        own: A user's own data, instead of a named data set.
        results: The results folder.
        work: The folder of the trials' working folders, which are removed after each trial, and of the trials' logs
            for TensorBoard, which are kept.
        progress: Whether training shows its progress.
        log: Called with one line after each trial.

    Returns:
        The sweep as stored.

    Raises:
        InputError: If the table, the row or the data are not as they should be, the row has no search space or is tuned
            as another row, its own settings lie outside the space, the stored sweep has another seed, metric, number of
            epochs, space, data or other settings, or another process runs the same sweep.
    """
    definition = load_table(table, results)
    chosen = definition.row(row)
    if chosen.alias_of and not chosen.tuning_from:
        raise InputError(f"row {row!r} of {table} is {chosen.alias_of}; sweep that row instead.")
    if chosen.tuning_from:
        raise InputError(f"row {row!r} of {table} is tuned as {chosen.tuning_from}; sweep that row instead.")
    if chosen.model is None or not chosen.search:
        raise InputError(f"row {row!r} of {table} has nothing to search; give it a model and [rows.search].")
    whole = splits_of(definition, dataset, source, own)(definition.seeds[0], chosen.by)
    stored_under = data_name(dataset, own)
    split = whole.for_tuning()
    path = sweep_path(table, stored_under, row, results)
    deadline = time.perf_counter() + (seconds if seconds is not None else np.inf)
    with held(Path(work) / table / stored_under / f"{row}.sweep") as folder:
        sweep = _begun(definition, chosen, stored_under, whole.digest, seed, epochs, results, split)
        log_stored_trials(folder / TENSORBOARD, sweep)
        while len(sweep.trials) < trials and sweep.seconds < budget_seconds and time.perf_counter() < deadline:
            params = _next_params(sweep)
            trial = _tried(sweep, params, split, folder, progress)
            sweep = sweep.model_copy(update={"trials": [*sweep.trials, trial]})
            write_json(path, sweep.model_dump())
            _remove_trials(folder)
            outcome = f"failed: {trial.reason}" if trial.reason else f"{sweep.monitor} {trial.value:.4f}"
            log(f"{chosen.name}, trial {trial.number + 1} of {trials}: {outcome}, {params}")
        _remove_trials(folder)
    return sweep


def validation_value(run: TrainedModel, split: Split, monitor: str) -> float | None:
    """The monitored metric on the validation part, of the best epoch or of a model that is fitted at once.

    Returns:
        The value; None if the split has no validation part.
    """
    if split.validation is None:
        return None
    if run.history:
        return run.best[f"val_{monitor}"]
    return evaluate(run.model, split.validation, (monitor,)).mean(monitor)


def _begun(
    table: Table,
    row: Row,
    dataset: str,
    data_digest: str,
    seed: int,
    epochs: int | None,
    results: Path,
    split: Split,
) -> Sweep:
    """The stored sweep, or a new one without trials; adapted to the size of the data if no settings are chosen.

    Raises:
        InputError: If the stored sweep differs in what is searched, or the row's settings lie outside the space.
    """
    given, space = row_settings(table, row, dataset), row.search
    own = settings_of(row.built_model, given)
    if dataset not in DATASETS:
        space, given = _fitting(row, given, split)
        own = settings_for(row.built_model, given, split, _silent, fixed={"monitor", *space})
    elif not chosen_for(table, row, dataset):
        own = settings_for(row.built_model, given, split, _silent, fixed={*given, *space})
    cut = epochs if trained_by_epochs(row.built_model) else None
    if cut is not None:
        own = own.with_changes(epochs=min(cut, own.training.epochs))
    new = Sweep(
        table=table.name,
        row=row.name,
        dataset=dataset,
        seed=seed,
        monitor=table.monitor,
        epochs=cut,
        settings=own.flat(),
        space=space,
        environment=environment(),
        commit=commit(),
        data_digest=data_digest,
        trials=[],
    )
    if problem := search_problem(new.space, new.settings):
        raise InputError(f"{table.name}, row {row.slug!r}: {problem}")
    stored = stored_sweep(table.name, dataset, row.slug, results)
    if stored is None:
        return new
    stored = stored.model_copy(update={"settings": stored_settings(stored.settings).flat()})
    for key in ("seed", "monitor", "epochs", "settings", "space", "data_digest"):
        if getattr(stored, key) != getattr(new, key):
            path = sweep_path(table.name, dataset, row.slug, results)
            raise InputError(
                f"{path} was begun with another {key.replace('_', ' ')}: there {getattr(stored, key)}, "
                f"now {getattr(new, key)}. Search with that, or remove the file to begin anew."
            )
    return stored


def _fitting(row: Row, given: dict[str, Any], split: Split) -> tuple[dict[str, SearchSpace], dict[str, Any]]:
    """The row's search space and settings, without batches that are larger than a user's own data.

    If all batches of the space are, the batch is not searched, but adapted like other settings.
    """
    kind, part = model_class(row.built_model), row.search.get("batch_size")
    if part is None or not issubclass(kind, GradientRecommender):
        return row.search, given
    n_rows = kind.n_rows(split.train)
    others = {name: other for name, other in row.search.items() if name != "batch_size"}
    if part.interval is None:
        kept = [choice for choice in part.choices or () if choice <= n_rows]  # type: ignore[operator]
        if not kept:
            return others, given
        largest, part = max(kept), SearchSpace(choices=kept)  # type: ignore[type-var]
    elif part.interval[0] < n_rows:
        largest = min(part.interval[1], n_rows)
        part = part.model_copy(update={"high": largest})
    else:
        return others, given
    if settings_of(row.built_model, given).training.batch_size > largest:  # type: ignore[operator]
        given = given | {"batch_size": largest}
    return others | {"batch_size": part}, given


def _tried(sweep: Sweep, params: dict[str, Any], split: Split, folder: Path, progress: bool) -> Trial:
    """Trains with these settings and returns the trial, which fails if it diverges or needs too much memory."""
    settings = stored_settings(sweep.settings).with_changes(**params)
    # The name has a digest of settings and data, so that only the same search resumes a killed trial.
    trial = folder / f"trial{len(sweep.trials)}-{digest(settings.flat(), split.digest)[:8]}"
    started = time.perf_counter()
    outcome: dict[str, Any]
    history: list[dict[str, float]] = []
    try:
        trained = train(settings, split, trial, progress=progress, tensorboard="curves", log=_silent)
        history = trained.history
        value = validation_value(trained, split, sweep.monitor)
        outcome = {"state": "complete", "value": value, "best_epoch": trained.best_epoch}
    except (DivergedError, TooLargeError) as error:
        outcome = {"state": "failed", "value": None, "best_epoch": None, "reason": str(error)}
    seconds = round(time.perf_counter() - started, 1)
    tried = Trial(number=len(sweep.trials), params=params, seconds=seconds, **outcome)
    log_trial(folder / TENSORBOARD, sweep, tried, history)
    return tried


def _remove_trials(folder: Path) -> None:
    """Removes the run folders of all trials, also those that a killed search has left behind."""
    for trial in folder.glob("trial*-*"):
        RunFolder(trial).remove()


def _silent(line: str) -> None:
    """Drops a line of progress, since such lines would be repeated in every trial."""


# ---- Optuna -----------------------------------------------------------------------------------------


def _next_params(sweep: Sweep) -> dict[str, Any]:
    """The settings to try next: first the row's own, then those that TPE proposes after the trials so far."""
    if not sweep.trials:
        return {key: sweep.settings[key] for key in sweep.space}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {key: _distribution(part) for key, part in sweep.space.items()}
    own_seed = np.random.SeedSequence((sweep.seed, len(sweep.trials))).generate_state(1)[0]
    direction: Literal["minimize", "maximize"] = "minimize" if lower_is_better(sweep.monitor) else "maximize"
    study = optuna.create_study(direction=direction, sampler=optuna.samplers.TPESampler(seed=int(own_seed)))
    for trial in sweep.trials:
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.COMPLETE if trial.state == "complete" else TrialState.FAIL,
                value=trial.value,
                params={key: _encoded(sweep.space[key], value) for key, value in trial.params.items()},
                distributions=space,
            )
        )
    asked = study.ask(space).params
    return {key: _decoded(sweep.space[key], value) for key, value in asked.items()}


def search_problem(space: Mapping[str, SearchSpace], settings: Mapping[str, Any]) -> str | None:
    """What is wrong with a search space for a row with these settings, which are those of the first trial.

    Args:
        space: The values to search, by setting.
        settings: The row's complete settings.

    Returns:
        One sentence that names the setting; None if nothing is wrong.
    """
    for key, part in space.items():
        if key not in settings:
            return f"the search varies {key!r}, which is no setting of the model."
        value = settings[key]
        if part.interval:
            low, high = part.interval
            inside = isinstance(value, int | float) and low <= value <= high
            if inside and part.step and abs((steps := (value - low) / part.step) - round(steps)) > 1e-8:
                return f"the row's {key} = {value} is not among {low}, {low + part.step:g}, … of its search space."
        else:
            inside = value in (part.choices or ())
        if not inside:
            allowed = part.model_dump(exclude_defaults=True)
            return f"the row's {key} = {value} lies outside its search space {allowed}; widen it there."
    return None


def _distribution(part: SearchSpace) -> BaseDistribution:
    if part.interval is None:
        return CategoricalDistribution([_encoded(part, choice) for choice in part.choices or ()])
    low, high = part.interval
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=part.log, step=int(part.step or 1))
    return FloatDistribution(low, high, log=part.log, step=part.step)


def _encoded(part: SearchSpace, value: Any) -> Any:
    """A choice as JSON text, since Optuna's choices cannot be lists; a number of an interval is returned as it is."""
    return value if part.choices is None else json.dumps(value)


def _decoded(part: SearchSpace, value: Any) -> Any:
    return value if part.choices is None else json.loads(value)
