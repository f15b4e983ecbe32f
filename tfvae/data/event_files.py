"""Files of events in the formats people use: recognising the kind, and reading Parquet and JSON lines.

A file is recognised by its content, not by its name. Errors name the file and, for text, the line, counted as editors
do. CSV has a module of its own, `tfvae.data.csv_files`.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from tfvae.data.streams import encoding_of, reading
from tfvae.data.text import missing_column
from tfvae.system.errors import InputError, TfvaeError

__all__ = [
    "EventColumns",
    "Kind",
    "file_kind",
    "json_keys",
    "json_start",
    "local_file",
    "parquet_columns",
    "parquet_start",
    "places_of",
    "read_json_lines",
    "read_parquet",
    "refuse_two_purposes",
]

Kind = Literal["csv", "json lines", "parquet"]


class EventColumns(NamedTuple):
    """The wanted columns of a file.

    Attributes:
        columns: One column for each purpose ("user", "item", "rating", "timestamp") that was named.
        place: Function from an event's number, counted from 0, to its name in messages; it may read the file again.
        types: The Arrow type of each column, by purpose; empty for a file of text, whose columns have no types.
    """

    columns: dict[str, Any]
    place: Callable[[int], str]
    types: Mapping[str, pa.DataType] = MappingProxyType({})


@contextmanager
def local_file(path: Path) -> Iterator[Path]:
    """Yields the file, or for `-` a temporary copy of standard input, since the data are read more than once."""
    if str(path) != "-":
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="tfvae-") as folder:
        copy = Path(folder) / "standard-input"
        with open(copy, "wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        try:
            yield copy
        except InputError as problem:
            raise InputError(str(problem).replace(str(copy), "standard input")) from None


def file_kind(path: Path) -> Kind:
    """The kind of a file of events, recognised by its first bytes.

    Raises:
        InputError: If the file cannot be read, is empty, or is a spreadsheet or another archive.
    """
    with reading(path) as stream:
        start = stream.read(4096)
    if not start.strip():
        raise InputError(f"{path}: the file is empty; expected events, one a line.")
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith(b"PK\x03\x04"):
        raise InputError(f"{path}: expected a text file or Parquet, found a spreadsheet or an archive in an archive.")
    text = start.decode(encoding_of(start) or "utf-8-sig", "replace")
    return "json lines" if text.lstrip("\ufeff \t\r\n").startswith("{") else "csv"


def read_parquet(path: Path, named: Mapping[str, str]) -> EventColumns:
    """Reads columns of a Parquet file; arguments, result and errors are as for `read_json_lines`."""
    refuse_two_purposes(path, named)
    with _parquet(path) as content:
        found = pq.read_schema(content).names
        places_of(path, list(named.values()), found)
        table = pq.read_table(content, columns=list(named.values()))
        columns = {purpose: table[name].to_pandas() for purpose, name in named.items()}
        types = {purpose: table[name].type for purpose, name in named.items()}
    return EventColumns(columns, lambda number: f"event {number + 1:,}", types)


def read_json_lines(path: Path, named: Mapping[str, str], optional: Collection[str] = ()) -> EventColumns:
    """Reads keys of a file with one JSON object a line, in UTF-8, UTF-16 or UTF-32.

    Args:
        path: The file, compressed or not.
        named: The name of the key for each purpose: "user", "item", "rating" and "timestamp".
        optional: The purposes whose key a line may lack; the value is None there.

    Returns:
        The columns, and a function that names the line of an event.

    Raises:
        InputError: If the file is missing or malformed, or one key is named for two purposes; the message names the
            file, and the line and value if it can.
    """
    refuse_two_purposes(path, named)
    columns: dict[str, list] = {purpose: [] for purpose in named}
    numbers = []
    for number, event in _numbered_objects(path):
        where = f"{path}, line {number}"
        for purpose, name in named.items():
            if name not in event and purpose in optional:
                columns[purpose].append(None)
                continue
            if name not in event:
                raise missing_column(where, name, list(event))
            if purpose == "rating" and (isinstance(event[name], bool) or not isinstance(event[name], (int, float))):
                raise InputError(f"{where}: {name} {event[name]!r} is not a number")
            columns[purpose].append(event[name])
        numbers.append(number)
    if not numbers:
        raise InputError(f"{path}: the file is empty; expected events, one a line.")
    return EventColumns(dict(columns), lambda number: f"line {numbers[number]}")


def json_keys(path: Path, *, whole: bool = False) -> list[str]:
    """The keys of the first object of JSON lines, or with `whole` those of all; errors as for `read_json_lines`."""
    found: dict[str, None] = {}
    for _, event in _numbered_objects(path):
        found |= dict.fromkeys(event)
        if not whole:
            break
    return list(found)


def json_start(path: Path, n_rows: int) -> list[dict[str, Any]]:
    """The first objects of JSON lines, at most `n_rows`; errors are as for `read_json_lines`."""
    return [event for _, event in islice(_numbered_objects(path), n_rows)]


def parquet_columns(path: Path) -> list[str]:
    """The names of the columns of a Parquet file; errors are as for `read_parquet`."""
    with _parquet(path) as content:
        return pq.read_schema(content).names


def parquet_start(path: Path, n_rows: int) -> dict[str, list[Any]]:
    """The first values of each column of a Parquet file, at most `n_rows`; errors are as for `read_parquet`."""
    with _parquet(path) as content, pq.ParquetFile(content) as file:
        batch = next(file.iter_batches(n_rows), None)
        return {name: [] for name in file.schema_arrow.names} if batch is None else batch.to_pydict()


def refuse_two_purposes(path: object, named: Mapping[str, str]) -> None:
    """Raises InputError if one column is named for two purposes."""
    for purpose, name in named.items():
        for other in named:
            if other != purpose and named[other] == name:
                raise InputError(
                    f"{path}: the column {name!r} is named for {purpose} and for {other}; name two columns."
                )


def places_of(path: object, wanted: Sequence[str], found: Sequence[str]) -> list[int]:
    """The places of the wanted columns among those found.

    Args:
        path: Name of the data in messages.
        wanted: Names of the wanted columns.
        found: Names of all columns, in order.

    Returns:
        The index of each wanted column, counted from 0.

    Raises:
        InputError: If a wanted column is missing, or occurs more than once.
    """
    for name in wanted:
        if name not in found:
            raise missing_column(path, name, found)
        if found.count(name) > 1:
            raise InputError(f"{path}: {found.count(name)} columns are called {name!r}; rename all but one.")
    return [found.index(name) for name in wanted]


@contextmanager
def _parquet(path: Path) -> Iterator[Path | io.BytesIO]:
    """Yields a Parquet file, or its unpacked content; whatever goes wrong in reading it is an `InputError`."""
    try:
        with reading(path) as stream, path.open("rb") as file:
            yield io.BytesIO(stream.read()) if file.read(4) != b"PAR1" else path
    except TfvaeError:
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError) as problem:
        raise InputError(f"{path}: cannot be read as Parquet ({problem}); is the file whole?") from None


def _numbered_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of JSON lines, with the numbers of their lines, counted from 1."""
    for number, line in _numbered_lines(path):
        where = f"{path}, line {number}"
        try:
            event = json.loads(line, object_pairs_hook=_without_repeated_keys, parse_constant=_not_in_json)
        except (ValueError, RecursionError) as problem:
            raise InputError(f"{where}: expected a JSON object ({problem}); found {line[:80]!r}") from None
        if not isinstance(event, dict):
            raise InputError(f"{where}: expected a JSON object, found {line[:80]!r}")
        yield number, event


def _numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers, counted from 1."""
    with reading(path) as stream:
        start = stream.read(4096)
    with reading(path) as stream:
        lines = io.TextIOWrapper(stream, encoding=encoding_of(start) or "utf-8-sig", newline="\n")
        for number, line in enumerate(lines, 1):
            if line := line.strip():
                yield number, line


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a key comes twice")
    return found


def _not_in_json(constant: str) -> float:
    raise ValueError(f"{constant} is not a number of JSON")
