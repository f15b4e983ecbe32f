"""Ranking and rating metrics as per-user vectors, in NumPy.

The definitions are those of Liang et al. 2018 (Mult-VAE), section 4.1, and of their published code:
recall divides by `min(k, held-out)`, the discount is `log2(rank + 1)`, and the ideal DCG is cut at
`min(k, held-out)`. LightGCN (He et al. 2020) has the same NDCG, but divides recall by all held-out items: that is
the uncapped recall. All ranking metrics read the same boolean hit matrix, so that one ranking serves all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_array

from tfvae.system.errors import InputError, unknown_name

__all__ = [
    "FULL",
    "RANKING_METRICS",
    "RATING_METRICS",
    "RankingMetric",
    "check_metric",
    "hit_rate",
    "hits",
    "leave_one_out_ranks",
    "lower_is_better",
    "mae",
    "ndcg",
    "parse_metric",
    "recall",
    "rmse",
    "uncapped_recall",
]

RankingMetric = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
FULL = "full-"  # with this prefix, a metric of the sampled protocol ranks all items instead of the sampled ones


def hits(items: np.ndarray, targets: csr_array) -> np.ndarray:
    """Marks the ranked items that are among the user's targets.

    Args:
        items: Ranked item columns, int [n, k], best first; a negative number is an empty rank.
        targets: Held-out items, sparse [n, n_items]; every stored entry is a target.

    Returns:
        Hits, bool [n, k]; an empty rank never hits.

    Raises:
        InputError: If `items` and `targets` do not have the same users and items.
    """
    n_users, n_items = targets.shape
    if items.ndim != 2 or len(items) != n_users:
        raise InputError(f"expected ranked items for {n_users} users, found an array of shape {items.shape}.")
    if items.size and items.max() >= n_items:
        raise InputError(f"expected a ranking of {n_items} items, found item number {items.max()}.")
    if not targets.nnz:
        return np.zeros(items.shape, dtype=bool)
    first_key = np.arange(n_users, dtype=np.int64) * n_items
    target_keys = np.sort(np.repeat(first_key, np.diff(targets.indptr)) + targets.indices)
    keys = first_key[:, None] + items
    nearest = np.searchsorted(target_keys, keys).clip(max=len(target_keys) - 1)
    return (target_keys[nearest] == keys) & (items >= 0)


def recall(hits: np.ndarray, n_targets: np.ndarray, k: int) -> np.ndarray:
    """Recall@k divided by `min(k, held-out)`, so that a perfect ranking scores 1.

    Args:
        hits: Hits in rank order, bool [n, at least k].
        n_targets: Held-out items of each user, int [n], at least 1 each.
        k: Length of the ranking that counts.

    Returns:
        One value per user, float64 [n], in [0, 1].

    Raises:
        InputError: If a user has no target or the ranking is shorter than `k`.
    """
    top, n_targets = _checked(hits, n_targets, k)
    return top.sum(axis=1) / np.minimum(n_targets, k)


def uncapped_recall(hits: np.ndarray, n_targets: np.ndarray, k: int) -> np.ndarray:
    """Recall@k divided by all held-out items, also if they are more than `k`, so that 1 may be out of reach.

    It is what NGCF, LightGCN and those who compare with them call Recall@k (LightGCN-PyTorch, `RecallPrecision_ATk`).

    Args:
        hits: Hits in rank order, bool [n, at least k].
        n_targets: Held-out items of each user, int [n], at least 1 each.
        k: Length of the ranking that counts.

    Returns:
        One value per user, float64 [n], in [0, 1].

    Raises:
        InputError: If a user has no target or the ranking is shorter than `k`.
    """
    top, n_targets = _checked(hits, n_targets, k)
    return top.sum(axis=1) / n_targets


def ndcg(hits: np.ndarray, n_targets: np.ndarray, k: int) -> np.ndarray:
    """NDCG@k with binary gains, `log2(rank + 1)` discounts and the ideal cut at `min(k, held-out)`.

    Args:
        hits: Hits in rank order, bool [n, at least k].
        n_targets: Held-out items of each user, int [n], at least 1 each.
        k: Length of the ranking that counts.

    Returns:
        One value per user, float64 [n], in [0, 1].

    Raises:
        InputError: If a user has no target or the ranking is shorter than `k`.
    """
    top, n_targets = _checked(hits, n_targets, k)
    discounts = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discounts)
    return top @ discounts / ideal[np.minimum(n_targets, k) - 1]


def hit_rate(hits: np.ndarray, n_targets: np.ndarray, k: int) -> np.ndarray:
    """HR@k: 1 for a user with at least one hit among the first `k`, else 0.

    Args:
        hits: Hits in rank order, bool [n, at least k].
        n_targets: Held-out items of each user, int [n], at least 1 each.
        k: Length of the ranking that counts.

    Returns:
        One value per user, float64 [n], 0 or 1.

    Raises:
        InputError: If a user has no target or the ranking is shorter than `k`.
    """
    top, _ = _checked(hits, n_targets, k)
    return np.asarray(top.any(axis=1), np.float64)


RANKING_METRICS: dict[str, RankingMetric] = {
    "recall": recall,
    "uncapped-recall": uncapped_recall,
    "ndcg": ndcg,
    "hr": hit_rate,
}


def parse_metric(name: str) -> tuple[RankingMetric, int]:
    """The function and the cut-off behind a name such as `"ndcg@100"`.

    Args:
        name: `recall`, `uncapped-recall`, `ndcg` or `hr`, an at sign and the cut-off; the prefix "full-" is optional.

    Returns:
        A function of (hits, n_targets, k) and the `k` to call it with.

    Raises:
        InputError: If the name has another form or is unknown.
    """
    parts = re.fullmatch(r"([a-z-]+)@([1-9][0-9]*)", name.removeprefix(FULL))
    if not parts:
        raise InputError(f"expected a metric and its cut-off, such as 'ndcg@100', found {name!r}.")
    if parts[1] not in RANKING_METRICS:
        raise unknown_name("metric", parts[1], RANKING_METRICS)
    return RANKING_METRICS[parts[1]], int(parts[2])


def check_metric(name: str) -> None:
    """Refuses a name that is neither a ranking metric nor a metric of ratings.

    Raises:
        InputError: If the name is neither.
    """
    if name not in RATING_METRICS:
        parse_metric(name)


def lower_is_better(name: str) -> bool:
    """Whether a metric is an error."""
    return name in RATING_METRICS


def leave_one_out_ranks(
    true_scores: np.ndarray, negative_scores: np.ndarray, true_items: np.ndarray, negatives: np.ndarray
) -> np.ndarray:
    """The rank of each user's held-out item among sampled negatives (He et al. 2017, NCF).

    The rank is 1 + the number of distinct negatives, other than the held-out item itself, that score
    *at least* as high: ties count against the model, and a constant scorer comes last. The authors' code
    does the same on Python 3.7 and later, where the held-out item enters a dictionary of scores last.
    For 156 of the 6,040 users of the NCF ML-1M files, the held-out item is also listed among its own
    negatives. Here it is one candidate, not two, so a perfect scorer has rank 1 everywhere. (The authors'
    code differs only for these users, and only among ties: there the item keeps the place of the negative.)

    Args:
        true_scores: Score of the held-out item, float [n].
        negative_scores: Scores of the negatives, float [n, m].
        true_items: The held-out item, int [n].
        negatives: The negative items, int [n, m]; repeats count once.

    Returns:
        Ranks from 1, int64 [n].
    """
    order = np.argsort(negatives, axis=1)
    negatives = np.take_along_axis(negatives, order, axis=1)
    scores = np.take_along_axis(negative_scores, order, axis=1)
    rival = negatives != true_items[:, None]
    rival[:, 1:] &= negatives[:, 1:] != negatives[:, :-1]
    return 1 + np.sum(rival & (scores >= true_scores[:, None]), axis=1)


def rmse(predicted: np.ndarray, ratings: np.ndarray) -> float:
    """Root mean squared error over all ratings with equal weights, which is the value that the papers report.

    Args:
        predicted: Predicted ratings, float [n].
        ratings: Observed ratings, float [n].

    Returns:
        The error, on the scale of the ratings.

    Raises:
        InputError: If there are no ratings or the lengths differ.
    """
    return float(np.sqrt(np.mean(_squared_errors(predicted, ratings))))


def mae(predicted: np.ndarray, ratings: np.ndarray) -> float:
    """Mean absolute error over all ratings with equal weights; `rmse` has the same arguments and errors."""
    return float(np.mean(np.sqrt(_squared_errors(predicted, ratings))))


# Each function maps predictions and ratings, float [n] each, to a value on the scale of the ratings.
RATING_METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {"rmse": rmse, "mae": mae}


def _checked(hits: np.ndarray, n_targets: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    if hits.shape[1] < k:
        raise InputError(f"a metric at {k} needs {k} ranks, found a ranking of {hits.shape[1]}.")
    n_targets = np.asarray(n_targets, dtype=np.int64)
    empty = np.count_nonzero(n_targets < 1)
    if empty:
        raise InputError(f"{empty} users have no held-out item, so no metric; leave them out and count them.")
    return hits[:, :k], n_targets


def _squared_errors(predicted: np.ndarray, ratings: np.ndarray) -> np.ndarray:
    if len(predicted) != len(ratings) or not len(ratings):
        raise InputError(f"expected one prediction per rating, found {len(predicted)} and {len(ratings)}.")
    return np.square(np.subtract(predicted, ratings, dtype=np.float64))
