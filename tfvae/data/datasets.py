"""Loads data sets by name: `load_dataset("ml-1m")`.

The files are read from `source` if it is given (the zip, the unpacked folder, or the ratings file). Otherwise they
are looked for in `TFVAE_DATA` (a folder with one folder or zip for each data set, or with the files themselves), then
in the cache (`TFVAE_CACHE`), and are downloaded to the cache if that is lawful. Every download is checked by its md5.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from tfvae.data import formats, sources
from tfvae.data.catalogue import DATASETS, Dataset
from tfvae.data.interactions import Interactions
from tfvae.data.sources import Place
from tfvae.data.splits import (
    LeaveOneOut,
    LeaveOneOutSettings,
    StrongGeneralizationSettings,
    WeakGeneralization,
    WeakGeneralizationSettings,
    leave_one_out,
    weak_generalization,
)
from tfvae.data.streams import reading
from tfvae.data.synthetic import synthetic
from tfvae.system.errors import InputError, unknown_name

__all__ = ["DATASETS", "Dataset", "default_split", "load_dataset", "load_ncf", "load_parts"]

_EMBEDDED = {"movietweetings": Path(__file__).parent / "movietweetings"}
_log = logging.getLogger(__name__)


def load_dataset(name: str, source: str | os.PathLike | None = None, **options: Any) -> Interactions:
    """Loads all interactions of a data set, unfiltered.

    Args:
        name: A name in `DATASETS`.
        source: The zip, folder or ratings file; by default it is looked for, then downloaded.
        **options: For "synthetic", arguments of `tfvae.data.synthetic.synthetic`; otherwise arguments of
            `Interactions.from_events`, such as `duplicates`.

    Returns:
        Interactions with raw ids, and with titles and features if their files are beside the ratings.

    Raises:
        InputError: If the name is unknown, the data set comes already split, or files are damaged, malformed or
            missing; for missing files the message says where to get them and where to place them.
    """
    dataset = _dataset(name)
    if name == "synthetic":
        return synthetic(**options)
    if dataset.read is None:
        raise InputError(f"{name} comes already split into training and test; load it with load_ncf({name!r})")
    place = _locate(dataset, source)
    arguments = dataset.read(place)
    interactions = Interactions.from_events(**arguments, source=name, **options)
    _check_count(dataset, len(arguments["user_ids"]))
    _check_files(dataset, place)
    return interactions


def load_ncf(
    name: str, source: str | os.PathLike | None = None, settings: LeaveOneOutSettings | None = None
) -> LeaveOneOut:
    """Loads a leave-one-out split from the files of He et al. (WWW 2017).

    Args:
        name: "ncf-ml-1m" or "ncf-pinterest".
        source: The folder, zip or training file; by default it is looked for as `load_dataset` does.
        settings: Used only if there is no `test.negative` file, so that the negatives are drawn.

    Returns:
        The split, without the test users who have no training events. Ids are NCF's numbers.

    Raises:
        InputError: As for `load_dataset`, and if the files do not fit together or a training user has no test
            item.
    """
    dataset = _dataset(name)
    if dataset.protocols != ("leave-one-out",):
        raise unknown_name("NCF data set", name, [n for n in DATASETS if n.startswith("ncf-")])
    place = _locate(dataset, source)
    train_name = dataset.files[0]
    train_file = place.require(train_name)
    test_file, negative_file = (
        place.find(train_name.replace("train.rating", ending)) for ending in ("test.rating", "test.negative")
    )
    if test_file is None:
        raise InputError(f"{name}: no test file beside {train_file}; {dataset.how_to_get}")
    train = Interactions.from_events(*formats.read_tabbed(train_file), source=train_file)
    _check_count(dataset, train.n_events)
    test_users, test_items = (column.to_numpy() for column in formats.read_tabbed(test_file)[:2])
    rows = _rows_of(train.user_ids, test_users, test_file)
    if len(rows) < len(test_users):
        _log.warning(
            "%s: %s of %s test users have no training events and are left out",
            name,
            f"{len(test_users) - len(rows):,}",
            f"{len(test_users):,}",
        )
    if negative_file is None:
        _log.warning("%s: no test.negative file; negatives are drawn, seeded, so results are not NCF's", name)
        return leave_one_out(train, settings, test_items=test_items[rows].astype(np.int64))
    users, items, negatives = formats.read_ncf_negatives(negative_file)
    if not (np.array_equal(users, test_users) and np.array_equal(items, test_items)):
        raise InputError(f"{negative_file}: its (user,item) pairs are not those of {test_file}")
    settings = LeaveOneOutSettings(n_negatives=negatives.shape[1])
    return leave_one_out(train, settings, test_items=items[rows], negatives=negatives[rows])


def load_parts(name: str, source: str | os.PathLike | None = None) -> WeakGeneralization:
    """Loads the split that graph models of recommendation are compared on: a fifth of each user's items is held out.

    Args:
        name: A name in `DATASETS` whose files name the test items, "gowalla" or "amazon-book".
        source: The folder, zip or training file; by default it is looked for as `load_dataset` does.

    Returns:
        The split. Its training part includes the data's own validation part, if there is one, as in the papers.

    Raises:
        InputError: As for `load_dataset`, and if the files do not fit together.
    """
    dataset = _dataset(name)
    if dataset.read_parts is None:
        raise unknown_name(
            "data set with a test part of its own", name, [n for n, d in DATASETS.items() if d.read_parts]
        )
    place = _locate(dataset, source)
    parts = dataset.read_parts(place)
    interactions = Interactions.from_events(parts.users, parts.items, duplicates="error", source=name)
    _check_count(dataset, interactions.n_events)
    _check_files(dataset, place)
    settings = WeakGeneralizationSettings(min_items_per_user=0)
    return weak_generalization(interactions, settings, parts.test, parts.validation)


def default_split(name: str, n_users: int | None = None) -> StrongGeneralizationSettings:
    """The papers' strong-generalisation settings for a data set, or our own if no paper states any.

    Args:
        name: A name in `DATASETS`.
        n_users: Number of users, for "synthetic", which has no fixed size: a tenth of them, at most 10,000,
            are held out for validation and as many for test.

    Returns:
        The settings.

    Raises:
        InputError: If the name is unknown, or the data set comes already split.
    """
    dataset = _dataset(name)
    if dataset.strong is None:
        raise InputError(f"{name} comes already split ({', '.join(dataset.protocols)}); no users are held out")
    if name == "synthetic" and n_users is not None:
        held_out = max(1, min(10_000, n_users // 10))
        return dataset.strong.model_copy(update={"held_out_users": held_out})
    return dataset.strong


def _dataset(name: str) -> Dataset:
    if name not in DATASETS:
        raise unknown_name("data set", name, DATASETS)
    return DATASETS[name]


def _locate(dataset: Dataset, source: str | os.PathLike | None) -> Place:
    """Finds the place that holds a data set's files; downloads them as a last resort."""
    if source is not None:
        root = Path(source).expanduser()
        found = sources.look_in(root, dataset.folders, dataset.files) if root.is_dir() else Place(root)
        if found is None or not found.holds(dataset.files):
            raise InputError(f"{source}: no {' or '.join(dataset.files)} there; {dataset.how_to_get}")
        return found
    if dataset.name in _EMBEDDED:
        return Place(_EMBEDDED[dataset.name])
    for folder in (sources.data_folder(), sources.cache_folder()):
        if folder is not None and (found := sources.look_in(folder, dataset.folders, dataset.files)):
            return found
    advice = f"{dataset.how_to_get} in $TFVAE_DATA/{dataset.name}, or give its path as source"
    if not dataset.urls:
        raise InputError(f"{dataset.title} is not on this machine; {advice}")
    try:
        return Place(sources.download(dataset.urls, dataset.checksum, f"{dataset.name}.zip"))
    except InputError as problem:
        raise InputError(f"{problem}\nBy hand: {advice}") from None


def _check_count(dataset: Dataset, found: int) -> None:
    if dataset.n_events not in (None, found):
        _log.warning(
            "%s has %s events, found %s: results will not compare with those of the whole",
            dataset.title,
            f"{dataset.n_events:,}",
            f"{found:,}",
        )


def _check_files(dataset: Dataset, place: Place) -> None:
    """Says which files are not those that the data set is known by; without all of them, it is cut in another way."""
    if any(place.find(name) is None for name in dataset.sha256):
        return
    for name, expected in dataset.sha256.items():
        path = place.require(name)
        with reading(path) as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
        if found != expected:
            _log.warning(
                "%s is not the %s that %s is known by (SHA-256 %s…, expected %s…): results may not compare",
                path,
                name,
                dataset.title,
                found[:12],
                expected[:12],
            )


def _rows_of(train_users: np.ndarray, test_users: np.ndarray, test_file: object) -> np.ndarray:
    """The line of the test file that belongs to each training user, counted from 0."""
    ascending = np.argsort(test_users)
    places = np.minimum(np.searchsorted(test_users, train_users, sorter=ascending), len(ascending) - 1)
    rows = ascending[places]
    absent = test_users[rows] != train_users
    if absent.any():
        raise InputError(f"{test_file}: user {train_users[absent][0]} of the training file has no test item")
    return rows
