"""The splits of a table's runs, by the table's protocol."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from tfvae.data.datasets import DATASETS
from tfvae.data.open_split import open_split
from tfvae.data.row_shards import in_memory
from tfvae.data.sources import stem
from tfvae.data.splits import Split
from tfvae.experiments.definitions import Table
from tfvae.system.errors import InputError, unknown_name

__all__ = ["OwnData", "Splits", "data_name", "dataset_title", "splits_of", "whole_size"]

Splits = Callable[[int, str], Split]  # from a run's seed and a row's `by` ("users" or "items")


@dataclass(frozen=True)
class OwnData:
    """A user's own data, on which a table is run.

    Attributes:
        path: A file of events, a saved split or a folder in the vae_cf layout (see `open_split`).
        columns: The names of the columns "user", "item", "rating" and "timestamp", and the "delimiter".
        changes: Settings of the split that replace the protocol's defaults.

    Raises:
        InputError: If the file has the name of a named data set, since the runs of both would be stored in one folder,
            or if its name has neither a letter from a to z nor a digit.
    """

    path: Path
    columns: Mapping[str, str] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses an unusable name before any file is read."""
        if self.name in DATASETS or not self.name:
            raise InputError(
                f"{self.path}: its runs would be stored as those of the data set {self.name!r}; rename the file."
            )

    @property
    def name(self) -> str:
        """The name under which its runs are stored: that of the file without its ending, in a-z, 0-9 and hyphens."""
        return re.sub(r"[^a-z0-9]+", "-", stem(self.path).lower()).strip("-")


def dataset_title(name: str) -> str:
    """The title of a named data set; for a user's own data, the name itself."""
    return DATASETS[name].title if name in DATASETS else name


def whole_size(name: str) -> int | None:
    """The number of events in the whole of a named data set; None if it is not known."""
    return DATASETS[name].n_events if name in DATASETS else None


def data_name(dataset: str | None, own: OwnData | None) -> str:
    """The name under which runs on the data are stored.

    Args:
        dataset: Name of a data set; None for a user's own data.
        own: A user's own data, instead of a named data set.

    Raises:
        InputError: If not exactly one of the two is given.
    """
    if own is not None and dataset is None:
        return own.name
    if dataset is not None and own is None:
        return dataset
    raise InputError("expected either a data set's name (--dataset) or a file of your own (--data).")


def splits_of(
    table: Table, dataset: str | None, source: str | Path | None = None, own: OwnData | None = None
) -> Splits:
    """The splits of the data by the table's protocol, or the one split that the data already come in.

    A rating hold-out cuts the ratings anew for each seed. With the other protocols, all seeds share one split.

    Args:
        table: The table, whose protocol is used.
        dataset: Name of a data set; None for a user's own data.
        source: Where the files of a named data set are.
        own: A user's own data, instead of a named data set.

    Returns:
        A function from a seed and a row's `by` to the split.

    Raises:
        InputError: If the data set is unknown, is not there or cannot be split by this protocol; if not exactly one of
            `dataset` and `own` is given; if `source` is given with `own`; or if `own` sets the seed of a rating
            hold-out.
    """
    name = data_name(dataset, own)
    given: dict[str, Any] = {"protocol": table.protocol}
    data: str | Path
    changes: dict[str, Any]
    if own is None:
        if name not in DATASETS:
            raise unknown_name("data set", name, DATASETS)
        data, changes = name, {}
        given["source"] = source
    else:
        if source is not None:
            raise InputError("a source is where a named data set's files lie; leave it out for a file of your own.")
        data, changes = own.path, dict(own.changes)
        given["columns"] = own.columns
    if table.protocol != "rating-holdout":
        split = open_split(data, changes=changes, **given)
        in_memory(split.train, f"table {table.name}")  # for the statistics of its lists, among others
        return lambda seed, by: split
    if "seed" in changes:
        raise InputError(f"{table.name} cuts the ratings anew for each of its seeds; leave the split's seed out.")

    @lru_cache(maxsize=2)
    def cut(seed: int, by: str) -> Split:
        split = open_split(data, changes=changes | {"seed": seed}, **given)
        return split.by_items() if by == "items" else split

    return cut
