"""The divergence against Monte Carlo and hand-worked values, the VampPrior against TFP's mixture."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfvae.nn.priors import VampPrior, diagonal_normal, kl, standard_normal
from tfvae.system.errors import InputError

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


def test_a_divergence_without_a_closed_form_is_sampled_only_when_asked_for():
    q, _, _ = posterior()
    prior, z = mixture_of(-1.0, 2.0), q.sample(seed=2)
    with pytest.raises(InputError, match="has no closed form; take the one-sample estimate"):
        kl(q, prior, z)
    np.testing.assert_allclose(kl(q, prior, z, sampled=True), q.log_prob(z) - prior.log_prob(z), rtol=1e-6)


def test_the_estimate_is_unbiased_and_not_clamped():
    q, _, _ = posterior()
    z = q.sample(50_000, seed=3)
    samples = kl(
        q, mixture_of(0.0, 0.0), z, sampled=True
    ).numpy()  # twice the standard normal, whose divergence is known
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


def test_a_sampled_divergence_is_unbiased_though_there_is_a_closed_form_and_is_not_clamped():
    q, mean, log_variance = posterior()
    p_mean, p_log_variance = np.float32([0.5, -1.0, 0.0, 2.0]), np.float32([0.3, -0.7, 1.0, 0.0])
    p, z = diagonal_normal(p_mean, p_log_variance), q.sample(50_000, seed=4)
    by_hand = np.exp(log_variance - p_log_variance) + (mean - p_mean) ** 2 / np.exp(p_log_variance)
    by_hand = (by_hand - 1 + p_log_variance - log_variance).sum(axis=1) / 2
    np.testing.assert_allclose(kl(q, p, z[0]), by_hand, rtol=1e-5)
    samples = kl(q, p, z, sampled=True).numpy()
    np.testing.assert_allclose(samples, q.log_prob(z) - p.log_prob(z), rtol=1e-6)
    assert (np.abs(samples.mean(axis=0) - by_hand) < 5 * samples.std(axis=0) / np.sqrt(len(z))).all()
    assert (samples.std(axis=0) > 0.1).all() and (samples.min(axis=0) < 0).all()


def components(n_components, latent_dim, seed=0, spread=1.0, log_variances=(-2.0, 1.0)):
    """Means and log-variances of a mixture, float64 [K, D] each."""
    rng = np.random.default_rng(seed)
    shape = (n_components, latent_dim)
    return rng.normal(0, spread, shape), rng.uniform(*log_variances, shape)


def tfps(mean, log_variance):
    """The same mixture by TFP, in the precision of what is given."""
    normals = tfd.MultivariateNormalDiag(mean, tf.exp(0.5 * tf.convert_to_tensor(log_variance)))
    return tfd.MixtureSameFamily(tfd.Categorical(logits=tf.zeros(mean.shape[0], normals.dtype)), normals)


def near(mean, log_variance, n_codes, seed=5):
    """Codes the mixture is likely to make, rounded to float32: where its density matters. float64 [n_codes, D]."""
    rng = np.random.default_rng(seed)
    of = rng.integers(len(mean), size=n_codes)
    z = mean[of] + np.exp(log_variance[of] / 2) * rng.normal(size=(n_codes, mean.shape[1]))
    return z.astype(np.float32).astype(float)


def as_float32(*arrays):
    return [array.astype(np.float32) for array in arrays]


@pytest.mark.parametrize("shape", [(4,), (6, 4), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("n_components", [1, 2, 30])
def test_the_vamp_prior_is_tfps_mixture_of_equal_weights(n_components, shape):
    mean, log_variance = components(n_components, 4)
    z = near(mean, log_variance, int(np.prod(shape[:-1])) if len(shape) > 1 else 1).reshape(shape)
    expected = tfps(mean, log_variance).log_prob(z)
    assert expected.dtype == tf.float64
    single = VampPrior(*as_float32(mean, log_variance)).log_prob(z.astype(np.float32))
    assert single.dtype == tf.float32 and single.shape == shape[:-1]
    np.testing.assert_allclose(single, expected, rtol=2e-6, atol=2e-5)
    np.testing.assert_allclose(VampPrior(mean, log_variance).log_prob(z), expected, rtol=1e-12, atol=1e-12)


def test_codes_of_no_batch_need_the_width_alone():
    prior = VampPrior(tf.zeros([3, 2]), tf.zeros([3, 2]))
    assert prior.log_prob(tf.zeros([0, 2])).shape == (0,)
    assert float(prior.log_prob([0.0, 0.0])) == pytest.approx(-np.log(2 * np.pi), rel=1e-6)


def in_single_precision(mean, log_variance, z):
    """The density by the same products in float32: what must not be done."""
    precision = tf.exp(-log_variance)
    squares = z**2 @ tf.transpose(precision) - 2 * z @ tf.transpose(mean * precision)
    constant = tf.reduce_sum(mean**2 * precision + log_variance + np.float32(np.log(2 * np.pi)), axis=1)
    return tf.reduce_logsumexp(-0.5 * (squares + constant), axis=1) - tf.math.log(float(len(mean)))


HARD = {
    "far from the origin": {"shift": 100.0},
    "variances of e^-8 and e^4": {"log_variances": (-8.0, 4.0)},
    "narrow and far": {"log_variances": (-8.0, -8.0), "spread": 0.05, "shift": 100.0},
    "as narrow as EVCF allows": {"log_variances": (-12.0, -12.0)},
}


@pytest.mark.parametrize("case", ["as in training", *HARD])
def test_the_density_of_1000_components_of_200_dimensions_loses_no_digits(case):
    settings = dict(HARD.get(case, {}))
    mean, log_variance = components(1000, 200, **{k: v for k, v in settings.items() if k != "shift"})
    mean, log_variance = (array.astype(float) for array in as_float32(mean + settings.get("shift", 0), log_variance))
    z = near(mean, log_variance, 20)
    expected = tfps(mean, log_variance).log_prob(z).numpy()
    given = as_float32(mean, log_variance, z)
    found = VampPrior(*given[:2]).log_prob(given[2]).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-4)
    if case in HARD:
        assert np.abs(in_single_precision(*map(tf.constant, given)) - expected).max() > 0.01


def test_the_vamp_prior_integrates_to_one():
    mean, log_variance = components(5, 1)
    grid = np.linspace(-20, 20, 40_001)
    density = np.exp(VampPrior(mean, log_variance).log_prob(grid[:, None]))
    assert np.trapezoid(density, grid) == pytest.approx(1, abs=1e-9)


def test_one_component_is_a_diagonal_normal():
    mean, log_variance = as_float32(*components(1, 6))
    z = as_float32(near(mean, log_variance, 9))[0]
    one, other = VampPrior(mean, log_variance), diagonal_normal(mean[0], log_variance[0])
    np.testing.assert_allclose(one.log_prob(z), other.log_prob(z), rtol=1e-5)
    np.testing.assert_allclose(one.mean(), other.mean(), rtol=1e-6)
    np.testing.assert_allclose(one.stddev(), other.stddev(), rtol=1e-6)


def test_a_code_between_two_components_by_hand():
    # ½ N(1; 0, 1) + ½ N(1; 3, 4)
    density = (np.exp(-0.5) + np.exp(-0.5) / 2) / np.sqrt(2 * np.pi) / 2
    prior = VampPrior(tf.constant([[0.0], [3.0]]), tf.constant([[0.0], [np.log(4.0)]]))
    assert float(prior.log_prob([1.0])) == pytest.approx(np.log(density), rel=1e-6)
    assert float(prior.mean()[0]) == pytest.approx(1.5)
    assert float(prior.variance()[0]) == pytest.approx(2.5 + 2.25)


def test_samples_have_the_moments_of_the_mixture_which_are_in_closed_form():
    mean, log_variance = components(7, 3)
    prior, n = VampPrior(mean, log_variance), 100_000
    expected_mean = mean.mean(axis=0)
    expected_variance = np.exp(log_variance).mean(axis=0) + (mean**2).mean(axis=0) - expected_mean**2
    np.testing.assert_allclose(prior.mean(), expected_mean, rtol=1e-12)
    np.testing.assert_allclose(prior.variance(), expected_variance, rtol=1e-12)
    np.testing.assert_allclose(prior.stddev(), np.sqrt(expected_variance), rtol=1e-12)
    samples = prior.sample(n, seed=1).numpy()
    error_of_mean = np.sqrt(expected_variance / n)
    assert (np.abs(samples.mean(axis=0) - expected_mean) < 5 * error_of_mean).all()
    error_of_variance = ((samples - expected_mean) ** 2).std(axis=0) / np.sqrt(n)
    assert (np.abs(samples.var(axis=0) - expected_variance) < 5 * error_of_variance).all()


def test_all_dimensions_of_a_sample_come_from_one_component_and_each_component_has_its_share():
    mean = np.float32([[-50, 50], [0, 0], [50, -50], [90, 90]])
    log_variance = np.log(np.float32([[1, 4], [0.25, 1], [9, 1], [1, 1]]))
    n = 40_000
    samples = VampPrior(mean, log_variance).sample(n, seed=3).numpy()
    distances = np.abs(samples[:, None] - mean).max(axis=2)
    of = distances.argmin(axis=1)
    assert distances.min(axis=1).max() < 20
    share = np.bincount(of, minlength=4) / n
    np.testing.assert_allclose(share, 0.25, atol=5 * np.sqrt(0.25 * 0.75 / n))
    for component in range(4):
        within = samples[of == component]
        errors = np.exp(log_variance[component] / 2) / np.sqrt(len(within))
        assert (np.abs(within.mean(axis=0) - mean[component]) < 5 * errors).all()
        np.testing.assert_allclose(within.std(axis=0), np.exp(log_variance[component] / 2), rtol=0.05)
        assert abs(np.corrcoef(within.T)[0, 1]) < 5 / np.sqrt(len(within))


def test_the_seed_decides_the_sample():
    prior = VampPrior(*as_float32(*components(6, 3)))
    one, again, other = (prior.sample(50, seed=seed).numpy() for seed in ([1, 2], [1, 2], [1, 3]))
    np.testing.assert_array_equal(one, again)
    assert not np.isin(one, other).any()
    assert prior.sample(seed=[1, 2]).shape == (3,) and prior.sample([4, 5], seed=[1, 2]).shape == (4, 5, 3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_of_the_vamp_prior_are_those_of_tfps_mixture(dtype):
    mean, log_variance = components(30, 4)
    z = near(mean, log_variance, 9)
    upstream = np.random.default_rng(6).normal(size=9)
    gradients = []
    for make, precision in ((tfps, "float64"), (VampPrior, dtype)):
        given = [tf.constant(array, precision) for array in (mean, log_variance, z)]
        with tf.GradientTape() as tape:
            tape.watch(given)
            total = tf.reduce_sum(make(*given[:2]).log_prob(given[2]) * tf.constant(upstream, precision))
        gradients.append(tape.gradient(total, given))
    close = {"float32": {"rtol": 1e-4, "atol": 1e-5}, "float64": {"rtol": 1e-9, "atol": 1e-12}}[dtype]
    for expected, found in zip(*gradients, strict=True):
        assert found.dtype == dtype and np.abs(expected).max() > 0.1
        np.testing.assert_allclose(found, expected, **close)


def shapes_in_the_graph_of(prior_of):
    """The shapes of all arrays in a density of 11 codes, 5 wide, under 17 components, and in its gradients."""

    @tf.function
    def gradients(mean, log_variance, z):
        with tf.GradientTape() as tape:
            tape.watch([mean, log_variance, z])
            total = tf.reduce_sum(prior_of(mean, log_variance).log_prob(z))
        return total, tape.gradient(total, [mean, log_variance, z])

    specs = [tf.TensorSpec(shape) for shape in ([17, 5], [17, 5], [11, 5])]
    graph = gradients.get_concrete_function(*specs).graph
    return [output.shape for op in graph.get_operations() for output in op.outputs]


def test_the_density_and_its_gradient_make_no_array_of_codes_by_components_by_dimensions():
    theirs, ours = (shapes_in_the_graph_of(make) for make in (lambda m, v: tfps(m, v), VampPrior))
    assert (11, 17, 5) in theirs
    assert all(shape.is_fully_defined() for shape in ours)
    assert (11, 17) in ours
    assert max(shape.num_elements() for shape in ours) < 2 * 11 * 17


def test_the_vamp_prior_is_a_proper_tfp_distribution():
    mean, log_variance = as_float32(*components(6, 3))
    prior = VampPrior(mean, log_variance)
    assert isinstance(prior, tfd.Distribution) and prior.dtype == tf.float32
    assert (prior.batch_shape, prior.event_shape) == ((), (3,))
    assert tuple(prior.event_shape_tensor()) == (3,)
    z = as_float32(near(mean, log_variance, 4))[0]
    np.testing.assert_array_equal(prior.copy().log_prob(z), prior.log_prob(z))
    wider = prior.copy(log_variance=log_variance + 1)
    np.testing.assert_array_equal(wider.log_prob(z), VampPrior(mean, log_variance + 1).log_prob(z))
    np.testing.assert_allclose(prior.prob(z), np.exp(prior.log_prob(z)), rtol=1e-6)


def test_the_vamp_prior_works_in_a_graph_whose_sizes_are_not_known():
    mean, log_variance = as_float32(*components(6, 3))
    z = as_float32(near(mean, log_variance, 4))[0]
    unknown = tf.TensorSpec([None, 3])

    @tf.function(input_signature=[unknown] * 3)
    def both(mean, log_variance, z):
        prior = VampPrior(mean, log_variance)
        return prior.log_prob(z), prior.sample(5, seed=[1, 2])

    density, sample = both(mean, log_variance, z)
    prior = VampPrior(mean, log_variance)
    np.testing.assert_allclose(density, prior.log_prob(z), rtol=1e-5)
    np.testing.assert_allclose(sample, prior.sample(5, seed=[1, 2]), rtol=1e-5)


def test_half_precision_moments_make_a_float32_prior():
    mean, log_variance = (tf.cast(array, tf.bfloat16) for array in components(6, 3))
    prior = VampPrior(mean, log_variance)
    exact = VampPrior(tf.cast(mean, tf.float32), tf.cast(log_variance, tf.float32))
    z = tf.constant([[0.1, -0.7, 0.3]])
    assert prior.dtype == prior.log_prob(z).dtype == prior.sample(2, seed=1).dtype == tf.float32
    np.testing.assert_array_equal(prior.log_prob(z), exact.log_prob(z))


def test_the_divergence_from_a_vamp_prior_is_one_sample_and_unbiased():
    q, _, _ = posterior()
    mean = np.zeros((5, 4), np.float32)  # five times the standard normal, whose divergence is known
    prior, z = VampPrior(mean, mean), q.sample(50_000, seed=3)
    samples, exact = kl(q, prior, z, sampled=True).numpy(), kl(q, standard_normal(4), z[0]).numpy()
    np.testing.assert_allclose(samples, q.log_prob(z) - standard_normal(4).log_prob(z), rtol=1e-4, atol=1e-4)
    assert (np.abs(samples.mean(axis=0) - exact) < 5 * samples.std(axis=0) / np.sqrt(len(z))).all()
    assert (samples.min(axis=0) < 0).any()


def test_codes_are_unconstrained_to_those_who_ask_for_a_bijector():
    prior = VampPrior(np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32))
    codes = np.float32([[-1.0, 0.0, 5.0]])
    np.testing.assert_array_equal(prior.experimental_default_event_space_bijector()(codes), codes)
