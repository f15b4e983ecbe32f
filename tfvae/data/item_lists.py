"""Files about items beside the events: lists of ids, and the categories of each item."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from tfvae.data import ids
from tfvae.data.column_names import ITEM_ID, OPTIONS, STANDARD, column_names, recognised
from tfvae.data.interactions import read_events
from tfvae.system.errors import InputError

__all__ = ["categories_of", "item_list", "split_column"]

BETWEEN = "|"


def split_column(text: str) -> tuple[Path, str | None]:
    """A file and perhaps a column of it, given as FILE or FILE:COLUMN; a file may have colons in its name."""
    if ":" not in text or Path(text).exists():
        return Path(text), None
    name, _, column = text.rpartition(":")
    if not name or not column:
        raise InputError(f"expected FILE:COLUMN, found {text!r}.")
    return Path(name), column


def item_list(path: Path, column: str | None = None) -> list[int | str]:
    """The distinct ids in a column of a file: CSV, JSON lines or Parquet, recognised by its content.

    Args:
        path: The file.
        column: Name of the column (or key) of item ids; None takes the one that has a usual name.

    Raises:
        InputError: If the file is missing, empty or malformed, the column is missing, or an id is refused by the rule
            of `tfvae.data.ids`.
    """
    found = read_events(path, {"item": column or _id_column(path)})
    return ids.numbered(found.columns["item"], "item", path, found.place)[1].tolist()


def categories_of(
    path: Path, column: str, item_ids: Sequence | np.ndarray, id_column: str | None = None
) -> tuple[list[list[str]], int]:
    """The categories of a model's items, from a file with a line for each item.

    An item has several categories if they stand between bars, as in "Action|Comedy", if a value of Parquet or JSON
    lines is a list, or if the item has several lines. Items are compared as text.

    Args:
        path: The file.
        column: Name of the column (or key) of categories.
        item_ids: The ids of the model's items, [n_items].
        id_column: Name of the column (or key) of item ids; None takes the one that has a usual name.

    Returns:
        The categories of each item of the model, and how many items have none or are not in the file.

    Raises:
        InputError: As for `item_list`, and if none of the file's items is one of the model, or none of these has a
            category.
    """
    # To the readers of events a column of text has the purpose "user".
    found = read_events(path, {"item": id_column or _id_column(path), "user": column})
    numbers, names = ids.numbered(found.columns["item"], "item", path, found.place)
    place_of = {str(item): place for place, item in enumerate(np.asarray(item_ids).tolist())}
    places = [place_of.get(str(name)) for name in names.tolist()]
    if all(place is None for place in places):
        raise InputError(
            f"{path}: none of its {len(names):,} items, such as {names[0]}, is one of the training data, whose ids "
            f"look like {next(iter(place_of))}."
        )
    of_item: list[list[str]] = [[] for _ in place_of]
    for number, value in zip(numbers.tolist(), _plain(found.columns["user"]), strict=True):
        if (place := places[number]) is not None:
            of_item[place] += _labels(value)
    if not any(of_item):
        raise InputError(f"{path}: for the items of the training data there is nothing in the column {column!r}.")
    return of_item, sum(not labels for labels in of_item)


def _id_column(path: Path) -> str:
    standard = STANDARD["item"]
    names = column_names(path)
    return recognised(path, names, ITEM_ID, standard, "item ids", OPTIONS["item"]) or standard


def _plain(column: Any) -> list:
    return column.to_pylist() if isinstance(column, pa.ChunkedArray) else list(column)


def _labels(value: Any) -> list[str]:
    if isinstance(value, list | tuple | np.ndarray):
        return [label for part in value for label in _labels(part)]
    if pd.isna(value):
        return []
    return [label for part in str(value).split(BETWEEN) if (label := part.strip())]
