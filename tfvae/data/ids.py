"""Ids of users and items: one rule for CSV, Parquet, frames, arrays and pre-split folders.

An id stays as the user wrote it. A typed column keeps its type: whole numbers are numbers (`7.0` as well, since pandas
turns whole numbers into floating-point ones if some are missing), and text is kept character by character. A text file
has no types: the ids of a column are numbers if all of them are whole (`7` or `7.0`), and otherwise text. If a number
needs more than 64 bits with sign, all ids of its column are kept as text.

Ids that could not be told apart or written back are refused before anything is trained, with the place of the first:

- missing ids, empty text, and text that many files use for missing values (`nan`, `null`, `None`, `NA`, ...);
- text that contains a NUL, is not valid UTF-8, or has white space at its ends (" 7" would be another user than "7");
- the number −1, which pads histories;
- two spellings of one number in a column of numbers (`7` and `7.0`);
- fractions, floating-point numbers above 2^53, Boolean values, values that are neither numbers nor text, and numbers
  beside text in a typed column.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.api import types

from tfvae.system.errors import InputError
from tfvae.system.text_arrays import text_array

__all__ = ["PAD", "missing_ids", "numbered", "of_text"]

PAD = -1
"""The number that pads histories in a served model and therefore cannot be an id."""

Place = Callable[[int], str]
Refusal = Callable[[int, str], InputError]

_MISSING = frozenset(
    ["nan", "NaN", "NAN", "-nan", "null", "Null", "NULL", "None", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaT"]
)
_LARGEST_EXACT = 2**53
_MOST_BITS = 4096
_NUMBER = re.compile(r"(0|-?[1-9][0-9]{0,19})(\.0+)?")  # longer ones are text, like all beyond 64 bits


def numbered(ids: Any, kind: str, source: object, place: Place) -> tuple[np.ndarray, np.ndarray]:
    """Numbers ids in ascending order: whole numbers numerically, text lexicographically by code point.

    Args:
        ids: [n] ids, in a NumPy array, a sequence, or a pandas or Arrow column.
        kind: "user" or "item", for messages.
        source: Name of the data in messages.
        place: Function from an event's number, counted from 0, to its name in messages.

    Returns:
        The number of each event's id, int32 [n], and the distinct ids in ascending order, int64 or text.

    Raises:
        InputError: If an id is refused by the rule of this module; the message names the first.
    """
    untyped = isinstance(ids, pa.ChunkedArray) and pa.types.is_dictionary(ids.type)  # ids of a text file
    codes, different = _encoded(ids, kind, source, place)

    def refuse(which: int, why: str) -> InputError:
        first = int((codes == which).argmax())
        return InputError(f"{source}, {place(first)}: {kind} {_short(different[which])} {why}")

    values = _values(different, refuse, untyped)
    unique, ranks = np.unique(values, return_inverse=True)
    return ranks.reshape(-1).astype(np.int32)[codes], unique


def of_text(names: Sequence[str], kind: str, source: object, place: Place) -> np.ndarray:
    """Distinct ids that are given as text, in their order: int64 or text.

    Arguments and errors are as for `numbered`; an id that occurs twice is refused as well.
    """
    seen: set[str] = set()
    for number, name in enumerate(names):
        if name in seen:
            raise InputError(f"{source}, {place(number)}: {kind} {name!r} was given before.")
        seen.add(name)

    def refuse(which: int, why: str) -> InputError:
        return InputError(f"{source}, {place(which)}: {kind} {_short(names[which])} {why}")

    return _values(list(names), refuse, untyped=True)


def missing_ids(kind: str, source: object, where: str, n: int) -> InputError:
    """The error for `n` events without an id, the first of which is at `where`; see `numbered`."""
    return InputError(
        f"{source}, {where}: no {kind} id, and {n:,} are missing in all; drop these rows or fill them in."
    )


def _encoded(ids: Any, kind: str, source: object, place: Place) -> tuple[np.ndarray, list]:
    """The place of each event's id among the distinct values of the column, and these values as Python objects."""
    if isinstance(ids, pa.ChunkedArray) and pa.types.is_dictionary(ids.type):
        encoded = ids.unify_dictionaries().combine_chunks()
        if not encoded.null_count:
            return encoded.indices.to_numpy(), encoded.dictionary.to_pylist()
    column = pd.Series(ids.to_pandas() if isinstance(ids, pa.ChunkedArray) else ids)
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    missing = column.isna().to_numpy()
    if missing.any():
        raise missing_ids(kind, source, place(int(missing.argmax())), int(missing.sum()))
    if types.is_object_dtype(column.dtype) and types.infer_dtype(column) not in ("string", "integer", "bytes"):
        # 1, 1.0 and True are equal to pandas, which would silently merge them.
        spelt = pd.Series([(type(value).__name__, value) for value in column])
        try:
            codes, different = pd.factorize(spelt)
        except TypeError as problem:
            raise InputError(f"{source}: {kind} ids must be whole numbers or text ({problem}).") from None
        return codes, [value for _, value in different]
    codes, different = pd.factorize(column)
    return codes, list(different.tolist())


def _values(different: list[Any], refuse: Refusal, untyped: bool) -> np.ndarray:
    """Converts distinct ids by the rule, in their order; `refuse` makes the error for one of them."""
    ids = [value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value for value in different]
    kinds = [_kind(value) for value in ids]
    for which, kind in enumerate(kinds):
        if kind is None:
            raise refuse(which, f"is of type {type(ids[which]).__name__}; expected whole numbers or text.")
        if kind != kinds[0]:
            raise refuse(which, f"is a {kind} beside a {kinds[0]}; make all of them text or numbers.")
    if kinds[0] == "number":
        numbers = _whole(ids, refuse)
    elif untyped and all(map(_NUMBER.fullmatch, ids)):
        numbers = [int(name.partition(".")[0]) for name in ids]
    else:
        return _text(ids, refuse)
    if not all(-(2**63) <= number < 2**63 for number in numbers):
        return text_array(ids if kinds[0] == "text" else [str(number) for number in numbers])
    found = np.array(numbers, np.int64)
    if (found == PAD).any():
        raise refuse(int((found == PAD).argmax()), "is the number that pads histories; give it another.")
    _, first, counts = np.unique(found, return_index=True, return_counts=True)
    if (counts > 1).any():
        again = int(np.flatnonzero(found == found[first[counts > 1][0]])[1])
        raise refuse(again, "is another spelling of a number that is an id already; write each id in one way.")
    return found


def _short(value: Any) -> str:
    large = isinstance(value, int) and value.bit_length() > _MOST_BITS  # which Python does not print
    text = hex(value) if large else repr(value)
    return text if len(text) <= 100 else f"{text[:80]}…"


def _kind(value: Any) -> str | None:
    if isinstance(value, (bool, np.bool_)):
        return None
    return "text" if isinstance(value, str) else "number" if isinstance(value, (int, float, np.number)) else None


def _whole(values: list[Any], refuse: Refusal) -> list[int]:
    """Converts whole numbers of any type to int."""
    for which, value in enumerate(values):
        if isinstance(value, (float, np.floating)):
            if not float(value).is_integer():
                raise refuse(which, "is no whole number; expected whole numbers or text.")
            if abs(float(value)) > _LARGEST_EXACT:
                raise refuse(which, "is a floating-point number that does not hold a whole number exactly.")
        elif int(value).bit_length() > _MOST_BITS:
            raise refuse(which, f"has more than {_MOST_BITS:,} bits.")
    return [int(value) for value in values]


def _text(names: list[str], refuse: Refusal) -> np.ndarray:
    """Checks ids that are text, and makes an array of them."""
    for which, name in enumerate(names):
        if not name:
            raise refuse(which, "is empty; drop these rows or fill them in.")
        if name in _MISSING:
            raise refuse(which, "stands for a missing id in most files; drop these rows or give it another name.")
        if name != name.strip():
            raise refuse(which, "has white space at its ends; remove it.")
        if "\0" in name:
            raise refuse(which, "has a NUL in it; remove it.")
        try:
            name.encode()
        except UnicodeEncodeError:
            raise refuse(which, "is no text in UTF-8.") from None
    return text_array(names)
