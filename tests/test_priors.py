"""The divergence against Monte Carlo and hand-worked values."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfvae.priors import diagonal_normal, kl, standard_normal

tfd = tfp.distributions


def posterior(n_users=3, latent_dim=4, seed=0):
    rng = np.random.default_rng(seed)
    mean, log_variance = (rng.normal(size=(n_users, latent_dim)).astype(np.float32) for _ in range(2))
    return diagonal_normal(mean, log_variance), mean, log_variance


def test_log_variance_is_the_log_of_the_variance():
    q = diagonal_normal(tf.constant([[1.0, 2.0]]), tf.constant([[0.0, np.log(9.0)]]))
    np.testing.assert_allclose(q.stddev(), [[1.0, 3.0]], rtol=1e-6)
    np.testing.assert_array_equal(q.mean(), [[1.0, 2.0]])


def test_kl_of_mean_one_and_sd_one_over_200_dimensions_is_100():
    q = diagonal_normal(tf.ones([5, 200]), tf.zeros([5, 200]))
    np.testing.assert_allclose(kl(q, standard_normal(200), tf.zeros([5, 200])), np.full(5, 100.0), rtol=1e-6)


def test_kl_is_its_closed_form_whatever_was_sampled():
    q, mean, log_variance = posterior()
    expected = (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(axis=1) / 2
    for z in (tf.zeros([3, 4]), 9 + tf.zeros([3, 4])):
        np.testing.assert_allclose(kl(q, standard_normal(4), z), expected, rtol=1e-5)


def test_kl_agrees_with_monte_carlo():
    q, _, _ = posterior()
    z = q.sample(100_000, seed=1)
    samples = (q.log_prob(z) - standard_normal(4).log_prob(z)).numpy()
    standard_error = samples.std(axis=0) / np.sqrt(len(samples))
    assert standard_error.max() < 0.02
    difference = samples.mean(axis=0) - kl(q, standard_normal(4), z[0]).numpy()
    assert (np.abs(difference) < 5 * standard_error).all()


def test_a_posterior_equal_to_the_prior_costs_nothing():
    q = diagonal_normal(tf.zeros([2, 6]), tf.zeros([2, 6]))
    np.testing.assert_array_equal(kl(q, standard_normal(6), q.sample()), [0, 0])


def mixture_of(*means):
    """An even mixture of N(mean, I) over codes of 4 dimensions."""
    components = tfd.MultivariateNormalDiag(tf.constant(means, tf.float32)[:, None] * tf.ones(4))
    return tfd.MixtureSameFamily(tfd.Categorical(logits=tf.zeros(len(means))), components)


def test_kl_of_a_mixture_falls_back_to_one_sample():
    q, _, _ = posterior()
    prior, z = mixture_of(-1.0, 2.0), q.sample(seed=2)
    with pytest.raises(NotImplementedError):
        tfd.kl_divergence(q, prior)
    np.testing.assert_allclose(kl(q, prior, z), q.log_prob(z) - prior.log_prob(z), rtol=1e-6)


def test_the_fallback_is_unbiased_and_not_clamped():
    q, _, _ = posterior()
    z = q.sample(50_000, seed=3)
    samples = kl(q, mixture_of(0.0, 0.0), z).numpy()  # twice the standard normal, whose divergence is known
    exact = kl(q, standard_normal(4), z[0]).numpy()
    assert (np.abs(samples.mean(axis=0) - exact) < 5 * samples.std(axis=0) / np.sqrt(len(z))).all()
    assert (samples.min(axis=0) < 0).any()


def test_the_divergence_is_float32_also_for_half_precision_codes():
    halves = tf.cast(tf.constant([[0.3, -2.0]]), tf.bfloat16)
    q = diagonal_normal(halves, halves)
    divergence = kl(q, standard_normal(2), q.sample())
    assert divergence.dtype == tf.float32
    numbers = tf.cast(halves, tf.float32).numpy().astype(float)
    np.testing.assert_allclose(divergence, [(numbers**2 + np.exp(numbers) - 1 - numbers).sum() / 2], rtol=1e-5)


def test_gradients_reach_both_heads():
    mean, log_variance = tf.Variable([[1.0, -2.0]]), tf.Variable([[0.5, 0.0]])
    with tf.GradientTape() as tape:
        q = diagonal_normal(tf.convert_to_tensor(mean), tf.convert_to_tensor(log_variance))
        divergence = tf.reduce_sum(kl(q, standard_normal(2), q.mean()))
    by_mean, by_log_variance = tape.gradient(divergence, [mean, log_variance])
    np.testing.assert_allclose(by_mean, mean, rtol=1e-6)
    np.testing.assert_allclose(by_log_variance, (np.exp(log_variance) - 1) / 2, rtol=1e-5, atol=1e-7)
