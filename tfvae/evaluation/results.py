"""The results of an evaluation: values per user or rating, their means with a standard error, and paired tests."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tfvae.evaluation.metrics import RATING_METRICS
from tfvae.evaluation.stats import PairedTest, bootstrap_interval, mean_and_se, paired_test
from tfvae.system.errors import InputError, unknown_name

__all__ = ["Evaluation", "RatingEvaluation", "compare"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Metrics of one model on one group of held-out users.

    Attributes:
        per_user: One vector, float64 [n_users], for each metric; the key is the metric's name, such as "ndcg@100".
        user_ids: The users that were evaluated, [n_users], in the order of the vectors.
        n_without_targets: Users left out because nothing of theirs is held out.
    """

    per_user: dict[str, np.ndarray]
    user_ids: np.ndarray
    n_without_targets: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the metrics."""
        return tuple(self.per_user)

    @property
    def n_users(self) -> int:
        """Number of users that were evaluated; users that were left out do not count."""
        return len(self.user_ids)

    def values(self, metric: str) -> np.ndarray:
        """The metric's value for each user, float64 [n_users]; an unknown name raises InputError."""
        if metric not in self.per_user:
            raise unknown_name("metric of this evaluation", metric, self.per_user)
        return self.per_user[metric]

    def mean(self, metric: str) -> float:
        """The metric's mean over users; an unknown name raises InputError."""
        return float(self.values(metric).mean())

    def summary(self, seed: int = 0) -> dict[str, dict[str, float]]:
        """Mean, standard error and 95 % bootstrap interval of each metric.

        Args:
            seed: Seed of the bootstrap.

        Returns:
            For each metric a dictionary with the keys `mean`, `se`, `low` and `high`.
        """
        result = {}
        for metric, values in self.per_user.items():
            mean, se = mean_and_se(values)
            low, high = bootstrap_interval(values, seed)
            result[metric] = {"mean": mean, "se": se, "low": low, "high": high}
        return result


@dataclass(frozen=True, eq=False)
class RatingEvaluation:
    """Predicted and observed ratings of one model, and the metrics of its errors.

    Attributes:
        predicted: Predicted ratings, float [n_ratings].
        ratings: Observed ratings, float [n_ratings].
        user_ids: The rows that have these ratings, each row once.
    """

    predicted: np.ndarray
    ratings: np.ndarray
    user_ids: np.ndarray
    per_user: dict[str, np.ndarray] = field(default_factory=dict, init=False)  # empty: there are no means over users
    n_without_targets: int = field(default=0, init=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the metrics."""
        return tuple(RATING_METRICS)

    @property
    def n_users(self) -> int:
        """Number of users with a rating to predict."""
        return len(self.user_ids)

    def mean(self, metric: str) -> float:
        """The metric over all ratings with equal weights; an unknown name raises InputError."""
        if metric not in RATING_METRICS:
            raise unknown_name("metric of ratings", metric, RATING_METRICS)
        return RATING_METRICS[metric](self.predicted, self.ratings)

    def summary(self) -> dict[str, dict[str, float]]:
        """Each metric's value `mean`, its standard error `se`, and `low` and `high`, which are 1.96 errors away.

        The errors of ratings are treated as independent; the standard error of the RMSE is by the delta method.
        """
        errors = np.abs(np.subtract(self.predicted, self.ratings, dtype=np.float64))
        result = {}
        for metric in RATING_METRICS:
            value = self.mean(metric)
            # If all errors are 0, the root has no derivative, and the standard error is 0.
            spread = np.square(errors).std() / (2 * value) if metric == "rmse" and value else errors.std()
            se = float(spread / np.sqrt(len(errors)))
            result[metric] = {"mean": value, "se": se, "low": value - 1.96 * se, "high": value + 1.96 * se}
        return result


def compare(a: Evaluation, b: Evaluation, metric: str) -> PairedTest:
    """Paired t-test of two models on the same users.

    Args:
        a: One model's evaluation.
        b: The other model's evaluation.
        metric: A metric that both evaluations have.

    Returns:
        The test of the difference a − b.

    Raises:
        InputError: If the users or the metrics differ.
    """
    if not np.array_equal(a.user_ids, b.user_ids):
        raise InputError("a paired test needs two evaluations of the same users in the same order.")
    return paired_test(a.values(metric), b.values(metric))
