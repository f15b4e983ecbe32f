"""Popularity: every user is recommended the items that most users have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from scipy.sparse import csr_array

from tfvae.data.row_shards import RowShards, item_counts
from tfvae.models.matrix import MatrixRecommender
from tfvae.nn.batches import SparseBatch

__all__ = ["Popularity"]


@keras.saving.register_keras_serializable(package="tfvae")
class Popularity(MatrixRecommender):
    """Scores an item by the number of training users that have it, the same for everyone.

    Items of equal count are ranked by item number.

    Example:
        >>> import tfvae
        >>> from scipy.sparse import csr_array
        >>> from tfvae.models.popularity import Popularity
        >>> train = csr_array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1]])
        >>> model = Popularity(4)
        >>> model.fit_matrix(train, log=lambda line: None)
        >>> items, scores = tfvae.top_k(model, train, k=1)
        >>> items.tolist()
        [[2], [3], [0]]

    Args:
        n_items: Width of the catalogue.
        seed: It has no effect, since nothing is random here; every model takes it.
        **kwargs: Arguments of `keras.Model`.
    """

    example_settings: ClassVar[dict[str, Any]] = {}
    checkerboard_settings: ClassVar[dict[str, Any] | None] = None

    is_deterministic: ClassVar[bool] = True

    def __init__(self, n_items: int, *, seed: int = 98765, **kwargs):
        super().__init__(n_items, seed=seed, **kwargs)
        self.item_counts = self.add_weight(
            name="item_counts",
            shape=(n_items,),
            dtype="float32",
            initializer="zeros",
            trainable=False,
            autocast=False,
        )
        self.build()

    @classmethod
    def not_streamed(cls, settings: Mapping[str, Any]) -> str | None:
        """See `MatrixRecommender`; shards come with the counts."""
        return None

    def fit_matrix(
        self, train: csr_array | RowShards, log: Callable[[str], None] = print, folder: Path | None = None
    ) -> None:
        """Counts the users of each item.

        Args:
            train: Binary user rows, sparse [n_users, n_items], or the same in shards.
            log: Called with one line of progress.
            folder: It has no effect, since this fit keeps no parts.
        """
        log(f"popularity: counting {train.nnz:,} interactions")
        self.item_counts.assign(item_counts(train).astype(np.float32))

    def scores(self, batch: SparseBatch) -> tf.Tensor:
        """The item counts for each of B histories, float32 [B, n_items]."""
        return tf.tile(self.item_counts.value[None, :], [tf.shape(batch.lengths)[0], 1])
