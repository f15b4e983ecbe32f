"""RaCT: Mult-VAE that is trained in its last epochs by a critic, which has learnt to predict the ranking metric.

Lobel, Li, Gao, Carin: RaCT: Toward Amortized Ranking-Critical Training for Collaborative Filtering, ICLR 2020. NDCG
has no useful gradient. A small network, the critic, learns to predict NDCG from three features, the last of which has a
gradient:

    ŷ_u = critic(number of items shown, number of items withheld, -log p(x_u | z_u))

Training has three phases. First the actor is trained by Mult-VAE's objective. Then the critic is trained to predict
NDCG@100 of the withheld items. Finally the actor is trained to raise ŷ, while the training of the critic continues.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import keras
import tensorflow as tf
from pydantic import NonNegativeFloat, PositiveFloat
from tensorflow_probability import distributions as tfd

from tfvae.models.autoencoder import CHECKERBOARD, EXAMPLE, VariationalAutoencoder
from tfvae.models.fields import Count, CountFromZero, Width
from tfvae.models.gradient import Objective, Plan
from tfvae.nn.batches import SparseBatch
from tfvae.nn.layer_config import LayerConfig
from tfvae.nn.likelihoods import likelihood
from tfvae.nn.mlp import Decoder, Encoder, hidden_stack, output_layer
from tfvae.nn.noise import Noise
from tfvae.nn.priors import diagonal_normal, kl, sample_with
from tfvae.nn.ranking import ndcg_of_unseen
from tfvae.nn.schedules import LinearRamp
from tfvae.system.errors import InputError

__all__ = ["RaCT"]

ACTOR, CRITIC, ACTOR_CRITIC = "actor", "critic", "actor-critic"
MEMORY = 0.999  # of the running moments, per update
Feature = Literal["seen", "unseen", "nll"]


@keras.saving.register_keras_serializable(package="tfvae")
class RaCT(VariationalAutoencoder):
    """Mult-VAE as the actor, and its critic.

    The phases follow each other within one training run: `actor_epochs` for the actor, `critic_epochs` for the critic,
    and the rest of the run's epochs for both. The second phase starts from the weights of the actor's best epoch on
    validation users.

    Args:
        n_items: Number of items, I.
        hidden: Widths of the hidden layers of the actor's encoder; the decoder has them in reverse.
        separate_heads: Whether the actor's μ and log σ² come from two layers, as in the authors' code, instead of one
            of twice the width; two layers need a hidden layer before them.
        beta_cap: The largest KL weight of the first phase.
        anneal_updates: Number of steps in which β would rise from 0 to 1.
        actor_epochs: Number of epochs of the first phase.
        critic_epochs: Number of epochs of the second phase.
        critic_learning_rate: The critic's learning rate, in the second and third phase.
        fine_tuning_rate: The actor's learning rate in the third phase.
        critic_hidden: Widths of the critic's hidden layers.
        critic_features: The critic's inputs: "seen" and "unseen", the numbers of items that the encoder's dropout keeps
            and drops, and "nll", that of the whole history. Without "nll" the actor would get no gradient.
        critic_weight_decay: λ of λ·Σ‖W‖² over the critic's kernels; 1e-4 divided by the authors' batch of 500 users.
        normalize_features: Whether the critic's inputs are centred and scaled by running moments of the first phase,
            as the paper says. The authors' code has a layer for that, but never updates its moments.
        cutoff: k of the NDCG@k that is predicted.
        **kwargs: `latent_dim`, `activation`, `dropout`, `likelihood`, `c1`, `c0`, `weight_decay`, `seed`, and arguments
            of `keras.Model`.

    Raises:
        InputError: If `critic_features` lack "nll", or `separate_heads` is set and there is no hidden layer.
    """

    example_settings = EXAMPLE | {
        "separate_heads": False,
        "beta_cap": 0.1,
        "anneal_updates": 50,
        "actor_epochs": 1,
        "critic_epochs": 2,
        "critic_learning_rate": 0.01,
        "fine_tuning_rate": 0.01,
        "critic_hidden": [8, 6],
        "critic_features": ["nll", "seen"],
        "critic_weight_decay": 0.001,
        "normalize_features": True,
        "cutoff": 10,
    }
    checkerboard_settings = CHECKERBOARD | {
        "beta_cap": 0.0,
        "separate_heads": False,
        "actor_epochs": 50,
        "critic_epochs": 5,
    }

    loss_terms = ("nll", "kl", "ndcg", "predicted_ndcg", "critic_error")

    def __init__(
        self,
        n_items: int,
        *,
        hidden: Sequence[Width] = (600,),
        separate_heads: bool = True,
        beta_cap: NonNegativeFloat = 0.2,
        anneal_updates: CountFromZero = 200_000,
        actor_epochs: Count = 100,
        critic_epochs: Count = 50,
        critic_learning_rate: PositiveFloat = 1e-4,
        fine_tuning_rate: PositiveFloat = 2e-6,
        critic_hidden: Sequence[Width] = (100, 100, 10),
        critic_features: Sequence[Feature] = ("seen", "unseen", "nll"),
        critic_weight_decay: NonNegativeFloat = 1e-4 / 500,
        normalize_features: bool = False,
        cutoff: Count = 100,
        **kwargs,
    ):
        super().__init__(n_items, hidden=hidden, **kwargs)
        if separate_heads and not self.hidden:
            raise InputError("separate_heads needs a hidden layer; give hidden at least one width, such as [600].")
        if "nll" not in critic_features:
            raise InputError(f'critic_features are {list(critic_features)}; the critic needs "nll" to have a gradient.')
        self.separate_heads = separate_heads
        self.beta_cap = beta_cap
        self.anneal_updates = anneal_updates
        self.actor_epochs = actor_epochs
        self.critic_epochs = critic_epochs
        self.critic_learning_rate = critic_learning_rate
        self.fine_tuning_rate = fine_tuning_rate
        self.critic_hidden = tuple(critic_hidden)
        self.critic_features = tuple(critic_features)
        self.critic_weight_decay = critic_weight_decay
        self.normalize_features = normalize_features
        self.cutoff = cutoff
        self.feature_updates = self.add_state("feature_updates", "int64")
        self.feature_means = self.add_state("feature_means", shape=[len(self.critic_features)])
        self.feature_squares = self.add_state("feature_squares", value=1.0, shape=[len(self.critic_features)])
        self.schedule = LinearRamp(anneal_updates, cap=beta_cap)
        actor, moments = self.layer_config(), 2 * self.latent_dim
        heads = 1 + separate_heads
        self.encoder = Encoder(n_items, self.hidden, moments, actor, output_layers=heads, dropout=self.dropout)
        self.decoder = Decoder(n_items, self.hidden[::-1], self.latent_dim, actor)
        layer_config = LayerConfig("relu", weight_decay=critic_weight_decay, seed=self.seed, dtype="float32")
        widths = [len(self.critic_features), *self.critic_hidden]
        self.critic = [
            *hidden_stack(widths[0], self.critic_hidden, layer_config, "critic"),
            output_layer(widths[-1], 1, layer_config.for_output("sigmoid"), "critic_output"),
        ]
        self.built = True

    def posterior(self, batch: SparseBatch, noise: Noise | None = None) -> tfd.Distribution:
        """The actor's posterior q(z | x) of B users."""
        return diagonal_normal(*tf.split(self.encoder(batch, noise=noise), 2, axis=1))

    # ---- the schedule -------------------------------------------------------------------------------

    @property
    def objectives(self) -> dict[str, Objective]:
        """The objectives of actor and critic; the actor has another optimiser and another loss in the third phase."""
        actor = [*self.encoder.trainable_variables, *self.decoder.trainable_variables]
        critic = [variable for layer in self.critic for variable in layer.trainable_variables]
        return {
            ACTOR: Objective(actor),
            CRITIC: Objective(critic, "critic_error", self.critic_learning_rate),
            ACTOR_CRITIC: Objective(actor, "shortfall", self.fine_tuning_rate),
        }

    def phase_of(self, epoch: int) -> tuple[str, ...]:
        """The actor's objective, then the critic's, then both."""
        if epoch < self.actor_epochs:
            return (ACTOR,)
        return (CRITIC,) if epoch < self.patient_from else (ACTOR_CRITIC, CRITIC)

    @property
    def patient_from(self) -> int:
        """The first epoch of the third phase; early stopping must not end a run before it."""
        return self.actor_epochs + self.critic_epochs

    def before_step(self) -> None:
        """Sets β in the first phase; the later phases have no KL term, and keep the β that they start from."""
        if self.phase == (ACTOR,):
            super().before_step()

    @classmethod
    def adapted(cls, settings: Mapping[str, Any], plan: Plan) -> Iterator[tuple[str, Any, str]]:
        """Shortens phases that would leave no epoch for the third: they get a half and a quarter of the epochs."""
        first, second, epochs = settings["actor_epochs"], settings["critic_epochs"], plan.epochs
        if first + second >= epochs and not {"actor_epochs", "critic_epochs"} & plan.given:
            first, second = max(1, epochs // 2), max(1, epochs // 4)
        why = f", so that the {epochs} planned epochs reach the third phase."
        yield "actor_epochs", first, why
        yield "critic_epochs", second, why
        yield from super().adapted(settings, plan)

    def starts_from_best(self, epoch: int) -> bool:
        """Whether this is the critic's first epoch; it starts from the actor's best one, as in the authors' code."""
        return epoch == self.actor_epochs

    # ---- the objective ------------------------------------------------------------------------------

    def objective(self, batch: SparseBatch, noise: Noise) -> dict[str, tf.Tensor]:
        """Mult-VAE's loss in the first phase; then the critic's squared error, and 1 - the NDCG that it predicts."""
        posterior = self.posterior(batch, noise)
        z = sample_with(noise, "z", posterior)
        logits = self.decoder(z)
        nll = -likelihood(self.likelihood, logits, c1=self.c1, c0=self.c0).log_prob_rows(batch)
        divergence = tf.reduce_mean(kl(posterior, self.prior(batch, noise), z))
        means = {"nll": tf.reduce_mean(nll), "kl": divergence}
        kept = self.encoder.first.kept(batch, noise)
        features = self._features(batch, kept, nll)
        if self.phase == (ACTOR,):
            if self.normalize_features:
                self._observe(features)
            return means | {"loss": means["nll"] + self.beta.value * divergence}
        predicted = self._predicted(features)
        ndcg = tf.stop_gradient(ndcg_of_unseen(logits, batch, kept, self.cutoff))
        return means | {
            "ndcg": tf.reduce_mean(ndcg),
            "predicted_ndcg": tf.reduce_mean(predicted),
            "critic_error": tf.reduce_mean(tf.square(ndcg - predicted)),
            "shortfall": 1.0 - tf.reduce_mean(predicted),
        }

    def _features(self, batch: SparseBatch, kept: tf.Tensor, nll: tf.Tensor) -> tf.Tensor:
        """The critic's inputs for B users before they are normalised, float32 [B, features]."""
        seen = tf.math.unsorted_segment_sum(tf.cast(kept, tf.float32), batch.segment_ids, tf.shape(nll)[0])
        values = {"seen": seen, "unseen": batch.lengths - seen, "nll": nll}
        return tf.stack([values[feature] for feature in self.critic_features], axis=1)

    def _observe(self, features: tf.Tensor) -> None:
        """Updates the running moments of the features: plain means at first, later exponential moving averages."""
        features = tf.stop_gradient(features)
        sums = (tf.reduce_sum(features, 0), tf.reduce_sum(features**2, 0), tf.cast(tf.shape(features)[0], tf.float32))
        total, squares, n_users = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, sums)
        self.feature_updates.assign_add(1)
        step = tf.maximum(1.0 / tf.cast(self.feature_updates.value, tf.float32), 1.0 - MEMORY)
        self.feature_means.assign_add(step * (total / n_users - self.feature_means.value))
        self.feature_squares.assign_add(step * (squares / n_users - self.feature_squares.value))

    def _predicted(self, features: tf.Tensor) -> tf.Tensor:
        """The NDCG that the critic predicts for B users, float32 [B], in (0, 1)."""
        means, squares = self.feature_means.value, self.feature_squares.value
        variances = tf.maximum(squares - means**2, 0.0)
        hidden = (features - means) * tf.math.rsqrt(variances + 1e-3)
        for layer in self.critic:
            hidden = layer(hidden)
        return hidden[:, 0]
