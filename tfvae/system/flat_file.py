"""One-dimensional arrays that do not fit in memory: files of raw numbers, written and read piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import DTypeLike

__all__ = ["FlatFile"]

_BLOCK = 1 << 24  # bytes read at a time


class FlatFile:
    """An array [n] in a file of its raw values, for temporary data of one process.

    Args:
        path: The file, which is made anew.
        dtype: The type of the values.
    """

    def __init__(self, path: Path, dtype: DTypeLike):
        self.path, self.dtype = path, np.dtype(dtype)
        self._size = 0
        self._file = open(path, "wb")  # noqa: SIM115, it is closed by __exit__

    def __enter__(self) -> Self:
        """Opens the array for writing, which ends with the block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Ends writing."""
        self._file.close()

    def __len__(self) -> int:
        """Number of values."""
        return self._size

    def append(self, values: np.ndarray) -> None:
        """Writes values at the end."""
        np.ascontiguousarray(values, self.dtype).tofile(self._file)
        self._size += len(values)

    def part(self, start: int, end: int) -> np.ndarray:
        """The values from `start` up to `end`."""
        return np.fromfile(self.path, self.dtype, end - start, offset=start * self.dtype.itemsize)

    def blocks(self) -> Iterator[np.ndarray]:
        """All values, some megabytes at a time."""
        step = _BLOCK // self.dtype.itemsize
        for start in range(0, self._size, step):
            yield self.part(start, min(start + step, self._size))
