"""What every baseline asks of its training matrix."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from tfvae.errors import InputError
from tfvae.models.base import Recommender

__all__ = ["check_matrix"]


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
