"""What columns look like by the first rows of a file, for those that their names do not tell.

A wrong guess is worse than a question. A column is only taken for something if no other column could be meant, and if
it behaves so within the log: a time of an event, or a rating, differs between the events of one user and between
those of one item, as neither a birthday nor a release date does. Which of two columns has the users and which the items
cannot be told from the values, unless these are addresses of people or numbers that shops and film archives give.
"""

from __future__ import annotations

import datetime
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tfvae.data.csv_files import csv_start
from tfvae.data.event_files import file_kind, json_start, parquet_start
from tfvae.data.times import times
from tfvae.system.errors import InputError

__all__ = ["Column", "Guess", "first_columns", "guessed_by_contents", "listing", "several_times"]

_N_ROWS = 10_000
_FEWEST_ROWS = 20  # fewer may be on a scale by chance
_FEWEST_IDS = 20  # fewer users or items are rather kinds of something
_FEWEST_LEVELS = 4  # fewer are rather answers, such as yes and no
_MOST_WAYS = 4  # of naming what is missing; more do not help to choose
_VARIES = 0.25  # the least share of users, or items, with several events whose values differ
_YEARS = [datetime.datetime(year, 1, 1, tzinfo=datetime.UTC).timestamp() for year in (1990, 2100)]
_DATES, _SECONDS, _MILLISECONDS = "dates", "Unix seconds", "Unix milliseconds"
_TIMES = frozenset((_DATES, _SECONDS, _MILLISECONDS))
_RATINGS = "numbers on the scale of ratings"
_WHOLE, _TEXT = "whole numbers", "text"
_PATTERNS: Mapping[str, re.Pattern] = {
    "e-mail addresses": re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+"),
    "film numbers of IMDb": re.compile(r"tt[0-9]{7,8}"),
    "product numbers of Amazon": re.compile(r"B0[0-9A-Z]{8}"),
}
_OF_ONE_PURPOSE = {
    "user": frozenset(["e-mail addresses"]),
    "item": frozenset(["film numbers of IMDb", "product numbers of Amazon"]),
}
_IDS = frozenset([_WHOLE, _TEXT]).union(*_OF_ONE_PURPOSE.values())
_OTHER_DATE = re.compile(r"[0-9]{1,4}([/.-])[0-9]{1,2}\1[0-9]{1,4}([ T,].*)?")
_NUMBER = re.compile(r"[+-]?[0-9]+([.,][0-9]+)?")
_DAY = re.compile(r"(199|20[0-9])[0-9](0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])")
_YEAR = re.compile(r"(19|20)[0-9]{2}")
_OTHERWISE = frozenset(
    "quantity qty count amount number total sum price cost revenue discount duration minute hour day weekday month week"
    " year age gender sex country city region state language device browser platform channel source category categories"
    " genre genres type kind event action status label title name description comment text brand color size".split()
)


@dataclass(frozen=True, eq=False)
class Column:
    """The first values of a column.

    Attributes:
        name: Its name; of a CSV file without names, its first value.
        cells: [n] the values as text, empty where there is none.
        looks: What all of them look like, in words.
    """

    name: str
    cells: pd.Series
    looks: str

    @property
    def n_different(self) -> int:
        """Number of different values."""
        return int(self.cells.nunique())


class Guess(NamedTuple):
    """A column that is taken for something.

    Attributes:
        name: Its name.
        why: The reason, in words.
    """

    name: str
    why: str


def first_columns(path: Path, delimiter: str | None, encoding: str | None, wanted: Sequence[str] = ()) -> list[Column]:
    """The columns of a file of events, by its first rows.

    Args:
        path: A file of CSV, JSON lines or Parquet, recognised by its content.
        delimiter: For CSV, the character between fields, or None.
        encoding: For CSV, the encoding, or None.
        wanted: Names that are known to be among the columns.

    Raises:
        InputError: If the file is missing, empty or malformed; or if the first line of a CSV file has none of the
            wanted names, and looks like the lines after it.
    """
    match file_kind(path):
        case "csv":
            start = csv_start(path, _N_ROWS, wanted, delimiter, encoding)
            values: list[Any] = list(zip(*start.rows, strict=True)) or [() for _ in start.header]
            columns = [_column(name, cells) for name, cells in zip(start.header, values, strict=True)]
            if not set(wanted) & set(start.header):
                _refuse_no_header(path, columns, start.delimiter)
            return columns
        case "json lines":
            events = json_start(path, _N_ROWS)
            names = dict.fromkeys(name for event in events for name in event)
            return [_column(name, [event.get(name) for event in events]) for name in names]
        case "parquet":
            return [_column(name, cells) for name, cells in parquet_start(path, _N_ROWS).items()]


def guessed_by_contents(
    columns: Sequence[Column], found: Mapping[str, str], missing: Collection[str]
) -> dict[str, Guess]:
    """The columns of purposes that names do not tell, where their contents leave no doubt.

    Args:
        columns: The columns that may be meant, and those that are known.
        found: The names of the columns that are known, by purpose.
        missing: The purposes that still need a column: "user", "item", "rating" and "timestamp".

    Returns:
        What is guessed, by purpose. Ratings and times are only looked for where users and items are known.
    """
    known = _known(columns, found)
    guesses: dict[str, Guess] = {}

    def take(purpose: str, candidates: Sequence[Column], why: str) -> None:
        if len(candidates) == 1:
            (known[purpose],) = candidates
            guesses[purpose] = Guess(candidates[0].name, why.format(candidates[0].looks))

    ids = [purpose for purpose in ("user", "item") if purpose in missing]
    for purpose in ids:
        certain = [one for one in _possible(columns, known, purpose) if one.looks in _OF_ONE_PURPOSE[purpose]]
        take(purpose, [one for one in certain if one.n_different < len(one.cells)], "it alone has {}")
    for purpose in ids:
        other = known.get("item" if purpose == "user" else "user")
        if purpose not in guesses and other is not None:
            candidates = [one for one in _possible(columns, known, purpose) if one.n_different < len(one.cells)]
            if all(_goes_with(one, other) for one in candidates):
                take(purpose, candidates, "no other column could have such ids")
    if {"user", "item"} <= known.keys():
        for purpose in ("rating", "timestamp"):
            if purpose in missing:
                take(purpose, _of_events(columns, known, purpose), "it alone has {}")
    return guesses


def several_times(columns: Sequence[Column], found: Mapping[str, str]) -> list[str]:
    """The names of columns that have times of events, if there are several; arguments as for `guessed_by_contents`."""
    candidates = _of_events(columns, _known(columns, found), "timestamp")
    return [column.name for column in candidates] if len(candidates) > 1 else []


def listing(
    columns: Sequence[Column], eligible: Sequence[Column], found: Mapping[str, str], missing: Mapping[str, str]
) -> str:
    """What the columns look like, one a line, and the options that would name those that are missing; for an error.

    Args:
        columns: All columns of the file.
        eligible: Those of them that may be meant, and those that are known.
        found: The names of the columns that are known, by purpose.
        missing: The option that names the column, by purpose, for each that still needs one.
    """
    purposes = {name: purpose for purpose, name in found.items()}
    width = max(len(column.name) for column in columns)
    lines = []
    for column in columns:
        three = ", ".join(_short(cell) for cell in column.cells[column.cells != ""].unique()[:3])
        taken = f"; it is taken for {purposes[column.name]}" if column.name in purposes else ""
        lines.append(
            f"  {column.name:<{width}}  {three or 'no values'}: {column.looks}, {column.n_different:,} different{taken}"
        )
    possible = {purpose: _possible(eligible, _known(eligible, found), purpose) for purpose in missing}
    # A log need not have times.
    options = {purpose: option for purpose, option in missing.items() if purpose != "timestamp" or possible[purpose]}
    ways = [""]
    for purpose, option in options.items():
        columns_of_it = [one for one in possible[purpose] if purpose not in ("user", "item") or _has_many(one)]
        names = [shlex.quote(one.name) for one in columns_of_it] or ["COLUMN"]
        ways = [f"{way} {option} {name}" for way in ways for name in names if f" {name} " not in f"{way} "]
    if not 0 < len(ways) <= _MOST_WAYS:
        ways = ["".join(f" {option} COLUMN" for option in options.values())]
    n_values = len(columns[0].cells)
    shown = [f"Columns, by their first values ({n_values:,}):", *lines] if n_values else []
    return "\n".join([*shown, f"Add to the command{', or'.join(ways)}"])


def _known(columns: Sequence[Column], found: Mapping[str, str]) -> dict[str, Column]:
    """The columns that are known, by purpose."""
    return {purpose: column for column in columns for purpose, name in found.items() if column.name == name}


def _of_events(columns: Sequence[Column], known: Mapping[str, Column], purpose: str) -> list[Column]:
    """The columns that may have ratings or times, and whose values belong to an event, not to a user or an item."""
    return [
        column
        for column in _possible(columns, known, purpose)
        if _varies(column, known["user"]) and _varies(column, known["item"])
    ]


def _possible(columns: Sequence[Column], known: Mapping[str, Column], purpose: str) -> list[Column]:
    """The columns that could have a purpose by what their values look like and by what they are not called."""
    match purpose:
        case "user" | "item":
            other = "item" if purpose == "user" else "user"
            kinds = _IDS - _OF_ONE_PURPOSE[other]
        case "rating":
            kinds = frozenset([_RATINGS])
        case _:
            kinds = _TIMES
    taken = {column.name for column in known.values()}
    return [
        column
        for column in columns
        if column.name not in taken and column.looks in kinds and not _says_otherwise(column.name, purpose)
    ]


def _says_otherwise(name: str, purpose: str) -> bool:
    """Whether a name is that of neither ids nor ratings; or, where times are meant, that of ids or of a birthday."""
    words = re.sub(r"[\W_]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)).casefold().split()
    if purpose == "timestamp":
        return bool(words) and words[-1] in ("id", "number", "no", "code", "key", "phone", "birthday", "birthdate")
    return bool(_OTHERWISE & {*words})


def _has_many(column: Column) -> bool:
    """Whether a column has as many different values as there are users or items in most logs."""
    return column.n_different >= min(_FEWEST_IDS, len(column.cells) / 10)


def _varies(column: Column, within: Column) -> bool:
    """Whether the values differ between the rows that are equal in another column."""
    groups = column.cells.groupby(within.cells.to_numpy())
    several = groups.size() > 1
    return int(several.sum()) > 1 and float((groups.nunique()[several] > 1).mean()) >= _VARIES


def _goes_with(column: Column, other: Column) -> bool:
    """Whether two columns may be the users and the items of a log: each has many of the other, few of them twice."""
    pairs = pd.DataFrame({"one": column.cells, "other": other.cells}).drop_duplicates()
    return (
        column.n_different >= _FEWEST_IDS
        and _varies(column, other)
        and _varies(other, column)
        and len(pairs) >= len(column.cells) / 2
    )


def _column(name: str, values: Sequence[Any]) -> Column:
    cells = pd.Series(["" if value is None or value != value else str(value) for value in values], dtype=object)
    return Column(name, cells, _looks(cells))


def _looks(cells: pd.Series) -> str:
    """What all values of a column look like, in words."""
    given = cells[cells != ""]
    if not len(given):
        return "nothing"
    for name, pattern in _PATTERNS.items():
        if _match(pattern, given):
            return name
    numbers = _match(_NUMBER, given)
    if len(given) == len(cells) and (kind := _looks_of_times(given, numbers)):
        return kind
    if not numbers:
        return "dates that are not in ISO 8601" if _match(_OTHER_DATE, given) else _TEXT
    if _match(_DAY, given):
        return "days without hyphens"
    if _match(_YEAR, given):
        return "years"
    values = given.str.replace(",", ".").astype(np.float64)
    if len(given) == len(cells) and _are_ratings(values):
        return _RATINGS
    return _WHOLE if (values % 1 == 0).all() else "numbers with fractions"


def _match(pattern: re.Pattern, cells: pd.Series) -> bool:
    return all(pattern.fullmatch(cell) for cell in cells)


def _looks_of_times(cells: pd.Series, numbers: bool) -> str | None:
    """The kind of the times in a column that `tfvae.data.times` reads; None if they are none of our years."""
    try:
        seconds, _ = times(cells, "column", str)
    except InputError:
        return None
    first, last = _YEARS
    low, high = int(seconds.min()), int(seconds.max())
    if first <= low and high < last:
        return _SECONDS if numbers else _DATES
    if numbers and first * 1000 <= low and high < last * 1000:
        return _MILLISECONDS
    return None


def _are_ratings(values: pd.Series) -> bool:
    """Whether numbers are on a scale up to 5 or 10 in steps of a half; not so if most are the lowest, as in amounts."""
    counts = values.value_counts()
    return (
        len(values) >= _FEWEST_ROWS
        and values.min() >= 0
        and values.max() in (5, 10)
        and bool((values % 0.5 == 0).all())
        and len(counts) >= _FEWEST_LEVELS
        and counts.index[0] != values.min()
    )


def _refuse_no_header(path: Path, columns: Sequence[Column], delimiter: str) -> None:
    """Refuses a CSV file whose first line looks like the lines after it."""
    plain = (_TEXT, "nothing")
    like_data = [_looks(pd.Series([column.name], dtype=object)) not in plain for column in columns]
    again = any(column.name and (column.cells == column.name).any() for column in columns)
    differs = any(
        like != (column.looks not in plain)
        for column, like in zip(columns, like_data, strict=True)
        if len(column.cells)
    )
    if differs or not (again or any(like_data)):
        return
    names, ids = [], iter(("user", "item"))
    for number, column in enumerate(columns, 1):
        usual = "timestamp" if column.looks in _TIMES else "rating" if column.looks == _RATINGS else None
        names.append(usual or next(ids, f"column{number}"))
    raise InputError(
        f"{path}, line 1: expected the names of the columns; the first line looks like data: "
        f"{_short(delimiter.join(column.name for column in columns), 80)}\nPut a line of names before it, in the order "
        f"of the columns; if the first ids are those of users, this one:\n  {delimiter.join(names)}"
    )


def _short(text: str, most: int = 24) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
