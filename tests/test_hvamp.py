"""H+Vamp against an independent dense reference: losses, gradients, wiring, scores, importance weights, sizes."""

from __future__ import annotations

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

from tfvae.models.hvamp import HVamp
from tfvae.models.vamp import Vamp
from tfvae.nn.noise import Noise
from tfvae.system.errors import InputError


def unsettled(model):
    """With pseudo-inputs beyond 0 and 1, and one log-variance of each of the three networks out of bounds."""
    last_layers = (model.encoder.rest[-1], model.lower_encoder.joint[-1], model.lower_prior_layers[-1])
    return unsettle(model, zip(last_layers, (60.0, -60.0, 60.0), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "gated", "likelihood"), CASES)
def test_loss_gradients_and_one_step_equal_the_dense_reference(depth, gated, likelihood, monkeypatch):
    x = random_rows()
    # A half has a way of its own to draw masks.
    dropout = 0.5 if gated else 0.4
    model = HVamp(13, hidden=DEPTHS[depth], gated=gated, likelihood=likelihood, dropout=dropout, **SMALL)
    model = unsettled(ready(model, x))
    drawn, gradients = assert_losses_and_gradients_agree(model, x, monkeypatch, beta=0.7)
    # The row is dropped twice, by independent masks, the pseudo-inputs by a third one.
    masks = {"encoder_0/dropout", "lower_encoder_0/dropout", "encoder_0/dense-dropout"}
    assert drawn.keys() == masks | {"z1", "z2"}
    assert not np.isin(drawn["encoder_0/dropout"], drawn["lower_encoder_0/dropout"]).any()
    assert not np.isin(drawn["z1"], drawn["z2"]).any()
    for name in ("encoder", "lower_encoder_heads", "lower_prior_heads"):
        name += f"_{depth}" * (name == "encoder")
        clipped = np.array([True, False, False, False])
        np.testing.assert_array_equal(gradients[f"{name}_1/bias"].numpy() == 0, clipped, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("gated", [False, True], ids=["tanh", "gated"])
@pytest.mark.parametrize("depth", DEPTHS)
def test_scores_are_at_both_means_and_do_not_touch_pseudo_inputs_or_lower_prior(depth, gated):
    x = random_rows()
    model = HVamp(13, hidden=DEPTHS[depth], gated=gated, **SMALL)
    expected = Reference(model).scores(x)
    for weight in model.trainable_variables:
        if weight.path.startswith(("pseudo_inputs", "lower_prior")):
            weight.assign(np.full(weight.shape, np.nan))
    np.testing.assert_allclose(model.scores(rows_of(x)), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(model(rows_of(x), training=True), model.scores(rows_of(x)))


def test_the_upper_layer_is_that_of_vamp():
    x, settings = random_rows(), SMALL | {"hidden": (9, 7)}
    upper, vamp = HVamp(13, **settings), Vamp(13, **settings)
    np.testing.assert_array_equal(upper.posterior(rows_of(x)).mean(), vamp.posterior(rows_of(x)).mean())
    z2 = np.random.default_rng(3).normal(size=(6, 4))
    np.testing.assert_allclose(upper.prior().log_prob(z2), Reference(upper).prior(z2), rtol=1e-5, atol=1e-5)


def test_gradients_reach_pseudo_inputs_and_upper_encoder_through_the_prior_alone():
    model = HVamp(13, hidden=(9, 7), gated=True, **SMALL)
    z2 = tf.constant(np.random.default_rng(3).normal(size=(6, 4)), tf.float32)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(model.prior(Noise(1, tf.constant(0))).log_prob(z2))
    gradients = tape.gradient(total, model.trainable_variables)
    paths = [weight.path for weight in model.trainable_variables]
    reached = {path for path, g in zip(paths, gradients, strict=True) if g is not None and np.abs(g).max() > 1e-4}
    assert reached == {path for path in paths if path.startswith(("encoder", "pseudo_inputs"))}
    assert {path.split("_")[0] for path in paths} == {"encoder", "pseudo", "lower", "decoder"}


def test_beta_multiplies_both_divergences():
    x, logs = random_rows(), {}
    for epoch in (1, 5, 10, 30):
        found = ready(HVamp(13, hidden=(9,), **SMALL), x, epoch).train_step(tf.range(7, dtype=tf.int64))
        logs[epoch] = {name: float(value) for name, value in found.items()}
        beta = min(1.0, epoch / 10)
        assert logs[epoch]["beta"] == pytest.approx(beta)
        assert logs[epoch]["kl"] == pytest.approx(logs[epoch]["kl_z1"] + logs[epoch]["kl_z2"], rel=1e-5)
        assert logs[epoch]["loss"] == pytest.approx(logs[epoch]["nll"] + beta * logs[epoch]["kl"], rel=1e-6)
    assert min(abs(logs[1]["kl_z1"]), abs(logs[1]["kl_z2"]), abs(logs[1]["kl_z1"] - logs[1]["kl_z2"])) > 0.1
    # The same noise, so that β alone makes the difference.
    assert logs[1]["kl"] == logs[5]["kl"] == logs[30]["kl"]


def n_parameters(n_items, **settings):
    return HVamp(n_items, **settings).count_params() - 3  # step, rows seen and β


@pytest.mark.slow
@pytest.mark.parametrize(("n_items", "published"), [(20_108, 86_465_308), (17_769, 77_106_969)])
def test_two_gated_layers_have_as_many_parameters_as_the_authors_model(n_items, published):
    # The count is linear in the width of the catalogue, and small catalogues are quickly made.
    few, more = (n_parameters(n, hidden=(600, 600), gated=True) for n in (2, 3))
    assert few + (n_items - 2) * (more - few) == published
    assert more - few == 2 * 600 + 2 * 600 + (600 + 1) + 1000  # two gated first layers, logits, pseudo-inputs


def test_one_layer_is_wired_in_its_own_way():
    # x and z_2, z_1 and z_2 are laid side by side: there is no layer of their own before the first.
    model = HVamp(13, hidden=(9,), latent_dim=4, n_pseudo_inputs=5)
    assert not model.lower_encoder.of_code and not model.decoder.of_codes
    heads = 2 * (9 + 1) * 4
    upper, lower, lower_prior = (13 + 1) * 9 + heads, (13 + 4 + 1) * 9 + heads, (4 + 1) * 9 + heads
    assert n_parameters(13, hidden=(9,), latent_dim=4, n_pseudo_inputs=5) == (
        upper + lower + lower_prior + (4 + 4 + 1) * 9 + (9 + 1) * 13 + 5 * 13
    )


@pytest.mark.parametrize("separate_heads", [True, False])
def test_no_hidden_layer_is_refused_by_name(separate_heads):
    with pytest.raises(InputError, match="needs a hidden layer; give hidden at least one width"):
        HVamp(13, hidden=(), separate_heads=separate_heads, **SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("depth", DEPTHS)
def test_heads_in_one_layer_are_the_same_function(depth):
    x = random_rows()
    apart, together = (HVamp(13, hidden=DEPTHS[depth], separate_heads=s, **SMALL) for s in (True, False))
    weights = {weight.path: weight for weight in apart.trainable_variables}
    for weight in together.trainable_variables:
        layer, part = weight.path.split("/")
        if weight.path in weights:
            weight.assign(weights[weight.path])
        else:
            weight.assign(np.concatenate([weights[f"{layer}_{n}/{part}"].numpy() for n in (0, 1)], axis=-1))
    logs = [ready(model, x).train_step(tf.range(7, dtype=tf.int64)) for model in (apart, together)]
    for name, value in logs[0].items():
        assert float(value) == pytest.approx(float(logs[1][name]), rel=1e-5), name


N_DRAWS = 20_000


@pytest.mark.slow
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("likelihood", ["multinomial", "bernoulli"])
def test_importance_weights_have_the_bound_as_mean_and_the_evidence_as_log_mean_exp(likelihood, depth):
    settings = SMALL | {"latent_dim": 1, "dropout": 0.5}
    model = HVamp(13, hidden=DEPTHS[depth], gated=True, likelihood=likelihood, **settings)
    model.pseudo_inputs.kernel.assign(np.random.default_rng(7).uniform(-0.5, 1.5, (5, 13)))
    x, reference = random_rows(2, empty=()), Reference(model)
    inputs = normalised(x.astype(float))

    # The evidence on a grid of codes, which knows nothing of the posterior.
    axis = np.linspace(-15, 15, 601)
    z1, z2 = (grid.ravel()[:, None] for grid in np.meshgrid(axis, axis, indexing="ij"))
    on_axis = np.tile(np.arange(601), 601)
    prior = reference.prior(axis[:, None]).numpy()[on_axis]
    mean, log_variance = (moment.numpy()[on_axis] for moment in reference.lower_prior(axis[:, None]))
    prior += log_normal(z1, mean, log_variance).numpy()
    logits = reference.logits(z1, z2)
    assert np.exp(prior).sum() * (30 / 600) ** 2 == pytest.approx(1, abs=1e-3)

    # The bound at the nodes of ε, by Gauss and Hermite.
    nodes, shares = np.polynomial.hermite_e.hermegauss(60)
    shares = np.outer(shares, shares).ravel() / shares.sum() ** 2
    e1, e2 = (grid.ravel()[:, None] for grid in np.meshgrid(nodes, nodes, indexing="ij"))
    for user in range(2):
        log_p = log_likelihood(likelihood, x[user].astype(float), logits).numpy() + prior
        evidence = np.log(np.exp(log_p - log_p.max()).sum() * (30 / 600) ** 2) + log_p.max()
        row = tf.repeat(inputs[user : user + 1], len(e1), axis=0)
        upper = reference.upper(row)
        codes2 = upper[0] + tf.exp(upper[1] / 2) * e2
        lower = reference.lower(row, codes2)
        codes1 = lower[0] + tf.exp(lower[1] / 2) * e1
        by_node = log_likelihood(likelihood, x[user].astype(float), reference.logits(codes1, codes2))
        by_node += log_normal(codes1, *reference.lower_prior(codes2)) + reference.prior(codes2)
        by_node -= log_normal(codes1, *lower) + log_normal(codes2, *upper)
        bound = (shares * by_node.numpy()).sum()
        assert evidence - bound > 0.02

        many = rows_of(np.tile(x[user], (N_DRAWS, 1)))
        log_weights = model.importance(many)(Noise(1, tf.constant(0))).numpy().astype(float)
        assert log_weights.shape == (N_DRAWS,)
        assert abs(log_weights.mean() - bound) < 5 * log_weights.std() / np.sqrt(N_DRAWS)
        weights = np.exp(log_weights - log_weights.max())
        error = weights.std() / np.sqrt(N_DRAWS) / weights.mean()
        found = np.log(weights.mean()) + log_weights.max()
        assert error < 0.05 and abs(found - evidence) < 5 * error + 1e-3


def test_importance_weights_drop_nothing_and_follow_their_noise():
    model, x = HVamp(13, hidden=(9, 7), dropout=0.9, **SMALL), random_rows()
    log_weight = model.importance(rows_of(x))
    one, again, other = (log_weight(Noise(1, tf.constant(update))).numpy() for update in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).all()
    noise = Noise(1, tf.constant(0))
    parts = Reference(model).parts(x, {name: noise.normal((7, 4), name).numpy() for name in ("z1", "z2")})
    assert one.mean() == pytest.approx(-float(parts["nll"] + parts["kl"]), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [1, 2])
def test_a_step_makes_no_array_of_users_by_components_by_dimensions(depth):
    n_users, n_items, n_components, latent_dim = 11, 997, 17, 5
    settings = {"hidden": (3,) * depth, "latent_dim": latent_dim, "n_pseudo_inputs": n_components}
    model, rows = HVamp(n_items, gated=True, **settings), rows_of(random_rows(n_users, n_items))

    def step():
        with tf.GradientTape() as tape:
            loss = model.objective(rows, Noise(0, tf.constant(0)))["loss"]
        return tape.gradient(loss, [weight.value for weight in model.trainable_variables])

    shapes = {shape for _, shape in dense_shapes(step) if None not in shape}
    assert {(n_users, n_components), (n_users, n_items), (n_components, n_items)} <= shapes
    product = n_users * n_components * latent_dim  # of primes, so that it is found whatever the shape
    assert not [shape for shape in shapes if 0 not in shape and np.prod(shape) % product == 0]
    # x and z_2 are never laid side by side
    assert not [
        shape for shape in shapes if 0 not in shape and np.prod(shape) % (n_users * (n_items + latent_dim)) == 0
    ]
