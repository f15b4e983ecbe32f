"""Chains against linear-Gaussian posteriors in closed form; what they leave invariant, refuse and survive."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf
from scipy.sparse import csr_array
from scipy.stats import kstest, norm

from tfvae.nn import hmc
from tfvae.nn.batches import RowStore
from tfvae.nn.gaussian_ratings import GaussianRatings
from tfvae.nn.hmc import Sampler
from tfvae.system.errors import DivergedError, InputError

D, N_USERS, N_ITEMS, VARIANCE = 4, 150, 30, 0.5
pytestmark = pytest.mark.slow

FALSE_ALARM = 1e-4  # of each statistical test, had its seed not been fixed


def log_prior(codes):
    return -0.5 * tf.reduce_sum(codes**2, axis=1)


@functools.cache
def ratings():
    """Histories of 0 to 30 ratings of a linear-Gaussian model; every seventh user has none."""
    rng = np.random.default_rng(0)
    vectors, biases = rng.normal(size=(N_ITEMS, D)).astype(np.float32), rng.normal(size=N_ITEMS).astype(np.float32)
    values = 3 + rng.normal(size=(N_USERS, D)) @ vectors.T + biases
    values += np.sqrt(VARIANCE) * rng.normal(size=values.shape)
    rated = rng.random((N_USERS, N_ITEMS)) < rng.random((N_USERS, 1)) ** 2
    rated[::7] = False
    return csr_array(np.where(rated, values, 0).astype(np.float32)), vectors, biases + np.float32(3)


def posterior():
    """Mean [N, D] and covariance [N, D, D] of z given a user's ratings."""
    matrix, vectors, biases = ratings()
    rated = (matrix.toarray() != 0).astype(float)
    precision = np.eye(D) + np.einsum("ui,ij,ik->ujk", rated, vectors, vectors) / VARIANCE
    covariance = np.linalg.inv(precision)
    residuals = rated * (matrix.toarray() - biases)
    return np.einsum("ujk,uk->uj", covariance, residuals @ vectors / VARIANCE), covariance


def whitened(codes):
    """Codes [S, N, D] in coordinates in which every user's posterior is N(0, I)."""
    mean, covariance = posterior()
    return np.linalg.solve(np.linalg.cholesky(covariance)[None], (codes - mean)[..., None])[..., 0]


def log_joint(codes, observed):
    return log_prior(codes) + observed.log_prob(codes)


def facts(store=None):
    matrix, vectors, biases = ratings()
    store = store or RowStore(matrix, with_values=True)
    return lambda users: GaussianRatings.of(store.gather(users), tf.constant(vectors), tf.constant(biases), VARIANCE)


@functools.cache
def sampled(n_users=N_USERS, seed=0, **settings):
    start = np.zeros((n_users, D), np.float32)
    return Sampler(**settings).sample_users(log_joint, facts(), start, seed=seed)


def assert_standard_normal(codes):
    """Mean, variance and law of independent draws [N, D]; the variance of a sample variance is 2/n."""
    n, bound = codes.size, norm.isf(FALSE_ALARM / 2)
    assert abs(codes.mean()) < bound / np.sqrt(n)
    assert abs(codes.var() - 1) < bound * np.sqrt(2 / n)
    assert kstest(codes.ravel(), "norm").pvalue > FALSE_ALARM


def test_samples_have_the_posterior_s_mean_and_covariance():
    samples = sampled(n_samples=100, n_burn_in=60)
    codes = whitened(samples.codes.astype(np.float64))
    # Draws of one chain are correlated: standard errors are from the 150 independent chains.
    for moment in (codes, codes**2 - 1, codes * np.roll(codes, 1, axis=2)):
        of_chains = moment.mean(axis=0)
        standard_error = of_chains.std(axis=0) / np.sqrt(N_USERS)
        assert standard_error.max() < 0.04
        assert (np.abs(of_chains.mean(axis=0)) < norm.isf(FALSE_ALARM / 2 / D) * standard_error).all()


def test_the_last_sample_of_each_chain_is_a_draw_from_its_posterior():
    assert_standard_normal(whitened(sampled().codes[-1].astype(np.float64)))


def test_users_without_ratings_are_drawn_from_the_prior():
    start = np.full((512, D), 3, np.float32)
    assert_standard_normal(
        Sampler(jit_compile=False).sample(log_prior, start, seed=1).codes[-1].numpy().astype(np.float64)
    )


def test_the_target_is_left_invariant():
    # From exact draws a single proposal, of steps so long that a third is rejected; far from Gaussian in z.
    exact = np.random.default_rng(2).normal(size=(2000, 2)).astype(np.float32)

    def log_prob(codes):  # sinh z is N(0, I)
        return tf.reduce_sum(tf.math.log(tf.cosh(codes)) - 0.5 * tf.sinh(codes) ** 2, axis=1)

    once = Sampler(n_samples=1, n_burn_in=0, n_leapfrog=5, step_size=1.0, jit_compile=False)
    samples = once.sample(log_prob, np.arcsinh(exact), seed=3)
    assert 0.5 < samples.acceptance.numpy().mean() < 0.8
    after = np.sinh(samples.codes[0].numpy().astype(np.float64))
    assert (after == exact).all(axis=1).mean() < 0.5
    assert_standard_normal(after)


@pytest.mark.parametrize("step_size", [1e-3, 10.0])
def test_the_step_size_recovers_from_a_bad_start(step_size):
    samples = sampled(step_size=step_size, jit_compile=False)
    assert 0.8 < samples.acceptance.mean() < 0.97
    assert samples.acceptance.min() > 0.5
    assert samples.divergences.sum() == 0
    np.testing.assert_allclose(np.median(samples.step_size), np.median(sampled().step_size), rtol=0.25)
    assert_standard_normal(whitened(samples.codes[-1].astype(np.float64)))


def test_users_with_more_ratings_have_shorter_steps():
    counts, steps = np.diff(ratings()[0].indptr), sampled().step_size
    assert steps[counts > 15].max() < steps[counts == 0].min()


def test_the_energy_error_is_of_second_order_in_the_step():
    # Of one trajectory in twice as many steps a quarter of the proposals is rejected, on average over exact starts.
    exact = 0.5 * np.random.default_rng(5).normal(size=(2000, 2)).astype(np.float32)
    rejected = []
    for n_leapfrog in (4, 8):
        once = Sampler(n_samples=1, n_burn_in=0, n_leapfrog=n_leapfrog, step_size=0.8 / n_leapfrog, jit_compile=False)
        samples = once.sample(lambda codes: -2.0 * tf.reduce_sum(codes**2, axis=1), exact, seed=4)
        rejected.append(1 - samples.acceptance.numpy().mean())
    assert 3.5 < rejected[0] / rejected[1] < 4.5


def test_wide_directions_do_not_come_full_circle_together():
    # 20 directions narrower than the prior and 30 like it: the adapted step makes 20 steps about 2π in the latter.
    widths = np.ones((128, 50), np.float32)
    widths[:, :20] = np.random.default_rng(0).uniform(0.5, 0.8, (128, 20))
    start = widths * np.random.default_rng(1).normal(size=widths.shape).astype(np.float32)
    samples = Sampler(jit_compile=False).sample(lambda codes: log_prior(codes / widths), start, seed=1)
    mean_of_ten = samples.codes.numpy()[:, :, 20:].mean(axis=0)
    assert 10 * mean_of_ten.var() < 2  # 1 were the samples independent; 7 with a fixed step


def test_samples_are_a_function_of_the_seed():
    first, second, other = (
        Sampler(jit_compile=False).sample_users(log_joint, facts(), np.zeros((N_USERS, D), np.float32), seed=seed)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.codes, second.codes)
    assert (first.codes != other.codes).all()
    assert (first.codes[:, :64] != first.codes[:, 64:128]).all()


def test_a_user_s_samples_do_not_depend_on_how_many_follow():
    few, many = sampled(n_users=70), sampled()
    np.testing.assert_array_equal(few.codes, many.codes[:, :70])
    for part, of_all in zip(few[1:], many[1:], strict=True):
        np.testing.assert_array_equal(part, of_all[:70])


def test_the_number_of_users_at_once_does_not_change_the_law(monkeypatch):
    usual = sampled(jit_compile=False)
    monkeypatch.setattr(hmc, "USERS_AT_ONCE", 40)
    samples = Sampler(jit_compile=False).sample_users(log_joint, facts(), np.zeros((N_USERS, D), np.float32), seed=0)
    assert (samples.codes[:, 40:64] != usual.codes[:, 40:64]).all()
    assert_standard_normal(whitened(samples.codes[-1].astype(np.float64)))


def test_all_users_are_sampled_by_one_program():
    traced = []

    def log_prob(codes, observed):
        traced.append((codes.shape, observed.precision.shape))
        return log_joint(codes, observed)

    def count(n_users):
        traced.clear()
        quick = Sampler(n_samples=1, n_burn_in=1, n_leapfrog=1, jit_compile=False)
        quick.sample_users(log_prob, facts(), np.zeros((n_users, D), np.float32), seed=0)
        assert set(traced) == {((64, D), (64, D, D))}
        return len(traced)

    assert count(64) == count(150)


def test_without_xla_the_law_is_the_same():
    samples = sampled(jit_compile=False)
    assert_standard_normal(whitened(samples.codes[-1].astype(np.float64)))


def test_inside_a_graph_with_weights_that_change():
    scale = tf.Variable(1.0)

    @tf.function(input_signature=[tf.TensorSpec([300, D])], autograph=False)
    def draw(start):
        return Sampler(n_samples=2).sample(lambda codes: log_prior(codes / scale), start, seed=1)

    for width in (1.0, 0.01):
        scale.assign(width)
        assert_standard_normal(draw(tf.zeros([300, D])).codes[-1].numpy().astype(np.float64) / width)
    bad = draw(tf.tensor_scatter_nd_update(tf.zeros([300, D]), [[7, 0]], [np.inf]))
    np.testing.assert_array_equal(bad.divergences, 2 * tf.one_hot(7, 300, dtype=tf.int32))
    assert tf.math.count_nonzero(~tf.math.is_finite(bad.codes)) == 2


def test_a_region_without_density_is_never_entered():
    def log_prob(codes):  # a half-normal, by a logarithm that is no number below 0
        return log_prior(codes) + 0.0 * tf.math.log(codes[:, 0])

    exact = np.abs(np.random.default_rng(6).normal(size=(1000, 1))).astype(np.float32)
    sampler = Sampler(n_burn_in=0, n_leapfrog=3, step_size=0.5, jit_compile=False)
    samples = sampler.sample(log_prob, exact, seed=1)
    codes = samples.codes.numpy()
    assert np.isfinite(codes).all() and (codes > 0).all()
    assert np.isfinite(samples.acceptance).all() and np.isfinite(samples.step_size).all()
    assert 0.2 < samples.divergences.numpy().mean() / 10 < 0.6
    assert kstest(codes[-1].ravel(), "halfnorm").pvalue > FALSE_ALARM


def test_a_chain_that_can_go_nowhere_stays_at_its_start():
    start = np.linspace(-1, 1, 6, dtype=np.float32).reshape(3, 2)

    def log_prob(codes):  # chain 1 has density at its start only
        stuck = tf.reduce_any(codes != start, axis=1) & tf.constant([False, True, False])
        return tf.where(stuck, np.float32(np.nan), log_prior(codes))

    samples = Sampler(n_burn_in=0).sample(log_prob, start, seed=1)
    np.testing.assert_array_equal(samples.codes[:, 1], np.tile(start[1], (10, 1)))
    np.testing.assert_array_equal(samples.divergences, [0, 10, 0])
    assert samples.acceptance[1] == 0 and min(samples.acceptance[0], samples.acceptance[2]) > 0.2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_target_that_is_not_finite_at_the_start_is_refused(bad):
    quick = Sampler(n_samples=1, n_burn_in=0, n_leapfrog=1, jit_compile=False)

    def log_prob(codes, users):
        return tf.where(users % 50 == 0, np.float32(bad), log_prior(codes))

    with pytest.raises(DivergedError, match="start of 2 of the chains 0 to 63"):
        quick.sample_users(log_prob, lambda users: users, np.zeros((70, D), np.float32), seed=0)
    start = np.zeros((5, D), np.float32)
    start[2:, 0] = bad
    with pytest.raises(DivergedError, match="start of 3 of the chains 0 to 4"):
        quick.sample(log_prior, start, seed=0)


def test_a_gradient_that_is_not_finite_at_the_start_is_refused():
    quick = Sampler(n_samples=1, n_burn_in=0, n_leapfrog=1, jit_compile=False)
    with pytest.raises(DivergedError, match="start of 5 of"):
        quick.sample(lambda codes: -tf.norm(codes, axis=1), np.zeros((5, D), np.float32), seed=0)


@pytest.mark.parametrize("shape", [(D,), (0, D), (3, 0), (2, 3, D)])
def test_a_start_of_another_shape_is_refused(shape):
    with pytest.raises(InputError, match="start has shape"):
        Sampler().sample(log_prior, np.zeros(shape, np.float32), seed=0)
    with pytest.raises(InputError, match="start has shape"):
        Sampler().sample_users(log_joint, facts(), np.zeros(shape, np.float32), seed=0)


def test_an_unknown_number_of_chains_is_refused():
    draw = tf.function(lambda start: Sampler().sample(log_prior, start, 0).codes, [tf.TensorSpec([None, D])], False)
    with pytest.raises(InputError, match="a known number of chains"):
        draw.get_concrete_function()


@pytest.mark.parametrize("log_prob", [tf.reduce_sum, tf.identity, lambda codes: tf.reduce_sum(codes, axis=0)])
def test_a_target_that_is_not_one_number_a_chain_is_refused(log_prob):
    with pytest.raises(InputError, match="one log density for each code"):
        Sampler().sample(log_prob, np.zeros((3, D), np.float32), seed=0)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("n_samples", 0), ("n_burn_in", -1), ("n_leapfrog", 0), ("step_size", 0.0), ("step_size", np.nan)]
    + [("step_size", np.inf), ("target_acceptance", 0.0), ("target_acceptance", 1.0)],
)
def test_a_setting_out_of_its_range_is_refused(setting, value):
    with pytest.raises(InputError, match=f"{setting} is {value}"):
        dataclasses.replace(Sampler(), **{setting: value})


def test_the_machine_s_precision_is_given_back():
    for on in (True, False):
        tf.config.experimental.enable_tensor_float_32_execution(on)
        with pytest.raises(InputError):
            Sampler().sample(tf.identity, np.zeros((3, D), np.float32), seed=0)
        assert tf.config.experimental.tensor_float_32_execution_enabled() == on
    tf.config.experimental.enable_tensor_float_32_execution(True)
