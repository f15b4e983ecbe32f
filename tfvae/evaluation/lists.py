"""What recommended lists are like, whether or not they are good: catalogue coverage, popularity and similarity.

Ranking metrics say how many held-out items a list finds. Two models that find as many may recommend the same few items
to everybody, or the whole catalogue; what is measured here tells them apart. Nothing held out enters it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_array

from tfvae.data.splits import HeldOut, HeldOutRatings
from tfvae.evaluation.evaluate import refuse_unknown_users
from tfvae.evaluation.scoring import ranker
from tfvae.models.base import Recommender
from tfvae.nn.ranking import EMPTY_RANK
from tfvae.system.errors import InputError

__all__ = ["ListStatistics", "describe_lists", "list_statistics"]

LENGTH = 20
MOST_USERS = 5_000
"""Whose lists are described; on Netflix the similarities of all 40,000 would take ten minutes."""
ENTRIES_AT_ONCE = 2**22
"""About how many entries, of 12 bytes or more each, a sparse product of a block of users may have."""


@dataclass(frozen=True, eq=False)
class ListStatistics:
    """What the lists of one model for n_users users are like.

    Attributes:
        k: Number of places in a list, of which some may be empty.
        coverage: Share of the catalogue's items that are in at least one list. It grows with the number of users.
        popularity: Mean over users of the mean share of training users who have the recommended items; None if all
            lists are empty.
        similarity: Intra-list similarity: mean over users of the mean cosine between the training users of all pairs
            of different items in a list; None if no list has two items.
        per_user: "popularity" and "similarity" of each user, float64 [n_users]; NaN for a user whose list has no item,
            or fewer than two. These users are left out of the means.
        users_per_second: Users ranked in a second; None if the lists were given instead of being ranked.
    """

    k: int
    coverage: float
    popularity: float | None
    similarity: float | None
    per_user: dict[str, np.ndarray]
    users_per_second: float | None = None

    @property
    def values(self) -> dict[str, float]:
        """The numbers that are known, by their names above."""
        names = ("k", "coverage", "popularity", "similarity", "users_per_second")
        return {name: float(value) for name in names if (value := getattr(self, name)) is not None}


def list_statistics(lists: np.ndarray, train: csr_array) -> ListStatistics:
    """Measures recommended lists; the order of the items in a list changes nothing.

    The similarity of two items is the cosine between their columns in the training matrix, as zeros and ones; an item
    without training users has the zero vector, so that its similarity to any other is 0. With x̂_i, the column of item i
    divided by its length, the mean over the m(m−1) ordered pairs of a list of m items is

        (|Σ_i x̂_i|² − Σ_i |x̂_i|²) / (m(m−1)),

    and no similarity of a single pair is computed. Ziegler, McNee, Konstan, Lausen: Improving recommendation lists
    through topic diversification, WWW 2005, have the similarity of topics where this is of users, and the sum over
    pairs where this is the mean, so that lists of different lengths can be compared.

    Args:
        lists: Item numbers, int [n_users, k]; −1 (`EMPTY_RANK`) is an empty place, wherever it stands.
        train: The training matrix, sparse [n_training_users, n_items], no entry twice; every stored entry is an item
            that the user has, whatever its value.

    Returns:
        The statistics, without `users_per_second`.

    Raises:
        InputError: If `lists` is no array [n_users, k] of whole numbers, has a number that is neither an item nor an
            empty place, or has an item twice for the same user; or if there are no training users or no items.

    Example:
        >>> import numpy as np
        >>> from scipy.sparse import csr_array
        >>> train = csr_array(np.array([[1, 1, 0, 0], [1, 1, 1, 0]]))
        >>> found = list_statistics(np.array([[0, 1], [2, -1]]), train)
        >>> found.coverage, found.popularity, round(found.similarity, 6)
        (0.75, 0.75, 1.0)
    """
    n_training_users, n_items = train.shape
    if not n_training_users or not n_items:
        raise InputError(f"expected a training matrix with users and items, found one of shape {list(train.shape)}.")
    _refuse_no_lists(lists, n_items)
    places = lists != EMPTY_RANK
    items = lists[places]
    starts = np.concatenate([[0], np.cumsum(places.sum(axis=1))])
    listed = csr_array((np.ones(len(items)), items, starts), shape=(len(lists), n_items))
    with np.errstate(invalid="ignore"):  # 0/0 is NaN, which stands for a user who is left out
        popularity = listed @ (np.bincount(train.indices, minlength=n_items) / n_training_users) / np.diff(starts)
    similarity = _similarity(listed, train)
    return ListStatistics(
        k=lists.shape[1],
        coverage=len(np.unique(items)) / n_items,
        popularity=_mean(popularity),
        similarity=_mean(similarity),
        per_user={"popularity": popularity, "similarity": similarity},
    )


def describe_lists(
    model: Recommender, held_out: HeldOut, train: csr_array, k: int = LENGTH, batch_size: int = 500
) -> ListStatistics | None:
    """Ranks the users of a held-out part twice, and measures their lists and the time of the second ranking.

    The users are those that ranking metrics are measured on, who have something held out; of more than 5,000 at most so
    many, evenly spread. Whatever the protocol, a list
    is of all items that the user has not seen, also where a metric ranks one item among negatives. The first ranking
    pays for what TensorFlow does once, so only the second is timed: from row numbers to lists in memory.

    Args:
        model: The model.
        held_out: Held-out users, shares of users' items, or one item of each user.
        train: The training matrix, sparse [n_training_users, n_items].
        k: Length of the lists; a user with fewer unseen items has a shorter one.
        batch_size: Users ranked at once; a larger number needs more memory, and changes only the speed.

    Returns:
        The statistics; None for held-out ratings, of which no lists are made.

    Raises:
        InputError: If nobody has anything held out, `k` or `batch_size` is below 1, or model and data do not fit.
        DivergedError: If a score is NaN or infinite.
    """
    if isinstance(held_out, HeldOutRatings):
        return None
    refuse_unknown_users(type(model), held_out)
    if k < 1:
        raise InputError(f"k is {k}; expected at least 1.")
    if train.shape[1] != held_out.history.shape[1]:
        raise InputError(f"expected a training matrix of {held_out.history.shape[1]} items, found {train.shape[1]}.")
    users = np.flatnonzero(np.diff(held_out.targets.indptr))
    if not len(users):
        raise InputError(f"none of the {held_out.targets.shape[0]} held-out users has a target; is the split right?")
    users = users[:: -(-len(users) // MOST_USERS)]
    rank = ranker(model, held_out.history, k, batch_size, users)
    rank()
    started = time.perf_counter()
    lists, _ = rank()
    seconds = time.perf_counter() - started
    return replace(list_statistics(lists, train), users_per_second=len(users) / seconds)


def _similarity(listed: csr_array, train: csr_array) -> np.ndarray:
    """The mean cosine of the pairs in each list, float64 [n_users]; NaN for a list of fewer than two items.

    Args:
        listed: The items of each list, ones [n_users, n_items].
        train: The training matrix.
    """
    n_having = np.bincount(train.indices, minlength=train.shape[1])
    scaled = csr_array((1 / np.sqrt(np.maximum(n_having, 1))[train.indices], train.indices, train.indptr), train.shape)
    columns = scaled.T.tocsr()
    squared = np.empty(listed.shape[0])
    for first, last in _blocks(listed @ n_having):
        summed = listed[first:last] @ columns
        summed.data **= 2
        squared[first:last] = summed.sum(axis=1)
    lengths = np.diff(listed.indptr)
    n_pairs = np.where(lengths > 1, lengths * (lengths - 1), np.nan)
    # Rounding may leave the range by a little.
    return ((squared - listed @ (n_having > 0)) / n_pairs).clip(0, 1)


def _blocks(entries: np.ndarray) -> Iterator[tuple[int, int]]:
    """First and last + 1 user of each block; one has at least one user, and at most about `ENTRIES_AT_ONCE` entries.

    Args:
        entries: How many entries a user's row of the product can have at most, [n_users].
    """
    block = np.cumsum(entries) // ENTRIES_AT_ONCE
    bounds = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(block)]
    return ((first, last) for first, last in pairwise(bounds) if first < last)


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _refuse_no_lists(lists: np.ndarray, n_items: int) -> None:
    if lists.ndim != 2 or lists.dtype.kind not in "iu":
        raise InputError(f"expected lists of item numbers, int [n_users, k], found {lists.dtype} {list(lists.shape)}.")
    if lists.size and not EMPTY_RANK <= lists.min() <= lists.max() < n_items:
        raise InputError(f"expected item numbers from 0 to {n_items - 1}, found {lists.min()} to {lists.max()}.")
    ordered = np.sort(lists, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != EMPTY_RANK)
    if twice.any():
        user, place = np.argwhere(twice)[0]
        raise InputError(f"item {ordered[user, place]} is twice in the list of user {user}; expected different items.")
