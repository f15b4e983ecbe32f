"""The quadratic form of a user's ratings against the sum of their normal densities, in value and in every gradient."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from scipy.sparse import csr_array
from scipy.stats import norm

from tfvae.nn.batches import RowStore
from tfvae.nn.gaussian_ratings import GaussianRatings

N_USERS, N_ITEMS, WIDTH, VARIANCE = 30, 40, 5, 0.7


def example():
    """Ratings with users that have none, the items' vectors and biases, and a hidden vector of each user."""
    rng = np.random.default_rng(0)
    rated = rng.random((N_USERS, N_ITEMS)) < rng.random((N_USERS, 1)) ** 2
    rated[::7] = False
    vectors, biases = rng.normal(size=(N_ITEMS, WIDTH)), 3 + rng.normal(size=N_ITEMS)
    hidden = rng.normal(size=(N_USERS, WIDTH))
    values = np.where(rated, 3 + 2 * rng.normal(size=rated.shape), 0)
    return values.astype(np.float32), *(part.astype(np.float32) for part in (vectors, biases, hidden))


def observed(values, vectors, biases):
    batch = RowStore(csr_array(values), with_values=True).gather(tf.range(N_USERS, dtype=tf.int64))
    return GaussianRatings.of(batch, tf.convert_to_tensor(vectors), tf.convert_to_tensor(biases), VARIANCE)


def test_it_is_the_sum_of_the_normal_densities_of_the_ratings():
    values, vectors, biases, hidden = example()
    densities = norm.logpdf(values, hidden @ vectors.T + biases, np.sqrt(VARIANCE))
    expected = np.where(values != 0, densities, 0).sum(axis=1)
    found = observed(values, vectors, biases).log_prob(tf.constant(hidden))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_hidden_vectors_item_vectors_and_biases_have_the_gradients_of_the_densities():
    values, *weights = example()
    upstream = np.random.default_rng(1).normal(size=N_USERS).astype(np.float32)
    weights = [tf.constant(weight) for weight in weights]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(weights)
        vectors, biases, hidden = weights
        found = tf.reduce_sum(upstream * observed(values, vectors, biases).log_prob(hidden))
        squares = (values - tf.matmul(hidden, vectors, transpose_b=True) - biases) ** 2
        dense = -0.5 * tf.reduce_sum(upstream[:, None] * tf.where(values != 0, squares, 0.0)) / VARIANCE
    for one, other in zip(tape.gradient(found, weights), tape.gradient(dense, weights), strict=True):
        assert np.abs(other).max() > 1
        np.testing.assert_allclose(tf.convert_to_tensor(one), other, rtol=2e-3, atol=2e-3)
