"""A training step's losses and gradients compiled by XLA, on batches of few different sizes.

XLA compiles anew for each size of its inputs, and lacks kernels for ragged gathers and sparse products. So the rows are
gathered before, and padded to a power of two of stored items, and what is compiled has the products of `portable_ops`.
XLA also draws other random numbers from the same seed, so that those of the step are drawn before as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from tfvae.nn.batches import SparseBatch
from tfvae.nn.noise import Noise
from tfvae.nn.sparse_ops import portable_ops

__all__ = ["DrawnNoise", "compiled"]

NO_ROW = -1  # the row of a pad; XLA leaves what is added to it out of every sum
NOT_KEPT = 1.0  # what is drawn for a pad


class DrawnNoise(Noise):
    """Random numbers that were drawn before, by name.

    Args:
        drawn: The numbers, by the name under which they are asked for.
    """

    def __init__(self, drawn: Mapping[str, tf.Tensor]):
        self._drawn = drawn

    def uniform(self, shape, name: str) -> tf.Tensor:
        """The draws of this name."""
        return self._drawn[name]

    def normal(self, shape, name: str) -> tf.Tensor:
        """The draws of this name."""
        return self._drawn[name]


def compiled(function: Callable[..., Any], batch: SparseBatch, drawn: Mapping[str, tf.Tensor], share: tf.Tensor) -> Any:
    """What `function(batch, noise, share)` returns, compiled by XLA; slices of tensors are made dense.

    Args:
        function: Takes a batch, a `Noise` and a scalar; returns a structure of tensors.
        batch: A batch of binary rows.
        drawn: The random numbers that the function asks for, by name; those with one axis belong to the stored items.
        share: The scalar.
    """

    @tf.function(jit_compile=True, autograph=False)
    def of_padded(items, segment_ids, lengths, drawn, share):
        with portable_ops():
            found = function(SparseBatch(items, segment_ids, lengths), DrawnNoise(drawn), share)
        return tf.nest.map_structure(lambda part: None if part is None else tf.convert_to_tensor(part), found)

    pads = _power_of_two(tf.size(batch.items)) - tf.size(batch.items)

    def padded(flat: tf.Tensor, pad: float) -> tf.Tensor:
        return tf.pad(flat, [[0, pads]], constant_values=tf.cast(pad, flat.dtype))

    drawn = {name: padded(draw, NOT_KEPT) if draw.shape.rank == 1 else draw for name, draw in drawn.items()}
    return of_padded(padded(batch.items, 0), padded(batch.segment_ids, NO_ROW), batch.lengths, drawn, share)


def _power_of_two(number: tf.Tensor) -> tf.Tensor:
    """The smallest power of two that is no less than an int32 scalar, nor than 1."""
    powers = tf.constant([2**exponent for exponent in range(31)])
    return powers[tf.searchsorted(powers, number[None])[0]]
