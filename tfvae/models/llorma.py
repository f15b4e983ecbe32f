"""LLORMA-Global: several low-rank models of a rating matrix, each local to an anchor point, trained together.

Lee, Kim, Lebanon, Singer: Local Low-Rank Matrix Approximation, ICML 2013; the joint training is from Lee, Kim, Lebanon,
Singer, Bengio: LLORMA, JMLR 17, 2016. A first factorisation of low rank gives vectors of users and items. The angle
between two vectors is their distance, d(s, t) = arccos(s·t / ‖s‖‖t‖). T training ratings (a_t, b_t), drawn at random,
are the anchors. The Epanechnikov kernel around anchor t gives user u and item i the weight

    K_t(u, i) = k(d(u, a_t))·k(d(i, b_t)),     k(d) = (1 − d²)·1[d < h]

Each anchor has a local model P_t Q_t'. The prediction is the mean of the local models with these weights (Nadaraya,
Watson), and this mean is fitted to the observed ratings Ω:

    r̂_ui = μ + Σ_t K_t(u, i) p_tu·q_ti / Σ_t K_t(u, i),     min Σ_{(u,i) ∈ Ω} (r_ui − r̂_ui)² + λ Σ_t (‖P_t‖² + ‖Q_t‖²)

Since the weight is a product, the sum over t is one inner product of vectors of length T·R.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import keras
import numpy as np
import scipy.sparse as sp
import tensorflow as tf
from pydantic import NonNegativeFloat, PositiveFloat

from tfvae.models.als import alternate
from tfvae.models.checks import require_ratings, require_users, user_means
from tfvae.models.fields import Width
from tfvae.models.gradient import GradientRecommender
from tfvae.models.rating_model import RatingModel
from tfvae.nn.batches import SparseBatch
from tfvae.nn.noise import Noise, derive_seed
from tfvae.system.errors import InputError

__all__ = ["LLORMA", "epanechnikov"]

PRE_ITERATIONS = 15


def epanechnikov(vectors: np.ndarray, anchors: np.ndarray, bandwidth: float) -> np.ndarray:
    """The kernel between vectors and anchors, by the angle between them.

    Args:
        vectors: [N, D].
        anchors: int [T], the numbers of the vectors that are anchors.
        bandwidth: h, in radians; above 1, negative weights become 0.

    Returns:
        (1 − d²)·1[d < h], float64 [N, T]; a vector of zeros has no angle, and gets the weight 0 everywhere.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    distances = np.arccos(np.clip(directions @ directions[anchors].T, -1, 1))
    return np.where(distances < bandwidth, np.maximum(1 - distances**2, 0), 0)


@keras.saving.register_keras_serializable(package="tfvae")
class LLORMA(RatingModel, GradientRecommender):
    """LLORMA-Global: the weighted mean of local factorisations, trained together by gradient.

    If no anchor is near both the user and the item, the prediction is the mean rating. Each user has trained factors of
    their own, so that the model cannot score users who were not in the training matrix.

    Args:
        n_items: Width of the catalogue.
        n_users: Number of training users.
        local_models: T, the number of anchors.
        rank: R, the rank of each local model.
        pre_rank: Rank of the first factorisation, which the distances are computed from.
        pre_regularization: λ of the first factorisation, the same for each user and item.
        bandwidth: h of the kernel, an angle in radians.
        regularization: λ of the local models, in squared units of the ratings. The papers' 1e-3 applies in every step
            of a descent over few ratings. Here λ counts once for all ratings, where the equivalent is about 1.
        **kwargs: `seed`, which also draws the anchors, and the arguments of `keras.Model`.

    Attributes:
        user_factors: float32 weight [n_users, T·R], P, anchor by anchor.
        item_factors: float32 weight [n_items, T·R], Q.
        user_weights: float32 weight [n_users, T], the kernel k(d(u, a_t)); set by `attach`.
        item_weights: float32 weight [n_items, T], the kernel k(d(i, b_t)); set by `attach`.
        rating_mean: float32 weight, μ; set by `attach`.

    Raises:
        InputError: Without `n_users`.
    """

    example_settings: ClassVar[dict[str, Any]] = {
        "local_models": 4,
        "rank": 2,
        "pre_rank": 3,
        "pre_regularization": 2.0,
        "bandwidth": 1.2,
        "regularization": 0.5,
        "learning_rate": 0.02,
    }

    training_defaults: ClassVar[dict[str, Any]] = {"epochs": 20, "batch_size": 200, "learning_rate": 3e-3}
    has_user_weights = True
    scores_new_users = False
    n_users: int
    loss_terms = ("squared_error",)

    def __init__(
        self,
        n_items: int,
        n_users: int | None = None,
        *,
        local_models: Width = 50,
        rank: Width = 20,
        pre_rank: Width = 5,
        pre_regularization: PositiveFloat = 10.0,
        bandwidth: PositiveFloat = 0.8,
        regularization: NonNegativeFloat = 0.3,
        **kwargs,
    ):
        super().__init__(n_items, n_users, **kwargs)
        self.local_models = local_models
        self.rank = rank
        self.pre_rank = pre_rank
        self.pre_regularization = pre_regularization
        self.bandwidth = bandwidth
        self.regularization = regularization
        self.rating_mean = self.add_state("rating_mean")
        self.user_weights = self.add_state("user_weights", shape=(self.n_users, local_models))
        self.item_weights = self.add_state("item_weights", shape=(n_items, local_models))
        # One coordinate of 1 on each side lets a local model hold biases from the start. If all factors started as
        # noise, the users' factors would first be fitted to the noise of the items' factors.
        self.user_factors = self._table("user_factors", self.n_users, 0 if rank > 1 else None)
        self.item_factors = self._table("item_factors", n_items, rank - 1)
        self.built = True

    @classmethod
    def not_warm_started(cls, settings: Mapping[str, Any]) -> str | None:
        """See `GradientRecommender`."""
        return "its local models lie around ratings that are drawn from the training data; other data give others"

    def _table(self, name: str, rows: int, ones: int | None) -> keras.Variable:
        """Factors from N(0, 0.05²); in each local model the coordinate `ones` is 1 instead, unless `ones` is None."""
        table = self.add_weight(
            name=name,
            shape=(rows, self.local_models * self.rank),
            dtype="float32",
            initializer=keras.initializers.RandomNormal(stddev=0.05, seed=derive_seed(self.seed, name)),
            autocast=False,
        )
        if ones is not None:
            start = table.numpy()
            start[:, ones :: self.rank] = 1
            table.assign(start)
        return table

    def attach(self, train: sp.csr_array) -> None:
        """Takes the training ratings, and computes their mean, the first factorisation and the kernel weights.

        All results depend on the matrix and the seed only, so that a resumed run has the same ones.

        Args:
            train: Ratings, CSR [n_users, n_items].

        Raises:
            InputError: If `require_ratings` refuses the matrix, or it has fewer ratings than there are local models.
        """
        require_ratings(self, train)
        if train.nnz < self.local_models:
            raise InputError(
                f"{self.local_models} local models need as many ratings to be their anchors, found {train.nnz}; "
                "lower local_models."
            )
        standard = self.standard_matrix(train)
        self.rating_mean.assign(np.mean(standard.data, dtype=np.float64))
        # The ratings are not centred here. Then the vectors lie in one half of their space, and the angles are small.
        seed = derive_seed(self.seed, "pre-training")
        users, items = alternate(standard, self.pre_rank, self.pre_regularization, PRE_ITERATIONS, seed)
        rng = np.random.default_rng(derive_seed(self.seed, "anchors"))
        anchors = rng.choice(train.nnz, size=self.local_models, replace=False)
        rows = np.searchsorted(train.indptr, anchors, side="right") - 1
        self.user_weights.assign(epanechnikov(users, rows, self.bandwidth))
        self.item_weights.assign(epanechnikov(items, train.indices[anchors], self.bandwidth))
        super().attach(train)

    def objective(self, batch: SparseBatch, noise: Noise) -> dict[str, tf.Tensor]:
        """The squared errors of the batch's ratings plus the batch's share of the penalty, as a mean over users."""
        user_factors = tf.gather(self.user_factors.value, batch.users)
        found = self._predictions(batch.users, user_factors)
        places = tf.stack([batch.segment_ids, batch.items], axis=1)
        error = user_means(batch, tf.square(self.standard(batch).values - tf.gather_nd(found, places)))
        penalty = tf.reduce_mean(tf.reduce_sum(tf.square(user_factors), axis=1)) + (
            tf.reduce_sum(tf.square(self.item_factors.value)) / self.n_users
        )
        return {"loss": error + self.regularization * penalty, "squared_error": error}

    def scores(self, batch: SparseBatch) -> tf.Tensor:
        """The predicted ratings r̂ of all items, float32 [B, n_items].

        Raises:
            InputError: If the batch has no row numbers of users.
        """
        users = require_users(self, batch)
        return self.rating_unit * self._predictions(users, tf.gather(self.user_factors.value, users))

    def _predictions(self, users: tf.Tensor, user_factors: tf.Tensor) -> tf.Tensor:
        """r̂, [B, n_items], of the users with these row numbers and these factors, [B, T·R]."""
        user_weights = tf.gather(self.user_weights.value, users)
        item_weights = tf.convert_to_tensor(self.item_weights.value)
        weighted_users = self._weighted(user_factors, user_weights)
        weighted_items = self._weighted(self.item_factors.value, item_weights)
        sums = tf.matmul(weighted_users, weighted_items, transpose_b=True)
        totals = tf.matmul(user_weights, item_weights, transpose_b=True)
        return self.rating_mean.value + tf.math.divide_no_nan(sums, totals)

    def _weighted(self, factors: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """Factors [N, T·R], where those of each local model are multiplied by its weight from [N, T]."""
        by_anchor = tf.reshape(factors, [-1, self.local_models, self.rank]) * weights[:, :, None]
        return tf.reshape(by_anchor, [-1, self.local_models * self.rank])
