"""What is known of items or users besides their ratings, as numbers a network can read."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MultiLabelBinarizer, StandardScaler

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
    """The values with mean 0 and variance 1, float64 [n, 1]; 0 where there is none, and throughout where all agree."""
    known = np.where(np.isfinite(values), values, np.nan).astype(np.float64)[:, None]
    if np.isnan(known).all():
        return np.zeros_like(known)
    # What is missing is left out of mean and variance, and is then given the mean, which is 0 by now.
    imputer = SimpleImputer(strategy="constant", fill_value=0.0)
    return make_pipeline(StandardScaler(), imputer).fit_transform(known)
