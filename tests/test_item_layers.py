"""EVCF's layers against dense formulas: gates, the He initialiser, dense rows, inputs laid beside, pseudo-inputs."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from dense_reference import normalised, on_the_items, random_rows, rows_of
from evcf_reference import Recorded, copy_of

from tfvae.models.hvamp import HVamp
from tfvae.nn.item_layers import EmbeddingBag, ItemLogits, PseudoInputs
from tfvae.nn.layer_config import LayerConfig
from tfvae.nn.mlp import Decoder, Encoder, GatedLinear, SideBySide, hidden_stack, output_layer
from tfvae.nn.noise import Noise

CLOSE = {"rtol": 5e-6, "atol": 5e-6}
HE = LayerConfig("tanh", initializer="he", seed=3)
GATED = LayerConfig("tanh", gated=True, initializer="he", seed=3)


@pytest.fixture
def noise():
    """Of one step; it remembers what it draws."""
    Recorded.drawn = {}
    return Recorded(1, tf.constant(0))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assert_equal_with_gradients(found, expected, weights, copies, inputs=()):
    """Outputs and gradients of Σ output · upstream, with respect to weights and inputs, agree.

    Args:
        found: Makes the layer's output.
        expected: Makes the dense formula's, from `copies`.
        weights: Keras variables.
        copies: tf.Variables, float64, in the order of the weights.
        inputs: tf.Variables that both take, float32.
    """
    with tf.GradientTape(persistent=True) as tape:
        outputs = found(), expected()
        totals = [tf.reduce_sum(output * normal(*output.shape, seed=9).astype(output.dtype.name)) for output in outputs]
    assert np.abs(outputs[1]).max() > 0.1
    np.testing.assert_allclose(outputs[0], outputs[1], **CLOSE)
    ours = tape.gradient(totals[0], [weight.value for weight in weights] + list(inputs))
    theirs = tape.gradient(totals[1], [*copies, *inputs])
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        assert np.abs(other).max() > 0.01
        np.testing.assert_allclose(tf.convert_to_tensor(one), other, rtol=1e-4, atol=2e-5, err_msg=str(number))


def gate(x, kernel, bias, gate_kernel, gate_bias):
    """Equation 7 of EVCF."""
    x = tf.cast(x, tf.float64)
    return (x @ kernel + bias) * tf.sigmoid(x @ gate_kernel + gate_bias)


def tanh(x, kernel, bias):
    return tf.tanh(tf.cast(x, tf.float64) @ kernel + bias)


FORMULAS = {"tanh": (HE, tanh), "gated": (GATED, gate)}


@pytest.mark.parametrize("beside", [0, 4])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", FORMULAS)
def test_an_item_bag_equals_the_dense_formula_on_one_mask(kind, training, beside, noise):
    layer_config, formula = FORMULAS[kind]
    x, code = random_rows(), tf.Variable(3 * normal(7, beside))
    layer = EmbeddingBag(13, 6, layer_config, dropout=0.4, beside=beside, name="bag")
    copies = [copy_of(weight) for weight in layer.weights]
    given = {"beside": code} if beside else {}
    layer(rows_of(x), noise=noise)
    assert Recorded.drawn.keys() == {"bag/dropout"}  # value and gate do not drop apart

    def dense():
        inputs = normalised(x)
        if training:
            inputs *= on_the_items(x, Recorded.drawn["bag/dropout"] < 0.6) / 0.6
        # What lies beside is neither normalised nor dropped.
        return formula(tf.concat([inputs, code], axis=1), *copies)

    assert_equal_with_gradients(
        lambda: layer(rows_of(x), noise=noise if training else None, **given),
        dense,
        layer.weights,
        copies,
        [code] if beside else [],
    )


@pytest.mark.parametrize("share", [0.5, 0.4])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", FORMULAS)
def test_dense_rows_are_dropped_on_one_mask_but_not_normalised(kind, training, share, noise):
    layer_config, formula = FORMULAS[kind]
    layer = EmbeddingBag(13, 6, layer_config, dropout=share, name="bag")
    copies = [copy_of(weight) for weight in layer.weights]
    inputs = tf.Variable(normal(5, 13) ** 2)
    layer.encode_dense(inputs, noise)
    assert Recorded.drawn.keys() == {"bag/dense-dropout"}
    kept = Recorded.drawn["bag/dense-dropout"]
    assert kept.shape == (5, 13) and 0 < kept.sum() < kept.size

    def dense():
        return formula(inputs * (kept / np.float32(1 - share) if training else 1.0), *copies)

    found = layer.encode_dense(inputs, noise if training else None)
    np.testing.assert_array_equal(layer.encode_dense(inputs, noise if training else None), found)
    assert_equal_with_gradients(
        lambda: layer.encode_dense(inputs, noise if training else None), dense, layer.weights, copies, [inputs]
    )


def test_a_dense_row_and_a_user_row_differ_by_their_length_alone():
    x, layer = random_rows(empty=()), EmbeddingBag(13, 6, GATED, dropout=0.5)
    np.testing.assert_allclose(layer.encode_dense(normalised(x)), layer(rows_of(x)), **CLOSE)
    assert np.abs(layer.encode_dense(tf.constant(x)) - layer(rows_of(x))).max() > 0.3


@pytest.mark.parametrize("share", [0.5, 0.3])
def test_dense_rows_are_dropped_by_the_law_of_user_rows(share):
    # On an identity of a kernel an output is an input that was dropped or scaled.
    n_draws, layer = 20_000, EmbeddingBag(5, 5, dropout=share)
    layer.kernel.assign(np.eye(5))
    layer.bias.assign(np.zeros(5))
    row, noise = np.float32([[1, 0, 1, 1, 1]]) / 2, Noise(1, tf.constant(0))
    dense = layer.encode_dense(tf.tile(row, [n_draws, 1]), noise).numpy()
    user = layer(rows_of(np.tile(2 * row, (n_draws, 1))), noise=noise).numpy()
    for dropped in (dense, user):
        assert set(np.round(np.unique(dropped), 5)) == {0, np.float32(round(0.5 / (1 - share), 5))}
        error = 0.5 * np.sqrt(share / (1 - share) / n_draws)
        np.testing.assert_allclose(dropped.mean(axis=0), row[0], atol=5 * error)
        correlations = np.corrcoef(np.delete(dropped, 1, axis=1).T) - np.eye(4)
        assert np.abs(correlations).max() < 5 / np.sqrt(n_draws)
    assert (dense != user).any(axis=1).mean() > 0.5  # by other draws
    np.testing.assert_array_equal(layer.encode_dense(row), row)


def test_a_gated_linear_unit_equals_the_dense_formula():
    layer, inputs = GatedLinear(5, 6, GATED, name="unit"), tf.Variable(normal(7, 5))
    assert [weight.path for weight in layer.weights] == [
        f"unit_{branch}/{part}" for branch in ("value", "gate") for part in ("kernel", "bias")
    ]
    copies = [copy_of(weight) for weight in layer.weights]
    assert_equal_with_gradients(lambda: layer(inputs), lambda: gate(inputs, *copies), layer.weights, copies, [inputs])


def doors():
    """Each gated layer's output, value kernel, value bias and gate bias."""
    unit, bag = GatedLinear(13, 6, GATED), EmbeddingBag(13, 6, GATED)
    x = random_rows()
    yield lambda: unit(tf.constant(x)), unit.value.kernel, unit.value.bias, unit.gate.bias
    yield lambda: bag(rows_of(x)), bag.kernel, bag.bias, bag.gate_bias
    yield lambda: bag.encode_dense(tf.constant(x)), bag.kernel, bag.bias, bag.gate_bias


@pytest.mark.parametrize("door", range(3), ids=["unit", "user rows", "dense rows"])
def test_the_value_branch_has_no_activation_and_the_gate_is_a_share(door):
    output, kernel, bias, gate_bias = list(doors())[door]
    once = output().numpy()
    kernel.assign(1000 * kernel)
    bias.assign(1000 * bias)
    np.testing.assert_allclose(output(), 1000 * once, rtol=1e-4, atol=1e-3)
    assert np.abs(output()).max() > 100
    gate_bias.assign(gate_bias - 100)
    assert np.abs(output()).max() < 1e-6


@pytest.mark.parametrize("hidden", [(), (8,), (8, 6)], ids=len)
def test_heads_and_logits_are_never_gated(hidden):
    layer_config = LayerConfig("tanh", gated=True, initializer="he", seed=1)
    encoder, decoder = Encoder(13, hidden, 4, layer_config, dropout=0.5), Decoder(13, hidden, 4, layer_config)
    gates = [weight.path for weight in [*encoder.weights, *decoder.weights] if "gate" in weight.path]
    assert len(gates) == 2 * 2 * len(hidden)
    head = encoder.rest[-1] if hidden else encoder.first
    for last, output in (
        (head, lambda: encoder(rows_of(random_rows()))),
        (decoder.last, lambda: decoder(normal(7, 4))),
    ):
        assert len(last.weights) == 2
        once = output().numpy()
        last.kernel.assign(-2 * last.kernel)
        last.bias.assign(-2 * last.bias)
        np.testing.assert_allclose(output(), -2 * once, rtol=1e-5, atol=1e-5)  # affine


def branches(layer):
    """Kernel and bias of each affine map in a layer."""
    if isinstance(layer, EmbeddingBag) and layer.gated:
        return [(layer.kernel, layer.bias), (layer.gate_kernel, layer.gate_bias)]
    parts = {GatedLinear: lambda: [layer.value, layer.gate], SideBySide: lambda: layer.outputs}
    return [(part.kernel, part.bias) for part in parts.get(type(layer), lambda: [layer])()]


WIDE = {
    "first": (lambda s: EmbeddingBag(300, 70, s), 300),
    "first, with a code beside": (lambda s: EmbeddingBag(300, 70, s, beside=100), 400),
    "hidden": (lambda s: hidden_stack(120, [200], s, "hidden")[0], 120),
    "heads": (lambda s: output_layer(150, 160, s, "heads", n_layers=2), 150),
    "head": (lambda s: output_layer(150, 160, s, "head"), 150),
    "last, item-major": (lambda s: ItemLogits(400, 50, s), 50),
}


@pytest.mark.parametrize("gated", [False, True], ids=["tanh", "gated"])
@pytest.mark.parametrize("layer", WIDE)
def test_he_draws_normal_kernels_and_uniform_biases_by_the_inputs_of_a_unit(layer, gated):
    make, fan_in = WIDE[layer]
    maps = branches(make(LayerConfig("tanh", gated=gated, initializer="he", seed=2)))
    assert len(maps) == (2 if layer == "heads" or (gated and layer.startswith(("first", "hidden"))) else 1)
    for kernel, bias in maps:
        kernel, bias = kernel.numpy().ravel(), bias.numpy()
        sd = np.sqrt(2 / fan_in)
        assert kernel.std() == pytest.approx(sd, rel=5 / np.sqrt(2 * kernel.size))
        assert kernel.mean() == pytest.approx(0, abs=5 * sd / np.sqrt(kernel.size))
        # Keras's HeNormal ends at two standard deviations; beyond them lies a share of 0.0455.
        assert np.abs(kernel).max() > 3 * sd
        assert (np.abs(kernel) > 2 * sd).mean() == pytest.approx(0.0455, abs=0.01)
        limit = 1 / np.sqrt(fan_in)
        assert 0.85 * limit < np.abs(bias).max() <= limit
        assert bias.std() == pytest.approx(limit / np.sqrt(3), rel=0.25)
        assert bias.mean() == pytest.approx(0, abs=5 * limit / np.sqrt(3 * bias.size))


def test_all_layers_of_the_largest_model_draw_their_own_weights():
    settings = {"hidden": (60, 60), "latent_dim": 45, "n_pseudo_inputs": 50}
    model = HVamp(300, gated=True, **settings)
    paths = [weight.path for weight in model.trainable_weights]
    assert len(set(paths)) == len(paths) == 1 + 2 * (4 + 2 + 6 + 2 + 4 + 2 + 6 + 1)
    for part, longest, limit in (("kernel", 2400, 0.15), ("bias", 45, 0.75)):
        drawn = [w.numpy().ravel()[:longest] for w in model.trainable_weights if w.path.endswith(part)]
        # Equal draws of another scale or shape would correlate fully.
        assert np.abs(np.corrcoef(drawn) - np.eye(len(drawn))).max() < limit
    again, other = HVamp(300, gated=True, **settings), HVamp(300, gated=True, seed=1, **settings)
    for one, two, three in zip(model.weights, again.weights, other.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy(), err_msg=one.path)
        assert not one.trainable or not np.isin(one.numpy(), three.numpy()).all()


def test_weight_decay_reaches_both_branches_and_all_heads_but_no_bias_and_no_pseudo_input():
    model = HVamp(13, hidden=(6, 5), latent_dim=4, n_pseudo_inputs=3, gated=True, weight_decay=0.25)
    for weight in model.trainable_weights:
        if "bias" in weight.path or "pseudo" in weight.path:
            weight.assign(weight + 100.0)
    kernels = [w.numpy().astype(float) for w in model.trainable_weights if w.path.endswith("kernel")]
    squares = sum((kernel**2).sum() for kernel in kernels if kernel.mean() < 50)
    assert len(model.losses) == len(kernels) - 1
    assert float(sum(model.losses)) == pytest.approx(0.25 * squares, rel=1e-5)


def test_side_by_side_is_two_layers_each_with_a_limit_of_its_own():
    layer_config = LayerConfig(initializer="glorot", seed=1)
    heads, wide = output_layer(60, 80, layer_config, "heads", n_layers=2), output_layer(60, 80, layer_config, "wide")
    assert [layer.kernel.shape for layer in heads.outputs] == [(60, 40)] * 2 and wide.kernel.shape == (60, 80)
    inputs = tf.Variable(normal(7, 60))
    copies = [copy_of(weight) for weight in heads.weights]
    assert_equal_with_gradients(
        lambda: heads(inputs),
        lambda: tf.concat([tf.cast(inputs, tf.float64) @ k + b for k, b in (copies[:2], copies[2:])], axis=1),
        heads.weights,
        copies,
        [inputs],
    )
    for layer, limit in ((heads.outputs[0], (6 / 100) ** 0.5), (heads.outputs[1], 0.06**0.5), (wide, (6 / 140) ** 0.5)):
        assert 0.99 * limit < np.abs(layer.kernel).max() <= limit


def test_pseudo_inputs_start_from_a_normal_of_mean_5_and_sd_1_percent():
    start = PseudoInputs(100, 500, seed=1, name="pseudo_inputs").kernel.numpy()
    assert start.shape == (100, 500)
    assert start.mean() == pytest.approx(0.05, abs=5 * 0.01 / np.sqrt(start.size))
    assert start.std() == pytest.approx(0.01, rel=5 / np.sqrt(2 * start.size))
    assert np.abs(start - 0.05).max() > 0.03  # not truncated
    assert not np.isin(start, PseudoInputs(100, 500, seed=2, name="pseudo_inputs").kernel.numpy()).all()


def test_pseudo_inputs_are_clipped_to_the_unit_interval_without_gradient_outside():
    layer = PseudoInputs(2, 3)
    layer.kernel.assign([[-0.5, 0.25, 1.5], [0.999, -1e-6, 0.001]])
    with tf.GradientTape() as tape:
        clipped = layer.clipped()
        total = tf.reduce_sum(clipped * [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    np.testing.assert_allclose(clipped, [[0, 0.25, 1], [0.999, 0, 0.001]], rtol=1e-6)
    np.testing.assert_array_equal(tape.gradient(total, layer.kernel.value), [[0, 2, 0], [4, 0, 6]])


def test_mixed_precision_computes_dense_rows_in_half_and_user_rows_in_full():
    whole, half = (
        EmbeddingBag(300, 6, LayerConfig(gated=True, seed=1, dtype=d), name="bag")
        for d in ("float32", "mixed_bfloat16")
    )
    inputs, x = tf.constant(normal(5, 300) ** 2), random_rows(7, 300)
    assert half.encode_dense(inputs).dtype == tf.bfloat16
    np.testing.assert_allclose(
        tf.cast(half.encode_dense(inputs), tf.float32), whole.encode_dense(inputs), rtol=0.05, atol=0.05
    )
    np.testing.assert_array_equal(half(rows_of(x)), tf.cast(whole(rows_of(x)), tf.bfloat16))
    assert {weight.dtype for weight in half.weights} == {"float32"}
