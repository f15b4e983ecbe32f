"""BPR: matrix factorisation that learns to rank each item a user has above each item they do not have.

Rendle, Freudenthaler, Gantner, Schmidt-Thieme: BPR: Bayesian Personalized Ranking from Implicit Feedback, UAI 2009,
section 4.3.1, trained by stochastic gradient ascent as in its figure 4:

    max_{U,V,b}  Σ_{(u,i,j)} log σ(u_u·(v_i − v_j) + b_i − b_j) − λ(‖u_u‖² + ‖v_i‖² + ‖v_j‖² + b_i² + b_j²),

with an item i that the user has and an item j that they do not have. The best factors of a held-out user have no closed
form. Where the gradient of u_u is zero, 2λu_u is a weighted mean of v_i − v_j. Therefore a held-out user is folded in
with the scaled mean of their items' factors:

    u = scale · Σ_{i∈u} v_i / n_u,   scores = V u + b.

Which pairs are drawn decides what is learnt. In the optimum, u·v_i + b_i is the logit of the probability that u has i,
less log q(i), where items are drawn from the distribution q and those the user has are skipped. The paper draws them
uniformly, so that log q is a constant. The library that trains the model draws them by their number of users n_i, which
takes away what is due to popularity. Therefore c·log n_i is added to b_i; c = 1 gives what uniform draws would.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from implicit.cpu.bpr import BayesianPersonalizedRanking
from implicit.recommender_base import ModelFitError
from pydantic import NonNegativeFloat, PositiveFloat
from scipy.sparse import csr_array, csr_matrix

from tfvae.models.checks import check_matrix
from tfvae.models.fields import Count, Width
from tfvae.models.matrix import MatrixRecommender
from tfvae.nn.batches import SparseBatch
from tfvae.system.errors import DivergedError, InputError

__all__ = ["BPR"]


@keras.saving.register_keras_serializable(package="tfvae")
class BPR(MatrixRecommender):
    """BPR-MF (Rendle et al. 2009): item factors and biases; a user is the mean of their items' factors.

    The `implicit` library trains it. The library draws j in proportion to the number of its users, not uniformly as the
    paper does, and skips a draw if the user has the item.

    On dense data such as MovieLens-1M the defaults rank well below EASE, and a search of `factors`, `ascent_rate` and
    `scale` makes up for most of it: it takes 200 factors there, and four times as long. What remains is the model's
    own, which learns the order of pairs, wherever in the ranking they are.

    Args:
        n_items: Width of the catalogue, I.
        factors: Length of a user's and an item's vector, K.
        ascent_rate: Learning rate of the gradient ascent, constant.
        regularization: 2λ, twice the λ of the objective.
        iterations: Number of passes; each draws as many (u, i, j) as there are interactions.
        scale: Factor of the mean with which a user is folded in; a larger one gives the user's history more weight
            against the items' biases.
        popularity_weight: c, the weight of the logarithm of an item's number of users in its bias; 0 leaves the
            biases of the library.
        threads: Number of threads. Several threads are faster, but overwrite each other's factors, so that no two such
            runs are equal.
        seed: Seed of the initial factors and, on one thread, of the draws.
        **kwargs: Arguments of `keras.Model`.

    Attributes:
        item_factors: V, float32 weight [n_items, factors].
        item_biases: b with c·log n_i, float32 weight [n_items]; an item without users counts as one of one user.

    Raises:
        InputError: If a setting is out of range.
    """

    example_settings: ClassVar[dict[str, Any]] = {
        "factors": 6,
        "ascent_rate": 0.1,
        "regularization": 0.02,
        "iterations": 20,
        "scale": 1.5,
        "popularity_weight": 0.5,
        "threads": 2,
    }
    checkerboard_settings: ClassVar[dict[str, Any] | None] = {
        "factors": 2,
        "ascent_rate": 0.1,
        "scale": 3.0,
    }

    def __init__(
        self,
        n_items: int,
        *,
        factors: Width = 50,
        ascent_rate: PositiveFloat = 0.05,
        regularization: NonNegativeFloat = 0.01,
        iterations: Count = 100,
        scale: PositiveFloat = 2.0,
        popularity_weight: NonNegativeFloat = 1.0,
        threads: Count = 1,
        seed: int = 98765,
        **kwargs,
    ):
        super().__init__(n_items, seed=seed, **kwargs)
        self.factors = factors
        self.ascent_rate = ascent_rate
        self.regularization = regularization
        self.iterations = iterations
        self.scale = scale
        self.popularity_weight = popularity_weight
        self.threads = threads
        if not 0 <= regularization < math.inf:
            raise InputError(f"regularization is {regularization}; expected 0 or a positive number.")
        self.item_factors, self.item_biases = (
            self.add_weight(
                name=name, shape=shape, dtype="float32", initializer="zeros", trainable=False, autocast=False
            )
            for name, shape in (("item_factors", (n_items, factors)), ("item_biases", (n_items,)))
        )
        self.build()

    def fit_matrix(self, train: csr_array, log: Callable[[str], None] = print, folder: Path | None = None) -> None:
        """Finds the factors of users and items, and keeps those of the items.

        Args:
            train: Binary user rows, sparse [n_users, n_items].
            log: Called with one line of progress.
            folder: It has no effect, since this fit keeps no parts.

        Raises:
            InputError: If the matrix is not binary or of another width.
            DivergedError: If a factor is no longer a number.
        """
        check_matrix(self, train)
        log(
            f"BPR: {self.iterations} iterations on {train.nnz:,} interactions of {train.shape[0]:,} users, "
            f"{self.factors} factors, {self.threads} thread(s)"
        )
        bpr = BayesianPersonalizedRanking(
            factors=self.factors,
            learning_rate=self.ascent_rate,
            regularization=self.regularization,
            iterations=self.iterations,
            num_threads=self.threads,
            random_state=self.seed,
        )
        try:
            # The library looks an item up in a row by bisection, which needs sorted indices.
            bpr.fit(csr_matrix(train.sorted_indices()), show_progress=False)
        except ModelFitError as error:
            raise DivergedError(
                f"BPR: the factors are no longer numbers; lower ascent_rate (now {self.ascent_rate:g})."
            ) from error
        # The library's last column is the item's bias; the users' last column is 1.
        self.item_factors.assign(bpr.item_factors[:, :-1])
        n_users = np.bincount(train.indices, minlength=self.n_items)
        self.item_biases.assign(bpr.item_factors[:, -1] + self.popularity_weight * np.log(np.maximum(n_users, 1)))

    def item_vectors(self) -> tf.Tensor:
        """V without the biases, float32 [n_items, factors]; see `HasItemVectors`."""
        return tf.convert_to_tensor(self.item_factors.value)

    def scores(self, batch: SparseBatch) -> tf.Tensor:
        """The scores V u + b of B histories, float32 [B, n_items]; an empty history gets the biases alone."""
        item_factors = tf.convert_to_tensor(self.item_factors.value)
        total = tf.math.unsorted_segment_sum(
            tf.gather(item_factors, batch.items), batch.segment_ids, tf.shape(batch.lengths)[0]
        )
        users = self.scale * total / tf.maximum(batch.lengths, 1.0)[:, None]
        return tf.matmul(users, item_factors, transpose_b=True) + self.item_biases.value
