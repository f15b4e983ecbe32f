"""Times of events at the resolution in which they were given: one rule for CSV, Parquet, frames and arrays.

A time is Unix seconds, whole or with a fraction (exact to the nanosecond as text; a floating-point number is exact to a
quarter of a microsecond today), or a date with or without a time of day: a datetime column, or text in ISO 8601
(`2026-11-29`, `2026-11-29T10:00:00.25+01:00`). A time without a zone is UTC, and one before 1970 is negative.
Missing and infinite times, those beyond 64 bits, and values of other kinds are refused with the place of the first.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.api import types

from tfvae.system.errors import InputError

__all__ = ["times"]

_BILLION = 1_000_000_000
_PER_SECOND = {"s": 1, "ms": 1000, "us": 1_000_000, "ns": _BILLION}
_DECIMAL = re.compile(r"^([+-]?)([0-9]{1,18})(?:\.([0-9]*))?$")
_EXPECTED = "expected Unix seconds, or dates and times such as 2026-11-29T10:00:00Z"


def times(given: Any, source: object, place: Callable[[int], str]) -> tuple[np.ndarray, np.ndarray | None]:
    """Converts times to whole seconds and the nanoseconds beyond them.

    Args:
        given: [n] times, in an array or a pandas or Arrow column.
        source: Name of the data in messages.
        place: Function from an event's number, counted from 0, to its name in messages.

    Returns:
        Unix seconds, int64 [n], rounded down; and the nanoseconds beyond them, int32 [n], or None if all are 0.

    Raises:
        InputError: If a value is missing or is not a time; the message names the first.
    """
    column = _column(given)

    def refuse(bad: Any, why: str = "is no time") -> None:
        bad = np.asarray(bad, bool)
        if bad.any():
            first = int(bad.argmax())
            raise InputError(
                f"{source}, {place(first)}: {str(column.iloc[first])!r} {why} ({bad.sum():,} such in all); {_EXPECTED}."
            )

    refuse(column.isna(), "is missing")
    if types.is_object_dtype(column.dtype) or types.is_string_dtype(column.dtype):
        if (decimals := _decimals(column)) is not None:
            return _parts(*decimals)
        column = _read(column, refuse)
    if types.is_bool_dtype(column.dtype):
        refuse(np.ones(len(column), bool))
    if types.is_integer_dtype(column.dtype):
        if types.is_unsigned_integer_dtype(column.dtype):
            refuse(column > np.iinfo(np.int64).max, "is beyond 64 bits with sign")
        return column.to_numpy(np.int64), None
    if types.is_float_dtype(column.dtype):
        numbers = column.to_numpy(np.float64)
        refuse(~np.isfinite(numbers) | (np.abs(numbers) >= 2.0**63), "is no finite number of 64 bits")
        seconds = np.floor(numbers)
        beyond = np.minimum(np.rint((numbers - seconds) * _BILLION), _BILLION - 1)
        return _parts(seconds.astype(np.int64), beyond.astype(np.int32))
    if types.is_datetime64_any_dtype(column.dtype):
        if isinstance(column.dtype, pd.DatetimeTZDtype):
            column = column.dt.tz_convert("UTC").dt.tz_localize(None)
        stamps = column.to_numpy()
        per_second = _PER_SECOND[np.datetime_data(stamps.dtype)[0]]
        seconds, beyond = np.divmod(stamps.astype(np.int64), per_second)
        return _parts(seconds, (beyond * (_BILLION // per_second)).astype(np.int32))
    refuse(np.ones(len(column), bool))
    raise AssertionError("unreachable")


def _column(given: Any) -> pd.Series:
    if isinstance(given, pa.ChunkedArray):
        given = (given.cast(pa.timestamp("s")) if pa.types.is_date(given.type) else given).to_pandas()
    column = pd.Series(given)
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    return column


def _read(column: pd.Series, refuse: Callable[..., None]) -> pd.Series:
    """Converts a column of Python objects or of text to numbers or datetimes."""
    kinds = {type(value) for value in column}
    if kinds <= {int}:
        refuse(~column.between(-(2**63), 2**63 - 1), "is beyond 64 bits with sign")
        return column.astype(np.int64)
    if all(issubclass(kind, (int, float, np.number)) and kind is not bool for kind in kinds):
        return column.astype(np.float64)
    if all(issubclass(kind, (datetime.date, np.datetime64)) for kind in kinds):
        return pd.to_datetime(column, utc=True)
    refuse([not isinstance(value, str) for value in column])
    text = column.astype("str").str.strip()
    if text.str.fullmatch(r"[+-]?[0-9]{1,19}").all():
        whole = text.map(int)
        refuse(~whole.between(-(2**63), 2**63 - 1), "is beyond 64 bits with sign")
        return whole.astype(np.int64)
    numbers = pd.to_numeric(text, errors="coerce")
    if numbers.notna().all():
        return numbers.astype(np.float64)
    dates = pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce")
    refuse(dates.isna())
    return dates


def _decimals(column: pd.Series) -> tuple[np.ndarray, np.ndarray] | None:
    """Seconds and nanoseconds of text such as `1700000000.123456789`, exactly; None for a column of anything else."""
    # The first is looked at first, since most columns of text are dates, and there may be millions.
    if not _DECIMAL.match(str(column.iloc[0]).strip()) or not all(isinstance(value, str) for value in column):
        return None
    parts = column.str.strip().str.extract(_DECIMAL)
    if parts[1].isna().any():
        return None
    negative = parts[0].eq("-").to_numpy()
    seconds = parts[1].astype(np.int64).to_numpy()
    beyond = parts[2].fillna("").str.slice(0, 9).str.pad(9, "right", "0").astype(np.int64).to_numpy()
    # Rounded down: a quarter before 1970 is the second before it, and three quarters.
    seconds, beyond = (
        np.where(negative, -seconds - (beyond > 0), seconds),
        np.where(negative, -beyond, beyond) % _BILLION,
    )
    return seconds, beyond.astype(np.int32)


def _parts(seconds: np.ndarray, beyond: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    return seconds, beyond if beyond.any() else None
