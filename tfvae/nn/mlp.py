"""Networks from user rows to codes and back: gated linear units, stacks of layers, two encoders and the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import keras
import tensorflow as tf

from tfvae.nn.batches import SparseBatch
from tfvae.nn.item_layers import EmbeddingBag, ItemLogits
from tfvae.nn.layer_config import LayerConfig
from tfvae.nn.noise import Noise
from tfvae.system.errors import InputError

__all__ = ["Decoder", "DenselyConnectedEncoder", "Encoder", "GatedLinear", "SideBySide", "hidden_stack", "output_layer"]


class GatedLinear(keras.layers.Layer):
    """The gated linear unit (xW + b) ⊗ σ(xV + c) (EVCF, equation 7): two layers, the first without activation.

    Args:
        inputs: Width of the input.
        units: Width of the output.
        layer_config: How the two layers are made.
    """

    def __init__(self, inputs: int, units: int, layer_config: LayerConfig, **kwargs):
        super().__init__(dtype=layer_config.dtype, **kwargs)
        self.value = _dense(inputs, units, layer_config.for_output(), f"{self.name}_value")
        self.gate = _dense(inputs, units, layer_config.for_output("sigmoid"), f"{self.name}_gate")
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Maps [B, inputs] to [B, units]."""
        return self.value(inputs) * self.gate(inputs)


class SideBySide(keras.layers.Layer):
    """Output layers of equal width on the same input, concatenated, as EVCF computes mean and log-variance.

    One wide layer computes the same function. But the limit of Glorot's initialiser depends on the width, and an
    optimiser that normalises each gradient tensor treats two tensors differently from one.

    Args:
        inputs: Width of the input.
        units: Width of all outputs together.
        n_layers: Number of output layers, which must divide `units`.
        layer_config: How the layers are made.
    """

    def __init__(self, inputs: int, units: int, n_layers: int, layer_config: LayerConfig, **kwargs):
        super().__init__(dtype=layer_config.dtype, **kwargs)
        self.outputs = [
            _dense(inputs, units // n_layers, layer_config, f"{self.name}_{number}") for number in range(n_layers)
        ]
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Maps [B, inputs] to [B, units]."""
        return tf.concat([layer(inputs) for layer in self.outputs], axis=1)


def _dense(inputs: int, units: int, layer_config: LayerConfig, name: str) -> keras.layers.Dense:
    layer = keras.layers.Dense(
        units, layer_config.activation, name=name, dtype=layer_config.dtype, **layer_config.weights(name, inputs)
    )
    layer.build((None, inputs))
    return layer


def hidden_stack(inputs: int, widths: Sequence[int], layer_config: LayerConfig, name: str) -> list[keras.layers.Layer]:
    """A stack of built hidden layers, dense or gated; [] for no widths.

    Args:
        inputs: Width of the input.
        widths: Widths of the layers.
        layer_config: How the layers are made.
        name: Name of the stack; a layer's name is this and its number, from 1.
    """
    make = GatedLinear if layer_config.gated else _dense
    stack = []
    for number, width in enumerate(widths, start=1):
        stack.append(make(inputs, width, layer_config, name=f"{name}_{number}"))
        inputs = width
    return stack


def output_layer(
    inputs: int, units: int, layer_config: LayerConfig, name: str, n_layers: int = 1
) -> keras.layers.Layer:
    """A built output layer, or several side by side.

    Args:
        inputs: Width of the input.
        units: Width of the output.
        layer_config: How the layer is made; see `LayerConfig.for_output`.
        name: Name of the layer.
        n_layers: Number of layers of equal width that compute the output.
    """
    if n_layers == 1:
        return _dense(inputs, units, layer_config, name)
    return SideBySide(inputs, units, n_layers, layer_config, name=name)


class Encoder(keras.layers.Layer):
    """A multilayer perceptron from a user row to a code: `EmbeddingBag`, then dense or gated layers.

    Args:
        n_items: Width of the catalogue.
        hidden: Widths of the hidden layers; may be empty.
        outputs: Width of the code.
        layer_config: How the layers are made.
        output_activation: Activation of the code.
        output_layers: Number of layers that compute the code; see `SideBySide`. Without hidden layers it is always 1.
        dropout: Share of the input that is dropped in training.
    """

    def __init__(
        self,
        n_items: int,
        hidden: Sequence[int],
        outputs: int,
        layer_config: LayerConfig,
        *,
        output_activation: str = "linear",
        output_layers: int = 1,
        dropout: float,
        name: str = "encoder",
        **kwargs,
    ):
        super().__init__(name=name, autocast=False, dtype=layer_config.dtype, **kwargs)
        last = layer_config.for_output(output_activation)
        units, first_style = (hidden[0], layer_config) if hidden else (outputs, last)
        self.first = EmbeddingBag(n_items, units, first_style, dropout=dropout, name=f"{name}_0")
        self.rest = []
        if hidden:
            output_name = f"{name}_{len(hidden)}"
            self.rest = hidden_stack(units, hidden[1:], layer_config, name)
            self.rest += [output_layer(hidden[-1], outputs, last, output_name, output_layers)]
        self.built = True

    def call(self, batch: SparseBatch, noise: Noise | None = None) -> tf.Tensor:
        """Maps B user rows to codes [B, outputs]; deterministic without `noise`."""
        return self._of_hidden(self.first(batch, noise=noise))

    def encode_dense(self, inputs: tf.Tensor, noise: Noise | None = None) -> tf.Tensor:
        """Maps dense rows, float32 [K, n_items], to codes [K, outputs]; see `EmbeddingBag.encode_dense`."""
        return self._of_hidden(self.first.encode_dense(inputs, noise))

    def _of_hidden(self, code: tf.Tensor) -> tf.Tensor:
        for layer in self.rest:
            code = layer(code)
        return code


class _LayerNorm(keras.layers.LayerNormalization):
    """Keras's layer normalisation of [B, width] with a custom gradient, which takes two thirds of the time."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """γ·(h - mean) / √(variance + ε) + β for each row h, computed in float32 for inputs of any type."""
        gain, shift = (tf.convert_to_tensor(weight.value) for weight in (self.gamma, self.beta))
        return tf.cast(_layer_norm(tf.cast(inputs, tf.float32), gain, shift, self.epsilon), self.compute_dtype)


@tf.custom_gradient
def _layer_norm(inputs: tf.Tensor, gain: tf.Tensor, shift: tf.Tensor, epsilon: float):
    centred = inputs - tf.reduce_mean(inputs, axis=1, keepdims=True)
    precision = tf.math.rsqrt(tf.reduce_mean(centred * centred, axis=1, keepdims=True) + epsilon)
    normal = centred * precision

    def gradient(upstream):
        by_gain, of_normal = upstream * normal, upstream * gain
        # The normalisation removes every change of a row's mean or length, so the gradient must not contain them.
        along = tf.linalg.matvec(by_gain, gain)[:, None] / tf.cast(tf.shape(inputs)[1], tf.float32)
        of_centred = of_normal - tf.reduce_mean(of_normal, axis=1, keepdims=True) - normal * along
        return precision * of_centred, tf.reduce_sum(by_gain, axis=0), tf.reduce_sum(upstream, axis=0), None

    return normal * gain + shift, gradient


class DenselyConnectedEncoder(keras.layers.Layer):
    """RecVAE's encoder, in which each hidden layer adds the outputs of all layers before it.

        h_1 = LN(a(W_1 x + b_1)),   h_j = LN(a(W_j h_{j-1} + b_j + Σ_{i<j} h_i))

    with the activation a (swish in RecVAE), layer normalisation LN after it, and a final linear layer to the code. If
    the layers are gated, W h + b is a gated linear unit.

    Args:
        n_items: Width of the catalogue.
        hidden: Widths of the hidden layers; there must be at least one, and all must be equal.
        outputs: Width of the code.
        layer_config: How the layers are made.
        output_layers: Number of layers that compute the code; see `SideBySide`.
        dropout: Share of the input that is dropped in training.
        epsilon: ε, which layer normalisation adds to the variance.

    Raises:
        InputError: If there is no hidden layer or the widths differ.
    """

    def __init__(
        self,
        n_items: int,
        hidden: Sequence[int],
        outputs: int,
        layer_config: LayerConfig,
        *,
        output_layers: int = 1,
        dropout: float,
        epsilon: float,
        name: str = "encoder",
        **kwargs,
    ):
        super().__init__(name=name, autocast=False, dtype=layer_config.dtype, **kwargs)
        if len(set(hidden)) != 1:
            raise InputError(
                f"an encoder of dense sums adds its hidden layers up, so they need one width; found {list(hidden)}. "
                "Give widths such as [600, 600, 600], or take the plain encoder."
            )
        linear = replace(layer_config, activation="linear")
        self.activation = keras.activations.get(layer_config.activation)
        self.first = EmbeddingBag(n_items, hidden[0], linear, dropout=dropout, name=f"{name}_0")
        self.rest = hidden_stack(hidden[0], hidden[1:], linear, name)
        self.norms = []
        for number, width in enumerate(hidden):
            norm = _LayerNorm(epsilon=epsilon, name=f"{name}_norm_{number}", dtype=layer_config.dtype)
            norm.build((None, width))
            self.norms.append(norm)
        self.heads = output_layer(
            hidden[-1], outputs, layer_config.for_output(), f"{name}_{len(hidden)}", output_layers
        )
        self.built = True

    def call(self, batch: SparseBatch, noise: Noise | None = None) -> tf.Tensor:
        """Maps B user rows to codes [B, outputs]; deterministic without `noise`."""
        first_norm, *norms = self.norms
        code = total = first_norm(self.activation(self.first(batch, noise=noise)))
        for layer, norm in zip(self.rest, norms, strict=True):
            code = norm(self.activation(layer(code) + total))
            total += code
        return self.heads(code)


class Decoder(keras.layers.Layer):
    """A multilayer perceptron from a code to item logits: dense or gated layers, then `ItemLogits`.

    Args:
        n_items: Width of the catalogue.
        hidden: Widths of the hidden layers; may be empty.
        latent_dim: Width of the code.
        layer_config: How the layers are made.
    """

    def __init__(
        self,
        n_items: int,
        hidden: Sequence[int],
        latent_dim: int,
        layer_config: LayerConfig,
        *,
        name: str = "decoder",
        **kwargs,
    ):
        super().__init__(name=name, dtype=layer_config.dtype, **kwargs)
        self.hidden = hidden_stack(latent_dim, hidden, layer_config, name)
        self.last = ItemLogits(n_items, [latent_dim, *hidden][-1], layer_config, name=f"{name}_logits")
        self.built = True

    def call(self, code: tf.Tensor) -> tf.Tensor:
        """Maps codes [B, latent_dim] to float32 logits [B, n_items]."""
        return self.last(self.last_hidden(code))

    def last_hidden(self, code: tf.Tensor) -> tf.Tensor:
        """Maps codes [B, latent_dim] to the last layer's input, which is the code if there is no hidden layer."""
        for layer in self.hidden:
            code = layer(code)
        return code
