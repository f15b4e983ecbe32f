"""What was run: the stored runs, counts and sweeps of `paper_results/`, read, checked and written.

```
paper_results/<table>/table.toml                       the definition of a table of one's own
paper_results/<table>/<dataset>/<slug>.seed<k>.json    one run (`StoredRun`)
paper_results/<table>/<dataset>/<slug>.seed<k>.npz     its metrics, one value per test user
paper_results/<table>/<dataset>/<slug>.seed<k>.latents.npz    samples of its aggregated posterior and its prior
paper_results/<table>/<dataset>/<slug>.sweep.json      one search of a row's settings (`Sweep`)
paper_results/<table>/<dataset>/attributes.json        the counts of a data set (`Attributes`)
```

What a row shares with another table's (`Row.alias_of`) lies in that table's folder, and is read from there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import field_validator, model_validator

from tfvae.evaluation.metrics import lower_is_better
from tfvae.experiments.definitions import RESULTS, Row, SearchSpace, Table
from tfvae.system.errors import InputError
from tfvae.system.files import write_json, write_npz
from tfvae.system.validation import Strict, checked
from tfvae.training.settings import todays_flat

__all__ = [
    "Attributes",
    "StoredRun",
    "Sweep",
    "Trial",
    "Tuned",
    "datasets_of",
    "folder_of",
    "per_user_metrics",
    "runs_of",
    "store_attributes",
    "store_run",
    "stored_attributes",
    "stored_latents",
    "stored_run",
    "stored_runs",
    "stored_sweep",
    "sweep_of",
    "sweep_path",
]


class Tuned(Strict):
    """The search a run's settings come from: its finished and failed trials and its best validation value."""

    trials: int
    failed: int
    epochs: int | None
    value: float


class StoredRun(Strict):
    """One stored run: one row, one data set, one seed.

    Attributes:
        table: The table's name.
        row: The row's name, as printed.
        slug: The row as in file names.
        dataset: The data set's name.
        model: The model's name.
        seed: Seed of the initial weights, the order of users and the noise; for ratings also the number of the split.
        metrics: By name: mean over test users, its standard error, ends of its 95 % bootstrap interval; with
            `latents` also "elbo" and "iwae", in nats.
        validation: The best epoch's value of the monitored metric on validation users; None where a protocol holds
            none out of a run.
        users: Test users measured.
        users_without_targets: Test users left out because nothing of theirs is held out.
        settings: All settings, defaults included.
        overrides: Those of them set by hand for this run.
        tuned: The search they come from, or None.
        shortened: Whether the run is less than the row asks for.
        shortened_why: In words, such as ``"5 of 200 epochs"``.
        environment: Versions, platform, device, cores.
        seconds: Seconds of training.
        peak_memory_gb: Peak resident memory of the process while it trained and evaluated, in GB (10⁹ bytes), with
            what TensorFlow kept of earlier runs in that process; None where a run was interrupted, and in runs stored
            before it was measured.
        epochs: Epochs trained; 0 for a model that has none.
        best_epoch: The epoch whose weights were measured, counted from 0; None without epochs.
        selected_beta: The cap that `beta_selection="peak"` found, else None.
        parameters: Numbers that were learnt.
        latents: What `tfvae.evaluation.latents` found of a model with latent codes, else None.
        predictive: What `tfvae.evaluation.predictive` found of a model of ratings with a posterior, else None.
        watched: Metrics on the test part after each round, by name, where the table watches it; nothing is chosen by
            them but the published way of reporting ("best epoch on test").
        history: The monitored metric on validation users after each round, which of most models is an epoch.
        validated: The epochs, counted from 0, with which the rounds ended; None where each epoch was a round.
        work: The run's folder of checkpoints, relative to the working folder of its table and data set.
        commit: Commit of the code, or None outside a checkout.
        data: Counts of the split.
        data_digest: Digest of the split.
    """

    table: str
    row: str
    slug: str
    dataset: str
    model: str
    seed: int
    metrics: dict[str, dict[str, float]]
    validation: float | None
    users: int
    users_without_targets: int
    settings: dict[str, Any]
    overrides: dict[str, Any]
    tuned: Tuned | None
    shortened: bool
    shortened_why: str | None
    environment: dict[str, Any]
    seconds: float
    peak_memory_gb: float | None = None
    epochs: int
    best_epoch: int | None
    selected_beta: float | None
    parameters: int
    latents: dict[str, float] | None = None
    predictive: dict[str, Any] | None = None
    watched: dict[str, list[float]] | None = None
    history: list[float]
    validated: list[int] | None = None
    work: str
    commit: str | None
    data: dict[str, Any]
    data_digest: str

    _renamed = field_validator("overrides")(todays_flat)

    @model_validator(mode="before")
    @classmethod
    def _of_todays_model(cls, stored: dict[str, Any]) -> dict[str, Any]:
        settings = todays_flat(stored["settings"])
        return stored | {"settings": settings, "model": settings["model"]}


class Attributes(Strict):
    """The stored counts of one data set's split."""

    table: str
    row: str
    dataset: str
    counts: dict[str, int | float]
    environment: dict[str, Any]
    seconds: float
    commit: str | None
    data_digest: str


class Trial(Strict):
    """One trial of a sweep; a failed one has no value but a reason."""

    number: int
    state: Literal["complete", "failed"]
    params: dict[str, Any]
    value: float | None
    best_epoch: int | None
    seconds: float
    reason: str | None = None

    _renamed = field_validator("params")(todays_flat)


class Sweep(Strict):
    """One stored search of a row's settings on one data set's validation users.

    Attributes:
        table: The table's name.
        row: The row's name, as printed.
        dataset: The data set's name.
        seed: Seed of the search.
        monitor: The metric that is optimised.
        epochs: The trials' epochs where they were cut, else None.
        settings: The settings every trial starts from.
        space: What was varied.
        environment: Versions, platform, device, cores.
        commit: Commit of the code, or None outside a checkout.
        data_digest: Digest of the split.
        trials: In the order they ran; the first has the row's own settings.
    """

    table: str
    row: str
    dataset: str
    seed: int
    monitor: str
    epochs: int | None
    settings: dict[str, Any]
    space: dict[str, SearchSpace]
    environment: dict[str, Any]
    commit: str | None
    data_digest: str
    trials: list[Trial]

    _renamed = field_validator("settings", "space")(todays_flat)

    @property
    def best(self) -> Trial | None:
        """The trial of the best value, the earliest of several; None if no trial came through."""
        sign = 1 if lower_is_better(self.monitor) else -1
        complete = [(sign * trial.value, trial) for trial in self.trials if trial.value is not None]
        return min(complete, key=lambda pair: pair[0])[1] if complete else None

    @property
    def tuned(self) -> Tuned | None:
        """The summary a run of the best settings keeps; None if no trial came through."""
        if self.best is None or self.best.value is None:
            return None
        failed = sum(trial.state == "failed" for trial in self.trials)
        return Tuned(trials=len(self.trials), failed=failed, epochs=self.epochs, value=round(self.best.value, 6))


Record = TypeVar("Record", bound=Strict)


def folder_of(table: str, dataset: str, results: Path = RESULTS) -> Path:
    """The folder of a table on a data set."""
    return Path(results) / table / dataset


def datasets_of(table: Table, results: Path = RESULTS) -> list[str]:
    """The data sets a table has stored files of, be they in another table's folder, sorted."""
    shared = [row.stored_in(table.name) for row in table.rows if row.alias_of]
    stored = [
        *(Path(results) / table.name).glob("*/*.seed*.json"),
        *(Path(results) / table.name).glob("*/attributes.json"),
        *(path for home, slug in shared for path in (Path(results) / home).glob(f"*/{slug}.seed*.json")),
    ]
    return sorted({path.parent.name for path in stored})


def stored_run(table: str, dataset: str, slug: str, seed: int, results: Path = RESULTS) -> StoredRun | None:
    """The stored run of one row and seed, or None.

    Raises:
        InputError: If the file is damaged.
    """
    return _read(StoredRun, _run_path(table, dataset, slug, seed, results))


def stored_runs(table: str, dataset: str, slug: str, results: Path = RESULTS) -> list[StoredRun]:
    """All stored runs of this table's own row, by seed.

    Raises:
        InputError: If a file is damaged.
    """
    paths = folder_of(table, dataset, results).glob(f"{slug}.seed*.json")
    runs = (_read(StoredRun, path) for path in paths)
    return sorted((run for run in runs if run), key=lambda run: run.seed)


def runs_of(table: str, dataset: str, row: Row, results: Path = RESULTS) -> list[StoredRun]:
    """All stored runs of a row, be it another table's, by seed.

    Raises:
        InputError: If a file is damaged.
    """
    home, slug = row.stored_in(table)
    return stored_runs(home, dataset, slug, results)


def store_run(
    run: StoredRun,
    per_user: dict[str, np.ndarray],
    results: Path = RESULTS,
    latents: dict[str, np.ndarray] | None = None,
) -> None:
    """Stores a run, replacing an older one.

    Args:
        run: The run.
        per_user: Its metrics of each test user, float64 [users] by metric; none where metrics are no means over users.
        results: The results folder.
        latents: Points of "posterior" and "prior" in a plane, [n, 2] each, to be drawn; kept in half precision.
    """
    path = _run_path(run.table, run.dataset, run.slug, run.seed, results)
    if per_user:
        write_npz(path.with_suffix(".npz"), per_user)
    drawn = path.with_suffix(".latents.npz")
    if latents is None:
        drawn.unlink(missing_ok=True)
    else:
        largest = np.finfo(np.float16).max  # beyond it lies infinity, which cannot be drawn
        write_npz(drawn, {name: points.clip(-largest, largest).astype(np.float16) for name, points in latents.items()})
    write_json(path, run.model_dump())


def stored_latents(run: StoredRun, results: Path = RESULTS) -> dict[str, np.ndarray] | None:
    """The points of a stored run, "posterior" and "prior", float32 [n, 2] each; None where it has none."""
    path = _run_path(run.table, run.dataset, run.slug, run.seed, results).with_suffix(".latents.npz")
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name].astype(np.float32) for name in arrays.files}


def per_user_metrics(run: StoredRun, results: Path = RESULTS) -> dict[str, np.ndarray]:
    """The metrics of a stored run, one value per test user: float64 [users] by metric.

    Raises:
        InputError: If they are missing or their means are not those of the run: then one of the two files was
            changed by hand, or replaced without the other.
    """
    path = _run_path(run.table, run.dataset, run.slug, run.seed, results).with_suffix(".npz")
    remedy = f"Remove {path.with_suffix('.json')} to run it again."
    if not path.is_file():
        raise InputError(f"{path} is missing. {remedy}")
    with np.load(path, allow_pickle=False) as arrays:
        values = {metric: arrays[metric] for metric in arrays.files}
    for metric, summary in run.metrics.items():
        if metric not in values or not np.isclose(values[metric].mean(), summary["mean"], rtol=0, atol=1e-9):
            raise InputError(f"{path} does not have the mean {metric} of its run. {remedy}")
    return values


def stored_sweep(table: str, dataset: str, slug: str, results: Path = RESULTS) -> Sweep | None:
    """The stored sweep of this table's own row, or None.

    Raises:
        InputError: If the file is damaged.
    """
    return _read(Sweep, sweep_path(table, dataset, slug, results))


def sweep_of(table: str, dataset: str, row: Row, results: Path = RESULTS) -> Sweep | None:
    """The stored sweep that tunes a row, be it another table's, or None.

    Raises:
        InputError: If the file is damaged.
    """
    home, slug = row.tuning_from.split("/") if row.tuning_from else row.stored_in(table)
    return stored_sweep(home, dataset, slug, results)


def sweep_path(table: str, dataset: str, slug: str, results: Path = RESULTS) -> Path:
    """Where the sweep of a row is stored."""
    return folder_of(table, dataset, results) / f"{slug}.sweep.json"


def stored_attributes(table: str, dataset: str, results: Path = RESULTS) -> Attributes | None:
    """The stored counts of a data set, or None.

    Raises:
        InputError: If the file is damaged.
    """
    return _read(Attributes, folder_of(table, dataset, results) / "attributes.json")


def store_attributes(attributes: Attributes, results: Path = RESULTS) -> None:
    """Stores the counts of a data set, replacing older ones."""
    path = folder_of(attributes.table, attributes.dataset, results) / "attributes.json"
    write_json(path, attributes.model_dump())


def _run_path(table: str, dataset: str, slug: str, seed: int, results: Path) -> Path:
    return folder_of(table, dataset, results) / f"{slug}.seed{seed}.json"


def _read(kind: type[Record], path: Path) -> Record | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not valid JSON: {error}. Remove it to run it again.") from error
    return checked(kind, content, path)
