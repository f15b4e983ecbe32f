"""MELD: a mixture of experts with likelihoods of different kinds, trained side by side and served as one model.

MELD is tfvae's own model. Its experts are autoencoders of the same user row x that differ in likelihood and encoder,
and therefore err for different users. Each expert k has its own likelihood p_k and answers with an expected value:

    linear        E_1[x] = x·B, diag(B) = 0                       square loss in closed form: EDLAE of low rank
    logistic      E_2[x] = σ(f_2(tanh(W_2 x̃ + b_2)))              logistic likelihood: a denoising autoencoder
    square        E_3[x] = tanh(f_3(tanh(W_3 x̃ + b_3)))           weighted square loss: CDAE without nodes
    variational   E_4[x] = softmax(f_4(z)), z ~ q(z | x̃)          multinomial likelihood: a VAE with RecVAE's encoder
    walk          E_5[x] = x·W, W of RP3β                         random walks of three steps, for sparse data

    L(x) = −log p_2(x | x̃) − log p_3(x | x̃) − E_q log p_4(x | z) + γ·|x|·KL(q(z | x̃) ‖ p(z))

where x̃ is x with items dropped, for each expert others. The scores are the mean over the experts of ±√|E_k[x]|, each
brought to mean 0 and standard deviation 1 over the catalogue. Expected values are averaged instead of logits, so that
an expert that is sure of an item is heard, and one that rules an item out does not silence the others. The root makes
the errors of large and of small values alike, as for counts (Bartlett 1936).

The table `meld` has what each part adds; `docs/meld.md` tells how it was found, on validation users.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import keras
import numpy as np
import scipy.sparse as sp
import tensorflow as tf
from pydantic import Field, NonNegativeFloat, PositiveFloat
from tensorflow_probability import distributions as tfd

from tfvae.models.checks import check_matrix
from tfvae.models.edlae import penalties
from tfvae.models.fields import Count, Share, Width
from tfvae.models.gradient import GradientRecommender, Objective
from tfvae.models.rp3beta import RP3Beta
from tfvae.nn.batches import SparseBatch
from tfvae.nn.item_layers import EmbeddingBag, ItemLogits
from tfvae.nn.layer_config import LayerConfig
from tfvae.nn.likelihoods import likelihood
from tfvae.nn.low_rank_map import LowRankMap
from tfvae.nn.mlp import Decoder, DenselyConnectedEncoder, Encoder
from tfvae.nn.noise import Noise
from tfvae.nn.priors import CompositePrior, kl, normal_of, sample_with, standard_normal
from tfvae.nn.ranking import standardized
from tfvae.system.errors import InputError

__all__ = ["MELD"]

Expert = Literal["linear", "logistic", "square", "variational", "walk"]
SIGNED = {"linear", "square"}
"""The experts whose expected values can be negative; the others' are probabilities, or sums of weights of walks."""


@keras.saving.register_keras_serializable(package="tfvae")
class MELD(GradientRecommender):
    """MELD: experts with likelihoods of different kinds, four by default, whose expected values are averaged.

    Args:
        n_items: Number of items, I.
        experts: The experts, at least one of them other than "walk".
        average_of: What is averaged over the experts: "roots" of expected values, the "expected" values themselves, or
            "scores", which are logits except those of the linear expert.
        latent_dim: Width of the three codes.
        dropout: Share of a history's items dropped in training.
        rank: Rank of the linear expert's map; at most I is used.
        regularization: λ of the linear expert, on the scale of a number of users.
        linear_dropout: p of the linear expert: its penalty grows by p / (1 − p) times an item's number of users.
        weight_decay: λ of λ·Σ‖W‖² of the logistic expert.
        square_weight_decay: The same of the square expert.
        confidence: Weight of the ones in the square loss; that of the zeros is 1.
        hidden: Widths of the variational expert's hidden layers, all equal.
        prior_type: "standard" is N(0, I); "composite" is RecVAE's mixture, whose old encoder is that of the epoch
            before.
        gamma: γ of the KL weight γ·|x|.
        walk_alpha: α of the walk expert, the exponent of its steps' probabilities.
        walk_beta: β of the walk expert, the exponent of an item's popularity, by which its value is divided.
        neighbors: Neighbours of an item that the walk expert keeps.
        other_learning_rate: Learning rate of the square and the variational expert, which need fewer epochs than the
            logistic one; None for the same, the training setting `learning_rate`.
        **kwargs: `seed`, and arguments of `keras.Model`.

    Example:
        >>> model = MELD(n_items=5, latent_dim=2, hidden=[8])
        >>> model([[1, 0, 0, 1, 0], [0, 0, 0, 0, 0]]).shape
        TensorShape([2, 5])
    """

    example_settings: ClassVar[dict[str, Any]] = {
        "experts": ["variational", "square", "linear", "walk"],
        "average_of": "scores",
        "latent_dim": 6,
        "dropout": 0.3,
        "rank": 8,
        "regularization": 5.0,
        "linear_dropout": 0.2,
        "weight_decay": 0.0001,
        "square_weight_decay": 0.001,
        "confidence": 2.0,
        "hidden": [12, 12],
        "prior_type": "composite",
        "gamma": 0.01,
        "walk_alpha": 0.7,
        "walk_beta": 0.5,
        "neighbors": 7,
        "other_learning_rate": 0.01,
        "learning_rate": 0.02,
    }
    checkerboard_settings: ClassVar[dict[str, Any] | None] = {
        "latent_dim": 4,
        "dropout": 0.2,
        "regularization": 1.0,
        "square_weight_decay": 0.0,
        "hidden": [16, 16],
        "gamma": 0.0,
        "other_learning_rate": 0.05,
        "learning_rate": 0.05,
        "epochs": 60,
    }
    training_defaults: ClassVar[dict[str, Any]] = {"epochs": 100}

    loss_terms = ("logistic", "square", "variational", "kl")

    def __init__(
        self,
        n_items: int,
        *,
        experts: Annotated[Sequence[Expert], Field(min_length=1)] = ("linear", "logistic", "square", "variational"),
        average_of: Literal["roots", "expected", "scores"] = "roots",
        latent_dim: Width = 200,
        dropout: Share = 0.5,
        rank: Count = 1000,
        regularization: PositiveFloat = 100.0,
        linear_dropout: Share = 0.33,
        weight_decay: NonNegativeFloat = 2e-5,
        square_weight_decay: NonNegativeFloat = 0.01,
        confidence: PositiveFloat = 5.0,
        hidden: Sequence[Width] = (600, 600, 600, 600, 600),
        prior_type: Literal["standard", "composite"] = "standard",
        gamma: NonNegativeFloat = 0.005,
        walk_alpha: NonNegativeFloat = 0.8,
        walk_beta: NonNegativeFloat = 0.4,
        neighbors: Count = 200,
        other_learning_rate: PositiveFloat | None = 0.0005,
        **kwargs,
    ):
        super().__init__(n_items, **kwargs)
        if len(set(experts)) < len(experts):
            raise InputError(f"experts are {list(experts)}; expected each at most once.")
        if set(experts) == {"walk"}:
            raise InputError(
                "experts are ['walk'], which has nothing to train; expected another too, or model rp3beta."
            )
        self.experts = tuple(experts)
        self.average_of = average_of
        self.latent_dim = latent_dim
        self.dropout = dropout
        self.rank = rank
        self.regularization = regularization
        self.linear_dropout = linear_dropout
        self.weight_decay = weight_decay
        self.square_weight_decay = square_weight_decay
        self.confidence = confidence
        self.hidden = tuple(hidden)
        self.prior_type = prior_type
        self.gamma = gamma
        self.walk_alpha = walk_alpha
        self.walk_beta = walk_beta
        self.neighbors = neighbors
        self.other_learning_rate = other_learning_rate
        for expert in self.experts:
            getattr(self, f"_build_{expert}")()
        self.built = True

    def _layer_config(self, activation: str, weight_decay: float = 0.0, initializer: str = "glorot") -> LayerConfig:
        return LayerConfig(activation, False, initializer, weight_decay, self.seed, self.dtype_policy)

    # ---- the experts --------------------------------------------------------------------------------

    def _build_linear(self) -> None:
        self.linear_map = LowRankMap(self.n_items, self.rank, name="linear_map")

    def _build_logistic(self) -> None:
        layers = self._layer_config("tanh", self.weight_decay)
        sizes = self.n_items, (), self.latent_dim, layers
        self.logistic_encoder = Encoder(*sizes, output_activation="tanh", dropout=self.dropout, name="logistic_encoder")
        self.logistic_decoder = Decoder(*sizes, name="logistic_decoder")

    def _build_square(self) -> None:
        layers = self._layer_config("tanh", self.square_weight_decay)
        sizes = self.n_items, self.latent_dim, layers
        self.square_encoder = EmbeddingBag(*sizes, dropout=self.dropout, normalize=False, name="square_encoder")
        self.square_decoder = ItemLogits(*sizes, name="square_decoder")

    def _build_variational(self) -> None:
        self.variational_encoder = self._new_encoder("variational_encoder")
        layers = self._layer_config("swish", initializer="fan-in")
        self.variational_decoder = Decoder(self.n_items, (), self.latent_dim, layers, name="variational_decoder")
        self.old_encoder = None
        if self.prior_type == "composite":
            self.old_encoder = self._new_encoder("old_encoder")
            self.old_encoder.trainable = False

    def _new_encoder(self, name: str) -> keras.layers.Layer:
        layers = self._layer_config("swish", initializer="fan-in")
        sizes = self.n_items, self.hidden, 2 * self.latent_dim, layers
        return DenselyConnectedEncoder(*sizes, dropout=self.dropout, epsilon=0.1, name=name)

    def _build_walk(self) -> None:
        alpha, beta = self.walk_alpha, self.walk_beta
        self.walk = RP3Beta(self.n_items, alpha=alpha, beta=beta, neighbors=self.neighbors, name="walk")

    @classmethod
    def not_streamed(cls, settings: Mapping[str, Any]) -> str | None:
        """See `GradientRecommender`."""
        solved = [expert for expert in ("linear", "walk") if expert in settings["experts"]]
        return f"its {solved[0]} expert is solved for from the whole matrix" if solved else None

    def attach(self, train: sp.csr_array) -> None:
        """See `GradientRecommender.attach`; the linear and the walk expert are solved for here, in closed form."""
        super().attach(train)
        if "linear" in self.experts:
            check_matrix(self, train)
            counts = np.bincount(train.indices, minlength=self.n_items)
            self.linear_map.fit(train, penalties(counts, self.regularization, self.linear_dropout), self.seed)
        if "walk" in self.experts:
            self.walk.fit_matrix(train, log=lambda line: None)

    @property
    def found_by_attach(self) -> Sequence[keras.Variable]:
        """The maps of the linear and of the walk expert; see `GradientRecommender`."""
        maps = {"linear": "linear_map", "walk": "walk"}
        return [weight for expert in self.experts if expert in maps for weight in getattr(self, maps[expert]).variables]

    def posterior(self, batch: SparseBatch, noise: Noise | None = None) -> tfd.Distribution:
        """The variational expert's posterior q(z | x) of B users; deterministic without `noise`."""
        return normal_of(self.variational_encoder(batch, noise=noise))

    def prior(self, batch: SparseBatch | None = None) -> tfd.Distribution:
        """The variational expert's prior p(z); the composite one is that of B users."""
        if self.old_encoder is None:
            return standard_normal(self.latent_dim)
        mean, log_variance = tf.split(self.old_encoder(batch), 2, axis=1)
        return CompositePrior(mean, log_variance, weights=(3 / 20, 3 / 4, 1 / 10))

    def begin_epoch(self, epoch: int) -> None:
        """See `GradientRecommender.begin_epoch`; the old encoder becomes a copy of the encoder."""
        super().begin_epoch(epoch)
        if "variational" in self.experts and self.old_encoder is not None and epoch > 0:
            for old, new in zip(self.old_encoder.variables, self.variational_encoder.variables, strict=True):
                old.assign(new)

    # ---- training -----------------------------------------------------------------------------------

    @property
    def objectives(self) -> dict[str, Objective]:
        """All experts lower L; the logistic one has an optimiser with a learning rate of its own."""
        logistic = [variable for variable in self.trainable_variables if "logistic" in variable.path]
        others = [variable for variable in self.trainable_variables if "logistic" not in variable.path]
        found = {"logistic": Objective(logistic), "others": Objective(others, learning_rate=self.other_learning_rate)}
        return {name: objective for name, objective in found.items() if objective.variables}

    def objective(self, batch: SparseBatch, noise: Noise) -> dict[str, tf.Tensor]:
        """L averaged over users: the sum of the negative log-likelihoods and of the weighted KL."""
        terms: dict[str, tf.Tensor] = {}
        if "logistic" in self.experts:
            logits = self.logistic_decoder(self.logistic_encoder(batch, noise=noise))
            terms["logistic"] = _nll("logistic", logits, batch)
        if "square" in self.experts:
            output = tf.tanh(self.square_decoder(self.square_encoder(batch, noise=noise)))
            terms["square"] = _nll("gaussian", output, batch, c1=self.confidence, c0=1.0)
        parts = list(terms.values())
        if "variational" in self.experts:
            posterior = self.posterior(batch, noise)
            z = sample_with(noise, "z", posterior)
            terms["variational"] = _nll("multinomial", self.variational_decoder(z), batch)
            divergence = kl(posterior, self.prior(batch), z, sampled=self.prior_type == "composite")
            terms["kl"] = tf.reduce_mean(divergence)
            parts += [terms["variational"], self.gamma * tf.reduce_mean(batch.lengths * divergence)]
        # Stacked, since the graph's optimiser adds up a chain of sums in an order that differs from trace to trace.
        loss = tf.reduce_sum(tf.stack(parts)) if parts else tf.constant(0.0)
        return {"loss": loss, **terms}

    # ---- the mixture --------------------------------------------------------------------------------

    def expert_scores(self, batch: SparseBatch) -> dict[str, tf.Tensor]:
        """What the experts expect of B users, or their scores if these are averaged, each float32 [B, n_items]."""
        expected = self.average_of != "scores"

        def logistic():
            logits = self.logistic_decoder(self.logistic_encoder(batch))
            return tf.sigmoid(logits) if expected else logits

        def square():
            output = self.square_decoder(self.square_encoder(batch))
            return tf.tanh(output) if expected else output

        def variational():
            logits = self.variational_decoder(self.posterior(batch).mean())
            return tf.nn.softmax(logits) if expected else logits

        known: dict[str, Callable[[], tf.Tensor]] = {
            "linear": lambda: self.linear_map(batch),
            "logistic": logistic,
            "square": square,
            "variational": variational,
            "walk": lambda: self.walk.scores(batch),
        }
        return {name: known[name]() for name in self.experts}

    def item_vectors(self) -> tf.Tensor:
        """The experts' vectors of each item, of length 1 each and side by side; see `HasItemVectors`.

        The cosine of two items is therefore the mean of the experts' cosines. An expert's vectors are the rows of its
        decoder, those of the linear expert the rows of its factors U; its map is never made dense. The walk expert has
        none.

        Returns:
            float32 [n_items, the sum of the experts' widths].
        """
        known: dict[str, Callable[[], keras.Variable]] = {
            "linear": lambda: self.linear_map.factors,
            "logistic": lambda: self.logistic_decoder.last.kernel,
            "square": lambda: self.square_decoder.kernel,
            "variational": lambda: self.variational_decoder.last.kernel,
        }
        vectors = [tf.convert_to_tensor(known[name]().value) for name in self.experts if name in known]
        return tf.concat([tf.math.l2_normalize(part, axis=1, epsilon=1e-30) for part in vectors], axis=1)

    def scores(self, batch: SparseBatch) -> tf.Tensor:
        """The mean of what is averaged, each expert's standardised over the catalogue, float32 [B, n_items]."""
        parts = self.expert_scores(batch)
        if self.average_of == "roots":
            parts = {name: _root(part, signed=name in SIGNED) for name, part in parts.items()}
        return tf.add_n([standardized(part) for part in parts.values()]) / len(parts)


def _root(values: tf.Tensor, *, signed: bool) -> tf.Tensor:
    """±√|values|; those that are not `signed` are not negative, which saves three times as many operations."""
    return tf.sign(values) * tf.sqrt(tf.abs(values)) if signed else tf.sqrt(values)


def _nll(kind: str, output: tf.Tensor, batch: SparseBatch, **confidences: float) -> tf.Tensor:
    return -tf.reduce_mean(likelihood(kind, output, **confidences).log_prob_rows(batch))
