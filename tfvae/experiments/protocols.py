"""From a table's protocol to the splits of its runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from tfvae.data.datasets import DATASETS, default_split, load_dataset, load_ncf
from tfvae.data.splits import (
    RatingHoldoutSettings,
    Split,
    leave_one_out,
    rating_holdout,
    strong_generalization,
)
from tfvae.data.vae_cf import read_vae_cf
from tfvae.experiments.definitions import Table
from tfvae.system.errors import InputError, unknown_name

__all__ = ["Splits", "splits_of"]

Splits = Callable[[int, str], Split]  # from a run's seed and what a row takes as rows ("users" or "items")


def splits_of(table: Table, dataset: str, source: str | Path | None = None) -> Splits:
    """The splits a table uses on a data set: by the papers' protocol, or as one lies in a vae_cf folder.

    Ratings are cut anew for each seed; of the other protocols all seeds share a split.

    Raises:
        InputError: If the data set is unknown, absent or has no such split.
    """
    if dataset not in DATASETS:
        raise unknown_name("data set", dataset, DATASETS)
    if table.protocol not in DATASETS[dataset].protocols:
        raise InputError(f"{dataset} has no split of the kind {table.protocol!r}, which {table.name} needs.")
    match table.protocol:
        case "rating-holdout":
            interactions, scale = load_dataset(dataset, source=source), DATASETS[dataset].scale

            @lru_cache(maxsize=2)
            def cut(seed: int, by: str) -> Split:
                split = rating_holdout(interactions, RatingHoldoutSettings(seed=seed, scale=scale))
                return split.by_items() if by == "items" else split

            return cut
        case "leave-one-out":
            ready = DATASETS[dataset].strong is None
            split = load_ncf(dataset, source) if ready else leave_one_out(load_dataset(dataset, source=source))
        case _ if source is not None and (Path(source) / "unique_sid.txt").is_file():
            split = read_vae_cf(source)
        case _:
            interactions = load_dataset(dataset, source=source)
            split = strong_generalization(interactions, default_split(dataset, interactions.n_users))
    return lambda seed, by: split
