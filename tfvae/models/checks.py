"""What every baseline asks of its training matrix."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from tfvae.models.base import Recommender
from tfvae.system.errors import InputError

__all__ = ["check_matrix", "check_ratings"]


def check_matrix(model: Recommender, train: csr_array) -> None:
    """Refuses a training matrix of another catalogue, or one that is not binary.

    Args:
        model: To be fitted.
        train: User rows, sparse [n_users, n_items].

    Raises:
        InputError: When it is.
    """
    name = type(model).__name__
    if train.shape[1] != model.n_items:
        raise InputError(f"{name} was made for {model.n_items} items, the training matrix has {train.shape[1]}.")
    if not np.all(train.data == 1):
        raise InputError(f"{name} expects a binary training matrix; found values other than 1.")


def check_ratings(model: Recommender, train: csr_array) -> None:
    """Refuses a matrix of ratings of another catalogue, one without ratings, or with some that are no numbers.

    Args:
        model: To be fitted.
        train: Ratings, sparse [n_users, n_items].

    Raises:
        InputError: When it is.
    """
    name = type(model).__name__
    if train.shape[1] != model.n_items:
        raise InputError(f"{name} was made for {model.n_items} items, the training matrix has {train.shape[1]}.")
    if not train.nnz:
        raise InputError(f"{name} expects a matrix of ratings; found no ratings.")
    if bad := np.count_nonzero(~np.isfinite(train.data)):
        raise InputError(f"{name} expects ratings that are numbers; {bad} of {train.nnz} are not a number.")
