"""EVCF's Mult-VAE: gated linear units, and the settings of the authors' code that its models share.

Kim, Suh: Enhancing VAEs for Collaborative Filtering: Flexible Priors & Gating Mechanisms, RecSys 2019:

    h_l(X) = (X * W + b) ⊗ σ(X * V + c)                                                                 (eq. 7)

"Mult-VAE (Gated)" is `EVCFMultVAE` with `gated=True`. The paper says little about the training; what it leaves open
follows the authors' code, see DEVIATIONS.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import keras
import tensorflow as tf
from pydantic import NonNegativeFloat
from tensorflow_probability import distributions as tfd

from tfvae.models.autoencoder import CHECKERBOARD, EXAMPLE, VariationalAutoencoder
from tfvae.models.fields import CountFromZero, Initializer, Range, Width
from tfvae.models.gradient import Plan
from tfvae.nn.batches import SparseBatch
from tfvae.nn.mlp import Decoder, Encoder
from tfvae.nn.noise import Noise
from tfvae.nn.priors import diagonal_normal, kl, sample_with
from tfvae.nn.schedules import WarmUp
from tfvae.system.errors import InputError

__all__ = ["EVCF", "EVCFMultVAE"]


class EVCF(VariationalAutoencoder):
    """The base class of EVCF's models: the encoder, the schedule and the options of the authors' code.

    Args:
        n_items: Number of items, I.
        hidden: Widths of the encoder's hidden layers; the decoder has them in reverse.
        gated: Whether the hidden layers are gated linear units (equation 7).
        initializer: "he" as in the authors' code, "glorot" as in Mult-VAE's code, "fan-in" as in RecVAE's code; see
            `LayerConfig`.
        separate_heads: Whether μ and log σ² come from two layers instead of one of twice the width.
        log_variance_range: The least and the greatest log σ²; a value outside is clipped and has no gradient. None for
            no bounds.
        divergence: "sampled" for the one-sample estimate log q(z) - log p(z), as in the authors' code; "analytic" for
            the closed form of KL(q ‖ p), which does not exist for a VampPrior.
        likelihood: "multinomial", "gaussian", "logistic", or the "bernoulli" that the authors' code has for Netflix.
        beta_cap: The largest KL weight, the authors' `max_beta`: 1, but 0.3 for Netflix.
        warmup_epochs: Number of epochs in which β rises to its cap.
        **kwargs: `latent_dim`, `activation`, `dropout`, `c1`, `c0`, `weight_decay`, `seed`, and arguments of
            `keras.Model`.

    Raises:
        InputError: If `separate_heads` is set and there is no hidden layer.
    """

    training_defaults: ClassVar[dict[str, Any]] = {
        "epochs": 400,
        "batch_size": 200,
        "optimizer": "normalized-adam",
        "learning_rate": 5e-4,
        "patience": 50,
    }

    def __init__(
        self,
        n_items: int,
        *,
        hidden: Sequence[Width] = (600,),
        gated: bool = False,
        initializer: Initializer = "he",
        separate_heads: bool = True,
        log_variance_range: Range | None = (-12.0, 4.0),
        divergence: Literal["analytic", "sampled"] = "sampled",
        likelihood: Literal["multinomial", "gaussian", "logistic", "bernoulli"] = "multinomial",
        beta_cap: NonNegativeFloat = 1.0,
        warmup_epochs: CountFromZero = 100,
        **kwargs,
    ):
        # The likelihood is set below: the parent class would refuse "bernoulli".
        super().__init__(n_items, hidden=hidden, **kwargs)
        if separate_heads and not self.hidden:
            raise InputError("separate_heads needs a hidden layer; give hidden at least one width, such as [600].")
        self.gated = gated
        self.initializer = initializer
        self.separate_heads = separate_heads
        self.log_variance_range = log_variance_range and tuple(log_variance_range)
        self.divergence = divergence
        self.likelihood = likelihood
        self.beta_cap = beta_cap
        self.warmup_epochs = warmup_epochs
        self.schedule = WarmUp(warmup_epochs, cap=beta_cap)
        self.layers_config = self.layer_config(gated=gated, initializer=initializer)
        self.encoder = Encoder(
            n_items,
            self.hidden,
            2 * self.latent_dim,
            self.layers_config,
            output_layers=1 + separate_heads,
            dropout=self.dropout,
            name="encoder",
        )

    @classmethod
    def adapted(cls, settings: Mapping[str, Any], plan: Plan) -> Iterator[tuple[str, Any, str]]:
        """Shortens a warm-up that is longer than the planned epochs: it ends halfway through them."""
        warm_up = WarmUp(settings["warmup_epochs"], settings["beta_cap"]).fitted_to(plan.epochs)
        yield "warmup_epochs", warm_up.epochs, f", halfway through the {plan.epochs} planned epochs."

    def moments(self, code: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """μ and log σ², [B, latent_dim] each: the two halves of a network's output [B, 2 · latent_dim]."""
        mean, log_variance = tf.split(code, 2, axis=1)
        if self.log_variance_range:
            log_variance = tf.clip_by_value(log_variance, *self.log_variance_range)
        return mean, log_variance

    def posterior(self, batch: SparseBatch, noise: Noise | None = None) -> tfd.Distribution:
        """The posterior q(z | x) of B users."""
        return diagonal_normal(*self.moments(self.encoder(batch, noise=noise)))

    def kl(self, posterior: tfd.Distribution, prior: tfd.Distribution, z: tf.Tensor) -> tf.Tensor:
        """KL(posterior ‖ prior) averaged over users, a scalar; `divergence` selects closed form or the sample z."""
        return tf.reduce_mean(kl(posterior, prior, z, sampled=self.divergence == "sampled"))

    def objective(self, batch: SparseBatch, noise: Noise) -> dict[str, tf.Tensor]:
        """-E log p(x | z) + β·KL, averaged over users, with one reparameterised sample of z."""
        posterior = self.posterior(batch, noise)
        z = sample_with(noise, "z", posterior)
        nll = -tf.reduce_mean(self.log_likelihood(z, batch))
        divergence = self.kl(posterior, self.prior(batch, noise), z)
        return {"loss": nll + self.beta.value * divergence, "nll": nll, "kl": divergence}


@keras.saving.register_keras_serializable(package="tfvae")
class EVCFMultVAE(EVCF):
    """Mult-VAE as EVCF's authors train it for the baseline of their tables; `gated=True` is "Mult-VAE (Gated)".

    Args:
        n_items: Number of items, I.
        **kwargs: Settings of `EVCF`.
    """

    example_settings = EXAMPLE | {
        "hidden": [12, 10],
        "gated": True,
        "initializer": "glorot",
        "separate_heads": False,
        "log_variance_range": [-5.0, 2.0],
        "divergence": "analytic",
        "beta_cap": 0.1,
        "warmup_epochs": 3,
        "likelihood": "bernoulli",
        "optimizer": "adam",
    }
    checkerboard_settings = CHECKERBOARD | {"beta_cap": 0.0, "separate_heads": False}

    def __init__(self, n_items: int, **kwargs):
        super().__init__(n_items, **kwargs)
        self.decoder = Decoder(n_items, self.hidden[::-1], self.latent_dim, self.layers_config)
        self.built = True
