"""CDAE against dense formulas: its loss and gradients, the node of a user, what stands for it in scoring."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from dense_reference import Recorded, normalised, on_the_items, random_rows, rows_of
from plain_fit import fit
from scipy.sparse import csr_array

from tfvae.models.cdae import CDAE
from tfvae.nn.batches import RowStore
from tfvae.nn.optimizers import FusedAdam
from tfvae.system.errors import InputError
from tfvae.training.settings import settings_of

N_USERS, N_ITEMS = 7, 13


def build(x=None, **settings):
    """A small model, compiled on the rows of x where there are any."""
    model = CDAE(N_ITEMS, N_USERS, **{"latent_dim": 4, "weight_decay": 0.0} | settings)
    if x is not None:
        model.attach(csr_array(x))
        model.compile(FusedAdam(0.01), jit_compile=False)
    return model


def dense_loss(x, weights, nodes, kept=1.0, *, dropout=0.0, normalize=False, c1, c0):
    """½ Σ c (x − x̂)² of each user, from dense arrays; `weights` are kernel and bias of both layers, item-major."""
    kernel, bias, output_kernel, output_bias = weights
    inputs = (normalised(x) if normalize else x) * kept / (1 - dropout)
    code = tf.tanh(inputs @ kernel + nodes + bias)
    output = tf.tanh(code @ tf.transpose(output_kernel) + output_bias)
    return tf.reduce_sum(np.where(x > 0, c1, c0) * (x - output) ** 2 / 2, axis=1)


def weights_of(model):
    layers = model.encoder, model.decoder
    return [tf.Variable(weight.numpy()) for layer in layers for weight in (layer.kernel, layer.bias)]


@pytest.mark.parametrize("normalize", [False, True])
def test_loss_and_gradients_equal_the_dense_reference(normalize, monkeypatch):
    monkeypatch.setattr("tfvae.models.gradient.Noise", Recorded)
    x = random_rows(N_USERS, N_ITEMS)
    confidences = {"c1": 3.0, "c0": 0.5}
    model = build(x, dropout=0.4, normalize=normalize, weight_decay=0.05, **confidences)
    weights, nodes = weights_of(model), tf.Variable(model.nodes.numpy())
    users = np.array([4, 0, 6, 3])
    logs = model.train_step(tf.constant(users))

    kept = on_the_items(x[users], Recorded.drawn["encoder/dropout"] < 0.6)
    assert 0 < kept.sum() < x[users].sum()
    with tf.GradientTape() as tape:
        own = tf.gather(nodes, users)
        nll = dense_loss(x[users], weights, own, kept, dropout=0.4, normalize=normalize, **confidences)
        squares = sum(tf.reduce_sum(w**2) for w in (weights[0], weights[2], nodes))
        loss = tf.reduce_mean(nll) + 0.05 * squares
    gradients = tape.gradient(loss, [*weights, nodes])

    assert float(logs["loss"]) == pytest.approx(float(loss), rel=1e-6)
    assert float(logs["nll"]) == pytest.approx(float(tf.reduce_mean(nll)), rel=1e-6)
    variables = [model.encoder.kernel, model.encoder.bias, model.decoder.kernel, model.decoder.bias, model.nodes]
    moments = dict(zip((v.path for v in model.trainable_variables), model.optimizer._momentums, strict=True))
    for variable, gradient in zip(variables, gradients, strict=True):
        found = moments[variable.path].numpy() / 0.1
        scale = np.abs(gradient).max()
        assert scale > 1e-3
        np.testing.assert_allclose(found, gradient, rtol=1e-5, atol=2e-6 * scale, err_msg=variable.path)


def test_a_step_moves_the_nodes_of_its_users_only():
    x = random_rows(N_USERS, N_ITEMS)
    model = build(x)
    before = model.nodes.numpy()
    model.train_step(tf.constant([5, 1], tf.int64))
    moved = np.any(model.nodes.numpy() != before, axis=1)
    np.testing.assert_array_equal(np.flatnonzero(moved), [1, 5])


@pytest.mark.parametrize("user_node", ["none", "mean"])
def test_scores_are_the_output_before_its_tanh(user_node):
    x = random_rows(N_USERS, N_ITEMS)
    model = build(user_node=user_node)
    kernel, bias, output_kernel, output_bias = (w.numpy() for w in weights_of(model))
    node = model.nodes.numpy().mean(axis=0) if user_node == "mean" else 0
    expected = np.tanh(x @ kernel + node + bias) @ output_kernel.T + output_bias
    np.testing.assert_allclose(model.scores(rows_of(x)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("user_node", ["none", "mean", "fitted"])
def test_a_history_is_scored_alike_whoever_it_is_of(user_node):
    # Of held-out users `rows.users` has row numbers of their own matrix, which may go beyond the training users.
    x = np.tile(random_rows(1, N_ITEMS, empty=()), (20, 1))
    scores = build(user_node=user_node).scores(RowStore(csr_array(x)).gather(tf.range(20))).numpy()
    np.testing.assert_allclose(scores[1:], scores[[0] * 19], rtol=1e-5, atol=1e-6)


def test_fitted_nodes_lower_each_users_loss_step_by_step():
    x = random_rows(40, N_ITEMS, empty=(2, 5))
    model = CDAE(N_ITEMS, 40, latent_dim=4, c1=3.0, weight_decay=1e-3, user_node="fitted", node_steps=12)
    model.attach(csr_array(x))
    model.compile(FusedAdam(0.02), jit_compile=False)
    fit(model, 40, 10, epochs=5)
    nodes, losses = (t.numpy() for t in model.fitted_nodes(rows_of(x)))
    assert np.all(np.diff(losses, axis=0) <= 0) and np.all(losses[-1] < losses[0])
    for stage, node in ((0, 0 * nodes), (-1, nodes)):
        decay = 40 * 1e-3 * np.sum(node**2, axis=1)
        expected = dense_loss(x, weights_of(model), node, c1=3.0, c0=1.0) + decay
        np.testing.assert_allclose(losses[stage], expected, rtol=1e-5)
    kernel, bias, output_kernel, output_bias = (w.numpy() for w in weights_of(model))
    expected = np.tanh(x @ kernel + nodes + bias) @ output_kernel.T + output_bias
    np.testing.assert_allclose(model.scores(rows_of(x)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_fitted_nodes_reach_a_stationary_point():
    x = random_rows(N_USERS, N_ITEMS)
    model = build(user_node="fitted", node_steps=200, weight_decay=0.01)
    nodes = tf.Variable(model.fitted_nodes(rows_of(x))[0])
    with tf.GradientTape() as tape:
        decay = N_USERS * 0.01 * tf.reduce_sum(nodes**2)
        loss = decay + tf.reduce_sum(dense_loss(x, weights_of(model), nodes, c1=5.0, c0=1.0))
    slopes = tape.gradient(loss, [nodes])[0].numpy()
    assert np.abs(nodes).max() > 0.05
    np.testing.assert_allclose(slopes, 0, atol=5e-3)


def test_a_strong_decay_leaves_no_node():
    x = random_rows(N_USERS, N_ITEMS)
    free, bound = (build(weight_decay=decay).fitted_nodes(rows_of(x))[0] for decay in (0.0, 10.0))
    assert np.abs(bound).max() < 0.05 * np.abs(free).max()


def test_it_must_be_told_how_many_users_there_are():
    with pytest.raises(InputError, match="CDAE has weights for each training user; give it n_users"):
        CDAE(N_ITEMS)
    model = settings_of("cdae", {"latent_dim": 4}).build(N_ITEMS, N_USERS)
    assert model.nodes.shape == (N_USERS, 4) and model.get_config()["n_users"] == N_USERS
