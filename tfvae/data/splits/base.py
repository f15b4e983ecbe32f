"""The one face of all splits and of their parts; a split is one `.npz` file without pickle."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, Self, TypeVar

import numpy as np
from pydantic import FiniteFloat
from scipy.sparse import csr_array

from tfvae.data.stored_arrays import refuse_no_features, refuse_no_ids, refuse_no_titles
from tfvae.system.errors import InputError
from tfvae.system.files import digest, reading, write_npz
from tfvae.system.validation import Strict, checked

__all__ = ["HeldOut", "Split", "binary_rows", "pack", "read_split", "restore", "unpack"]

FILE_NAME = "split.npz"


class HeldOut(Protocol):
    """The face of a part that a model is asked about: what it is told, and what is held out of that."""

    @property
    def history(self) -> csr_array:
        """CSR [n, n_items], what the model is told."""

    @property
    def targets(self) -> csr_array:
        """CSR [n, n_items], what it is asked; nowhere where `history` has an entry."""

    @property
    def user_ids(self) -> np.ndarray:
        """[n] ids of the rows."""


class Split(ABC):
    """The face of a split, whatever its protocol; it can be saved.

    Attributes:
        protocol: Name of the protocol, written into the file.
        train: CSR [n_rows, n_items], what a model learns from.
        user_ids: [n_rows] ids of its rows.
        item_ids: [n_items] ids of its columns.
        titles: [n_items] titles of the items, or None.
        settings: How it was cut.
        counts: Counts of what was kept and dropped, as plain numbers.
        digest: SHA-256 over the input and the settings.
        validation: What settings and epochs are chosen by; None where the protocol cuts it only for a search.
        test: What is reported; None in a split that a search is given.
        user_features: What is known of the rows, named arrays [n_rows].
        item_features: What is known of the columns, named arrays [n_items].
    """

    protocol: ClassVar[str]
    train: csr_array
    user_ids: np.ndarray
    item_ids: np.ndarray
    titles: np.ndarray | None
    settings: Strict | None
    counts: dict[str, int | float]
    digest: str
    validation: HeldOut | None
    test: HeldOut | None
    user_features: Mapping[str, np.ndarray] = MappingProxyType({})
    item_features: Mapping[str, np.ndarray] = MappingProxyType({})

    @property
    def n_items(self) -> int:
        """Number of columns."""
        return len(self.item_ids)

    @property
    def scale(self) -> tuple[float, float] | None:
        """The lowest and the highest rating; None where nothing is rated."""
        return None

    @property
    def test_part(self) -> HeldOut:
        """The part to report.

        Raises:
            InputError: In a split that a search is given.
        """
        if self.test is None:
            raise InputError("this split has nothing for test; expected a whole split, not its part for tuning.")
        return self.test

    @property
    def validation_part(self) -> HeldOut:
        """The part to choose by.

        Raises:
            InputError: Where it is cut only for a search, by `for_tuning`.
        """
        if self.validation is None:
            raise InputError("this split has nothing for validation; `for_tuning` cuts that from its training part.")
        return self.validation

    @property
    def tuning_digest(self) -> str:
        """Digest of what `for_tuning` gives."""
        return self.digest

    @abstractmethod
    def for_tuning(self) -> Self:
        """What a search is given: a split with a validation part and nothing for test."""

    def by_items(self) -> Self:
        """The same split with items as rows.

        Raises:
            InputError: Where not ratings are held out.
        """
        raise InputError(f"only ratings can be learnt item by item; this is a split of kind {self.protocol!r}.")

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """Everything but settings, counts and digest, as named arrays without objects."""

    @classmethod
    @abstractmethod
    def restored(cls, arrays: dict[str, np.ndarray], note: dict[str, Any]) -> Self:
        """The split that was taken apart into `arrays` and `note`."""

    def save(self, path: str | os.PathLike) -> Path:
        """Writes the split in one step.

        Args:
            path: An `.npz` file; any other path is taken as a folder, which gets a `split.npz`. A split that lies there
                is replaced.

        Returns:
            The file that was written.

        Raises:
            InputError: If something else than a split lies there.
        """
        _refuse_foreign(_file(path))
        settings = None if self.settings is None else self.settings.model_dump()
        arrays = self.arrays()
        note = {"kind": self.protocol, "settings": settings, "report": self.counts, "digest": self.digest}
        note["content"] = _content(arrays)
        write_npz(_file(path), {"note": np.array(json.dumps(note)), **arrays}, compressed=False)
        return _file(path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Self:
        """Loads a split of this kind.

        Raises:
            InputError: If there is no such file, it is not a split, or it is one of another kind.
        """
        arrays, note = read_split(path)
        if note["kind"] != cls.protocol:
            raise InputError(f"{_file(path)}: expected a split of kind {cls.protocol!r}, found {note['kind']!r}.")
        return restore(cls, path, arrays, note)


def read_split(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the note (kind, settings, counts, digest) of a saved split.

    Raises:
        InputError: If there is no such file, it is not a split, or its arrays are not those that were saved.
    """
    file = _file(path)
    with reading(file, "a split saved by `split.save(path)`"):
        with np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
        note = checked(_Note, json.loads(str(arrays.pop("note"))), file)
        if note.content not in (None, _content(arrays)):
            raise InputError(f"{file}: the arrays are not those that were saved; cut and save the split anew.")
        return arrays, note.model_dump()


SomeSplit = TypeVar("SomeSplit", bound=Split)


def restore(
    kind: type[SomeSplit], path: str | os.PathLike, arrays: dict[str, np.ndarray], note: dict[str, Any]
) -> SomeSplit:
    """The split that a file holds, checked whole.

    Args:
        kind: The class of the split.
        path: The file, for messages.
        arrays: See `read_split`.
        note: Likewise.

    Raises:
        InputError: If anything in the file does not belong to the rest.
    """
    file = _file(path)
    with reading(file, f"a split of kind {kind.protocol!r}"):
        split = kind.restored(arrays, note)
        parts = [part for part in (split.validation, split.test) if part is not None]
        refuse_no_ids(split.item_ids, "item ids")
        for ids in (split.user_ids, *(part.user_ids for part in parts)):
            refuse_no_ids(ids, "user ids")
        if split.train.shape != (len(split.user_ids), len(split.item_ids)):
            raise InputError(
                f"{file}: expected training rows of shape {[len(split.user_ids), len(split.item_ids)]}, as there are "
                f"ids, found {list(split.train.shape)}."
            )
        refuse_no_titles(split.titles, split.n_items)
        refuse_no_features(split.user_features, len(split.user_ids), "users")
        refuse_no_features(split.item_features, split.n_items, "items")
        for part in parts:
            shapes = {part.history.shape, part.targets.shape, (len(part.user_ids), split.n_items)}
            if len(shapes) > 1:
                raise InputError(f"{file}: expected history, targets and ids of one size, found {sorted(shapes)}.")
        return split


class _Note(Strict):
    """What a saved split says of itself beside its arrays."""

    kind: str
    settings: dict[str, Any] | None
    report: dict[str, FiniteFloat | int]
    digest: str
    content: str | None = None  # SHA-256 of the arrays; files of former versions have none


def _content(arrays: dict[str, np.ndarray]) -> str:
    return digest(sorted(arrays), *(arrays[name] for name in sorted(arrays)))


def _refuse_foreign(file: Path) -> None:
    """Refuses to replace a file that is no saved split."""
    if not file.exists():
        return
    try:
        with np.load(file, allow_pickle=False) as stored:
            checked(_Note, json.loads(str(stored["note"])), file)
    except Exception:  # whatever it is, it is not ours to replace
        raise InputError(f"{file} exists and is no saved split; give another name, or remove it.") from None


def binary_rows(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> tuple[csr_array, np.ndarray]:
    """The events as a matrix of ones, and where each of its entries came from.

    Args:
        rows: `[n_events]` row of each event.
        columns: `[n_events]` column of each event; no pair of row and column comes twice.
        shape: Number of rows and columns.

    Returns:
        The matrix (float32, sorted int32 indices), and for each of its entries the place of its event
        in the arguments (int32 `[n_events]`).
    """
    rows, columns = (numbers.astype(np.int32, copy=False) for numbers in (rows, columns))
    places = csr_array((np.arange(rows.size, dtype=np.int32), (rows, columns)), shape=shape)
    if places.nnz != rows.size:
        raise ValueError(f"{rows.size - places.nnz} events come twice")
    ones = np.ones(rows.size, dtype=np.float32)
    return csr_array((ones, places.indices, places.indptr), shape=shape), places.data


def pack(name: str, matrix: csr_array, *, binary: bool = True) -> dict[str, np.ndarray]:
    """A matrix as named arrays; the values of a binary one go without saying."""
    parts = {"indptr": matrix.indptr, "indices": matrix.indices, "shape": np.array(matrix.shape)}
    if not binary:
        parts["values"] = matrix.data
    return {f"{name}.{part}": array for part, array in parts.items()}


def unpack(name: str, arrays: dict[str, np.ndarray], *, binary: bool = True) -> csr_array:
    """The matrix that :func:`pack` took apart.

    Raises:
        InputError: If the arrays are no matrix with sorted, different columns in each row and finite values.
    """
    indptr, indices, shape = (arrays[f"{name}.{part}"] for part in ("indptr", "indices", "shape"))
    values = np.ones(indices.size, dtype=np.float32) if binary else arrays[f"{name}.values"]
    _refuse_no_matrix(name, indptr, indices, shape, values)
    matrix = csr_array((values, indices, indptr), shape=tuple(shape.tolist()))
    if not matrix.has_canonical_format:
        raise InputError(f"the columns of a row of {name!r} are not in ascending order, or one comes twice.")
    return matrix


def _refuse_no_matrix(
    name: str, indptr: np.ndarray, indices: np.ndarray, shape: np.ndarray, values: np.ndarray
) -> None:
    """Refuses arrays that are no CSR matrix; SciPy's compiled code would read beyond them."""
    whole = all(array.ndim == 1 and array.dtype.kind in "iu" for array in (indptr, indices, shape))
    if not whole or shape.shape != (2,) or values.ndim != 1 or values.dtype != np.float32:
        raise InputError(f"the arrays of {name!r} have the wrong type or number of axes.")
    rows, columns = shape.tolist()
    if (
        not 0 <= min(rows, columns) <= max(rows, columns) < 2**31
        or indptr.size != rows + 1
        or indptr[0] != 0
        or (np.diff(indptr) < 0).any()
    ):
        raise InputError(f"the row starts of {name!r} do not ascend from 0, one for each of {rows} rows.")
    if not indptr[-1] == indices.size == values.size:
        raise InputError(f"{name!r} has {indices.size} columns and {values.size} values for {indptr[-1]} entries.")
    if indices.size and not 0 <= indices.min() <= indices.max() < columns:
        raise InputError(f"a column of {name!r} is outside the range 0 to {columns - 1}.")
    if not np.isfinite(values).all():
        raise InputError(f"a value of {name!r} is not a finite number.")


def _file(path: str | os.PathLike) -> Path:
    path = Path(path)
    return path if path.suffix == ".npz" else path / FILE_NAME
