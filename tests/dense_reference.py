"""Mult-VAE and Mult-DAE on dense arrays, from the papers' formulas: what the sparse path must equal."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from scipy.sparse import csr_array

from tfvae.nn.batches import RowStore, SparseBatch
from tfvae.nn.noise import Noise


class Recorded(Noise):
    """Remembers what it draws."""

    drawn: dict[str, np.ndarray] = {}

    def uniform(self, shape, name):
        return self._keep(name, super().uniform(shape, name))

    def normal(self, shape, name):
        return self._keep(name, super().normal(shape, name))

    def kept(self, shape, share, name):
        return self._keep(name, super().kept(shape, share, name))

    def _keep(self, name, values):
        self.drawn[name] = values.numpy()
        return values


def random_rows(n_users=7, n_items=13, density=0.3, seed=0, empty=(2, 5)) -> np.ndarray:
    """Binary rows, float32 [n_users, n_items], of which some are empty."""
    x = (np.random.default_rng(seed).random((n_users, n_items)) < density).astype(np.float32)
    x[list(empty)] = 0
    return x


def rows_of(x: np.ndarray) -> SparseBatch:
    """All rows of a dense matrix in the wire format."""
    return RowStore(csr_array(x)).gather(tf.range(len(x)))


def on_the_items(x: np.ndarray, flat) -> np.ndarray:
    """A flat [nnz] array, user by user, laid out on the dense rows [B, n_items]."""
    laid_out = np.zeros_like(x)
    laid_out[np.nonzero(x)] = flat
    return laid_out


def normalised(x):
    """Rows of unit length; an empty row stays empty."""
    return x / tf.sqrt(tf.maximum(tf.reduce_sum(x**2, axis=1, keepdims=True), 1e-12))


def perceptron(code, layers, activations):
    """Chain of activation(code @ kernel + bias)."""
    for (kernel, bias), activation in zip(layers, activations, strict=True):
        code = activation(code @ kernel + bias)
    return code


def weights_of(model) -> list[list[tuple[tf.Variable, tf.Variable]]]:
    """Copies of (kernel, bias) of the encoder's and of the decoder's layers."""

    def copies(layers):
        return [(tf.Variable(layer.kernel.numpy()), tf.Variable(layer.bias.numpy())) for layer in layers]

    encoder, decoder = model.encoder, model.decoder
    return [copies([encoder.first, *encoder.rest]), copies([*decoder.hidden, decoder.last])]


def dense_loss(x, encoder, decoder, kept=None, noise=None, dropout=0.0, beta=None, weight_decay=0.0):
    """Loss of Mult-VAE (beta given) or Mult-DAE (beta None), all in dense arrays.

    The decoder's last kernel is item-major and enters transposed. `kept` is 1 where an item survives dropout.
    """
    inputs = normalised(x) * (np.ones_like(x) if kept is None else kept) / (1 - dropout)
    linear = [tf.tanh] * (len(encoder) - 1) + [tf.identity if beta is not None else tf.tanh]
    code = perceptron(inputs, encoder, linear)
    penalty = 0.0
    if beta is not None:
        half = code.shape[1] // 2
        mean, log_variance = code[:, :half], code[:, half:]
        code = mean + tf.exp(log_variance / 2) * noise
        per_dimension = (mean**2 + tf.exp(log_variance) - 1 - log_variance) / 2
        penalty = beta * tf.reduce_mean(tf.reduce_sum(per_dimension, axis=1))
    last_kernel, last_bias = decoder[-1]
    hidden = perceptron(code, decoder[:-1], [tf.tanh] * (len(decoder) - 1))
    logits = hidden @ tf.transpose(last_kernel) + last_bias
    nll = -tf.reduce_mean(tf.reduce_sum(x * tf.nn.log_softmax(logits), axis=1))
    squares = sum(tf.reduce_sum(kernel**2) for kernel, _ in [*encoder, *decoder])
    return nll + penalty + weight_decay * squares
