"""RecVAE: Mult-VAE with a deep encoder, a composite prior, one KL weight for each user, and alternating training.

Shenbin, Alekseev, Tutubalina, Malykh, Nikolenko: RecVAE: A New Variational Autoencoder for Top-N Recommendations with
Implicit Feedback, WSDM 2020. This module follows the slides of the paper and the authors' code:

    L(x_u) = E_q log Mult(x_u | π(z)) - γ·|x_u|·KL(q_φ(z | x_u) ‖ p(z | φ_old, x_u))                  (rescaling)
    p(z | φ_old, x) = α·N(z | 0, I) + (1 - α)·q_φ_old(z | x)                                   (composite prior)

In each round the encoder is first trained for three epochs, on histories with items dropped. Then a copy of it becomes
the old encoder φ_old of the prior. Then the decoder is trained for one epoch, on whole histories. Each of these parts
is a setting; with all of them switched off, `RecVAE` is Mult-VAE.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import keras
import scipy.sparse as sp
import tensorflow as tf
from pydantic import NonNegativeFloat, PositiveFloat
from tensorflow_probability import distributions as tfd

from tfvae.models.autoencoder import CHECKERBOARD, EXAMPLE, VariationalAutoencoder
from tfvae.models.fields import Activation, Count, CountFromZero, Initializer, Width
from tfvae.models.gradient import Objective, Plan
from tfvae.models.sampled import SAMPLED, SampledAutoencoder
from tfvae.nn.batches import SparseBatch, TrainingRows
from tfvae.nn.likelihoods import Multinomial
from tfvae.nn.mlp import Decoder, DenselyConnectedEncoder, Encoder
from tfvae.nn.noise import Noise
from tfvae.nn.priors import CompositePrior, kl, normal_of, sample_with
from tfvae.nn.schedules import Fixed, LinearRamp, Rescaled
from tfvae.system.errors import InputError

__all__ = ["RecVAE"]

ENCODER, DECODER = "encoder", "decoder"
USERS_AT_ONCE = 500
SHORT_HISTORIES = 30
DROPOUT_OF_SHORT, GAMMA_OF_SHORT = 0.7, 0.01


@keras.saving.register_keras_serializable(package="tfvae")
class RecVAE(SampledAutoencoder, VariationalAutoencoder):
    """RecVAE as in the authors' code.

    Args:
        n_items: Number of items, I.
        hidden: Widths of the encoder's hidden layers.
        encoder_type: "dense", in which each layer adds the outputs of all layers before it (`DenselyConnectedEncoder`),
            or "plain".
        layer_norm_epsilon: ε of the dense encoder's layer normalisation: 0.1 in the authors' code, 1e-5 in the notebook
            of their paper.
        decoder_hidden: Widths of the decoder's hidden layers; () makes a linear decoder of item embeddings and a bias.
        activation: Activation of the hidden layers.
        initializer: "fan-in", as in the authors' code; see `LayerConfig`.
        prior_type: "composite" is a mixture in each latent dimension separately, as in the authors' code;
            "joint-composite" is a mixture of whole vectors, as in the formula; "standard" is Mult-VAE's prior.
        prior_weights: Weights of N(0, I), of the old posterior and of the wide N(0, e¹⁰·I).
        kl_weight: The KL weight of a user: "rescaled" is γ times the number of their items; "annealed" is Mult-VAE's β;
            "fixed" is `beta_cap` from the start.
        gamma: γ; 0.005 on ML-20M, 0.0035 on Netflix, 0.01 on MSD.
        beta_cap: The largest KL weight; a rescaled KL weight has no cap.
        anneal_updates: Number of steps in which an annealed β would rise from 0 to 1.
        alternation: Numbers of epochs of the encoder and of the decoder in a round; () trains both in every epoch, and
            each epoch is a round.
        denoise_decoder: Whether items are also dropped while only the decoder is trained.
        divergence: "sampled" is the one-sample estimate of the KL, "analytic" is its closed form, which only the
            standard prior has.
        **kwargs: `latent_dim`, `dropout`, `likelihood`, `c1`, `c0`, `weight_decay`, `n_sampled` and `sampling` for
            large catalogues (see `SampledAutoencoder`), `seed`, and arguments of `keras.Model`.

    Raises:
        InputError: If `prior_weights` do not sum to 1, `alternation` is neither empty nor a pair, the dense encoder has
            no hidden layers or some of unequal width, or `divergence` is "analytic" and the prior is a mixture.
    """

    example_settings = (
        EXAMPLE
        | SAMPLED
        | {
            "hidden": [12, 12],
            "initializer": "he",
            "divergence": "analytic",
            "beta_cap": 0.1,
            "anneal_updates": 50,
            "encoder_type": "plain",
            "layer_norm_epsilon": 0.2,
            "decoder_hidden": [10],
            "prior_type": "standard",
            "prior_weights": [0.3, 0.5, 0.2],
            "kl_weight": "annealed",
            "gamma": 0.01,
            "alternation": [2, 1],
            "denoise_decoder": True,
        }
    )
    checkerboard_settings = CHECKERBOARD | {"hidden": [16, 16], "beta_cap": 0.0, "epochs": 80, "gamma": 0.0}

    training_defaults: ClassVar[dict[str, Any]] = {"epochs": 200, "batch_size": 500, "learning_rate": 5e-4}

    def __init__(
        self,
        n_items: int,
        *,
        hidden: Sequence[Width] = (600, 600, 600, 600, 600),
        encoder_type: Literal["dense", "plain"] = "dense",
        layer_norm_epsilon: PositiveFloat = 0.1,
        decoder_hidden: Sequence[Width] = (),
        activation: Activation = "swish",
        initializer: Initializer = "fan-in",
        prior_type: Literal["composite", "joint-composite", "standard"] = "composite",
        prior_weights: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (3 / 20, 3 / 4, 1 / 10),
        kl_weight: Literal["rescaled", "annealed", "fixed"] = "rescaled",
        gamma: NonNegativeFloat = 0.005,
        beta_cap: NonNegativeFloat = 0.2,
        anneal_updates: CountFromZero = 200_000,
        alternation: Sequence[Count] = (3, 1),
        denoise_decoder: bool = False,
        divergence: Literal["analytic", "sampled"] = "sampled",
        **kwargs,
    ):
        super().__init__(n_items, hidden=hidden, activation=activation, **kwargs)
        if not math.isclose(sum(prior_weights), 1.0, rel_tol=1e-6):
            raise InputError(f"prior_weights are {list(prior_weights)}; expected three shares that sum to 1.")
        if len(alternation) not in (0, 2):
            raise InputError(f"alternation is {list(alternation)}; expected epochs of encoder and decoder, or nothing.")
        if divergence == "analytic" and prior_type != "standard":
            raise InputError(
                f'divergence = "analytic": KL(q ‖ p) has no closed form where the prior is {prior_type}; expected '
                '"sampled", or prior_type="standard".'
            )
        self.encoder_type = encoder_type
        self.layer_norm_epsilon = layer_norm_epsilon
        self.decoder_hidden = tuple(decoder_hidden)
        self.initializer = initializer
        self.prior_type = prior_type
        self.prior_weights = tuple(prior_weights)
        self.kl_weight = kl_weight
        self.gamma = gamma
        self.beta_cap = beta_cap
        self.anneal_updates = anneal_updates
        self.alternation = tuple(alternation)
        self.denoise_decoder = denoise_decoder
        self.divergence = divergence
        self.schedule = {
            "rescaled": Rescaled(gamma),
            "annealed": LinearRamp(anneal_updates, cap=beta_cap),
            "fixed": Fixed(beta_cap),
        }[kl_weight]
        self.logged_weights = () if kl_weight == "rescaled" else ("beta",)
        self.encoder = self._new_encoder("encoder")
        self.decoder = Decoder(
            n_items, self.decoder_hidden, self.latent_dim, self.layer_config(initializer=initializer)
        )
        self.old_encoder = None
        if prior_type != "standard":
            self.old_encoder = self._new_encoder("old_encoder")
            self.old_encoder.trainable = False
        self._old_codes: _OldCodes | None = None
        self.built = True

    def _new_encoder(self, name: str) -> keras.layers.Layer:
        """A network from user rows to the moments of q(z | x); its name determines its random weights and dropout."""
        sizes = self.n_items, self.hidden, 2 * self.latent_dim
        layers = self.layer_config(initializer=self.initializer)
        if self.encoder_type == "dense":
            epsilon = self.layer_norm_epsilon
            return DenselyConnectedEncoder(*sizes, layers, dropout=self.dropout, epsilon=epsilon, name=name)
        return Encoder(*sizes, layers, dropout=self.dropout, name=name)

    @classmethod
    def kl_weight_cap(cls, settings: Mapping[str, Any]) -> str | None:
        """The setting that caps β, or None if β is not annealed."""
        return "beta_cap" if settings["kl_weight"] == "annealed" else None

    @classmethod
    def adapted(cls, settings: Mapping[str, Any], plan: Plan) -> Iterator[tuple[str, Any, str]]:
        """Shortens an annealing as Mult-VAE does, and regularises more if histories are short.

        The γ that gives the published values is the larger, the shorter histories are: 0.0035 on Netflix (123 items of
        a user on the mean), 0.005 on ML-20M (73), 0.01 on MSD (59). On still shorter ones the usual dropout is too
        little as well: on MovieTweetings (14) RecVAE overfits from its 30th epoch on.
        """
        if settings["kl_weight"] == "annealed":
            yield from super().adapted(settings, plan)
        if (length := plan.n_interactions / plan.n_users) < SHORT_HISTORIES:
            why = f", since training users have {length:.1f} items on the mean."
            yield "dropout", max(settings["dropout"], DROPOUT_OF_SHORT), why
            if settings["kl_weight"] == "rescaled":
                yield "gamma", max(settings["gamma"], GAMMA_OF_SHORT), why

    @classmethod
    def not_by_xla(cls, settings: Mapping[str, Any]) -> str | None:
        """Why XLA cannot compile a step: only the random numbers of one phase could be drawn before it."""
        return "it is trained in several phases"

    def posterior(self, batch: SparseBatch, noise: Noise | None = None) -> tfd.Distribution:
        """The posterior q(z | x) of B users."""
        return normal_of(self.encoder(batch, noise=noise))

    # ---- the prior ----------------------------------------------------------------------------------

    @property
    def has_one_prior(self) -> bool:
        """Whether p(z) is the same for all users, which is true of the standard prior only."""
        return self.prior_type == "standard"

    def prior(self, batch: SparseBatch | None = None, noise: Noise | None = None) -> tfd.Distribution:
        """The prior p(z | φ_old, x) of B users, from their whole histories; the standard prior needs no users.

        Raises:
            InputError: If the prior is composite and no users are given.
        """
        if self.old_encoder is None:
            return super().prior()
        if batch is None:
            raise InputError(
                "the composite prior of RecVAE is each user's own, so there is no p(z) without users; "
                'prior_type="standard" has one.'
            )
        return self._mixture(self.old_encoder(batch))

    def _mixture(self, old_code: tf.Tensor) -> tfd.Distribution:
        mean, log_variance = tf.split(old_code, 2, axis=1)
        return CompositePrior(mean, log_variance, self.prior_weights, joint=self.prior_type == "joint-composite")

    # ---- the schedule -------------------------------------------------------------------------------

    @property
    def objectives(self) -> dict[str, Objective]:
        """Encoder and decoder lower the same loss, each with an optimiser of its own."""
        return {
            ENCODER: Objective(self.encoder.trainable_variables),
            DECODER: Objective(self.decoder.trainable_variables),
        }

    def phase_of(self, epoch: int) -> tuple[str, ...]:
        """The encoder or the decoder, in turn; both if there is no alternation."""
        if not self.alternation:
            return ENCODER, DECODER
        return (ENCODER,) if self._epoch_of_round(epoch) < self.alternation[0] else (DECODER,)

    def round_ends(self, epoch: int) -> bool:
        """Whether this is the last epoch of its round."""
        return self._epoch_of_round(epoch + 1) == 0

    def _epoch_of_round(self, epoch: int) -> int:
        return epoch % sum(self.alternation or (1,))

    def attach(self, train: sp.csr_array) -> None:
        """See `GradientRecommender.attach`."""
        super().attach(train)
        self._old_codes = None

    def detach(self) -> None:
        """See `GradientRecommender.detach`."""
        super().detach()
        self._old_codes = None

    def begin_epoch(self, epoch: int) -> None:
        """Enters the epoch's phase; the old encoder becomes a copy of the encoder before the decoder's first epoch.

        That happens once in each round; without alternation, it happens before each epoch but the first.
        """
        super().begin_epoch(epoch)
        if self.old_encoder is None:
            return
        due = self._epoch_of_round(epoch) == self.alternation[0] if self.alternation else epoch > 0
        if due:
            for old, new in zip(self.old_encoder.variables, self.encoder.variables, strict=True):
                old.assign(new)
        if due or self._old_codes is None:
            self._old_codes = self._old_codes or _OldCodes(self.old_encoder, self.histories, 2 * self.latent_dim)
            self._old_codes.renew()

    # ---- the objective ------------------------------------------------------------------------------

    def log_likelihood(self, code: tf.Tensor, batch: SparseBatch, noise: Noise | None = None) -> tf.Tensor:
        """See the base class; the exact multinomial takes a faster form while only the encoder is trained."""
        if self.phase != (ENCODER,) or self.likelihood != "multinomial" or self.n_sampled:
            return super().log_likelihood(code, batch, noise)
        last, hidden = self.decoder.last, tf.cast(self.decoder.last_hidden(code), self.compute_dtype)
        return Multinomial(last(tf.stop_gradient(hidden))).log_prob_rows_of(hidden, last.kernel.value, batch)

    def objective(self, batch: SparseBatch, noise: Noise) -> dict[str, tf.Tensor]:
        """-L averaged over users, with one reparameterised sample of z."""
        old_code = None if self._old_codes is None else self._old_codes.of(batch.users)
        if ENCODER in self.phase or self.denoise_decoder:
            posterior = self.posterior(batch, noise)
        elif old_code is None:
            posterior = self.posterior(batch)
        else:  # while the decoder is trained, the old encoder and the encoder are the same
            posterior = normal_of(old_code)
        prior = self.prior(batch) if old_code is None else self._mixture(old_code)
        z = sample_with(noise, "z", posterior)
        nll = -tf.reduce_mean(self.log_likelihood(z, batch, noise))
        divergence = kl(posterior, prior, z, sampled=self.divergence == "sampled")
        loss = nll + tf.reduce_mean(self.schedule.of_users(self.beta.value, batch.lengths) * divergence)
        return {"loss": loss + self.row_decay(batch, noise), "nll": nll, "kl": tf.reduce_mean(divergence)}


class _OldCodes:
    """The old encoder's outputs for every training user's whole history, float32 [n_users, outputs].

    The old encoder changes once a round. So one pass over the users serves the prior in all epochs of the round. While
    the decoder is trained, the outputs also replace those of the encoder, which is equal to the old one then.

    Args:
        encoder: The old encoder.
        histories: The training rows.
        outputs: Width of the old encoder's output.
    """

    def __init__(self, encoder: keras.layers.Layer, histories: TrainingRows, outputs: int):
        self._n_users = histories.n_rows

        def encode(users: tf.Tensor) -> tf.Tensor:
            return tf.cast(encoder(histories.gather(users)), tf.float32)

        self._encode = tf.function(encode, [tf.TensorSpec([None], tf.int64)], autograph=False).get_concrete_function()
        # The codes are no weight of the model: they follow from the weights of the old encoder, which are saved.
        self._codes = tf.Variable(
            tf.zeros([self._n_users, outputs]),
            trainable=False,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )

    def renew(self) -> None:
        """Encodes all users again, in the same batches every time, so that a resumed run has the same bits."""
        users = tf.range(self._n_users, dtype=tf.int64)
        starts = range(0, self._n_users, USERS_AT_ONCE)
        self._codes.assign(tf.concat([self._encode(users[start : start + USERS_AT_ONCE]) for start in starts], axis=0))

    def of(self, users: tf.Tensor) -> tf.Tensor:
        """The codes of the users with these row numbers, [B, outputs]."""
        return tf.gather(self._codes, users)
