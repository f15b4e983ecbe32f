"""Prediction of held-out ratings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from tfvae.data.splits import HeldOutRatings
from tfvae.evaluation.groups import groups_by_size
from tfvae.evaluation.metrics import RATING_METRICS
from tfvae.evaluation.results import RatingEvaluation
from tfvae.evaluation.scoring import pair_scorer
from tfvae.models.base import Recommender
from tfvae.system.errors import InputError, unknown_name

__all__ = ["RatingEvaluator", "bounded", "centred", "errors_by_number"]


class RatingEvaluator:
    """Evaluates one model on one group of held-out ratings; it can be called repeatedly, and traces the model once.

    Args:
        model: The model; its weights may change between calls.
        held_out: The known ratings and the ratings to predict.
        metrics: Names in `RATING_METRICS`; whatever the names, all metrics are computed.
        batch_size: Rows scored at once; a larger number needs more memory and changes no result.

    Raises:
        InputError: If a metric is unknown, there are no targets, or the model has another number of items.
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


def errors_by_number(
    evaluation: RatingEvaluation, held_out: HeldOutRatings, *, users_are_rows: bool = True
) -> list[dict[str, Any]]:
    """The RMSE in groups of held-out ratings, by how many ratings of their users are known.

    Args:
        evaluation: The predictions of these held-out ratings.
        held_out: The known ratings and those to predict.
        users_are_rows: Whether the rows are users; else, the columns are.

    Returns:
        Up to five groups from the fewest ratings to the most, each with the smallest number of ratings, "at_least";
        the number "to", which only the last group includes; the number of its held-out "ratings"; and its "rmse".
    """
    rows, columns, _ = held_out.triples()
    history = held_out.history
    if users_are_rows:
        known = np.diff(history.indptr)[rows]
    else:
        known = np.bincount(history.indices, minlength=history.shape[1])[columns]
    squares = np.square(np.subtract(evaluation.predicted, evaluation.ratings, dtype=np.float64))
    groups = groups_by_size(known)
    counts = np.bincount(groups.number)
    means = np.bincount(groups.number, weights=squares) / counts
    return [
        {"at_least": low, "to": high, "ratings": int(count), "rmse": float(np.sqrt(mean))}
        for (low, high), count, mean in zip(groups.bounds, counts, means, strict=True)
    ]


def bounded(predicted: np.ndarray, histories: csr_array, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Predictions clipped to the range of the known ratings; cold rows and columns get the middle of the range.

    AutoRec's authors evaluate in this way. A row or column is cold if it has no known rating to predict from.

    Args:
        predicted: float [n] or [..., n].
        histories: The known ratings.
        rows: Row of each prediction, int [n].
        columns: Column of each prediction, int [n].

    Returns:
        The bounded predictions, of the same shape.
    """
    low, high = histories.data.min(), histories.data.max()
    return centred(np.clip(predicted, low, high), histories, rows, columns)


def centred(predicted: np.ndarray, histories: csr_array, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Predictions as they are, but in cold rows and columns the middle of the range of the known ratings.

    Args:
        predicted: float [n] or [..., n].
        histories: The known ratings.
        rows: Row of each prediction, int [n].
        columns: Column of each prediction, int [n].

    Returns:
        The predictions, of the same shape.
    """
    cold_rows = np.diff(histories.indptr) == 0
    cold_columns = np.bincount(histories.indices, minlength=histories.shape[1]) == 0
    middle = (histories.data.min() + histories.data.max()) / 2
    return np.where(cold_rows[rows] | cold_columns[columns], middle, predicted)
