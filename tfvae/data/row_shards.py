"""The training rows of data that do not fit in memory: Arrow files, of which only the rows asked for are read.

A shard is an uncompressed Arrow IPC file with one record batch of one column, `items` (`list<int32>`), the ascending
item columns of some thousand users. PyArrow maps it into memory and NumPy reads a row in place, wherever it is. So the
users can be met in any order, that of a run in memory included, and the operating system decides which pages stay in
memory.
"""

from __future__ import annotations

import bisect
import json
import mmap
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike
from pydantic import Field, NonNegativeInt
from scipy.sparse import csr_array

from tfvae.system.errors import InputError
from tfvae.system.files import reading, sha256_of
from tfvae.system.validation import Strict, checked

__all__ = [
    "RowShards",
    "ShardReader",
    "ShardWriter",
    "in_memory",
    "item_counts",
    "rows_of",
    "with_folder_for",
    "with_folder_of",
]

EVENTS_PER_SHARD = 1 << 24  # from which a file is full: 64 MiB
_SCHEMA = pa.schema([pa.field("items", pa.list_(pa.field("item", pa.int32(), nullable=False)), nullable=False)])
_NOTE = "train.shards"
_NONE = np.empty(0, np.int32)


class Shard(Strict):
    """One file of rows.

    Attributes:
        name: Its name in the folder.
        rows: Number of rows.
        events: Number of items of all rows.
        sha256: SHA-256 of its bytes, in hexadecimal.
    """

    name: str = Field(pattern=r"^rows-\d+\.arrow$")
    rows: NonNegativeInt
    events: NonNegativeInt
    sha256: str


class Manifest(Strict):
    """The shards of a split, as they are noted in its file.

    Attributes:
        version: Version of the layout.
        folder: The folder of the files; a relative path counts from the folder of the split's file.
        files: The files in the order of their rows.
    """

    version: Literal[1] = 1
    folder: str
    files: list[Shard]


@dataclass(frozen=True, eq=False)
class RowShards:
    """Binary training rows in files; in the place of a split's CSR matrix, of which it has the sizes.

    Attributes:
        manifest: The files, with an absolute folder or one that counts from the working folder.
        places: int32 [n_rows], the place of each row among the rows of all files.
        item_counts: int64 [n_items], the number of rows that have each item.
    """

    manifest: Manifest
    places: np.ndarray
    item_counts: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and of columns."""
        return len(self.places), len(self.item_counts)

    @property
    def nnz(self) -> int:
        """Number of items of all rows."""
        return sum(shard.events for shard in self.manifest.files)

    def open(self) -> ShardReader:
        """Opens the files for reading.

        Raises:
            InputError: If one is missing or is not the file that was written; the message names it.
        """
        return ShardReader(self)

    def arrays(self) -> dict[str, np.ndarray]:
        """What a split's file keeps of the rows, by name; the rows themselves stay where they are."""
        note = np.array(self.manifest.model_dump_json())
        return {_NOTE: note, "train.places": self.places, "train.item_counts": self.item_counts}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self | None:
        """The rows that `arrays` noted; None if a split has them in memory.

        Raises:
            InputError: If the arrays do not fit together.
        """
        if _NOTE not in arrays:
            return None
        manifest = checked(Manifest, json.loads(str(arrays[_NOTE])), "the shards")
        found = cls(manifest, arrays["train.places"], arrays["train.item_counts"])
        n_rows = sum(shard.rows for shard in manifest.files)
        if found.places.dtype != np.int32 or not np.array_equal(np.sort(found.places), np.arange(n_rows)):
            raise InputError(f"expected a place for each of {n_rows:,} rows, found others.")
        if found.item_counts.ndim != 1 or found.item_counts.dtype.kind not in "iu":
            raise InputError("expected a number of rows for each item, found others.")
        if found.item_counts.sum() != found.nnz:
            raise InputError(f"expected {found.nnz:,} events by item, found {found.item_counts.sum():,}.")
        return found


class ShardReader:
    """Reads rows of shards, in any order.

    Args:
        shards: The rows. Every file is read once to compare its digest, and is then mapped into memory.

    Raises:
        InputError: As for `RowShards.open`.
    """

    def __init__(self, shards: RowShards):
        folder = Path(shards.manifest.folder)
        self._places = shards.places
        self._begins = [0, *accumulate(shard.rows for shard in shards.manifest.files)]
        self._shards = [_Mapped(folder / shard.name, shard) for shard in shards.manifest.files]

    def rows(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows with these numbers.

        Args:
            numbers: [B] numbers of rows.

        Returns:
            Their items, one row after the other, int32 [nnz], and the number of items of each, int32 [B].
        """
        rows = [shard.items[start:end] for shard, start, end in self._ranges(numbers)]
        return np.concatenate([_NONE, *rows]), np.fromiter(map(len, rows), np.int32, len(rows))

    def fetch(self, numbers: np.ndarray) -> None:
        """Asks the operating system to read these rows from the disk, and does not wait for them."""
        for shard, start, end in self._ranges(numbers):
            shard.fetch(start, end)

    def _ranges(self, numbers: np.ndarray) -> Iterator[tuple[_Mapped, int, int]]:
        for place in self._places[numbers].tolist():
            which = bisect.bisect_right(self._begins, place) - 1
            shard, row = self._shards[which], place - self._begins[which]
            yield shard, shard.starts[row], shard.starts[row + 1]


class _Mapped:
    """One shard, mapped into memory: the beginning of each row, int32 [n + 1], and the items, int32."""

    def __init__(self, path: Path, shard: Shard):
        if not path.is_file():
            raise InputError(f"{path} is missing; it holds training rows of the split. Put it back, or prepare anew.")
        with reading(path, "a shard of training rows"):
            if sha256_of(path) != shard.sha256:
                raise InputError("it is not the file that was written; put that back, or prepare the split anew.")
            with open(path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._buffer = pa.py_buffer(self._map)
            rows = pa.ipc.open_file(self._buffer).get_batch(0).column(0)
            self.starts = rows.offsets.to_numpy(zero_copy_only=True)
            self.items = rows.values.to_numpy(zero_copy_only=True)
        if sys.platform != "win32":
            self._map.madvise(mmap.MADV_RANDOM)  # a row is smaller than what is otherwise read around it

    def fetch(self, start: int, end: int) -> None:
        """Asks for the pages of some items."""
        if sys.platform != "win32" and end > start:
            first = self.items.ctypes.data - self._buffer.address + 4 * int(start)
            aligned = first - first % mmap.PAGESIZE
            self._map.madvise(mmap.MADV_WILLNEED, aligned, first + 4 * int(end - start) - aligned)


class ShardWriter:
    """Writes rows to a folder of shards, a file as soon as there are `EVENTS_PER_SHARD`.

    Args:
        folder: The folder, which is created.
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True)
        self._folder = folder
        self._items: list[np.ndarray] = []
        self._lengths: list[np.ndarray] = []
        self._files: list[Shard] = []

    def append(self, items: np.ndarray, lengths: np.ndarray) -> None:
        """Adds rows.

        Args:
            items: int32 [nnz], their items, one row after the other, those of a row in ascending order.
            lengths: int [n], the number of items of each row.
        """
        self._items.append(items)
        self._lengths.append(lengths)
        if sum(map(len, self._items)) >= EVENTS_PER_SHARD:
            self._write()

    def finish(self) -> Manifest:
        """Writes what is left; what was written, with the folder as it was given."""
        if self._lengths:
            self._write()
        return Manifest(folder=str(self._folder), files=self._files)

    def _write(self) -> None:
        items, lengths = np.concatenate(self._items), np.concatenate(self._lengths)
        self._items, self._lengths = [], []
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        rows = pa.ListArray.from_arrays(pa.array(starts), pa.array(items.astype(np.int32)), type=_SCHEMA.field(0).type)
        path = self._folder / f"rows-{len(self._files):05}.arrow"
        with pa.ipc.new_file(path, _SCHEMA) as file:
            file.write_batch(pa.record_batch([rows], schema=_SCHEMA))
        shard = Shard(name=path.name, rows=len(lengths), events=len(items), sha256=sha256_of(path))
        self._files.append(shard)


def item_counts(train: csr_array | RowShards) -> np.ndarray:
    """How many training rows have each item, int64 [n_items]."""
    if isinstance(train, RowShards):
        return train.item_counts
    return np.bincount(train.indices, minlength=train.shape[1])


def rows_of(train: csr_array | RowShards, numbers: ArrayLike) -> csr_array:
    """Some of the training rows in memory.

    Args:
        train: The training rows of a split.
        numbers: [n] numbers of rows.

    Returns:
        CSR [n, n_items] of ones (float32, sorted indices).

    Raises:
        InputError: As for `RowShards.open`.
    """
    numbers = np.asarray(numbers, np.int64)
    if not isinstance(train, RowShards):
        return train[numbers]
    items, lengths = train.open().rows(numbers)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return csr_array((np.ones(len(items), np.float32), items, starts), shape=(len(numbers), train.shape[1]))


def in_memory(train: csr_array | RowShards, what: str) -> csr_array:
    """The matrix of a split whose training rows are in memory.

    Args:
        train: The training rows of a split.
        what: What needs them in memory, for the message.

    Raises:
        InputError: If they are in shards.
    """
    if isinstance(train, RowShards):
        raise InputError(
            f"{what} needs all training rows in memory, and those of this split are in shards, since they were "
            "prepared with --shards. If they fit in memory, prepare the data without it."
        )
    return train


def with_folder_for(arrays: dict[str, np.ndarray], file: Path) -> dict[str, np.ndarray]:
    """A split's arrays, which note the folder of shards as seen from the split's file if it is inside the same folder.

    A prepared folder can thus be moved as a whole; a run elsewhere notes the absolute path.
    """

    def seen(folder: Path) -> Path:
        folder, here = folder.resolve(), file.parent.resolve()
        return folder.relative_to(here) if folder.is_relative_to(here) else folder

    return _with_folder(arrays, seen)


def with_folder_of(arrays: dict[str, np.ndarray], file: Path) -> dict[str, np.ndarray]:
    """The arrays of a split's file, with the folder of shards as seen from the working folder."""
    return _with_folder(arrays, lambda folder: file.parent / folder)


def _with_folder(arrays: dict[str, np.ndarray], seen: Callable[[Path], Path]) -> dict[str, np.ndarray]:
    if _NOTE not in arrays:
        return arrays
    manifest = checked(Manifest, json.loads(str(arrays[_NOTE])), "the shards")
    moved = manifest.model_copy(update={"folder": str(seen(Path(manifest.folder)))})
    return arrays | {_NOTE: np.array(moved.model_dump_json())}
