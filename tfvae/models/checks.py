"""Checks of the matrix that a model is trained on, and of the rows that it is asked to score."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from scipy.sparse import csr_array

from tfvae.models.base import Recommender
from tfvae.nn.batches import SparseBatch
from tfvae.system.errors import InputError

__all__ = ["check_matrix", "check_ratings", "require_ratings", "require_users", "user_means"]


def check_matrix(model: Recommender, train: csr_array) -> None:
    """Refuses a training matrix that has another number of items than the model, or that is not binary.

    Args:
        model: The model to be fitted.
        train: User rows, sparse [n_users, n_items].

    Raises:
        InputError: If the number of items differs or a stored value is not 1.
    """
    name = type(model).__name__
    if train.shape[1] != model.n_items:
        raise InputError(f"{name} was made for {model.n_items} items, the training matrix has {train.shape[1]}.")
    if not np.all(train.data == 1):
        raise InputError(f"{name} expects a binary training matrix; found values other than 1.")


def check_ratings(model: Recommender, train: csr_array) -> None:
    """Refuses a matrix without ratings, with NaN or infinite ones, or with another number of items than the model.

    Args:
        model: The model to be fitted.
        train: Ratings, sparse [n_users, n_items].

    Raises:
        InputError: If the number of items differs, there are no ratings, or a rating is NaN or infinite.
    """
    name = type(model).__name__
    if train.shape[1] != model.n_items:
        raise InputError(f"{name} was made for {model.n_items} items, the training matrix has {train.shape[1]}.")
    if not train.nnz:
        raise InputError(f"{name} expects a matrix of ratings; found no ratings.")
    if bad := np.count_nonzero(~np.isfinite(train.data)):
        raise InputError(f"{name} expects ratings that are numbers; {bad} of {train.nnz} are not a number.")


def require_ratings(model: Recommender, train: csr_array) -> None:
    """Refuses a training matrix that does not hold the ratings of the model's own users and items.

    Raises:
        InputError: If `check_ratings` refuses the matrix, or the number of users differs.
    """
    check_ratings(model, train)
    if train.shape[0] != model.n_users:
        raise InputError(
            f"{type(model).__name__} was made for {model.n_users} users, the training matrix has {train.shape[0]}."
        )


def require_users(model: Recommender, batch: SparseBatch) -> tf.Tensor:
    """The row numbers of B users, int64 [B].

    Raises:
        InputError: If the batch has no row numbers, since the model has weights for its training users only.
    """
    if batch.users is None:
        other = "pmf" if model.predicts_ratings else "mult-dae"
        raise InputError(
            f"{type(model).__name__} knows only the {model.n_users} users it was trained on; give it rows of its "
            f"training matrix, or take a model that scores new users, such as {other}."
        )
    return batch.users


def user_means(batch: SparseBatch, terms: tf.Tensor) -> tf.Tensor:
    """The sum of one term for each rating, [nnz], divided by the number of users: a scalar, NaN without users."""
    return tf.reduce_sum(terms) / tf.cast(tf.shape(batch.lengths)[0], tf.float32)
