"""Mult-VAE and Mult-DAE: autoencoders of user rows with a multinomial likelihood.

Liang, Krishnan, Hoffman, Jebara: Variational Autoencoders for Collaborative Filtering, WWW 2018, section 2:

    z_u ~ N(0, I),   π(z_u) ∝ exp f_θ(z_u),   x_u ~ Mult(N_u, π(z_u))                                  (eq. 1)
    q(z_u | x_u) = N(μ_φ(x_u), diag σ²_φ(x_u))                                                          (eq. 5)
    L_β(x_u) = E_q log p(x_u | z_u) - β·KL(q(z_u | x_u) ‖ p(z_u))                                       (eq. 7)

Where paper and authors' code differ (weight decay, the cap of β, initialisers) the code gives the published numbers
and is followed; see DEVIATIONS.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import keras
import tensorflow as tf
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from tfvae.data.rows import UserRows
from tfvae.layers import Decoder, Encoder
from tfvae.likelihoods import likelihood
from tfvae.models.base import GradientRecommender
from tfvae.priors import diagonal_normal, kl, standard_normal
from tfvae.randomness import Noise
from tfvae.schedules import linear_ramp

__all__ = ["MultDAE", "MultVAE"]

PAPER_BATCH_SIZE = 500
Width = PositiveInt
Share = Annotated[float, Field(ge=0, lt=1)]
Activation = Literal["tanh", "sigmoid", "relu", "elu", "selu", "gelu", "swish", "linear"]


class _Autoencoder(GradientRecommender):
    """What the two have in common: an encoder, a decoder that mirrors it, a likelihood.

    Args:
        n_items: Width of the catalogue, I.
        hidden: Widths of the encoder's hidden layers; the decoder's are the same, reversed.
        latent_dim: Width of the code, K.
        activation: Of the hidden layers.
        dropout: Share of a history's items dropped in training, after its L2 normalisation.
        likelihood: "multinomial", "gaussian" or "logistic" (table 4 of the paper).
        c1: Confidence of the ones; Gaussian only.
        c0: Confidence of the zeros; Gaussian only.
        weight_decay: λ of λ·Σ‖W‖² over the kernels, biases excluded.
        **kwargs: Of `Recommender`.
    """

    def __init__(
        self,
        n_items: int,
        *,
        hidden: Sequence[Width] = (),
        latent_dim: Width = 200,
        activation: Activation = "tanh",
        dropout: Share = 0.5,
        likelihood: Literal["multinomial", "gaussian", "logistic"] = "multinomial",
        c1: PositiveFloat = 1.0,
        c0: PositiveFloat = 1.0,
        weight_decay: NonNegativeFloat = 0.0,
        **kwargs,
    ):
        super().__init__(n_items, **kwargs)
        self.hidden = tuple(hidden)
        self.latent_dim = latent_dim
        self.activation = activation
        self.dropout = dropout
        self.likelihood = likelihood
        self.c1 = c1
        self.c0 = c0
        self.weight_decay = weight_decay

    def _stack(self, outputs: int, output_activation: str) -> None:
        shared = {
            "activation": self.activation,
            "seed": self.seed,
            "weight_decay": self.weight_decay,
            "dtype": self.dtype_policy,
        }
        self.encoder = Encoder(
            self.n_items,
            self.hidden,
            outputs,
            output_activation=output_activation,
            dropout=self.dropout,
            **shared,
        )
        self.decoder = Decoder(self.n_items, self.hidden[::-1], self.latent_dim, **shared)
        self.build()

    def log_likelihood(self, code: tf.Tensor, rows: UserRows) -> tf.Tensor:
        """Log p(x_u | z_u) of each user, float32 [B], for codes [B, latent_dim]."""
        return likelihood(self.likelihood, self.decoder(code), c1=self.c1, c0=self.c0).log_prob_rows(rows)


@keras.saving.register_keras_serializable(package="tfvae")
class MultVAE(_Autoencoder):
    """Mult-VAE^PR: the variational autoencoder with a partially regularised objective.

    Args:
        n_items: Width of the catalogue, I.
        hidden: Widths of the hidden layers; (600,) makes [I, 600, 200, 600, I].
        beta_cap: Largest KL weight; 0.2 on ML-20M.
        anneal_updates: Updates in which β would rise from 0 to 1; the slope does not depend on the cap. 0 means
            the cap from the start.
        anneal_by: "updates", or "visits": 500 user visits then count as one update, so that another batch size
            keeps the paper's schedule.
        **kwargs: `latent_dim`, `activation`, `dropout`, `likelihood`, `c1`, `c0`, `weight_decay`, `seed`, and those
            of `keras.Model`, such as `dtype="mixed_bfloat16"`.

    Attributes:
        beta: float32 weight, the KL weight of the last update.
        cap: float32 weight, at first `beta_cap`; a run may lower it where validation peaks.
    """

    parts = ("nll", "kl")
    watched = ("beta",)

    def __init__(
        self,
        n_items: int,
        *,
        hidden: Sequence[Width] = (600,),
        beta_cap: NonNegativeFloat = 0.2,
        anneal_updates: NonNegativeInt = 200_000,
        anneal_by: Literal["updates", "visits"] = "updates",
        **kwargs,
    ):
        super().__init__(n_items, hidden=hidden, **kwargs)
        self.beta_cap = beta_cap
        self.anneal_updates = anneal_updates
        self.anneal_by = anneal_by
        self.beta = self.add_state("beta")
        self.cap = self.add_state("cap", value=beta_cap)
        self._stack(outputs=2 * self.latent_dim, output_activation="linear")

    def posterior(self, rows: UserRows, noise: Noise | None = None):
        """q(z | x) of B users: the first half of the encoder's output is μ, the second log σ²."""
        return diagonal_normal(*tf.split(self.encoder(rows, noise=noise), 2, axis=1))

    def prior(self):
        """p(z) over codes [latent_dim]."""
        return standard_normal(self.latent_dim)

    def before_update(self) -> None:
        """β = min(cap, t / anneal_updates) at update t, counted from 0."""
        done = self.updates.value if self.anneal_by == "updates" else self.visits.value / PAPER_BATCH_SIZE
        self.beta.assign(linear_ramp(done, self.anneal_updates, self.cap.value))

    def objective(self, rows: UserRows, noise: Noise) -> dict[str, tf.Tensor]:
        """The negative of L_β, averaged over users, with one reparameterised sample of z."""
        posterior = self.posterior(rows, noise)
        mean = posterior.mean()
        z = mean + posterior.stddev() * noise.normal(tf.shape(mean), "z")
        nll = -tf.reduce_mean(self.log_likelihood(z, rows))
        divergence = tf.reduce_mean(kl(posterior, self.prior(), z))
        return {"loss": nll + self.beta.value * divergence, "nll": nll, "kl": divergence}

    def scores(self, rows: UserRows) -> tf.Tensor:
        """f_θ(μ_φ(x)): logits [B, n_items] at the posterior's mean (section 2.4)."""
        return self.decoder(self.posterior(rows).mean())


@keras.saving.register_keras_serializable(package="tfvae")
class MultDAE(_Autoencoder):
    """Mult-DAE: the denoising autoencoder, a point estimate of z instead of a posterior (section 2.3).

    Args:
        n_items: Width of the catalogue, I.
        hidden: Widths of the hidden layers; () makes [I, 200, I], which the authors' code found best.
        weight_decay: λ of λ·Σ‖W‖²; the paper's 0.01 is 0.01/500 in these units.
        **kwargs: `latent_dim`, `activation`, `dropout`, `likelihood`, `c1`, `c0`, `seed`, and those of
            `keras.Model`.
    """

    parts = ("nll",)

    def __init__(self, n_items: int, *, hidden: Sequence[Width] = (), weight_decay: NonNegativeFloat = 2e-5, **kwargs):
        super().__init__(n_items, hidden=hidden, weight_decay=weight_decay, **kwargs)
        self._stack(outputs=self.latent_dim, output_activation=self.activation)

    def objective(self, rows: UserRows, noise: Noise) -> dict[str, tf.Tensor]:
        """The negative log-likelihood of the clean row given the dropped one, averaged over users."""
        nll = -tf.reduce_mean(self.log_likelihood(self.encoder(rows, noise=noise), rows))
        return {"loss": nll, "nll": nll}

    def scores(self, rows: UserRows) -> tf.Tensor:
        """f_θ(g_φ(x)): logits [B, n_items] for the clean history."""
        return self.decoder(self.encoder(rows))
