"""RaCT: Mult-VAE whose last epochs are trained by a critic that has learnt to predict the ranking metric.

Lobel, Li, Gao, Carin: RaCT: Toward Amortized Ranking-Critical Training for Collaborative Filtering, ICLR 2020. NDCG
has no useful gradient. A small network, the critic, learns to predict it from what does have one:

    ŷ_u = critic(number of items shown, number of items withheld, -log p(x_u | z_u))

It is trained in three phases: the actor by Mult-VAE's objective; the critic to predict NDCG@100 of the withheld items;
then the actor to raise ŷ, while the critic goes on learning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import keras
import tensorflow as tf
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from tfvae.models.base import Objective
from tfvae.models.multvae import MultVAE, Width
from tfvae.nn.batches import SparseBatch
from tfvae.nn.layer_config import LayerConfig
from tfvae.nn.likelihoods import likelihood
from tfvae.nn.mlp import hidden_stack, output_layer
from tfvae.nn.noise import Noise
from tfvae.nn.priors import sample_with
from tfvae.nn.ranking import ndcg_of_unseen
from tfvae.system.errors import InputError

__all__ = ["RaCT"]

ACTOR, CRITIC, ACTOR_CRITIC = "actor", "critic", "actor-critic"
MEMORY = 0.999  # of the running moments, per update
Feature = Literal["seen", "unseen", "nll"]


@keras.saving.register_keras_serializable(package="tfvae")
class RaCT(MultVAE):
    """Mult-VAE as the actor, and its critic.

    The phases follow each other within one training run: `actor_epochs`, `critic_epochs`, and the rest of the run's
    epochs for both. The critic starts from the actor's best epoch on validation users.

    Args:
        n_items: Width of the catalogue, I.
        actor_epochs: Epochs of the first phase.
        critic_epochs: Epochs of the second.
        critic_learning_rate: In the second and third phase.
        fine_tuning_rate: The actor's learning rate in the third.
        critic_hidden: Widths of the critic's hidden layers.
        critic_features: What the critic sees: "seen" and "unseen", the numbers of items kept and dropped by the
            encoder's dropout, and "nll" of the whole history. Without "nll" it could teach the actor nothing.
        critic_weight_decay: λ of λ·Σ‖W‖² over the critic's kernels; 1e-4 per user of the batch of 500.
        normalize_features: Whether what the critic sees is centred and scaled by running moments of the first phase,
            as the paper says. The authors' code has a layer for that, but never moves its moments.
        cutoff: k of the NDCG@k that is predicted.
        separate_heads: True, as in the authors' code.
        **kwargs: Of `MultVAE`.

    Raises:
        InputError: When the critic does not see "nll".
    """

    loss_terms = ("nll", "kl", "ndcg", "predicted_ndcg", "critic_error")

    def __init__(
        self,
        n_items: int,
        *,
        actor_epochs: PositiveInt = 100,
        critic_epochs: PositiveInt = 50,
        critic_learning_rate: PositiveFloat = 1e-4,
        fine_tuning_rate: PositiveFloat = 2e-6,
        critic_hidden: Sequence[Width] = (100, 100, 10),
        critic_features: Sequence[Feature] = ("seen", "unseen", "nll"),
        critic_weight_decay: NonNegativeFloat = 1e-4 / 500,
        normalize_features: bool = False,
        cutoff: PositiveInt = 100,
        separate_heads: bool = True,
        **kwargs,
    ):
        super().__init__(n_items, separate_heads=separate_heads, **kwargs)
        if "nll" not in critic_features:
            raise InputError(f'critic_features are {list(critic_features)}; the critic needs "nll" to have a gradient.')
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
        layer_config = LayerConfig("relu", weight_decay=critic_weight_decay, seed=self.seed, dtype="float32")
        widths = [len(self.critic_features), *self.critic_hidden]
        self.critic = [
            *hidden_stack(widths[0], self.critic_hidden, layer_config, "critic"),
            output_layer(widths[-1], 1, layer_config.for_output("sigmoid"), "critic_output"),
        ]

    # ---- the schedule -------------------------------------------------------------------------------

    @property
    def objectives(self) -> dict[str, Objective]:
        """The actor's and the critic's; in the third phase the actor has another optimiser and another loss."""
        actor = [*self.encoder.trainable_variables, *self.decoder.trainable_variables]
        critic = [variable for layer in self.critic for variable in layer.trainable_variables]
        return {
            ACTOR: Objective(actor),
            CRITIC: Objective(critic, "critic_error", self.critic_learning_rate),
            ACTOR_CRITIC: Objective(actor, "shortfall", self.fine_tuning_rate),
        }

    def phase_of(self, epoch: int) -> tuple[str, ...]:
        """Actor; critic; both."""
        if epoch < self.actor_epochs:
            return (ACTOR,)
        return (CRITIC,) if epoch < self.patient_from else (ACTOR_CRITIC, CRITIC)

    @property
    def patient_from(self) -> int:
        """The third phase: patience must not end a run before it."""
        return self.actor_epochs + self.critic_epochs

    def before_update(self) -> None:
        """Sets β in the first phase; the others have no KL, and keep the β of the epoch that the critic starts from."""
        if self.phase == (ACTOR,):
            super().before_update()

    def starts_from_best(self, epoch: int) -> bool:
        """The critic learns from the actor's best epoch, as in the authors' code."""
        return epoch == self.actor_epochs

    # ---- the objective ------------------------------------------------------------------------------

    def objective(self, batch: SparseBatch, noise: Noise) -> dict[str, tf.Tensor]:
        """Mult-VAE's loss in the first phase; then the critic's squared error, and 1 less the NDCG it predicts."""
        posterior = self.posterior(batch, noise)
        z = sample_with(noise, "z", posterior)
        logits = self.decoder(z)
        nll = -likelihood(self.likelihood, logits, c1=self.c1, c0=self.c0).log_prob_rows(batch)
        divergence = self.kl(posterior, self.prior(batch, noise), z)
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
        """What the critic sees of B users, float32 [B, features], as it is."""
        seen = tf.math.unsorted_segment_sum(tf.cast(kept, tf.float32), batch.segment_ids, tf.shape(nll)[0])
        values = {"seen": seen, "unseen": batch.lengths - seen, "nll": nll}
        return tf.stack([values[feature] for feature in self.critic_features], axis=1)

    def _observe(self, features: tf.Tensor) -> None:
        """Moves the running moments of the features: plain means at first, later those of the latest updates."""
        features = tf.stop_gradient(features)
        sums = (tf.reduce_sum(features, 0), tf.reduce_sum(features**2, 0), tf.cast(tf.shape(features)[0], tf.float32))
        total, squares, n_users = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, sums)
        self.feature_updates.assign_add(1)
        step = tf.maximum(1.0 / tf.cast(self.feature_updates.value, tf.float32), 1.0 - MEMORY)
        self.feature_means.assign_add(step * (total / n_users - self.feature_means.value))
        self.feature_squares.assign_add(step * (squares / n_users - self.feature_squares.value))

    def _predicted(self, features: tf.Tensor) -> tf.Tensor:
        """The NDCG the critic predicts for B users, float32 [B], in (0, 1)."""
        means, squares = self.feature_means.value, self.feature_squares.value
        variances = tf.maximum(squares - means**2, 0.0)
        hidden = (features - means) * tf.math.rsqrt(variances + 1e-3)
        for layer in self.critic:
            hidden = layer(hidden)
        return hidden[:, 0]
