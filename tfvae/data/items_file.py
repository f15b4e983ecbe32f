"""A file of items, one a line: what they are called, and whatever else is known of them.

It is any table that events may come as: CSV of any delimiter and encoding, JSON lines or Parquet. A column has the ids,
one may have the titles, and all others are attributes (`tfvae.data.attributes`). An item has several values of an
attribute where its column holds lists, or text with bars or semicolons between the values. Ids follow the rule of
`tfvae.data.ids`, and are compared as text, so that 7 and "7" are the same item.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import pyarrow as pa

from tfvae.data import ids
from tfvae.data.attributes import Attribute
from tfvae.data.column_names import ITEM_ID, TITLE, column_names, recognised
from tfvae.data.event_files import EventColumns, file_kind, local_file, read_json_lines
from tfvae.data.interactions import read_events
from tfvae.data.splits import RatingHoldout, Split
from tfvae.system.errors import InputError
from tfvae.system.files import digest
from tfvae.system.text_arrays import text_array

__all__ = ["ItemTable", "read_items"]

_SEPARATORS = "|;"
_MOST_NAMED = 10
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")
_BROKEN = re.compile(r"-?[0-9]{1,15}\.[0-9]{1,15}")
_log = logging.getLogger(__name__)

SomeSplit = TypeVar("SomeSplit", bound=Split)


@dataclass(frozen=True, eq=False)
class ItemTable:
    """What a file tells of m items.

    Attributes:
        source: The file, for messages.
        columns: What each of its columns is taken for, in words.
        ids: [m] ids, ascending: numbers numerically, text lexicographically.
        titles: Text [m], empty where unknown; None if the file has no titles.
        attributes: All other columns, by name.
    """

    source: str
    columns: str
    ids: np.ndarray
    titles: np.ndarray | None
    attributes: Mapping[str, Attribute]

    def described(self, split: SomeSplit) -> SomeSplit:
        """The same split with the titles and attributes of its items; how many are in the file is said in one line.

        The data are cut as before. What models learn from changes only if the split is one of ratings, since p-VAE may
        learn from the attributes and titles; only then has the split another digest.

        Args:
            split: The split, whose columns are items. A title that the file lacks stays as it was.

        Raises:
            InputError: If none of its items is in the file.
        """
        place_of = {str(name): place for place, name in enumerate(self.ids.tolist())}
        places = np.array([place_of.get(str(name), -1) for name in split.item_ids.tolist()], np.int64)
        n_known = int((places >= 0).sum())
        if not n_known:
            raise InputError(
                f"{self.source}: none of its {len(self.ids):,} items, such as {self.ids[0]}, is one of the data, whose "
                f"ids look like {split.item_ids[0]}; is another column that of the ids (--items-id-col)?"
            )
        _log.warning(
            "%s: %s; %s of the data's %s items are in it, %s are not, and %s of its own are in no event to learn from",
            Path(self.source).name,
            self.columns,
            f"{n_known:,}",
            f"{split.n_items:,}",
            f"{split.n_items - n_known:,}",
            f"{len(self.ids) - n_known:,}",
        )
        titles = _titles(places, self.titles, split.titles)
        attributes = {name: attribute.taken(places) for name, attribute in self.attributes.items()}
        found = cast(Any, replace)(split, titles=titles, attributes={**split.attributes, **attributes})
        if isinstance(split, RatingHoldout):
            features = {name: attribute.feature() for name, attribute in attributes.items()}
            known = [titles, sorted(features), *(features[name] for name in sorted(features))]
            found = replace(
                found,
                item_features={**split.item_features, **features},
                digest=digest(split.digest, "items file", *known),
            )
        return found


def read_items(
    path: str | os.PathLike,
    item_id: str | None = None,
    title: str | None = None,
    *,
    delimiter: str | None = None,
    encoding: str | None = None,
) -> ItemTable:
    r"""Reads a file of items.

    Example:
        >>> import pathlib, tempfile, tfvae
        >>> file = pathlib.Path(tempfile.mkdtemp(), "items.csv")
        >>> _ = file.write_text("sku,name,genres\n7,Heat,Crime|Drama\n9,Up,\n")
        >>> table = tfvae.read_items(file)
        >>> table.ids.tolist(), table.titles.tolist(), table.attributes["genres"].values(0)
        ([7, 9], ['Heat', 'Up'], ['Crime', 'Drama'])

    Args:
        path: The file, which may be compressed; `-` is standard input.
        item_id: Name of the column of ids; by default it is recognised (`id`, `item`, `movieId`, `sku`, ...).
        title: Name of the column of titles; by default it is recognised (`title`, `name`, ...), and may be missing.
        delimiter: For CSV, the character between fields; by default it is found from the first line.
        encoding: For CSV, the encoding; by default it is found from the bytes.

    Returns:
        The items in ascending order of their ids. Columns without a name and those of binary or nested values are left
        out.

    Raises:
        InputError: If the file is missing, empty or malformed, its columns cannot be recognised, an id is refused, or
            an item comes twice with different content; the message names the file, and the lines if it can.
    """
    with local_file(Path(path)) as file:
        wanted = [name for name in (item_id, title) if name is not None]
        names = [name for name in column_names(file, wanted, delimiter, encoding, whole=True) if name.strip()]
        left = [name for name in names if name not in wanted]
        if item_id is None:
            item_id = recognised(file, left, ITEM_ID, "item", "item ids", "--items-id-col")
            if item_id is None:
                raise InputError(
                    f"{file}: no column is called like ids of items; found: {', '.join(map(repr, names))}; say which "
                    "one has them (--items-id-col)."
                )
        if title is None:
            others = [name for name in left if name != item_id]
            title = recognised(file, others, TITLE, "title", "titles", "--items-title-col")
        named = {"item": item_id} | ({} if title is None else {"title": title})
        others = [name for name in names if name not in named.values()]
        found = _read(file, named | {f"attribute {name}": name for name in others}, delimiter, encoding)
        rows, item_ids = ids.numbered(found.columns["item"], "item", file, found.place)
        columns = {name: _listed(found.columns[f"attribute {name}"]) for name in others}
        kept = {name: cells for name, cells in columns.items() if cells is not None}
        titles = (
            None
            if title is None
            else [" ".join(map(str, _cell(cell) or [])) for cell in _values(found.columns["title"])]
        )
        firsts = _firsts(rows, len(item_ids), titles, kept, file, found)
        attributes = {name: Attribute.of([cells[row] for row in firsts]) for name, cells in kept.items()}
        return ItemTable(
            source=str(file),
            columns=_told(item_id, title, attributes, sorted(columns.keys() - kept.keys())),
            ids=item_ids,
            titles=None if titles is None else text_array([titles[row] for row in firsts]),
            attributes=attributes,
        )


def _read(file: Path, named: Mapping[str, str], delimiter: str | None, encoding: str | None) -> EventColumns:
    if file_kind(file) == "json lines":  # where each line may leave out what is not known
        return read_json_lines(file, named, optional=[purpose for purpose in named if purpose != "item"])
    return read_events(file, named, delimiter, encoding)


def _values(column: Any) -> list[Any]:
    """The cells of a column as Python objects."""
    return column.to_pylist() if isinstance(column, pa.ChunkedArray) else list(column)


def _cell(value: Any) -> list[Any] | None:
    """The values of one cell: none if it is empty, several if it is a list; None if it is of no usable kind."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (list, tuple, np.ndarray)):
        parts = [_cell(part) for part in value]
        if any(part is None or len(part) > 1 for part in parts):
            return None
        return [part[0] for part in parts if part]
    if value is None or value == "" or (isinstance(value, float) and not math.isfinite(value)):
        return []
    if isinstance(value, bool):
        return [str(value).lower()]
    if isinstance(value, (bytes, dict, set)):
        return None
    if not isinstance(value, (str, int, float)):
        return _cell(str(value)) if str(value) != "NaT" else []
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        value = str(value)
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return None
    return [value]


def _listed(column: Any) -> list[list[Any]] | None:
    """The values of each item in a column, all of them text or all numbers; None if they are of no usable kind."""
    written = isinstance(column, pa.ChunkedArray)  # in a file of text, whose columns have no types
    cells = [_cell(value) for value in _values(column)]
    if any(cell is None for cell in cells):
        return None
    found = cast(list[list[Any]], cells)
    texts = [value for cell in found for value in cell if isinstance(value, str)]
    separator = next((mark for mark in _SEPARATORS if any(mark in text for text in texts)), None)
    if separator is not None:
        return [
            [part.strip() for value in cell for part in str(value).split(separator) if part.strip()] for cell in found
        ]
    if written and texts and all(_WHOLE.fullmatch(text) for text in texts):
        return [[int(value) for value in cell] for cell in found]
    if written and texts and all(_WHOLE.fullmatch(text) or _BROKEN.fullmatch(text) for text in texts):
        return [[float(value) for value in cell] for cell in found]
    if texts:
        return [[str(value).strip() for value in cell if str(value).strip()] for cell in found]
    # A column of whole numbers has floating-point ones in Parquet and pandas if some are missing.
    if all(float(value).is_integer() and abs(value) <= 2**53 for cell in found for value in cell):
        return [[int(value) for value in cell] for cell in found]
    return found


def _firsts(
    rows: np.ndarray,
    n_items: int,
    titles: Sequence[str] | None,
    attributes: Mapping[str, Sequence[list[Any]]],
    file: Path,
    found: EventColumns,
) -> list[int]:
    """The first row of each item; raises InputError if another row of it says something else."""
    firsts = [-1] * n_items
    for row, item in enumerate(rows.tolist()):
        first = firsts[item]
        if first < 0:
            firsts[item] = row
            continue
        differs = [name for name, cells in attributes.items() if cells[first] != cells[row]]
        if titles is not None and titles[first] != titles[row]:
            differs.insert(0, "title")
        if differs:
            name = str(_values(found.columns["item"])[row])
            raise InputError(
                f"{file}, {found.place(row)}: item {name} was described otherwise before, in {found.place(first)} "
                f"({', '.join(differs)}); keep one of the two."
            )
    return firsts


def _told(item_id: str, title: str | None, attributes: Mapping[str, Attribute], left_out: Sequence[str]) -> str:
    """What the columns are taken for, in words."""
    named = [
        name + (" (several values)" if attribute.counts.max(initial=0) > 1 else "")
        for name, attribute in attributes.items()
    ]
    parts = [f"ids = {item_id}", f"titles = {title}" if title is not None else "no titles"]
    if named:
        more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
        parts.append("attributes = " + ", ".join(named[:_MOST_NAMED]) + more)
    if left_out:
        parts.append("left out = " + ", ".join(left_out))
    return ", ".join(parts)


def _titles(places: np.ndarray, told: np.ndarray | None, before: np.ndarray | None) -> np.ndarray | None:
    """The titles of the split's items: those of the file, and where it has none those of before."""
    if told is None:
        return before
    known = ["" if before is None else str(title) for title in (places if before is None else before)]
    return text_array(
        [str(told[place]) if place >= 0 and told[place] else old for place, old in zip(places, known, strict=True)]
    )
