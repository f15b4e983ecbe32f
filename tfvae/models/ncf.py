"""NCF: networks that score a pair of a user and an item from a learned vector of each: GMF, MLP and NeuMF.

He, Liao, Zhang, Nie, Hu, Chua: Neural Collaborative Filtering, WWW 2017, section 3:

    GMF:    φ = p_u ⊙ q_i                                                                        (eqs. 8 and 9)
    MLP:    φ = relu(W_L' … relu(W_1' [p_u; q_i] + b_1) … + b_L)                                        (eq. 10)
    NeuMF:  φ = [φ_GMF; φ_MLP], each part with vectors of its own                                       (eq. 12)
    ŷ_ui = σ(h'φ + b),    L = −Σ_{(u,i) seen} log ŷ_ui − Σ_{(u,j) drawn} log(1 − ŷ_uj)                   (eq. 7)

An epoch meets each pair of a user and one of their items once, in a random order of its own. With each such pair it
draws some negatives, items that the user does not have. So a batch consists of pairs, not of users as elsewhere in
tfvae.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, cast

import keras
import scipy.sparse as sp
import tensorflow as tf
from pydantic import NonNegativeFloat, PositiveFloat

from tfvae.models.checks import require_users
from tfvae.models.fields import Count, CountFromZero, Share, Width
from tfvae.models.gradient import GradientRecommender, Objective
from tfvae.nn.batches import PairStore, SparseBatch
from tfvae.nn.layer_config import LayerConfig
from tfvae.nn.noise import Noise
from tfvae.nn.pair_layers import PairLogit, PairNetwork, Product, Tower
from tfvae.system.errors import InputError

__all__ = ["GMF", "MLP", "NeuMF"]

GMF_PART, MLP_PART, NEUMF = "gmf", "mlp", "neumf"


class Pairs(NamedTuple):
    """N pairs of a user and an item for one training step.

    Attributes:
        users: int64 [N], rows of the training matrix.
        items: int32 [N], columns of the training matrix.
        labels: float32 [N], 1 for seen items, 0 for negatives.
        weights: float32 [N], 0 for a negative that could not be drawn because the user has all items, otherwise 1.
    """

    users: tf.Tensor
    items: tf.Tensor
    labels: tf.Tensor
    weights: tf.Tensor

    def cross_entropy(self, logits: tf.Tensor) -> tf.Tensor:
        """Equation 7 as a mean over pairs: a scalar, given the logits [N]."""
        each = tf.nn.sigmoid_cross_entropy_with_logits(self.labels, logits)
        return tf.reduce_sum(self.weights * each) / tf.cast(tf.size(each), tf.float32)


class _NCF(GradientRecommender):
    """The base class of the three models.

    The model knows a user only as a row of the training matrix, so that it cannot score users it was not trained on.

    Args:
        n_items: Width of the catalogue, I.
        n_users: Number of training users.
        factors: f, the width of φ; in NeuMF, of the φ of each part. MLP's vectors have width 4f, its layers 4f, 2f, f.
        negatives: Number of negatives that are drawn for each seen item.
        weight_decay: λ of λ·Σ‖·‖² over tables and kernels, except the output layer's. It must be small, since it is
            added to a mean over pairs, and a batch has only a few pairs of each user.
        **kwargs: `seed`, and the arguments of `keras.Model`.

    Attributes:
        networks: One or two networks that map a pair to φ.
        head: The layer that maps all φ to the logit of ŷ.

    Raises:
        InputError: Without `n_users`.
    """

    training_defaults = {"batch_size": 512, "epochs": 20}
    rows_are = "interactions"
    n_users: int
    loss_terms: tuple[str, ...] = ("bce",)
    has_user_weights = True
    scores_new_users = False

    def __init__(
        self,
        n_items: int,
        n_users: int | None = None,
        *,
        factors: Width = 64,
        negatives: Count = 4,
        weight_decay: NonNegativeFloat = 0.0,
        **kwargs,
    ):
        super().__init__(n_items, n_users, **kwargs)
        self.factors = factors
        self.negatives = negatives
        self.weight_decay = weight_decay

    def make_part(self, kind: type[PairNetwork], name: str) -> PairNetwork:
        """A new network that maps pairs to φ."""
        layer_config = LayerConfig("relu", weight_decay=self.weight_decay, seed=self.seed, dtype=self.dtype_policy)
        return kind(self.n_users, self.n_items, self.factors, layer_config, name)

    def make_head(self, name: str) -> PairLogit:
        """A new output layer, for the φ of both parts if `name` is NeuMF's, otherwise for the φ of one part."""
        return PairLogit(self.factors * (2 if name == NEUMF else 1), self.seed, f"{name}_output")

    @classmethod
    def n_rows(cls, train: sp.csr_array) -> int:
        """Number of pairs that an epoch streams: one for each item of each user."""
        return train.nnz

    @classmethod
    def not_streamed(cls, settings: Mapping[str, Any]) -> str | None:
        """See `GradientRecommender`."""
        return "it learns from pairs of users and items, which are numbered in memory"

    def attach(self, train: sp.csr_array) -> None:
        """Gives the model the matrix whose stored entries `fit` will stream by number.

        Args:
            train: CSR [n_users, n_items].
        """
        self.stream(PairStore(train))

    @property
    def histories(self) -> PairStore:
        """The training pairs; raises the same errors as `GradientRecommender.histories`."""
        return cast(PairStore, super().histories)  # `attach` stores nothing else

    def join(self, part: PairNetwork, users: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        """φ of N pairs, float32 [N, factors]; each distinct user's side and item's side is computed only once.

        Args:
            part: One of the networks.
            users: Row numbers of the users, int [N].
            items: Item columns, int32 [N].
        """
        (users, of_user), (items, of_item) = tf.unique(users), tf.unique(items)
        return part.join(tf.gather(part.of_users(users), of_user), tf.gather(part.of_items(items), of_item))

    def pair_logits(self, users: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        """The logits of ŷ for N pairs, float32 [N]; see `join` for the arguments."""
        return self.head([self.join(part, users, items) for part in self.networks])

    def objective(self, batch: SparseBatch, noise: Noise) -> dict[str, tf.Tensor]:
        """The cross-entropy of B seen pairs and of the negatives that are drawn for them."""
        pairs = self.pairs(batch, noise)
        bce = pairs.cross_entropy(self.pair_logits(pairs.users, pairs.items))
        return {"loss": bce, "bce": bce}

    def pairs(self, batch: SparseBatch, noise: Noise) -> Pairs:
        """The pairs that a step trains on: B seen pairs, and `negatives` pairs with a drawn item for each."""
        for_whom = tf.repeat(batch.users, self.negatives)
        drawn, some_unseen = self.histories.unseen(for_whom, noise.uniform(tf.shape(for_whom), "negatives"))
        weights = tf.cast(some_unseen, tf.float32)
        seen = tf.ones_like(batch.users, tf.float32)
        return Pairs(
            users=tf.concat([batch.users, for_whom], axis=0),
            items=tf.concat([batch.items, drawn], axis=0),
            labels=tf.concat([seen, tf.zeros_like(weights)], axis=0),
            weights=tf.concat([seen, weights], axis=0),
        )

    def item_vectors(self) -> tf.Tensor:
        """What the networks know of an item before it meets a user, side by side; see `HasItemVectors`.

        GMF has the vectors q_i, float32 [n_items, factors]. MLP has the items' part of what its first layer is given,
        float32 [n_items, 4 · factors]. NeuMF has both.
        """
        items = tf.range(self.n_items)
        return tf.concat([tf.cast(part.of_items(items), tf.float32) for part in self.networks], axis=1)

    def scores(self, batch: SparseBatch) -> tf.Tensor:
        """The logits of ŷ for all items, float32 [B, n_items].

        They are computed user by user, since all users at once would need an array [B, n_items, 4f].

        Raises:
            InputError: If the batch has no row numbers of users.
        """
        users = require_users(self, batch)
        of_items = [part.of_items(tf.range(self.n_items)) for part in self.networks]
        of_users = [part.of_users(users) for part in self.networks]

        def of_one(sides: list[tf.Tensor]) -> tf.Tensor:
            joined = zip(self.networks, sides, of_items, strict=True)
            return self.head([part.join(side[None], items) for part, side, items in joined])

        return tf.map_fn(of_one, of_users, fn_output_signature=tf.TensorSpec([self.n_items], tf.float32))

    def scores_at(self, batch: SparseBatch, places: tf.Tensor) -> tf.Tensor:
        """The logits of ŷ for these pairs alone, float32 [n]; raises the same errors as `scores`."""
        return self.pair_logits(tf.gather(require_users(self, batch), places[:, 0]), places[:, 1])


@keras.saving.register_keras_serializable(package="tfvae")
class GMF(_NCF):
    """Generalised matrix factorisation: the element-wise product of a user's and an item's vector, with weights.

    Args:
        n_items: Width of the catalogue, I.
        n_users: Number of training users.
        **kwargs: `factors`, `negatives`, `weight_decay`, `seed`, and the arguments of `keras.Model`.
    """

    example_settings: ClassVar[dict[str, Any]] = {
        "factors": 4,
        "negatives": 3,
        "weight_decay": 0.0001,
        "batch_size": 20,
        "learning_rate": 0.02,
    }
    checkerboard_settings: ClassVar[dict[str, Any] | None] = {
        "factors": 4,
        "batch_size": 4,
        "learning_rate": 0.01,
        "epochs": 10,
    }

    def __init__(self, n_items: int, n_users: int | None = None, **kwargs):
        super().__init__(n_items, n_users, **kwargs)
        self.networks = [self.make_part(Product, GMF_PART)]
        self.head = self.make_head(GMF_PART)
        self.built = True


@keras.saving.register_keras_serializable(package="tfvae")
class MLP(_NCF):
    """A multilayer perceptron on the concatenation of a user's and an item's vector.

    Args:
        n_items: Width of the catalogue, I.
        n_users: Number of training users.
        **kwargs: `factors`, `negatives`, `weight_decay`, `seed`, and the arguments of `keras.Model`.
    """

    example_settings: ClassVar[dict[str, Any]] = {
        "factors": 4,
        "negatives": 3,
        "weight_decay": 0.0001,
        "batch_size": 20,
        "learning_rate": 0.02,
    }
    checkerboard_settings: ClassVar[dict[str, Any] | None] = {
        "factors": 8,
        "batch_size": 4,
        "learning_rate": 0.01,
        "epochs": 20,
    }

    def __init__(self, n_items: int, n_users: int | None = None, **kwargs):
        super().__init__(n_items, n_users, **kwargs)
        self.networks = [self.make_part(Tower, MLP_PART)]
        self.head = self.make_head(MLP_PART)
        self.built = True


@keras.saving.register_keras_serializable(package="tfvae")
class NeuMF(_NCF):
    """GMF and MLP side by side, under one output layer.

    With pre-training (section 3.4.1) each part is first trained alone, with an output layer of its own. Then the two
    output layers are combined: α times GMF's kernel is concatenated with 1 − α times MLP's, and the biases are added
    with the same weights. From then on everything is trained together. The two parts share no weights, so that they
    are pre-trained in the same epochs. The model is not validated before the output layers are combined.

    Args:
        n_items: Width of the catalogue, I.
        n_users: Number of training users.
        gmf_epochs: Number of epochs in which GMF is trained alone; 0 for no pre-training.
        mlp_epochs: Number of epochs in which MLP is trained alone, also from the first epoch; 0 for no pre-training.
        mix: α, the weight of GMF's output layer.
        fine_tuning_rate: The learning rate after pre-training; without pre-training it has no effect.
        **kwargs: `factors`, `negatives`, `weight_decay`, `seed`, and the arguments of `keras.Model`.

    Raises:
        InputError: If only one of `gmf_epochs` and `mlp_epochs` is 0.
    """

    example_settings: ClassVar[dict[str, Any]] = {
        "factors": 4,
        "negatives": 3,
        "weight_decay": 0.0001,
        "gmf_epochs": 1,
        "mlp_epochs": 2,
        "mix": 0.4,
        "fine_tuning_rate": 0.01,
        "batch_size": 20,
        "learning_rate": 0.02,
    }
    checkerboard_settings: ClassVar[dict[str, Any] | None] = {
        "factors": 4,
        "batch_size": 4,
        "learning_rate": 0.01,
        "epochs": 10,
    }

    loss_terms = ("bce", "gmf_bce", "mlp_bce")

    def __init__(
        self,
        n_items: int,
        n_users: int | None = None,
        *,
        gmf_epochs: CountFromZero = 0,
        mlp_epochs: CountFromZero = 0,
        mix: Share = 0.5,
        fine_tuning_rate: PositiveFloat = 1e-3,
        **kwargs,
    ):
        super().__init__(n_items, n_users, **kwargs)
        if (gmf_epochs > 0) != (mlp_epochs > 0):
            raise InputError(
                f"gmf_epochs is {gmf_epochs} and mlp_epochs {mlp_epochs}; pre-train both parts, or neither."
            )
        self.gmf_epochs = gmf_epochs
        self.mlp_epochs = mlp_epochs
        self.mix = mix
        self.fine_tuning_rate = fine_tuning_rate
        self.networks = [self.make_part(Product, GMF_PART), self.make_part(Tower, MLP_PART)]
        self.head = self.make_head(NEUMF)
        self.heads_alone = [self.make_head(name) for name in (GMF_PART, MLP_PART)] if gmf_epochs else []
        self.built = True

    @property
    def pretraining_epochs(self) -> int:
        """Number of epochs before the two parts become one model."""
        return max(self.gmf_epochs, self.mlp_epochs)

    @property
    def objectives(self) -> dict[str, Objective]:
        """The objectives of the two parts alone, if there is pre-training, and the objective of the whole model."""
        alone = {
            name: Objective([*part.trainable_variables, *head.trainable_variables], f"{name}_bce")
            for name, part, head in zip((GMF_PART, MLP_PART), self.networks, self.heads_alone, strict=False)
        }
        layers: list[keras.layers.Layer] = [*self.networks, self.head]
        whole = [variable for layer in layers for variable in layer.trainable_variables]
        return alone | {NEUMF: Objective(whole, learning_rate=self.fine_tuning_rate if alone else None)}

    def phase_of(self, epoch: int) -> tuple[str, ...]:
        """The parts that the epoch pre-trains, and afterwards the whole model."""
        alone = {GMF_PART: self.gmf_epochs, MLP_PART: self.mlp_epochs}
        return tuple(name for name, epochs in alone.items() if epoch < epochs) or (NEUMF,)

    def round_ends(self, epoch: int) -> bool:
        """Whether pre-training is over; before that there is no whole model to validate."""
        return epoch >= self.pretraining_epochs

    @property
    def patient_from(self) -> int:
        """The end of pre-training."""
        return self.pretraining_epochs

    def begin_epoch(self, epoch: int) -> None:
        """Combines the output layers when pre-training is over; a run that is resumed there does so again."""
        if epoch == self.pretraining_epochs and self.heads_alone:
            gmf, mlp = self.heads_alone
            kernels = [self.mix * gmf.kernel.value, (1 - self.mix) * mlp.kernel.value]
            self.head.kernel.assign(tf.concat(kernels, axis=0))
            self.head.bias.assign(self.mix * gmf.bias.value + (1 - self.mix) * mlp.bias.value)
        super().begin_epoch(epoch)

    def objective(self, batch: SparseBatch, noise: Noise) -> dict[str, tf.Tensor]:
        """The cross-entropies of the networks that the phase trains, all on the same pairs."""
        if self.phase == (NEUMF,):
            return super().objective(batch, noise)
        pairs = self.pairs(batch, noise)
        return {
            f"{name}_bce": pairs.cross_entropy(head([self.join(part, pairs.users, pairs.items)]))
            for name, part, head in zip((GMF_PART, MLP_PART), self.networks, self.heads_alone, strict=True)
            if name in self.phase
        }
