"""Readers of the raw file formats of the named data sets, each a function from a path to columns.

Events are returned in file order. A malformed file raises an `InputError` that names the file and, if it can, the line.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tfvae.data import text
from tfvae.data.streams import AnyPath, reading, reading_text, refuse_other_bytes
from tfvae.system.errors import InputError

__all__ = [
    "RawEvents",
    "read_double_colon",
    "read_movielens_csv",
    "read_movies_csv",
    "read_movies_dat",
    "read_ncf_negatives",
    "read_netflix",
    "read_netflix_titles",
    "read_tabbed",
    "read_triplets",
    "read_u_item",
    "read_u_user",
    "read_user_lists",
    "read_users_dat",
]

_FIELDS = {"user": pa.int32(), "item": pa.int32(), "rating": pa.float32(), "timestamp": pa.int64()}
_SECONDS_PER_DAY = 86_400
_NUMBERS = b"0123456789.\r\n"
_WHOLE = re.compile(r"[0-9]{1,18}")
_USER_LIST = re.compile(rb"[0-9]{1,18}( [0-9]{1,18})* *")
_Record = tuple[Any, ...]  # a line's number, followed by its fields
_ML_100K_GENRES = (
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror "
    "Musical Mystery Romance Sci-Fi Thriller War Western"
).split()


class RawEvents(NamedTuple):
    """Events as a file has them, one entry each: the first arguments of `Interactions.from_events`."""

    users: Any
    items: Any
    values: Any
    timestamps: Any = None


def read_double_colon(path: AnyPath) -> RawEvents:
    """Reads `user::item::rating::Unix time` (MovieLens-1M and -10M, MovieTweetings)."""
    names = ["user", "after user", "item", "after item", "rating", "after rating", "timestamp"]
    # Arrow splits at one character, so each "::" gives an additional field, which the type null requires to be empty.
    table = text.read_delimited(
        path, {name: _FIELDS.get(name, pa.null()) for name in names}, names=names, delimiter=":"
    )
    refuse_other_bytes(path, _NUMBERS + b":")
    return _natural(path, RawEvents(*(table[name] for name in _FIELDS)), first=1)


def read_movielens_csv(path: AnyPath) -> RawEvents:
    """Reads `userId,movieId,rating[,timestamp]` with a header line (MovieLens-20M and later)."""
    types = dict(zip(("userId", "movieId", "rating", "timestamp"), _FIELDS.values(), strict=True))
    if len(text.header(path, ",")) <= 3:  # a fourth must be the times, or a misspelt name would lose them
        del types["timestamp"]
    table = text.read_delimited(path, types)
    refuse_other_bytes(path, _NUMBERS + b",", header=True)
    return _natural(path, RawEvents(*(table[name] for name in types)), first=2)


def read_tabbed(path: AnyPath) -> RawEvents:
    """Reads tab-separated `user, item, rating[, Unix time]` (MovieLens-100K's `u.data`, NCF's files)."""
    n_fields = 4 if len(text.header(path, "\t")) > 3 else 3
    names = list(_FIELDS)[:n_fields]
    table = text.read_delimited(path, {name: _FIELDS[name] for name in names}, names=names, delimiter="\t")
    refuse_other_bytes(path, _NUMBERS + b"\t")
    return _natural(path, RawEvents(*table.columns), first=1)


def read_triplets(path: AnyPath) -> RawEvents:
    """Reads tab-separated `user, song, play count` (the Million Song Dataset's Taste Profile)."""
    types = {"user": text.IDS, "item": text.IDS, "rating": pa.float32()}
    table = text.read_delimited(path, types, names=list(types), delimiter="\t")
    _natural(path, RawEvents(None, None, table["rating"]), first=1)
    return RawEvents(*table.columns)


def read_user_lists(path: AnyPath) -> RawEvents:
    """Reads `user item item …` between single spaces, one line for each user (NGCF's and LightGCN's data, and KGAT's).

    A user without items has a line of their number alone.

    Returns:
        The events, line by line, without values and times.

    Raises:
        InputError: If the file is missing or malformed, a number has more than 32 bits, a user has two lines, or an
            item comes twice in one; the message names the line.
    """
    with reading(path) as stream:
        content = stream.read().removeprefix(b"\xef\xbb\xbf")
    users: dict[int, int] = {}  # a user's number, and the line they are on
    lists: list[np.ndarray] = []
    for number, line in enumerate(content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"), 1):
        if not line:
            continue
        if not _USER_LIST.fullmatch(line):
            raise InputError(
                f"{path}, line {number}: expected the numbers of a user and of their items between single spaces, such "
                f"as '0 17 42', found {line[:80].decode('utf-8', 'replace')!r}; mend the line, or fetch the file anew"
            )
        numbers = np.array(line.split(), dtype=np.int64)
        user, items = int(numbers[0]), numbers[1:]
        if numbers.max() > np.iinfo(np.int32).max:
            raise InputError(f"{path}, line {number}: {numbers.max()} is too large a number; expected 32 bits")
        if user in users:
            raise InputError(
                f"{path}, line {number}: user {user} had a line before, line {users[user]}; join the two, or remove one"
            )
        found, counts = np.unique(items, return_counts=True)
        if found.size < items.size:
            raise InputError(
                f"{path}, line {number}: item {found[counts.argmax()]} comes twice for user {user}; remove one of them"
            )
        users[user] = number
        lists.append(items)
    if not sum(map(len, lists)):
        raise InputError(f"{path}: no items in it; expected lines of a user's number and their items' numbers")
    of_users = np.repeat(np.array(list(users)), [len(items) for items in lists])
    return RawEvents(of_users.astype(np.int32), np.concatenate(lists).astype(np.int32), None)


def read_netflix(paths: Sequence[AnyPath]) -> RawEvents:
    """Reads the Netflix Prize's files, in the order given.

    A line `movie:` begins the block of a movie's lines `user,rating,date`. `combined_data_1..4.txt` hold
    many such blocks, the older `mv_*.txt` hold one each.

    Args:
        paths: The files; at least one.

    Returns:
        The events, movie by movie; dates are converted to Unix seconds at midnight, UTC.

    Raises:
        InputError: If a file is missing or malformed.
    """
    types = {"user": pa.int32(), "rating": pa.float32(), "date": pa.date32()}
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("user", "rating", "date", "movie")}
    for path in paths:
        sections: list[text.Section] = []
        refuse_other_bytes(path, _NUMBERS + b",:-")
        table = text.read_delimited(path, types, names=list(types), sections=sections)
        parts["movie"].append(_movies(path, sections, table.num_rows))
        _natural(path, RawEvents(table["user"], None, table["rating"]), first=None, least=1)
        parts["user"].append(table["user"].to_numpy())
        parts["rating"].append(table["rating"].to_numpy())
        parts["date"].append(table["date"].cast(pa.int32()).to_numpy())
    users, ratings, days, movies = (np.concatenate(parts.pop(name)) for name in list(parts))
    return RawEvents(users, movies, ratings, days * np.int64(_SECONDS_PER_DAY))


def _movies(path: AnyPath, sections: Sequence[text.Section], n_rows: int) -> np.ndarray:
    """The movie of each row, int32 [n_rows], from the section lines between the rows."""
    if not sections or sections[0].line != 1:
        raise InputError(f"{path}, line 1: expected a movie's number and a colon, such as '17:'")
    lines = np.array([section.line for section in sections])
    starts = lines - 1 - np.arange(len(lines))
    for section in sections:
        if len(section.text) > 11 or int(section.text[:-1]) > np.iinfo(np.int32).max:
            raise InputError(
                f"{path}, line {section.line}: expected a movie's number of 32 bits, found {section.text[:80]!r}"
            )
    numbers = np.array([int(section.text[:-1]) for section in sections], np.int32)
    return np.repeat(numbers, np.diff(starts, append=n_rows))


def read_movies_dat(path: AnyPath, encoding: str) -> pd.DataFrame:
    """Reads `item::title::genres` into a table indexed by item; titles may contain single colons."""
    return _table(path, _records(path, "::", 3, encoding), ["title", "genres"])


def read_movies_csv(path: AnyPath) -> pd.DataFrame:
    """Reads `movieId,title,genres` with a header line, in UTF-8, into a table indexed by item."""
    names = ["movieId", "title", "genres"]
    records, last = [], 0
    with reading_text(path, "utf-8-sig") as lines:
        reader = csv.reader(lines, strict=True)
        try:
            if (found := next(reader, [])) != names:
                raise InputError(f"{path}, line 1: expected the columns {','.join(names)}, found {found}")
            last = reader.line_num
            for fields in reader:
                if fields:
                    if len(fields) != len(names):
                        raise InputError(f"{path}, line {last + 1}: 3 fields expected, {len(fields)} found")
                    records.append((last + 1, *fields))
                last = reader.line_num
        except csv.Error as problem:
            raise InputError(f"{path}, line {last + 1}: a field in double quotes is malformed ({problem})") from None
    return _table(path, records, names[1:]).rename_axis("movieId")


def read_netflix_titles(path: AnyPath) -> pd.DataFrame:
    """Reads `item,year,title` in Latin-1 into a table indexed by item; titles may contain commas, years may be NULL."""
    return _table(path, _records(path, ",", 3, "latin-1"), ["year", "title"], numeric=["year"], missing="NULL")


def read_u_item(path: AnyPath) -> pd.DataFrame:
    """Reads MovieLens-100K's `u.item` in Latin-1 into a table of titles and genres, indexed by item."""
    records = _records(path, "|", 5 + len(_ML_100K_GENRES), "latin-1")
    for number, _, *fields in records:
        if not set(fields[4:]) <= {"0", "1"}:
            raise InputError(f"{path}, line {number}: expected a 0 or 1 for each genre, found {fields[4:]}")
    table = _table(path, records, ["title", "date", "video date", "address", *_ML_100K_GENRES])
    flags = table[_ML_100K_GENRES].eq("1").to_numpy()
    genres = ["|".join(itertools.compress(_ML_100K_GENRES, row)) for row in flags]
    return table[["title"]].assign(genres=genres)


def read_users_dat(path: AnyPath) -> pd.DataFrame:
    """Reads `user::gender::age::occupation::zip code` into a table indexed by user; age and occupation are codes."""
    names = ["gender", "age", "occupation", "zip_code"]
    return _table(path, _records(path, "::", 5), names, numeric=["age", "occupation"])


def read_u_user(path: AnyPath) -> pd.DataFrame:
    """Reads MovieLens-100K's `user|age|gender|occupation|zip code` into a table indexed by user."""
    names = ["age", "gender", "occupation", "zip_code"]
    return _table(path, _records(path, "|", 5), names, numeric=["age"])


def read_ncf_negatives(path: AnyPath) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reads NCF's `test.negative`, whose lines are `(user,item)` and that user's sampled negatives.

    Returns:
        Users [n], their held-out items [n], and their negatives [n, n_negatives], all int64.

    Raises:
        InputError: If the file is missing or malformed.
    """
    n_negatives = max(len(text.header(path, "\t")) - 1, 1)
    columns = {"pair": pa.string()} | {f"negative {n + 1}": pa.int64() for n in range(n_negatives)}
    table = text.read_delimited(path, columns, names=list(columns), delimiter="\t")
    pairs = table["pair"].to_pandas().str.extract(r"^\(([0-9]{1,18}),([0-9]{1,18})\)$")
    if pairs.isna().any(axis=None):
        row = int(pairs.isna().any(axis=1).argmax())
        found = table["pair"][row].as_py()
        raise InputError(
            f"{path}, line {text.line_of(path, row + 1)}: expected a pair such as '(0,25)', found {found!r}"
        )
    refuse_other_bytes(path, _NUMBERS + b"(,)\t")
    users, items = pairs.astype(np.int64).to_numpy().T
    return users, items, np.stack([column.to_numpy() for column in table.columns[1:]], axis=1)


def _natural(path: AnyPath, events: RawEvents, first: int | None, least: int = 0) -> RawEvents:
    """Returns the events, after refusing numbers below `least` and numbers that are not finite.

    `first` is the line of the first event; None if not every line is an event.
    """
    for name, column in zip(events._fields, events, strict=True):
        if column is None:
            continue
        bad = pc.invert(pc.and_(pc.greater_equal(column, least), pc.is_finite(column)))
        if (row := pc.index(bad, True).as_py()) >= 0:
            line = "" if first is None else f", line {text.line_of(path, row + first)}"
            value = column[row].as_py()
            why = f"is below {least}" if value < least else "is too large a number"
            raise InputError(f"{path}{line}: {name.rstrip('s')} {value} {why}")
    return events


def _records(path: AnyPath, delimiter: str, n_fields: int, encoding: str = "utf-8") -> list[_Record]:
    """The lines of a small file that are not empty; the last field may contain the delimiter."""
    records = []
    with reading(path) as stream:
        for number, raw in enumerate(stream, 1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 and encoding == "utf-8" else encoding).rstrip("\r\n")
            except UnicodeDecodeError as problem:
                raise InputError(f"{path}, line {number}: expected text in {encoding} ({problem})") from None
            fields = line.split(delimiter, n_fields - 1)
            if line and len(fields) < n_fields:
                raise InputError(
                    f"{path}, line {number}: expected a number and {n_fields - 1} more fields between {delimiter!r}, "
                    f"found {line[:80]!r}"
                )
            if line:
                records.append((number, *fields))
    return records


def _table(
    path: AnyPath, records: Sequence[_Record], names: Sequence[str], numeric: Sequence[str] = (), missing: str = ""
) -> pd.DataFrame:
    """A table indexed by the first field; columns are text, or, if in `numeric`, numbers with NaN for none."""
    ids: dict[int, int] = {}
    for number, first, *_ in records:
        if not _WHOLE.fullmatch(first):
            raise InputError(f"{path}, line {number}: expected a number first, found {first[:80]!r}")
        if int(first) in ids:
            raise InputError(f"{path}, line {number}: {first} comes twice; it was on line {ids[int(first)]} before.")
        ids[int(first)] = number
    table = pd.DataFrame([record[2:] for record in records], columns=list(names), index=list(ids))
    for name in numeric:
        for number, value in zip(ids.values(), table[name], strict=True):
            if value not in ("", missing) and not _WHOLE.fullmatch(value):
                raise InputError(f"{path}, line {number}: {name} {value[:80]!r} is not a whole number")
        table[name] = pd.to_numeric(table[name], errors="coerce")
    return table
