"""Layers between user rows and codes: a sparse first layer, an item-major last layer, and the stacks built of them.

The first layer multiplies the non-zeros of a user row with the rows of its kernel; the last one keeps its kernel
item-major, [n_items, units], the layout in which its three matrix products (one forward, two backward) are fastest.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from tfvae.data.rows import UserRows
from tfvae.randomness import Noise, derive_seed

__all__ = ["Decoder", "Encoder", "ItemBag", "ItemLogits"]


def _weights(seed: int, name: str, weight_decay: float) -> dict:
    """The authors' initialisers: Glorot uniform kernels, biases from a truncated normal of sd 0.001."""
    return {
        "kernel_initializer": keras.initializers.GlorotUniform(derive_seed(seed, f"{name}/kernel")),
        "bias_initializer": keras.initializers.TruncatedNormal(stddev=0.001, seed=derive_seed(seed, f"{name}/bias")),
        # Keras's L2 is the plain coefficient times the sum of squares, with no half.
        "kernel_regularizer": keras.regularizers.L2(weight_decay) if weight_decay else None,
    }


@tf.custom_gradient
def _sum_of_rows(kernel: tf.Tensor, items: tf.Tensor, row_ids: tf.Tensor, n_users: tf.Tensor):
    """The sparse product X·kernel for binary X, [B, units], whose gradient is the same kind of product with X'."""
    total = tf.raw_ops.SparseSegmentSumWithNumSegments(
        data=kernel, indices=items, segment_ids=row_ids, num_segments=n_users
    )

    def gradient(upstream):
        by_item = tf.argsort(items)
        kernel_gradient = tf.raw_ops.SparseSegmentSumWithNumSegments(
            data=upstream,
            indices=tf.gather(row_ids, by_item),
            segment_ids=tf.gather(items, by_item),
            num_segments=tf.shape(kernel)[0],
        )
        return kernel_gradient, None, None, None

    return total, gradient


class ItemBag(keras.layers.Layer):
    """L2 normalisation, dropout and the first matrix product on the non-zeros of binary user rows.

    For a user with n items the output is the activation of `bias + Σ_i m_i · kernel[i] / (√n · keep)`, where m_i
    is 1 with probability `keep` in training and always 1 otherwise: the row is normalised first, then dropped
    (inverted dropout), as in the authors' code. A user without items gets the activation of the bias.

    Args:
        n_items: Rows of the kernel.
        units: Width of the output.
        activation: Of the output.
        dropout: Share of the non-zeros dropped in training.
        seed: Seed of the initialisers.
        weight_decay: λ of λ·Σ kernel², added to the model's losses.
    """

    def __init__(
        self,
        n_items: int,
        units: int,
        activation: str = "linear",
        dropout: float = 0.0,
        seed: int = 0,
        weight_decay: float = 0.0,
        **kwargs,
    ):
        # Keras would otherwise cast the counts to bfloat16, which has no 257.
        super().__init__(autocast=False, **kwargs)
        self.activation = keras.activations.get(activation)
        self.dropout = dropout
        weights = _weights(seed, self.name, weight_decay)
        # autocast would turn the whole table into bfloat16 at every step of a mixed-precision run.
        self.kernel = self.add_weight(
            name="kernel",
            shape=(n_items, units),
            initializer=weights["kernel_initializer"],
            regularizer=weights["kernel_regularizer"],
            autocast=False,
        )
        self.bias = self.add_weight(
            name="bias", shape=(units,), initializer=weights["bias_initializer"], autocast=False
        )
        self.built = True

    def call(self, rows: UserRows, noise: Noise | None = None) -> tf.Tensor:
        """Maps B user rows to [B, units] in the layer's compute dtype; deterministic without `noise`."""
        items, row_ids, keep = rows.items, rows.row_ids, 1.0
        if noise is not None and self.dropout:
            keep = 1.0 - self.dropout
            kept = tf.where(noise.uniform(tf.shape(items), f"{self.name}/dropout") < keep)[:, 0]
            items, row_ids = tf.gather(items, kept), tf.gather(row_ids, kept)
        kernel = tf.convert_to_tensor(self.kernel.value)
        total = _sum_of_rows(kernel, items, row_ids, tf.shape(rows.counts)[0])
        length = tf.sqrt(tf.maximum(rows.counts, 1.0)) * keep
        output = tf.ensure_shape(total, (None, kernel.shape[1])) / length[:, None] + self.bias
        return self.activation(tf.cast(output, self.compute_dtype))


class ItemLogits(keras.layers.Layer):
    """The last layer: one float32 logit per item.

    Args:
        n_items: Width of the output.
        units: Width of the input.
        seed: Seed of the initialisers.
        weight_decay: λ of λ·Σ kernel², added to the model's losses.
    """

    def __init__(self, n_items: int, units: int, seed: int = 0, weight_decay: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        weights = _weights(seed, self.name, weight_decay)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(n_items, units),
            initializer=weights["kernel_initializer"],
            regularizer=weights["kernel_regularizer"],
        )
        self.bias = self.add_weight(
            name="bias", shape=(n_items,), initializer=weights["bias_initializer"], autocast=False
        )
        self.built = True

    def call(self, hidden: tf.Tensor) -> tf.Tensor:
        """Maps [B, units] to float32 logits [B, n_items]."""
        products = tf.matmul(hidden, tf.convert_to_tensor(self.kernel), transpose_b=True)
        # The softmax over all items needs float32 also in a mixed-precision run.
        return tf.nn.bias_add(tf.cast(products, tf.float32), tf.convert_to_tensor(self.bias.value))


def _dense_stack(widths, activations, units: int, seed: int, weight_decay: float, name: str, dtype) -> list:
    """Built dense layers of the given widths and activations on an input of `units`; [] for no widths."""
    stack = []
    for depth, (width, activation) in enumerate(zip(widths, activations, strict=True), start=1):
        weights = _weights(seed, f"{name}_{depth}", weight_decay)
        layer = keras.layers.Dense(width, activation, name=f"{name}_{depth}", dtype=dtype, **weights)
        layer.build((None, units))
        stack.append(layer)
        units = width
    return stack


class Encoder(keras.layers.Layer):
    """The multilayer perceptron from a user row to a code: `ItemBag`, then dense layers.

    Args:
        n_items: Width of the catalogue.
        hidden: Widths of the hidden layers; may be empty.
        outputs: Width of the code.
        activation: Of the hidden layers.
        output_activation: Of the code.
        dropout: Of the input.
        seed: Seed of the initialisers.
        weight_decay: λ of λ·Σ‖W‖² over the kernels.
    """

    def __init__(
        self,
        n_items: int,
        hidden: Sequence[int],
        outputs: int,
        *,
        activation: str,
        output_activation: str = "linear",
        dropout: float,
        seed: int,
        weight_decay: float = 0.0,
        name: str = "encoder",
        **kwargs,
    ):
        super().__init__(name=name, autocast=False, **kwargs)
        (first, *widths) = [*hidden, outputs]
        (first_activation, *activations) = [activation] * len(hidden) + [output_activation]
        dtype = self.dtype_policy
        self.first = ItemBag(
            n_items, first, first_activation, dropout, seed, weight_decay, name=f"{name}_0", dtype=dtype
        )
        self.rest = _dense_stack(widths, activations, first, seed, weight_decay, name, dtype)
        self.built = True

    def call(self, rows: UserRows, noise: Noise | None = None) -> tf.Tensor:
        """Maps B user rows to codes [B, outputs]; deterministic without `noise`."""
        code = self.first(rows, noise=noise)
        for layer in self.rest:
            code = layer(code)
        return code


class Decoder(keras.layers.Layer):
    """The multilayer perceptron from a code to item logits: dense layers, then `ItemLogits`.

    Args:
        n_items: Width of the catalogue.
        hidden: Widths of the hidden layers; may be empty.
        latent_dim: Width of the code.
        activation: Of the hidden layers.
        seed: Seed of the initialisers.
        weight_decay: λ of λ·Σ‖W‖² over the kernels.
    """

    def __init__(
        self,
        n_items: int,
        hidden: Sequence[int],
        latent_dim: int,
        *,
        activation: str,
        seed: int,
        weight_decay: float = 0.0,
        name: str = "decoder",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        dtype = self.dtype_policy
        activations = [activation] * len(hidden)
        self.hidden = _dense_stack(hidden, activations, latent_dim, seed, weight_decay, name, dtype)
        units = [latent_dim, *hidden][-1]
        self.last = ItemLogits(n_items, units, seed, weight_decay, name=f"{name}_logits", dtype=dtype)
        self.built = True

    def call(self, code: tf.Tensor) -> tf.Tensor:
        """Maps codes [B, latent_dim] to float32 logits [B, n_items]."""
        for layer in self.hidden:
            code = layer(code)
        return self.last(code)
