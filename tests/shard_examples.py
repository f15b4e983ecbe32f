"""A log with what makes splits differ: repeated pairs, low ratings, rare items, and users of very different sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tfvae.data.row_shards import RowShards, rows_of

__all__ = ["assert_same_split", "log_of", "write_log"]


def log_of(n_events: int = 6000, n_users: int = 200, seed: int = 0) -> pd.DataFrame:
    """Events in no order, a third of them on pairs that come again with another rating."""
    draw = np.random.default_rng(seed)
    users = np.minimum(draw.lognormal(3.5, 1.0, n_events).astype(int), n_users - 1)
    items = np.minimum(draw.pareto(1.0, n_events) * 4, 59).astype(int)
    ratings = draw.integers(1, 11, n_events) / 2
    return pd.DataFrame({"user": [f"u{user}" for user in users], "item": 100 + items, "rating": ratings})


def write_log(folder: Path, name: str, log: pd.DataFrame) -> Path:
    """The log as CSV or Parquet, whichever the name says."""
    path = folder / name
    if path.suffix == ".csv":
        log.to_csv(path, index=False)
    else:
        log.to_parquet(path, index=False)
    return path


def assert_same_split(found, expected) -> None:
    """Asserts that a split in shards has all that the split in memory has, bit by bit."""
    assert isinstance(found.train, RowShards)
    assert found.digest == expected.digest
    assert list(found.counts.items()) == list(expected.counts.items())
    there, here = found.arrays(), expected.arrays()
    for name in here:
        if not name.startswith(("train.", "lines.")):
            np.testing.assert_array_equal(there[name], here[name], err_msg=name)
            assert there[name].dtype == here[name].dtype
    rows = rows_of(found.train, np.arange(found.train.shape[0]))
    assert rows.shape == expected.train.shape == found.train.shape and found.train.nnz == expected.train.nnz
    for part in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(rows, part), getattr(expected.train, part))
        assert getattr(rows, part).dtype == getattr(expected.train, part).dtype
