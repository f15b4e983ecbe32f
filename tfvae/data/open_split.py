"""Opens as a split whatever a user names: a data set, a file of events, a saved split or a pre-split folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import tfvae.data
from tfvae.data.column_names import OPTIONS, guessed_events
from tfvae.data.datasets import DATASETS, default_split, load_dataset, load_ncf, load_parts
from tfvae.data.event_files import local_file
from tfvae.data.interactions import Interactions
from tfvae.data.items_file import ItemTable
from tfvae.data.sources import cache_folder, data_folder, look_in
from tfvae.data.splits import (
    LeaveOneOut,
    LeaveOneOutSettings,
    RatingHoldout,
    RatingHoldoutSettings,
    Split,
    StrongGeneralization,
    StrongGeneralizationSettings,
    WeakGeneralization,
    WeakGeneralizationSettings,
    continued_generalization,
    leave_one_out,
    load_split,
    rating_holdout,
    strong_generalization,
    weak_generalization,
)
from tfvae.data.splits.filters import FilterSettings
from tfvae.data.vae_cf import read_vae_cf
from tfvae.system.errors import InputError, unknown_name
from tfvae.system.validation import Strict, checked

__all__ = ["columns_of", "open_split", "provisional_settings", "tenth_of_users", "whereabouts"]

_MOST_HELD_OUT = 10_000


@dataclass(frozen=True)
class _Protocol:
    """How one protocol cuts events.

    Attributes:
        settings: The class of its settings.
        cut: The function that cuts interactions by these settings.
        why: The reason it has no other settings, for messages.
        own: Function from the events and the given settings to values of settings that were not given.
    """

    settings: type[Strict]
    cut: Callable[[Interactions, Any], Split]
    why: str
    own: Callable[[Interactions, dict[str, Any]], dict[str, Any]]


_log = logging.getLogger(__name__)


def _tenth_of_users(interactions: Interactions, changes: dict[str, Any]) -> dict[str, Any]:
    """Sets `held_out_users`, unless given, to a tenth of the users with enough items: at least 1, at most 10,000."""
    if "held_out_users" in changes:
        return {}
    settings = provisional_settings(changes)
    kept = interactions.users
    if settings.min_rating is not None:
        kept = kept[interactions.values >= settings.min_rating]
    return {"held_out_users": tenth_of_users(np.bincount(kept, minlength=1), settings)}


def provisional_settings(changes: Mapping[str, Any]) -> StrongGeneralizationSettings:
    """The settings of strong generalisation before it is known how many users to hold out."""
    return checked(StrongGeneralizationSettings, {"held_out_users": 1} | dict(changes), "the split")


def tenth_of_users(n_events: np.ndarray, settings: StrongGeneralizationSettings) -> int:
    """A tenth of the users with enough items, at least 1 and at most 10,000.

    Args:
        n_events: [n_users] the number of each user's events that pass the filter by rating.
        settings: The filters.
    """
    enough = n_events >= max(1, settings.min_items_per_user)
    return max(1, min(_MOST_HELD_OUT, int(enough.sum()) // 10))


_PROTOCOLS = {
    StrongGeneralization.protocol: _Protocol(
        StrongGeneralizationSettings,
        strong_generalization,
        "for held-out users all items are ranked",
        _tenth_of_users,
    ),
    RatingHoldout.protocol: _Protocol(
        RatingHoldoutSettings,
        rating_holdout,
        "a rating hold-out keeps all users, items and ratings",
        lambda interactions, changes: {},
    ),
    LeaveOneOut.protocol: _Protocol(
        LeaveOneOutSettings,
        leave_one_out,
        "leave-one-out keeps all items and takes every event as met",
        # Each user needs an item for test, another to choose settings by, and one to learn from.
        lambda interactions, changes: {"min_items_per_user": 3},
    ),
    WeakGeneralization.protocol: _Protocol(
        WeakGeneralizationSettings,
        weak_generalization,
        "weak generalisation trains on all users, and ranks all items",
        lambda interactions, changes: {},
    ),
}


def open_split(
    given: str | os.PathLike,
    *,
    source: str | os.PathLike | None = None,
    columns: Mapping[str, str] | None = None,
    changes: Mapping[str, Any] | None = None,
    protocol: str | None = None,
    items: ItemTable | None = None,
    former: Split | None = None,
) -> Split:
    """Opens data of any kind, and splits them unless they are already split.

    Commands, tables, sweeps and notebooks open data only here, so that the same name, protocol and changes always give
    the same split, with the same digest.

    - Strong generalisation cuts a named data set as its papers do. From a file of events, it holds out a tenth of the
      users with enough items, at most 10,000, for validation and as many for test.
    - The rating hold-out holds out a tenth of the ratings for test.
    - Leave-one-out holds out the latest event of each user and drops users with fewer than three, since a search
      holds out another event and at least one must be left to learn from.
    - Weak generalisation takes the test part that comes with Gowalla and Amazon-book. Of other data it holds out a
      fifth of each user's items, after the filters of strong generalisation.

    Args:
        given: A name in `DATASETS`, a file of events (`-` for standard input), a saved split (an `.npz` file or its
            folder) or a vae_cf folder.
        source: Where a named data set's files are, or a vae_cf folder with its split; by default the files are looked
            for, then downloaded.
        columns: For a file of events, the names of its columns by purpose ("user", "item", "rating" and "timestamp")
            and other arguments of `Interactions.from_file`, such as "delimiter". Those that are not named are
            recognised by their names or contents (`tfvae.data.column_names`), which is said. Ratings are read only if
            they are named or the protocol or `changes` need them, times only for leave-one-out.
        changes: Settings that override the protocol's defaults.
        protocol: "strong-generalization", "rating-holdout", "leave-one-out" or "weak-generalization". None means the
            first, except that data which are already split may be of any protocol.
        items: What an items file tells of the data's items (`tfvae.read_items`); it adds titles and attributes.
        former: The split of the same data at an earlier time, which is continued: its settings hold where `changes` do
            not say otherwise, and its held-out users stay held out (`tfvae.continued_generalization`). By the other
            protocols, which hold something of every user out, the data are cut anew. Data which are already split are
            taken as they are.

    Returns:
        The split.

    Raises:
        InputError: If nothing has that name, the data are malformed or split by another protocol, or an argument would
            have no effect.

    Example:
        >>> split = open_split("movietweetings", changes={"held_out_users": 200})
        >>> split.protocol, len(split.test.user_ids)
        ('strong-generalization', 200)
    """
    opened = _opened(given, source, dict(columns or {}), dict(changes or {}), protocol, former)
    return opened if items is None else items.described(opened)


def _opened(
    given: str | os.PathLike,
    source: str | os.PathLike | None,
    columns: dict[str, str],
    changes: dict[str, Any],
    protocol: str | None,
    former: Split | None,
) -> Split:
    """The split, before an items file describes it."""
    name, path = os.fspath(given), Path(given)
    if protocol is not None and protocol not in _PROTOCOLS:
        raise unknown_name("protocol", protocol, _PROTOCOLS)
    if former is not None:
        protocol = protocol or former.protocol
        if protocol != former.protocol:
            raise InputError(f"a split of kind {former.protocol!r} cannot be continued as one of kind {protocol!r}.")
    how = _PROTOCOLS[protocol or StrongGeneralization.protocol]
    _refuse({key: value for key, value in changes.items() if key not in how.settings.model_fields}, how.why)
    if isinstance(former, StrongGeneralization) and "held_out_users" in changes:
        _refuse({"held_out_users": 1}, "those who were held out stay held out")
    if name in DATASETS:
        _refuse(columns, f"{name} is a named data set with columns of its own")
        return _open_named(name, source, changes, protocol, former)
    _refuse({"source": source} if source else {}, f"{name} is no named data set")
    if path.is_dir() or path.suffix == ".npz":
        _refuse(columns | changes, f"{name} is already split")
        ready = read_vae_cf(path) if path.is_dir() and not (path / "split.npz").is_file() else load_split(path)
        return _of_protocol(ready, protocol, name)
    if name != "-" and not path.is_file():
        raise unknown_name("file or data set", name, DATASETS)
    if "timestamp" in columns and protocol != LeaveOneOut.protocol:
        _refuse({"timestamp": columns["timestamp"]}, "only leave-one-out asks for times")
    changes = _settings_of(former) | changes
    with local_file(path) as file:  # a copy of standard input, which is read more than once
        interactions = Interactions.from_file(file, **columns_of(file, columns, how.settings, changes))
    return _cut(interactions, how, changes, name, former)


def columns_of(file: Path, columns: Mapping[str, str], how: type[Strict], changes: Mapping[str, Any]) -> dict[str, str]:
    """The arguments of `Interactions.from_file`, with the columns that are recognised."""
    options = {key: value for key, value in columns.items() if key not in OPTIONS}
    named = {key: value for key, value in columns.items() if key in OPTIONS}
    rates = how is RatingHoldoutSettings
    wanted = {"user", "item"}
    if rates or "min_rating" in changes:
        wanted.add("rating")
    if how is LeaveOneOutSettings:
        wanted.add("timestamp")
    form = {key: value for key, value in options.items() if key in ("delimiter", "encoding")}
    ratings_for = "holding out ratings needs ratings"
    if "min_rating" in changes:
        ratings_for = f"min_rating={changes['min_rating']:g} needs ratings"
    return guessed_events(file, named, wanted, ratings_for=ratings_for, **form) | options


def whereabouts(name: str) -> str | None:
    """Says in a few words where a named data set is on this machine; None if it would have to be fetched.

    Args:
        name: A name in `DATASETS`.

    Raises:
        InputError: If `TFVAE_DATA` is not a folder, or a zip found in it or in the cache is damaged.
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
    name: str,
    source: str | os.PathLike | None,
    changes: dict[str, Any],
    protocol: str | None,
    former: Split | None,
) -> Split:
    dataset = DATASETS[name]
    if protocol is not None and protocol not in dataset.protocols:
        raise InputError(f"{name} has no split of the kind {protocol!r}, only {', '.join(dataset.protocols)}.")
    reader: Callable[[], Split] | None = None
    if dataset.strong is None and protocol != RatingHoldout.protocol:
        reader = partial(load_ncf, name, source)
    elif dataset.read_parts is not None and protocol == WeakGeneralization.protocol:
        reader = partial(load_parts, name, source)
    elif source is not None and (Path(source) / "unique_sid.txt").is_file():
        reader = partial(read_vae_cf, source)
    if reader:
        _refuse(changes, f"{name} comes already split")
        return _of_protocol(reader(), protocol, name)
    interactions = load_dataset(name, source)
    how = _PROTOCOLS[protocol or StrongGeneralization.protocol]
    standard: dict[str, Any] = {}
    if how.settings is StrongGeneralizationSettings:
        standard = default_split(name, interactions.n_users).model_dump()
    if how.settings is RatingHoldoutSettings:
        standard = {"scale": dataset.scale}
    if how.settings is WeakGeneralizationSettings and dataset.strong is not None:
        standard = {key: getattr(dataset.strong, key) for key in FilterSettings.model_fields}
    return _cut(interactions, how, standard | _settings_of(former) | changes, name, former)


def _settings_of(former: Split | None) -> dict[str, Any]:
    """The settings that a former split was cut with; those that are None are left out, as if they were not given."""
    if former is None or former.settings is None:
        return {}
    return former.settings.model_dump(exclude_none=True)


def _cut(interactions: Interactions, how: _Protocol, changes: dict[str, Any], name: str, former: Split | None) -> Split:
    """Cuts events by a protocol; settings that were not given are derived from the events."""
    if how.settings is RatingHoldoutSettings and np.ptp(interactions.values) == 0:
        raise InputError(f"{name}: expected ratings that differ, found {interactions.values[0]:g} throughout.")
    if how.settings is LeaveOneOutSettings and interactions.timestamps is None:
        _log.warning("%s has no time stamps: the last event of each user in it is held out, not the latest", name)
    settings = checked(how.settings, how.own(interactions, changes) | changes, f"the split of {name}")
    if isinstance(former, StrongGeneralization) and isinstance(settings, StrongGeneralizationSettings):
        return continued_generalization(interactions, former, settings)
    return how.cut(interactions, settings)


def _of_protocol(split: Split, protocol: str | None, name: str) -> Split:
    if protocol not in (None, split.protocol):
        raise InputError(
            f"expected a split of kind {protocol!r}, found {split.protocol!r} in {name}; models that rank learn from "
            f"{StrongGeneralization.protocol!r}, {WeakGeneralization.protocol!r} or {LeaveOneOut.protocol!r}, those of "
            f"training users from the latter two alone, models of ratings from {RatingHoldout.protocol!r}."
        )
    return split


def _refuse(options: Mapping[str, Any], why: str) -> None:
    if options:
        raise InputError(f"{why}, so {', '.join(options)} would change nothing; leave it out.")
