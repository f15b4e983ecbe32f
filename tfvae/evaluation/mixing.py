"""The weights of an ensemble, chosen on held-out data by coordinate search.

From equal weights on, the weight of each member in turn is tried at zero, at half and at twice its value, in this
order, with all of them scaled to the sum of one again. A change is accepted if it is better than the best weights so
far by more than the noise: its gain, paired over users, must exceed one standard error. So the weights of members that
hardly differ stay equal; and a member without which the others do better gets the weight zero, unless a smaller weight
is better than none by as much.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tfvae.data.splits import HeldOut
from tfvae.evaluation.evaluate import evaluator
from tfvae.evaluation.metrics import lower_is_better
from tfvae.evaluation.results import Evaluation, RatingEvaluation
from tfvae.evaluation.stats import mean_and_se
from tfvae.models.ensemble import AnyEnsemble
from tfvae.models.rating_model import RatingModel

__all__ = ["FACTORS", "ROUNDS", "Mixing", "choose_weights"]

FACTORS = (0.0, 0.5, 2.0)
ROUNDS = 3
LEAST_GAIN = 1e-4
"""The gain that counts in a metric of ratings, on the standard scale, on which the ratings span 4."""


class Mixing(NamedTuple):
    """The outcome of the choice.

    Attributes:
        metric: The metric that chose the weights.
        equal: Its value with equal weights.
        chosen: Its value with the weights that were chosen.
        weights: These weights, float64 [n_members], of sum 1.
    """

    metric: str
    equal: float
    chosen: float
    weights: np.ndarray


def choose_weights(
    model: AnyEnsemble,
    held_out: HeldOut,
    metric: str,
    log: Callable[[str], None] = print,
    batch_size: int = 500,
) -> Mixing:
    """Chooses the weights of an ensemble's members on held-out data, and sets them.

    Args:
        model: The ensemble, whose members are trained.
        held_out: Held-out users, items or ratings, such as a validation part.
        metric: The metric that is to be best.
        log: Called with the values of equal and of chosen weights, and the weights.
        batch_size: Rows scored at once.

    Returns:
        The weights, and what they are worth on these data.

    Raises:
        InputError: If the evaluator refuses the metric or the data.
    """
    evaluate = evaluator(model, held_out, [metric], batch_size)  # traced once; it reads the weights anew each time

    def measured(weights: np.ndarray) -> Evaluation | RatingEvaluation:
        model.member_weights.assign(weights.astype(np.float32))
        return evaluate()

    unit = model.rating_unit if isinstance(model, RatingModel) else 1.0
    n_members = len(model.members)
    weights = np.full(n_members, 1 / n_members)
    best = measured(weights)
    equal = best.mean(metric)
    for _ in range(ROUNDS):
        before = weights
        for member in range(n_members):
            start = weights
            for factor in FACTORS:
                tried = np.where(np.arange(n_members) == member, factor * start, start)
                if not tried.any() or np.allclose(tried := tried / tried.sum(), start):
                    continue  # it is the only one left, or has left already
                result = measured(tried)
                gain, needed = _gain(best, result, metric, unit)
                if gain > needed:
                    weights, best = tried, result
        if weights is before:
            break
    model.member_weights.assign(weights.astype(np.float32))
    shown = ", ".join(f"{name} {weight:.3f}" for name, weight in zip(model.member_names, weights, strict=True))
    log(f"Validation {metric}: {equal:.4f} with equal weights, {best.mean(metric):.4f} with those chosen: {shown}.")
    return Mixing(metric, equal, best.mean(metric), weights)


def _gain(
    present: Evaluation | RatingEvaluation, tried: Evaluation | RatingEvaluation, metric: str, unit: float
) -> tuple[float, float]:
    """By how much the tried weights are better than the present ones, and by how much they have to be."""
    if isinstance(present, Evaluation) and isinstance(tried, Evaluation):
        return mean_and_se(tried.values(metric) - present.values(metric))
    assert lower_is_better(metric)
    return present.mean(metric) - tried.mean(metric), LEAST_GAIN * unit
