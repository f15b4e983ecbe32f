"""A budgeted search of a row's settings on what is held out for validation, stored trial by trial (Optuna, TPE).

What is held out for test never enters: every trial trains on a split that lacks it (`for_tuning`). Trial 0 has the
row's own settings, so that a search never ends below them. Each trial draws from its own generator, a function of the
search's seed and the trial's number; with the stored trials put back, an interrupted sweep goes on exactly
as it would have.
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

from tfvae.data.splits import Split
from tfvae.evaluation.metrics import lower_is_better
from tfvae.experiments.definitions import RESULTS, Row, SearchSpace, Table, load_table
from tfvae.experiments.plan import row_settings, trained_by_epochs
from tfvae.experiments.protocols import OwnData, data_name, splits_of
from tfvae.experiments.records import Sweep, Trial, stored_sweep, sweep_path
from tfvae.experiments.runner import WORK, validation_value
from tfvae.system.environment import commit, environment
from tfvae.system.errors import DivergedError, InputError, TooLargeError
from tfvae.system.files import digest, write_json
from tfvae.system.locks import held
from tfvae.training.adapt import settings_for
from tfvae.training.loop import train
from tfvae.training.run_folder import RunFolder
from tfvae.training.settings import settings_of, stored_settings

__all__ = ["run_sweep", "search_problem"]


def run_sweep(
    table: str,
    row: str,
    dataset: str | None,
    trials: int,
    seed: int = 0,
    *,
    epochs: int | None = None,
    seconds: float | None = None,
    source: str | Path | None = None,
    own: OwnData | None = None,
    results: Path = RESULTS,
    work: Path = WORK,
    progress: bool = True,
    log: Callable[[str], None] = print,
) -> Sweep:
    """Searches the settings of one row on one data set, on from the trials that are stored already.

    Args:
        table: The table's name.
        row: The row's slug; it must have a search space.
        dataset: The data set's name; None for data of one's own.
        trials: How many there shall be in all, stored and failed ones included.
        seed: Seed of the search.
        epochs: Cuts the training of every trial.
        seconds: No new trial begins after so many seconds in this call.
        source: Data fetched by hand (see `tfvae.experiments.runner.run_table`).
        own: Data of one's own, instead of a named data set.
        results: The results folder.
        work: Where the trials' working folders lie while they run.
        progress: Whether training shows its progress.
        log: Receives one line per trial.

    Returns:
        The sweep as stored.

    Raises:
        InputError: If the row has nothing to search or is another's, its own settings lie outside the space, or the
            stored sweep is of another space, seed, data or other settings.
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
        sweep = _begun(definition, chosen, stored_under, whole.digest, seed, epochs, results, split if own else None)
        while len(sweep.trials) < trials and time.perf_counter() < deadline:
            params = _next_params(sweep)
            trial = _tried(sweep, params, split, folder, progress)
            sweep = sweep.model_copy(update={"trials": [*sweep.trials, trial]})
            write_json(path, sweep.model_dump())
            _remove_trials(folder)
            outcome = f"failed: {trial.reason}" if trial.reason else f"{sweep.monitor} {trial.value:.4f}"
            log(f"{chosen.name}, trial {trial.number + 1} of {trials}: {outcome}, {params}")
        _remove_trials(folder)
    return sweep


def _begun(
    table: Table,
    row: Row,
    dataset: str,
    data_digest: str,
    seed: int,
    epochs: int | None,
    results: Path,
    own_split: Split | None,
) -> Sweep:
    """The stored sweep, or a new one without trials; of data of one's own it begins with settings for their size.

    Raises:
        InputError: If the stored one answers another question, or the row's settings lie outside the space.
    """
    own = settings_of(row.built_model, row_settings(table, row, dataset))
    if own_split:
        given = row_settings(table, row, dataset)
        own = settings_for(row.built_model, given, own_split, _silent, fixed={"monitor", *row.search})
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
        space=row.search,
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


def _tried(sweep: Sweep, params: dict[str, Any], split: Split, folder: Path, progress: bool) -> Trial:
    """Trains with these settings and returns the trial; a diverged one is a failed one."""
    settings = stored_settings(sweep.settings).with_changes(**params)
    # The name is that of settings and data, so that a killed trial is gone on with by the same search alone.
    trial = folder / f"trial{len(sweep.trials)}-{digest(settings.flat(), split.digest)[:8]}"
    started = time.perf_counter()
    outcome: dict[str, Any]
    try:
        trained = train(settings, split, trial, progress=progress, log=_silent)
        value = validation_value(trained, split, sweep.monitor)
        outcome = {"state": "complete", "value": value, "best_epoch": trained.best_epoch}
    except (DivergedError, TooLargeError) as error:
        outcome = {"state": "failed", "value": None, "best_epoch": None, "reason": str(error)}
    seconds = round(time.perf_counter() - started, 1)
    return Trial(number=len(sweep.trials), params=params, seconds=seconds, **outcome)


def _remove_trials(folder: Path) -> None:
    """Removes the run folders of trials, those of a search that was killed and begun anew among them."""
    for trial in folder.glob("trial*-*"):
        RunFolder(trial).remove()


def _silent(line: str) -> None:
    """Takes the lines a baseline says of its memory, which are the same in every trial."""


# ---- Optuna -----------------------------------------------------------------------------------------


def _next_params(sweep: Sweep) -> dict[str, Any]:
    """The settings to try next: the row's own first, then what TPE makes of the trials so far."""
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
    """What is wrong with a search space for a row of these settings, which are the first trial.

    Args:
        space: What is to be varied, by setting.
        settings: The row's complete settings.

    Returns:
        One sentence naming the setting; None if nothing is wrong.
    """
    for key, part in space.items():
        if key not in settings:
            return f"the search varies {key!r}, which is no setting of the model."
        value = settings[key]
        if part.interval:
            low, high = part.interval
            inside = isinstance(value, int | float) and low <= value <= high
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
    """A choice as JSON text, since Optuna's choices cannot be lists; a number as it is."""
    return value if part.choices is None else json.dumps(value)


def _decoded(part: SearchSpace, value: Any) -> Any:
    return value if part.choices is None else json.loads(value)
