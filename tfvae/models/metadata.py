"""Encodes metadata of items or users (genres, year, gender, age, occupation) as numbers for a network."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MultiLabelBinarizer, StandardScaler

__all__ = ["encode_metadata"]

MOST_CATEGORIES = 100  # a column of more distinct values, such as postcodes, identifies rather than describes
SEPARATOR = "|"
_YEAR = re.compile(r"\((\d{4})\)\s*$")


def encode_metadata(
    features: Mapping[str, np.ndarray], n: int, titles: np.ndarray | None = None
) -> tuple[np.ndarray, list[str]]:
    """One row of numbers for each of n items or users.

    Text and whole numbers become one column of 0 and 1 for each category; a text may list several categories
    ("Comedy|Drama"). Floating-point numbers, and the year at the end of a title ("Heat (1995)"), are standardised. A
    missing value (an empty text, NaN, no year) becomes 0 in all its columns; 0 is also the mean of a standardised
    column. A feature of text or whole numbers with more than 100 distinct categories is left out.

    Args:
        features: Named arrays [n].
        n: Number of rows, which is needed when there are no features.
        titles: Titles [n], or None.

    Returns:
        float32 [n, n_features], and a name for each column, such as "genres=Comedy".
    """
    blocks, names = [np.zeros((n, 0))], []
    for name, values in features.items():
        values = np.asarray(values)
        if values.dtype.kind == "f":
            blocks.append(_standardised(values))
            names.append(name)
            continue
        listed = [set(str(value).split(SEPARATOR)) - {""} for value in values]
        encoder = MultiLabelBinarizer().fit(listed)
        if len(encoder.classes_) <= MOST_CATEGORIES:
            blocks.append(encoder.transform(listed))
            names += [f"{name}={category}" for category in encoder.classes_]
    if titles is not None:
        found = [_YEAR.search(str(title)) for title in titles]
        if any(found):
            blocks.append(_standardised(np.array([float(year[1]) if year else np.nan for year in found])))
            names.append("year")
    return np.hstack(blocks).astype(np.float32), names


def _standardised(values: np.ndarray) -> np.ndarray:
    """The values scaled to mean 0 and variance 1, float64 [n, 1]; a missing value is 0, equal values are all 0."""
    known = np.where(np.isfinite(values), values, np.nan).astype(np.float64)[:, None]
    if np.isnan(known).all():
        return np.zeros_like(known)
    # Missing values are left out of mean and variance, and then get the mean, which is 0 after the scaling.
    imputer = SimpleImputer(strategy="constant", fill_value=0.0)
    return make_pipeline(StandardScaler(), imputer).fit_transform(known)
