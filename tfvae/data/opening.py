"""From what a user names (a data set, a file of events, a saved split, a pre-split folder) to a split."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import tfvae.data
from tfvae.data.datasets import DATASETS, default_split, load_dataset, load_ncf
from tfvae.data.interactions import Interactions
from tfvae.data.sources import cache_folder, data_folder, look_in
from tfvae.data.splits import (
    LeaveOneOut,
    LeaveOneOutSettings,
    RatingHoldout,
    RatingHoldoutSettings,
    SavedSplit,
    StrongGeneralization,
    StrongGeneralizationSettings,
    leave_one_out,
    load_split,
    rating_holdout,
    strong_generalization,
)
from tfvae.data.vae_cf import read_vae_cf
from tfvae.system.errors import InputError, unknown_name
from tfvae.system.validation import checked

__all__ = ["open_split", "whereabouts"]

_FILES = ".csv, .tsv or .parquet (events), .npz (a saved split), or a folder in the vae_cf layout"
_MOST_HELD_OUT = 10_000
_CUT = {
    StrongGeneralization.protocol: (StrongGeneralizationSettings, "for held-out users all items are ranked"),
    RatingHoldout.protocol: (RatingHoldoutSettings, "a rating hold-out keeps all users, items and ratings"),
    LeaveOneOut.protocol: (LeaveOneOutSettings, "leave-one-out keeps all items and takes every event as met"),
}

_log = logging.getLogger(__name__)


def open_split(
    given: str | os.PathLike,
    *,
    source: str | os.PathLike | None = None,
    columns: Mapping[str, str] | None = None,
    changes: Mapping[str, Any] | None = None,
    protocol: str | None = None,
) -> SavedSplit:
    """Opens whatever holds data, and splits it unless it comes split.

    By strong generalisation a named data set is cut as in its papers; of a file of events, a tenth of the users with
    enough items, at most 10,000, are held out for validation and as many for test. By the rating hold-out a tenth of
    the ratings is held out for test. By leave-one-out it is the latest event of each user who has three: a search needs
    another one of them.

    Args:
        given: A name of `DATASETS`, a file of events, a saved split (`.npz`) or a vae_cf folder.
        source: Where a named data set's files lie; by default they are looked for, then downloaded.
        columns: Of a file of events, the names of the columns "user", "item", "rating" and "timestamp"; the first two
            are called so by default, and without the others no ratings and times are read.
        changes: Settings of the protocol that go before its own.
        protocol: "strong-generalization", "rating-holdout" or "leave-one-out". None is the first, but for what comes
            already split, of which any kind will do.

    Returns:
        The split, of the protocol's kind.

    Raises:
        InputError: If there is nothing of that name, the data are malformed or of another kind, or an argument has
            no use.
    """
    columns, changes = dict(columns or {}), dict(changes or {})
    name, path = os.fspath(given), Path(given)
    if protocol not in (None, *_CUT):
        raise unknown_name("protocol", protocol, _CUT)
    settings, why = _CUT[protocol or StrongGeneralization.protocol]
    _refuse({key: value for key, value in changes.items() if key not in settings.model_fields}, why)
    if name in DATASETS:
        _refuse(columns, f"{name} is a named data set with columns of its own")
        return _open_named(name, source, changes, protocol)
    _refuse({"source": source} if source else {}, f"{name} is no named data set")
    if path.is_dir() or path.suffix == ".npz":
        _refuse(columns | changes, f"{name} is already split")
        ready = read_vae_cf(path) if path.is_dir() and not (path / "split.npz").is_file() else load_split(path)
        return _of_kind(ready, protocol, name)
    if not path.is_file():
        raise unknown_name("file or data set", name, DATASETS)
    if "timestamp" in columns and protocol != LeaveOneOut.protocol:
        _refuse({"timestamp": columns["timestamp"]}, "only leave-one-out asks for times")
    if "rating" not in columns:
        if "min_rating" in changes:
            raise InputError(f"min_rating={changes['min_rating']:g} needs ratings; name their column (--rating-col).")
        if protocol == RatingHoldout.protocol:
            raise InputError(f"{name}: holding out ratings needs ratings; name their column (--rating-col).")
    interactions = _read_events(path, columns)
    if protocol == RatingHoldout.protocol:
        return _rating_holdout(interactions, changes, name)
    if protocol == LeaveOneOut.protocol:
        return _leave_one_out(interactions, changes, name)
    return strong_generalization(interactions, _own_settings(interactions, changes))


def whereabouts(name: str) -> str | None:
    """Where a named data set lies on this machine, in a few words; None if it would have to be fetched.

    Raises:
        InputError: If `TFVAE_DATA` is no folder, or a zip found there is damaged.
    """
    dataset = DATASETS[name]
    if not dataset.files:
        return "drawn on demand"
    if (Path(tfvae.data.__file__).parent / name).is_dir():
        return "comes with tfvae"
    for label, folder in (("TFVAE_DATA", data_folder()), ("cache", cache_folder())):
        if folder is not None and look_in(folder, dataset.folders, dataset.files):
            return f"in {folder} ({label})"
    return None


def _open_named(
    name: str, source: str | os.PathLike | None, changes: dict[str, Any], protocol: str | None
) -> SavedSplit:
    dataset = DATASETS[name]
    if protocol is not None and protocol not in dataset.protocols:
        raise InputError(f"{name} has no split of the kind {protocol!r}, only {', '.join(dataset.protocols)}.")
    if protocol == RatingHoldout.protocol:
        return _rating_holdout(load_dataset(name, source), {"scale": dataset.scale} | changes, name)
    if dataset.strong is None:
        _refuse(changes, f"{name} comes already split")
        return load_ncf(name, source)
    interactions = load_dataset(name, source)
    if protocol == LeaveOneOut.protocol:
        return _leave_one_out(interactions, changes, name)
    standard = default_split(name, interactions.n_users).model_dump()
    settings = checked(StrongGeneralizationSettings, standard | changes, f"the split of {name}")
    return strong_generalization(interactions, settings)


def _rating_holdout(interactions: Interactions, changes: dict[str, Any], name: str) -> RatingHoldout:
    if np.ptp(interactions.values) == 0:
        raise InputError(f"{name}: expected ratings that differ, found {interactions.values[0]:g} throughout.")
    return rating_holdout(interactions, checked(RatingHoldoutSettings, changes, f"the split of {name}"))


def _leave_one_out(interactions: Interactions, changes: dict[str, Any], name: str) -> LeaveOneOut:
    if interactions.timestamps is None:
        _log.warning("%s has no time stamps: the last event of each user in it is held out, not the latest", name)
    settings = checked(LeaveOneOutSettings, {"min_items_per_user": 3} | changes, f"the split of {name}")
    return leave_one_out(interactions, settings)


def _of_kind(split: SavedSplit, protocol: str | None, name: str) -> SavedSplit:
    if protocol not in (None, split.protocol):
        raise InputError(
            f"expected a split of kind {protocol!r}, found {split.protocol!r} in {name}; models that rank learn from "
            f"{StrongGeneralization.protocol!r} or {LeaveOneOut.protocol!r}, those of training users from the latter "
            f"alone, models of ratings from {RatingHoldout.protocol!r}."
        )
    return split


def _refuse(options: Mapping[str, Any], why: str) -> None:
    if options:
        raise InputError(f"{why}, so {', '.join(options)} would change nothing; leave it out.")


def _read_events(path: Path, columns: dict[str, str]) -> Interactions:
    match Path(re.sub(r"\.(xz|gz|bz2)$", "", path.name)).suffix:
        case ".csv":
            return Interactions.from_csv(path, **columns)
        case ".tsv":
            return Interactions.from_csv(path, **columns, delimiter="\t")
        case ".parquet":
            return Interactions.from_parquet(path, **columns)
    raise InputError(f"{path}: expected {_FILES}.")


def _own_settings(interactions: Interactions, changes: dict[str, Any]) -> StrongGeneralizationSettings:
    settings = checked(StrongGeneralizationSettings, {"held_out_users": 1} | changes, "the split")
    if "held_out_users" in changes:
        return settings
    kept = interactions.users
    if settings.min_rating is not None:
        kept = kept[interactions.values >= settings.min_rating]
    enough = np.bincount(kept, minlength=1) >= max(1, settings.min_items_per_user)
    held_out = min(_MOST_HELD_OUT, int(enough.sum()) // 10)
    return settings.model_copy(update={"held_out_users": max(1, held_out)})
