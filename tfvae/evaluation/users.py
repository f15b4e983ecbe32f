"""From a model and what is held out to metrics: one path for every model, one evaluator for each protocol.

Of held-out users the items are ranked, the fold-in left out; hits are looked up in the sparse targets, and every metric
reads the same ranks. Of held-out items each is ranked among its negatives; held-out ratings are predicted. Values are
kept per user (or rating) and averaged at the end, so that the result does not depend on the batch size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array

from tfvae.data.splits import HeldOutItems, HeldOutRatings, HeldOutUsers
from tfvae.evaluation.metrics import FULL, RATING_METRICS, hits, leave_one_out_ranks, parse_metric
from tfvae.evaluation.scoring import pair_scorer, ranker, scores_at, top_k
from tfvae.evaluation.stats import PairedTest, bootstrap_interval, mean_and_se, paired_test
from tfvae.system.errors import InputError, unknown_name

if TYPE_CHECKING:
    from tfvae.data.splits import LeaveOneOut
    from tfvae.models.base import Recommender

__all__ = [
    "DEFAULT_METRICS",
    "Evaluation",
    "Evaluator",
    "HeldOut",
    "ItemEvaluator",
    "RatingEvaluation",
    "RatingEvaluator",
    "bounded",
    "compare",
    "default_metrics",
    "evaluate",
    "evaluate_leave_one_out",
    "evaluator",
    "refuse_unknown_users",
    "scores_at",
    "top_k",
]

HeldOut = HeldOutUsers | HeldOutItems | HeldOutRatings

DEFAULT_METRICS = ("ndcg@100", "recall@20", "recall@50")
SAMPLED_METRICS = ("hr@10", "ndcg@10")


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
    def names(self) -> tuple[str, ...]:
        """Of the metrics."""
        return tuple(self.per_user)

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
        self._rank = ranker(model, held_out.history[users], longest, batch_size)

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


@dataclass(frozen=True, eq=False)
class RatingEvaluation:
    """How far a model's predicted ratings are off.

    Attributes:
        predicted: float [n_ratings].
        ratings: What was observed, float [n_ratings].
        user_ids: The users that have these ratings, each once.
    """

    predicted: np.ndarray
    ratings: np.ndarray
    user_ids: np.ndarray
    per_user: dict[str, np.ndarray] = field(default_factory=dict, init=False)  # its metrics are no means over users
    n_without_targets: int = field(default=0, init=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the metrics."""
        return tuple(RATING_METRICS)

    @property
    def n_users(self) -> int:
        """Users with a rating to be predicted."""
        return len(self.user_ids)

    def mean(self, metric: str) -> float:
        """The metric over all ratings, each weighing the same; an unknown name raises InputError."""
        if metric not in RATING_METRICS:
            raise unknown_name("metric of ratings", metric, RATING_METRICS)
        return RATING_METRICS[metric](self.predicted, self.ratings)

    def summary(self) -> dict[str, dict[str, float]]:
        """Of each metric its value as `mean`, its standard error `se`, and `low` and `high`, 1.96 of them off.

        The errors of ratings are taken as independent; that of a root is by the delta method.
        """
        errors = np.abs(np.subtract(self.predicted, self.ratings, dtype=np.float64))
        result = {}
        for metric in RATING_METRICS:
            value = self.mean(metric)
            # Where there is no error at all the root has no derivative, and nothing to be unsure of.
            spread = np.square(errors).std() / (2 * value) if metric == "rmse" and value else errors.std()
            se = float(spread / np.sqrt(len(errors)))
            result[metric] = {"mean": value, "se": se, "low": value - 1.96 * se, "high": value + 1.96 * se}
        return result


class RatingEvaluator:
    """Evaluates one model on one group of held-out ratings as often as wanted, tracing it once.

    Args:
        model: The model; its weights may change between calls.
        held_out: What is told and what is to be predicted.
        metrics: Names in `RATING_METRICS`; all are computed.
        batch_size: Rows scored at once; it costs memory and changes no result.

    Raises:
        InputError: If a metric is unknown, there are no targets, or the model has another catalogue.
    """

    def __init__(
        self,
        model: Recommender,
        held_out: HeldOutRatings,
        metrics: Sequence[str] = tuple(RATING_METRICS),
        batch_size: int = 500,
    ):
        for metric in metrics:
            if metric not in RATING_METRICS:
                raise unknown_name("metric of ratings", metric, RATING_METRICS)
        if not held_out.targets.nnz:
            raise InputError("there are no held-out ratings to predict; is the split right?")
        self._held_out = held_out
        self._rows, self._columns, self._ratings = held_out.triples()
        self._predict = pair_scorer(model, held_out.history, self._rows, self._columns, batch_size)

    def __call__(self) -> RatingEvaluation:
        """Predicts and measures with the model's present weights.

        Raises:
            DivergedError: If a prediction is NaN or infinite.
        """
        predicted = bounded(self._predict(), self._held_out.history, self._rows, self._columns)
        return RatingEvaluation(predicted, self._ratings, np.unique(self._rows))


def bounded(predicted: np.ndarray, histories: csr_array, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Predictions clipped to the range of the ratings that are known; cold rows and columns get the middle of it.

    That is how AutoRec's authors evaluate: a row or column without a rating has nothing to be predicted from.

    Args:
        predicted: float [n] or [..., n].
        histories: The known ratings.
        rows: Row of each prediction, int [n].
        columns: Column of each prediction, int [n].

    Returns:
        The bounded predictions, of the same shape.
    """
    low, high = histories.data.min(), histories.data.max()
    cold_rows = np.diff(histories.indptr) == 0
    cold_columns = np.bincount(histories.indices, minlength=histories.shape[1]) == 0
    cold = cold_rows[rows] | cold_columns[columns]
    return np.where(cold, (low + high) / 2, np.clip(predicted, low, high))


class ItemEvaluator:
    """Ranks each user's held-out item among its negatives (He et al. 2017, NCF, section 4.1), as often as wanted.

    The whole history is the input, no candidate is masked; `metrics.leave_one_out_ranks` states how ties are broken. A
    metric that begins with "full-" ranks the item among all that are not in the history instead.

    Args:
        model: The model; its weights may change between calls.
        held_out: Histories, the item to be found and the negatives of each user.
        metrics: Names as `parse_metric` knows them, with or without "full-".
        batch_size: Users scored at once.
    """

    def __init__(
        self,
        model: Recommender,
        held_out: HeldOutItems,
        metrics: Sequence[str] = SAMPLED_METRICS,
        batch_size: int = 500,
    ):
        self._metrics = {name: parse_metric(name) for name in metrics}
        self._held_out = held_out
        self._candidates = np.column_stack([held_out.items, held_out.negatives])
        n_users, n_candidates = self._candidates.shape
        users = np.repeat(np.arange(n_users), n_candidates)
        self._score = pair_scorer(model, held_out.history, users, self._candidates.ravel(), batch_size)
        full = [k for name, (_, k) in self._metrics.items() if name.startswith(FULL)]
        self._rank = ranker(model, held_out.history, max(full), batch_size) if full else None

    def __call__(self) -> Evaluation:
        """Ranks and measures with the model's present weights.

        Raises:
            DivergedError: If a score is NaN or infinite.
        """
        held_out = self._held_out
        scores = self._score().reshape(self._candidates.shape)
        ranks = leave_one_out_ranks(scores[:, 0], scores[:, 1:], held_out.items, held_out.negatives)
        full = self._rank and self._rank()[0] == held_out.items[:, None]
        one_target = np.ones(len(ranks), dtype=np.int64)
        per_user = {}
        for name, (metric, k) in self._metrics.items():
            found = full if name.startswith(FULL) else ranks[:, None] == np.arange(1, k + 1)
            per_user[name] = metric(found, one_target, k)
        return Evaluation(per_user, np.asarray(held_out.user_ids))


def default_metrics(held_out: HeldOut) -> tuple[str, ...]:
    """What is usually measured on data that are held out in this way."""
    match held_out:
        case HeldOutRatings():
            return tuple(RATING_METRICS)
        case HeldOutItems():
            return SAMPLED_METRICS
    return DEFAULT_METRICS


def refuse_unknown_users(kind: type[Recommender], held_out: HeldOut | None) -> None:
    """Refuses to ask a model of training users about others, whose row numbers mean other people to it.

    Raises:
        InputError: When it would be asked.
    """
    if isinstance(held_out, HeldOutUsers) and not kind.scores_new_users:
        raise InputError(
            f"{kind.__name__} scores only the users it was trained on, and this split holds users out whole; expected "
            "one held-out item of each user, as from `tfvae.leave_one_out` and in the table multvae-table3."
        )


def evaluator(
    model: Recommender, held_out: HeldOut, metrics: Sequence[str] | None = None, batch_size: int = 500
) -> Callable[[], Evaluation | RatingEvaluation]:
    """The evaluator of what is held out: users, items or ratings.

    Args:
        model: The model.
        held_out: What it is asked.
        metrics: Names; those of `default_metrics` when None.
        batch_size: Rows scored at once.

    Raises:
        InputError: As the evaluators do, and if held-out users are to be scored by a model of training users.
    """
    refuse_unknown_users(type(model), held_out)
    kinds = {HeldOutRatings: RatingEvaluator, HeldOutItems: ItemEvaluator}
    return kinds.get(type(held_out), Evaluator)(model, held_out, metrics or default_metrics(held_out), batch_size)


def evaluate(
    model: Recommender, held_out: HeldOut, metrics: Sequence[str] | None = None, batch_size: int = 500
) -> Evaluation | RatingEvaluation:
    """Evaluates a model once; see `evaluator` for arguments and errors.

    Returns:
        The metrics.
    """
    return evaluator(model, held_out, metrics, batch_size)()


def evaluate_leave_one_out(
    model: Recommender, split: LeaveOneOut, metrics: Sequence[str] = SAMPLED_METRICS, batch_size: int = 500
) -> Evaluation:
    """Evaluates a model on the test items of a leave-one-out split; see `ItemEvaluator`.

    Returns:
        The per-user metrics.
    """
    held_out = HeldOutItems(split.train, split.test_items, split.negatives, np.asarray(split.user_ids))
    return ItemEvaluator(model, held_out, metrics, batch_size)()
