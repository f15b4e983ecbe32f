"""p-VAE: a variational autoencoder of the ratings that are observed, and of no others.

Ma, Gong, Hernández-Lobato, Koenigstein, Nowozin, Zhang: Partial VAE for Hybrid Recommender System, 2018:

    z ~ N(0, I),   p(r | z) = Π_m N(r_m | f_m(z), σ²)                                                    (eq. 1)
    L_p = E_q [log q(z | r_O) - log p(r_O | z) - log p(z)] = KL(q(z | r_O) ‖ p(z | r_O)) - log p(r_O)    (eq. 2)
    q(z | r_O) = N(μ, diag s²)(c),   c = NN_2(σ(Σ_{m ∈ O} NN_1(e_m · r_m)))                              (eq. 3, App. A)

A row is a user (U-p-VAE) or, with the matrix transposed, an item (I-p-VAE); the model does not know which. Two special
cases are rows of the paper's Table 1: without NN_1 the model is a VAE of zero-imputed ratings, and with a point
estimate in place of the posterior it is an autoencoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import keras
import numpy as np
import scipy.sparse as sp
import tensorflow as tf
from pydantic import NonNegativeFloat, PositiveFloat
from tensorflow_probability import distributions as tfd

from tfvae.data.splits import Split
from tfvae.models.fields import Activation, Share, Width
from tfvae.models.gradient import GradientRecommender
from tfvae.models.metadata import encode_metadata
from tfvae.models.rating_model import RatingModel
from tfvae.nn.batches import SparseBatch, column_means
from tfvae.nn.item_layers import ItemLogits
from tfvae.nn.layer_config import LayerConfig
from tfvae.nn.mlp import hidden_stack
from tfvae.nn.noise import Noise
from tfvae.nn.priors import diagonal_normal, kl, sample_with, standard_normal
from tfvae.nn.set_encoder import SetEncoder
from tfvae.nn.sparse_ops import row_penalty, rows_at
from tfvae.system.errors import InputError

__all__ = ["PVAE"]


@keras.saving.register_keras_serializable(package="tfvae")
class PVAE(RatingModel, GradientRecommender):
    """p-VAE. Whatever the paper leaves open is a setting here; the defaults suit rows of MovieLens-1M's users.

    Example:
        >>> import tensorflow as tf
        >>> from scipy.sparse import csr_array
        >>> from tfvae.models.pvae import PVAE
        >>> from tfvae.nn.batches import RowStore
        >>> ratings = csr_array([[5.0, 4.0, 0.0], [4.0, 0.0, 1.0], [0.0, 5.0, 2.0]])
        >>> model = PVAE(3, embedding_dim=2, latent_dim=2)
        >>> model.attach(ratings)
        >>> model.scores(RowStore(ratings, with_values=True).gather(tf.constant([0, 2]))).shape
        TensorShape([2, 3])

    Args:
        n_items: Width of a row: the items, or the users where rows are items.
        n_features: Width of the metadata of a column; `for_split` finds it.
        embedding_dim: Width of the learned part of e_m. Without NN_1 and metadata it is the width of the encoder's
            hidden layer, which the paper sets to 100 for users and 500 for items.
        element: Form of an element s_m: "product" is e_m · r_m, "concat" is [e_m, r_m].
        element_hidden: Widths of NN_1's layers; () makes a VAE of zero-imputed ratings.
        element_activation: Activation of NN_1's layers; None takes `activation`.
        pooling: How the elements are pooled, "sum" or "max".
        encoder_hidden: Widths of NN_2's hidden layers.
        latent_dim: Length of z, H.
        decoder_hidden: Widths of the decoder's hidden layers; with (), the ratings are a linear function of z.
        activation: Activation of the other hidden layers, and σ.
        initializer: Initialiser of the layers; see `LayerConfig`.
        center: What is subtracted from a rating before it is encoded: "none" is nothing, "mean" is the mean of all
            ratings, "columns" is the damped mean of its column.
        variance: σ² of a rating on the standard scale, whose range is 4 long; 0.02 on a scale from 0 to 1 is 0.32.
        beta: KL weight; it is 1 in the bound.
        stochastic: Whether there is a posterior. Without one, z = μ and the loss has no KL term; this gives the
            autoencoders of Table 1.
        sparse_updates: Whether a step reads, changes and decays only those rows of the tables as wide as a row that its
            ratings need, for wide ones; the optimiser is then "sparse-adam".
        dropout: Share of a row's ratings that the encoder does not see in training; the likelihood is of all ratings.
        weight_decay: λ of λ·Σ‖W‖², which is added to the bound of one row.
        metadata: Whether metadata of the columns (genres and year; gender, age and occupation) is part of e_m.
        **kwargs: `seed`, and the arguments of `keras.Model`.

    Attributes:
        centers: float32 weight [n_items], what is subtracted from the ratings of each column.
    """

    example_settings: ClassVar[dict[str, Any]] = {
        "embedding_dim": 7,
        "element": "concat",
        "element_hidden": [8],
        "element_activation": "relu",
        "pooling": "max",
        "encoder_hidden": [6],
        "latent_dim": 4,
        "decoder_hidden": [5],
        "activation": "tanh",
        "initializer": "he",
        "center": "columns",
        "variance": 0.5,
        "beta": 0.5,
        "stochastic": False,
        "sparse_updates": True,
        "optimizer": "sparse-adam",
        "dropout": 0.3,
        "weight_decay": 0.001,
        "metadata": True,
    }

    training_defaults = {
        "epochs": 60,
        "batch_size": 200,
        "learning_rate": 2e-3,
        "final_learning_rate_factor": 0.1,
        "monitor": "rmse",
    }
    loss_terms = ("nll", "kl")

    def __init__(
        self,
        n_items: int,
        n_features: int = 0,
        *,
        embedding_dim: Width = 100,
        element: Literal["product", "concat"] = "product",
        element_hidden: Sequence[Width] = (),
        element_activation: Activation | None = None,
        pooling: Literal["sum", "max"] = "sum",
        encoder_hidden: Sequence[Width] = (),
        latent_dim: Width = 100,
        decoder_hidden: Sequence[Width] = (),
        activation: Activation = "sigmoid",
        initializer: Literal["glorot", "he", "fan-in"] = "glorot",
        center: Literal["none", "mean", "columns"] = "none",
        variance: PositiveFloat = 0.2,
        beta: NonNegativeFloat = 1.0,
        stochastic: bool = True,
        sparse_updates: bool = False,
        dropout: Share = 0.0,
        weight_decay: NonNegativeFloat = 0.02,
        metadata: bool = False,
        **kwargs,
    ):
        super().__init__(n_items, **kwargs)
        self.n_features = n_features
        self.embedding_dim = embedding_dim
        self.element = element
        self.element_hidden = tuple(element_hidden)
        self.element_activation = element_activation
        self.pooling = pooling
        self.encoder_hidden = tuple(encoder_hidden)
        self.latent_dim = latent_dim
        self.decoder_hidden = tuple(decoder_hidden)
        self.activation = activation
        self.initializer = initializer
        self.center = center
        self.variance = variance
        self.beta = beta
        self.stochastic = stochastic
        self.sparse_updates = sparse_updates
        self.dropout = dropout
        self.weight_decay = weight_decay
        self.metadata = metadata
        layer_config = LayerConfig(
            activation, False, initializer, weight_decay, self.seed, self.dtype_policy, by_rows=sparse_updates
        )
        self.encoder = SetEncoder(
            n_items,
            embedding_dim,
            element,
            self.element_hidden,
            pooling,
            self.encoder_hidden,
            latent_dim * (1 + stochastic),
            layer_config,
            element_activation=element_activation,
            n_features=n_features,
            dropout=dropout,
        )
        self.hidden_layers = hidden_stack(latent_dim, self.decoder_hidden, layer_config, "decoder")
        self.decoder = ItemLogits(
            n_items, [latent_dim, *self.decoder_hidden][-1], layer_config.for_output(), name="ratings"
        )
        self.centers = self.add_state("centers", shape=(n_items,))
        self.built = True

    @classmethod
    def has_rating_posterior(cls, settings: Mapping[str, Any]) -> bool:
        """Whether there is a posterior over codes, which the setting `stochastic` says."""
        return settings["stochastic"]

    @classmethod
    def updates_rows(cls, settings: Mapping[str, Any]) -> bool:
        """See `GradientRecommender`; the setting `sparse_updates` says it."""
        return settings["sparse_updates"]

    @classmethod
    def not_warm_started(cls, settings: Mapping[str, Any]) -> str | None:
        """See `GradientRecommender`."""
        if not settings["metadata"]:
            return None
        return "its metadata are numbered by the categories that the data have; other data may number them otherwise"

    @classmethod
    def for_split(cls, split: Split, **settings) -> PVAE:
        """An untrained model for a split's columns, with their metadata if the setting `metadata` is true.

        The metadata are multiplied by the standard deviation of the initial learned embeddings; otherwise they would
        dominate these.
        """
        if not settings.get("metadata"):
            return super().for_split(split, **settings)
        features, _ = encode_metadata(split.item_features, split.n_items, split.titles)
        model = cls(split.n_items, features.shape[1], **settings)
        model.rate_as(split.scale)
        model.encoder.features.assign(features * np.std(model.encoder.embedding))
        return model

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return super().get_config() | {"n_features": self.n_features}

    def attach(self, train: sp.csr_array) -> None:
        """Gives the model the ratings to learn from; an untrained model also calls `start_from` with them.

        Args:
            train: CSR [n_rows, n_items] of ratings; a stored zero is a rating of zero.
        """
        super().attach(train)
        if self.step.numpy() == 0:
            self.start_from(train)

    def start_from(self, train: sp.csr_array) -> None:
        """Sets `centers` from the ratings, and sets the output biases to the columns' damped means."""
        train = self.standard_matrix(train)
        means = column_means(train)
        self.decoder.bias.assign(means)
        centers = {"none": 0.0, "mean": train.data.mean(dtype=float), "columns": means}[self.center]
        self.centers.assign(np.broadcast_to(centers, means.shape).astype(np.float32))

    def code(self, batch: SparseBatch, noise: Noise | None = None) -> tf.Tensor:
        """The encoder's output for the ratings of B rows: the moments of q(z | r_O), or z itself."""
        batch = self.standard(batch)
        if self.sparse_updates:
            values = batch.ratings - rows_at(self.centers, batch.items)
        else:
            values = batch.ratings - tf.gather(tf.convert_to_tensor(self.centers.value), batch.items)
        return tf.cast(self.encoder(batch._replace(values=values), noise=noise), tf.float32)

    def posterior(self, batch: SparseBatch, noise: Noise | None = None) -> tfd.Distribution:
        """The posterior q(z | r_O) of B rows."""
        return diagonal_normal(*tf.split(self.code(batch, noise), 2, axis=1))

    def prior(self) -> tfd.Distribution:
        """The prior p(z)."""
        return standard_normal(self.latent_dim)

    def hidden(self, z: tf.Tensor) -> tf.Tensor:
        """The decoder's last hidden layer, of which the predicted ratings are a linear function; z if it has none."""
        for layer in self.hidden_layers:
            z = layer(z)
        return z

    def log_likelihood(self, z: tf.Tensor, batch: SparseBatch) -> tf.Tensor:
        """Log p(r_O | z) of B rows on the standard scale: the sum over a row's ratings, float32 [B]."""
        of_ratings = tfd.Normal(self.decoder.at_the_items_of(batch, self.hidden(z)), self.variance**0.5)
        return tf.math.unsorted_segment_sum(
            of_ratings.log_prob(self.standard(batch).values), batch.segment_ids, tf.shape(batch.lengths)[0]
        )

    def objective(self, batch: SparseBatch, noise: Noise) -> dict[str, tf.Tensor]:
        """L_p with the KL weight `beta`, averaged over rows, from one sample of z; without posterior, the NLL."""
        if not self.stochastic:
            nll = -tf.reduce_mean(self.log_likelihood(self.code(batch, noise), batch))
            return {"loss": nll + self._row_decay(batch), "nll": nll}
        posterior = self.posterior(batch, noise)
        z = sample_with(noise, "z", posterior)
        nll = -tf.reduce_mean(self.log_likelihood(z, batch))
        divergence = tf.reduce_mean(kl(posterior, self.prior(), z))
        return {"loss": nll + self.beta * divergence + self._row_decay(batch), "nll": nll, "kl": divergence}

    def _row_decay(self, batch: SparseBatch) -> tf.Tensor | float:
        """λ·Σ‖w‖² over the rows w of the two tables that the batch needs; 0 if these have regularisers."""
        if not (self.sparse_updates and self.weight_decay):
            return 0.0
        return self.weight_decay * row_penalty([self.encoder.embedding, self.decoder.kernel], batch.items)

    def mean_code(self, batch: SparseBatch) -> tf.Tensor:
        """μ of B rows, float32 [B, latent_dim]."""
        return self.code(batch)[:, : self.latent_dim]

    def item_vectors(self) -> tf.Tensor:
        """The rows of the decoder's linear layer, float32 [n_items, width of its input]; see `HasItemVectors`."""
        return tf.convert_to_tensor(self.decoder.kernel.value)

    def scores(self, batch: SparseBatch) -> tf.Tensor:
        """f(μ): predicted ratings, float32 [B, n_items], not clipped to the scale."""
        return self.rating_unit * self.decoder(self.hidden(self.mean_code(batch)))

    def block_input(self, batch: SparseBatch) -> tf.Tensor:
        """See `ScoresBlocks`: the decoder's last hidden layer at μ."""
        return self.hidden(self.mean_code(batch))

    def scores_of_block(self, code: tf.Tensor, start: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
        """See `ScoresBlocks`."""
        return self.rating_unit * self.decoder.of_block(code, start, stop)

    @property
    def has_rating_sd(self) -> bool:
        """Whether there is a posterior over codes, whose spread becomes that of the ratings."""
        return self.stochastic

    def rating_sd(self, batch: SparseBatch, items: tf.Tensor | None = None, n_samples: int = 10) -> tf.Tensor:
        """The standard deviation of p(r | r_O) ≈ 1/S Σ_s N(r | f(z_s), σ²) with z_s ~ q(z | r_O), for each rating.

        It is √(σ² + the variance of f(z_s) over the samples). The samples are z_s = μ + s·ε_s with the same ε_s for all
        rows and calls, so that equal rows have equal results in every batch.

        Args:
            batch: The ratings of B rows.
            items: Numbers of the items, int32 [B, p]; None for all.
            n_samples: S, the number of samples.

        Returns:
            float32 [B, n_items], or [B, p] for chosen items, in units of the ratings, times `sd_factor`.

        Raises:
            InputError: If the model has no posterior.
        """
        if not self.stochastic:
            raise InputError("with stochastic=False p-VAE has no posterior, and knows no uncertainty of its ratings.")
        posterior = self.posterior(batch)
        mean, spread = posterior.mean(), posterior.stddev()
        epsilons = Noise(self.seed, tf.zeros([], tf.int64)).normal([n_samples, self.latent_dim], "rating_sd")
        sampled = [self.hidden(mean + spread * epsilon) for epsilon in tf.unstack(epsilons)]
        if items is None:
            variance = self._variance_of_all(self.hidden(mean), sampled)
        else:
            # f is linear in the hidden layer, so that the bias adds nothing to the variance.
            kernel = tf.gather(tf.convert_to_tensor(self.decoder.kernel), items)
            hidden = tf.cast(tf.stack(sampled, axis=1), kernel.dtype)
            variance = tf.math.reduce_variance(tf.matmul(kernel, hidden, transpose_b=True), axis=2)
        return self.sd_factor * self.rating_unit * tf.sqrt(self.variance + tf.maximum(variance, 0.0))

    def _variance_of_all(self, at_mean: tf.Tensor, sampled: list[tf.Tensor]) -> tf.Tensor:
        """The variance of all predictions over samples of the hidden layer, each [B, H], float32 [B, n_items].

        The samples are added up one at a time, so that no array [S, B, n_items] is made; sums of deviations from the
        prediction at μ lose few digits.
        """
        predicted = self.decoder(at_mean)
        total = squares = tf.zeros_like(predicted)
        for hidden in sampled:
            deviation = self.decoder(hidden) - predicted
            total, squares = total + deviation, squares + deviation**2
        return squares / len(sampled) - (total / len(sampled)) ** 2
