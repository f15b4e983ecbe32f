"""Raw events, one entry each, turned into numbered, checked and grouped arrays."""

from __future__ import annotations

import logging
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp
from pandas.api import types

from tfvae.system.errors import InputError

__all__ = [
    "Duplicates",
    "aligned",
    "grouped",
    "has_duplicates",
    "numbered",
    "ratings",
    "seconds",
    "without_duplicates",
]

Duplicates = Literal["last", "first", "sum", "error"]
_log = logging.getLogger(__name__)


def numbered(ids: Any, kind: str, source: object) -> tuple[np.ndarray, np.ndarray]:
    """Numbers ids in ascending order: whole numbers numerically, strings lexicographically.

    Args:
        ids: [n], an array, a pandas column or an Arrow column.
        kind: "user" or "item", for messages.
        source: What messages call the data.

    Returns:
        The number of each event's id, int32 [n], and the different ids, ascending.

    Raises:
        InputError: For missing ids and fractions.
    """
    if isinstance(ids, pa.ChunkedArray) and pa.types.is_dictionary(ids.type):
        encoded = ids.unify_dictionaries().combine_chunks()
        ascending = pc.sort_indices(encoded.dictionary)
        rank = np.empty(len(ascending), np.int32)
        rank[ascending.to_numpy()] = np.arange(len(ascending), dtype=np.int32)
        return rank[encoded.indices.to_numpy()], _plain(encoded.dictionary.take(ascending))
    column = pd.Series(ids.to_numpy() if isinstance(ids, pa.ChunkedArray) else ids)
    missing = column.isna().to_numpy()
    if missing.any():
        raise InputError(
            f"{source}: {missing.sum():,} missing {kind} ids, the first at event {missing.argmax() + 1:,}; "
            "drop these rows or fill them in"
        )
    codes, unique = pd.factorize(_comparable(column, kind, source), sort=True)
    return codes.astype(np.int32), _plain(unique)


def _comparable(column: pd.Series, kind: str, source: object) -> np.ndarray | pd.Series:
    """The column as numbers if it holds whole numbers, else as strings."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if types.is_integer_dtype(column.dtype):
        return column.to_numpy(getattr(column.dtype, "numpy_dtype", column.dtype))
    if types.is_float_dtype(column.dtype):
        whole = column.to_numpy(np.int64)
        if (whole != column.to_numpy(np.float64)).any():
            raise InputError(f"{source}: {kind} ids are fractions; expected whole numbers or strings")
        return whole
    if types.infer_dtype(column) == "integer":
        return column.to_numpy(np.int64)
    return column.astype("str")


def _plain(ids: Any) -> np.ndarray:
    """A NumPy array of numbers or of fixed-width strings: nothing that would need pickle."""
    ids = ids.to_numpy(zero_copy_only=False) if isinstance(ids, pa.Array) else np.asarray(ids)
    return ids.astype(np.int64 if ids.dtype.kind in "iu" else str)


def ratings(values: Any, source: object) -> np.ndarray:
    """Ratings or counts as float32 [n]; raises InputError naming the first that is no finite number."""
    given = values.to_numpy() if isinstance(values, pa.ChunkedArray) else np.asarray(values)
    numbers = np.asarray(pd.to_numeric(given, errors="coerce"), np.float32)
    bad = ~np.isfinite(numbers)
    if bad.any():
        first = int(bad.argmax())
        raise InputError(
            f"{source}: rating {str(given[first])!r} of event {first + 1:,} is not a number "
            f"({bad.sum():,} such in all); mend or drop these rows"
        )
    return numbers


def seconds(timestamps: Any, source: object) -> np.ndarray:
    """Unix seconds, int64 [n], from numbers or datetimes; raises InputError for anything else."""
    given = timestamps.to_numpy() if hasattr(timestamps, "to_numpy") else np.asarray(timestamps)
    try:
        if pd.isna(given).any():
            raise ValueError("some are missing")
        return (given.astype("datetime64[s]") if given.dtype.kind == "M" else given).astype(np.int64)
    except (TypeError, ValueError) as problem:
        raise InputError(f"{source}: timestamps must be Unix seconds or datetimes ({problem})") from None


def grouped(rows: np.ndarray, n_users: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Where each user's events begin, and the stable order that groups them (None when they are grouped)."""
    indptr = np.zeros(n_users + 1, np.int64)
    np.cumsum(np.bincount(rows, minlength=n_users), out=indptr[1:])
    if (rows[1:] >= rows[:-1]).all():
        return indptr, None
    # Transposing an event-by-user matrix is a counting sort: linear and stable.
    by_event = sp.csr_array((np.ones(len(rows), np.int8), rows, np.arange(len(rows) + 1)), shape=(len(rows), n_users))
    return indptr, by_event.tocsc().indices.astype(np.int64)


def has_duplicates(indptr: np.ndarray, items: np.ndarray, n_items: int) -> bool:
    """Whether a user meets an item twice; `items` are grouped by user."""
    ones = np.ones(len(items), np.int8)
    matrix = sp.csr_array((ones, items.copy(), indptr), shape=(len(indptr) - 1, n_items))
    matrix.sort_indices()
    return not matrix.has_canonical_format


def without_duplicates(
    pairs: np.ndarray, values: np.ndarray, policy: Duplicates, source: object
) -> tuple[np.ndarray, np.ndarray]:
    """Applies the policy for repeated user-item pairs.

    Args:
        pairs: int64 [n], one number for each user-item pair.
        values: float32 [n].
        policy: What to do with repeated ones; see `Interactions.from_events`.
        source: What messages call the data.

    Returns:
        Which events stay, bool [n], and the values of those.

    Raises:
        InputError: Under the policy "error".
    """
    repeated = pd.Series(pairs).duplicated(keep="last" if policy == "last" else "first").to_numpy()
    found = f"{source}: {repeated.sum():,} repeated user-item pairs among {len(pairs):,} events"
    if policy == "error":
        raise InputError(f'{found}; duplicates="last", "first" or "sum" would say what to do with them')
    _log.warning("%s; %s", found, "their values were summed" if policy == "sum" else f"the {policy} was kept")
    if policy == "sum":
        groups, _ = pd.factorize(pairs)
        return ~repeated, np.bincount(groups, weights=values).astype(np.float32)
    return ~repeated, values[~repeated]


def aligned(table: pd.DataFrame | None, ids: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of a table indexed by id, in the order of `ids`; unknown text is empty, numbers NaN."""
    if table is None:
        return {}
    table = table[~table.index.duplicated()].reindex(ids)
    return {
        str(name): column.to_numpy()
        if types.is_numeric_dtype(column)
        else np.asarray(column.fillna("").tolist(), dtype=str)
        for name, column in table.items()
    }
