"""Alternating least squares on the observed ratings, in NumPy, for PMF, BiasMF and the distances of LLORMA.

With the items fixed, each user's vector is a ridge regression on the vectors of the items they rated. With the users
fixed, each item's vector is such a regression too. The two steps take turns; each lowers the objective. The bias is one
more coefficient: a user's [b_u, p_u] is the regression of r_ui - b_i on [1, q_i]. `models/pmf.py` gives the objectives
and their papers.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

__all__ = ["alternate", "ridge_rows"]

ROWS_AT_ONCE = 1000


def ridge_rows(
    ratings: csr_array, vectors: np.ndarray, offsets: np.ndarray | float, penalties: np.ndarray, weighted: bool
) -> np.ndarray:
    """The ridge regression of each row's ratings on the vectors of the columns that the row rates.

    Args:
        ratings: The ratings, sparse [n_rows, n_columns]; every stored entry counts, and no other.
        vectors: The vectors of the columns, [n_columns, D].
        offsets: [n_columns], what is subtracted from the ratings first; or one number for all columns.
        penalties: [D], the factors of the squared coefficients in the penalty.
        weighted: Whether a row's penalties are multiplied by its number of ratings.

    Returns:
        The coefficients, float64 [n_rows, D]; zeros for a row without ratings.
    """
    n_rows, width = ratings.shape[0], vectors.shape[1]
    starts, columns = ratings.indptr, ratings.indices
    residuals = ratings.data - np.broadcast_to(offsets, len(vectors))[columns]
    ridge = np.diag(penalties)
    found = np.zeros((n_rows, width))
    for first in range(0, n_rows, ROWS_AT_ONCE):
        block = range(first, min(first + ROWS_AT_ONCE, n_rows))
        systems, targets = np.empty((len(block), width, width)), np.empty((len(block), width, 1))
        for place, row in enumerate(block):
            own = slice(starts[row], starts[row + 1])
            regressors = vectors[columns[own]]
            count = max(len(regressors), 1) if weighted else 1
            systems[place] = regressors.T @ regressors + count * ridge
            targets[place, :, 0] = regressors.T @ residuals[own]
        found[block.start : block.stop] = np.linalg.solve(systems, targets)[:, :, 0]
    return found


def alternate(
    ratings: csr_array,
    factors: int,
    regularization: float,
    iterations: int,
    seed: int,
    *,
    weighted: bool = False,
    bias_regularization: float | None = None,
    after: Callable[[int], None] = lambda iteration: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Alternating least squares: each iteration solves for all users, then for all items.

    Args:
        ratings: Sparse [n_users, n_items], float; the caller has already subtracted a mean, if there is to be one.
        factors: K, the number of factors.
        regularization: λ, the penalty of the factors.
        iterations: The number of iterations.
        seed: Seed of the initial item factors, which are drawn from N(0, 1 / K).
        weighted: Whether the penalties of a user or an item are multiplied by their number of ratings.
        bias_regularization: λ_b, the penalty of the biases; None for no biases.
        after: Called after each iteration with its number, counted from 1.

    Returns:
        The vectors of users [n_users, D] and of items [n_items, D], float64; D = K, or 1 + K with the bias first.
    """
    biased = bias_regularization is not None
    penalties = np.array([bias_regularization] * biased + [regularization] * factors)
    by_user = csr_array(ratings, dtype=np.float64)
    by_item = csr_array(by_user.T)
    items = np.zeros((by_user.shape[1], len(penalties)))
    items[:, biased:] = np.random.default_rng(seed).normal(size=(len(items), factors)) / math.sqrt(factors)
    users = np.zeros((by_user.shape[0], len(penalties)))
    with threadpool_limits(1, user_api="blas"):  # the systems are too small to be shared among threads
        for iteration in range(1, iterations + 1):
            users = ridge_rows(by_user, *_regressors(items, biased), penalties, weighted)
            items = ridge_rows(by_item, *_regressors(users, biased), penalties, weighted)
            after(iteration)
    return users, items


def _regressors(fixed: np.ndarray, biased: bool) -> tuple[np.ndarray, np.ndarray | float]:
    """The regressors of the other side, and the offsets that are subtracted from its ratings first."""
    if not biased:
        return fixed, 0.0
    return np.hstack([np.ones((len(fixed), 1)), fixed[:, 1:]]), fixed[:, 0]
