"""Interactions of users with items: read-only arrays in the order of their file, with the ids of users and items."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from tfvae.data import events, ids
from tfvae.data.csv_files import read_csv
from tfvae.data.event_files import (
    EventColumns,
    file_kind,
    local_file,
    places_of,
    read_json_lines,
    read_parquet,
    refuse_two_purposes,
)
from tfvae.data.events import Duplicates
from tfvae.data.stored_arrays import refuse_no_events
from tfvae.data.times import times
from tfvae.system import files
from tfvae.system.errors import InputError, unknown_name

__all__ = ["Duplicates", "Interactions", "read_events"]

_FEATURES = ("user_features", "item_features")


def _event(number: int) -> str:
    return f"event {number + 1:,}"


@dataclass(frozen=True, eq=False)
class Interactions:
    """Interactions, in the order of the file they came from, since the papers' splits depend on that order.

    Attributes:
        users: int32 [n_events], the user's row.
        items: int32 [n_events], the item's column.
        values: float32 [n_events], ratings or counts (all 1 if none were given).
        user_ids: [n_users], ascending: numbers numerically, strings lexicographically.
        item_ids: [n_items], ascending likewise.
        timestamps: int64 [n_events] in Unix seconds, rounded down, or None.
        nanoseconds: int32 [n_events], the nanoseconds beyond the whole seconds, or None if all are 0.
        titles: str [n_items] (empty where unknown), or None.
        user_features: Named arrays [n_users].
        item_features: Named arrays [n_items].
    """

    users: np.ndarray
    items: np.ndarray
    values: np.ndarray
    user_ids: np.ndarray
    item_ids: np.ndarray
    timestamps: np.ndarray | None = None
    nanoseconds: np.ndarray | None = None
    titles: np.ndarray | None = None
    user_features: dict[str, np.ndarray] = field(default_factory=dict)
    item_features: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Makes every array read-only, through a view, so that the caller's own array stays writeable."""
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, dict):
                value = {name: _read_only(array) for name, array in value.items()}
            elif value is not None:
                value = _read_only(value)
            object.__setattr__(self, entry.name, value)

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Number of items."""
        return len(self.item_ids)

    @property
    def n_events(self) -> int:
        """Number of interactions."""
        return len(self.items)

    @property
    def density(self) -> float:
        """Number of interactions divided by the number of user-item pairs."""
        return self.n_events / (self.n_users * self.n_items)

    @cached_property
    def by_user(self) -> tuple[np.ndarray, np.ndarray | None]:
        """The events grouped by user, those of a user in the order of the file.

        Returns:
            Where each user's events begin, int64 [n_users + 1]; and the place of each event in the file, int64
            [n_events], or None if the file is already grouped by user.
        """
        return events.grouped(self.users, self.n_users)

    @property
    def times(self) -> np.ndarray:
        """Sort keys in time, int64 [n_events, m], the most significant column first; m is 0 if no times are known."""
        parts = [array.astype(np.int64) for array in (self.timestamps, self.nanoseconds) if array is not None]
        return np.stack(parts, axis=1) if parts else np.empty((self.n_events, 0), np.int64)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content, in hexadecimal."""
        # It covers the events grouped by user, with their places, because the digests of stored runs were made so.
        arrays = self._arrays()
        del arrays["users"]
        arrays["indptr"], order = self.by_user
        if order is not None:
            by_event = ("items", "values", "timestamps", "nanoseconds")
            arrays |= {name: arrays[name][order] for name in by_event if name in arrays}
            arrays["order"] = order
        return files.digest(sorted(arrays), *(arrays[name] for name in sorted(arrays)))

    @classmethod
    def from_events(
        cls,
        user_ids: Any,
        item_ids: Any,
        values: Any = None,
        timestamps: Any = None,
        *,
        duplicates: Duplicates = "last",
        users: pd.DataFrame | None = None,
        items: pd.DataFrame | None = None,
        source: object = "events",
        place: Callable[[int], str] = _event,
    ) -> Interactions:
        """Builds interactions from one entry per event.

        Args:
            user_ids: [n] ids, numbers or text, in an array or a pandas or Arrow column. `tfvae.data.ids` says which
                are accepted.
            item_ids: [n] ids of the items, likewise.
            values: [n] ratings or counts; None for ones.
            timestamps: [n] Unix seconds, datetimes or text in ISO 8601, see `tfvae.data.times`; None if unknown.
            duplicates: What to do with repeated user-item pairs: keep the "last" or the "first" (in time if times are
                given, else in the data), "sum" their values, or raise an "error".
            users: A table of user features, indexed by user id.
            items: A table of item features, indexed by item id; its column `title`, if any, holds the titles.
            source: Name of the data in messages, such as a file's path.
            place: Function from an event's number, counted from 0, to its name in messages.

        Returns:
            The interactions; users and items are numbered in ascending order of their ids.

        Raises:
            InputError: If there are no events, lengths differ, an id or a time is refused, a rating is not a finite
                number, the policy for duplicates is unknown, or there are duplicates under "error".
        """
        if duplicates not in get_args(Duplicates):
            raise unknown_name("duplicates policy", duplicates, get_args(Duplicates))
        lengths = {len(column) for column in (user_ids, item_ids, values, timestamps) if column is not None}
        if len(lengths) > 1:
            raise InputError(f"{source}: columns of unequal lengths {sorted(lengths)}; one entry per event")
        if lengths == {0}:
            raise InputError(f"{source}: no interactions; at least one is needed")
        rows, user_ids = ids.numbered(user_ids, "user", source, place)
        columns, item_ids = ids.numbered(item_ids, "item", source, place)
        values = np.ones(len(rows), np.float32) if values is None else events.ratings(values, source, place)
        timestamps, nanoseconds = (None, None) if timestamps is None else times(timestamps, source, place)

        item_features = events.aligned(items, item_ids)
        found = cls(
            users=rows,
            items=columns,
            values=values,
            user_ids=user_ids,
            item_ids=item_ids,
            timestamps=timestamps,
            nanoseconds=nanoseconds,
            titles=item_features.pop("title", None),
            user_features=events.aligned(users, user_ids),
            item_features=item_features,
        )
        indptr, order = found.by_user
        if not events.has_duplicates(indptr, columns if order is None else columns[order], len(item_ids)):
            return found
        pairs = rows.astype(np.int64) * len(item_ids) + columns
        kept, values = events.without_duplicates(pairs, values, found.times, duplicates, source)
        timestamps, nanoseconds = (None if part is None else part[kept] for part in (timestamps, nanoseconds))
        return replace(
            found,
            users=rows[kept],
            items=columns[kept],
            values=values,
            timestamps=timestamps,
            nanoseconds=nanoseconds,
        )

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        user: str = "user",
        item: str = "item",
        rating: str | None = None,
        timestamp: str | None = None,
        *,
        source: object = "data frame",
        **options: Any,
    ) -> Interactions:
        """Builds interactions from a pandas data frame with one row per event.

        Args:
            frame: The events.
            user: Name of the column of user ids.
            item: Name of the column of item ids.
            rating: Name of the column of ratings or counts; None for ones.
            timestamp: Name of the column of times; None if there is none.
            source: Name of the data in messages.
            **options: Arguments of `from_events`.

        Raises:
            InputError: If a column is missing or named for two purposes, and as for `from_events`.
        """
        wanted = {"user": user, "item": item, "rating": rating, "timestamp": timestamp}
        named = {purpose: name for purpose, name in wanted.items() if name is not None}
        refuse_two_purposes(source, named)
        places_of(source, list(named.values()), list(frame.columns))
        return cls._from_columns({purpose: frame[name] for purpose, name in named.items()}, source=source, **options)

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike,
        user: str = "user",
        item: str = "item",
        rating: str | None = None,
        timestamp: str | None = None,
        *,
        delimiter: str | None = None,
        encoding: str | None = None,
        **options: Any,
    ) -> Interactions:
        """Reads a file of events: CSV, JSON lines or Parquet, recognised by its content.

        Args:
            path: The file, or `-` for standard input. It may be compressed with xz, gzip or bzip2, or be the only file
                in a zip.
            user: Name of the column (or key) of user ids.
            item: Name of the column of item ids.
            rating: Name of the column of ratings or counts; None for ones.
            timestamp: Name of the column of times; None if there is none.
            delimiter: For CSV, the character between fields; by default it is found from the first line, which names
                the columns.
            encoding: For CSV, the encoding; by default UTF-8, UTF-16 or UTF-32, whichever the bytes show, and otherwise
                Windows-1252.
            **options: Arguments of `from_events`.

        Raises:
            InputError: If the file is missing or malformed; the message names the file, and the line and value if it
                can.
        """
        wanted = {"user": user, "item": item, "rating": rating, "timestamp": timestamp}
        named = {purpose: name for purpose, name in wanted.items() if name is not None}
        with local_file(Path(path)) as file:
            found = read_events(file, named, delimiter, encoding)
            return cls._from_columns(found.columns, source=file, place=found.place, **options)

    @classmethod
    def from_csv(cls, path: str | os.PathLike, *columns: Any, **options: Any) -> Interactions:
        """Another name of `from_file`, which recognises the format by the content."""
        return cls.from_file(path, *columns, **options)

    @classmethod
    def from_parquet(cls, path: str | os.PathLike, *columns: Any, **options: Any) -> Interactions:
        """Another name of `from_file`, which recognises the format by the content."""
        return cls.from_file(path, *columns, **options)

    @classmethod
    def _from_columns(cls, columns: dict[str, Any], **options: Any) -> Interactions:
        """Calls `from_events` with the column of each purpose that has one."""
        return cls.from_events(*map(columns.get, ("user", "item", "rating", "timestamp")), **options)

    def save(self, path: str | os.PathLike) -> None:
        """Writes everything to one `.npz` file, atomically and without pickle."""
        files.write_npz(path, self._arrays(), compressed=False)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Interactions:
        """Reads a file that `save` wrote.

        Raises:
            InputError: If there is no such file, or it does not hold saved interactions.
        """
        known = {entry.name for entry in fields(cls)}
        parts: dict[str, Any] = {name: {} for name in _FEATURES}
        with files.reading(path, "saved interactions"):
            for name, array in files.read_npz(path).items():
                group, _, feature = name.partition(":")
                if group not in known or bool(feature) != (group in _FEATURES):
                    raise InputError(f"not a file of saved interactions: it holds {name!r}")
                if feature:
                    parts[group][feature] = array
                else:
                    parts[group] = array
            found = cls(**parts)
            refuse_no_events(found)
            return found

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays: dict[str, np.ndarray] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, dict):
                arrays |= {f"{entry.name}:{name}": array for name, array in value.items()}
            elif value is not None:
                arrays[entry.name] = value
        return arrays


def read_events(
    path: Path, named: Mapping[str, str], delimiter: str | None = None, encoding: str | None = None
) -> EventColumns:
    """Reads the columns of a file of events: CSV, JSON lines or Parquet, recognised by its content.

    Args:
        path: The file.
        named: The name of the column for each purpose: "user", "item", "rating" and "timestamp".
        delimiter: For CSV, as in `Interactions.from_file`.
        encoding: For CSV, likewise.

    Raises:
        InputError: If the file is missing, empty or malformed, or a column is missing or named for two purposes.
    """
    match file_kind(path):
        case "csv":
            return read_csv(path, named, delimiter, encoding)
        case "json lines":
            return read_json_lines(path, named)
        case "parquet":
            return read_parquet(path, named)


def _read_only(array: np.ndarray) -> np.ndarray:
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view
