"""Models as generative models: bounds against closed forms, and aggregated posteriors that are known."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from scipy.integrate import trapezoid
from scipy.sparse import csr_array
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

from tfvae.evaluation import latents as generative
from tfvae.evaluation.latents import has_latents, latent_diagnostics
from tfvae.models import model_class
from tfvae.nn.batches import SparseBatch
from tfvae.nn.priors import VampPrior, diagonal_normal, sample_with
from tfvae.system.errors import DivergedError, InputError

pytestmark = pytest.mark.slow

tfd = tfp.distributions


class LinearGaussian:
    """z ~ N(0, I), x | z ~ N(W z, s² I) with orthogonal columns W, so that the true posterior is diagonal.

    q(z | x) is that posterior, moved by `shift` of its standard deviations and widened by `widen`.
    """

    name = "linear-gaussian"

    def __init__(self, n_items=12, latent_dim=3, s=0.5, shift=0.0, widen=1.0):
        self.n_items, self.s, self.shift, self.widen, self.traced = n_items, s, shift, widen, []
        orthogonal, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(n_items, latent_dim)))
        self.weights = (orthogonal * np.linspace(0.5, 1.5, latent_dim)).astype(np.float32)

    def dense(self, batch: SparseBatch):
        at = tf.stack([batch.segment_ids, batch.items], axis=1)
        return tf.scatter_nd(at, tf.ones(tf.shape(batch.items)), [tf.shape(batch.lengths)[0], self.n_items])

    def posterior(self, rows):
        precision = 1 + (self.weights**2).sum(axis=0) / self.s**2
        mean = self.dense(rows) @ self.weights / self.s**2 / precision
        sd = tf.ones_like(mean) / np.sqrt(precision)
        return diagonal_normal(mean + self.shift * sd, 2 * tf.math.log(self.widen * sd))

    def prior(self):
        self.traced.append("prior")
        return diagonal_normal(tf.zeros(self.weights.shape[1])[None], tf.zeros(self.weights.shape[1])[None])[0]

    def importance(self, rows):
        self.traced.append("importance")
        x, posterior, prior = self.dense(rows), self.posterior(rows), self.prior()

        def log_weight(noise):
            z = sample_with(noise, "z", posterior)
            given = tfd.Independent(tfd.Normal(z @ self.weights.T, self.s), 1)
            return given.log_prob(x) + prior.log_prob(z) - posterior.log_prob(z)

        return log_weight

    def log_evidence(self, histories):
        """Log p(x) of each user in closed form."""
        weights = self.weights.astype(np.float64)
        covariance = weights @ weights.T + self.s**2 * np.eye(self.n_items)
        return multivariate_normal(np.zeros(self.n_items), covariance).logpdf(dense(histories))

    def gap(self):
        """KL(q ‖ true posterior), the same for all users."""
        per_dimension = (self.shift**2 + self.widen**2 - 1) / 2 - np.log(self.widen)
        return self.weights.shape[1] * per_dimension

    def variance_of_weights(self):
        """Variance under q of w / p(x), which is the true posterior's density by that of q."""
        room = 2 * self.widen**2 - 1
        per_dimension = self.widen**2 / np.sqrt(room) * np.exp(self.shift**2 / room)
        return per_dimension ** self.weights.shape[1] - 1


class Given:
    """A model whose posteriors are given: user u, whose only item is u, has N(mean_u, sd_u²). It explains nothing."""

    name = "given"

    def __init__(self, mean, sd, prior=None):
        self.mean = np.asarray(mean, np.float32)
        self.sd = np.broadcast_to(np.asarray(sd, np.float32), self.mean.shape)
        self.n_items, latent_dim = self.mean.shape
        self.fixed = prior or tfd.MultivariateNormalDiag(tf.zeros(latent_dim), tf.ones(latent_dim))
        self.histories = csr_array(np.eye(self.n_items, dtype=np.float32))

    def posterior(self, rows):
        return diagonal_normal(tf.gather(self.mean, rows.items), 2 * tf.math.log(tf.gather(self.sd, rows.items)))

    def prior(self):
        return self.fixed

    def importance(self, rows):
        posterior = self.posterior(rows)

        def log_weight(noise):
            z = sample_with(noise, "z", posterior)
            return self.fixed.log_prob(z) - posterior.log_prob(z)

        return log_weight

    def describe(self, **changes):
        return latent_diagnostics(self, self.histories, **({"samples": 1} | changes))

    def mean_kl(self):
        """Mean over users of KL(q(z | x) ‖ N(0, I))."""
        mean, sd = self.mean.astype(np.float64), self.sd.astype(np.float64)
        return float(np.mean(np.sum((mean**2 + sd**2 - 1) / 2 - np.log(sd), axis=1)))


def dense(histories):
    return histories @ np.eye(histories.shape[1])


@pytest.fixture(scope="module")
def histories():
    """150 users and 12 items; the first has an empty history."""
    rows = np.random.default_rng(1).random((150, 12)) < 0.3
    rows[0] = False
    return csr_array(rows.astype(np.float32))


# ---- bounds -----------------------------------------------------------------------------------------


def test_with_the_true_posterior_every_sample_is_the_log_evidence(histories):
    model = LinearGaussian()
    found = latent_diagnostics(model, histories, samples=5)
    assert found.per_user["elbo"].dtype == found.per_user["iwae"].dtype == np.float64
    for bound in found.per_user.values():
        np.testing.assert_allclose(bound, model.log_evidence(histories), atol=2e-4)


def test_the_elbo_lies_below_the_log_evidence_by_the_divergence_from_the_true_posterior(histories):
    model = LinearGaussian(shift=0.5, widen=1.3)
    loss = model.log_evidence(histories) - latent_diagnostics(model, histories, samples=400).per_user["elbo"]
    standard_error = loss.std() / np.sqrt(len(loss))
    assert standard_error < 0.01 < model.gap() / 10
    assert abs(loss.mean() - model.gap()) < 5 * standard_error


def test_the_importance_weighted_bound_grows_with_the_samples_up_to_the_log_evidence(histories):
    model = LinearGaussian(shift=0.8, widen=1.3)
    evidence = model.log_evidence(histories)
    found = {samples: latent_diagnostics(model, histories, samples=samples).per_user for samples in (1, 3, 10, 1000)}
    means = np.array([bounds["iwae"].mean() for bounds in found.values()])
    assert (np.diff(means) > 0.05).all()
    np.testing.assert_array_equal(found[1]["iwae"], found[1]["elbo"])
    standard_error = np.sqrt(model.variance_of_weights() / 1000)
    assert standard_error < 0.05
    np.testing.assert_allclose(found[1000]["iwae"], evidence, atol=5 * standard_error)
    assert abs(means[-1] - evidence.mean()) < 5 * standard_error / np.sqrt(150) + standard_error**2


@pytest.mark.parametrize("name", ["mult-vae", "vamp", "h-vamp"])
def test_a_real_model_has_both_bounds_in_order(name, tiny_split):
    extra = {"n_pseudo_inputs": 7} if "vamp" in name else {}
    model = model_class(name)(tiny_split.n_items, hidden=(16,), latent_dim=4, **extra)
    assert has_latents(model)
    found = latent_diagnostics(model, tiny_split.test.history, samples=8)
    elbo, iwae = found.per_user["elbo"], found.per_user["iwae"]
    assert elbo.shape == iwae.shape == (30,) and np.isfinite(elbo).all() and (iwae >= elbo).all()
    assert (iwae > elbo + 1e-3).all() and (iwae < 0).all()  # a multinomial's log-likelihood is negative
    assert found.values["latent_dim"] == 4 and found.values["samples"] == 8
    assert found.posterior.shape == found.prior.shape == (30, 2)


@pytest.mark.parametrize("name", ["mult-dae", "ease", "popularity"])
def test_a_model_without_latent_codes_has_none(name):
    assert not has_latents(model_class(name)(8))


# ---- noise ------------------------------------------------------------------------------------------


def test_the_batch_changes_nothing_but_rounding(histories):
    model = LinearGaussian(shift=0.5, widen=1.3)
    whole = latent_diagnostics(model, histories, samples=10)
    for batch_size in (1, 64, 97):
        parts = latent_diagnostics(model, histories, samples=10, batch_size=batch_size)
        for name, values in whole.per_user.items():
            np.testing.assert_allclose(parts.per_user[name], values, atol=2e-4)
        np.testing.assert_allclose(parts.posterior, whole.posterior, atol=1e-4)
        np.testing.assert_array_equal(parts.prior.shape, whole.prior.shape)
        assert parts.values == pytest.approx(whole.values, abs=1e-4)


def test_the_draws_are_those_of_the_seed_and_differ_between_users_and_samples():
    alike = csr_array(np.ones((200, 12), np.float32))
    model = LinearGaussian(widen=1.3)
    one, again, other = (latent_diagnostics(model, alike, samples=1, seed=seed).per_user["elbo"] for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, again)
    assert len(np.unique(one)) > 195 and (one != other).all()
    # Twenty independent samples have a twentieth of the variance; 200 users give it to 10 % (5 of these allowed).
    twenty = latent_diagnostics(model, alike, samples=20, seed=3).per_user["elbo"]
    assert twenty.var() * 20 == pytest.approx(one.var(), rel=0.7)


def test_the_model_is_traced_once_whatever_the_users_and_samples(histories):
    model = LinearGaussian()
    latent_diagnostics(model, histories, samples=9, batch_size=20)
    assert model.traced.count("importance") == 1
    assert model.traced.count("prior") == 2  # of the weights, and of the aggregated posterior's comparison


# ---- figures ----------------------------------------------------------------------------------------


def test_units_are_active_where_the_posterior_mean_varies_by_more_than_a_hundredth():
    sign = np.where(np.arange(40) % 2, 1.0, -1.0)[:, None]
    half = np.array([0.0, 0.0995, 0.1005, 2.0])  # variances 0, 0.0099, 0.0101 and 4
    found = Given(7 + sign * half, sd=3.0).describe()
    assert (found.values["active_units"], found.values["latent_dim"]) == (2, 4)


def test_posteriors_equal_to_the_prior_have_no_marginal_divergence():
    found = Given(np.zeros((50, 6)), sd=1.0).describe()
    assert found.values["marginal_kl"] == pytest.approx(0, abs=1e-5)
    assert found.values["marginal_users"] == 50


def test_an_aggregated_posterior_equal_to_the_prior_costs_no_more_than_its_finite_sample():
    """Means from N(0, 1 - s²) and sd s make N(0, 1) of infinitely many users; N = 4,000 are nearly that."""
    means = np.random.default_rng(0).normal(size=(4000, 1)) * np.sqrt(1 - 0.4**2)
    given = Given(means, sd=0.4)
    assert given.mean_kl() > 0.4  # the encoder tells much of the user
    assert abs(given.describe().values["marginal_kl"]) < 0.02


def test_the_marginal_divergence_is_the_integral_over_the_mixture():
    means = np.where(np.arange(3000) % 2, 1.5, -1.0)[:, None]
    found = Given(means, sd=0.5).describe().values["marginal_kl"]
    z = np.linspace(-6, 6, 20_001)
    density = (norm(1.5, 0.5).pdf(z) + norm(-1.0, 0.5).pdf(z)) / 2
    exact = trapezoid(density * (np.log(density) - norm.logpdf(z)), z)
    assert exact > 0.3 and found == pytest.approx(exact, abs=0.05)  # five standard errors of 3,000 draws


def test_where_posteriors_lie_apart_the_mean_divergence_exceeds_the_marginal_by_log_n():
    given = Given(np.linspace(-20, 20, 401)[:, None] * [1.0, 0.0], sd=0.001)
    difference = given.mean_kl() - given.describe().values["marginal_kl"]
    assert difference == pytest.approx(np.log(401), abs=0.25)  # five standard errors of 401 draws of log q


def test_the_density_of_the_mixture_is_the_direct_one_also_of_narrow_posteriors():
    random = np.random.default_rng(2)
    mean = random.normal(size=(60, 5)).astype(np.float32) + 30
    sd = np.exp(random.uniform(-6, 0, size=(60, 5))).astype(np.float32)
    z = (mean + sd * random.normal(size=(60, 5))).astype(np.float32)
    direct = norm(mean[None].astype(float), sd[None].astype(float)).logpdf(z[:, None].astype(float)).sum(axis=2)
    found = generative._log_mixture(z, mean, sd, codes_at_once=7)
    np.testing.assert_allclose(found, logsumexp(direct, axis=1) - np.log(60), rtol=0, atol=1e-6)


def test_no_more_users_are_mixed_and_drawn_than_said(monkeypatch):
    monkeypatch.setattr(generative, "USERS_OF_MIXTURE", 100)
    monkeypatch.setattr(generative, "POINTS", 40)
    found = Given(np.random.default_rng(0).normal(size=(900, 3)), sd=0.1).describe()
    assert found.values["marginal_users"] == 100 and len(found.per_user["iwae"]) == 900
    assert found.posterior.shape == found.prior.shape == (40, 2)


# ---- the plane --------------------------------------------------------------------------------------


def test_the_plane_is_that_of_the_two_largest_spreads_whatever_the_sign_of_the_codes():
    random = np.random.default_rng(0)
    means = random.normal(size=(1500, 4)) * [0.1, 5.0, 0.2, 2.0] + [9.0, 0.0, 0.0, 0.0]
    found = Given(means, sd=0.01).describe()
    assert found.posterior.dtype == found.prior.dtype == np.float32
    # The components' largest entries are made positive, so that they are nearly the second and the fourth axis.
    centred = means - means.mean(axis=0)
    np.testing.assert_allclose(found.posterior, centred[:, [1, 3]], atol=0.5)
    # The prior's samples lie 9 away in the first code, which both components leave out.
    assert np.abs(found.prior.mean(axis=0)).max() < 0.3
    assert found.prior.std(axis=0) == pytest.approx(1, abs=0.1)


def test_codes_of_one_dimension_lie_on_a_line_and_a_single_user_at_a_point():
    found = Given(np.linspace(-1, 1, 50)[:, None], sd=0.1).describe()
    assert np.ptp(found.posterior[:, 0]) > 1
    assert not found.posterior[:, 1].any() and not found.prior[:, 1].any()
    assert not Given(np.ones((1, 3)), sd=1.0).describe().posterior.any()


def test_a_prior_that_is_a_mixture_is_compared_and_drawn():
    centres = tf.constant([[-3.0, 0.0], [3.0, 0.0]])
    means = np.repeat(centres.numpy(), 700, axis=0)
    found = Given(means, sd=0.3, prior=VampPrior(centres, tf.fill([2, 2], 2 * np.log(np.float32(0.3))))).describe()
    assert found.values["marginal_kl"] == pytest.approx(0, abs=1e-4)  # both are the same two components
    for points in (found.posterior, found.prior):
        np.testing.assert_allclose(np.abs(points[:, 0]).mean(), 3, atol=0.1)
        assert 0.4 < np.mean(points[:, 0] > 0) < 0.6


# ---- refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "changes", "message"),
    [
        ((5, 11), {}, "12 items, found 11 columns"),
        ((0, 12), {}, "users is 0"),
        ((5, 12), {"samples": 0}, "samples is 0"),
        ((5, 12), {"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_bad_input_is_refused(shape, changes, message):
    with pytest.raises(InputError, match=message):
        latent_diagnostics(LinearGaussian(), csr_array(shape, dtype=np.float32), **changes)


def test_a_bound_that_is_no_number_is_an_error(histories):
    model = LinearGaussian(shift=float("nan"))
    with pytest.raises(DivergedError, match="150 of 150 users"):
        latent_diagnostics(model, histories, samples=1)
