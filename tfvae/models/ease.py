"""EASE: a linear autoencoder with a zero diagonal, in closed form.

Steck: Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019, section 3. With the Gram matrix
G = X'X of the binary training matrix,

    min_B ‖X − XB‖² + λ‖B‖²   subject to   diag(B) = 0

has the solution

    P = (G + λI)⁻¹,   B_ij = −P_ij / P_jj for i ≠ j.

The division is by the diagonal of the *column*; B is not symmetric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
from pydantic import PositiveFloat
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from tfvae.models.checks import check_matrix
from tfvae.models.fields import Precision
from tfvae.models.inversion import invert_in_blocks
from tfvae.models.item_item import ItemItem, gram
from tfvae.nn.arrays import aligned_zeros
from tfvae.system.errors import InputError
from tfvae.system.progress import OncePerMinute

__all__ = ["EASE"]

ROWS_AT_ONCE = 1000
MOST_AT_ONCE = 25_000  # items whose Gram matrix is left to LAPACK; its inversion of larger ones crashed in OpenBLAS


@keras.saving.register_keras_serializable(package="tfvae")
class EASE(ItemItem):
    """EASE (Steck 2019): scores are the user's row times an item-item matrix B with a zero diagonal.

    Time grows with n_items³, memory with n_items²: 20,108 items take about a minute on two cores and 3.2 GB, 40,981
    items about 12 minutes and 8 GB, and 15 GB while the model is written.

    Example:
        >>> import tfvae
        >>> from scipy.sparse import csr_array
        >>> from tfvae.models.ease import EASE
        >>> train = csr_array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1]])
        >>> model = EASE(4, regularization=1.0)
        >>> model.fit_matrix(train, log=lambda line: None)
        >>> items, scores = tfvae.top_k(model, train, k=1)
        >>> items.tolist()
        [[2], [3], [0]]

    Args:
        n_items: Width of the catalogue, I.
        regularization: λ, on the scale of a number of users; 500 on ML-20M, 1000 on Netflix, 200 on MSD.
        gram_precision: Precision of the Gram matrix and its inverse, "float32" or "float64"; B is stored in float32.
        seed: It has no effect, since nothing is random here; every model takes it.
        **kwargs: Arguments of `keras.Model`.

    Raises:
        TooLargeError: If B alone does not fit in memory.
        InputError: If λ is not positive or `gram_precision` is unknown.
    """

    example_settings: ClassVar[dict[str, Any]] = {
        "regularization": 5.0,
        "gram_precision": "float64",
    }
    checkerboard_settings: ClassVar[dict[str, Any] | None] = {
        "regularization": 1.0,
    }

    def __init__(
        self,
        n_items: int,
        *,
        regularization: PositiveFloat = 500.0,
        gram_precision: Precision = "float32",
        seed: int = 98765,
        **kwargs,
    ):
        super().__init__(n_items, seed=seed, **kwargs)
        self.regularization = regularization
        self.gram_precision = gram_precision

    def penalty(self, item_counts: np.ndarray) -> np.ndarray | float:
        """The number or [n_items] that is added to the Gram matrix's diagonal, given each item's number of users."""
        return self.regularization

    def fit_matrix(self, train: csr_array, log: Callable[[str], None] = print, folder: Path | None = None) -> None:
        """Solves for B.

        Args:
            train: Binary user rows, sparse [n_users, n_items], each item at most once per user.
            log: Called with a line on the memory that is needed, before it is allocated, then with a line of progress.
            folder: It has no effect, since this fit keeps no parts.

        Raises:
            TooLargeError: If the Gram matrix does not fit in memory.
            InputError: If the matrix is not binary or has another number of items, or if no inverse is found.
        """
        from scipy.linalg import get_lapack_funcs  # here, since it is slow to load, and a ranking needs none of it

        check_matrix(self, train)
        name = type(self).__name__
        dtype = np.dtype(self.gram_precision)
        factorise, invert = get_lapack_funcs(("potrf", "potri"), dtype=dtype)
        need = self.require_memory(dtype, "the Gram matrix")
        log(f"{name}: {need} for the Gram matrix of {self.n_items:,} items, inverted in place")
        counts = gram(train, dtype)
        counts[np.diag_indices_from(counts)] += self.penalty(counts.diagonal())
        log(f"{name}: inverting in {self.gram_precision}")
        if self.n_items > MOST_AT_ONCE:
            progress = OncePerMinute(log)
            failed = not invert_in_blocks(
                counts, lambda done: progress(f"{name}: {done:,} of {self.n_items:,} items, {progress.seconds:.0f} s")
            )
            inverse = counts
        else:
            # The transpose of a symmetric C array is the Fortran array that LAPACK overwrites without a copy.
            # In float64 one thread is used, because OpenBLAS was seen to crash on two threads at 20,108 items.
            with threadpool_limits(1 if self.gram_precision == "float64" else None, user_api="blas"):
                inverse, failed = factorise(counts.T, lower=1, clean=0, overwrite_a=1)
                if not failed:
                    inverse, failed = invert(inverse, lower=1, overwrite_c=1)
        if failed:
            raise InputError(
                f"{name}: the Gram matrix could not be inverted in {self.gram_precision} with regularization "
                f"{self.regularization}; raise it, or use gram_precision float64."
            )
        weights = counts if dtype == np.float32 else aligned_zeros(counts.shape, np.float32)
        for rows, block in _weights(inverse):
            weights[rows] = block
        self.take(weights)


def _weights(inverse: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """B in blocks of rows, computed from P, of which only the lower triangle is valid.

    A block may be written as rows of the C array on P's memory, since no later block reads what is lost by that.
    """
    n_items = len(inverse)
    diagonal = inverse.diagonal().copy()
    starts = range(0, n_items, ROWS_AT_ONCE)
    # Rows of the C array are columns of a Fortran one, of which the blocks above do not read those that are behind.
    for start in starts if inverse.flags.c_contiguous else reversed(starts):
        stop = min(start + ROWS_AT_ONCE, n_items)
        square = np.tril(inverse[start:stop, start:stop])
        square += np.tril(square, -1).T
        block = np.hstack([inverse[start:stop, :start], square, inverse[stop:, start:stop].T])
        block /= -diagonal
        block[np.arange(stop - start), np.arange(start, stop)] = 0
        yield slice(start, stop), block.astype(np.float32, copy=False)
