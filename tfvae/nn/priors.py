"""Priors over latent codes, and the KL divergence of a posterior from a prior."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

from tfvae.nn.noise import Noise
from tfvae.system.errors import InputError

__all__ = ["CompositePrior", "VampPrior", "diagonal_normal", "kl", "normal_of", "sample_with", "standard_normal"]

WIDE_LOG_VARIANCE = 10.0


def diagonal_normal(mean: tf.Tensor, log_variance: tf.Tensor) -> tfd.Distribution:
    """N(mean, diag exp(log_variance)) over codes [B, latent_dim]; float32, whatever type the layers compute in."""
    scale = tf.exp(0.5 * tf.cast(log_variance, tf.float32))
    return tfd.Independent(tfd.Normal(tf.cast(mean, tf.float32), scale), reinterpreted_batch_ndims=1)


def normal_of(code: tf.Tensor) -> tfd.Distribution:
    """N(μ, diag σ²) of B users, where μ and log σ² are the two halves of an encoder's output, [B, 2·latent_dim]."""
    return diagonal_normal(*tf.split(code, 2, axis=1))


def standard_normal(latent_dim: int) -> tfd.Distribution:
    """N(0, I) over codes [latent_dim]: the prior of Mult-VAE (WWW'18, equation 1)."""
    return tfd.Independent(tfd.Normal(tf.zeros(latent_dim), tf.ones(latent_dim)), reinterpreted_batch_ndims=1)


class _Prior(tfd.Distribution):
    """A distribution over real vectors whose samples have no gradient, with what TFP needs to know about it.

    There is no `validate_args`, since any real mean and log-variance are valid.

    Args:
        dtype: Type of samples and densities.
        parameters: The constructor's arguments.
        name: Name of the distribution.
    """

    def __init__(self, dtype: tf.DType, parameters: dict[str, Any], name: str):
        super().__init__(
            dtype=dtype,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    def _default_event_space_bijector(self):
        return tfp.bijectors.Identity()


class CompositePrior(_Prior):
    """RecVAE's prior of B users: a mixture of N(0, I), an older posterior and a wide normal, N(0, e¹⁰·I).

    The slides write α·N(z | 0, I) + (1 - α)·q_old(z | x), a mixture of vectors. The authors' code, which gives the
    published numbers, has a mixture in each latent dimension separately, and has the third component.

    `tfd.MixtureSameFamily` of three normals is the same distribution, but its log-density is many times slower, since
    it broadcasts along the components as the innermost axis.

    Example:
        >>> import tensorflow as tf
        >>> from tfvae.nn.priors import CompositePrior
        >>> prior = CompositePrior(tf.zeros([2, 3]), tf.zeros([2, 3]), weights=(0.2, 0.7, 0.1))
        >>> prior.log_prob(tf.zeros([2, 3])).shape
        TensorShape([2])
        >>> prior.sample(5, seed=1).shape
        TensorShape([5, 2, 3])

    Args:
        mean: float [B, latent_dim], mean of the older posterior.
        log_variance: float [B, latent_dim], logarithm of the older posterior's variance.
        weights: Weights of the three components, in the order above; they sum to 1.
        joint: Whether the mixture is of whole vectors, as in the formula, instead of each dimension.
    """

    def __init__(
        self,
        mean: tf.Tensor,
        log_variance: tf.Tensor,
        weights: Sequence[float],
        joint: bool = False,
        name: str = "CompositePrior",
    ):
        parameters = dict(locals())
        with tf.name_scope(name):
            self._old_mean = tf.cast(mean, tf.float32)
            self._old_log_variance = tf.cast(log_variance, tf.float32)
        self._weights = tuple(weights)
        self._joint = joint
        super().__init__(tf.float32, parameters, name)

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        properties = tfp.util.ParameterProperties(event_ndims=1)
        return {"mean": properties, "log_variance": properties}

    def _event_shape(self):
        return self._old_mean.shape[-1:]

    def _event_shape_tensor(self):
        return tf.shape(self._old_mean)[-1:]

    def _components(self) -> list[tuple[tf.Tensor, tf.Tensor]]:
        """Mean and log-variance of each component; for the first and the last they are scalars."""
        origin, wide = tf.constant(0.0), tf.constant(WIDE_LOG_VARIANCE)
        return [(origin, origin), (self._old_mean, self._old_log_variance), (origin, wide)]

    def _log_prob(self, z):
        z = tf.convert_to_tensor(z, tf.float32)
        densities = []
        for (mean, log_variance), weight in zip(self._components(), self._weights, strict=True):
            density = -0.5 * (log_variance + math.log(2.0 * math.pi) + (z - mean) ** 2 * tf.exp(-log_variance))
            density = tf.reduce_sum(density, axis=-1) if self._joint else density
            densities.append(density + math.log(weight))
        highest = tf.stop_gradient(functools.reduce(tf.maximum, densities))
        log_density = highest + tf.math.log(sum(tf.exp(density - highest) for density in densities))
        return log_density if self._joint else tf.reduce_sum(log_density, axis=-1)

    def _sample_n(self, n, seed=None):
        component_seed, normal_seed = tfp.random.split_seed(seed, n=2, salt="CompositePrior")
        shape = tf.concat([[n], tf.shape(self._old_mean)], axis=0)
        drawn = tf.random.stateless_uniform(shape[:-1] if self._joint else shape, component_seed)
        drawn = drawn[..., None] if self._joint else drawn
        noise = tf.random.stateless_normal(shape, normal_seed)
        samples = [mean + tf.exp(0.5 * log_variance) * noise for mean, log_variance in self._components()]
        first, second, _ = self._weights
        return tf.where(drawn < first, samples[0], tf.where(drawn < first + second, samples[1], samples[2]))

    def _mean(self):
        return self._weights[1] * self._old_mean

    def _variance(self):
        parts = zip(self._components(), self._weights, strict=True)
        squares = sum(weight * (mean**2 + tf.exp(log_variance)) for (mean, log_variance), weight in parts)
        return squares - self._mean() ** 2


class VampPrior(_Prior):
    """The mixture 1/K Σ_k N(μ_k, diag σ²_k) of the posteriors of K pseudo-inputs (EVCF, equation 4).

    It is `tfd.MixtureSameFamily` with equal weights, but its density makes no [B, K, latent_dim] array. The square
    in each component's exponent is expanded,

        Σ_d (z_d - μ_kd)² / σ²_kd = Σ_d z_d² / σ²_kd - 2 Σ_d z_d μ_kd / σ²_kd + Σ_d μ_kd² / σ²_kd,

    so that the terms with z are one matrix product of [z², z] with [1/σ², -2μ/σ²]'. If components are narrow or far
    from the origin, large terms cancel; therefore this product, which is small, is computed in float64.

    Example:
        >>> from tfvae.nn.priors import VampPrior
        >>> prior = VampPrior(mean=[[-1.0], [1.0]], log_variance=[[0.0], [0.0]])
        >>> prior.mean().numpy().tolist(), prior.variance().numpy().tolist()
        ([0.0], [2.0])
        >>> round(float(prior.log_prob([0.0])), 3)
        -1.419

    Args:
        mean: float [K, latent_dim], the components' means.
        log_variance: float [K, latent_dim], the logarithms of the components' variances.
    """

    def __init__(self, mean: tf.Tensor, log_variance: tf.Tensor, name: str = "VampPrior"):
        parameters = dict(locals())
        with tf.name_scope(name):
            # The density is float32, whatever type the layers compute in, or float64 if the mean is.
            dtype = tf.float64 if tf.as_dtype(tf.convert_to_tensor(mean).dtype) == tf.float64 else tf.float32
            self._means = tf.cast(mean, dtype)
            self._log_variances = tf.cast(log_variance, dtype)
        super().__init__(dtype, parameters, name)

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
    """A reparameterised sample of a Normal, mean + sd · ε, float32 of the mean's shape; `noise` draws ε."""
    mean = distribution.mean()
    return mean + distribution.stddev() * noise.normal(tf.shape(mean), name)


def kl(posterior: tfd.Distribution, prior: tfd.Distribution, z: tf.Tensor, sampled: bool = False) -> tf.Tensor:
    """KL(posterior ‖ prior) of each user, in closed form or by one-sample Monte Carlo.

    The Monte Carlo estimate log q(z) - log p(z) may be negative for a sample; it is unbiased and not clamped.

    Args:
        posterior: A batch of B distributions over codes.
        prior: A distribution over codes, or a batch of B.
        z: float32 [B, latent_dim], a sample of the posterior.
        sampled: Whether to take the Monte Carlo estimate instead of the closed form.

    Returns:
        float32 [B], summed over the latent dimensions.

    Raises:
        InputError: If there is no closed form.
    """
    if sampled:
        return posterior.log_prob(z) - prior.log_prob(z)
    try:
        return tfd.kl_divergence(posterior, prior)
    except NotImplementedError:
        raise InputError(
            f"KL({posterior.name} ‖ {prior.name}) has no closed form; take the one-sample estimate (sampled=True, or "
            'divergence="sampled" in a model).'
        ) from None
