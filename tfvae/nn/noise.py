"""Random numbers without state: each draw is a function of the run's seed, the update, the replica and a name.

No state has to be stored to resume a run bit for bit. No draw is repeated, since each update, each replica of a
distributed batch and each layer has its own stream.
"""

from __future__ import annotations

import zlib

import numpy as np
import tensorflow as tf

__all__ = ["Noise", "derive_seed"]


def derive_seed(seed: int, name: str) -> int:
    """An independent seed for one use of a run's seed, such as one layer's initialiser.

    Keras initialisers with equal seeds draw equal numbers for equal shapes, so each needs a seed of its own.
    """
    entropy = np.random.SeedSequence([seed, zlib.crc32(name.encode())])
    return int(entropy.generate_state(1)[0] >> 1)


class Noise:
    """The random numbers of one training step.

    A layer that receives a `Noise` is in training; a layer that receives none is deterministic.

    Args:
        seed: The run's seed.
        update: int64 scalar tensor, the number of updates done so far.
    """

    def __init__(self, seed: int, update: tf.Tensor):
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        self._common = tf.stack([tf.constant(seed, tf.int64), tf.cast(update, tf.int64)])
        self._key = tf.random.experimental.stateless_fold_in(self._common, tf.cast(replica, tf.int64))

    def _seed(self, name: str) -> tf.Tensor:
        return tf.random.experimental.stateless_fold_in(self._key, zlib.crc32(name.encode()))

    def uniform(self, shape, name: str) -> tf.Tensor:
        """float32 draws from U[0, 1) of the given shape."""
        return tf.random.stateless_uniform(shape, self._seed(name))

    def common_words(self, shape, name: str) -> tf.Tensor:
        """int64 draws from 0, …, 2³² - 1, all equally likely, of the given shape; the same on all replicas."""
        seed = tf.random.experimental.stateless_fold_in(self._common, zlib.crc32(name.encode()))
        return tf.cast(tf.random.stateless_uniform(shape, seed, None, None, tf.uint32), tf.int64)

    def kept(self, shape, share: float, name: str) -> tf.Tensor:
        """Booleans of the given shape [rows, columns], true with probability `share`; for large dense arrays.

        If `share` is a multiple of 1/256, such as ½, one random byte is enough for each entry, which is four times
        faster.
        """
        threshold = 256 * share
        if threshold != int(threshold):
            return self.uniform(shape, name) < share
        words = tf.concat([shape[:1], -(-shape[1:] // 4)], axis=0)
        bits = tf.random.stateless_uniform(words, self._seed(name), None, None, tf.int32)
        draws = tf.reshape(tf.bitcast(bits, tf.uint8), [shape[0], -1])[:, : shape[1]]
        return draws < tf.constant(int(threshold), tf.uint8)

    def normal(self, shape, name: str) -> tf.Tensor:
        """float32 draws from N(0, 1) of the given shape."""
        return tf.random.stateless_normal(shape, self._seed(name))
