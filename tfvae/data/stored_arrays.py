"""Checks of arrays that were read from a file, whatever program wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfvae.system.errors import InputError
from tfvae.system.text_arrays import TEXT_KINDS

__all__ = ["refuse_no_events", "refuse_no_features", "refuse_no_ids", "refuse_no_text", "refuse_no_titles"]


def refuse_no_ids(ids: np.ndarray, what: str, *, ascending: bool = False) -> None:
    """Refuses ids that are not a one-dimensional array of distinct whole numbers or texts.

    Args:
        ids: The ids, expected to be [n].
        what: "user ids" or "item ids", for messages.
        ascending: Whether they must ascend.

    Raises:
        InputError: If they are not such an array.
    """
    if ids.ndim != 1 or ids.dtype.kind not in "iu" + TEXT_KINDS or np.unique(ids).size != ids.size:
        raise InputError(f"expected different {what}, whole numbers or text, in one row; found {_kind(ids)}.")
    if ascending and (ids[1:] < ids[:-1]).any():
        raise InputError(f"expected {what} in ascending order.")
    refuse_no_text(ids, what)


def refuse_no_titles(titles: np.ndarray | None, n_items: int) -> None:
    """Raises InputError unless titles are None or text [n_items]."""
    if titles is None:
        return
    if titles.dtype.kind not in TEXT_KINDS or titles.shape != (n_items,):
        raise InputError(f"expected a title for each of {n_items:,} items, found {_kind(titles)}.")
    refuse_no_text(titles, "titles")


def refuse_no_features(features: Mapping[str, np.ndarray], n: int, what: str) -> None:
    """Raises InputError unless each feature is an array [n] of numbers, Boolean values or text."""
    for name, array in features.items():
        if array.shape != (n,) or array.dtype.kind not in "biuf" + TEXT_KINDS:
            raise InputError(f"expected {name!r} for each of {n:,} {what}, found {_kind(array)}.")
        refuse_no_text(array, f"features {name!r}")


def refuse_no_events(interactions: Any) -> None:
    """Refuses interactions whose arrays are malformed or do not fit together.

    Args:
        interactions: The `Interactions` that were read.

    Raises:
        InputError: If they are; the message says what is wrong first.
    """
    found = interactions
    refuse_no_ids(found.user_ids, "user ids", ascending=True)
    refuse_no_ids(found.item_ids, "item ids", ascending=True)
    n = found.items.size
    types: dict[str, Any] = {"users": np.int32, "items": np.int32, "values": np.float32}
    types |= {"timestamps": np.int64, "nanoseconds": np.int32}
    for name, kind in types.items():
        array = getattr(found, name)
        if array is not None and (array.shape, array.dtype) != ((n,), kind):
            raise InputError(f"expected {name!r} of type {np.dtype(kind)}, one for each event, found {_kind(array)}.")
    if not n:
        raise InputError("expected interactions, found none.")
    for name, size in (("users", found.n_users), ("items", found.n_items)):
        numbers = getattr(found, name)
        if not 0 <= numbers.min() <= numbers.max() < size:
            raise InputError(f"expected {name!r} from 0 to {size - 1:,}, found others.")
    if np.unique(found.users.astype(np.int64) * found.n_items + found.items).size < n:
        raise InputError("expected each user-item pair once, found one twice.")
    if not np.isfinite(found.values).all():
        raise InputError("a rating is no finite number.")
    if found.nanoseconds is not None:
        if found.timestamps is None or not 0 <= found.nanoseconds.min() <= found.nanoseconds.max() < 10**9:
            raise InputError("expected nanoseconds from 0 to 999,999,999, and the whole seconds with them.")
    refuse_no_titles(found.titles, found.n_items)
    refuse_no_features(found.user_features, found.n_users, "users")
    refuse_no_features(found.item_features, found.n_items, "items")


def refuse_no_text(array: np.ndarray, what: str) -> None:
    """Refuses text that cannot be encoded, as NumPy reads it from an array whose bytes are damaged."""
    if array.dtype.kind in TEXT_KINDS:
        try:
            "".join(array.tolist()).encode()
        except (ValueError, SystemError):  # an invalid code point, or a lone surrogate
            raise InputError(f"the {what} are not all text.") from None


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype} of shape {list(array.shape)}"
