"""RecVAE's composite prior against NumPy in float64: the density of each dimension, of whole vectors, and moments."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from scipy.special import logsumexp
from scipy.stats import norm

from tfvae.nn.noise import Noise
from tfvae.nn.priors import CompositePrior, diagonal_normal, kl, sample_with, standard_normal

tfd = tfp.distributions

WEIGHTS = (3 / 20, 3 / 4, 1 / 10)
WIDE_SD = np.exp(5.0)
both = pytest.mark.parametrize("joint", [False, True], ids=["by dimension", "joint"])


def moments(n_users=5, latent_dim=4, seed=0):
    rng = np.random.default_rng(seed)
    shape = (n_users, latent_dim)
    return rng.normal(0, 1.5, shape).astype(np.float32), rng.uniform(-3, 1, shape).astype(np.float32)


def codes(n_users=5, latent_dim=4, seed=1):
    """Some near the origin, some far, where the wide component rules."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n_users, latent_dim)) * np.geomspace(0.1, 60, n_users)[:, None]).astype(np.float32)


def by_component(z, mean, log_variance, weights=WEIGHTS):
    """Log of weight times density in each dimension, float64 [3, B, D], without the weights [3, B, D]."""
    z, mean, sd = z.astype(float), mean.astype(float), np.exp(log_variance.astype(float) / 2)
    densities = np.stack([norm.logpdf(z), norm.logpdf(z, mean, sd), norm.logpdf(z, 0, WIDE_SD)])
    return densities, np.log(np.array(weights))


def by_hand(z, mean, log_variance, joint, weights=WEIGHTS):
    densities, log_weights = by_component(z, mean, log_variance, weights)
    if joint:
        return logsumexp(densities.sum(axis=2) + log_weights[:, None], axis=0)
    return logsumexp(densities + log_weights[:, None, None], axis=0).sum(axis=1)


@both
@pytest.mark.parametrize("weights", [WEIGHTS, (0.6, 0.1, 0.3)], ids=str)
def test_the_density_is_that_of_three_normals(joint, weights):
    of, z = moments(), codes()
    found = CompositePrior(*of, weights, joint=joint).log_prob(z)
    assert found.dtype == tf.float32 and found.shape == (5,)
    np.testing.assert_allclose(found, by_hand(z, *of, joint, weights), rtol=2e-6, atol=2e-5)
    # All three count: without one of them the density is another.
    densities, _ = by_component(z, *of)
    assert {0, 1, 2} == set(np.unique(densities.argmax(axis=0)))


def test_mixing_dimensions_and_mixing_vectors_is_the_same_for_one_dimension_alone():
    for latent_dim in (1, 2, 4):
        of, z = moments(5, latent_dim), codes(5, latent_dim)
        apart, joint = (CompositePrior(*of, WEIGHTS, joint=joint).log_prob(z).numpy() for joint in (False, True))
        if latent_dim == 1:
            np.testing.assert_allclose(apart, joint, rtol=1e-6, atol=1e-6)
        else:
            assert (np.abs(apart - joint) > 0.01).all()


def test_a_code_of_which_each_dimension_belongs_to_another_component():
    # In dimension 0 the code is at the origin and the old posterior far away; in dimension 1 the other way round. A
    # mixture of vectors has to pay for one of the two.
    mean, log_variance = np.float32([[30.0, 30.0]]), np.float32([[0.0, 0.0]])
    z = np.float32([[0.0, 30.0]])
    one = -0.5 * np.log(2 * np.pi)
    wide = one - 5 + np.log(0.1)
    by_dimension = np.logaddexp(one + np.log(0.15), wide) + np.logaddexp(one + np.log(0.75), wide - 450 / np.exp(10))
    vectors = 2 * one - 10 + np.log(0.1) - 450 / np.exp(10)  # only the wide normal reaches both
    np.testing.assert_allclose(CompositePrior(mean, log_variance, WEIGHTS).log_prob(z), [by_dimension], rtol=1e-6)
    np.testing.assert_allclose(
        CompositePrior(mean, log_variance, WEIGHTS, joint=True).log_prob(z), [vectors], rtol=1e-6
    )
    assert by_dimension - vectors > 5


def test_where_components_tie_their_weights_add_up():
    # Old posterior N(2, 1): at z = 1 it is as dense as N(0, 1), e^(-½)/√(2π). The wide one adds e^(-5) of it, nearly.
    mean, log_variance, z = np.float32([[2.0, 2.0]]), np.float32([[0.0, 0.0]]), np.float32([[1.0, 1.0]])
    one = np.exp(-0.5) / np.sqrt(2 * np.pi)
    wide = 0.1 * np.exp(-5) * np.exp(-0.5 * np.exp(-10)) / np.sqrt(2 * np.pi)
    apart, joint = (CompositePrior(mean, log_variance, WEIGHTS, joint=joint).log_prob(z) for joint in (False, True))
    np.testing.assert_allclose(apart, [2 * np.log(0.9 * one + wide)], rtol=1e-6)
    wide_twice = 0.1 * np.exp(-10) * np.exp(-np.exp(-10)) / (2 * np.pi)
    np.testing.assert_allclose(joint, [np.log(0.9 * one**2 + wide_twice)], rtol=1e-6)
    assert float(apart[0]) == pytest.approx(-3.0464, abs=1e-3)
    assert float(joint[0]) == pytest.approx(-2.9432, abs=1e-3)


@both
def test_it_integrates_to_one(joint):
    mean, log_variance = moments(3, 1)
    grid = np.sort(np.concatenate([np.linspace(-1500, 1500, 30_001), np.linspace(-12, 12, 24_001)]))
    prior = CompositePrior(mean, log_variance, WEIGHTS, joint=joint)
    density = np.exp(prior.log_prob(grid[:, None, None].astype(np.float32)).numpy().astype(float))
    np.testing.assert_allclose(np.trapezoid(density, grid.astype(np.float32), axis=0), np.ones(3), rtol=1e-4)


@both
def test_samples_have_its_mean_and_variance(joint):
    mean, log_variance = moments(2, 3)
    prior, n = CompositePrior(mean, log_variance, WEIGHTS, joint=joint), 200_000
    second = WEIGHTS[0] + WEIGHTS[1] * (np.exp(log_variance) + mean**2) + WEIGHTS[2] * WIDE_SD**2
    variance = second - (WEIGHTS[1] * mean) ** 2
    np.testing.assert_allclose(prior.mean(), WEIGHTS[1] * mean, rtol=1e-5)
    np.testing.assert_allclose(prior.variance(), variance, rtol=1e-5)
    z = prior.sample(n, seed=3).numpy().astype(float)
    # Nearly all of the variance is the wide component's: E z⁴ ≈ 0.1 · 3 · e²⁰, so that the sample variance has a
    # standard error of √((0.3 - 0.01) / 0.01 / n) = 1.2 % of itself; the tolerance is five of these.
    np.testing.assert_allclose(z.var(axis=0), variance, rtol=5 * np.sqrt(29 / n))
    assert (np.abs(z.mean(axis=0) - prior.mean()) < 5 * np.sqrt(variance / n)).all()
    # Shares, which the wide component does not hide: how often |z| < 10, within five standard errors.
    near = (
        WEIGHTS[0] * 1.0 + WEIGHTS[1] * _within(mean, log_variance, 10) + WEIGHTS[2] * (2 * norm.cdf(10 / WIDE_SD) - 1)
    )
    assert (np.abs((np.abs(z) < 10).mean(axis=0) - near) < 5 * np.sqrt(0.25 / n)).all()


def _within(mean, log_variance, limit):
    sd = np.exp(log_variance / 2)
    return norm.cdf(limit, mean, sd) - norm.cdf(-limit, mean, sd)


@both
def test_dimensions_of_one_sample_choose_their_component_alone_or_together(joint):
    z = CompositePrior(np.zeros((1, 2), np.float32), np.zeros((1, 2), np.float32), WEIGHTS, joint=joint).sample(
        40_000, seed=1
    )
    far = np.abs(z.numpy()[:, 0]) > 6  # the wide normal, but for a share of 0.032 of it
    share = 0.1 * (1 - _within(0.0, 10.0, 6))
    together = share * (1 - _within(0.0, 10.0, 6)) if joint else share**2
    assert far.all(axis=1).mean() == pytest.approx(together, abs=5 * np.sqrt(together / 40_000))


@both
@pytest.mark.parametrize("small", [1e-4, 1e-12])
def test_with_all_weight_on_two_standard_normals_it_is_the_standard_normal(joint, small):
    zeros, z = np.zeros((5, 4), np.float32), np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    found = CompositePrior(zeros, zeros, (0.3, 0.7 - small, small), joint=joint).log_prob(z)
    np.testing.assert_allclose(found, standard_normal(4).log_prob(z), rtol=1e-6, atol=8 * small + 2e-6)


@both
def test_with_all_weight_on_the_old_posterior_it_is_that(joint):
    mean, log_variance = moments()
    old = diagonal_normal(mean, log_variance)
    z = old.sample(seed=1)
    found = CompositePrior(mean, log_variance, (1e-9, 1 - 2e-9, 1e-9), joint=joint).log_prob(z)
    np.testing.assert_allclose(found, old.log_prob(z), rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(
        kl(old, CompositePrior(mean, log_variance, (1e-9, 1 - 2e-9, 1e-9)), z, sampled=True), np.zeros(5), atol=1e-5
    )


@both
def test_its_gradient_is_that_of_the_formula_and_is_finite_far_away(joint):
    mean, log_variance = moments()
    z = tf.constant(codes())
    with tf.GradientTape() as tape:
        tape.watch(z)
        total = tf.reduce_sum(CompositePrior(mean, log_variance, WEIGHTS, joint=joint).log_prob(z))
    found, at, step = tape.gradient(total, z).numpy(), z.numpy().astype(float), 1e-5
    expected = np.empty_like(at)
    for dimension in range(4):
        moved = step * np.eye(4)[dimension]
        above, below = (by_hand(at + sign * moved, mean, log_variance, joint) for sign in (1, -1))
        expected[:, dimension] = (above - below) / (2 * step)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    far = tf.constant([[1e3, -1e3, 0.0, 1e4]] * 5)
    with tf.GradientTape() as tape:
        tape.watch(far)
        total = tf.reduce_sum(CompositePrior(mean, log_variance, WEIGHTS, joint=joint).log_prob(far))
    assert np.isfinite(total) and np.isfinite(tape.gradient(total, far)).all()


@both
def test_batch_and_event(joint):
    prior = CompositePrior(*moments(), WEIGHTS, joint=joint)
    assert prior.batch_shape == (5,) and prior.event_shape == (4,)
    assert prior.sample(7, seed=0).shape == (7, 5, 4) and prior.log_prob(tf.zeros([7, 5, 4])).shape == (7, 5)


@both
def test_it_is_float32_for_halves(joint):
    of = [tf.cast(part, tf.bfloat16) for part in moments()]
    prior = CompositePrior(*of, WEIGHTS, joint=joint)
    found = prior.log_prob(codes())
    assert prior.dtype == found.dtype == tf.float32
    rounded = [tf.cast(part, tf.float32).numpy() for part in of]
    np.testing.assert_allclose(found, by_hand(codes(), *rounded, joint), rtol=2e-6, atol=2e-5)


@both
def test_the_divergence_from_it_is_one_sample_unbiased_and_not_clamped(joint):
    mean, log_variance = moments(4, 1)
    q, prior = diagonal_normal(mean, log_variance), CompositePrior(mean + 1, log_variance, WEIGHTS, joint=joint)
    with pytest.raises(NotImplementedError):
        tfd.kl_divergence(q, prior)
    z = q.sample(20_000, seed=3)
    samples = kl(q, prior, z, sampled=True).numpy().astype(float)
    of_q = norm.logpdf(z.numpy(), mean, np.exp(log_variance / 2)).sum(axis=2)
    flat = z.numpy().reshape(-1, 1)
    of_p = by_hand(flat, np.tile(mean + 1, (20_000, 1)), np.tile(log_variance, (20_000, 1)), joint)
    np.testing.assert_allclose(samples, of_q - of_p.reshape(of_q.shape), rtol=1e-4, atol=2e-5)
    assert (samples.min(axis=0) < -0.05).all()
    sd, steps = np.exp(log_variance / 2), np.linspace(-9, 9, 4001)
    grid = (mean + sd * steps[:, None, None]).astype(np.float32)  # of each user's own posterior
    log_ratio = q.log_prob(grid) - prior.log_prob(grid)
    exact = np.trapezoid(norm.pdf(steps)[:, None] * log_ratio, steps, axis=0)
    assert (exact > 0.1).all()
    assert (np.abs(samples.mean(axis=0) - exact) < 5 * samples.std(axis=0) / np.sqrt(20_000)).all()


def test_the_noise_of_a_posterior_has_an_sd_of_one():
    # RecBole's and Cornac's RecVAE draw it with one of 0.01, which nearly switches the sampling off.
    mean, log_variance = (np.tile(part, (5_000, 1)) for part in moments())
    z = sample_with(Noise(1, tf.constant(0)), "z", diagonal_normal(mean, log_variance)).numpy()
    noise = ((z - mean) / np.exp(log_variance / 2)).astype(float)
    n = noise.size
    assert noise.std() == pytest.approx(1, abs=5 / np.sqrt(2 * n))
    assert abs(noise.mean()) < 5 / np.sqrt(n)
