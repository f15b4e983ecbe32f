"""MELD: its experts are the models that its page names, and its scores are their standardised mean."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy.sparse import csr_array

from tfvae.models.cdae import CDAE
from tfvae.models.edlae import EDLAE
from tfvae.models.meld import MELD
from tfvae.models.multvae import MultDAE
from tfvae.models.recvae import RecVAE
from tfvae.models.rp3beta import RP3Beta
from tfvae.nn.batches import RowStore, unpad
from tfvae.nn.noise import Noise
from tfvae.system.errors import InputError

N_ITEMS = 30
SMALL = {"latent_dim": 4, "hidden": [8, 8], "dropout": 0.0, "seed": 7}
NEURAL = ("logistic", "square", "variational")


@pytest.fixture(scope="module")
def train() -> csr_array:
    return csr_array((np.random.default_rng(1).random((50, N_ITEMS)) < 0.3).astype(np.float32))


@pytest.fixture(scope="module")
def rows(train):
    return RowStore(train).gather(tf.range(20, dtype=tf.int64))


def noise():
    return Noise(3, tf.constant(0, tf.int64))


def take_weights(into, model) -> None:
    for variable, value in zip(into, model, strict=True):
        variable.assign(value)


def test_the_logistic_expert_is_a_denoising_autoencoder_with_the_logistic_likelihood(rows):
    model = MELD(N_ITEMS, experts=["logistic"], average_of="scores", **SMALL)
    dae = MultDAE(N_ITEMS, latent_dim=4, dropout=0.0, likelihood="logistic")
    take_weights(model.trainable_variables, dae.trainable_variables)
    np.testing.assert_array_equal(model.expert_scores(rows)["logistic"], dae.scores(rows))
    assert model.objective(rows, noise())["loss"] == dae.objective(rows, noise())["loss"]


def test_the_square_expert_is_cdae_without_nodes(rows):
    model = MELD(N_ITEMS, experts=["square"], average_of="scores", **SMALL)
    cdae = CDAE(N_ITEMS, 50, latent_dim=4, dropout=0.0)
    weights = [variable for variable in cdae.trainable_variables if variable is not cdae.nodes]
    take_weights(model.trainable_variables, weights)
    cdae.nodes.assign(tf.zeros_like(cdae.nodes))
    np.testing.assert_allclose(model.expert_scores(rows)["square"], cdae.scores(rows), atol=1e-6)
    np.testing.assert_allclose(model.objective(rows, noise())["loss"], cdae.objective(rows, noise())["loss"], rtol=1e-6)


@pytest.mark.parametrize("prior_type", ["standard", "composite"])
def test_the_variational_expert_is_recvae_trained_as_a_whole(prior_type, rows, train):
    model = MELD(N_ITEMS, experts=["variational"], average_of="scores", prior_type=prior_type, **SMALL)
    recvae = RecVAE(N_ITEMS, latent_dim=4, hidden=[8, 8], dropout=0.0, prior_type=prior_type, alternation=[])
    take_weights(model.variational_encoder.variables, recvae.encoder.variables)
    take_weights(model.variational_decoder.variables, recvae.decoder.variables)
    if prior_type == "composite":
        take_weights(model.old_encoder.variables, recvae.old_encoder.variables)
    np.testing.assert_allclose(model.scores(rows), standardized(recvae.scores(rows)), atol=1e-4)
    np.testing.assert_allclose(model.prior(rows).log_prob(tf.ones(4)), recvae.prior(rows).log_prob(tf.ones(4)))
    sampled = recvae.objective(rows, noise())
    found = model.objective(rows, noise())
    np.testing.assert_allclose(found["variational"], sampled["nll"], rtol=1e-5)
    if prior_type == "composite":  # RecVAE takes the sampled KL with either prior, MELD the closed form where it exists
        np.testing.assert_allclose(found["loss"], sampled["loss"], rtol=1e-5)


def test_the_linear_expert_is_edlae(rows, train):
    model = MELD(N_ITEMS, experts=["linear"], regularization=4.0, linear_dropout=0.2, **SMALL)
    model.attach(train)
    edlae = EDLAE(N_ITEMS, regularization=4.0, dropout=0.2)
    edlae.fit_matrix(train, log=[].append)
    np.testing.assert_allclose(model.expert_scores(rows)["linear"], edlae.scores(rows), atol=1e-4)


def standardized(scores) -> np.ndarray:
    scores = np.asarray(scores, np.float64)
    return (scores - scores.mean(axis=1, keepdims=True)) / scores.std(axis=1, keepdims=True)


@pytest.mark.parametrize("average_of", ["roots", "expected"])
def test_scores_are_the_mean_of_what_is_averaged_standardised(average_of, rows, train):
    model = MELD(N_ITEMS, average_of=average_of, **SMALL)
    model.attach(train)
    parts = {name: part.numpy().astype(float) for name, part in model.expert_scores(rows).items()}
    assert list(parts) == ["linear", *NEURAL]
    averaged = [np.sign(part) * np.abs(part) ** 0.5 if average_of == "roots" else part for part in parts.values()]
    expected = np.mean([standardized(part) for part in averaged], axis=0)
    np.testing.assert_allclose(model.scores(rows), expected, atol=1e-4)
    assert (0 <= parts["logistic"]).all() and (parts["logistic"] <= 1).all()
    np.testing.assert_allclose(parts["variational"].sum(axis=1), 1, rtol=1e-5)


def test_a_row_without_spread_counts_for_nothing(train):
    model = MELD(N_ITEMS, experts=["linear", "square"], average_of="expected", **SMALL)
    model.attach(train)
    empty = unpad(tf.constant([[-1]]))
    np.testing.assert_allclose(model.scores(empty), standardized(model.expert_scores(empty)["square"]) / 2, atol=1e-4)


def test_losses_add_up_and_each_expert_learns_from_its_own(rows):
    together = MELD(N_ITEMS, **SMALL)
    parts = together.objective(rows, noise())
    kl = 0.005 * tf.reduce_mean(rows.lengths * together.posterior(rows).kl_divergence(together.prior()))
    total = parts["logistic"] + parts["square"] + parts["variational"] + kl
    np.testing.assert_allclose(parts["loss"], total, rtol=1e-5)
    variables = together.trainable_variables
    for expert in NEURAL:
        with tf.GradientTape() as tape:
            loss = together.objective(rows, noise())[expert]
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        reached = {v.path for v, gradient in zip(variables, gradients, strict=True) if gradient is not None}
        assert reached == {v.path for v in variables if expert in v.path} != set()


def test_the_old_encoder_is_that_of_the_epoch_before(train):
    model = MELD(N_ITEMS, experts=["variational"], prior_type="composite", **SMALL)
    model.attach(train)
    model.compile("adam")
    model.begin_epoch(0)
    assert not np.array_equal(model.old_encoder.first.kernel, model.variational_encoder.first.kernel)
    model.begin_epoch(1)
    np.testing.assert_array_equal(model.old_encoder.first.kernel, model.variational_encoder.first.kernel)


@pytest.mark.parametrize("experts", [[], ["cubic"], ["linear", "linear"], ["walk"]])
def test_other_experts_are_refused(experts):
    with pytest.raises(InputError, match="experts"):
        MELD(N_ITEMS, experts=experts)


def test_the_walk_expert_is_rp3beta(rows, train):
    model = MELD(N_ITEMS, experts=["walk", "square"], walk_alpha=0.6, walk_beta=0.3, neighbors=9, **SMALL)
    model.attach(train)
    rp3beta = RP3Beta(N_ITEMS, alpha=0.6, beta=0.3, neighbors=9)
    rp3beta.fit_matrix(train, log=[].append)
    np.testing.assert_array_equal(model.expert_scores(rows)["walk"], rp3beta.scores(rows))
    assert model.expert_scores(rows).keys() == {"walk", "square"}
    assert {variable.path for variable in model.found_by_attach} == {"walk/neighbor_items", "walk/neighbor_weights"}
    assert MELD.not_streamed({"experts": ["walk", "square"]}) == "its walk expert is solved for from the whole matrix"
