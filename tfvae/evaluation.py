"""From histories to ranked items to per-user metrics: one path for every model.

A batch of user row numbers goes into one compiled function: gather the fold-in rows, score all items,
set the fold-in to −∞, take one top-k. Only the ranked items leave it. Hits are looked up in the sparse
targets, and every metric reads the same ranks. Values are kept per user and averaged at the end, so
the result does not depend on the batch size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf
from scipy.sparse import csr_array

from tfvae.data.rows import RowStore, UserRows
from tfvae.errors import DivergedError, InputError, unknown_name
from tfvae.memory import keep_freed_buffers
from tfvae.metrics import hits, leave_one_out_ranks, parse_metric
from tfvae.ranking import best_unseen
from tfvae.stats import PairedTest, bootstrap_interval, mean_and_se, paired_test

if TYPE_CHECKING:
    from tfvae.data.splits import HeldOutUsers, LeaveOneOut
    from tfvae.models.base import Recommender

__all__ = [
    "DEFAULT_METRICS",
    "Evaluation",
    "Evaluator",
    "compare",
    "evaluate",
    "evaluate_leave_one_out",
    "scores_at",
    "top_k",
]

DEFAULT_METRICS = ("ndcg@100", "recall@20", "recall@50")

Ranking = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Metrics of one model on one group of held-out users.

    Attributes:
        per_user: One float64 [n_users] vector per metric, named as in `"ndcg@100"`.
        user_ids: The users that were evaluated, [n_users], in the order of the vectors.
        n_without_targets: Users left out because nothing of theirs is held out.
    """

    per_user: dict[str, np.ndarray]
    user_ids: np.ndarray
    n_without_targets: int = 0

    @property
    def n_users(self) -> int:
        """Users that were evaluated, those left out not counted."""
        return len(self.user_ids)

    def values(self, metric: str) -> np.ndarray:
        """The metric of each user, float64 [n_users]; an unknown name raises InputError."""
        if metric not in self.per_user:
            raise unknown_name("metric of this evaluation", metric, self.per_user)
        return self.per_user[metric]

    def mean(self, metric: str) -> float:
        """The metric's mean over users; an unknown name raises InputError."""
        return float(self.values(metric).mean())

    def summary(self, seed: int = 0) -> dict[str, dict[str, float]]:
        """Mean, standard error and 95 % bootstrap interval of each metric.

        Args:
            seed: Of the bootstrap.

        Returns:
            For each metric the keys `mean`, `se`, `low` and `high`.
        """
        result = {}
        for metric, values in self.per_user.items():
            mean, se = mean_and_se(values)
            low, high = bootstrap_interval(values, seed)
            result[metric] = {"mean": mean, "se": se, "low": low, "high": high}
        return result


def compare(a: Evaluation, b: Evaluation, metric: str) -> PairedTest:
    """Paired t-test of two models on the same users.

    Args:
        a: One model's evaluation.
        b: The other's.
        metric: A metric that both have.

    Returns:
        The test; its difference is a − b.

    Raises:
        InputError: If the users or the metrics differ.
    """
    if not np.array_equal(a.user_ids, b.user_ids):
        raise InputError("a paired test needs two evaluations of the same users in the same order.")
    return paired_test(a.values(metric), b.values(metric))


class Evaluator:
    """Evaluates one model on one group of held-out users as often as wanted, tracing it once.

    Args:
        model: The model; its weights may change between calls.
        held_out: Fold-in and targets; users without targets are left out and counted.
        metrics: Names as `parse_metric` knows them.
        batch_size: Users scored at once; it costs memory and changes no result.

    Raises:
        InputError: If no user has a target, a metric is unknown, or the model has another catalogue.
    """

    def __init__(
        self,
        model: Recommender,
        held_out: HeldOutUsers,
        metrics: Sequence[str] = DEFAULT_METRICS,
        batch_size: int = 500,
    ):
        self._metrics = {name: parse_metric(name) for name in metrics}
        n_targets = np.diff(held_out.targets.indptr)
        users = np.flatnonzero(n_targets)
        if not len(users):
            raise InputError(f"none of the {len(n_targets)} held-out users has a target; is the split right?")
        self._n_targets = n_targets[users]
        self._targets = held_out.targets[users]
        self._user_ids = np.asarray(held_out.user_ids)[users]
        self._n_without_targets = len(n_targets) - len(users)
        longest = max(k for _, k in self._metrics.values())
        self._rank = _ranker(model, held_out.fold_in[users], longest, batch_size)

    def __call__(self) -> Evaluation:
        """Ranks and measures with the model's present weights.

        Returns:
            The per-user metrics.

        Raises:
            DivergedError: If a score is NaN or infinite.
        """
        items, _ = self._rank()
        found = hits(items, self._targets)
        per_user = {name: metric(found, self._n_targets, k) for name, (metric, k) in self._metrics.items()}
        return Evaluation(per_user, self._user_ids, self._n_without_targets)


def evaluate(
    model: Recommender,
    held_out: HeldOutUsers,
    metrics: Sequence[str] = DEFAULT_METRICS,
    batch_size: int = 500,
) -> Evaluation:
    """Evaluates a model once; see `Evaluator` for arguments and errors.

    Returns:
        The per-user metrics.
    """
    return Evaluator(model, held_out, metrics, batch_size)()


def top_k(
    model: Recommender, histories: csr_array, k: int = 100, batch_size: int = 500
) -> tuple[np.ndarray, np.ndarray]:
    """The best unseen items of each user; equal scores are ranked by item number.

    Args:
        model: The model.
        histories: The items each user has seen, sparse [n, n_items]; none of them is returned.
        k: Length of the rankings.
        batch_size: Users scored at once.

    Returns:
        Items, int32 [n, k], and their scores, float32 [n, k]. Where a user has fewer than `k` unseen
        items the last ranks are empty: item −1, score −∞.

    Raises:
        DivergedError: If a score is NaN or infinite.
        InputError: If the histories are of another catalogue than the model's.
    """
    return _ranker(model, histories, k, batch_size)()


def scores_at(
    model: Recommender, histories: csr_array, users: np.ndarray, items: np.ndarray, batch_size: int = 500
) -> np.ndarray:
    """The scores of chosen (user, item) pairs, seen items included.

    Args:
        model: The model.
        histories: The input of each user, sparse [n, n_items].
        users: Row of each pair, int [p], in any order.
        items: Item of each pair, int [p].
        batch_size: Users scored at once.

    Returns:
        Scores, float32 [p], in the order of the pairs.

    Raises:
        DivergedError: If a score is NaN or infinite.
        InputError: If a pair lies outside the histories, or these are of another catalogue than the model's.
    """
    users, items = np.asarray(users, np.int64), np.asarray(items, np.int64)
    for numbers, limit, kind in ((users, histories.shape[0], "user"), (items, histories.shape[1], "item")):
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < limit:
            raise InputError(f"expected {kind} numbers from 0 to {limit - 1} in the pairs to be scored.")
    score = _finite_scores(model, RowStore(histories, with_values=model.predicts_ratings))

    def pick(batch: tf.Tensor, pairs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        _, scores, finite = score(batch)
        return tf.gather_nd(scores, pairs), finite

    pick = _traced(pick, tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, 2], tf.int64))
    order = np.argsort(users, kind="stable")
    result = np.empty(len(users), dtype=np.float32)
    for batch in _batches(histories.shape[0], batch_size):
        first, last = np.searchsorted(users, [batch[0], batch[-1] + 1], sorter=order)
        chosen = order[first:last]
        pairs = np.column_stack([users[chosen] - batch[0], items[chosen]])
        picked, finite = pick(tf.constant(batch), tf.constant(pairs))
        _refuse_diverged(model, batch, finite)
        result[chosen] = picked
    return result


def evaluate_leave_one_out(
    model: Recommender,
    split: LeaveOneOut,
    metrics: Sequence[str] = ("hr@10", "ndcg@10"),
    batch_size: int = 500,
) -> Evaluation:
    """Ranks each user's held-out item among its sampled negatives (He et al. 2017, NCF, section 4.1).

    The whole training row is the input, and no candidate is masked. `metrics.leave_one_out_ranks` states
    how ties are broken.

    Args:
        model: The model.
        split: Training matrix, held-out item and negatives of each user.
        metrics: Names as `parse_metric` knows them.
        batch_size: Users scored at once.

    Returns:
        The per-user metrics.

    Raises:
        DivergedError: If a score is NaN or infinite.
    """
    candidates = np.column_stack([split.test_items, split.negatives])
    n_users, n_candidates = candidates.shape
    users = np.repeat(np.arange(n_users), n_candidates)
    scores = scores_at(model, split.train, users, candidates.ravel(), batch_size).reshape(candidates.shape)
    ranks = leave_one_out_ranks(scores[:, 0], scores[:, 1:], split.test_items, split.negatives)
    one_target = np.ones(n_users, dtype=np.int64)
    per_user = {}
    for name in metrics:
        metric, k = parse_metric(name)
        per_user[name] = metric(ranks[:, None] == np.arange(1, k + 1), one_target, k)
    return Evaluation(per_user, np.asarray(split.user_ids))


def _ranker(model: Recommender, histories: csr_array, k: int, batch_size: int) -> Callable[[], Ranking]:
    """A function that ranks for all histories, as `top_k` does, in a graph that is traced here, once."""
    keep_freed_buffers()
    score = _finite_scores(model, RowStore(histories, with_values=model.predicts_ratings))
    n_users = histories.shape[0]

    def rank(batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        rows, scores, finite = score(batch)
        return *best_unseen(scores, rows, k), finite

    rank = _traced(rank, tf.TensorSpec([None], tf.int64))

    def all_users() -> Ranking:
        items = np.empty((n_users, k), dtype=np.int32)
        scores = np.empty((n_users, k), dtype=np.float32)
        for batch in _batches(n_users, batch_size):
            items[batch], scores[batch], finite = rank(tf.constant(batch))
            _refuse_diverged(model, batch, finite)
        return items, scores

    return all_users


def _traced(function: Callable, *signature: tf.TensorSpec) -> Callable:
    """The function as one graph; a `tf.function` would warn that a process with many models has many graphs."""
    return tf.function(function, signature, autograph=False).get_concrete_function()


def _finite_scores(model: Recommender, store: RowStore) -> Callable:
    """In the graph: row numbers [B] to rows, scores [B, n_items], and whether each user's are finite."""
    if store.n_items != model.n_items:
        raise InputError(
            f"{model.name} scores {model.n_items} items, but the histories have {store.n_items} columns; "
            "use the split that the model was trained on."
        )

    def score(batch: tf.Tensor) -> tuple[UserRows, tf.Tensor, tf.Tensor]:
        rows = store.gather(batch)
        scores = model.scores(rows)
        return rows, scores, tf.reduce_all(tf.math.is_finite(scores), axis=1)

    return score


def _batches(n_users: int, batch_size: int) -> Iterator[np.ndarray]:
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; expected at least 1.")
    users = np.arange(n_users, dtype=np.int64)
    return (users[start : start + batch_size] for start in range(0, n_users, batch_size))


def _refuse_diverged(model: Recommender, batch: np.ndarray, finite: tf.Tensor) -> None:
    # top_k ranks NaN first, so that a diverged model could look perfect.
    diverged = batch[~finite.numpy()]
    if len(diverged):
        raise DivergedError(
            f"{model.name} gave NaN or infinite scores for {len(diverged)} of {len(batch)} users (first: row "
            f"{diverged[0]}), so they have no ranking; train again with a lower learning rate."
        )
