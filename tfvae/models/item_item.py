"""The base class of baselines whose model is an item-item matrix: its scores and memory, and the Gram matrix."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import psutil
import tensorflow as tf
from numpy.typing import DTypeLike
from scipy.sparse import csr_array

from tfvae.models.matrix import MatrixRecommender
from tfvae.nn.arrays import aligned_zeros, handed_over
from tfvae.nn.batches import SparseBatch
from tfvae.nn.sparse_ops import binary_matmul
from tfvae.system.errors import TooLargeError

__all__ = ["ItemItem", "gram"]


class ItemItem(MatrixRecommender):
    """A recommender whose scores are the user's row times an item-item matrix; a subclass fits the matrix.

    Args:
        n_items: Width of the catalogue, I.
        seed: It has no effect, since nothing is random here; every model takes it.
        **kwargs: Arguments of `keras.Model`.

    Attributes:
        item_weights: float32 weight [n_items, n_items]; column j holds what each item adds to the score of item j.

    Raises:
        TooLargeError: If the matrix does not fit in memory.
    """

    is_deterministic: ClassVar[bool] = True

    def __init__(self, n_items: int, *, seed: int = 98765, **kwargs):
        super().__init__(n_items, seed=seed, **kwargs)
        self.require_memory(np.float32, "the item-item matrix")
        self.item_weights = self.add_weight(
            name="item_weights",
            shape=(n_items, n_items),
            dtype="float32",
            initializer=lambda shape, dtype: handed_over(aligned_zeros(shape, dtype)),
            trainable=False,
            autocast=False,
        )
        self.build()

    def scores(self, batch: SparseBatch) -> tf.Tensor:
        """The sum of the matrix rows of each user's items, float32 [B, n_items]."""
        matrix = tf.convert_to_tensor(self.item_weights.value)
        total = binary_matmul(matrix, batch.items, batch.segment_ids, tf.shape(batch.lengths)[0])
        return tf.ensure_shape(total, (None, self.n_items))

    def map_row(self, item: int) -> tf.Tensor:
        """A row of the matrix, float32 [n_items]; see `HasItemMap`."""
        return tf.gather(tf.convert_to_tensor(self.item_weights.value), item)

    def take(self, matrix: np.ndarray) -> None:
        """Makes an array the model's matrix, without a copy of it on the CPU.

        Args:
            matrix: float32 [n_items, n_items] from `aligned_zeros`, which nobody may write to any more.
        """
        self.item_weights.assign(handed_over(matrix))

    def save_own_variables(self, store: Any) -> None:
        """Saves the weights as every model of Keras does, with one copy of the matrix instead of two."""
        for number, variable in enumerate([*self.trainable_variables, *self.non_trainable_variables]):
            store[str(number)] = np.asarray(memoryview(tf.convert_to_tensor(variable.value)))

    def require_memory(self, dtype: DTypeLike, what: str) -> str:
        """The size of an item-item matrix, as a text such as "3.23 GB"; raises if memory cannot hold the matrix.

        Args:
            dtype: Type of the matrix.
            what: Name of the matrix in the error.

        Raises:
            TooLargeError: If the matrix is larger than the free memory.
        """
        need, free = self.n_items**2 * np.dtype(dtype).itemsize, psutil.virtual_memory().available
        if need > free:
            raise TooLargeError(
                f"{type(self).__name__}: {what} of {self.n_items:,} items needs {need / 1e9:,.2f} GB in "
                f"{np.dtype(dtype).name}, and {free / 1e9:,.2f} GB are free; keep fewer items (min_users_per_item), "
                "use gram_precision float32, or take a model whose memory grows with n_items only, such as rp3beta, or "
                "mult-dae with n_sampled=1024."
            )
        return f"{need / 1e9:,.2f} GB"


def gram(train: csr_array, dtype: DTypeLike = np.float32) -> np.ndarray:
    """X'X of a binary matrix, item by item: row i counts the items of the users that have item i.

    Counting needs no memory beyond the result, and is faster than a sparse product, whose result would be
    nearly dense. The counts are exact; in float32 they are so up to 2²⁴ users.

    Args:
        train: Binary user rows, sparse [n_users, n_items], each item at most once per user.
        dtype: Type of the result.

    Returns:
        Co-occurrence counts, [n_items, n_items], with the item counts on the diagonal; an array from `aligned_zeros`.
    """
    n_items = train.shape[1]
    by_item = train.tocsc()
    counts = aligned_zeros((n_items, n_items), dtype)
    for item in range(n_items):
        users = by_item.indices[by_item.indptr[item] : by_item.indptr[item + 1]]
        counts[item] = np.bincount(train[users].indices, minlength=n_items)
    return counts
