"""Columns of people's own files, recognised by the names that are usual for them, or by their contents, and said aloud.

What the user names is never guessed. A name is compared without regard to case, spaces, hyphens and underscores. Two
columns that could both be meant are refused with their names, unless one of them has exactly the standard name. Where
names do not tell, the first rows may (`tfvae.data.column_contents`); if they leave a doubt, the error shows them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from tfvae.data.column_contents import Column, first_columns, guessed_by_contents, listing, several_times
from tfvae.data.csv_files import csv_header
from tfvae.data.event_files import file_kind, json_keys, parquet_columns, places_of
from tfvae.data.text import missing_column
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

_TYPO = 0.6  # how like a standard name is that is only misspelt
_SHORT_LABELS = {"timestamp": "time"}
_LABELS = {"user": "user ids", "item": "item ids", "rating": "ratings", "timestamp": "times"}
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
    found = [name for name in names if _plain(name) in known]
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
    *,
    ratings_for: str = "ratings are needed",
) -> dict[str, str]:
    """The columns of a file of events: those that are named, and the others by their usual names or their contents.

    What is guessed by names is said in one line, unless the columns are simply called `user` and `item`. What is
    guessed by contents is said in a line each, with the reason.

    Args:
        path: The file.
        named: The names that were given, by purpose: "user", "item", "rating" and "timestamp".
        wanted: The purposes that need a column; of the others none is looked for.
        delimiter: For CSV, see `column_names`.
        encoding: For CSV, likewise.
        ratings_for: What needs ratings, for the error if there are none.

    Returns:
        The names by purpose. Only "timestamp" may be missing: of a log without times.

    Raises:
        InputError: If a column cannot be told, two may be meant, the first line of a CSV file has no names, or as for
            `column_names`. Where names do not tell, the message shows the columns and the options that name them.
    """
    missing = [purpose for purpose in STANDARD if purpose in wanted and purpose not in named]
    if not missing:
        return dict(named)
    names = column_names(path, list(named.values()), delimiter, encoding)
    left = [name for name in names if name not in named.values()]
    found = dict(named)
    for purpose in missing:
        name = recognised(path, left, KNOWN[purpose], STANDARD[purpose], _LABELS[purpose], OPTIONS[purpose])
        if name is not None:
            found[purpose] = name
    _tell_names(path, named, found)
    if missing := [purpose for purpose in missing if purpose not in found]:
        columns = first_columns(path, delimiter, encoding, list(found.values()))
        names = [column.name for column in columns]
        places_of(path, list(named.values()), names)
        guesses = guessed_by_contents(_not_usual(columns, found), found, missing)
        for purpose, (name, why) in guesses.items():
            _log.warning(
                "%s: %s = %s, since %s; name another by %s if that is wrong",
                path.name,
                _LABELS[purpose],
                name,
                why,
                OPTIONS[purpose],
            )
            found[purpose] = name
        _refuse_untold(path, columns, found, [one for one in missing if one not in found], ratings_for)
    return found


def _plain(name: str) -> str:
    """A name in lower case and without anything but letters and digits."""
    return re.sub(r"[\W_]+", "", str(name)).casefold()


def _not_usual(columns: Sequence[Column], found: Mapping[str, str]) -> list[Column]:
    """The columns that are known, and those that can be named and are not usual for another purpose."""
    usual = frozenset().union(*KNOWN.values())
    names = [column.name for column in columns]
    return [
        column
        for column in columns
        if names.count(column.name) == 1
        and column.name.strip()
        and (column.name in found.values() or _plain(column.name) not in usual)
    ]


def _tell_names(path: Path, named: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Says in one line which columns were recognised by their names."""
    guesses = {purpose: name for purpose, name in found.items() if purpose not in named}
    if any(name != STANDARD[purpose] or purpose not in ("user", "item") for purpose, name in guesses.items()):
        told = ", ".join(
            f"{_SHORT_LABELS.get(purpose, purpose)} = {found[purpose]}" for purpose in STANDARD if purpose in found
        )
        options = ", ".join(OPTIONS[purpose] for purpose in guesses)
        _log.warning("%s: columns: %s; name them by %s if that is wrong", path.name, told, options)


def _refuse_untold(
    path: Path, columns: Sequence[Column], found: Mapping[str, str], missing: Sequence[str], ratings_for: str
) -> None:
    """Refuses a file of which a column that is needed cannot be told, or in which several may be the times."""
    eligible = _not_usual(columns, found)
    ids = [STANDARD[purpose] for purpose in missing if purpose in ("user", "item")]
    problems = [str(missing_column(path, ids[0], [column.name for column in columns], _TYPO))] if ids else []
    if "rating" in missing:
        problems.append(f"{'' if ids else f'{path}: '}{ratings_for}; name their column ({OPTIONS['rating']})")
    if not problems and "timestamp" in missing and (several := several_times(eligible, found)):
        problems.append(
            f"{path}: {' and '.join(map(repr, several))} could all be the column of times; say which one is "
            f"({OPTIONS['timestamp']})"
        )
    if problems:
        options = {purpose: OPTIONS[purpose] for purpose in missing}
        raise InputError(f"{'; '.join(problems)}\n{listing(columns, eligible, found, options)}")
