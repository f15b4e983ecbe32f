"""What models of ratings with weights for each training user have in common."""

from __future__ import annotations

import scipy.sparse as sp
import tensorflow as tf

from tfvae.models.base import Recommender
from tfvae.models.checks import check_ratings
from tfvae.nn.batches import SparseBatch
from tfvae.system.errors import InputError

__all__ = ["require_ratings", "require_users", "user_means"]


def require_ratings(model: Recommender, train: sp.csr_array) -> None:
    """Refuses a training matrix that is not the ratings of the model's own users and items.

    Raises:
        InputError: When it is not.
    """
    check_ratings(model, train)
    if train.shape[0] != model.n_users:
        raise InputError(
            f"{type(model).__name__} was made for {model.n_users} users, the training matrix has {train.shape[0]}."
        )


def require_users(model: Recommender, batch: SparseBatch) -> tf.Tensor:
    """The row numbers of B users, int64 [B].

    Raises:
        InputError: When they have none, since the model has weights for its training users only.
    """
    if batch.users is None:
        raise InputError(
            f"{type(model).__name__} knows the users it was trained on and no others; give it rows of its training "
            "matrix, or take a model that answers for strangers, such as pmf or bias-mf."
        )
    return batch.users


def user_means(batch: SparseBatch, terms: tf.Tensor) -> tf.Tensor:
    """The mean over users of the sums of terms of their ratings [nnz]: a scalar; a mean of nothing without users."""
    return tf.reduce_sum(terms) / tf.cast(tf.shape(batch.lengths)[0], tf.float32)
