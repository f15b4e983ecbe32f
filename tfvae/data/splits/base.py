"""The common interface of all splits and of their parts; a split is saved as one `.npz` file without pickle."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, Self, TypeVar, cast

import numpy as np
from pydantic import Field, NonNegativeFloat, NonNegativeInt
from scipy.sparse import csr_array

from tfvae.data.attributes import Attribute, attribute_arrays, read_attributes
from tfvae.data.row_shards import RowShards, with_folder_for, with_folder_of
from tfvae.data.stored_arrays import refuse_no_features, refuse_no_ids, refuse_no_titles
from tfvae.system.errors import InputError
from tfvae.system.files import digest, read_npz, reading, write_npz
from tfvae.system.validation import Strict, checked

__all__ = ["HeldOut", "Split", "binary_rows", "pack", "read_split", "restore", "unpack"]

FILE_NAME = "split.npz"


class HeldOut(Protocol):
    """The interface of a held-out part: what a model is shown, and what it is asked to predict."""

    @property
    def history(self) -> csr_array:
        """CSR [n, n_items], what the model is shown."""

    @property
    def targets(self) -> csr_array:
        """CSR [n, n_items], what it is asked to predict; no entry is also one of `history`."""

    @property
    def user_ids(self) -> np.ndarray:
        """Ids of the rows, [n]."""


class Split(ABC):
    """The interface of a split, whatever its protocol; every split can be saved.

    Attributes:
        protocol: Name of the protocol, written into the file.
        train: CSR [n_rows, n_items], what a model learns from; by strong generalisation, it may be in shards.
        user_ids: [n_rows] ids of its rows.
        item_ids: [n_items] ids of its columns.
        titles: [n_items] titles of the items, or None.
        settings: The settings it was cut with; None if they are not known.
        counts: Counts of what was kept and dropped, as plain numbers.
        digest: SHA-256 over the input and the settings.
        validation: The part that settings and epochs are chosen by; None if only `for_tuning` cuts it.
        test: The part that results are reported on; None in a split for tuning.
        user_features: Features of the rows, named arrays [n_rows].
        item_features: Features of the columns, named arrays [n_items].
        attributes: What an items file tells of the items, by name; it does not change how the data are cut.
    """

    protocol: ClassVar[str]
    train: csr_array | RowShards
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
    attributes: Mapping[str, Attribute] = MappingProxyType({})

    @property
    def n_items(self) -> int:
        """Number of columns."""
        return len(self.item_ids)

    @property
    def scale(self) -> tuple[float, float] | None:
        """The lowest and the highest rating; None if the split has no ratings."""
        return None

    @property
    def test_part(self) -> HeldOut:
        """The part to report results on.

        Raises:
            InputError: If there is none, as in a split for tuning.
        """
        if self.test is None:
            raise InputError("this split has nothing for test; expected a whole split, not its part for tuning.")
        return self.test

    @property
    def validation_part(self) -> HeldOut:
        """The part to choose settings and epochs by.

        Raises:
            InputError: If there is none, since only `for_tuning` cuts it.
        """
        if self.validation is None:
            raise InputError("this split has nothing for validation; `for_tuning` cuts that from its training part.")
        return self.validation

    @property
    def tuning_digest(self) -> str:
        """Digest of the split that `for_tuning` returns."""
        return self.digest

    @abstractmethod
    def for_tuning(self) -> Self:
        """The split that a search is given: it has a validation part and no test part."""

    def by_items(self) -> Self:
        """The same split with items as rows.

        Raises:
            InputError: If the split is not one of ratings.
        """
        raise InputError(f"only ratings can be learnt item by item; this is a split of kind {self.protocol!r}.")

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """Everything but settings, counts and digest, as named arrays of plain types."""

    @classmethod
    @abstractmethod
    def restored(cls, arrays: dict[str, np.ndarray], note: dict[str, Any]) -> Self:
        """The split rebuilt from its arrays and its note, see `read_split`."""

    def save(self, path: str | os.PathLike) -> Path:
        """Writes the split atomically.

        Args:
            path: An `.npz` file; any other path is taken as a folder, in which `split.npz` is written. A split that is
                already there is replaced.

        Returns:
            The file that was written.

        Raises:
            InputError: If there is already a file that is not a split.
        """
        _refuse_foreign(_file(path))
        settings = None if self.settings is None else self.settings.model_dump()
        arrays = with_folder_for(self.arrays(), _file(path)) | attribute_arrays(self.attributes)
        note = {"kind": self.protocol, "settings": settings, "report": self.counts, "digest": self.digest}
        note["content"] = _content(arrays)
        write_npz(_file(path), {"note": np.array(json.dumps(note)), **arrays}, compressed=False)
        return _file(path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Self:
        """Loads a split of this kind.

        Args:
            path: The `.npz` file, or a folder with a `split.npz`.

        Raises:
            InputError: If there is no such file, it is not a split, or it is one of another kind.
        """
        arrays, note = read_split(path)
        if note["kind"] != cls.protocol:
            raise InputError(f"{_file(path)}: expected a split of kind {cls.protocol!r}, found {note['kind']!r}.")
        return restore(cls, path, arrays, note)


def read_split(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads the arrays and the note of a saved split.

    Args:
        path: The `.npz` file, or a folder with a `split.npz`.

    Returns:
        The arrays by name; and the note: kind, settings, report (the counts), digest, and content (the digest of the
        arrays, or None).

    Raises:
        InputError: If there is no such file, it is not a split, or its arrays are not those that were saved.
    """
    file = _file(path)
    with reading(file, "a split saved by `split.save(path)`"):
        arrays = read_npz(file)
        # Encoded, since text of a damaged array may have letters that Python does not know.
        note = checked(_Note, json.loads(str(arrays.pop("note")).encode()), file)
        if note.content not in (None, _content(arrays)):
            raise InputError(f"{file}: the arrays are not those that were saved; cut and save the split anew.")
        return with_folder_of(arrays, file), note.model_dump()


SomeSplit = TypeVar("SomeSplit", bound=Split)


def restore(
    kind: type[SomeSplit], path: str | os.PathLike, arrays: dict[str, np.ndarray], note: dict[str, Any]
) -> SomeSplit:
    """Rebuilds the split that a file holds, and checks that its parts fit together.

    Args:
        kind: The class of the split.
        path: The file, for messages.
        arrays: The arrays, as `read_split` returns them.
        note: The note, likewise.

    Returns:
        The split.

    Raises:
        InputError: If an array or a setting is missing or malformed, or does not fit the others.
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
        if attributes := read_attributes(arrays, split.n_items):
            split = cast(Any, replace)(split, attributes=attributes)
        for part in parts:
            shapes = {part.history.shape, part.targets.shape, (len(part.user_ids), split.n_items)}
            if len(shapes) > 1:
                raise InputError(f"{file}: expected history, targets and ids of one size, found {sorted(shapes)}.")
        return split


class _Note(Strict):
    """The note that is saved with the arrays of a split."""

    kind: str
    settings: dict[str, Any] | None
    report: dict[str, NonNegativeInt | NonNegativeFloat]
    digest: str = Field(min_length=1)
    content: str | None = None  # SHA-256 of the arrays; files of earlier versions have none


def _content(arrays: dict[str, np.ndarray]) -> str:
    return digest(sorted(arrays), *(arrays[name] for name in sorted(arrays)))


def _refuse_foreign(file: Path) -> None:
    """Refuses to replace a file that is not a saved split."""
    if not file.exists():
        return
    try:
        with np.load(file, allow_pickle=False) as stored:
            checked(_Note, json.loads(str(stored["note"])), file)
    except Exception:  # whatever it is, it is not ours to replace
        raise InputError(f"{file} exists and is no saved split; give another name, or remove it.") from None


def binary_rows(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> tuple[csr_array, np.ndarray]:
    """Makes a matrix of ones from events, and says which event each entry came from.

    Args:
        rows: `[n_events]` row of each event.
        columns: `[n_events]` column of each event; no pair of row and column may occur twice.
        shape: Number of rows and columns.

    Returns:
        The matrix (float32, sorted int32 indices), and for each of its entries the place of its event
        in the arguments (int32 `[n_events]`).

    Raises:
        ValueError: If a pair of row and column occurs twice.
    """
    rows, columns = (numbers.astype(np.int32, copy=False) for numbers in (rows, columns))
    places = csr_array((np.arange(rows.size, dtype=np.int32), (rows, columns)), shape=shape)
    if places.nnz != rows.size:
        raise ValueError(f"{rows.size - places.nnz} events come twice")
    ones = np.ones(rows.size, dtype=np.float32)
    return csr_array((ones, places.indices, places.indptr), shape=shape), places.data


def pack(name: str, matrix: csr_array, *, binary: bool = True) -> dict[str, np.ndarray]:
    """A matrix as named arrays; those of a binary one leave out the values, which are all 1."""
    parts = {"indptr": matrix.indptr, "indices": matrix.indices, "shape": np.array(matrix.shape)}
    if not binary:
        parts["values"] = matrix.data
    return {f"{name}.{part}": array for part, array in parts.items()}


def unpack(name: str, arrays: dict[str, np.ndarray], *, binary: bool = True) -> csr_array:
    """The matrix that :func:`pack` took apart.

    Raises:
        KeyError: If an array is missing.
        InputError: If the arrays are not a CSR matrix with ascending columns in each row and finite float32 values.
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
    """Refuses arrays that are not a CSR matrix, since SciPy's compiled code would read beyond them."""
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
