"""The set encoder, which maps the ratings of a row, in any number and order, to a code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import keras
import tensorflow as tf

from tfvae.nn.batches import SparseBatch
from tfvae.nn.layer_config import LayerConfig
from tfvae.nn.mlp import hidden_stack, output_layer
from tfvae.nn.noise import Noise
from tfvae.nn.sparse_ops import binary_matmul, distinct, is_portable, rows_at, sparse_matmul

__all__ = ["SetEncoder"]


class SetEncoder(keras.layers.Layer):
    """The partial inference network of p-VAE (equation 3 and Appendix A).

        code = NN_2(σ(g(NN_1(s_1), …, NN_1(s_|O|)) + b)),   s_m = e_m · r_m   or   [e_m, r_m]

    over the observed ratings r_m only. e_m is a learned embedding of column m, concatenated with the column's metadata,
    and g is a sum or an element-wise maximum. Without NN_1, the first form of s_m with the sum is the product of the
    row, with zeros for missing ratings, and the matrix of embeddings. This special case is zero imputation, and is
    computed as a sparse product. In all other cases equal ratings of a column in a batch share one element, which is
    computed once.

    Example:
        >>> import tensorflow as tf
        >>> from tfvae.nn.batches import unpad
        >>> from tfvae.nn.layer_config import LayerConfig
        >>> from tfvae.nn.set_encoder import SetEncoder
        >>> ratings = unpad(tf.constant([[0, 3], [2, -1]]), values=tf.constant([[5.0, 1.0], [3.0, 0.0]]))
        >>> encoder = SetEncoder(5, 4, "product", (6,), "sum", (), outputs=2, layer_config=LayerConfig("tanh"))
        >>> encoder(ratings).shape
        TensorShape([2, 2])

    Args:
        n_items: Number of columns.
        embedding_dim: Width of the learned part of e_m.
        element: The form of s_m, "product" or "concat".
        element_hidden: Widths of NN_1's layers; () for no NN_1.
        element_activation: Activation of NN_1's layers; None takes that of `layer_config`.
        pooling: "sum" or "max".
        hidden: Widths of NN_2's hidden layers.
        outputs: Width of the code.
        layer_config: How the layers are made; σ is its activation.
        n_features: Width of a column's metadata.
        dropout: Share of the ratings left out in training.

    Attributes:
        embedding: float32 weight [n_items, embedding_dim].
        features: float32 weight [n_items, n_features], not trained; zeros until they are assigned.
    """

    def __init__(
        self,
        n_items: int,
        embedding_dim: int,
        element: str,
        element_hidden: Sequence[int],
        pooling: str,
        hidden: Sequence[int],
        outputs: int,
        layer_config: LayerConfig,
        *,
        element_activation: str | None = None,
        n_features: int = 0,
        dropout: float = 0.0,
        name: str = "encoder",
        **kwargs,
    ):
        super().__init__(name=name, autocast=False, dtype=layer_config.dtype, **kwargs)
        self.concatenates, self.takes_maximum = element == "concat", pooling == "max"
        self.dropout = dropout
        self.activation = keras.activations.get(layer_config.activation)
        self.by_rows = layer_config.by_rows
        weights = layer_config.weights(f"{name}/embedding", fan_in=n_items, table=True)
        self.embedding = self.add_weight(
            name="embedding",
            shape=(n_items, embedding_dim),
            initializer=weights["kernel_initializer"],
            regularizer=weights["kernel_regularizer"],
            autocast=False,
        )
        self.features = self.add_weight(
            name="features", shape=(n_items, n_features), initializer="zeros", trainable=False, autocast=False
        )
        width = embedding_dim + n_features + self.concatenates
        of_elements = replace(layer_config, activation=element_activation or layer_config.activation)
        self.element_layers = hidden_stack(width, element_hidden, of_elements, f"{name}_element")
        pooled = element_hidden[-1] if element_hidden else width
        self.bias = self.add_weight(
            name="bias", shape=(pooled,), initializer=weights["bias_initializer"], autocast=False
        )
        self.rest = hidden_stack(pooled, hidden, layer_config, name)
        self.rest += [output_layer([pooled, *hidden][-1], outputs, layer_config.for_output(), f"{name}_code")]
        self.built = True

    def call(self, batch: SparseBatch, noise: Noise | None = None) -> tf.Tensor:
        """Maps B rows with values to codes [B, outputs]; deterministic without `noise`."""
        keep = 1.0
        if noise is not None and self.dropout:
            keep = 1.0 - self.dropout
            kept = tf.where(noise.uniform(tf.shape(batch.items), f"{self.name}/dropout") < keep)[:, 0]
            items, segment_ids, values = (
                tf.gather(part, kept) for part in (batch.items, batch.segment_ids, batch.values)
            )
            batch = batch._replace(items=items, segment_ids=segment_ids, values=values)
        pooled = self._maximum(batch) if self.takes_maximum else self._sum(batch) / keep
        code = self.activation(tf.cast(pooled + self.bias, self.compute_dtype))
        for layer in self.rest:
            code = layer(code)
        return code

    def _table(self, items: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The e_m of some items or of all, float32 [m, embedding_dim + n_features], and each item's row in it."""
        parts = [self.embedding, self.features] if self.features.shape[1] else [self.embedding]
        if self.by_rows and not is_portable():
            needed, items = distinct(items)
            found = [rows_at(part, needed) for part in parts]
        else:
            found = [tf.convert_to_tensor(part.value) for part in parts]
        return tf.concat(found, axis=1) if len(found) > 1 else found[0], items

    def _elements(self, batch: SparseBatch) -> tuple[tf.Tensor, tf.Tensor]:
        """NN_1(s_m) of the distinct ratings of a batch, float32 [N, K], and each rating's row in it, int32 [nnz]."""
        # `tf.unique` takes numbers, not pairs. So the 32 bits of an item and the 32 bits of its rating are joined to
        # one int64. Nothing is rounded, so that splitting the bits again gives the item and the rating.
        pairs = tf.bitcast(tf.stack([batch.items, tf.bitcast(batch.values, tf.int32)], axis=1), tf.int64)
        pairs, places = tf.unique(pairs)
        pairs = tf.bitcast(pairs, tf.int32)
        items, ratings = pairs[:, 0], pairs[:, 1]  # LiteRT cannot unstack what is empty
        table, rows = self._table(items)
        known, ratings = tf.gather(table, rows), tf.bitcast(ratings, tf.float32)[:, None]
        elements = tf.concat([known, ratings], axis=1) if self.concatenates else known * ratings
        for layer in self.element_layers:
            elements = layer(elements)
        return tf.cast(elements, tf.float32), places

    def _sum(self, batch: SparseBatch) -> tf.Tensor:
        n_users = tf.shape(batch.lengths)[0]
        if not (self.element_layers or self.concatenates):
            table, rows = self._table(batch.items)
            return sparse_matmul(table, batch.values, rows, batch.segment_ids, n_users)
        elements, places = self._elements(batch)
        return binary_matmul(elements, places, batch.segment_ids, n_users)

    def _maximum(self, batch: SparseBatch) -> tf.Tensor:
        elements, places = self._elements(batch)
        largest = tf.math.unsorted_segment_max(
            tf.gather(elements, places), batch.segment_ids, tf.shape(batch.lengths)[0]
        )
        return tf.where(largest > tf.float32.min, largest, 0.0)  # a row without ratings has no largest element
