"""p-VAE: its bound, its special cases and its gradients against dense formulas written out in NumPy."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from rating_rows import dense, random_ratings, ready
from scipy.stats import multivariate_normal

from tfvae.data.interactions import Interactions
from tfvae.data.splits import RatingHoldoutSettings, rating_holdout
from tfvae.models.pvae import PVAE
from tfvae.nn.batches import RowStore, SparseBatch
from tfvae.nn.noise import Noise

RATINGS = random_ratings()  # [7, 13]
N_ROWS, N_ITEMS = RATINGS.shape
SMALL = {"embedding_dim": 6, "latent_dim": 3, "decoder_hidden": (5,), "variance": 0.8}


def rows_of(ratings) -> SparseBatch:
    return RowStore(ratings, with_values=True).gather(tf.range(ratings.shape[0], dtype=tf.int64))


def noise():
    return Noise(3, tf.constant(0, tf.int64))


def randomized(model: PVAE, scale: float = 0.5) -> PVAE:
    """The model with weights that are large enough to tell formulas apart."""
    generator = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(generator.normal(scale=scale, size=variable.shape))
    return model


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_without_nn1_it_is_a_vae_of_zero_imputed_ratings():
    # Appendix A: a network of the row with zeros for what is missing, whose first kernel is the embedding.
    model = randomized(PVAE(N_ITEMS, **SMALL))
    imputed, _ = dense(RATINGS)
    encoder, head = model.encoder, model.encoder.rest[-1]
    hidden = sigmoid(imputed @ encoder.embedding.numpy() + encoder.bias.numpy())
    code = hidden @ head.kernel.numpy() + head.bias.numpy()
    posterior = model.posterior(rows_of(RATINGS))
    np.testing.assert_allclose(posterior.mean(), code[:, :3], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(posterior.stddev(), np.exp(code[:, 3:] / 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", ["sum", "max"])
@pytest.mark.parametrize("element", ["product", "concat"])
def test_the_set_encoder_is_the_formula(element, pooling):
    model = PVAE(N_ITEMS, 2, element=element, pooling=pooling, element_hidden=(4,), encoder_hidden=(5,), **SMALL)
    encoder = randomized(model).encoder
    encoder.features.assign(np.random.default_rng(0).normal(size=(N_ITEMS, 2)))
    known = np.concatenate([encoder.embedding.numpy(), encoder.features.numpy()], axis=1)
    ratings, observed = dense(RATINGS)
    (nn1,), codes = encoder.element_layers, []
    for row in range(N_ROWS):
        elements = []
        for m in np.flatnonzero(observed[row]):
            s = known[m] * ratings[row, m] if element == "product" else np.append(known[m], ratings[row, m])
            elements.append(sigmoid(s @ nn1.kernel.numpy() + nn1.bias.numpy()))
        pooled = getattr(np, pooling)(elements, axis=0) if elements else np.zeros(4)
        code = sigmoid(pooled + encoder.bias.numpy())
        for layer in encoder.rest[:-1]:
            code = sigmoid(code @ layer.kernel.numpy() + layer.bias.numpy())
        codes.append(code @ encoder.rest[-1].kernel.numpy() + encoder.rest[-1].bias.numpy())
    np.testing.assert_allclose(model.code(rows_of(RATINGS)), codes, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", ["sum", "max"])
def test_equal_ratings_of_a_column_are_one_element_with_all_their_gradients(pooling):
    encoder = randomized(PVAE(N_ITEMS, pooling=pooling, element_hidden=(4,), **SMALL)).encoder
    twice = rows_of(RATINGS[[*range(N_ROWS), 0, 3]])
    elements, places = encoder._elements(twice)
    pairs = [*zip(twice.items.numpy(), twice.values.numpy(), strict=True)]
    distinct = [*dict.fromkeys(pairs)]
    assert elements.shape[0] == len(distinct) < RATINGS.nnz
    assert [distinct[place] for place in places.numpy()] == pairs

    def gradients(rows):
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(encoder(rows) ** 2)
        return [tf.convert_to_tensor(g) for g in tape.gradient(total, [v.value for v in encoder.trainable_variables])]

    alone = [rows_of(RATINGS[[row]]) for row in [*range(N_ROWS), 0, 3]]
    for whole, *parts in zip(gradients(twice), *(gradients(rows) for rows in alone), strict=True):
        np.testing.assert_allclose(whole, sum(parts), rtol=1e-4, atol=1e-5)


def test_the_bound_is_the_formula():
    model = randomized(PVAE(N_ITEMS, beta=0.3, **SMALL | {"variance": 0.7}))
    rows = rows_of(RATINGS)
    means = model.objective(rows, noise())
    posterior = model.posterior(rows)
    mean, sd = posterior.mean().numpy().astype(np.float64), posterior.stddev().numpy().astype(np.float64)
    z = mean + sd * noise().normal((N_ROWS, 3), "z").numpy()
    predicted = model.decoder(model.hidden(tf.constant(z, tf.float32))).numpy()
    ratings, observed = dense(RATINGS)
    log_p = -0.5 * (ratings - predicted) ** 2 / 0.7 - 0.5 * np.log(2 * np.pi * 0.7)
    nll = -np.where(observed, log_p, 0).sum(axis=1).mean()
    divergence = 0.5 * (mean**2 + sd**2 - 1 - 2 * np.log(sd)).sum(axis=1).mean()
    np.testing.assert_allclose(means["nll"], nll, rtol=1e-4)
    np.testing.assert_allclose(means["kl"], divergence, rtol=1e-4)
    np.testing.assert_allclose(means["loss"], nll + 0.3 * divergence, rtol=1e-4)


@pytest.mark.slow
def test_the_partial_bound_is_the_evidence_where_the_posterior_is_true():
    # With a linear decoder p(r_O) is normal, and so is p(z | r_O): then -L_p = log p(r_O), and less for any other q.
    model = randomized(PVAE(N_ITEMS, embedding_dim=4, latent_dim=2, decoder_hidden=(), variance=0.5))
    ratings, observed = dense(RATINGS)
    row = int(observed.sum(axis=1).argmax())
    places = np.flatnonzero(observed[row])
    vectors, biases = model.decoder.kernel.numpy()[places], model.decoder.bias.numpy()[places]
    evidence = multivariate_normal(biases, vectors @ vectors.T + 0.5 * np.eye(len(places))).logpdf(ratings[row, places])
    precision = np.eye(2) + vectors.T @ vectors / 0.5
    covariance = np.linalg.inv(precision)
    center = covariance @ vectors.T @ (ratings[row, places] - biases) / 0.5
    one = rows_of(RATINGS[[row]])
    z = np.random.default_rng(0).multivariate_normal(center, covariance, size=40)
    log_q = multivariate_normal(center, covariance).logpdf(z)
    log_joint = [
        model.log_likelihood(tf.constant(draw[None], tf.float32), one).numpy()[0]
        + model.prior().log_prob(tf.constant(draw, tf.float32)).numpy()
        for draw in z
    ]
    np.testing.assert_allclose(np.array(log_joint) - log_q, evidence, rtol=1e-4)
    bounds = [-float(model.objective(one, Noise(0, tf.constant(t, tf.int64)))["loss"]) for t in range(200)]
    assert np.mean(bounds) < evidence - 0.1


def test_outputs_that_are_not_observed_have_no_gradient():
    model = randomized(PVAE(N_ITEMS, **SMALL))
    rows = rows_of(RATINGS)
    with tf.GradientTape() as tape:
        loss = model.objective(rows, noise())["loss"]
    weights = [model.decoder.kernel, model.decoder.bias, model.encoder.embedding]
    _, observed = dense(RATINGS)
    never = ~observed.any(axis=0)
    assert never.any() and not never.all()
    for gradient in tape.gradient(loss, [weight.value for weight in weights]):
        by_column = np.abs(tf.convert_to_tensor(gradient).numpy().reshape(N_ITEMS, -1)).sum(axis=1)
        assert not by_column[never].any() and by_column[~never].all()


def test_a_rating_of_zero_is_a_rating():
    zeros = random_ratings(1, 4, density=2.0, levels=(0,), empty=())
    assert zeros.nnz == 3 and not zeros.data.any()
    model = randomized(PVAE(4, **SMALL))
    explained = model.log_likelihood(tf.zeros([1, 3]), rows_of(zeros))
    assert explained < 3 * -0.5 * np.log(2 * np.pi * 0.8)
    assert model.log_likelihood(tf.zeros([1, 3]), rows_of(zeros[:, [3]])) == 0, "what is missing says nothing"


def test_the_deterministic_form_is_an_autoencoder():
    model = randomized(PVAE(N_ITEMS, stochastic=False, **SMALL))
    rows = rows_of(RATINGS)
    losses = [float(model.objective(rows, Noise(0, tf.constant(t, tf.int64)))["loss"]) for t in range(2)]
    assert losses[0] == losses[1]
    predicted = model.scores(rows).numpy()
    ratings, observed = dense(RATINGS)
    squares = np.where(observed, (ratings - predicted) ** 2, 0).sum(axis=1)
    expected = np.mean(squares / 2 / 0.8 + observed.sum(axis=1) * 0.5 * np.log(2 * np.pi * 0.8))
    np.testing.assert_allclose(losses[0], expected, rtol=1e-4)


@pytest.mark.parametrize(("center", "expected"), [("none", 0.0), ("mean", None), ("columns", None)])
def test_centers_and_first_biases_come_from_the_training_ratings(center, expected):
    model = ready(PVAE(N_ITEMS, **SMALL | {"center": center}), RATINGS)
    ratings, observed = dense(RATINGS)
    overall = RATINGS.data.mean()
    columns = (np.where(observed, ratings, 0).sum(axis=0) + 5 * overall) / (observed.sum(axis=0) + 5)
    np.testing.assert_allclose(model.decoder.bias, columns, rtol=1e-5)
    np.testing.assert_allclose(model.centers, {"none": 0.0, "mean": overall, "columns": columns}[center], rtol=1e-5)


def test_all_hidden_ratings_can_be_dropped():
    model = randomized(PVAE(N_ITEMS, dropout=0.999, **SMALL))
    rows = rows_of(RATINGS)
    empty = model.posterior(rows_of(RATINGS[[2] * N_ROWS])).mean()
    np.testing.assert_allclose(model.posterior(rows, noise()).mean(), empty, rtol=1e-5)
    assert np.abs(model.posterior(rows).mean() - empty).max() > 0.01


def test_metadata_of_columns_is_part_of_the_embedding():
    generator = np.random.default_rng(0)
    users, items = np.divmod(generator.choice(20 * 9, 120, replace=False), 9)
    interactions = Interactions.from_events(users, items, generator.integers(1, 6, 120).astype(float))
    split = rating_holdout(interactions, RatingHoldoutSettings())
    described = dataclasses.replace(split, item_features={"kind": np.array(list("ababababc"))})
    model = PVAE.for_split(described, metadata=True, **SMALL)
    features = model.encoder.features.numpy() / np.std(
        model.encoder.embedding
    )  # no larger than what is learned, at first
    assert model.n_features == 3 and np.all((np.abs(features) < 1e-6) | (np.abs(features - 1) < 1e-6))
    assert features.sum() == pytest.approx(9)
    assert PVAE.for_split(described, **SMALL).n_features == 0
    nothing_known = PVAE.for_split(split, metadata=True, **SMALL)
    assert nothing_known.n_features == 0
    loaded = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
    assert loaded.n_features == 3
    features = model.encoder.features
    before = model.mean_code(rows_of(split.train)).numpy()
    features.assign(features.numpy()[:, ::-1])
    assert np.abs(model.mean_code(rows_of(split.train)).numpy() - before).max() > 1e-4
    assert not any(variable is features for variable in model.trainable_variables)
