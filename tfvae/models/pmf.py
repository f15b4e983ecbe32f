"""PMF and BiasMF: factors of users and items that predict ratings, by alternating least squares.

Salakhutdinov, Mnih: Probabilistic Matrix Factorization, NIPS 2007 (equation 4), and Koren, Bell, Volinsky: Matrix
Factorization Techniques for Recommender Systems, Computer 42(8), 2009 (equations 4 and 5). The sums are over the
observed ratings r_ui, from which the mean rating μ is subtracted first:

    PMF:      min Σ (r_ui − μ − p_u·q_i)²              + λ(Σ_u ‖p_u‖² + Σ_i ‖q_i‖²)
    BiasMF:   min Σ (r_ui − μ − b_u − b_i − p_u·q_i)²  + λ(Σ_u ‖p_u‖² + Σ_i ‖q_i‖²) + λ_b(Σ_u b_u² + Σ_i b_i²)

With the items fixed, each user's vector is a ridge regression on the vectors of the items they rated. With the users
fixed, each item's vector is such a regression too. The two steps take turns; each lowers the objective. The bias is one
more coefficient: a user's [b_u, p_u] is the regression of r_ui − μ − b_i on [1, q_i]. Weighted regularisation (ALS-WR;
Zhou et al., AAIM 2008, section 3) multiplies the penalty of each user and item by their number of ratings.

To score any user, the model repeats the user step with the trained items. Therefore it keeps only the items, and it
treats new users in the same way as training users.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from pydantic import PositiveFloat
from scipy.sparse import csr_array

from tfvae.models.als import alternate
from tfvae.models.checks import check_ratings
from tfvae.models.fields import Count, Width
from tfvae.models.matrix import MatrixRecommender
from tfvae.models.rating_model import RatingModel
from tfvae.nn.batches import SparseBatch
from tfvae.nn.gaussian_ratings import GaussianRatings
from tfvae.nn.noise import derive_seed
from tfvae.system.errors import InputError
from tfvae.system.progress import OncePerMinute

__all__ = ["PMF", "BiasMF"]


@keras.saving.register_keras_serializable(package="tfvae")
class PMF(RatingModel, MatrixRecommender):
    """PMF with maximum a posteriori estimates: a predicted rating is μ + p_u·q_i.

    In the paper λ is σ² / σ_U² = σ² / σ_V²: the variance of the ratings' noise over that of the factors' priors.

    Args:
        n_items: Width of the catalogue, I.
        factors: Length of a user's and an item's vector, K.
        regularization: λ, in squared units of the ratings. The best on ML-1M is about 11, or 0.06 with weights.
        weighted_regularization: Whether the λ of a user or an item is multiplied by their number of ratings.
        iterations: Rounds of all users, then all items.
        seed: Seed of the initial factors.
        **kwargs: Arguments of `keras.Model`.

    Attributes:
        item_coefficients: float32 weight [n_items, K], q; or [n_items, 1 + K], [b_i, q], if there are biases.
        rating_mean: float32 weight, μ.

    Raises:
        InputError: If a setting is not a positive number.
    """

    example_settings: ClassVar[dict[str, Any]] = {
        "factors": 3,
        "regularization": 0.5,
        "weighted_regularization": True,
        "iterations": 10,
    }

    def __init__(
        self,
        n_items: int,
        *,
        factors: Width = 12,
        regularization: PositiveFloat = 11.0,
        weighted_regularization: bool = False,
        iterations: Count = 30,
        seed: int = 98765,
        **kwargs,
    ):
        super().__init__(n_items, seed=seed, **kwargs)
        self.factors = factors
        self.regularization = regularization
        self.weighted_regularization = weighted_regularization
        self.iterations = iterations
        plain = {"dtype": "float32", "initializer": "zeros", "trainable": False, "autocast": False}
        # The weight has the name that it has in stored files.
        self.item_coefficients = self.add_weight(name="item_vectors", shape=(n_items, self._biased + factors), **plain)
        self.rating_mean = self.add_weight(name="rating_mean", shape=(), **plain)
        self.build()

    @property
    def _bias_penalty(self) -> float | None:
        """λ_b; None if there are no biases."""
        return None

    @property
    def _biased(self) -> bool:
        return self._bias_penalty is not None

    def fit_matrix(self, train: csr_array, log: Callable[[str], None] = print, folder: Path | None = None) -> None:
        """Finds the vectors of users and items, and keeps those of the items.

        Args:
            train: Ratings, sparse [n_users, n_items]; a stored zero is a rating of zero.
            log: Called with one line of progress at a time, at most once a minute.
            folder: It has no effect, since this fit keeps no parts.

        Raises:
            InputError: If the matrix has no ratings, one that is NaN or infinite, or another number of items.
        """
        check_ratings(self, train)
        name = type(self).__name__
        log(
            f"{name}: {self.iterations} iterations on {train.nnz:,} ratings of {train.shape[0]:,} users, "
            f"{self.factors} factors"
        )
        progress = OncePerMinute(log)

        def after(iteration: int) -> None:
            each = progress.seconds / iteration
            progress(f"{name}: {iteration} of {self.iterations} iterations, {each:.0f} s each")

        train = self.standard_matrix(train)
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
            after=after,
        )
        self.rating_mean.assign(mean)
        self.item_coefficients.assign(items)

    def user_vectors(self, batch: SparseBatch) -> tf.Tensor:
        """The least-squares step of B users from their ratings, with the items fixed.

        Args:
            batch: The ratings of any users, as the batch's values.

        Returns:
            p_u, or [b_u, p_u] if there are biases, float32 [B, D]; zeros for an empty row.

        Raises:
            InputError: If the batch has no values.
        """
        if batch.values is None:
            raise InputError(f"{type(self).__name__} needs the ratings of a user; these rows have items only.")
        regressors, offsets = self._item_side()
        likelihood = GaussianRatings.of(self.standard(batch), regressors, self.rating_mean.value + offsets, 1.0)
        penalties = tf.constant([self._bias_penalty] * self._biased + [self.regularization] * self.factors, tf.float32)
        counts = tf.maximum(batch.lengths, 1.0) if self.weighted_regularization else tf.ones_like(batch.lengths)
        systems = likelihood.precision + tf.linalg.diag(counts[:, None] * penalties)
        return tf.linalg.cholesky_solve(tf.linalg.cholesky(systems), likelihood.projection[:, :, None])[:, :, 0]

    def scores(self, batch: SparseBatch) -> tf.Tensor:
        """Predicted ratings of all items, float32 [B, n_items], not clipped to the scale.

        Raises:
            InputError: If the batch has no values.
        """
        regressors, offsets = self._item_side()
        products = tf.matmul(self.user_vectors(batch), regressors, transpose_b=True)
        return self.rating_unit * (products + self.rating_mean.value + offsets)

    def item_vectors(self) -> tf.Tensor:
        """The factors q without the biases, float32 [n_items, factors]; see `HasItemVectors`."""
        return tf.convert_to_tensor(self.item_coefficients.value)[:, int(self._biased) :]

    def _item_side(self) -> tuple[tf.Tensor, tf.Tensor]:
        """The regressors of users, [n_items, D], and the offsets subtracted from ratings besides μ, [n_items]."""
        vectors = tf.convert_to_tensor(self.item_coefficients.value)
        if not self._biased:
            return vectors, tf.zeros([self.n_items])
        return tf.concat([tf.ones([self.n_items, 1]), vectors[:, 1:]], axis=1), vectors[:, 0]


@keras.saving.register_keras_serializable(package="tfvae")
class BiasMF(PMF):
    """BiasMF: a predicted rating is μ + b_u + b_i + p_u·q_i; biases and factors are fitted together.

    Args:
        n_items: Width of the catalogue, I.
        factors: Length of a user's and an item's vector, K.
        regularization: λ, the penalty of the factors.
        bias_regularization: λ_b, the penalty of the biases. The paper has one λ for both.
        **kwargs: `weighted_regularization`, `iterations`, `seed`, and the arguments of `keras.Model`.

    Raises:
        InputError: If a setting is not a positive number.
    """

    example_settings: ClassVar[dict[str, Any]] = {
        "factors": 3,
        "regularization": 0.5,
        "weighted_regularization": True,
        "iterations": 10,
        "bias_regularization": 0.2,
    }

    def __init__(
        self,
        n_items: int,
        *,
        factors: Width = 12,
        regularization: PositiveFloat = 13.0,
        bias_regularization: PositiveFloat = 3.0,
        **kwargs,
    ):
        self._lambda_b = bias_regularization
        super().__init__(n_items, factors=factors, regularization=regularization, **kwargs)
        self.bias_regularization = bias_regularization

    @property
    def _bias_penalty(self) -> float | None:
        return self._lambda_b
