"""Ranking in the graph: the best items outside a history, NDCG of scores, and scores that can be added up.

`tfvae.evaluation.metrics` has the definitions, in NumPy; the functions here stay in the graph, for evaluation and for
losses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tfvae.nn.batches import SparseBatch

__all__ = ["EMPTY_RANK", "best_in_blocks", "best_unseen", "ndcg_of_unseen", "standardized"]

EMPTY_RANK = -1
LEAST_IDEAL = 0.1
NO_SPREAD = 1e-6
"""A row whose standard deviation is a smaller share of its largest score has no spread but that of rounding."""


def best_unseen(
    scores: tf.Tensor, batch: SparseBatch, k: tf.Tensor | int, *, again: bool = False
) -> tuple[tf.Tensor, tf.Tensor]:
    """The best items outside each user's history; equal scores are ranked by item number.

    Args:
        scores: float32 [B, n_items].
        batch: The B histories.
        k: Length of the rankings, a number or an int32 scalar tensor.
        again: Whether items of the history are ranked as well.

    Returns:
        Items, int32 [B, k], and their scores, float32 [B, k]; an empty rank has item −1 and score −∞.
    """
    n_items = tf.shape(scores)[1]
    if not again:
        seen = tf.stack([batch.segment_ids, batch.items], axis=1)
        scores = tf.tensor_scatter_nd_update(scores, seen, tf.fill(tf.shape(batch.items), -np.inf))
    best, items = tf.math.top_k(scores, tf.minimum(k, n_items))
    items = tf.where(best <= tf.float32.min, EMPTY_RANK, items)  # LiteRT makes −∞ the lowest finite number
    beyond = [[0, 0], [0, tf.maximum(k - n_items, 0)]]
    return tf.pad(items, beyond, constant_values=EMPTY_RANK), tf.pad(best, beyond, constant_values=-np.inf)


def best_in_blocks(
    score: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    n_items: int,
    block: int,
    batch: SparseBatch,
    k: tf.Tensor | int,
    *,
    again: bool = False,
    allowed: Sequence[tf.Tensor] = (),
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The same as `best_unseen` of all scores, which are computed in blocks of items and never all kept.

    Args:
        score: From the first item of a block and the one after its last, int32 scalars, to float32 [B, items].
        n_items: Number of all items.
        block: Number of items in a block.
        batch: The B histories.
        k: Length of the rankings, a number or an int32 scalar tensor.
        again: Whether items of the history are ranked as well.
        allowed: Masks, bool [..., n_items], of what may be ranked.

    Returns:
        Items, int32 [B, k], their scores, float32 [B, k], and whether all scores of a user are finite, bool [B].
    """
    n_users = tf.shape(batch.lengths)[0]

    def merged(start, items, best, finite):
        stop = tf.minimum(start + block, n_items)
        scores = score(start, stop)
        finite &= tf.reduce_all(tf.math.is_finite(scores), axis=1)
        for mask in allowed:
            scores = tf.where(mask[..., start:stop], scores, -np.inf)
        inside = (batch.items >= start) & (batch.items < stop)
        own, rows = tf.boolean_mask(batch.items, inside) - start, tf.boolean_mask(batch.segment_ids, inside)
        found, values = best_unseen(scores, batch._replace(items=own, segment_ids=rows), k, again=again)
        found = tf.where(found == EMPTY_RANK, EMPTY_RANK, found + start)
        # Of equal scores `top_k` takes the first, and the items of earlier blocks come first.
        best, places = tf.math.top_k(tf.concat([best, values], axis=1), k)
        return stop, tf.gather(tf.concat([items, found], axis=1), places, batch_dims=1), best, finite

    empty = tf.fill([n_users, k], EMPTY_RANK), tf.fill([n_users, k], np.float32(-np.inf)), tf.fill([n_users], True)
    shapes = [tf.TensorShape(shape) for shape in ([], [None, None], [None, None], [None])]
    _, items, best, finite = tf.while_loop(
        lambda start, *_: start < n_items,
        merged,
        (tf.zeros([], tf.int32), *empty),
        shape_invariants=tuple(shapes),
        parallel_iterations=1,
    )
    return items, best, finite


def ndcg_of_unseen(scores: tf.Tensor, batch: SparseBatch, seen: tf.Tensor, k: int) -> tf.Tensor:
    """NDCG@k of the items that a user has but that were not shown, ranked among all items that were not shown.

    It is `metrics.ndcg` with an ideal DCG of at least 0.1, as in RaCT's code. So a user whose items were all shown has
    an NDCG of 0.

    Args:
        scores: float32 [B, n_items].
        batch: The whole histories of B users.
        seen: Whether each of their items was shown, bool [nnz].
        k: Length of the rankings.

    Returns:
        float32 [B], in [0, 1].
    """
    n_users, n_items = (tf.cast(size, tf.int64) for size in tf.unstack(tf.shape(scores)))
    items, segment_ids = tf.boolean_mask(batch.items, seen), tf.boolean_mask(batch.segment_ids, seen)
    ranked, _ = best_unseen(scores, batch._replace(items=items, segment_ids=segment_ids), k)
    unseen = tf.logical_not(seen)
    # Each pair of user and item has a number, so that one search finds the hits of all users.
    keys = tf.cast(tf.boolean_mask(batch.segment_ids, unseen), tf.int64) * n_items
    keys = tf.sort(keys + tf.cast(tf.boolean_mask(batch.items, unseen), tf.int64))
    keys = tf.concat([keys, [n_users * n_items]], axis=0)  # so that a search always ends at a key
    wanted = tf.range(n_users)[:, None] * n_items + tf.cast(ranked, tf.int64)
    at = tf.searchsorted(keys, tf.reshape(wanted, [-1]), out_type=tf.int64)  # int32 is reshaped on the host
    hits = tf.reshape(tf.gather(keys, at), tf.shape(wanted)) == wanted
    hits &= ranked != EMPTY_RANK

    discounts = (1 / np.log2(np.arange(2, k + 2))).astype(np.float32)
    ideal = tf.constant(np.concatenate([[0], np.cumsum(discounts)]).astype(np.float32))
    n_unseen = tf.math.unsorted_segment_sum(tf.cast(unseen, tf.int32), batch.segment_ids, tf.shape(scores)[0])
    gain = tf.linalg.matvec(tf.cast(hits, tf.float32), discounts)
    return gain / tf.maximum(tf.gather(ideal, tf.minimum(n_unseen, k)), LEAST_IDEAL)


def standardized(scores: tf.Tensor) -> tf.Tensor:
    """Scores less their mean over the catalogue, divided by their standard deviation over it, user by user.

    Args:
        scores: float [B, n_items].

    Returns:
        float [B, n_items]; zeros for a row without spread. NaN and infinite scores make their row NaN.
    """
    # Few operations go over the catalogue: of 41,000 items these cost nearly as much as the product of a decoder.
    highest, lowest = tf.reduce_max(scores, axis=1, keepdims=True), tf.reduce_min(scores, axis=1, keepdims=True)
    centred = scores - tf.reduce_mean(scores, axis=1, keepdims=True)
    spread = tf.sqrt(tf.reduce_mean(tf.square(centred), axis=1, keepdims=True))
    # The comparison is false for NaN, so that a diverged member is not taken for one that has nothing to say.
    flat = spread <= NO_SPREAD * tf.maximum(highest, -lowest)
    return centred * tf.where(flat, tf.zeros_like(spread), 1 / spread)
