"""Sparse layers against dense products, the initialisers, depths, weight decay and mixed precision."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from dense_reference import normalised, on_the_items, perceptron, random_rows, rows_of

from tfvae.nn.batches import SparseBatch, unpad
from tfvae.nn.item_layers import EmbeddingBag, ItemLogits
from tfvae.nn.layer_config import LayerConfig
from tfvae.nn.mlp import Decoder, Encoder, GatedLinear
from tfvae.nn.noise import Noise

CLOSE = {"rtol": 2e-6, "atol": 2e-6}


class GivenNoise:
    """Gives prepared uniform numbers, so that the dense reference can drop the same items."""

    def __init__(self, numbers):
        self.numbers = tf.constant(numbers, tf.float32)

    def uniform(self, shape, name):
        assert tuple(shape) == self.numbers.shape
        return self.numbers


@pytest.mark.parametrize("activation", ["linear", "tanh"])
@pytest.mark.parametrize("case", ["evaluation", "training", "all dropped", "only empty rows"])
def test_item_bag_equals_normalise_drop_multiply(case, activation):
    x = random_rows(empty=range(7) if case == "only empty rows" else (2, 5))
    layer = EmbeddingBag(13, 6, LayerConfig(activation), dropout=0.4)
    upstream = np.random.default_rng(1).normal(size=(7, 6)).astype(np.float32)
    numbers = np.random.default_rng(2).random(int(x.sum())) if case != "all dropped" else np.ones(int(x.sum()))
    noise = None if case == "evaluation" else GivenNoise(numbers)
    kernel, bias = tf.Variable(layer.kernel.numpy()), tf.Variable(layer.bias.numpy())
    with tf.GradientTape(persistent=True) as tape:
        dropped = normalised(x) if noise is None else normalised(x) * (on_the_items(x, numbers < 0.6)) / 0.6
        activate = {"linear": tf.identity, "tanh": tf.tanh}[activation]
        expected = activate(dropped @ kernel + bias)
        found = layer(rows_of(x), noise=noise)
        totals = [tf.reduce_sum(output * upstream) for output in (expected, found)]
    np.testing.assert_allclose(found, expected, **CLOSE)
    expected_gradient = tape.gradient(totals[0], [kernel, bias])
    found_gradient = tape.gradient(totals[1], [layer.kernel.value, layer.bias.value])
    for one, other in zip(found_gradient, expected_gradient, strict=True):
        np.testing.assert_allclose(tf.convert_to_tensor(one), other, **CLOSE)
    if case == "training":
        assert 0 < (numbers < 0.6).sum() < x.sum()


def test_the_order_of_a_history_does_not_matter():
    layer = EmbeddingBag(13, 6)
    one, other = (layer(unpad(tf.constant([history]))) for history in ([1, 5, 9], [9, -1, 1, 5]))
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_a_history_of_four_ones_by_hand():
    layer = EmbeddingBag(5, 1)
    layer.kernel.assign([[1.0], [2.0], [3.0], [4.0], [50.0]])
    layer.bias.assign([0.25])
    found = layer(unpad(tf.constant([[0, 1, 2, 3], [-1, -1, -1, -1]])))
    np.testing.assert_allclose(found, [[10 / 2 + 0.25], [0.25]], rtol=1e-6)


def test_dropout_keeps_the_expectation_of_the_normalised_input():
    n_draws, kept = 20_000, 0.5
    layer = EmbeddingBag(4, 4, dropout=1 - kept)
    layer.kernel.assign(np.eye(4))
    layer.bias.assign(np.zeros(4))
    history = unpad(tf.tile([[0, 2, 3]], [n_draws, 1]))
    dropped = layer(history, noise=Noise(1, tf.constant(0))).numpy()
    share = 1 / np.sqrt(3)
    assert set(np.round(np.unique(dropped), 5)) == {0, np.float32(round(share / kept, 5))}
    standard_error = share / np.sqrt(n_draws)  # the sd of a kept-or-dropped entry is its mean at keep = 1/2
    np.testing.assert_allclose(dropped.mean(axis=0), [share, 0, share, share], atol=5 * standard_error)
    # items of a user fall independently
    assert abs(np.corrcoef(dropped[:, 0], dropped[:, 2])[0, 1]) < 5 / np.sqrt(n_draws)
    assert np.array_equal(layer(history), np.tile([share, 0, share, share], (n_draws, 1)).astype(np.float32))


def test_item_logits_are_a_product_with_the_transposed_kernel():
    layer = ItemLogits(13, 5)
    hidden = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    expected = hidden @ layer.kernel.numpy().T + layer.bias.numpy()
    np.testing.assert_allclose(layer(hidden), expected, **CLOSE)
    assert layer.kernel.shape == (13, 5)


def kernels_and_biases(layers):
    return [(layer.kernel.numpy(), layer.bias.numpy()) for layer in layers]


@pytest.mark.parametrize("hidden", [(), (8,), (8, 6)], ids=len)
def test_encoders_of_any_depth(hidden):
    x = random_rows()
    encoder = Encoder(13, hidden, 4, LayerConfig("tanh", seed=1), dropout=0.5)
    layers = [encoder.first, *encoder.rest]
    assert [layer.kernel.shape for layer in layers] == list(zip([13, *hidden], [*hidden, 4], strict=True))
    activations = [tf.tanh] * len(hidden) + [tf.identity]
    expected = perceptron(normalised(x), kernels_and_biases(layers), activations)
    np.testing.assert_allclose(encoder(rows_of(x)), expected, **CLOSE)


@pytest.mark.parametrize("hidden", [(), (8,)], ids=len)
def test_the_output_activation_is_that_of_the_last_layer(hidden):
    encoder = Encoder(13, hidden, 4, LayerConfig("relu", seed=1), output_activation="tanh", dropout=0.0)
    expected = perceptron(
        normalised(random_rows()),
        kernels_and_biases([encoder.first, *encoder.rest]),
        [tf.nn.relu] * len(hidden) + [tf.tanh],
    )
    np.testing.assert_allclose(encoder(rows_of(random_rows())), expected, **CLOSE)


@pytest.mark.parametrize("hidden", [(), (8,), (6, 8)], ids=len)
def test_decoders_of_any_depth(hidden):
    code = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    decoder = Decoder(13, hidden, 4, LayerConfig("tanh", seed=1))
    *dense, (last_kernel, last_bias) = kernels_and_biases([*decoder.hidden, decoder.last])
    assert [kernel.shape for kernel, _ in dense] == list(zip([4, *hidden], hidden, strict=False))
    expected = perceptron(code, dense, [tf.tanh] * len(hidden)) @ last_kernel.T + last_bias
    np.testing.assert_allclose(decoder(code), expected, **CLOSE)


def stacks(seed=0, **settings):
    layer_config = LayerConfig("tanh", seed=seed, **settings)
    return Encoder(300, (60,), 40, layer_config, dropout=0.5), Decoder(300, (60,), 40, layer_config)


def layers_of(encoder, decoder):
    return [encoder.first, *encoder.rest, *decoder.hidden, decoder.last]


def test_kernels_are_glorot_uniform():
    for layer in layers_of(*stacks()):
        kernel = layer.kernel.numpy()
        limit = np.sqrt(6 / sum(kernel.shape))
        assert 0.99 * limit < np.abs(kernel).max() <= limit
        assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.05)
        assert kernel.mean() == pytest.approx(0, abs=5 * limit / np.sqrt(3 * kernel.size))


def test_biases_are_small_truncated_normals():
    biases = np.concatenate([layer.bias.numpy() for layer in layers_of(*stacks())])
    assert np.abs(biases).max() <= 0.002  # truncated at two standard deviations of 0.001
    assert biases.std() == pytest.approx(0.00088, rel=0.15)  # sd of a normal so truncated
    assert biases.mean() == pytest.approx(0, abs=5 * 0.00088 / np.sqrt(biases.size))


def test_every_layer_and_every_seed_draws_its_own_weights():
    by_layer = [layer.kernel.numpy().ravel()[:2400] for layer in layers_of(*stacks())]
    by_layer += [layer.kernel.numpy().ravel()[:2400] for layer in layers_of(*stacks(seed=1))]
    scaled = [kernel / np.abs(kernel).max() for kernel in by_layer]
    # Equal draws of another scale or shape would correlate fully.
    correlations = np.corrcoef(scaled) - np.eye(len(scaled))
    assert np.abs(correlations).max() < 0.15
    again = [layer.kernel.numpy().ravel()[:2400] for layer in layers_of(*stacks())]
    np.testing.assert_array_equal(by_layer[:4], again)


def test_weight_decay_is_the_plain_sum_of_squares_of_the_kernels():
    stack = stacks(weight_decay=0.25)
    squares = sum(np.square(layer.kernel.numpy(), dtype=np.float64).sum() for layer in layers_of(*stack))
    for layer in layers_of(*stack):
        layer.bias.assign(layer.bias + 100.0)
    assert float(sum(stack[0].losses + stack[1].losses)) == pytest.approx(0.25 * squares, rel=1e-5)
    assert not stacks()[0].losses and not stacks()[1].losses


def test_mixed_precision_leaves_first_product_and_logits_in_float32():
    # 257 has no bfloat16: a cast of the counts would change the length of the row.
    history = SparseBatch(tf.range(257), tf.zeros(257, tf.int32), tf.constant([257.0]))
    whole, half = (
        Encoder(300, (), 40, LayerConfig("tanh", dtype=dtype), dropout=0.0) for dtype in ("float32", "mixed_bfloat16")
    )
    assert half.first.kernel.value.dtype == tf.float32
    np.testing.assert_array_equal(half(history), tf.cast(whole(history), tf.bfloat16))


def test_mixed_precision_ends_in_float32_logits():
    (encoder, decoder), (half_encoder, half_decoder) = stacks(), stacks(dtype="mixed_bfloat16")
    x = rows_of(random_rows(7, 300))
    code, logits = half_encoder(x), half_decoder(half_encoder(x))
    assert (code.dtype, logits.dtype) == (tf.bfloat16, tf.float32)
    np.testing.assert_allclose(logits, decoder(encoder(x)), atol=0.02)
    # bfloat16 has 8 bits; logits whose bias is added in float32 have more
    assert np.any(logits.numpy() != tf.cast(tf.cast(logits, tf.bfloat16), tf.float32).numpy())


def test_the_first_layer_and_its_gradient_make_no_dense_user_rows():
    layer, rows = EmbeddingBag(997, 3, dropout=0.5), rows_of(random_rows(11, 997))

    @tf.function
    def gradient():
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(layer(rows, noise=Noise(0, tf.constant(0))) ** 2)
        return tape.gradient(total, layer.kernel.value)

    graph = gradient.get_concrete_function().graph
    shapes = [tuple(output.shape) for op in graph.get_operations() for output in op.outputs if output.shape.rank]
    assert (997, 3) in shapes
    assert not [shape for shape in shapes if 997 in shape and shape != (997, 3)]


def test_a_gated_layer_is_the_value_times_the_sigmoid_of_the_gate():
    layer = GatedLinear(4, 3, LayerConfig("tanh", gated=True, seed=1), name="gated")
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    value = x @ layer.value.kernel.numpy() + layer.value.bias.numpy()
    gate = 1 / (1 + np.exp(-(x @ layer.gate.kernel.numpy() + layer.gate.bias.numpy())))
    np.testing.assert_allclose(layer(x), value * gate, rtol=1e-6, atol=1e-7)
    assert np.abs(gate - 0.5).max() > 0.05 and (np.abs(value * gate) < np.abs(value)).all()
