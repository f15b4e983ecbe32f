"""The base classes of autoencoders of user rows; the variational ones add a prior and a scheduled KL weight."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import keras
import tensorflow as tf
from pydantic import NonNegativeFloat, PositiveFloat
from tensorflow_probability import distributions as tfd

from tfvae.models.fields import Activation, Share, Width
from tfvae.models.gradient import GradientRecommender, Plan
from tfvae.nn.batches import SparseBatch
from tfvae.nn.layer_config import LayerConfig
from tfvae.nn.likelihoods import likelihood
from tfvae.nn.noise import Noise
from tfvae.nn.priors import sample_with, standard_normal
from tfvae.nn.schedules import LinearRamp, Schedule

__all__ = ["CHECKERBOARD", "EXAMPLE", "Autoencoder", "VariationalAutoencoder"]

EXAMPLE: dict[str, Any] = {
    "hidden": [12],
    "latent_dim": 6,
    "activation": "relu",
    "dropout": 0.3,
    "likelihood": "gaussian",
    "c1": 2.0,
    "c0": 0.5,
    "weight_decay": 0.0001,
    "learning_rate": 0.02,
}
"""Small example settings that all autoencoders here share; see `Recommender.example_settings`."""
CHECKERBOARD: dict[str, Any] = {
    "hidden": [],
    "latent_dim": 4,
    "dropout": 0.2,
    "learning_rate": 0.05,
    "epochs": 60,
}
"""Settings that all autoencoders here share; see `Recommender.checkerboard_settings`."""


class Autoencoder(GradientRecommender):
    """An autoencoder of binary user rows; a subclass makes `encoder` and `decoder` from the settings.

    Args:
        n_items: Number of items, I.
        hidden: Widths of the encoder's hidden layers.
        latent_dim: Width of the code, K.
        activation: Activation of the hidden layers.
        dropout: Share of a history's items dropped in training, after its L2 normalisation.
        likelihood: "multinomial", "gaussian" or "logistic" (Mult-VAE, Table 4).
        c1: Confidence of the ones, for the Gaussian likelihood only.
        c0: Confidence of the zeros, for the Gaussian likelihood only.
        weight_decay: λ of λ·Σ‖W‖² over the kernels; biases are left out.
        **kwargs: Arguments of `Recommender`.
    """

    encoder: keras.layers.Layer
    decoder: keras.layers.Layer

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
        self.likelihood: str = likelihood
        self.c1 = c1
        self.c0 = c0
        self.weight_decay = weight_decay

    def layer_config(self, *, gated: bool = False, initializer: str = "glorot") -> LayerConfig:
        """The configuration of the layers: the model's settings, and two options that only some models offer."""
        return LayerConfig(self.activation, gated, initializer, self.weight_decay, self.seed, self.dtype_policy)

    def item_vectors(self) -> tf.Tensor:
        """The rows of the decoder's last layer, float32 [n_items, width of its input]; see `HasItemVectors`."""
        return tf.convert_to_tensor(self.decoder.last.kernel.value)

    def log_likelihood(self, code: tf.Tensor, batch: SparseBatch) -> tf.Tensor:
        """Log p(x_u | z_u) of each user, float32 [B], for codes [B, latent_dim]."""
        return likelihood(self.likelihood, self.decoder(code), c1=self.c1, c0=self.c0).log_prob_rows(batch)

    def expected(self, batch: SparseBatch) -> tf.Tensor:
        """The likelihood's mean given the scores, float32 [B, n_items]: of the multinomial, each item's probability."""
        return likelihood(self.likelihood, self.scores(batch), c1=self.c1, c0=self.c0).mean()


class VariationalAutoencoder(Autoencoder):
    """An autoencoder with a posterior q(z | x), a prior p(z) and a KL weight β; see `MultVAE` for the objective.

    Attributes:
        beta: float32 weight, the KL weight of the last step.
        schedule: The schedule that gives β at each step.
    """

    loss_terms: tuple[str, ...] = ("nll", "kl")
    logged_weights: tuple[str, ...] = ("beta",)
    schedule: Schedule

    def __init__(self, n_items: int, **kwargs):
        super().__init__(n_items, **kwargs)
        self.beta = self.add_state("beta")

    def load_own_variables(self, store: Any) -> None:
        """Loads the model's own variables; files of former versions also hold the cap of β, which is skipped."""
        values = [store[key] for key in sorted(store.keys(), key=int)]
        if len(values) > len(self._trainable_variables) + len(self._non_trainable_variables):
            del values[3]
        super().load_own_variables({str(place): value for place, value in enumerate(values)})

    @property
    def has_one_prior(self) -> bool:
        """Whether p(z) is the same for all users."""
        return True

    @abc.abstractmethod
    def posterior(self, batch: SparseBatch, noise: Noise | None = None) -> tfd.Distribution:
        """The posterior q(z | x) of B users; deterministic without `noise`."""

    def prior(self, batch: SparseBatch | None = None, noise: Noise | None = None) -> tfd.Distribution:
        """The prior p(z) = N(0, I) over codes [latent_dim].

        Args:
            batch: B users, for a prior that depends on them.
            noise: The random numbers of this step, for a prior that is computed by a network with dropout.
        """
        return standard_normal(self.latent_dim)

    def importance(self, batch: SparseBatch) -> Callable[[Noise], tf.Tensor]:
        """The importance weights of the posterior, from which bounds on log p(x) are computed.

        Args:
            batch: B users.

        Returns:
            A function that draws one z ~ q(z | x) per user from a `Noise`, without dropout, and returns
            log p(x, z) - log q(z | x), float32 [B]. Posterior and prior are computed once, for all calls of it.
        """
        posterior, prior = self.posterior(batch), self.prior(batch)

        def log_weight(noise: Noise) -> tf.Tensor:
            z = sample_with(noise, "z", posterior)
            return self.log_likelihood(z, batch) + prior.log_prob(z) - posterior.log_prob(z)

        return log_weight

    def scores(self, batch: SparseBatch) -> tf.Tensor:
        """f_θ(μ_φ(x)): logits [B, n_items] at the posterior's mean (Mult-VAE, section 2.4)."""
        return self.decoder(self.mean_code(batch))

    def mean_code(self, batch: SparseBatch) -> tf.Tensor:
        """The posterior's mean μ_φ(x) of B users, float32 [B, latent_dim]."""
        return self.posterior(batch).mean()

    @property
    def patient_from(self) -> int:
        """The epoch, counted from 0, before which early stopping does not count."""
        return self.schedule.patient_from

    def before_step(self) -> None:
        """Sets β to the value that the schedule gives for this step."""
        self.beta.assign(self.schedule.beta(self.step.value, self.rows_seen.value // self.histories.n_rows))

    @classmethod
    def kl_weight_cap(cls, settings: Mapping[str, Any]) -> str | None:
        """The setting that caps β."""
        return "beta_cap"

    @classmethod
    def adapted(cls, settings: Mapping[str, Any], plan: Plan) -> Iterator[tuple[str, Any, str]]:
        """Shortens an annealing that would not reach its cap within the planned steps: it ends halfway through them."""
        ramp = LinearRamp(settings["anneal_updates"], settings["beta_cap"])
        why = f", so that β reaches {ramp.cap:g} halfway through the {plan.steps:,} planned updates."
        yield "anneal_updates", ramp.fitted_to(plan.steps).steps, why
