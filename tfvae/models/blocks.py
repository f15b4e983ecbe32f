"""Rankings of a large catalogue: scores in blocks of items, of which only the best so far are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import tensorflow as tf

from tfvae.models.base import Recommender
from tfvae.nn.batches import SparseBatch
from tfvae.nn.ranking import best_in_blocks, best_unseen
from tfvae.nn.sparse_ops import is_portable

__all__ = ["BLOCK", "ScoresBlocks", "best_of_model"]

BLOCK = 50_000
"""Items scored at once. A larger catalogue is ranked in blocks, so that a batch takes memory for this many scores."""


@runtime_checkable
class ScoresBlocks(Protocol):
    """A model that scores the items from one number to another at the cost of these items only."""

    def block_input(self, batch: SparseBatch) -> tf.Tensor:
        """What the scores of B histories are computed from, [B, d]; it is computed once for all blocks."""

    def scores_of_block(self, code: tf.Tensor, start: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
        """The scores of some items, float32 [B, stop - start], which are columns of `scores`.

        Args:
            code: The result of `block_input`.
            start: The first item, an int32 scalar.
            stop: The item after the last one.
        """


def best_of_model(
    model: Recommender,
    batch: SparseBatch,
    k: tf.Tensor | int,
    *,
    histories: SparseBatch | None = None,
    again: bool = False,
    allowed: Sequence[tf.Tensor] = (),
    check: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The best items outside each user's history, in blocks where the catalogue is large and the model can do so.

    Args:
        model: The model.
        batch: B users.
        k: Length of the rankings, a number or an int32 scalar tensor.
        histories: The items that are not ranked, if they are not those of `batch`.
        again: Whether these are ranked as well.
        allowed: Masks, bool [..., n_items], of what may be ranked.
        check: Called with all scores, or with those of each block; returns them.

    Returns:
        Items, int32 [B, k], and scores, float32 [B, k], as `best_unseen` has them, and whether all scores of a user are
        finite, bool [B].
    """
    seen = batch if histories is None else histories
    if model.n_items > BLOCK and isinstance(model, ScoresBlocks) and not is_portable():
        code = model.block_input(batch)

        def score(start: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
            return check(tf.cast(model.scores_of_block(code, start, stop), tf.float32))

        return best_in_blocks(score, model.n_items, BLOCK, seen, k, again=again, allowed=allowed)
    scores = check(tf.cast(model.scores(batch), tf.float32))
    finite = tf.reduce_all(tf.math.is_finite(scores), axis=1)
    for mask in allowed:
        scores = tf.where(mask, scores, -np.inf)
    return *best_unseen(scores, seen, k, again=again), finite
