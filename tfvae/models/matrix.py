"""Recommenders that are fitted to the whole training matrix at once: in closed form, or by a library."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from scipy.sparse import csr_array

from tfvae.models.base import Recommender

__all__ = ["MatrixRecommender"]


class MatrixRecommender(Recommender):
    """A recommender with one fit instead of epochs; its arguments are those of `Recommender`."""

    part_files: ClassVar[tuple[str, ...]] = ()
    """Patterns of the names of the files in its `folder` from which an interrupted fit goes on; none if it cannot."""

    @classmethod
    def not_streamed(cls, settings: Mapping[str, Any]) -> str | None:
        """Why a model with these settings cannot learn from training rows in shards; None if it can."""
        return "it is fitted to the whole matrix"

    @abc.abstractmethod
    def fit_matrix(self, train: csr_array, log: Callable[[str], None] = print, folder: Path | None = None) -> None:
        """Fits the model.

        Args:
            train: Training rows, sparse [n_users, n_items], each item at most once per user.
            log: Called with one line of progress at a time.
            folder: Where a model with `part_files` keeps its finished parts; other models ignore it.

        Raises:
            InputError: If the matrix has another number of items than the model, or values that it cannot use.
        """
