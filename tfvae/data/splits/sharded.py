"""Strong generalisation of data that do not fit in memory: the same split as in memory, its training rows in shards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfvae.data.row_shards import RowShards, ShardWriter
from tfvae.data.sorted_events import Block, SortedEvents
from tfvae.data.splits.filters import FilterSettings, nothing_left, table_counts
from tfvae.data.splits.strong import (
    HeldOutUsers,
    StrongGeneralization,
    StrongGeneralizationSettings,
    drawn_groups,
    folded,
    group_counts,
    split_digest,
)

__all__ = ["liked_by_user", "sharded_generalization"]

_TRAIN, _VALIDATION, _TEST, _DROPPED = range(4)


@dataclass(frozen=True)
class _Kept:
    """Which events pass the filters.

    Attributes:
        min_rating: The lowest rating that counts; None if all do.
        items: bool [n_items].
        users: bool [n_users].
    """

    min_rating: float | None
    items: np.ndarray
    users: np.ndarray

    def of(self, block: Block) -> Block:
        """Those of a block that pass."""
        kept = self.items[block.items] & self.users[block.users]
        if self.min_rating is not None:
            kept &= block.values >= self.min_rating
        return Block(*(column[kept] for column in block))


def liked_by_user(events: SortedEvents, min_rating: float | None) -> np.ndarray:
    """The number of each user's events that pass the filter by rating, int64 [n_users]."""
    return _counts(events, _everything(events, min_rating))[0]


def sharded_generalization(
    events: SortedEvents, settings: StrongGeneralizationSettings, folder: Path
) -> StrongGeneralization:
    """Cuts events as `strong_generalization` does, in a few passes over them.

    Args:
        events: The raw data, before any filter.
        settings: Filters, counts and seed.
        folder: The folder of the shards, which is made.

    Returns:
        The split; it has no `lines`.

    Raises:
        InputError: As for `strong_generalization`.
    """
    kept, counts = _filtered(events, settings)
    survivors = np.flatnonzero(kept.users)
    groups = drawn_groups(survivors, settings)
    group_of = np.full(len(events.user_ids), _DROPPED, np.int8)
    for group, members in zip((_TRAIN, _VALIDATION, _TEST), groups, strict=True):
        group_of[members] = group

    never = np.iinfo(np.int64).max
    first_place = np.full(len(events.item_ids), never)
    in_data = np.zeros(len(events.item_ids), bool)
    others: dict[int, list[Block]] = {_VALIDATION: [], _TEST: []}
    for block in map(kept.of, events.blocks()):
        in_data[block.items] = True
        of_train = group_of[block.users] == _TRAIN
        np.minimum.at(first_place, block.items[of_train], block.places[of_train])
        for group, found in others.items():
            own = group_of[block.users] == group
            found.append(Block(*(column[own] for column in block)))
    counts |= table_counts(int(counts.pop("left")), survivors.size, int(in_data.sum()))

    train_items = np.argsort(first_place)[: int((first_place < never).sum())]
    column_of = np.full(len(events.item_ids), -1, np.int32)
    column_of[train_items] = np.arange(train_items.size, dtype=np.int32)
    writer, item_counts = ShardWriter(folder), np.zeros(train_items.size, np.int64)
    for block in map(kept.of, events.blocks()):
        of_train = group_of[block.users] == _TRAIN
        users, columns = block.users[of_train], column_of[block.items[of_train]]
        if users.size:
            columns = columns[np.lexsort((columns, users))]
            writer.append(columns, np.unique(users, return_counts=True)[1])
            item_counts += np.bincount(columns, minlength=train_items.size)
    # The files have the training users in ascending order, and each has an event, or they had not passed the filters.
    places = np.searchsorted(np.sort(groups[_TRAIN]), groups[_TRAIN]).astype(np.int32)
    train = RowShards(writer.finish(), places, item_counts)

    held_out = {}
    for name, group in (("validation", _VALIDATION), ("test", _TEST)):
        users, items = (
            np.concatenate([getattr(block, part) for block in others[group]]) for part in ("users", "items")
        )
        columns = column_of[items]
        known = columns >= 0
        counts[f"{name}_events_on_other_items"] = int((~known).sum())
        held_out[name] = _held_out(events, groups[group], users[known], columns[known], train.shape[1], settings)
    return StrongGeneralization(
        train=train,
        user_ids=events.user_ids[groups[_TRAIN]],
        validation=held_out["validation"],
        test=held_out["test"],
        item_ids=events.item_ids[train_items],
        titles=None,
        settings=settings,
        counts=counts | group_counts(train, **held_out),
        digest=split_digest(events.digest, settings),
    )


def _filtered(events: SortedEvents, settings: FilterSettings) -> tuple[_Kept, dict[str, int | float]]:
    """What passes the filters, and the counts of `filtered`; `left` is the number of events that are left."""
    everything = _everything(events, settings.min_rating)
    _, of_items = _counts(events, everything)
    popular = of_items >= settings.min_users_per_item
    of_users, _ = _counts(events, _Kept(settings.min_rating, popular, everything.users))
    active = (of_users >= settings.min_items_per_user) & (of_users > 0)
    liked, on_popular, left = int(of_items.sum()), int(of_users.sum()), int(of_users[active].sum())
    counts: dict[str, int | float] = {
        "events_read": events.n_events,
        "events_below_min_rating": events.n_events - liked,
        "events_of_dropped_items": liked - on_popular,
        "events_of_dropped_users": on_popular - left,
    }
    if not left:
        raise nothing_left(counts, settings)
    return _Kept(settings.min_rating, popular, active), counts | {"left": left}


def _everything(events: SortedEvents, min_rating: float | None) -> _Kept:
    return _Kept(min_rating, np.ones(len(events.item_ids), bool), np.ones(len(events.user_ids), bool))


def _counts(events: SortedEvents, kept: _Kept) -> tuple[np.ndarray, np.ndarray]:
    """The number of events of each user and of each item, int64."""
    of_users, of_items = np.zeros(len(events.user_ids), np.int64), np.zeros(len(events.item_ids), np.int64)
    for block in map(kept.of, events.blocks()):
        if block.users.size:
            first, last = block.users[0], block.users[-1] + 1
            of_users[first:last] += np.bincount(block.users - first)
            of_items += np.bincount(block.items, minlength=of_items.size)
    return of_users, of_items


def _held_out(
    events: SortedEvents,
    members: np.ndarray,
    users: np.ndarray,
    columns: np.ndarray,
    n_items: int,
    settings: StrongGeneralizationSettings,
) -> HeldOutUsers:
    """Fold-in and targets of one group, whose users are `members` in the order of their rows."""
    row_of = np.full(len(events.user_ids), -1, np.int32)
    row_of[members] = np.arange(members.size, dtype=np.int32)
    (history, _), (targets, _) = folded(users, row_of[users], columns, (members.size, n_items), settings)
    return HeldOutUsers(history, targets, events.user_ids[members])
