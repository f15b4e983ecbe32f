"""RecVAE's encoder of dense sums against NumPy, its size, and the initialiser it starts from."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from dense_reference import Recorded, on_the_items, random_rows, rows_of

from tfvae.models.recvae import RecVAE
from tfvae.nn.layer_config import LayerConfig
from tfvae.nn.mlp import Decoder, DenselyConnectedEncoder
from tfvae.system.errors import InputError


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def affine(layer, x, prefix=""):
    """In float64; the layer on items keeps its gate beside its value."""
    kernel, bias = (getattr(layer, prefix + name).numpy().astype(float) for name in ("kernel", "bias"))
    return x @ kernel + bias


def linear(layer, x):
    if hasattr(layer, "gate_kernel"):
        return affine(layer, x) * sigmoid(affine(layer, x, "gate_"))
    if hasattr(layer, "gate"):
        return affine(layer.value, x) * sigmoid(affine(layer.gate, x))
    return affine(layer, x)


def normed_swish(norm, x, epsilon):
    """LN(swish(x)); NumPy's variance is the biased one."""
    x = x * sigmoid(x)
    scaled = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + epsilon)
    return scaled * norm.gamma.numpy() + norm.beta.numpy()


def by_hand(encoder, x, epsilon=0.1, kept=1.0, dropout=0.0):
    """Four hidden layers, written out as in the authors' code."""
    first, (fc2, fc3, fc4), (ln1, ln2, ln3, ln4) = encoder.first, encoder.rest, encoder.norms
    x = x.astype(float) / np.sqrt(np.maximum(x.sum(axis=1, keepdims=True), 1)) * kept / (1 - dropout)
    h1 = normed_swish(ln1, linear(first, x), epsilon)
    h2 = normed_swish(ln2, linear(fc2, h1) + h1, epsilon)
    h3 = normed_swish(ln3, linear(fc3, h2) + h1 + h2, epsilon)
    h4 = normed_swish(ln4, linear(fc4, h3) + h1 + h2 + h3, epsilon)
    heads = getattr(encoder.heads, "outputs", None) or [encoder.heads]
    return np.concatenate([affine(head, h4) for head in heads], axis=1)


def unsettled(encoder):
    """With gains and shifts that a fresh layer normalisation does not have."""
    for number, norm in enumerate(encoder.norms):
        rng = np.random.default_rng(number)
        norm.gamma.assign(rng.uniform(0.5, 1.5, norm.gamma.shape))
        norm.beta.assign(rng.uniform(-0.5, 0.5, norm.beta.shape))
    return encoder


def model(**settings):
    return RecVAE(13, **{"hidden": (6, 6, 6, 6), "latent_dim": 3} | settings)


CASES = {
    "the default": {},
    "the notebook's epsilon": {"layer_norm_epsilon": 1e-5},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("which", ["encoder", "old_encoder"])
def test_the_forward_pass_equals_numpy(case, which):
    x, settings = random_rows(), CASES[case]
    encoder = unsettled(getattr(model(**settings), which))
    expected = by_hand(encoder, x, settings.get("layer_norm_epsilon", 0.1))
    np.testing.assert_allclose(encoder(rows_of(x)), expected, rtol=1e-4, atol=2e-6)
    assert np.ptp(expected, axis=0).min() > 1e-3  # users differ
    for epsilon in (1e-5, 1e-3, 0.1):
        near = np.allclose(encoder(rows_of(x)), by_hand(encoder, x, epsilon), rtol=1e-3, atol=1e-4)
        assert near == (epsilon == settings.get("layer_norm_epsilon", 0.1))


def test_dropout_comes_after_the_normalisation_and_before_the_first_layer():
    x, Recorded.drawn = random_rows(), {}
    encoder = unsettled(model(dropout=0.4).encoder)
    found = encoder(rows_of(x), noise=Recorded(3, tf.constant(5)))
    assert Recorded.drawn.keys() == {"encoder_0/dropout"}
    kept = Recorded.drawn["encoder_0/dropout"] < 0.6
    assert 0 < kept.sum() < kept.size
    expected = by_hand(encoder, x, kept=on_the_items(x, kept), dropout=0.4)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-6)
    assert not np.allclose(found, encoder(rows_of(x)), atol=1e-3)


def test_one_hidden_layer_has_nothing_to_add_up():
    x = random_rows()
    encoder = unsettled(model(hidden=(6,)).encoder)
    inputs = x / np.sqrt(np.maximum(x.sum(axis=1, keepdims=True), 1))
    expected = affine(encoder.heads, normed_swish(encoder.norms[0], affine(encoder.first, inputs), 0.1))
    assert encoder.rest == []
    np.testing.assert_allclose(encoder(rows_of(x)), expected, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("epsilon", [0.1, 1e-5])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("mixed_bfloat16", 2e-2)])
def test_the_layer_normalisation_and_its_gradient_are_those_of_keras(dtype, tolerance, epsilon):
    ours = unsettled(model(layer_norm_epsilon=epsilon, dtype=dtype).encoder).norms[1]
    theirs = keras.layers.LayerNormalization(epsilon=epsilon)
    theirs.build((None, 6))
    theirs.set_weights(ours.get_weights())
    rng = np.random.default_rng(4)
    inputs, upstream = (tf.constant(rng.normal(2, 1, (5, 6)), ours.compute_dtype) for _ in range(2))
    found = []
    for norm in (ours, theirs):
        of = tf.cast(inputs, norm.compute_dtype)
        with tf.GradientTape() as tape:
            tape.watch(of)
            output = norm(of)
        assert output.dtype == norm.compute_dtype
        sources = [of, norm.gamma.value, norm.beta.value]
        found.append([output, *tape.gradient(output, sources, tf.cast(upstream, output.dtype))])
    for one, other in zip(*found, strict=True):
        assert np.abs(other).max() > 0.5
        np.testing.assert_allclose(tf.cast(one, tf.float32), other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("hidden", [(), (6, 7), (6, 6, 5)], ids=str)
def test_widths_that_cannot_be_added_up_are_refused(hidden):
    with pytest.raises(InputError, match=r"they need one width; found \["):
        model(hidden=hidden)
    assert model(hidden=hidden, encoder_type="plain").scores(rows_of(random_rows())).shape == (7, 13)


def test_the_published_model_has_as_many_parameters_as_the_authors():
    published = RecVAE(20_108)
    sizes = {
        part.name: sum(int(np.prod(weight.shape)) for weight in part.variables)
        for part in (published.encoder, published.decoder, published.old_encoder)
    }
    assert sizes == {"encoder": 13_754_200, "decoder": 4_041_708, "old_encoder": 13_754_200}
    assert sum(int(np.prod(weight.shape)) for weight in published.trainable_variables) == 17_795_908
    assert published.old_encoder.trainable_variables == []
    assert {norm.epsilon for norm in published.encoder.norms} == {0.1}


N_ITEMS, UNITS, LATENT = 900, 64, 36


def networks(seed=1):
    layer_config = LayerConfig("swish", initializer="fan-in", seed=seed)
    encoder = DenselyConnectedEncoder(N_ITEMS, (UNITS, UNITS), 2 * LATENT, layer_config, dropout=0.5, epsilon=0.1)
    other = DenselyConnectedEncoder(
        N_ITEMS, (UNITS, UNITS), 2 * LATENT, layer_config, dropout=0.5, epsilon=0.1, name="old_encoder"
    )
    return encoder, other, Decoder(N_ITEMS, (), LATENT, layer_config)


def test_fan_in_draws_kernels_and_biases_evenly_within_one_over_the_root_of_the_inputs():
    encoder, _, decoder = networks()
    layers = {encoder.first: N_ITEMS, encoder.rest[0]: UNITS, encoder.heads: UNITS, decoder.last: LATENT}
    for layer, fan_in in layers.items():
        limit = fan_in**-0.5
        for weight in (layer.kernel, layer.bias):
            values, n = weight.numpy().ravel(), weight.numpy().size
            assert np.abs(values).max() <= limit * (1 + 1e-6), weight.path
            assert np.abs(values).max() > limit * (1 - 5 / n), weight.path  # missed with a chance of e^-5
            # The sd of a uniform draw is limit / √3; its square errs by a share of √(4/5n).
            assert np.var(values) == pytest.approx(limit**2 / 3, rel=4 * (0.8 / n) ** 0.5), weight.path
            assert abs(values.mean()) < 4 * limit / np.sqrt(3 * n), weight.path
    for norm in encoder.norms:
        np.testing.assert_array_equal(norm.gamma, np.ones(UNITS))
        np.testing.assert_array_equal(norm.beta, np.zeros(UNITS))


def test_fan_in_is_a_function_of_the_seed_and_no_two_layers_draw_alike():
    (encoder, old, decoder), again, other = networks(), networks(), networks(seed=2)
    for one, same, different in zip((encoder, old, decoder), again, other, strict=True):
        for weights in zip(
            *([w for w in n.weights if "norm" not in w.path] for n in (one, same, different)), strict=True
        ):
            first, second, third = (weight.numpy() for weight in weights)
            np.testing.assert_array_equal(first, second)
            assert (first != third).mean() > 0.99
    assert (encoder.first.kernel.numpy() != old.first.kernel.numpy()).mean() > 0.99
    assert (encoder.heads.bias.numpy() != old.heads.bias.numpy()).mean() > 0.99
    for layer in (encoder.first, *encoder.rest, encoder.heads, decoder.last):
        kernel, bias = layer.kernel.numpy().ravel(), layer.bias.numpy()
        assert not np.isin(bias, kernel[: bias.size]).all(), layer.name


def test_a_models_old_encoder_does_not_start_as_its_encoder():
    started = model()
    pairs = zip(started.encoder.variables, started.old_encoder.variables, strict=True)
    drawn = [(one.numpy(), other.numpy()) for one, other in pairs if "norm" not in one.path]
    assert len(drawn) == 2 * 5 and all((one != other).all() for one, other in drawn)
