"""Networks that score pairs of a user and an item.

A batch has few users and items but many pairs. The parts of a network that depend on the user or on the item only are
computed once for each user or item; only the join of the two is computed for each pair.
"""

from __future__ import annotations

import abc

import keras
import tensorflow as tf

from tfvae.nn.layer_config import LayerConfig
from tfvae.nn.mlp import hidden_stack
from tfvae.nn.noise import derive_seed

__all__ = ["PairLogit", "PairNetwork", "Product", "Tower"]


class PairNetwork(keras.layers.Layer, abc.ABC):
    """A network from a user and an item to φ: a user side, an item side and a function that joins the two.

    Args:
        n_users: Number of rows of the users' table.
        n_items: Number of rows of the items' table.
        width: Width of a user's and an item's vector.
        layer_config: How the layers on these vectors are made.
    """

    def __init__(self, n_users: int, n_items: int, width: int, layer_config: LayerConfig, name: str):
        super().__init__(name=name, autocast=False, dtype=layer_config.dtype)
        regularizer = layer_config.weights(name, fan_in=width)["kernel_regularizer"]
        self.users, self.items = (
            self.add_weight(
                name=side,
                shape=(length, width),
                initializer=keras.initializers.RandomNormal(
                    0.0, 0.01, derive_seed(layer_config.seed, f"{name}/{side}")
                ),
                regularizer=regularizer,
                autocast=False,
            )
            for side, length in (("users", n_users), ("items", n_items))
        )
        self.built = True

    def of_users(self, users: tf.Tensor) -> tf.Tensor:
        """The part that depends on the user only, [B, side], for row numbers [B]."""
        return tf.gather(tf.convert_to_tensor(self.users.value), users)

    def of_items(self, items: tf.Tensor) -> tf.Tensor:
        """The part that depends on the item only, [N, side], for item columns [N]."""
        return tf.gather(tf.convert_to_tensor(self.items.value), items)

    @abc.abstractmethod
    def join(self, of_users: tf.Tensor, of_items: tf.Tensor) -> tf.Tensor:
        """Joins the sides of N pairs, [N, side] each (or [1, side] for one user), to φ, float32 [N, factors]."""


class Product(PairNetwork):
    """The network of GMF (NCF, equation 8): p_u ⊙ q_i, which is as wide as the vectors."""

    def join(self, of_users, of_items):
        """See `PairNetwork`."""
        return of_users * of_items


class Tower(PairNetwork):
    """The network of MLP (NCF, equation 10): three hidden layers, each half as wide as its input, on [p_u; q_i].

    The product W'[p; q] of the first layer is a sum of two products, one for each user and one for each item.

    Args:
        n_users: Number of rows of the users' table.
        n_items: Number of rows of the items' table.
        factors: f, the width of φ; the vectors have width 4f, the layers 4f, 2f and f.
        layer_config: How the layers are made.
    """

    def __init__(self, n_users: int, n_items: int, factors: int, layer_config: LayerConfig, name: str):
        super().__init__(n_users, n_items, 4 * factors, layer_config, name)
        weights = layer_config.weights(f"{name}/first", fan_in=8 * factors)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(8 * factors, 4 * factors),
            initializer=weights["kernel_initializer"],
            regularizer=weights["kernel_regularizer"],
            autocast=False,
        )
        self.bias = self.add_weight(
            name="bias", shape=(4 * factors,), initializer=weights["bias_initializer"], autocast=False
        )
        self.rest = hidden_stack(4 * factors, [2 * factors, factors], layer_config, f"{name}_hidden")

    def of_users(self, users):
        """See `PairNetwork`."""
        return self._product(super().of_users(users), 0)

    def of_items(self, items):
        """See `PairNetwork`."""
        return self._product(super().of_items(items), 1)

    def join(self, of_users, of_items):
        """See `PairNetwork`."""
        hidden = tf.nn.relu(of_users + of_items + tf.cast(self.bias, of_users.dtype))
        for layer in self.rest:
            hidden = layer(hidden)
        return tf.cast(hidden, tf.float32)

    def _product(self, vectors: tf.Tensor, half: int) -> tf.Tensor:
        kernel = tf.split(tf.convert_to_tensor(self.kernel.value), 2)[half]
        return tf.matmul(tf.cast(vectors, self.compute_dtype), tf.cast(kernel, self.compute_dtype))


class PairLogit(keras.layers.Layer):
    """The output layer h'φ + b, which gives a logit for each pair.

    Args:
        inputs: Width of φ.
        seed: Seed of the initialiser.
    """

    def __init__(self, inputs: int, seed: int, name: str):
        super().__init__(name=name, autocast=False, dtype="float32")
        kernel = keras.initializers.LecunUniform(derive_seed(seed, f"{name}/kernel"))
        bias = LayerConfig(seed=seed).weights(name, fan_in=inputs)["bias_initializer"]
        self.kernel = self.add_weight(name="kernel", shape=(inputs, 1), initializer=kernel)
        self.bias = self.add_weight(name="bias", shape=(1,), initializer=bias)
        self.built = True

    def call(self, joined: list[tf.Tensor]) -> tf.Tensor:
        """Maps the φ of each network, [N, factors], to logits [N]."""
        kernel, bias = (tf.convert_to_tensor(weight.value) for weight in (self.kernel, self.bias))
        return (tf.matmul(tf.concat(joined, axis=1), kernel) + bias)[:, 0]
