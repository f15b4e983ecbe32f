"""Columns of people's own files, recognised by the names that are usual for them, and said aloud.

What the user names is never guessed. A name is compared without regard to case, spaces, hyphens and underscores. Two
columns that could both be meant are refused with their names, unless one of them has exactly the standard name.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from tfvae.data.csv_files import csv_header
from tfvae.data.event_files import file_kind, json_keys, parquet_columns
from tfvae.system.errors import InputError

__all__ = ["ITEM_ID", "OPTIONS", "TITLE", "column_names", "guessed_events", "recognised"]

STANDARD: Mapping[str, str] = MappingProxyType(
    {"user": "user", "item": "item", "rating": "rating", "timestamp": "timestamp"}
)
"""What each column of events is called if nothing else is said."""
OPTIONS: Mapping[str, str] = MappingProxyType(
    {"user": "--user-col", "item": "--item-col", "rating": "--rating-col", "timestamp": "--time-col"}
)
"""The option of the commands that names each column of events."""

_LABELS = {"timestamp": "time"}
_WITH_ID = {
    "user": "user customer visitor member account client reviewer buyer shopper reader listener viewer profile person",
    "item": "item movie film product sku asin track song article content book game video artist show recipe news",
}
_AS_THEY_ARE = {
    "user": "uid userid username customername reviewername",
    "item": "iid isbn isbn13 ean gtin upc businessid placeid venueid",
    "rating": "rating ratings stars star score value overall userrating",
    "timestamp": "timestamp time date datetime createdat ts unixreviewtime unixtime eventtime timecreated ratedat",
}
KNOWN: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        purpose: frozenset(
            [
                *_AS_THEY_ARE[purpose].split(),
                *(f"{word}{end}" for word in _WITH_ID.get(purpose, "").split() for end in ("", "id", "key", "number")),
            ]
        )
        for purpose in STANDARD
    }
)
"""The names of each purpose, in lower case and without anything but letters and digits."""
ITEM_ID = KNOWN["item"] | {"id"}
"""The names of the ids in a file of items, where `id` can only be the item's."""
TITLE = frozenset(
    "title titles name itemname itemtitle productname producttitle movietitle moviename filmtitle booktitle".split()
    + "trackname tracktitle songname songtitle articletitle headline label displayname".split()
)
"""The names of the titles in a file of items."""

_log = logging.getLogger(__name__)


def column_names(
    path: Path,
    wanted: Sequence[str] = (),
    delimiter: str | None = None,
    encoding: str | None = None,
    *,
    whole: bool = False,
) -> list[str]:
    """The names of a file's columns, in order.

    Args:
        path: A file of CSV, JSON lines or Parquet, recognised by its content.
        wanted: Names that are known to be among them, by which the delimiter is found.
        delimiter: For CSV, the character between fields; by default it is found from the first line.
        encoding: For CSV, the encoding; by default it is found from the bytes.
        whole: For JSON lines, whether the keys of all lines count, not those of the first alone.

    Raises:
        InputError: If the file is missing, empty or malformed.
    """
    match file_kind(path):
        case "csv":
            return csv_header(path, wanted, delimiter, encoding)
        case "json lines":
            return json_keys(path, whole=whole)
        case "parquet":
            return parquet_columns(path)


def recognised(
    source: object, names: Sequence[str], known: Collection[str], standard: str, what: str, option: str
) -> str | None:
    """The column that is called by one of the usual names.

    Args:
        source: Name of the data in messages.
        names: The names of the columns that may be meant.
        known: The usual names, in lower case and without anything but letters and digits.
        standard: The name that settles the matter if a column has it exactly.
        what: What the column holds, for messages.
        option: The option that would name it, likewise.

    Returns:
        The name of the column; None if no column is called so.

    Raises:
        InputError: If several columns are, and none of them is called exactly by the standard name.
    """
    if standard in names:
        return standard
    found = [name for name in names if re.sub(r"[\W_]+", "", str(name)).casefold() in known]
    if len(found) > 1:
        raise InputError(
            f"{source}: {' and '.join(map(repr, found))} could all be the column of {what}; say which one is "
            f"({option}); found: {', '.join(map(repr, names))}"
        )
    return found[0] if found else None


def guessed_events(
    path: Path,
    named: Mapping[str, str],
    wanted: Collection[str],
    delimiter: str | None = None,
    encoding: str | None = None,
) -> dict[str, str]:
    """The columns of a file of events: those that are named, and the others by their usual names.

    What is guessed is said in one line, unless the columns are simply called `user` and `item`.

    Args:
        path: The file.
        named: The names that were given, by purpose: "user", "item", "rating" and "timestamp".
        wanted: The purposes that need a column; of the others none is looked for.
        delimiter: For CSV, see `column_names`.
        encoding: For CSV, likewise.

    Returns:
        The names by purpose. A purpose is missing if no column is called so; then whoever reads the file says what is
        expected.

    Raises:
        InputError: If two columns may be meant, or as for `column_names`.
    """
    missing = [purpose for purpose in STANDARD if purpose in wanted and purpose not in named]
    if not missing:
        return dict(named)
    left = [
        name for name in column_names(path, list(named.values()), delimiter, encoding) if name not in named.values()
    ]
    found = dict(named)
    for purpose in missing:
        label = {"user": "user ids", "item": "item ids", "rating": "ratings", "timestamp": "times"}[purpose]
        name = recognised(path, left, KNOWN[purpose], STANDARD[purpose], label, OPTIONS[purpose])
        if name is not None:
            found[purpose] = name
    guesses = {purpose: name for purpose, name in found.items() if purpose not in named}
    if any(name != STANDARD[purpose] or purpose not in ("user", "item") for purpose, name in guesses.items()):
        told = ", ".join(
            f"{_LABELS.get(purpose, purpose)} = {found[purpose]}" for purpose in STANDARD if purpose in found
        )
        options = ", ".join(OPTIONS[purpose] for purpose in guesses)
        _log.warning("%s: columns: %s; name them by %s if that is wrong", path.name, told, options)
    return found
