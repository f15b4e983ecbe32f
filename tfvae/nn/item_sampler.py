"""Samples of the catalogue, from which sums over all items are estimated without bias.

Items are drawn independently, with repetitions, from probabilities q. A sum of g over all items is estimated by
1/n · Σ_s g(s) / q_s over the n drawn items s, whose expectation is the sum itself. For a normaliser, a sum of
exponentials of logits, dividing by n·q_s is the same as subtracting log(n·q_s) from the logit, the log-Q correction of
sampled softmax (Bengio and Senécal, IEEE Transactions on Neural Networks 2008).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfvae.nn.batches import HOST
from tfvae.nn.noise import Noise

__all__ = ["ItemSampler", "Sample"]

WORDS = 2**32


class Sample(NamedTuple):
    """Sampled items.

    Attributes:
        items: int32 [m], the distinct items.
        log_weights: float32 [m], the logarithm of what an item counts in an estimated sum: c / (n·q) for an item that
            was drawn c times.
    """

    items: tf.Tensor
    log_weights: tf.Tensor


class ItemSampler:
    """Draws items in proportion to given weights, in a time that hardly depends on their number.

    The weights are rounded to whole 2⁻³²-ths of their sum, at least one for each item, and a draw is one search for a
    random number below 2³² in their sums. So `shares` are exactly the probabilities of the items.

    Example:
        >>> import numpy as np
        >>> from tfvae.nn.item_sampler import ItemSampler
        >>> ItemSampler(np.array([1.0, 3.0]), n_draws=8).shares.round(6).tolist()
        [0.25, 0.75]

    Args:
        weights: float [n_items], none negative and not all 0.
        n_draws: n, the number of draws.

    Attributes:
        shares: float64 [n_items], the probabilities q.
    """

    def __init__(self, weights: np.ndarray, n_draws: int):
        weights = np.asarray(weights, np.float64)
        ends = np.cumsum(weights) / weights.sum() * (WORDS - len(weights))
        ends = np.rint(ends).astype(np.int64) + np.arange(1, len(weights) + 1)
        ends[-1] = WORDS
        self.shares = np.diff(ends, prepend=0) / WORDS
        self._n_draws = n_draws
        with tf.device(HOST):
            self._ends = tf.constant(ends[None])
            self._log_weights = tf.constant(-np.log(n_draws * self.shares), tf.float32)

    def draw(self, noise: Noise) -> Sample:
        """One sample for the whole batch, the same on all replicas."""
        with tf.device(HOST):
            words = noise.common_words([self._n_draws], "items")
            drawn = tf.raw_ops.UpperBound(sorted_inputs=self._ends, values=words[None])[0]
            items, _, counts = tf.unique_with_counts(drawn)
            return Sample(items, tf.gather(self._log_weights, items) + tf.math.log(tf.cast(counts, tf.float32)))
