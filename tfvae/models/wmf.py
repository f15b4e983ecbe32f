"""WMF: weighted matrix factorisation of implicit feedback, by alternating least squares.

Hu, Koren, Volinsky: Collaborative Filtering for Implicit Feedback Datasets, ICDM 2008, section 4, equation 3, with the
two-valued confidence of the tables of Mult-VAE (Liang et al., WWW 2018, section 4.3) and of later papers:

    min_{U,V}  Σ_ui c_ui (x_ui − u_u·v_i)² + λ(Σ_u ‖u_u‖² + Σ_i ‖v_i‖²),   c_ui = weight where x_ui = 1, else 1.

With the items fixed, each user's factors have a closed form (equation 4); with the users fixed, each item's factors
have one too. The two steps take turns. A held-out user is folded in by one user step with the trained items V:

    (V'V + (weight − 1) Σ_{i∈u} v_i v_i' + λI) u = weight Σ_{i∈u} v_i,   scores = V u,

so V is all that the model keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import keras
import tensorflow as tf
from implicit.cpu.als import AlternatingLeastSquares
from implicit.recommender_base import ModelFitError
from pydantic import PositiveFloat
from scipy.sparse import csr_array, csr_matrix
from threadpoolctl import threadpool_limits

from tfvae.models.checks import check_matrix
from tfvae.models.fields import Count, Width
from tfvae.models.matrix import MatrixRecommender
from tfvae.nn.batches import SparseBatch
from tfvae.system.errors import DivergedError
from tfvae.system.progress import OncePerMinute

__all__ = ["WMF"]

Solver = Literal["conjugate-gradients", "cholesky"]


@keras.saving.register_keras_serializable(package="tfvae")
class WMF(MatrixRecommender):
    """WMF (Hu et al. 2008): scores are the inner products of item factors and the factors of the folded-in user.

    The `implicit` library trains it on all cores. Its conjugate gradients take three steps per system from the former
    iteration's factors (Takács, Pilászy, Tikk 2011), in time linear in `factors`. "cholesky" solves each system
    exactly, in quadratic time; at 200 factors it takes twenty times as long. Both have the same fixed points.

    Example:
        >>> import tfvae
        >>> from scipy.sparse import csr_array
        >>> from tfvae.models.wmf import WMF
        >>> train = csr_array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1]])
        >>> model = WMF(4, factors=2, regularization=1.0)
        >>> model.fit_matrix(train, log=lambda line: None)
        >>> items, scores = tfvae.top_k(model, train, k=1)
        >>> items.tolist()
        [[2], [3], [0]]

    Args:
        n_items: Width of the catalogue, I.
        factors: Length of a user's and an item's vector, K; the paper's grid is 100 and 200.
        weight: Confidence of a one; that of a zero is 1. The paper's grid is 2, 5, 10, 30, 50 and 100.
        regularization: λ, the same for every user and item, whatever their numbers of events. The papers' tables do not
            give it; the best value grows with `weight`.
        iterations: Number of rounds; each solves for all users, then for all items.
        solver: Solver used in training, "conjugate-gradients" or "cholesky"; folding in is always exact.
        seed: Seed of the initial factors.
        **kwargs: Arguments of `keras.Model`.

    Attributes:
        item_factors: V, float32 weight [n_items, factors].

    Raises:
        InputError: If a setting is not a positive number or `solver` is unknown.
    """

    example_settings: ClassVar[dict[str, Any]] = {
        "factors": 6,
        "weight": 5.0,
        "regularization": 2.0,
        "iterations": 10,
        "solver": "cholesky",
    }
    checkerboard_settings: ClassVar[dict[str, Any] | None] = {
        "factors": 2,
        "regularization": 1.0,
    }

    def __init__(
        self,
        n_items: int,
        *,
        factors: Width = 200,
        weight: PositiveFloat = 10.0,
        regularization: PositiveFloat = 50.0,
        iterations: Count = 15,
        solver: Solver = "conjugate-gradients",
        seed: int = 98765,
        **kwargs,
    ):
        super().__init__(n_items, seed=seed, **kwargs)
        self.factors = factors
        self.weight = weight
        self.regularization = regularization
        self.iterations = iterations
        self.solver = solver
        self.item_factors = self.add_weight(
            name="item_factors",
            shape=(n_items, factors),
            dtype="float32",
            initializer="zeros",
            trainable=False,
            autocast=False,
        )
        self.build()

    def fit_matrix(self, train: csr_array, log: Callable[[str], None] = print, folder: Path | None = None) -> None:
        """Finds the factors of users and items, and keeps those of the items.

        Args:
            train: Binary user rows, sparse [n_users, n_items], each item at most once per user.
            log: Called with one line of progress at a time, at most once a minute.
            folder: It has no effect, since this fit keeps no parts.

        Raises:
            InputError: If the matrix is not binary or has another number of items.
            DivergedError: If a system cannot be solved or a factor is no longer a number.
        """
        check_matrix(self, train)
        log(
            f"WMF: {self.iterations} iterations on {train.nnz:,} interactions of {train.shape[0]:,} users, "
            f"{self.factors} factors, by {self.solver}"
        )
        progress = OncePerMinute(log)

        def after(iteration: int, seconds: float, loss: float | None) -> None:
            progress(f"WMF: {iteration + 1} of {self.iterations} iterations, {seconds:.0f} s each")

        # With more than one thread, BLAS would compete with the library's own threads, of which the library warns.
        with threadpool_limits(1, user_api="blas"):
            als = AlternatingLeastSquares(
                factors=self.factors,
                regularization=self.regularization,
                alpha=self.weight,
                use_cg=self.solver == "conjugate-gradients",
                iterations=self.iterations,
                random_state=self.seed,
            )
            try:
                als.fit(csr_matrix(train), show_progress=False, callback=after)
            except (ModelFitError, ValueError) as error:
                raise DivergedError(
                    f"WMF: no factors were found with weight {self.weight} and regularization {self.regularization} "
                    f"({error}); raise the regularization or lower the weight."
                ) from error
        self.item_factors.assign(als.item_factors)

    def item_vectors(self) -> tf.Tensor:
        """V, float32 [n_items, factors]; see `HasItemVectors`."""
        return tf.convert_to_tensor(self.item_factors.value)

    def scores(self, batch: SparseBatch) -> tf.Tensor:
        """Inner products of all items with the folded-in users, float32 [B, n_items]; an empty history gets zeros."""
        item_factors = tf.convert_to_tensor(self.item_factors.value)
        shared = tf.matmul(item_factors, item_factors, transpose_a=True) + self.regularization * tf.eye(self.factors)

        def fold_in(items: tf.Tensor) -> tf.Tensor:
            own = tf.gather(item_factors, items)
            system = shared + (self.weight - 1) * tf.matmul(own, own, transpose_a=True)
            total = self.weight * tf.reduce_sum(own, axis=0)
            return tf.linalg.cholesky_solve(tf.linalg.cholesky(system), total[:, None])[:, 0]

        # It goes user by user, since all users at once would need arrays [B, K, K] for systems and [nnz, K] for items.
        histories = tf.RaggedTensor.from_value_rowids(batch.items, batch.segment_ids, tf.shape(batch.lengths)[0])
        user_factors = tf.map_fn(fold_in, histories, fn_output_signature=tf.TensorSpec([self.factors], tf.float32))
        return tf.matmul(user_factors, item_factors, transpose_b=True)
