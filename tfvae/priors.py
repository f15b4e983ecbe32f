"""Priors over latent codes and the divergence of a posterior from them."""

from __future__ import annotations

import tensorflow as tf
import tensorflow_probability as tfp

__all__ = ["diagonal_normal", "kl", "standard_normal"]

tfd = tfp.distributions


def diagonal_normal(mean: tf.Tensor, log_variance: tf.Tensor) -> tfd.Distribution:
    """N(mean, diag exp(log_variance)) over codes [B, latent_dim]; float32 whatever the layers computed in."""
    scale = tf.exp(0.5 * tf.cast(log_variance, tf.float32))
    return tfd.Independent(tfd.Normal(tf.cast(mean, tf.float32), scale), reinterpreted_batch_ndims=1)


def standard_normal(latent_dim: int) -> tfd.Distribution:
    """N(0, I) over codes [latent_dim]: the prior of Mult-VAE (WWW'18, equation 1)."""
    return tfd.Independent(tfd.Normal(tf.zeros(latent_dim), tf.ones(latent_dim)), reinterpreted_batch_ndims=1)


def kl(posterior: tfd.Distribution, prior: tfd.Distribution, z: tf.Tensor) -> tf.Tensor:
    """KL(posterior ‖ prior) of each user: closed form where TFP knows one, else one-sample Monte Carlo.

    The Monte Carlo estimate log q(z) - log p(z) may be negative for a sample; it is unbiased and not clamped.

    Args:
        posterior: Over codes, batch of B.
        prior: Over codes.
        z: float32 [B, latent_dim], a sample of the posterior.

    Returns:
        float32 [B], summed over the latent dimensions.
    """
    try:
        return tfd.kl_divergence(posterior, prior)
    except NotImplementedError:
        return posterior.log_prob(z) - prior.log_prob(z)
