"""Mult-VAE and Mult-DAE: autoencoders of user rows with a multinomial likelihood.

Liang, Krishnan, Hoffman, Jebara: Variational Autoencoders for Collaborative Filtering, WWW 2018, section 2:

    z_u ~ N(0, I),   π(z_u) ∝ exp f_θ(z_u),   x_u ~ Mult(N_u, π(z_u))                                  (eq. 1)
    log p_θ(x_u | z_u) = Σ_i x_ui log π_i(z_u)                                                          (eq. 2)
    q_φ(z_u | x_u) = N(μ_φ(x_u), diag σ²_φ(x_u))                                               (section 2.2.1)
    L_β(x_u) = E_q log p_θ(x_u | z_u) - β·KL(q_φ(z_u | x_u) ‖ p(z_u))                                   (eq. 6)

Where the paper and the authors' code differ (weight decay, the cap of β, initialisers), the code gives the published
numbers, so this module follows the code; see DEVIATIONS.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf
from pydantic import NonNegativeFloat
from tensorflow_probability import distributions as tfd

from tfvae.models.autoencoder import CHECKERBOARD, EXAMPLE, VariationalAutoencoder
from tfvae.models.fields import CountFromZero, Width
from tfvae.models.sampled import SAMPLED, SampledAutoencoder
from tfvae.nn.batches import SparseBatch
from tfvae.nn.mlp import Decoder, Encoder
from tfvae.nn.noise import Noise
from tfvae.nn.priors import diagonal_normal, kl, sample_with
from tfvae.nn.schedules import LinearRamp

__all__ = ["MultDAE", "MultVAE"]


@keras.saving.register_keras_serializable(package="tfvae")
class MultVAE(SampledAutoencoder, VariationalAutoencoder):
    """Mult-VAE^PR: the variational autoencoder with a partially regularised objective.

    Args:
        n_items: Number of items, I.
        hidden: Widths of the encoder's hidden layers; the decoder has them in reverse. (600,) makes
            [I, 600, 200, 600, I].
        beta_cap: The largest KL weight; 0.2 on ML-20M.
        anneal_updates: Number of steps in which β would rise from 0 to 1; the slope does not depend on the cap. With 0,
            β is at the cap from the start.
        **kwargs: `latent_dim`, `activation`, `dropout`, `likelihood`, `c1`, `c0`, `weight_decay`, `n_sampled` and
            `sampling` for large catalogues (see `SampledAutoencoder`), `seed`, and arguments of `keras.Model`, such as
            `dtype="mixed_bfloat16"`.

    Example:
        >>> model = MultVAE(n_items=5, hidden=[8], latent_dim=2)
        >>> model([[1, 0, 0, 1, 0], [0, 0, 0, 0, 0]]).shape
        TensorShape([2, 5])
    """

    example_settings = EXAMPLE | SAMPLED | {"beta_cap": 0.1, "anneal_updates": 50}
    checkerboard_settings = CHECKERBOARD | {"beta_cap": 0.0}

    def __init__(
        self,
        n_items: int,
        *,
        hidden: Sequence[Width] = (600,),
        beta_cap: NonNegativeFloat = 0.2,
        anneal_updates: CountFromZero = 200_000,
        **kwargs,
    ):
        super().__init__(n_items, hidden=hidden, **kwargs)
        self.beta_cap = beta_cap
        self.anneal_updates = anneal_updates
        self.schedule = LinearRamp(anneal_updates, cap=beta_cap)
        layers = self.layer_config()
        self.encoder = Encoder(n_items, self.hidden, 2 * self.latent_dim, layers, dropout=self.dropout, name="encoder")
        self.decoder = Decoder(n_items, self.hidden[::-1], self.latent_dim, layers)
        self.built = True

    def posterior(self, batch: SparseBatch, noise: Noise | None = None) -> tfd.Distribution:
        """The posterior q_φ(z | x) of B users (section 2.2.1)."""
        mean, log_variance = tf.split(self.encoder(batch, noise=noise), 2, axis=1)
        return diagonal_normal(mean, log_variance)

    def drawn(self, batch: SparseBatch, noise: Noise) -> dict[str, tf.Tensor]:
        """See `GradientRecommender.drawn`: also the sample of z."""
        shape = [tf.shape(batch.lengths)[0], self.latent_dim]
        return super().drawn(batch, noise) | {"z": noise.normal(shape, "z")}

    def objective(self, batch: SparseBatch, noise: Noise) -> dict[str, tf.Tensor]:
        """-L_β averaged over users (equation 6), with one reparameterised sample of z."""
        q = self.posterior(batch, noise)
        z = sample_with(noise, "z", q)
        log_likelihood = tf.reduce_mean(self.log_likelihood(z, batch, noise))  # equation 2
        divergence = tf.reduce_mean(kl(q, self.prior(batch, noise), z))
        loss = -log_likelihood + self.beta.value * divergence + self.row_decay(batch, noise)
        return {"loss": loss, "nll": -log_likelihood, "kl": divergence}


@keras.saving.register_keras_serializable(package="tfvae")
class MultDAE(SampledAutoencoder):
    """Mult-DAE: the denoising autoencoder, a point estimate of z instead of a posterior (section 2.3).

    Args:
        n_items: Number of items, I.
        weight_decay: λ of λ·Σ‖W‖²; the paper's 0.01 is 0.01/500 in these units.
        **kwargs: `hidden` (the default () makes [I, 200, I], which the authors' code found best), `latent_dim`,
            `activation`, `dropout`, `likelihood`, `c1`, `c0`, `n_sampled` and `sampling` for large catalogues (see
            `SampledAutoencoder`), `seed`, and arguments of `keras.Model`.
    """

    example_settings = EXAMPLE | SAMPLED | {"likelihood": "logistic"}
    checkerboard_settings = CHECKERBOARD

    loss_terms = ("nll",)

    def __init__(self, n_items: int, *, weight_decay: NonNegativeFloat = 2e-5, **kwargs):
        super().__init__(n_items, weight_decay=weight_decay, **kwargs)
        layers = self.layer_config()
        self.encoder = Encoder(
            n_items,
            self.hidden,
            self.latent_dim,
            layers,
            output_activation=self.activation,
            dropout=self.dropout,
        )
        self.decoder = Decoder(n_items, self.hidden[::-1], self.latent_dim, layers)
        self.built = True

    def objective(self, batch: SparseBatch, noise: Noise) -> dict[str, tf.Tensor]:
        """The negative log-likelihood of the whole row given the row after dropout, averaged over users."""
        nll = -tf.reduce_mean(self.log_likelihood(self.encoder(batch, noise=noise), batch, noise))
        return {"loss": nll + self.row_decay(batch, noise), "nll": nll}

    def scores(self, batch: SparseBatch) -> tf.Tensor:
        """f_θ(g_φ(x)): logits [B, n_items] for the whole history, without dropout."""
        return self.decoder(self.mean_code(batch))

    def mean_code(self, batch: SparseBatch) -> tf.Tensor:
        """The codes g_φ(x) of B whole histories, [B, latent_dim]."""
        return self.encoder(batch)
