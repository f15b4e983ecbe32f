"""The files of `paper_results/`: stored runs, counts and sweeps, read, checked and written.

```
paper_results/<table>/table.toml                       the definition of a user's own table
paper_results/<table>/<dataset>/<slug>.seed<k>.json    one run (`StoredRun`)
paper_results/<table>/<dataset>/<slug>.seed<k>.npz     its metrics, one value per test user
paper_results/<table>/<dataset>/<slug>.seed<k>.latents.npz    samples of its aggregated posterior and its prior
paper_results/<table>/<dataset>/<slug>.sweep.json      one search for a row's settings (`Sweep`)
paper_results/<table>/<dataset>/attributes.json        the counts of a data set (`Attributes`)
paper_results/<table>/<dataset>/activity.json          which test user is how active (`Activity`)
```

The runs and sweeps of a row that is an alias (`Row.alias_of`) are in the folder of the other table.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np

from tfvae.experiments.definitions import RESULTS, Row, Table
from tfvae.experiments.records import Activity, Attributes, StoredRun, Sweep
from tfvae.system.errors import InputError
from tfvae.system.files import read_json, reading, write_json, write_npz
from tfvae.system.validation import Strict, checked

__all__ = [
    "datasets_of",
    "folder_of",
    "per_user_metrics",
    "runs_of",
    "searched_as",
    "store_activity",
    "store_attributes",
    "store_run",
    "stored_activity",
    "stored_attributes",
    "stored_latents",
    "stored_run",
    "stored_runs",
    "stored_sweep",
    "sweep_of",
    "sweep_path",
]

Record = TypeVar("Record", bound=Strict)


def folder_of(table: str, dataset: str, results: Path = RESULTS) -> Path:
    """The folder in which a table's results on a data set are stored."""
    return Path(results) / table / dataset


def datasets_of(table: Table, results: Path = RESULTS) -> list[str]:
    """The data sets for which a table has stored runs or counts, those of its alias rows included, sorted."""
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
    return _read_run(_run_path(table, dataset, slug, seed, results))


def stored_runs(table: str, dataset: str, slug: str, results: Path = RESULTS) -> list[StoredRun]:
    """All stored runs of a row that is stored in this table, in the order of their seeds.

    Raises:
        InputError: If a file is damaged.
    """
    paths = folder_of(table, dataset, results).glob(f"{slug}.seed*.json")
    runs = map(_read_run, paths)
    return sorted((run for run in runs if run), key=lambda run: run.seed)


def runs_of(table: str, dataset: str, row: Row, results: Path = RESULTS) -> list[StoredRun]:
    """All stored runs of a row, which may be an alias, in the order of their seeds.

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
    """Stores a run in place of an older one.

    Args:
        run: The run.
        per_user: The metrics of each test user, float64 [users] for each metric by name; empty if the metrics are not
            means over users.
        results: The results folder.
        latents: Points of the "posterior" and the "prior" to be drawn, [n, 2] each; they are stored in half precision.
    """
    path = _run_path(run.table, run.dataset, run.slug, run.seed, results)
    if per_user:
        write_npz(path.with_suffix(".npz"), per_user)
    drawn = path.with_suffix(".latents.npz")
    if latents is None:
        drawn.unlink(missing_ok=True)
    else:
        largest = np.finfo(np.float16).max  # larger values would become infinite, and could not be drawn
        write_npz(drawn, {name: points.clip(-largest, largest).astype(np.float16) for name, points in latents.items()})
    write_json(path, run.model_dump())


def stored_latents(run: StoredRun, results: Path = RESULTS) -> dict[str, np.ndarray] | None:
    """The points of a stored run, "posterior" and "prior", float32 [n, 2] each; None if it has none."""
    path = _run_path(run.table, run.dataset, run.slug, run.seed, results).with_suffix(".latents.npz")
    if not path.is_file():
        return None
    points = _vectors(path, "the points of a run's codes")
    if any(array.ndim != 2 or array.shape[1] != 2 for array in points.values()):
        raise InputError(f"{path}: expected points of two coordinates each.")
    return {name: array.astype(np.float32) for name, array in points.items()}


def per_user_metrics(run: StoredRun, results: Path = RESULTS) -> dict[str, np.ndarray]:
    """The metrics of a stored run, one value per test user: float64 [users] for each metric by name.

    Raises:
        InputError: If they are missing, or if their means are not those of the run, because one of the two files was
            changed by hand or replaced without the other.
    """
    path = _run_path(run.table, run.dataset, run.slug, run.seed, results).with_suffix(".npz")
    remedy = f"Remove {path.with_suffix('.json')} to run it again."
    if not path.is_file():
        raise InputError(f"{path} is missing. {remedy}")
    values = _vectors(path, f"the metrics of a run's users. {remedy}")
    for metric, array in values.items():
        if array.shape != (run.users,):
            raise InputError(f"{path}: expected {metric} of {run.users:,} users, found {list(array.shape)}. {remedy}")
    for metric, summary in run.metrics.items():
        if metric not in values or not np.isclose(values[metric].mean(), summary["mean"], rtol=0, atol=1e-9):
            raise InputError(f"{path} does not have the mean {metric} of its run. {remedy}")
    return values


def stored_sweep(table: str, dataset: str, slug: str, results: Path = RESULTS) -> Sweep | None:
    """The stored sweep of a row that is stored in this table, or None.

    Raises:
        InputError: If the file is damaged.
    """
    return _read(Sweep, sweep_path(table, dataset, slug, results))


def sweep_of(table: str, dataset: str, row: Row, results: Path = RESULTS) -> Sweep | None:
    """The stored sweep that tunes a row, which may belong to another table, or None.

    Raises:
        InputError: If the file is damaged.
    """
    home, slug = searched_as(row, table)
    return stored_sweep(home, dataset, slug, results)


def searched_as(row: Row, table: str) -> tuple[str, str]:
    """The table and the slug under which the sweep of a row is stored.

    Args:
        row: The row.
        table: Name of the table that has it.
    """
    if row.tuning_from is None:
        return row.stored_in(table)
    home, slug = row.tuning_from.split("/")
    return home, slug


def sweep_path(table: str, dataset: str, slug: str, results: Path = RESULTS) -> Path:
    """The file in which the sweep of a row is stored."""
    return folder_of(table, dataset, results) / f"{slug}.sweep.json"


def stored_attributes(table: str, dataset: str, results: Path = RESULTS) -> Attributes | None:
    """The stored counts of a data set, or None.

    Raises:
        InputError: If the file is damaged.
    """
    return _read(Attributes, folder_of(table, dataset, results) / "attributes.json")


def store_attributes(attributes: Attributes, results: Path = RESULTS) -> None:
    """Stores the counts of a data set in place of older ones."""
    path = folder_of(attributes.table, attributes.dataset, results) / "attributes.json"
    write_json(path, attributes.model_dump())


def stored_activity(table: str, dataset: str, results: Path = RESULTS) -> Activity | None:
    """The stored groups of a data set's test users, or None.

    Raises:
        InputError: If the file is damaged.
    """
    return _read(Activity, folder_of(table, dataset, results) / "activity.json")


def store_activity(activity: Activity, results: Path = RESULTS) -> None:
    """Stores the groups of a data set's test users in place of older ones."""
    write_json(folder_of(activity.table, activity.dataset, results) / "activity.json", activity.model_dump())


def _run_path(table: str, dataset: str, slug: str, seed: int, results: Path) -> Path:
    return folder_of(table, dataset, results) / f"{slug}.seed{seed}.json"


def _read(kind: type[Record], path: Path) -> Record | None:
    if not path.is_file():
        return None
    return checked(kind, read_json(path, "a stored result; remove it to have it made again"), path)


def _read_run(path: Path) -> StoredRun | None:
    run = _read(StoredRun, path)
    if run and path.parts[-3:] != (run.table, run.dataset, f"{run.slug}.seed{run.seed}.json"):
        raise InputError(
            f"{path} holds the run of {run.slug!r} with seed {run.seed} of {run.table!r} on {run.dataset!r}. Remove it "
            "to run its own again."
        )
    return run


def _vectors(path: Path, what: str) -> dict[str, np.ndarray]:
    """Named arrays of finite numbers."""
    with reading(path, what):
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or not np.isfinite(array).all():
                raise InputError(f"{name!r} is not an array of finite numbers.")
        return arrays
