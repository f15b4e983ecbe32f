"""Priors over latent codes and the divergence of a posterior from them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence

import tensorflow as tf
import tensorflow_probability as tfp

from tfvae.randomness import Noise

__all__ = ["VampPrior", "composite", "diagonal_normal", "kl", "sample_with", "standard_normal"]

tfd = tfp.distributions

WIDE_LOG_VARIANCE = 10.0


def diagonal_normal(mean: tf.Tensor, log_variance: tf.Tensor) -> tfd.Distribution:
    """N(mean, diag exp(log_variance)) over codes [B, latent_dim]; float32 whatever the layers computed in."""
    scale = tf.exp(0.5 * tf.cast(log_variance, tf.float32))
    return tfd.Independent(tfd.Normal(tf.cast(mean, tf.float32), scale), reinterpreted_batch_ndims=1)


def standard_normal(latent_dim: int) -> tfd.Distribution:
    """N(0, I) over codes [latent_dim]: the prior of Mult-VAE (WWW'18, equation 1)."""
    return tfd.Independent(tfd.Normal(tf.zeros(latent_dim), tf.ones(latent_dim)), reinterpreted_batch_ndims=1)


def composite(
    mean: tf.Tensor, log_variance: tf.Tensor, weights: Sequence[float], joint: bool = False
) -> tfd.Distribution:
    """RecVAE's prior of B users: a mixture of N(0, 1), an older posterior and a wide normal, N(0, e¹⁰).

    The slides write α·N(z | 0, I) + (1 - α)·q_old(z | x), a mixture of vectors. The authors' code, which gives the
    published numbers, mixes in each latent dimension by itself, and has the third component.

    Args:
        mean: float [B, latent_dim], of the older posterior.
        log_variance: float [B, latent_dim], of the older posterior.
        weights: Of the three components, in that order; they sum to 1.
        joint: Whether to mix whole vectors, as the formula reads, instead of each dimension.

    Returns:
        A distribution over codes [B, latent_dim].
    """
    mean, log_variance = tf.cast(mean, tf.float32), tf.cast(log_variance, tf.float32)
    origin = tf.zeros_like(mean)
    axis = 1 if joint else 2  # of the components
    means = tf.stack([origin, mean, origin], axis=axis)
    scales = tf.stack([origin + 1.0, tf.exp(0.5 * log_variance), origin + math.exp(0.5 * WIDE_LOG_VARIANCE)], axis=axis)
    components = tfd.Normal(means, scales)
    shares = tfd.Categorical(probs=tf.constant(weights, tf.float32))
    if joint:
        return tfd.MixtureSameFamily(shares, tfd.Independent(components, reinterpreted_batch_ndims=1))
    return tfd.Independent(tfd.MixtureSameFamily(shares, components), reinterpreted_batch_ndims=1)


class VampPrior(tfd.Distribution):
    """The mixture 1/K Σ_k N(μ_k, diag σ²_k) of the posteriors of K pseudo-inputs (EVCF, equation 4).

    It is `tfd.MixtureSameFamily` of equal weights, but its density makes no [B, K, latent_dim] array. The square
    in each component's exponent is expanded,

        Σ_d (z_d - μ_kd)² / σ²_kd = Σ_d z_d² / σ²_kd - 2 Σ_d z_d μ_kd / σ²_kd + Σ_d μ_kd² / σ²_kd,

    which is one matrix product of [z², z] with [1/σ², -2μ/σ²]'. Where components are narrow or far from the origin
    large terms cancel, so that this one, small product is in float64.

    Args:
        mean: float [K, latent_dim], the components' means.
        log_variance: float [K, latent_dim], the logarithms of their variances.
    """

    def __init__(self, mean: tf.Tensor, log_variance: tf.Tensor, name: str = "VampPrior"):
        parameters = dict(locals())
        with tf.name_scope(name):
            # Whatever the layers computed in, the density is float32, or the float64 that was given.
            dtype = tf.float64 if tf.as_dtype(tf.convert_to_tensor(mean).dtype) == tf.float64 else tf.float32
            self._means = tf.cast(mean, dtype)
            self._log_variances = tf.cast(log_variance, dtype)
        super().__init__(
            dtype=dtype,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        properties = tfp.util.ParameterProperties(event_ndims=2)
        return {"mean": properties, "log_variance": properties}

    def _event_shape(self):
        return self._means.shape[-1:]

    def _event_shape_tensor(self):
        return tf.shape(self._means)[-1:]

    def _log_prob(self, z):
        z = tf.convert_to_tensor(z, self.dtype)
        codes = tf.cast(tf.reshape(z, [-1, tf.shape(self._means)[1]]), tf.float64)
        means, log_variances = (tf.cast(part, tf.float64) for part in (self._means, self._log_variances))
        precisions = tf.exp(-log_variances)
        constant = tf.reduce_sum(means**2 * precisions + log_variances + math.log(2.0 * math.pi), axis=1)
        squares = tf.matmul(
            tf.concat([codes**2, codes], axis=1),
            tf.concat([precisions, -2.0 * means * precisions], axis=1),
            transpose_b=True,
        )
        n_components = tf.cast(tf.shape(means)[0], tf.float64)
        log_density = tf.reduce_logsumexp(-0.5 * (squares + constant), axis=1) - tf.math.log(n_components)
        return tf.cast(tf.reshape(log_density, tf.shape(z)[:-1]), self.dtype)

    def _sample_n(self, n, seed=None):
        component_seed, normal_seed = tfp.random.split_seed(seed, n=2, salt="VampPrior")
        components = tf.random.stateless_uniform([n], component_seed, 0, tf.shape(self._means)[0], tf.int32)
        noise = tf.random.stateless_normal([n, tf.shape(self._means)[1]], normal_seed, dtype=self.dtype)
        scales = tf.exp(0.5 * tf.gather(self._log_variances, components))
        return tf.gather(self._means, components) + scales * noise

    def _mean(self):
        return tf.reduce_mean(self._means, axis=0)

    def _variance(self):
        within = tf.reduce_mean(tf.exp(self._log_variances), axis=0)
        return within + tf.math.reduce_variance(self._means, axis=0)


def sample_with(noise: Noise, name: str, distribution: tfd.Distribution) -> tf.Tensor:
    """A reparameterised sample of a Normal, mean + sd · ε, float32 of its shape; ε is drawn by `noise`."""
    mean = distribution.mean()
    return mean + distribution.stddev() * noise.normal(tf.shape(mean), name)


def kl(posterior: tfd.Distribution, prior: tfd.Distribution, z: tf.Tensor, sampled: bool = False) -> tf.Tensor:
    """KL(posterior ‖ prior) of each user: closed form where TFP knows one, else one-sample Monte Carlo.

    The Monte Carlo estimate log q(z) - log p(z) may be negative for a sample; it is unbiased and not clamped.

    Args:
        posterior: Over codes, batch of B.
        prior: Over codes.
        z: float32 [B, latent_dim], a sample of the posterior.
        sampled: Whether to take the Monte Carlo estimate also where there is a closed form.

    Returns:
        float32 [B], summed over the latent dimensions.
    """
    if not sampled:
        with contextlib.suppress(NotImplementedError):  # TFP knows no closed form
            return tfd.kl_divergence(posterior, prior)
    return posterior.log_prob(z) - prior.log_prob(z)
