"""The inverse of a symmetric positive definite matrix in place, block by block, for matrices of any size.

LAPACK's Cholesky inversion in OpenBLAS 0.3.30 was seen to crash on two threads: in float64 at 20,108 rows, in float32
at 40,981. Here only products of narrow blocks and the inversions of small ones are left to BLAS and LAPACK, on all
cores, and progress can be told.

The block sweep (Goodnight, A Tutorial on the SWEEP Operator, The American Statistician 33(3), 1979): with P = A_KK⁻¹,

    A_ij ← A_ij − A_iK P A_Kj,   A_iK ← A_iK P,   A_KK ← −P   for i, j outside of K.

After all blocks K, A is −A⁻¹. That takes as many products as the Cholesky inversion, n³ for n rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["invert_in_blocks"]

BLOCK = 1024
STRIP = 2048


def invert_in_blocks(matrix: np.ndarray, progress: Callable[[int], None] = lambda done: None) -> bool:
    """Replaces the lower triangle of a matrix by that of its inverse.

    Beside the matrix it needs memory for 2 `BLOCK` + `STRIP` of its rows.

    Args:
        matrix: Symmetric, float32 or float64 [n, n], of which only the lower triangle is read and written.
        progress: Called after each block with the number of rows that are done.

    Returns:
        Whether it is positive definite in its precision; if not, its content is of no use.
    """
    n = len(matrix)
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        inverse = _inverse(matrix[start:stop, start:stop])
        if inverse is None:
            return False
        columns = np.empty((n, stop - start), matrix.dtype)
        columns[:start] = matrix[start:stop, :start].T
        columns[start:stop] = matrix[start:stop, start:stop]
        columns[stop:] = matrix[stop:, start:stop]
        weighted = columns @ inverse
        for first in range(0, n, STRIP):
            last = min(first + STRIP, n)
            matrix[first:last, :last] -= weighted[first:last] @ columns[:last].T
        matrix[start:stop, :start] = weighted[:start].T
        matrix[stop:, start:stop] = weighted[stop:]
        matrix[start:stop, start:stop] = -inverse
        progress(stop)
    np.negative(matrix, out=matrix)
    return True


def _inverse(block: np.ndarray) -> np.ndarray | None:
    """The inverse of a small symmetric block, whole; None if the block is not positive definite."""
    from scipy.linalg import get_lapack_funcs  # here, since it is slow to load, and a ranking needs none of it

    factorise, invert = get_lapack_funcs(("potrf", "potri"), dtype=block.dtype)
    factor, failed = factorise(block, lower=1, clean=0)
    if failed:
        return None
    inverse, failed = invert(factor, lower=1, overwrite_c=1)
    if failed:
        return None
    return np.tril(inverse) + np.tril(inverse, -1).T
