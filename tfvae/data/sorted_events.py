"""Events of a file that do not fit in memory, grouped by user on the disk: DuckDB reads, joins and sorts them.

What is kept in memory has an entry for each user or each item, and is made by the same code as for data in memory
(`tfvae.data.ids` and `tfvae.data.events`), so that both give the same numbers, digests and errors.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

from tfvae.data import events, ids
from tfvae.data.csv_files import csv_to_parquet
from tfvae.data.event_files import file_kind, places_of, refuse_two_purposes
from tfvae.system.errors import InputError, TooLargeError
from tfvae.system.files import digest
from tfvae.system.flat_file import FlatFile

__all__ = ["Block", "SortedEvents", "refuse_no_duckdb", "sorted_events"]

_AT_ONCE = 1 << 20
_IDS = (types.is_integer, types.is_floating, types.is_string, types.is_large_string, types.is_string_view)
_RATINGS = (types.is_integer, types.is_floating)
_OF_DUCKDB = {"file_row_number", "filename"}  # names of columns that it adds
_log = logging.getLogger(__name__)


class Block(NamedTuple):
    """The events of some users, all of each.

    Attributes:
        users: int32 [n], the user's row, ascending.
        items: int32 [n], the item's column.
        values: float32 [n], ratings or counts.
        places: int64 [n], which event of the file each is, counted from 0; they ascend within a user.
    """

    users: np.ndarray
    items: np.ndarray
    values: np.ndarray
    places: np.ndarray


@dataclass(frozen=True, eq=False)
class SortedEvents:
    """The events of a file, as `Interactions` has them, grouped by user; arrays of events are files.

    Attributes:
        user_ids: [n_users], as in `Interactions`.
        item_ids: [n_items], likewise.
        indptr: int64 [n_users + 1], where each user's events begin.
        items: int32 [n_events], the item's column.
        values: float32 [n_events], ratings or counts.
        places: int64 [n_events], which event of the file each is, counted from 0.
        order: int64 [n_events], the same without those that were dropped as duplicates; None if the file is grouped.
    """

    user_ids: np.ndarray
    item_ids: np.ndarray
    indptr: np.ndarray
    items: FlatFile
    values: FlatFile
    places: FlatFile
    order: FlatFile | None

    @property
    def n_events(self) -> int:
        """Number of interactions."""
        return len(self.items)

    @cached_property
    def digest(self) -> str:
        """`Interactions.digest` of the same events."""
        arrays = {name: getattr(self, name) for name in ("indptr", "item_ids", "items", "user_ids", "values")}
        if self.order is not None:
            arrays["order"] = self.order
        return digest(sorted(arrays), *(arrays[name] for name in sorted(arrays)))

    def blocks(self) -> Iterator[Block]:
        """All events, those of some users at a time."""
        first, n_users = 0, len(self.user_ids)
        while first < n_users:
            start = int(self.indptr[first])
            # As many users as have that many events together, and at least one.
            last = max(first + 1, int(np.searchsorted(self.indptr, start + _AT_ONCE, side="right")) - 1)
            end = int(self.indptr[last])
            sizes = np.diff(self.indptr[first : last + 1])
            users = np.repeat(np.arange(first, last, dtype=np.int32), sizes)
            yield Block(users, *(column.part(start, end) for column in (self.items, self.values, self.places)))
            first = last


def refuse_no_duckdb() -> None:
    """Raises InputError if DuckDB is not installed."""
    if importlib.util.find_spec("duckdb") is None:
        raise InputError("--shards needs DuckDB, which is not installed: pip install 'tfvae[scale]'.")


def sorted_events(
    path: Path,
    named: Mapping[str, str],
    folder: Path,
    memory: int,
    delimiter: str | None = None,
    encoding: str | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> SortedEvents:
    """Reads a file of events and groups them by user; of a pair that comes more than once the last event is kept.

    Args:
        path: The file, CSV or Parquet.
        named: The name of the column for each purpose: "user", "item" and perhaps "rating".
        folder: An empty folder for temporary files, which the result still needs.
        memory: Bytes that may be used; the ids of users and items must fit in a part of them.
        delimiter: For CSV, as in `Interactions.from_file`.
        encoding: For CSV, likewise.
        log: Called with a line at a time.

    Returns:
        The same events and ids as `Interactions.from_file` gives.

    Raises:
        InputError: As for `Interactions.from_file`; or if the file is of another format, is compressed Parquet, or has
            columns of another type than whole numbers, floating-point numbers and text.
        TooLargeError: If the memory does not suffice.
    """
    refuse_no_duckdb()
    place: Callable[[int], str]
    match file_kind(path):
        case "json lines":
            raise InputError(f"{path}: --shards reads CSV and Parquet, found JSON lines; convert them.")
        case "csv":
            log("Reading the lines")
            table = folder / "events.parquet"
            place = csv_to_parquet(path, named, table, delimiter, encoding)
            columns, is_text = {purpose: purpose for purpose in named}, True
        case "parquet":
            table, columns, is_text = _parquet(path, named), dict(named), False

            def place(number: int) -> str:
                return f"event {number + 1:,}"

    with _duckdb(path, folder, memory) as base:
        scan = f"read_parquet({_text(str(table))}, file_row_number = true, hive_partitioning = false)"
        parts = ", ".join(f"{_name(column)} AS {purpose}" for purpose, column in columns.items())
        base.sql(f"CREATE TEMP VIEW events AS SELECT {parts}, file_row_number AS place FROM {scan}")
        log("Numbering users and items")
        user_ids, users = _numbered(base, "user", path, place, is_text)
        item_ids, items = _numbered(base, "item", path, place, is_text)
        base.register("users", users)
        base.register("items", items)
        value = ""
        if "rating" in columns:
            _refuse_no_numbers(base, path, place)
            value = "CAST(rating AS FLOAT) AS value, "
        log("Sorting the events by user")
        found = base.sql(
            f"SELECT users.code AS user, items.code AS item, {value}place FROM events JOIN users ON events.user = "
            "users.id JOIN items ON events.item = items.id ORDER BY users.code, place"
        )
        n_events = base.sql("SELECT count(*) FROM events").fetchall()[0][0]
        return _stored(found.to_arrow_reader(_AT_ONCE), n_events, user_ids, item_ids, folder, path)


def _parquet(path: Path, named: Mapping[str, str]) -> Path:
    """Checks the schema of a Parquet file."""
    refuse_two_purposes(path, named)
    with path.open("rb") as file:
        if file.read(4) != b"PAR1":
            raise InputError(f"{path}: --shards reads Parquet as it is, found a compressed file of it; unpack it.")
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as problem:
        raise InputError(f"{path}: cannot be read as Parquet ({problem}); is the file whole?") from None
    places_of(path, list(named.values()), schema.names)
    for purpose, name in named.items():
        # DuckDB does not tell names apart by case.
        if sum(other.lower() == name.lower() for other in schema.names) > 1 or name.lower() in _OF_DUCKDB:
            raise InputError(f"{path}: --shards cannot tell the column {name!r} from another; rename it.")
        kind = schema.field(name).type
        kind = kind.value_type if types.is_dictionary(kind) else kind
        if not any(is_kind(kind) for is_kind in (_RATINGS if purpose == "rating" else _IDS)):
            what = "numbers" if purpose == "rating" else "whole numbers or text"
            raise InputError(f"{path}: --shards expects {what} in the column {name!r}, found {kind}; convert it.")
    return path


@contextmanager
def _duckdb(path: Path, folder: Path, memory: int) -> Iterator[Any]:
    """A database in memory that writes what exceeds half of the memory to the folder; the rest is for the ids."""
    import duckdb

    config = {"memory_limit": f"{memory // 2}B", "temp_directory": str(folder / "duckdb")}
    try:
        with duckdb.connect(config=config) as base:
            yield base
    except duckdb.OutOfMemoryException as problem:
        raise TooLargeError(f"{path}: {memory / 1e9:.3g} GB do not suffice ({problem}); give more, --memory.") from None
    except duckdb.Error as problem:
        raise InputError(f"{path}: cannot be read or sorted ({problem}); is the file whole?") from None


def _numbered(
    base: Any, kind: str, path: Path, place: Callable[[int], str], is_text: bool
) -> tuple[np.ndarray, pa.Table]:
    """The ids of a column by `ids.numbered`, and a table of each value of the column (`id`) and its number (`code`)."""
    found = base.sql(
        f"SELECT {kind} AS id, min(place) AS first, count(*) AS n FROM events GROUP BY {kind} ORDER BY first"
    ).to_arrow_table()
    first = found["first"].to_numpy()
    if not len(first):
        raise InputError(f"{path}: no interactions; at least one is needed")
    missing = found["id"].to_pandas().isna().to_numpy()
    if missing.any():
        raise ids.missing_ids(kind, path, place(int(first[missing].min())), int(found["n"].to_numpy()[missing].sum()))
    column = found["id"].dictionary_encode() if is_text else found["id"].to_pandas()
    codes, distinct = ids.numbered(column, kind, path, lambda number: place(int(first[number])))
    return distinct, pa.table({"id": found["id"], "code": pa.array(codes)})


def _refuse_no_numbers(base: Any, path: Path, place: Callable[[int], str]) -> None:
    """Raises InputError if a rating is no finite float32."""
    n, first, rating = base.sql(
        "SELECT count(*), min(place), arg_min(struct_pack(it := rating), place).it FROM events "
        "WHERE NOT coalesce(isfinite(TRY_CAST(rating AS FLOAT)), false)"
    ).fetchall()[0]
    if n:
        raise events.no_number("nan" if rating is None else rating, path, place(first), n)


def _stored(
    batches: pa.RecordBatchReader,
    n_events: int,
    user_ids: np.ndarray,
    item_ids: np.ndarray,
    folder: Path,
    path: Path,
) -> SortedEvents:
    """Writes sorted events to files, without repeated pairs."""
    sizes = np.zeros(len(user_ids), np.int64)
    dropped = _Dropped(n_events)
    grouped, last_place, n_read = True, -1, 0
    with ExitStack() as stack:
        items, values, places = (
            stack.enter_context(FlatFile(folder / name, kind))
            for name, kind in (("items", np.int32), ("values", np.float32), ("places", np.int64))
        )
        for block in _whole_users(batches):
            n_read += len(block.users)
            pairs = block.users.astype(np.int64) * len(item_ids) + block.items
            # The last event of each pair is the first of the reversed ones.
            kept = np.sort(len(pairs) - 1 - np.unique(pairs[::-1], return_index=True)[1])
            if len(kept) < len(pairs):
                dropped.add(np.delete(block.places, kept))
                block = Block(*(column[kept] for column in block))
            grouped = grouped and bool((np.diff(block.places, prepend=last_place) > 0).all())
            last_place = block.places[-1]
            first = block.users[0]
            sizes[first : block.users[-1] + 1] += np.bincount(block.users - first)
            items.append(block.items)
            values.append(block.values)
            places.append(block.places)
    if n_read != n_events:
        raise RuntimeError(f"DuckDB gave {n_read:,} of {n_events:,} events")
    order = None
    if n_repeated := n_events - len(places):
        _log.warning("%s; the last in the data was kept", events.repeated_pairs(path, n_repeated, n_events))
    if not grouped:
        order = dropped.left_out(places, folder / "order") if n_repeated else places
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    return SortedEvents(user_ids, item_ids, indptr, items, values, places, order)


def _whole_users(batches: pa.RecordBatchReader) -> Iterator[Block]:
    """The events of the batches, cut between users instead of within one."""
    rest: list[np.ndarray] = []
    for batch in batches:
        columns = {name: batch.column(name).to_numpy() for name in batch.schema.names}
        ones = columns.get("value", np.ones(batch.num_rows, np.float32))
        new = [columns["user"], columns["item"], ones, columns["place"]]
        block = [np.concatenate(pair) for pair in zip(rest, new, strict=True)] if rest else new
        users = block[0]
        if (np.diff(users) < 0).any():
            raise RuntimeError("DuckDB gave events out of order")  # all that follows would be silently wrong
        end = int(np.searchsorted(users, users[-1])) if len(users) else 0
        if end:
            yield Block(*(column[:end] for column in block))
        rest = [column[end:] for column in block]
    if rest and len(rest[0]):
        yield Block(*rest)


class _Dropped:
    """Which events of a file were dropped as duplicates, a bit for each."""

    def __init__(self, n_events: int):
        self._bits = np.zeros(-(-n_events // 64), np.uint64)

    def add(self, places: np.ndarray) -> None:
        """Drops events."""
        np.bitwise_or.at(self._bits, places >> 6, _bit(places))

    def left_out(self, places: FlatFile, path: Path) -> FlatFile:
        """The places of the other events as they are counted without the dropped ones, in a file."""
        before = np.concatenate([[0], np.cumsum(np.bitwise_count(self._bits), dtype=np.int64)])  # each word of bits
        with FlatFile(path, np.int64) as order:
            for block in places.blocks():
                word = block >> 6
                within = np.bitwise_count(self._bits[word] & (_bit(block) - np.uint64(1)))
                order.append(block - before[word] - within)
        return order


def _bit(places: np.ndarray) -> np.ndarray:
    return np.uint64(1) << (places & 63).astype(np.uint64)


def _name(column: str) -> str:
    quoted = column.replace('"', '""')
    return f'"{quoted}"'


def _text(text: str) -> str:
    quoted = text.replace("'", "''")
    return f"'{quoted}'"
