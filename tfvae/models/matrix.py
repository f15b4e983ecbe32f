"""Recommenders that are fitted to the whole training matrix at once: in closed form, or by a library."""

from __future__ import annotations

import abc
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from scipy.sparse import csr_array

from tfvae.models.base import Recommender

__all__ = ["MatrixRecommender"]


class MatrixRecommender(Recommender):
    """A recommender with one fit instead of epochs; its arguments are those of `Recommender`."""

    resumes_fit: ClassVar[bool] = False
    """Whether an interrupted fit continues from the files in its `folder`."""

    @abc.abstractmethod
    def fit_matrix(self, train: csr_array, log: Callable[[str], None] = print, folder: Path | None = None) -> None:
        """Fits the model.

        Args:
            train: Training rows, sparse [n_users, n_items], each item at most once per user.
            log: Called with one line of progress at a time.
            folder: Where a model that `resumes_fit` keeps finished parts; other models ignore it.

        Raises:
            InputError: If the matrix has another number of items, or its values are not what the model needs.
        """
