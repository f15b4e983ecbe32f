"""NNMF: matrix factorisation whose inner product is a neural network.

Dziugaite, Roy: Neural Network Matrix Factorization, arXiv:1511.06443, section 2, equations 2 to 4:

    r̂_nm = f_θ(U_n, V_m, U'_n ∘ V'_m),
    min_{θ,U,V,U',V'} Σ_{(n,m) ∈ O} (r_nm − r̂_nm)² + λ(‖U‖² + ‖V‖² + ‖U'‖² + ‖V'‖²)

f_θ is a multilayer perceptron. Its inputs are the features U_n and V_m, of length D each, and D' inner products of
length K, between the corresponding rows of the D' × K matrices U'_n and V'_m. O holds the observed ratings; all others
are left out of the sum, and so have no gradient. The mean rating is added to the output of the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np
import scipy.sparse as sp
import tensorflow as tf
from pydantic import NonNegativeFloat, PositiveFloat

from tfvae.models.checks import require_ratings, require_users, user_means
from tfvae.models.fields import Width
from tfvae.models.gradient import GradientRecommender, Objective
from tfvae.models.rating_model import RatingModel
from tfvae.nn.batches import SparseBatch
from tfvae.nn.noise import Noise, derive_seed

__all__ = ["NNMF"]


@keras.saving.register_keras_serializable(package="tfvae")
class NNMF(RatingModel, GradientRecommender):
    """NNMF: a perceptron on features of users and items, and on products of further features.

    Each user has trained features of their own, so that the model cannot score users who were not in the training
    matrix.

    Args:
        n_items: Width of the catalogue, M.
        n_users: Number of training users, N.
        features: D, the number of a user's or an item's features that are inputs of the network themselves.
        products: D', the number of inner products among the network's inputs.
        product_rank: K, the length of these inner products.
        hidden: Widths of the sigmoid layers of f.
        regularization: λ, in squared units of the ratings; the network's own weights are not penalised.
        network_learning_rate: Learning rate of the network's weights. The network is updated with every batch, but a
            user's features only once an epoch. At the features' rate the network's weights would grow so fast that
            small features are enough, and the penalty λ of the features would have no effect.
        **kwargs: `seed`, and the arguments of `keras.Model`.

    Attributes:
        user_features: float32 weight [n_users, D + D'·K], the concatenation of U and U'.
        item_features: float32 weight [n_items, D + D'·K], the concatenation of V and V'.
        rating_mean: float32 weight, the mean training rating; set by `attach`.

    Raises:
        InputError: Without `n_users`.
    """

    example_settings: ClassVar[dict[str, Any]] = {
        "features": 3,
        "products": 5,
        "product_rank": 2,
        "hidden": [6],
        "regularization": 0.5,
        "network_learning_rate": 0.01,
        "learning_rate": 0.02,
    }

    training_defaults: ClassVar[dict[str, Any]] = {"epochs": 35, "batch_size": 300, "learning_rate": 4e-3}
    has_user_weights = True
    scores_new_users = False
    n_users: int
    loss_terms = ("squared_error",)

    def __init__(
        self,
        n_items: int,
        n_users: int | None = None,
        *,
        features: Width = 10,
        products: Width = 60,
        product_rank: Width = 1,
        hidden: Sequence[Width] = (50, 50),
        regularization: NonNegativeFloat = 40.0,
        network_learning_rate: PositiveFloat = 2e-4,
        **kwargs,
    ):
        super().__init__(n_items, n_users, **kwargs)
        self.features = features
        self.products = products
        self.product_rank = product_rank
        self.hidden = tuple(hidden)
        self.regularization = regularization
        self.network_learning_rate = network_learning_rate
        self.rating_mean = self.add_state("rating_mean")
        width = features + products * product_rank
        self.user_features = self._table("user_features", self.n_users, width)
        self.item_features = self._table("item_features", n_items, width)
        self.network = []
        inputs = 2 * features + products
        for depth, units in enumerate((*self.hidden, 1)):
            limit = 4 * np.sqrt(6 / (inputs + units))
            seed = derive_seed(self.seed, f"network_{depth}")
            layer = keras.layers.Dense(
                units,
                activation="sigmoid" if depth < len(self.hidden) else None,
                kernel_initializer=keras.initializers.RandomUniform(-limit, limit, seed=seed),
                dtype=self.dtype_policy,
                name=f"network_{depth}",
            )
            layer.build((None, inputs))
            self.network.append(layer)
            inputs = units
        # The output of a random network may be as large as 3 stars. With this bias it starts at 0 for features of zero,
        # so that the predictions start near the mean rating.
        nobody = tf.zeros([1, width])
        self.network[-1].bias.assign(-self.predict_pairs(nobody, nobody))
        self.built = True

    def _table(self, name: str, rows: int, width: int) -> keras.Variable:
        return self.add_weight(
            name=name,
            shape=(rows, width),
            dtype="float32",
            initializer=keras.initializers.TruncatedNormal(stddev=0.1, seed=derive_seed(self.seed, name)),
            autocast=False,
        )

    @property
    def objectives(self) -> dict[str, Objective]:
        """The features and the network lower the same loss, each with a learning rate of its own."""
        network = [variable for layer in self.network for variable in layer.trainable_variables]
        return {
            "features": Objective([self.user_features, self.item_features]),
            "network": Objective(network, learning_rate=self.network_learning_rate),
        }

    def attach(self, train: sp.csr_array) -> None:
        """Takes the training ratings, and their mean.

        Args:
            train: Ratings, CSR [n_users, n_items].

        Raises:
            InputError: If it is of other users or items, has no ratings, or has some that are NaN or infinite.
        """
        require_ratings(self, train)
        self.rating_mean.assign(np.mean(self.standard_matrix(train).data, dtype=np.float64))
        super().attach(train)

    @property
    def found_by_attach(self) -> Sequence[keras.Variable]:
        """The mean rating; see `GradientRecommender`."""
        return (self.rating_mean,)

    def predict_pairs(self, users: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        """The predictions r̂ of P pairs, float32 [P], from the features of their users and items, [P, D + D'·K]."""
        products = users[:, self.features :] * items[:, self.features :]
        if self.product_rank > 1:
            products = tf.reduce_sum(tf.reshape(products, [-1, self.products, self.product_rank]), axis=2)
        code = tf.concat([users[:, : self.features], items[:, : self.features], products], axis=1)
        for layer in self.network:
            code = layer(code)
        return self.rating_mean.value + tf.cast(code[:, 0], tf.float32)

    def objective(self, batch: SparseBatch, noise: Noise) -> dict[str, tf.Tensor]:
        """The squared errors of the batch's ratings plus the batch's share of the penalty, as a mean over users."""
        item_features = tf.convert_to_tensor(self.item_features.value)
        users = tf.gather(self.user_features.value, batch.users)
        found = self.predict_pairs(tf.gather(users, batch.segment_ids), tf.gather(item_features, batch.items))
        error = user_means(batch, tf.square(self.standard(batch).values - found))
        penalty = tf.reduce_mean(tf.reduce_sum(tf.square(users), axis=1)) + (
            tf.reduce_sum(tf.square(item_features)) / self.n_users
        )
        return {"loss": error + self.regularization * penalty, "squared_error": error}

    def scores(self, batch: SparseBatch) -> tf.Tensor:
        """The predicted ratings r̂ of all items, float32 [B, n_items].

        They are computed user by user, since all pairs at once would need the features of B·n_items pairs.

        Raises:
            InputError: If the batch has no row numbers of users.
        """
        users = tf.gather(self.user_features.value, require_users(self, batch))
        item_features = tf.convert_to_tensor(self.item_features.value)

        def of_user(user: tf.Tensor) -> tf.Tensor:
            return self.predict_pairs(tf.tile(user[None, :], [self.n_items, 1]), item_features)

        found = tf.map_fn(of_user, users, fn_output_signature=tf.TensorSpec([self.n_items], tf.float32))
        return self.rating_unit * found
