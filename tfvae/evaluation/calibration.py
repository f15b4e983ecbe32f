"""Whether the intervals of predicted ratings hold what they say, and what widens or narrows them until they do."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfvae.data.splits import HeldOut
from tfvae.models.base import Recommender, knows_rating_sd
from tfvae.nn.batches import RowStore

__all__ = ["LEVEL", "TOLERANCE", "Calibration", "calibration"]

LEVEL, Z = 0.95, 1.959964
"""The interval that is looked at, and how many standard deviations it reaches to either side."""
TOLERANCE = 0.03
"""How far the share of ratings inside may be from `LEVEL` before the standard deviations are changed."""
ROWS_AT_ONCE, MOST_ROWS = 200, 2000


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
    """
    if not knows_rating_sd(model) or not held_out.targets.nnz:
        return None
    store = RowStore(held_out.history, with_values=True)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, 2], tf.int64)], autograph=False)
    def at(rows: tf.Tensor, places: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        batch = store.gather(rows)
        return tf.gather_nd(model.scores(batch), places), tf.gather_nd(model.rating_sd(batch), places)

    asked = np.flatnonzero(np.diff(held_out.targets.indptr))
    asked = asked[:: -(-len(asked) // MOST_ROWS)]
    deviations = []
    for first in range(0, len(asked), ROWS_AT_ONCE):
        rows = asked[first : first + ROWS_AT_ONCE]
        part = held_out.targets[rows].tocoo()
        predicted, sd = at(tf.constant(rows), tf.constant(np.column_stack([part.row, part.col]), tf.int64))
        deviations.append(np.abs(part.data - predicted.numpy()) / sd.numpy())
    found = np.concatenate(deviations)
    coverage = float((found <= Z).mean())
    near = abs(coverage - LEVEL) <= TOLERANCE
    return Calibration(coverage, 1.0 if near else float(np.quantile(found, LEVEL)) / Z)
