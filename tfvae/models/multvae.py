"""Mult-VAE and Mult-DAE: autoencoders of user rows with a multinomial likelihood.

Liang, Krishnan, Hoffman, Jebara: Variational Autoencoders for Collaborative Filtering, WWW 2018, section 2:

    z_u ~ N(0, I),   π(z_u) ∝ exp f_θ(z_u),   x_u ~ Mult(N_u, π(z_u))                                  (eq. 1)
    q(z_u | x_u) = N(μ_φ(x_u), diag σ²_φ(x_u))                                                          (eq. 5)
    L_β(x_u) = E_q log p(x_u | z_u) - β·KL(q(z_u | x_u) ‖ p(z_u))                                       (eq. 7)

Where paper and authors' code differ (weight decay, the cap of β, initialisers) the code gives the published numbers
and is followed; see DEVIATIONS.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import keras
import tensorflow as tf
import tensorflow_probability as tfp
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from tfvae.models.base import GradientRecommender
from tfvae.nn.batches import SparseBatch
from tfvae.nn.layer_config import LayerConfig
from tfvae.nn.likelihoods import likelihood
from tfvae.nn.mlp import Decoder, Encoder
from tfvae.nn.noise import Noise
from tfvae.nn.priors import diagonal_normal, kl, sample_with, standard_normal
from tfvae.nn.schedules import linear_ramp, warm_up
from tfvae.system.errors import InputError

__all__ = ["MultDAE", "MultVAE"]

tfd = tfp.distributions

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
        activation: Of the hidden layers, unless these are gated.
        gated: Whether the hidden layers are gated linear units (EVCF, equation 7).
        initializer: "glorot" as in the authors' code, "he" as in that of EVCF, "fan-in" as in RecVAE's; see
            `LayerConfig`.
        dropout: Share of a history's items dropped in training, after its L2 normalisation.
        likelihood: "multinomial", "gaussian" or "logistic" (table 4 of the paper), or EVCF's "bernoulli".
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
        gated: bool = False,
        initializer: Literal["glorot", "he", "fan-in"] = "glorot",
        dropout: Share = 0.5,
        likelihood: Literal["multinomial", "gaussian", "logistic", "bernoulli"] = "multinomial",
        c1: PositiveFloat = 1.0,
        c0: PositiveFloat = 1.0,
        weight_decay: NonNegativeFloat = 0.0,
        **kwargs,
    ):
        super().__init__(n_items, **kwargs)
        self.hidden = tuple(hidden)
        self.latent_dim = latent_dim
        self.activation = activation
        self.gated = gated
        self.initializer = initializer
        self.dropout = dropout
        self.likelihood = likelihood
        self.c1 = c1
        self.c0 = c0
        self.weight_decay = weight_decay

        self.layer_config = LayerConfig(activation, gated, initializer, weight_decay, self.seed, self.dtype_policy)

    def make_decoder(self) -> keras.layers.Layer:
        """The generative network, from a code to item logits."""
        return Decoder(self.n_items, self.hidden[::-1], self.latent_dim, self.layer_config)

    def log_likelihood(self, code: tf.Tensor, batch: SparseBatch) -> tf.Tensor:
        """Log p(x_u | z_u) of each user, float32 [B], for codes [B, latent_dim]."""
        return likelihood(self.likelihood, self.decoder(code), c1=self.c1, c0=self.c0).log_prob_rows(batch)


@keras.saving.register_keras_serializable(package="tfvae")
class MultVAE(_Autoencoder):
    """Mult-VAE^PR: the variational autoencoder with a partially regularised objective.

    Another prior, other layers, another likelihood or schedule make the models of later papers: see `vamp.py`.

    Args:
        n_items: Width of the catalogue, I.
        hidden: Widths of the hidden layers; (600,) makes [I, 600, 200, 600, I].
        separate_heads: Whether μ and log σ² come from two layers, as in EVCF's code, instead of one of twice the
            width; needs a hidden layer.
        log_variance_range: Least and greatest log σ², outside which it has no gradient; None for no bounds.
        divergence: "analytic" takes KL(q ‖ p) in closed form where there is one; "sampled" always the one-sample
            estimate log q(z) - log p(z), as EVCF's code.
        beta_cap: Largest KL weight; 0.2 on ML-20M.
        anneal_updates: Updates in which β would rise from 0 to 1; the slope does not depend on the cap. 0 means
            the cap from the start.
        anneal_by: "updates"; "visits": 500 user visits then count as one update, so that another batch size keeps
            the paper's schedule; or "epochs": EVCF's warm-up, constant within an epoch.
        warmup_epochs: Epochs in which β rises to its cap; only for `anneal_by="epochs"`.
        **kwargs: `latent_dim`, `activation`, `gated`, `initializer`, `dropout`, `likelihood`, `c1`, `c0`,
            `weight_decay`, `seed`, and those of `keras.Model`, such as `dtype="mixed_bfloat16"`.

    Attributes:
        beta: float32 weight, the KL weight of the last update.
        cap: float32 weight, at first `beta_cap`; a run may lower it where validation peaks.
    """

    loss_terms = ("nll", "kl")
    logged_weights = ("beta",)

    def __init__(
        self,
        n_items: int,
        *,
        hidden: Sequence[Width] = (600,),
        separate_heads: bool = False,
        log_variance_range: tuple[float, float] | None = None,
        divergence: Literal["analytic", "sampled"] = "analytic",
        beta_cap: NonNegativeFloat = 0.2,
        anneal_updates: NonNegativeInt = 200_000,
        anneal_by: Literal["updates", "visits", "epochs"] = "updates",
        warmup_epochs: NonNegativeInt = 100,
        **kwargs,
    ):
        super().__init__(n_items, hidden=hidden, **kwargs)
        if separate_heads and not self.hidden:
            raise InputError("separate_heads needs a hidden layer; give hidden at least one width, such as [600].")
        self.separate_heads = separate_heads
        self.log_variance_range = log_variance_range and tuple(log_variance_range)
        self.divergence = divergence
        self.beta_cap = beta_cap
        self.anneal_updates = anneal_updates
        self.anneal_by = anneal_by
        self.warmup_epochs = warmup_epochs
        self.beta = self.add_state("beta")
        self.cap = self.add_state("cap", value=beta_cap)
        self.encoder = self.make_encoder("encoder")
        self.decoder = self.make_decoder()
        self.built = True

    def make_encoder(self, name: str) -> keras.layers.Layer:
        """A network from user rows to the moments of q(z | x); by its name it draws its own weights and dropout."""
        return Encoder(
            self.n_items,
            self.hidden,
            2 * self.latent_dim,
            self.layer_config,
            output_layers=1 + self.separate_heads,
            dropout=self.dropout,
            name=name,
        )

    def moments(self, code: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """μ and log σ², [B, latent_dim] each: the two halves of a network's output [B, 2 · latent_dim]."""
        mean, log_variance = tf.split(code, 2, axis=1)
        if self.log_variance_range:
            log_variance = tf.clip_by_value(log_variance, *self.log_variance_range)
        return mean, log_variance

    def posterior(self, batch: SparseBatch, noise: Noise | None = None) -> tfd.Distribution:
        """q(z | x) of B users."""
        return diagonal_normal(*self.moments(self.encoder(batch, noise=noise)))

    def prior(self, batch: SparseBatch | None = None, noise: Noise | None = None) -> tfd.Distribution:
        """p(z) over codes [latent_dim].

        Args:
            batch: B users, for a prior that depends on them.
            noise: For a prior that is computed by a network with dropout.
        """
        return standard_normal(self.latent_dim)

    @property
    def patient_from(self) -> int:
        """The end of a warm-up by epochs."""
        return self.warmup_epochs if self.anneal_by == "epochs" else 0

    def before_update(self) -> None:
        """β = min(cap, t / anneal_updates) at update t, counted from 0; or that of the epoch, counted from 1."""
        if self.anneal_by == "epochs":
            epoch = self.rows_seen.value // self.histories.n_rows + 1
            # A cap that was lowered on the way cuts the ramp; it does not flatten it.
            self.beta.assign(tf.minimum(self.cap.value, warm_up(epoch, self.warmup_epochs, self.beta_cap)))
            return
        done = self.step.value if self.anneal_by == "updates" else self.rows_seen.value / PAPER_BATCH_SIZE
        self.beta.assign(linear_ramp(done, self.anneal_updates, self.cap.value))

    def kl(self, posterior: tfd.Distribution, prior: tfd.Distribution, z: tf.Tensor) -> tf.Tensor:
        """KL(posterior ‖ prior), averaged over users, a scalar; by `divergence` in closed form or from the sample z."""
        return tf.reduce_mean(kl(posterior, prior, z, sampled=self.divergence == "sampled"))

    def objective(self, batch: SparseBatch, noise: Noise) -> dict[str, tf.Tensor]:
        """The negative of L_β, averaged over users, with one reparameterised sample of z."""
        posterior = self.posterior(batch, noise)
        z = sample_with(noise, "z", posterior)
        nll = -tf.reduce_mean(self.log_likelihood(z, batch))
        divergence = self.kl(posterior, self.prior(batch, noise), z)
        return {"loss": nll + self.beta.value * divergence, "nll": nll, "kl": divergence}

    def importance(self, batch: SparseBatch) -> Callable[[Noise], tf.Tensor]:
        """The importance weights of the posterior: what a bound of log p(x) is made of.

        Args:
            batch: B users.

        Returns:
            A function that draws one z ~ q(z | x) per user from a `Noise`, without dropout, and gives
            log p(x, z) - log q(z | x), float32 [B]. Posterior and prior are computed once for all its draws.
        """
        posterior, prior = self.posterior(batch), self.prior(batch)

        def log_weight(noise: Noise) -> tf.Tensor:
            z = sample_with(noise, "z", posterior)
            return self.log_likelihood(z, batch) + prior.log_prob(z) - posterior.log_prob(z)

        return log_weight

    def scores(self, batch: SparseBatch) -> tf.Tensor:
        """f_θ(μ_φ(x)): logits [B, n_items] at the posterior's mean (section 2.4)."""
        return self.decoder(self.posterior(batch).mean())


@keras.saving.register_keras_serializable(package="tfvae")
class MultDAE(_Autoencoder):
    """Mult-DAE: the denoising autoencoder, a point estimate of z instead of a posterior (section 2.3).

    Args:
        n_items: Width of the catalogue, I.
        hidden: Widths of the hidden layers; () makes [I, 200, I], which the authors' code found best.
        weight_decay: λ of λ·Σ‖W‖²; the paper's 0.01 is 0.01/500 in these units.
        **kwargs: `latent_dim`, `activation`, `gated`, `initializer`, `dropout`, `likelihood`, `c1`, `c0`, `seed`,
            and those of `keras.Model`.
    """

    loss_terms = ("nll",)

    def __init__(self, n_items: int, *, hidden: Sequence[Width] = (), weight_decay: NonNegativeFloat = 2e-5, **kwargs):
        super().__init__(n_items, hidden=hidden, weight_decay=weight_decay, **kwargs)
        self.encoder = Encoder(
            self.n_items,
            self.hidden,
            self.latent_dim,
            self.layer_config,
            output_activation=self.activation,
            dropout=self.dropout,
        )
        self.decoder = self.make_decoder()
        self.built = True

    def objective(self, batch: SparseBatch, noise: Noise) -> dict[str, tf.Tensor]:
        """The negative log-likelihood of the clean row given the dropped one, averaged over users."""
        nll = -tf.reduce_mean(self.log_likelihood(self.encoder(batch, noise=noise), batch))
        return {"loss": nll, "nll": nll}

    def scores(self, batch: SparseBatch) -> tf.Tensor:
        """f_θ(g_φ(x)): logits [B, n_items] for the clean history."""
        return self.decoder(self.encoder(batch))
