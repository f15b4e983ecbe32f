"""What is known of items or users besides their ratings, as numbers a network can read."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

__all__ = ["encode_metadata"]

MOST_CATEGORIES = 100  # a column of more distinct values, such as postcodes, names rather than describes
SEPARATOR = "|"
_YEAR = re.compile(r"\((\d{4})\)\s*$")


def encode_metadata(
    features: Mapping[str, np.ndarray], n: int, titles: np.ndarray | None = None
) -> tuple[np.ndarray, list[str]]:
    """One row of numbers for each of n items or users.

    Text that lists values ("Comedy|Drama") has a 0 or 1 for each of them, and other text and whole numbers have one for
    each category; broken numbers, and the year that ends a title ("Heat (1995)"), are standardised. What is missing (an
    empty text, NaN, no year) is 0 throughout, which is also the mean of a standardised column. Text and whole numbers
    of more than 100 distinct values are left out.

    Args:
        features: Named arrays [n].
        n: How many rows there are, be there features or not.
        titles: Titles [n], or None.

    Returns:
        float32 [n, n_features], and a name for each column, such as "genres=Comedy".
    """
    columns: dict[str, np.ndarray] = {}
    for name, values in features.items():
        values = np.asarray(values)
        if values.dtype.kind == "f":
            columns[name] = _standardised(values)
            continue
        listed = [str(value).split(SEPARATOR) for value in values]
        categories = sorted({part for parts in listed for part in parts if part})
        if len(categories) <= MOST_CATEGORIES:
            for category in categories:
                columns[f"{name}={category}"] = np.array([category in parts for parts in listed], dtype=np.float64)
    if titles is not None:
        found = [_YEAR.search(str(title)) for title in titles]
        if any(found):
            columns["year"] = _standardised(np.array([float(year[1]) if year else np.nan for year in found]))
    if not columns:
        return np.zeros((n, 0), np.float32), []
    return np.stack(list(columns.values()), axis=1).astype(np.float32), list(columns)


def _standardised(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    spread = values[known].std() if known.any() else 0.0
    centred = np.where(known, values - (values[known].mean() if known.any() else 0.0), 0.0)
    return centred / spread if spread else np.zeros(len(values))
