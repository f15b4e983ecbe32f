"""Leave-one-out: one held-out item of every user is ranked among negatives, as NCF compares models.

The protocol is that of He et al., Neural Collaborative Filtering (WWW 2017), section 4.1. Table 3 of Mult-VAE uses
NCF's own files, whose test items and negatives are given instead of being chosen here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field
from scipy.sparse import csr_array

from tfvae.data.attributes import Attribute
from tfvae.data.interactions import Interactions
from tfvae.data.splits.base import Split, binary_rows, pack, unpack
from tfvae.system.errors import InputError
from tfvae.system.files import digest
from tfvae.system.validation import Strict

__all__ = ["HeldOutItems", "LeaveOneOut", "LeaveOneOutSettings", "leave_one_out"]

_log = logging.getLogger(__name__)


class LeaveOneOutSettings(Strict):
    """How to choose test items and negatives that are not given.

    Attributes:
        n_negatives: Negatives drawn for each user.
        seed: Seed of the draw.
        min_items_per_user: Users with fewer items are dropped if the test items are not given; at least two, so
            that one is left to train on.
    """

    n_negatives: int = Field(99, ge=1)
    seed: int = Field(0, ge=0)
    min_items_per_user: int = Field(2, ge=2)


@dataclass(frozen=True, eq=False)
class HeldOutItems:
    """One item of each user, to be found among negatives.

    Attributes:
        history: `[n_users, n_items]` ones: the items shown to the model.
        items: `[n_users]` int32 column of the item to be found.
        negatives: `[n_users, n_negatives]` int32 columns to rank it among.
        user_ids: `[n_users]` ids of the rows.
    """

    history: csr_array
    items: np.ndarray
    negatives: np.ndarray
    user_ids: np.ndarray

    def __post_init__(self) -> None:
        """Refuses items and negatives that are not columns of the history, or are not given for each of its rows."""
        n_users, n_items = self.history.shape
        for name, columns, axes in (("items", self.items, 1), ("negatives", self.negatives, 2)):
            if columns.ndim != axes or len(columns) != n_users or columns.dtype.kind not in "iu":
                raise InputError(f"expected held-out {name} for each of {n_users} users, found {columns.shape}.")
            if columns.size and not 0 <= columns.min() <= columns.max() < n_items:
                raise InputError(f"expected held-out {name} from 0 to {n_items - 1}, found others.")

    @cached_property
    def targets(self) -> csr_array:
        """`[n_users, n_items]` ones: the items to be found."""
        ones, starts = np.ones(len(self.items), np.float32), np.arange(len(self.items) + 1)
        return csr_array((ones, self.items, starts), shape=self.history.shape)


@dataclass(frozen=True, eq=False)
class LeaveOneOut(Split):
    """All users train on all but one item each, which is ranked among negatives.

    Attributes:
        train: `[n_users, n_items]` ones (float32, sorted indices), without the users' test items.
        test: The items to report results on; None in a split for tuning. Given negatives are kept as they are: 156 rows
            of NCF's MovieLens file include the test item itself.
        user_ids: `[n_users]` ids of the rows.
        item_ids: `[n_items]` ids of the columns, ascending.
        titles: `[n_items]` titles, or None.
        settings: The settings it was cut with.
        counts: Counts of users, items and events, of users dropped, and of given negatives that the user has met.
        digest: SHA-256 over the interactions, the settings, and the given test items and negatives.
        validation: Another item of each user, to choose settings and the number of epochs by; only in a split for
            tuning.
        attributes: What an items file tells of the items, by name; see `tfvae.data.items_file`.
    """

    protocol: ClassVar[str] = "leave-one-out"

    train: csr_array
    test: HeldOutItems | None
    user_ids: np.ndarray
    item_ids: np.ndarray
    titles: np.ndarray | None
    settings: LeaveOneOutSettings
    counts: dict[str, int | float]
    digest: str
    validation: HeldOutItems | None = None
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    @property
    def tuning_digest(self) -> str:
        """See :class:`Split`."""
        return digest(self.digest, "for tuning")

    def for_tuning(self) -> LeaveOneOut:
        """The split that a search is given: another item of each user is held out, drawn with the seed.

        It does not know the test items, so that a user's own may be drawn as a negative, like any item that the user
        did not train on.

        Raises:
            InputError: If a user has fewer than two training items, or too few unseen items to draw negatives from.
        """
        sizes = np.diff(self.train.indptr)
        if sizes.min() < 2:
            raise InputError(
                f"user {self.user_ids[sizes.argmin()]} has {sizes.min()} training items; to choose settings by another "
                "held-out item, each user needs at least 2."
            )
        places = self.train.indptr[:-1] + np.random.default_rng(self.settings.seed).integers(sizes)
        kept = np.ones(self.train.nnz, dtype=bool)
        kept[places] = False
        rows = np.repeat(np.arange(len(sizes)), sizes)[kept]
        train, _ = binary_rows(rows, self.train.indices[kept], self.train.shape)
        items = self.train.indices[places].astype(np.int32)
        # With the test part's seed, almost the same negatives would be drawn as there.
        n_negatives = self.settings.n_negatives if self.test is None else self.test.negatives.shape[1]
        drawn = {"n_negatives": n_negatives, "seed": self.settings.seed + 1}
        negatives = _drawn(train, items, self.user_ids, self.settings.model_copy(update=drawn))
        return replace(
            self,
            train=train,
            validation=HeldOutItems(train, items, negatives, self.user_ids),
            test=None,
            digest=self.tuning_digest,
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """See :class:`Split`."""
        arrays = {"user_ids": self.user_ids, "item_ids": self.item_ids} | pack("train", self.train)
        if self.test is not None:
            arrays |= {"test_items": self.test.items, "negatives": self.test.negatives}
        if self.validation is not None:
            arrays |= {"validation.items": self.validation.items, "validation.negatives": self.validation.negatives}
        return arrays if self.titles is None else arrays | {"titles": self.titles}

    @classmethod
    def restored(cls, arrays: dict[str, np.ndarray], note: dict[str, Any]) -> Self:
        """See :class:`Split`."""
        train = unpack("train", arrays)

        def part(items: str, negatives: str) -> HeldOutItems | None:
            if not len(arrays.get(items, ())):
                return None
            return HeldOutItems(train, arrays[items], arrays[negatives], arrays["user_ids"])

        return cls(
            train=train,
            validation=part("validation.items", "validation.negatives"),
            test=part("test_items", "negatives"),
            user_ids=arrays["user_ids"],
            item_ids=arrays["item_ids"],
            titles=arrays.get("titles"),
            settings=LeaveOneOutSettings(**note["settings"]),
            counts=note["report"],
            digest=note["digest"],
        )


def leave_one_out(
    interactions: Interactions,
    settings: LeaveOneOutSettings | None = None,
    test_items: Sequence | np.ndarray | None = None,
    negatives: Sequence | np.ndarray | None = None,
) -> LeaveOneOut:
    """Holds out one item of each user, and draws negatives for it.

    Args:
        interactions: The events. They may include the given test items, which are taken out of training.
        settings: Number of negatives, seed and filter; the defaults of `LeaveOneOutSettings` if None.
        test_items: `[n_users]` raw item ids, one for each of `interactions.user_ids`. By default each user's
            latest event is held out; the last in the file, if there are no times or several events share the
            latest time (a warning counts such users).
        negatives: `[n_users, n]` raw item ids, allowed only with given test items. By default they are drawn
            without replacement from the items that are neither in the user's training events nor their test item.

    Returns:
        The split. Items that occur only among the given ids get columns of their own.

    Raises:
        InputError: If negatives are given without test items, the given ids do not fit the interactions, no
            user has enough items, or one has too few unseen items to draw from.
    """
    settings = settings or LeaveOneOutSettings()
    if test_items is None:
        if negatives is not None:
            raise InputError("expected negatives only together with test items; give both, or neither.")
        rows, columns, test_columns, kept = _latest(interactions, settings)
        item_ids = interactions.item_ids
    else:
        test_items = _given(test_items, "test items", interactions, n_dimensions=1)
        named = [test_items]
        if negatives is not None:
            negatives = _given(negatives, "negatives", interactions, n_dimensions=2)
            named.append(negatives.ravel())
        item_ids = np.unique(np.concatenate([interactions.item_ids, *named]))
        test_columns = np.searchsorted(item_ids, test_items).astype(np.int32)
        rows = interactions.users
        columns = np.searchsorted(item_ids, interactions.item_ids).astype(np.int32)[interactions.items]
        other = columns != test_columns[rows]
        rows, columns = rows[other], columns[other]
        kept = np.arange(interactions.n_users)

    train, _ = binary_rows(rows, columns, (kept.size, item_ids.size))
    user_ids = interactions.user_ids[kept]
    if negatives is None:
        negative_columns = _drawn(train, test_columns, user_ids, settings)
    else:
        negative_columns = np.searchsorted(item_ids, negatives).astype(np.int32)
    given = [array for array in (test_items, negatives) if array is not None]
    return LeaveOneOut(
        train=train,
        test=HeldOutItems(train, test_columns, negative_columns, user_ids),
        user_ids=user_ids,
        item_ids=item_ids,
        titles=_titles(interactions, item_ids),
        settings=settings,
        counts=_counts(interactions, train, test_columns, negative_columns),
        digest=digest(LeaveOneOut.protocol, interactions.digest, settings.model_dump(), *given),
    )


def _latest(
    interactions: Interactions, settings: LeaveOneOutSettings
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns of the training events, each user's latest column, and the users that stay."""
    indptr, order = interactions.by_user
    sizes = np.diff(indptr)
    kept = np.flatnonzero(sizes >= settings.min_items_per_user)
    if not kept.size:
        raise InputError(
            f"none of {interactions.n_users:,} users has min_items_per_user={settings.min_items_per_user} "
            "items; leave-one-out needs some that do."
        )
    row_of = np.full(interactions.n_users, -1, dtype=np.int32)
    row_of[kept] = np.arange(kept.size, dtype=np.int32)
    users, items = interactions.users, interactions.items
    latest = indptr[1:][kept] - 1
    times = interactions.times
    if times.shape[1]:
        order = np.lexsort((*times.T[::-1], users))
        several = latest[sizes[kept] > 1]
        ties = int((times[order[several]] == times[order[several - 1]]).all(axis=1).sum())
        if ties:
            _log.warning(
                "%d users have several events at their latest time; the last of these in the data is held out", ties
            )
    if order is not None:
        users, items = users[order], items[order]
    training = row_of[users] >= 0
    training[latest] = False
    return row_of[users][training], items[training], items[latest], kept


def _given(ids: Sequence | np.ndarray, what: str, interactions: Interactions, n_dimensions: int) -> np.ndarray:
    ids = np.asarray(ids)
    if ids.ndim != n_dimensions or len(ids) != interactions.n_users:
        shape = f"[{interactions.n_users}{', n' * (n_dimensions - 1)}]"
        raise InputError(f"expected {what} of shape {shape}, one entry per user, found {list(ids.shape)}.")
    if ids.dtype == object:
        ids = np.array(ids.ravel().tolist()).reshape(ids.shape)
    numeric = [array.dtype.kind in "iu" for array in (ids, interactions.item_ids)]
    if numeric[0] != numeric[1]:
        raise InputError(
            f"expected {what} as ids like those of the interactions ({interactions.item_ids.dtype}), found {ids.dtype}."
        )
    return ids


def _drawn(train: csr_array, test_items: np.ndarray, user_ids: np.ndarray, settings: LeaveOneOutSettings) -> np.ndarray:
    random = np.random.default_rng(settings.seed)
    negatives = np.empty((train.shape[0], settings.n_negatives), dtype=np.int32)
    unseen = np.ones(train.shape[1], dtype=bool)
    for row, (start, stop) in enumerate(zip(train.indptr[:-1], train.indptr[1:], strict=True)):
        met = train.indices[start:stop]
        unseen[met] = unseen[test_items[row]] = False
        candidates = np.flatnonzero(unseen)
        unseen[met] = unseen[test_items[row]] = True
        if candidates.size < settings.n_negatives:
            raise InputError(
                f"expected {settings.n_negatives} items that user {user_ids[row]} never met, to draw "
                f"negatives from, found {candidates.size}; set n_negatives lower (--negatives of 'tfvae prepare')."
            )
        negatives[row] = random.choice(candidates, settings.n_negatives, replace=False)
    return negatives


def _counts(
    interactions: Interactions, train: csr_array, test_items: np.ndarray, negatives: np.ndarray
) -> dict[str, int | float]:
    n_users, n_items = train.shape
    rows = np.arange(n_users)[:, None]
    return {
        "users": n_users,
        "items": n_items,
        "train_events": train.nnz,
        "users_dropped": interactions.n_users - n_users,
        "users_without_training": int((np.diff(train.indptr) == 0).sum()),
        "negatives_met_in_training": int(train[rows, negatives].nnz),
        "users_with_test_item_among_negatives": int((negatives == test_items[:, None]).any(axis=1).sum()),
    }


def _titles(interactions: Interactions, item_ids: np.ndarray) -> np.ndarray | None:
    if interactions.titles is None:
        return None
    titles = np.zeros(item_ids.size, dtype=interactions.titles.dtype)
    titles[np.searchsorted(item_ids, interactions.item_ids)] = interactions.titles
    return titles
