"""The layers that are as wide as the catalogue: the sparse first layer, the item-major last one, the pseudo-inputs.

The first layer multiplies the non-zeros of a user row with the rows of its kernel, by `nn/sparse_ops.py`. The last
layer keeps its kernel item-major, [n_items, units], since its three matrix products (one forward, two backward) are
fastest in this layout.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from tfvae.nn.batches import SparseBatch
from tfvae.nn.item_sampler import Sample
from tfvae.nn.layer_config import PLAIN, LayerConfig
from tfvae.nn.noise import Noise, derive_seed
from tfvae.nn.sparse_ops import (
    binary_matmul,
    distinct,
    is_portable,
    products_at,
    products_of_pairs,
    rows_at,
    sparse_matmul,
)

__all__ = ["EmbeddingBag", "ItemLogits", "PseudoInputs", "WeightedEmbeddingBag"]


class EmbeddingBag(keras.layers.Layer):
    """L2 normalisation, dropout and the first matrix product on the non-zeros of binary user rows.

    For a user with n items the output is the activation of `bias + Σ_i m_i · kernel[i] / (√n · keep)`, where m_i
    is 1 with probability `keep` in training and always 1 otherwise: the row is normalised first, then dropped
    (inverted dropout), as in the authors' code. A user without items gets the activation of the bias. A gated
    layer multiplies the output with the sigmoid of the same expression with a second kernel and bias.

    Example:
        >>> import tensorflow as tf
        >>> from tfvae.nn.batches import unpad
        >>> from tfvae.nn.item_layers import EmbeddingBag
        >>> histories = unpad(tf.constant([[0, 3, -1], [2, -1, -1]]))
        >>> EmbeddingBag(n_items=5, units=2)(histories).shape
        TensorShape([2, 2])

    Args:
        n_items: Rows of the kernel.
        units: Width of the output.
        layer_config: How the layer is made.
        dropout: Share of the non-zeros dropped in training.
        normalize: Whether to divide by √n.
        beside: Width of a dense input that is concatenated to the user row, and is neither normalised nor dropped; its
            rows of the kernel follow those of the items.
    """

    def __init__(
        self,
        n_items: int,
        units: int,
        layer_config: LayerConfig = PLAIN,
        *,
        dropout: float = 0.0,
        normalize: bool = True,
        beside: int = 0,
        **kwargs,
    ):
        # Otherwise Keras would cast the counts to bfloat16, which cannot represent 257.
        super().__init__(autocast=False, dtype=layer_config.dtype, **kwargs)
        self.n_items = n_items
        self.activation = keras.activations.get("linear" if layer_config.gated else layer_config.activation)
        self.dropout = dropout
        self.normalize = normalize
        self.by_rows = layer_config.by_rows
        self.kernel, self.bias = self._affine(layer_config, "", n_items + beside, units)
        if layer_config.gated:
            self.gate_kernel, self.gate_bias = self._affine(layer_config, "gate_", n_items + beside, units)
        self.gated = layer_config.gated
        self.built = True

    def _affine(
        self, layer_config: LayerConfig, prefix: str, inputs: int, units: int
    ) -> tuple[keras.Variable, keras.Variable]:
        weights = layer_config.weights(self.name + (f"/{prefix}" if prefix else ""), fan_in=inputs, table=True)
        # autocast would turn the whole table into bfloat16 at every step of a mixed-precision run.
        kernel = self.add_weight(
            name=f"{prefix}kernel",
            shape=(inputs, units),
            initializer=weights["kernel_initializer"],
            regularizer=weights["kernel_regularizer"],
            autocast=False,
        )
        bias = self.add_weight(
            name=f"{prefix}bias", shape=(units,), initializer=weights["bias_initializer"], autocast=False
        )
        return kernel, bias

    def drawn(self, batch: SparseBatch, noise: Noise) -> dict[str, tf.Tensor]:
        """What `call` draws for the items, float32 [nnz], by the name under which it does; nothing without dropout."""
        name = f"{self.name}/dropout"
        return {name: noise.uniform(tf.shape(batch.items), name)} if self.dropout else {}

    def kept(self, batch: SparseBatch, noise: Noise) -> tf.Tensor:
        """Which items `call` keeps when it is given this noise, bool [nnz]."""
        return noise.uniform(tf.shape(batch.items), f"{self.name}/dropout") < 1.0 - self.dropout

    def call(self, batch: SparseBatch, noise: Noise | None = None, beside: tf.Tensor | None = None) -> tf.Tensor:
        """Maps B user rows to [B, units] in the layer's compute dtype; deterministic without `noise`.

        Args:
            batch: The batch.
            noise: The random numbers that drop items; None in evaluation.
            beside: The dense input, float [B, beside], if the layer was made for one.
        """
        items, segment_ids, keep = batch.items, batch.segment_ids, 1.0
        if noise is not None and self.dropout:
            keep = 1.0 - self.dropout
            kept = self.kept(batch, noise)
            if is_portable():  # no length may depend on what is dropped; sums leave out what has a negative row
                segment_ids = tf.where(kept, segment_ids, -1)
            else:
                kept = tf.where(kept)[:, 0]
                items, segment_ids = tf.gather(items, kept), tf.gather(segment_ids, kept)
        length = (tf.sqrt(tf.maximum(batch.lengths, 1.0)) if self.normalize else tf.ones_like(batch.lengths)) * keep
        needed, places = distinct(items) if self.by_rows and not is_portable() else (None, items)

        def product(kernel):
            table = tf.convert_to_tensor(kernel.value) if needed is None else rows_at(kernel, needed)
            total = binary_matmul(table, places, segment_ids, tf.shape(batch.lengths)[0])
            total = tf.ensure_shape(total, (None, kernel.shape[1])) / length[:, None]
            if beside is not None:
                total += tf.matmul(tf.cast(beside, tf.float32), tf.convert_to_tensor(kernel.value)[self.n_items :])
            return total

        return self._activated(product)

    def encode_dense(self, inputs: tf.Tensor, noise: Noise | None = None) -> tf.Tensor:
        """Maps dense rows to [K, units]; dropout acts on them as on user rows, but they are not normalised.

        EVCF's pseudo-inputs are such rows.

        Args:
            inputs: The dense rows, float32 [K, n_items].
            noise: The random numbers that drop entries; None in evaluation.
        """
        keep = 1.0
        if noise is not None and self.dropout:
            keep = 1.0 - self.dropout
            kept = noise.kept(tf.shape(inputs), keep, f"{self.name}/dense-dropout")
            inputs = tf.where(kept, inputs, 0.0)
        inputs = tf.cast(inputs, self.compute_dtype)

        def product(kernel):
            # The narrow result is divided by `keep`, not the wide input.
            return tf.cast(tf.matmul(inputs, tf.cast(kernel.value, self.compute_dtype)), tf.float32) / keep

        return self._activated(product)

    def _activated(self, product: Callable[[keras.Variable], tf.Tensor]) -> tf.Tensor:
        output = product(self.kernel) + self.bias
        if self.gated:
            output *= tf.sigmoid(product(self.gate_kernel) + self.gate_bias)
        return self.activation(tf.cast(output, self.compute_dtype))


class WeightedEmbeddingBag(keras.layers.Layer):
    """Dropout and the first matrix product on the ratings of user rows.

    For a user with ratings r_i the output is the activation of `bias + Σ_i m_i · r_i · kernel[i] / keep`, where m_i is
    1 with probability `keep` in training and always 1 otherwise. Missing ratings add nothing, and neither does a
    rating of 0; a user without ratings gets the activation of the bias. Pass other values than the ratings, such as
    their deviations from a mean, as `batch._replace(values=...)`. The values have a gradient too.

    Args:
        n_items: Rows of the kernel.
        units: Width of the output.
        layer_config: How the layer is made; it has no gate.
        dropout: Share of the ratings dropped in training.
    """

    def __init__(self, n_items: int, units: int, layer_config: LayerConfig = PLAIN, *, dropout: float = 0.0, **kwargs):
        super().__init__(autocast=False, dtype=layer_config.dtype, **kwargs)
        self.activation = keras.activations.get(layer_config.activation)
        self.dropout = dropout
        weights = layer_config.weights(self.name, fan_in=n_items)
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

    def call(self, batch: SparseBatch, noise: Noise | None = None) -> tf.Tensor:
        """Maps B user rows with values to [B, units] in the layer's compute dtype; deterministic without `noise`."""
        values = batch.ratings
        if noise is not None and self.dropout:
            keep = 1.0 - self.dropout
            kept = noise.uniform(tf.shape(batch.items), f"{self.name}/dropout") < keep
            values = tf.where(kept, values / keep, 0.0)
        total = sparse_matmul(
            tf.convert_to_tensor(self.kernel.value), values, batch.items, batch.segment_ids, tf.shape(batch.lengths)[0]
        )
        total = tf.ensure_shape(total, (None, self.kernel.shape[1]))
        return self.activation(tf.cast(total + self.bias, self.compute_dtype))


class ItemLogits(keras.layers.Layer):
    """The last layer, with one float32 output per item: a logit or a predicted rating.

    Args:
        n_items: Width of the output.
        units: Width of the input.
        layer_config: How the layer is made; it has no activation and no gate.
    """

    def __init__(self, n_items: int, units: int, layer_config: LayerConfig = PLAIN, **kwargs):
        super().__init__(dtype=layer_config.dtype, **kwargs)
        self.by_rows = layer_config.by_rows
        weights = layer_config.weights(self.name, fan_in=units, table=True)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(n_items, units),
            initializer=weights["kernel_initializer"],
            regularizer=weights["kernel_regularizer"],
            autocast=False,
        )
        self.bias = self.add_weight(
            name="bias", shape=(n_items,), initializer=weights["bias_initializer"], autocast=False
        )
        self.built = True

    def call(self, hidden: tf.Tensor) -> tf.Tensor:
        """Maps [B, units] to float32 logits [B, n_items]."""
        kernel = tf.cast(tf.convert_to_tensor(self.kernel.value), hidden.dtype)
        products = tf.matmul(hidden, kernel, transpose_b=True)
        # The softmax over all items needs float32, even in a mixed-precision run.
        return tf.nn.bias_add(tf.cast(products, tf.float32), tf.convert_to_tensor(self.bias.value))

    def of_block(self, hidden: tf.Tensor, start: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
        """The outputs of `call` at the items from `start` up to the one before `stop`, float32 [B, stop - start].

        Args:
            hidden: The input of the layer, [B, units].
            start: The first item, an int32 scalar.
            stop: The item after the last one.
        """
        hidden = tf.cast(hidden, self.compute_dtype)
        if self.by_rows:
            rows, biases = self._rows(tf.range(start, stop), hidden.dtype)
        else:
            rows, biases = (tf.convert_to_tensor(weight.value)[start:stop] for weight in (self.kernel, self.bias))
        products = tf.matmul(hidden, tf.cast(rows, hidden.dtype), transpose_b=True)
        return tf.nn.bias_add(tf.cast(products, tf.float32), biases)

    def at_the_items_of(self, batch: SparseBatch, hidden: tf.Tensor) -> tf.Tensor:
        """The outputs of `call` at the stored items of B user rows; the gradient is computed for these items only.

        Args:
            batch: The batch.
            hidden: The input of the layer, [B, units].

        Returns:
            float32 [nnz], in the order of `batch.items`.
        """
        if self.by_rows:
            needed, places = distinct(batch.items)
            rows, biases = self._rows(needed, hidden.dtype)
            return products_of_pairs(hidden, rows, places, batch.segment_ids) + tf.gather(biases, places)
        products = products_at(hidden, tf.convert_to_tensor(self.kernel), batch.items, batch.segment_ids)
        return tf.cast(products, tf.float32) + tf.gather(tf.convert_to_tensor(self.bias.value), batch.items)

    def at_a_sample(
        self, batch: SparseBatch, hidden: tf.Tensor, sample: Sample
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The outputs of `call` at the stored items of B user rows and at sampled items; no other row is read.

        Args:
            batch: The batch.
            hidden: The input of the layer, [B, units].
            sample: The sample, of m distinct items.

        Returns:
            The outputs at the users' own items, float32 [nnz]; those at the sampled items, float32 [B, m]; and the
            logarithms of the sampled items' weights, float32 [B, m], −∞ where an item is one of the user's own.
        """
        # The sampled items come first, so that an item of a user is in the sample if its place is below m.
        needed, places = distinct(tf.concat([sample.items, batch.items], axis=0))
        n_sampled = tf.size(sample.items)
        rows, biases = self._rows(needed, hidden.dtype)
        places = places[n_sampled:]
        own = products_of_pairs(hidden, rows, places, batch.segment_ids) + tf.gather(biases, places)
        products = tf.matmul(hidden, rows[:n_sampled], transpose_b=True)
        others = tf.nn.bias_add(tf.cast(products, tf.float32), biases[:n_sampled])
        hits = tf.boolean_mask(tf.stack([batch.segment_ids, places], axis=1), places < n_sampled)
        log_weights = tf.broadcast_to(sample.log_weights, tf.shape(others))
        return own, others, tf.tensor_scatter_nd_update(log_weights, hits, tf.fill(tf.shape(hits)[:1], -np.inf))

    def _rows(self, items: tf.Tensor, dtype: tf.DType) -> tuple[tf.Tensor, tf.Tensor]:
        """The rows of the kernel with the given numbers, [m, units], and of the bias, float32 [m]."""
        return tf.cast(rows_at(self.kernel, items), dtype), rows_at(self.bias, items)


class PseudoInputs(keras.layers.Layer):
    """K learnt, dense user rows u_k, with each entry in [0, 1] (EVCF, equation 4; VampPrior, AISTATS 2018).

    The weights start from N(0.05, 0.01²). They are clipped when they are read, so that an entry outside [0, 1] has no
    gradient, as in the authors' code.

    Args:
        n_pseudo_inputs: K.
        n_items: Width of the catalogue.
        seed: Seed of the initialiser.
    """

    def __init__(self, n_pseudo_inputs: int, n_items: int, seed: int = 0, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(n_pseudo_inputs, n_items),
            initializer=keras.initializers.RandomNormal(0.05, 0.01, derive_seed(seed, f"{self.name}/kernel")),
            autocast=False,
        )
        self.built = True

    def clipped(self) -> tf.Tensor:
        """The pseudo-inputs, float32 [K, n_items]."""
        return _clip_to_unit(tf.convert_to_tensor(self.kernel.value))


@tf.custom_gradient
def _clip_to_unit(values: tf.Tensor):
    """`tf.clip_by_value(values, 0, 1)` with a custom gradient, which makes half as many passes over the array."""
    clipped = tf.clip_by_value(values, 0.0, 1.0)
    return clipped, lambda upstream: tf.where(tf.equal(clipped, values), upstream, 0.0)
