"""Training rows that stay on the disk: streamed by their numbers, as those in memory are, and read in each step."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfvae.data.row_shards import RowShards
from tfvae.nn.batches import HOST, SparseBatch

__all__ = ["ShardedRows"]

BATCHES_AHEAD = 4
"""How many batches are fetched in advance: a slow disk may take as long for one as some steps take."""


class ShardedRows:
    """A binary user-by-item matrix in files, which takes the place of a `RowStore` in training.

    tf.data streams the same row numbers in the same order as for a `RowStore`, so a run, resumed or not, has the same
    bits. While a step is computed, the operating system reads the rows of the next ones.

    Args:
        shards: The rows; their files are checked here.

    Raises:
        InputError: If a file is missing or damaged; the message names it.
    """

    def __init__(self, shards: RowShards):
        self.n_rows, self.n_items = shards.shape
        self._reader = shards.open()

    def gather(self, users: tf.Tensor) -> SparseBatch:
        """The rows of a batch, in the wire format and in the order of `users`, int [B]."""
        with tf.device(HOST):
            items, lengths = tf.numpy_function(self._reader.rows, [users], [tf.int32, tf.int32])
            items, lengths = tf.ensure_shape(items, [None]), tf.ensure_shape(lengths, users.shape)
            return SparseBatch(
                items=items,
                segment_ids=tf.repeat(tf.range(tf.size(lengths)), lengths),
                lengths=tf.cast(lengths, tf.float32),
                users=users,
            )

    def ahead(self, numbers: tf.data.Dataset) -> tf.data.Dataset:
        """The same batches of row numbers, whose rows are fetched from the disk before they are used."""

        def fetched(users: tf.Tensor) -> tf.Tensor:
            return tf.ensure_shape(tf.numpy_function(self._fetched, [users], tf.int64), [None])

        return numbers.map(fetched).prefetch(BATCHES_AHEAD)

    def _fetched(self, users: np.ndarray) -> np.ndarray:
        self._reader.fetch(users)
        return users
