"""Synthetic interactions with planted structure: users with tastes, popular items, and short and long histories."""

from __future__ import annotations

import numpy as np

from tfvae.data.interactions import Interactions
from tfvae.system.errors import InputError

__all__ = ["synthetic"]

_TASTEFUL_ROUNDS = 6


def synthetic(
    n_users: int = 2_000,
    n_items: int = 500,
    n_events: int | None = None,
    *,
    n_tastes: int = 10,
    taste: float = 0.75,
    skew: float = 0.9,
    spread: float = 1.0,
    seed: int = 98765,
) -> Interactions:
    """Draws interactions in which a model can beat popularity.

    Every item belongs to one of `n_tastes` groups, and every user likes one group. An event's item is drawn
    by popularity, with probability `taste` from the user's group and otherwise from all items; an item that
    the user already has is drawn again, after six rounds uniformly from all items. Popularity falls as a
    power of the rank, and the lengths of histories are log-normal.

    Args:
        n_users: Number of users.
        n_items: Number of items.
        n_events: Exact number of interactions; None for 30 a user, or a fifth of all pairs if that is fewer.
        n_tastes: Number of groups; at most one for each item.
        taste: Probability of drawing from the user's group; 0 plants no tastes.
        skew: Exponent of the power law of item popularity.
        spread: Standard deviation of the logarithm of history lengths.
        seed: The same arguments and seed give the same interactions.

    Returns:
        Interactions with ids 0, 1, …; the values are ratings from 1 to 5, higher inside the user's group. The
        user and item features `taste` are the planted groups.

    Raises:
        InputError: If `n_events` is less than one a user, or more than half of all pairs.
    """
    if n_events is None:
        n_events = n_users * max(1, min(30, n_items // 5))
    if not n_users <= n_events <= n_users * (n_items // 2):
        raise InputError(
            f"n_events={n_events:,} does not suit {n_users:,} users and {n_items:,} items; "
            f"expected {n_users:,} to {n_users * (n_items // 2):,}"
        )
    n_tastes = min(n_tastes, n_items)
    rng = np.random.default_rng(seed)
    lengths = _history_lengths(rng, n_users, n_events, n_items // 2, spread)
    user_tastes = rng.integers(n_tastes, size=n_users)
    item_tastes = rng.permutation(np.arange(n_items) % n_tastes)
    popularity = rng.permutation((1.0 + np.arange(n_items)) ** -skew)
    draws = _Draws(rng, popularity, item_tastes, n_tastes)

    pairs = np.empty(0, np.int64)
    rounds = 0
    while pairs.size < n_events:
        users = np.repeat(np.arange(n_users), lengths - np.bincount(pairs // n_items, minlength=n_users))
        if rounds < _TASTEFUL_ROUNDS:
            items = draws.items(user_tastes[users], own=rng.random(users.size) < taste)
        else:  # so that users who have all popular items of their group get others
            items = rng.integers(n_items, size=users.size)
        pairs = _merged(pairs, users * n_items + items)
        rounds += 1

    users, items = np.divmod(pairs, n_items)
    inside = user_tastes[users] == item_tastes[items]
    ratings = np.rint(3 + inside + rng.normal(size=n_items)[items] / 2 + rng.normal(size=n_events) / 2)
    return Interactions(
        users=users.astype(np.int32),
        items=items.astype(np.int32),
        values=np.clip(ratings, 1, 5).astype(np.float32),
        user_ids=np.arange(n_users),
        item_ids=np.arange(n_items),
        titles=np.array([f"item {item} of taste {group}" for item, group in enumerate(item_tastes)]),
        user_features={"taste": user_tastes},
        item_features={"taste": item_tastes},
    )


def _history_lengths(rng: np.random.Generator, n_users: int, n_events: int, longest: int, spread: float) -> np.ndarray:
    """Log-normal lengths [n_users] that sum to `n_events`, none above `longest`, nor below 5 if the mean allows it."""
    shortest = max(1, min(5, n_events // n_users))
    weights = np.exp(spread * rng.normal(size=n_users))
    lengths = np.clip(np.rint(weights * (n_events / weights.sum())).astype(np.int64), shortest, longest)
    while missing := n_events - int(lengths.sum()):
        movable = np.flatnonzero(lengths < longest if missing > 0 else lengths > shortest)
        chosen = rng.permutation(movable)[: abs(missing)]
        lengths[chosen] += 1 if missing > 0 else -1
    return lengths


def _merged(pairs: np.ndarray, more: np.ndarray) -> np.ndarray:
    """The sorted union; a stable sort of two sorted runs and a mask are 50 times faster than `np.unique`."""
    both = np.concatenate([pairs, np.sort(more)])
    both.sort(kind="stable")
    return both[np.diff(both, prepend=-1) > 0]


class _Draws:
    """Draws items by popularity, from all or from one group, by inverting cumulative sums."""

    def __init__(self, rng: np.random.Generator, popularity: np.ndarray, groups: np.ndarray, n_groups: int):
        """Computes the sums; `popularity` and `groups` are [n_items]."""
        self.rng = rng
        self.overall = np.cumsum(popularity)
        self.by_group = np.argsort(groups, kind="stable")
        self.within = np.cumsum(popularity[self.by_group])
        ends = np.cumsum(np.bincount(groups, minlength=n_groups))
        self.edges = np.concatenate([[0.0], self.within[ends - 1]])

    def items(self, groups: np.ndarray, own: np.ndarray) -> np.ndarray:
        """One item for each event: from its group where `own`, otherwise from all items."""
        position = self.rng.random(groups.size)
        low, high = self.edges[groups], self.edges[groups + 1]
        inside = np.searchsorted(self.within, low + position * (high - low), side="right")
        anywhere = np.searchsorted(self.overall, position * self.overall[-1], side="right")
        last = len(self.overall) - 1
        return np.where(own, self.by_group[np.minimum(inside, last)], np.minimum(anywhere, last))
