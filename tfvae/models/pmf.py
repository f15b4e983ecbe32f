"""PMF and BiasMF: factors of users and items that predict ratings, by alternating least squares.

Salakhutdinov, Mnih: Probabilistic Matrix Factorization, NIPS 2007 (equation 4), and Koren, Bell, Volinsky: Matrix
Factorization Techniques for Recommender Systems, Computer 42(8), 2009 (equations 4 and 5). Over the ratings r_ui that
are there, with the mean rating μ taken off first,

    PMF:      min Σ (r_ui − μ − p_u·q_i)²              + λ(Σ_u ‖p_u‖² + Σ_i ‖q_i‖²)
    BiasMF:   min Σ (r_ui − μ − b_u − b_i − p_u·q_i)²  + λ(Σ_u ‖p_u‖² + Σ_i ‖q_i‖²) + λ_b(Σ_u b_u² + Σ_i b_i²)

With the items fixed each user is a ridge regression on the vectors of the items rated, with the users fixed each item;
the two take turns, which lowers the objective each time. The bias is one more coefficient: a user's [b_u, p_u] is found
on [1, q_i] for what b_i leaves. Weighted regularisation (ALS-WR; Zhou et al., AAIM 2008, section 3) multiplies each
user's and item's penalty by the number of its ratings.

A user is always answered by that same step from the items as they were trained, so that the items are all that the
model keeps and users it has never met are no others.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from pydantic import PositiveFloat, PositiveInt
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from tfvae.models.base import Recommender
from tfvae.models.checks import check_ratings
from tfvae.nn.batches import SparseBatch
from tfvae.nn.gaussian_ratings import GaussianRatings
from tfvae.nn.noise import derive_seed
from tfvae.system.errors import InputError

__all__ = ["PMF", "BiasMF", "alternate", "ridge_rows"]

SECONDS_BETWEEN_REPORTS = 60
ROWS_AT_ONCE = 1000


def ridge_rows(
    ratings: csr_array, vectors: np.ndarray, offsets: np.ndarray | float, penalties: np.ndarray, weighted: bool
) -> np.ndarray:
    """The ridge regression of each row's ratings on the vectors of the columns that are rated in it.

    Args:
        ratings: Sparse [n_rows, n_columns], of which the stored entries are regressed.
        vectors: [n_columns, D].
        offsets: [n_columns], taken off the ratings first; or one for all.
        penalties: [D], of the square of each coefficient.
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
    """Alternating least squares: all users, then all items, in turn.

    Args:
        ratings: Sparse [n_users, n_items], float; what is to be subtracted is subtracted.
        factors: K.
        regularization: λ, of the factors.
        iterations: How often the two take turns.
        seed: Of the item factors that it starts from, N(0, 1 / K).
        weighted: Whether penalties are multiplied by the numbers of ratings.
        bias_regularization: λ_b, of biases; None for no biases.
        after: Called after each iteration with its number, counted from 1.

    Returns:
        Users [n_users, D] and items [n_items, D], float64; D = K, or 1 + K with the bias first.
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
    """What the other side is regressed on, and what is taken off its ratings first."""
    if not biased:
        return fixed, 0.0
    return np.hstack([np.ones((len(fixed), 1)), fixed[:, 1:]]), fixed[:, 0]


@keras.saving.register_keras_serializable(package="tfvae")
class PMF(Recommender):
    """PMF at its maximum a posteriori: a rating is μ + p_u·q_i.

    In the paper λ is σ² / σ_U² = σ² / σ_V²: the variance of the ratings' noise over that of the factors' priors.

    Args:
        n_items: Width of the catalogue, I.
        factors: Length of a user's and an item's vector, K.
        regularization: λ, in squared units of the ratings. The best on ML-1M is some 11, or 0.06 when it is weighted.
        weighted_regularization: Whether a user's and an item's λ is multiplied by the number of its ratings.
        iterations: Rounds of all users, then all items.
        seed: Of the initial factors.
        **kwargs: Of `keras.Model`.

    Attributes:
        item_vectors: float32 weight [n_items, K]: q, or [b_i, q] of width 1 + K where there are biases.
        rating_mean: float32 weight, μ.

    Raises:
        InputError: If a setting is not a positive number.
    """

    predicts_ratings = True

    def __init__(
        self,
        n_items: int,
        *,
        factors: PositiveInt = 12,
        regularization: PositiveFloat = 11.0,
        weighted_regularization: bool = False,
        iterations: PositiveInt = 30,
        seed: int = 98765,
        **kwargs,
    ):
        super().__init__(n_items, seed=seed, **kwargs)
        self.factors = factors
        self.regularization = regularization
        self.weighted_regularization = weighted_regularization
        self.iterations = iterations
        self._require_positive("factors", "regularization", "iterations")
        plain = {"dtype": "float32", "initializer": "zeros", "trainable": False, "autocast": False}
        self.item_vectors = self.add_weight(name="item_vectors", shape=(n_items, self._biased + factors), **plain)
        self.rating_mean = self.add_weight(name="rating_mean", shape=(), **plain)
        self.build()

    @property
    def _bias_penalty(self) -> float | None:
        """λ_b; None where there are no biases."""
        return None

    @property
    def _biased(self) -> bool:
        return self._bias_penalty is not None

    def _require_positive(self, *names: str) -> None:
        for name in names:
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}; expected a positive number.")

    def fit_matrix(self, train: csr_array, log: Callable[[str], None] = print) -> None:
        """Finds the vectors of users and items, and keeps those of the items.

        Args:
            train: Ratings, sparse [n_users, n_items]; a stored zero is a rating of zero.
            log: Told what is done, and once a minute how far it is.

        Raises:
            InputError: If the matrix has no ratings, one that is not a number, or another width.
        """
        check_ratings(self, train)
        name, begun = type(self).__name__, time.monotonic()
        log(
            f"{name}: {self.iterations} iterations on {train.nnz:,} ratings of {train.shape[0]:,} users, "
            f"{self.factors} factors"
        )
        reported = begun

        def progress(iteration: int) -> None:
            nonlocal reported
            now = time.monotonic()
            if now - reported >= SECONDS_BETWEEN_REPORTS:
                reported = now
                each = (now - begun) / iteration
                log(f"{name}: {iteration} of {self.iterations} iterations, {each:.0f} s each")

        mean = float(np.mean(train.data, dtype=np.float64))
        centred = csr_array((train.data - mean, train.indices, train.indptr), shape=train.shape)
        _, items = alternate(
            centred,
            self.factors,
            self.regularization,
            self.iterations,
            derive_seed(self.seed, "items"),
            weighted=self.weighted_regularization,
            bias_regularization=self._bias_penalty,
            after=progress,
        )
        self.rating_mean.assign(mean)
        self.item_vectors.assign(items)

    def user_vectors(self, batch: SparseBatch) -> tf.Tensor:
        """The least-squares step of B users from their ratings, with the items fixed.

        Args:
            batch: With values, the ratings; of any users.

        Returns:
            p, or [b_u, p] where there are biases: float32 [B, D]; zeros for an empty row.

        Raises:
            InputError: If the rows have no ratings.
        """
        if batch.values is None:
            raise InputError(f"{type(self).__name__} needs the ratings of a user; these rows have items only.")
        regressors, offsets = self._item_side()
        likelihood = GaussianRatings.of(batch, regressors, self.rating_mean.value + offsets, 1.0)
        penalties = tf.constant([self._bias_penalty] * self._biased + [self.regularization] * self.factors, tf.float32)
        counts = tf.maximum(batch.lengths, 1.0) if self.weighted_regularization else tf.ones_like(batch.lengths)
        systems = likelihood.precision + tf.linalg.diag(counts[:, None] * penalties)
        return tf.linalg.cholesky_solve(tf.linalg.cholesky(systems), likelihood.projection[:, :, None])[:, :, 0]

    def scores(self, batch: SparseBatch) -> tf.Tensor:
        """Predicted ratings of all items, float32 [B, n_items]; without clipping.

        Raises:
            InputError: If the rows have no ratings.
        """
        regressors, offsets = self._item_side()
        products = tf.matmul(self.user_vectors(batch), regressors, transpose_b=True)
        return products + self.rating_mean.value + offsets

    def _item_side(self) -> tuple[tf.Tensor, tf.Tensor]:
        """What users are regressed on, [n_items, D], and what is taken off their ratings beside μ, [n_items]."""
        vectors = tf.convert_to_tensor(self.item_vectors.value)
        if not self._biased:
            return vectors, tf.zeros([self.n_items])
        return tf.concat([tf.ones([self.n_items, 1]), vectors[:, 1:]], axis=1), vectors[:, 0]


@keras.saving.register_keras_serializable(package="tfvae")
class BiasMF(PMF):
    """BiasMF: a rating is μ + b_u + b_i + p_u·q_i, biases and factors found together.

    Args:
        n_items: Width of the catalogue, I.
        factors: Length of a user's and an item's vector, K.
        regularization: λ, of the factors.
        bias_regularization: λ_b, of the biases. The paper has one λ for both.
        **kwargs: `weighted_regularization`, `iterations`, `seed`, and those of `keras.Model`.

    Raises:
        InputError: If a setting is not a positive number.
    """

    def __init__(
        self,
        n_items: int,
        *,
        factors: PositiveInt = 12,
        regularization: PositiveFloat = 13.0,
        bias_regularization: PositiveFloat = 3.0,
        **kwargs,
    ):
        self._lambda_b = bias_regularization
        super().__init__(n_items, factors=factors, regularization=regularization, **kwargs)
        self.bias_regularization = bias_regularization
        self._require_positive("bias_regularization")

    @property
    def _bias_penalty(self) -> float | None:
        return self._lambda_b
