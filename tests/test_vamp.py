"""Vamp against an independent dense reference: losses, gradients, scores, importance weights, the graph of a step."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from dense_reference import normalised, random_rows, rows_of
from evcf_reference import (
    CASES,
    DEPTHS,
    SMALL,
    Reference,
    assert_losses_and_gradients_agree,
    dense_shapes,
    log_likelihood,
    log_normal,
    ready,
    unsettle,
)

from tfvae.models.evcf import EVCFMultVAE
from tfvae.models.vamp import Vamp
from tfvae.nn.likelihoods import Multinomial
from tfvae.nn.mlp import ItemLogits
from tfvae.nn.noise import Noise
from tfvae.system.errors import InputError


def unsettled(model):
    """With pseudo-inputs on both sides of 0 and 1, and log-variances on both sides of 4."""
    return unsettle(model, [(model.encoder.rest[-1], 4)])


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "gated", "likelihood"), CASES)
def test_loss_gradients_and_one_step_equal_the_dense_reference(depth, gated, likelihood, monkeypatch):
    x = random_rows()
    # A half has a way of its own to draw masks.
    dropout = 0.5 if gated else 0.4
    model = Vamp(13, hidden=DEPTHS[depth], gated=gated, likelihood=likelihood, dropout=dropout, **SMALL)
    model = unsettled(ready(model, x))
    drawn, gradients = assert_losses_and_gradients_agree(model, x, monkeypatch, beta=0.7)
    assert drawn.keys() == {"encoder_0/dropout", "encoder_0/dense-dropout", "z"}
    kept = drawn["encoder_0/dense-dropout"]
    assert kept.shape == (5, 13) and 0 < kept.sum() < kept.size
    # No gradient where a pseudo-input is clipped or dropped, some everywhere else.
    start = model.pseudo_inputs.kernel.numpy()
    learns = kept & (start >= 0) & (start <= 1)
    assert not (learns | ~kept).all()
    np.testing.assert_array_equal(gradients["pseudo_inputs/kernel"].numpy() != 0, learns)


@pytest.mark.parametrize("gated", [False, True], ids=["tanh", "gated"])
def test_scores_equal_the_dense_reference_and_do_not_touch_the_pseudo_inputs(gated):
    x = random_rows()
    model = Vamp(13, hidden=(9, 7), gated=gated, **SMALL)
    np.testing.assert_allclose(model.scores(rows_of(x)), Reference(model).scores(x), rtol=1e-5, atol=1e-5)
    before = model.scores(rows_of(x)).numpy()
    model.pseudo_inputs.kernel.assign(np.full((5, 13), np.nan))
    np.testing.assert_array_equal(model.scores(rows_of(x)), before)


def test_the_prior_is_the_mixture_of_the_pseudo_inputs_posteriors():
    model = unsettled(Vamp(13, hidden=(9, 7), **SMALL))
    z = np.random.default_rng(3).normal(size=(6, 4))
    found = model.prior().log_prob(z.astype(np.float32))
    np.testing.assert_allclose(found, Reference(model).prior(z), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(model.prior().log_prob(z), found)


def test_real_rows_are_normalised_and_pseudo_inputs_are_not():
    model = Vamp(13, hidden=(9,), **SMALL)
    history = np.zeros((1, 13), np.float32)
    history[0, [1, 4, 6, 8]] = 1
    posterior = model.posterior(rows_of(history))
    model.pseudo_inputs.kernel.assign(np.tile(history / 2, (5, 1)))  # of four items, hence of length 1
    np.testing.assert_allclose(model.prior().mean(), posterior.mean()[0], rtol=1e-5, atol=1e-6)
    model.pseudo_inputs.kernel.assign(np.tile(history, (5, 1)))  # of length 2
    assert np.abs(model.prior().mean() - posterior.mean()[0]).max() > 0.05


def test_gradients_reach_pseudo_inputs_and_encoder_through_the_prior_alone():
    model = Vamp(13, hidden=(9,), gated=True, **SMALL)
    z = tf.constant(np.random.default_rng(3).normal(size=(6, 4)), tf.float32)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(model.prior(Noise(1, tf.constant(0))).log_prob(z))
    gradients = dict(
        zip([v.path for v in model.trainable_variables], tape.gradient(total, model.trainable_variables), strict=True)
    )
    reached = {path for path, gradient in gradients.items() if gradient is not None and np.abs(gradient).max() > 1e-4}
    assert reached == {path for path in gradients if path.startswith(("encoder", "pseudo_inputs"))}
    assert any(path.startswith("decoder") for path in gradients)


def test_beta_multiplies_the_divergence_and_is_that_of_the_epoch():
    x = random_rows()
    for epoch, beta in ((1, 0.1), (5, 0.5), (10, 1.0), (30, 1.0)):
        logs = ready(Vamp(13, hidden=(9,), **SMALL), x, epoch).train_step(tf.range(7, dtype=tf.int64))
        logs = {name: float(value) for name, value in logs.items()}
        assert logs["beta"] == pytest.approx(beta) and abs(logs["kl"]) > 0.01
        assert logs["loss"] == pytest.approx(logs["nll"] + beta * logs["kl"], rel=1e-6)


@pytest.mark.parametrize("n_pseudo_inputs", [1, 6])
def test_with_pseudo_inputs_that_encode_to_the_standard_normal_it_is_mult_vae(n_pseudo_inputs):
    x = random_rows()
    vamp = Vamp(13, hidden=(9, 7), latent_dim=4, n_pseudo_inputs=n_pseudo_inputs, warmup_epochs=10)
    baseline = EVCFMultVAE(13, hidden=(9, 7), latent_dim=4, warmup_epochs=10)
    vamp.pseudo_inputs.kernel.assign(np.zeros((n_pseudo_inputs, 13)))
    for model in (vamp, baseline):  # without biases zero goes to zero
        for weight in model.encoder.trainable_variables:
            if "bias" in weight.path:
                weight.assign(np.zeros(weight.shape))
    logs = [ready(model, x).train_step(tf.range(7, dtype=tf.int64)) for model in (vamp, baseline)]
    assert abs(float(logs[0]["kl"])) > 0.1 and float(logs[0]["beta"]) == pytest.approx(0.7)
    for name in ("loss", "nll", "kl", "beta"):
        assert float(logs[0][name]) == pytest.approx(float(logs[1][name]), rel=1e-5), name


def test_no_hidden_layer_is_refused_by_name():
    with pytest.raises(InputError, match="separate_heads needs a hidden layer"):
        Vamp(13, hidden=(), **SMALL)
    x = random_rows()  # in one layer for both moments it can do without
    model = ready(Vamp(13, hidden=(), separate_heads=False, **SMALL), x)
    assert np.isfinite(float(model.train_step(tf.range(7, dtype=tf.int64))["loss"]))


N_DRAWS = 20_000


def log_mean_exp(values):
    """And its standard error."""
    weights = np.exp(values - values.max())
    error = weights.std() / np.sqrt(len(weights)) / weights.mean()
    return np.log(weights.mean()) + values.max(), error


@pytest.mark.parametrize("likelihood", ["multinomial", "bernoulli"])
def test_importance_weights_have_the_bound_as_mean_and_the_evidence_as_log_mean_exp(likelihood):
    settings = SMALL | {"latent_dim": 1, "dropout": 0.5}
    model = Vamp(13, hidden=(9,), gated=True, likelihood=likelihood, **settings)
    model.pseudo_inputs.kernel.assign(np.random.default_rng(7).uniform(-0.5, 1.5, (5, 13)))
    x, reference = random_rows(3, empty=()), Reference(model)
    grid = np.linspace(-40, 40, 16_001)[:, None]
    log_p = log_likelihood(likelihood, x[:, None], reference.logits(grid)[None]) + reference.prior(grid)
    mean, log_variance = (moment[:, None] for moment in reference.upper(normalised(x.astype(float))))
    log_q = log_normal(grid[None], mean, log_variance)
    evidence = np.log(np.trapezoid(np.exp(log_p), grid[:, 0], axis=1))
    bound = np.trapezoid(np.exp(log_q) * (log_p - log_q), grid[:, 0], axis=1)
    assert (evidence - bound > 0.02).all()
    for user in range(3):
        many = rows_of(np.tile(x[user], (N_DRAWS, 1)))
        log_weights = model.importance(many)(Noise(1, tf.constant(0))).numpy().astype(float)
        assert log_weights.shape == (N_DRAWS,)
        assert abs(log_weights.mean() - bound[user]) < 5 * log_weights.std() / np.sqrt(N_DRAWS)
        found, error = log_mean_exp(log_weights)
        assert error < 0.02 and abs(found - evidence[user]) < 5 * error + 1e-4


def test_importance_weights_drop_nothing_and_follow_their_noise():
    model, x = Vamp(13, hidden=(9,), dropout=0.9, **SMALL), random_rows()
    log_weight = model.importance(rows_of(x))
    one, again, other = (log_weight(Noise(1, tf.constant(update))).numpy() for update in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).all()
    reference = Reference(model)
    parts = reference.parts(x, {"z": Noise(1, tf.constant(0)).normal((7, 4), "z").numpy()})
    assert one.mean() == pytest.approx(-float(parts["nll"] + parts["kl"]), rel=1e-5)


def multiples_of(size, shapes):
    """How often each kind of operation makes an array whose size is a multiple of the given one."""
    return Counter(
        kind for kind, shape in shapes if None not in shape and 0 not in shape and np.prod(shape) % size == 0
    )


@pytest.mark.slow
def test_a_step_makes_no_array_of_users_by_components_by_dimensions_and_no_dense_users_but_the_logits():
    n_users, n_items, n_components, latent_dim, units = 11, 997, 17, 5, 3
    settings = {"latent_dim": latent_dim, "n_pseudo_inputs": n_components}
    model = Vamp(n_items, hidden=(units,), gated=True, **settings)
    rows = rows_of(random_rows(n_users, n_items))
    last = ItemLogits(n_items, units)

    def step():
        with tf.GradientTape() as tape:
            loss = model.objective(rows, Noise(0, tf.constant(0)))["loss"]
        return tape.gradient(loss, [weight.value for weight in model.trainable_variables])

    def logits_alone():
        with tf.GradientTape() as tape:
            hidden = tf.zeros([n_users, units])
            tape.watch(hidden)
            loss = tf.reduce_sum(Multinomial(last(hidden)).log_prob_rows(rows))
        return tape.gradient(loss, [hidden, last.kernel.value, last.bias.value])

    found, allowed = (dense_shapes(function) for function in (step, logits_alone))
    shapes = [shape for _, shape in found]
    assert all((one, other) in shapes for one in (n_users, n_components) for other in (n_items, units))
    assert (n_users, n_components) in shapes
    # The widths are primes, so that an array is found whatever its shape.
    assert not multiples_of(n_users * n_components * latent_dim, found)
    assert multiples_of(n_users * n_items, found) == multiples_of(n_users * n_items, allowed)
    # What is of unknown size are lists: the non-zeros that were kept.
    assert all(len(shape) == 1 or shape[1:] in {(1,), (2,)} for shape in shapes if None in shape)
