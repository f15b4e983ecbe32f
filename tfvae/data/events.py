"""Turns raw events, one entry each, into checked and grouped arrays."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import scipy.sparse as sp
from pandas.api import types

from tfvae.system.errors import InputError
from tfvae.system.text_arrays import text_array

__all__ = [
    "Duplicates",
    "aligned",
    "grouped",
    "has_duplicates",
    "no_number",
    "ratings",
    "repeated_pairs",
    "without_duplicates",
]

Duplicates = Literal["last", "first", "sum", "error"]
_log = logging.getLogger(__name__)


def ratings(values: Any, source: object, place: Callable[[int], str]) -> np.ndarray:
    """Ratings or counts as float32 [n].

    Args:
        values: [n] numbers, in an array or a pandas or Arrow column.
        source: Name of the data in messages.
        place: Function from an event's number, counted from 0, to its name in messages.

    Raises:
        InputError: If one is not a finite number; the message names the first.
    """
    given = values.to_numpy() if isinstance(values, pa.ChunkedArray) else np.asarray(values)
    numbers = np.asarray(pd.to_numeric(given, errors="coerce"), np.float32)
    bad = ~np.isfinite(numbers)
    if bad.any():
        first = int(bad.argmax())
        raise no_number(given[first], source, place(first), int(bad.sum()))
    return numbers


def no_number(rating: Any, source: object, where: str, n: int) -> InputError:
    """The error for `n` ratings that are no finite numbers, the first of which is at `where`."""
    return InputError(
        f"{source}, {where}: rating {str(rating)!r} is no finite number ({n:,} such in all); mend or drop these rows"
    )


def grouped(rows: np.ndarray, n_users: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Groups events by user, in a stable order.

    Args:
        rows: int32 [n], the user's row of each event.
        n_users: Number of users.

    Returns:
        Where each user's events begin, int64 [n_users + 1]; and the order that groups the events, int64 [n], or None if
        they are grouped already.
    """
    indptr = np.zeros(n_users + 1, np.int64)
    np.cumsum(np.bincount(rows, minlength=n_users), out=indptr[1:])
    if (rows[1:] >= rows[:-1]).all():
        return indptr, None
    # Transposing an event-by-user matrix is a counting sort: linear and stable.
    by_event = sp.csr_array((np.ones(len(rows), np.int8), rows, np.arange(len(rows) + 1)), shape=(len(rows), n_users))
    return indptr, by_event.tocsc().indices.astype(np.int64)


def has_duplicates(indptr: np.ndarray, items: np.ndarray, n_items: int) -> bool:
    """Whether a user has an item twice; `items` are grouped by user, whose first events are at `indptr`."""
    ones = np.ones(len(items), np.int8)
    matrix = sp.csr_array((ones, items.copy(), indptr), shape=(len(indptr) - 1, n_items))
    matrix.sort_indices()
    return not matrix.has_canonical_format


def repeated_pairs(source: object, n_repeated: int, n_events: int) -> str:
    """The beginning of what is said of user-item pairs that come more than once."""
    return f"{source}: {n_repeated:,} repeated user-item pairs among {n_events:,} events"


def without_duplicates(
    pairs: np.ndarray, values: np.ndarray, times: np.ndarray, policy: Duplicates, source: object
) -> tuple[np.ndarray, np.ndarray]:
    """Applies the policy for repeated user-item pairs, and logs what it did.

    Args:
        pairs: int64 [n], the user-item pair of each event as one number.
        values: float32 [n], the value of each event.
        times: int64 [n, m], sort keys of the events of a pair, the most significant column first; among equals, or if
            m is 0, the order of the file decides.
        policy: What to do with repeated pairs, see `Interactions.from_events`.
        source: Name of the data in messages.

    Returns:
        Which events stay, bool [n], and the values of those.

    Raises:
        InputError: Always under the policy "error".
    """
    order = np.lexsort((*times.T[::-1], pairs))  # stable: events of a pair come together, in order of time
    same_pair = pairs[order][1:] == pairs[order][:-1]
    n_repeated = int(same_pair.sum())
    found = repeated_pairs(source, n_repeated, len(pairs))
    if policy == "error":
        raise InputError(f'{found}; duplicates="last", "first" or "sum" would say what to do with them')
    if policy == "sum":
        groups, different = pd.factorize(pairs)
        kept = np.zeros(len(pairs), bool)
        kept[np.unique(groups, return_index=True)[1]] = True
        _log.warning("%s; their values were summed", found)
        return kept, np.bincount(groups, weights=values).astype(np.float32)
    kept = np.zeros(len(pairs), bool)
    kept[order] = np.append(~same_pair, True) if policy == "last" else np.append(True, ~same_pair)
    by = "in time" if times.shape[1] else "in the data"
    n_ties = int((same_pair & (times[order][1:] == times[order][:-1]).all(axis=1)).sum()) if times.shape[1] else 0
    ties = f"; {n_ties:,} of them have the same time, where the order of the data decides" if n_ties else ""
    _log.warning("%s; the %s %s was kept%s", found, policy, by, ties)
    return kept, values[kept]


def aligned(table: pd.DataFrame | None, ids: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of a table indexed by id, reordered as `ids`; missing text becomes empty, missing numbers NaN."""
    if table is None:
        return {}
    table = table[~table.index.duplicated()].reindex(ids)
    return {
        str(name): column.to_numpy()
        if types.is_numeric_dtype(column)
        else text_array([str(value) for value in column.fillna("")])
        for name, column in table.items()
    }
