"""Whether the intervals of predicted ratings hold what they say, and what widens or narrows them until they do."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tfvae.data.splits import HeldOut
from tfvae.evaluation.scoring import moments_at
from tfvae.models.base import Recommender, knows_rating_sd

__all__ = ["LEVEL", "TOLERANCE", "Calibration", "calibration"]

LEVEL, Z = 0.95, 1.959964
"""The interval that is looked at, and how many standard deviations it reaches to either side."""
TOLERANCE = 0.03
"""How far the share of ratings inside may be from `LEVEL` before the standard deviations are changed."""
MOST_ROWS = 2000


class Calibration(NamedTuple):
    """What the predicted intervals of held-out ratings are worth.

    Attributes:
        coverage: Share of the ratings in their interval of `LEVEL`, with the model's standard deviations as they are.
        factor: What multiplies the standard deviations so that the share is `LEVEL`; 1 where it is near enough already.
    """

    coverage: float
    factor: float


def calibration(model: Recommender, held_out: HeldOut) -> Calibration | None:
    """Measures the intervals of a model on held-out ratings; nothing is changed.

    Args:
        model: A model.
        held_out: Known ratings and those to predict, such as a validation part.

    Returns:
        The coverage and the factor; None if the model has no standard deviations, or nothing is held out. Of more than
        2,000 rows with a held-out rating so many are looked at, evenly spread, since all items of a row are predicted.

    Raises:
        DivergedError: If a prediction or a standard deviation is NaN or infinite.
    """
    if not knows_rating_sd(model) or not held_out.targets.nnz:
        return None
    asked = np.flatnonzero(np.diff(held_out.targets.indptr))
    asked = asked[:: -(-len(asked) // MOST_ROWS)]
    part = held_out.targets[asked].tocoo()
    predicted, sd = moments_at(model, held_out.history, asked[part.row], part.col)
    found = np.abs(part.data - predicted) / sd
    coverage = float((found <= Z).mean())
    near = abs(coverage - LEVEL) <= TOLERANCE
    return Calibration(coverage, 1.0 if near else float(np.quantile(found, LEVEL)) / Z)
