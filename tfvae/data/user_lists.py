"""Data sets of `train.txt`, `test.txt` and perhaps `valid.txt`, as graph models of recommendation are compared on.

Each file has one line for each user: their number and those of their items (`formats.read_user_lists`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tfvae.data.formats import RawEvents, read_user_lists
from tfvae.data.sources import Place
from tfvae.data.streams import AnyPath, reading
from tfvae.system.errors import InputError

__all__ = ["GivenParts", "read_given_parts"]

TRAIN, VALIDATION, TEST = "train.txt", "valid.txt", "test.txt"


class GivenParts(NamedTuple):
    """The events of all parts together, ascending by user and item, so that they do not depend on how they are cut.

    Attributes:
        users: int32 [n_events].
        items: int32 [n_events].
        test: Whether each event is for test, bool [n_events].
        validation: Whether each event is for validation, bool [n_events]; None if there is no such part.
    """

    users: np.ndarray
    items: np.ndarray
    test: np.ndarray
    validation: np.ndarray | None


def read_given_parts(place: Place) -> GivenParts:
    """Reads the parts of a data set.

    Args:
        place: Where its files are.

    Returns:
        The events, and the part of each.

    Raises:
        InputError: If a file is missing or malformed, an item of a user is in two parts, or a user has nothing to train
            on; the message names the file and, if it can, the line.
    """
    paths = {TRAIN: place.require(TRAIN), TEST: place.require(TEST)}
    if (valid := place.find(VALIDATION)) is not None:
        paths[VALIDATION] = valid
    parts = {name: read_user_lists(path) for name, path in paths.items()}
    for name in paths:
        if name != TRAIN:
            _refuse_users_without_training(paths, parts, name)
    users, items = (np.concatenate([part[axis] for part in parts.values()]) for axis in (0, 1))
    origin = np.repeat(np.arange(len(parts)), [len(part.users) for part in parts.values()])
    order = np.lexsort((origin, items, users))
    users, items, origin = users[order], items[order], origin[order]
    twice = np.flatnonzero((np.diff(users) == 0) & (np.diff(items) == 0))
    if twice.size:
        names = list(paths)
        first, second = (names[origin[place]] for place in (twice[0], twice[0] + 1))
        user, item = users[twice[0]], items[twice[0]]
        raise InputError(
            f"{paths[second]}, line {_line_of(paths[second], user)}: item {item} of user {user} is also in "
            f"{paths[first].name}, line {_line_of(paths[first], user)}; an item is in one part only, so remove one."
        )
    validation = origin == list(paths).index(VALIDATION) if VALIDATION in paths else None
    return GivenParts(users, items, origin == list(paths).index(TEST), validation)


def _refuse_users_without_training(paths: dict[str, AnyPath], parts: dict[str, RawEvents], name: str) -> None:
    absent = np.setdiff1d(parts[name].users, parts[TRAIN].users)
    if absent.size:
        raise InputError(
            f"{paths[name]}, line {_line_of(paths[name], absent[0])}: user {absent[0]} has no items in "
            f"{paths[TRAIN].name}, so that nothing could be learnt of them; do the two files belong together?"
        )


def _line_of(path: AnyPath, user: int) -> int:
    """The line of a user, counted from 1."""
    with reading(path) as stream:
        content = stream.read().removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    firsts = (line.split(b" ", 1)[0] for line in content.split(b"\n"))
    return next(number for number, first in enumerate(firsts, 1) if first and int(first) == user)
