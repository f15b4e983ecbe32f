"""AutoRec: an autoencoder of ratings.

Sedhain, Menon, Sanner, Xie: AutoRec: Autoencoders Meet Collaborative Filtering, WWW 2015, section 2:

    h(r; θ) = f(W · g(V r + μ) + b)                                                                    (eq. 1)
    min_θ Σ_i ‖r_i - h(r_i; θ)‖²_O + λ/2 · (‖W‖² + ‖V‖²)                                               (eq. 2)

with g the sigmoid, f the identity, zeros for missing ratings in the input, and ‖·‖²_O over the observed ones only. A
row is a user (U-AutoRec) or, with the matrix transposed, an item (I-AutoRec); the model does not know which.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import keras
import numpy as np
import scipy.sparse as sp
import tensorflow as tf
from pydantic import NonNegativeFloat

from tfvae.models.fields import Activation, Share, Width
from tfvae.models.gradient import GradientRecommender
from tfvae.models.rating_model import RatingModel
from tfvae.nn.batches import SparseBatch, column_means
from tfvae.nn.item_layers import ItemLogits, WeightedEmbeddingBag
from tfvae.nn.layer_config import LayerConfig
from tfvae.nn.noise import Noise

__all__ = ["AutoRec"]


@keras.saving.register_keras_serializable(package="tfvae")
class AutoRec(RatingModel, GradientRecommender):
    """AutoRec with one hidden layer.

    The authors train on all rows at once with L-BFGS or RProp. Here Adam trains on batches of rows, which is faster.

    Example:
        >>> import tensorflow as tf
        >>> from scipy.sparse import csr_array
        >>> from tfvae.models.autorec import AutoRec
        >>> from tfvae.nn.batches import RowStore
        >>> ratings = csr_array([[5.0, 4.0, 0.0], [4.0, 0.0, 1.0], [0.0, 5.0, 2.0]])
        >>> model = AutoRec(3, units=2)
        >>> model.attach(ratings)
        >>> model.scores(RowStore(ratings, with_values=True).gather(tf.constant([0, 2]))).shape
        TensorShape([2, 3])

    Args:
        n_items: Width of a row: the items, or the users where rows are items.
        units: Width of the hidden layer.
        activation: g, the activation of the hidden layer; the outputs are linear.
        initializer: Initialiser of the layers; see `LayerConfig`.
        dropout: Share of the ratings dropped from the input in training; none in the paper.
        center: Whether the input holds deviations from the columns' means instead of ratings; not in the paper.
        weight_decay: Factor of ‖W‖² + ‖V‖², which is added to half the squared errors of one row. The objective of the
            authors' code is half of all squared errors + λ/2 · (‖W‖² + ‖V‖²); its λ corresponds to
            `weight_decay` = λ / 2 divided by the number of rows.
        **kwargs: `seed`, and the arguments of `keras.Model`.

    Attributes:
        means: float32 weight [n_items], the means that are subtracted from the input; 0 without `center`.
    """

    example_settings: ClassVar[dict[str, Any]] = {
        "units": 6,
        "activation": "tanh",
        "initializer": "he",
        "dropout": 0.3,
        "center": True,
        "weight_decay": 0.001,
    }

    training_defaults = {"epochs": 22, "monitor": "rmse"}
    loss_terms = ("error",)

    def __init__(
        self,
        n_items: int,
        *,
        units: Width = 500,
        activation: Activation = "sigmoid",
        initializer: Literal["glorot", "he", "fan-in"] = "glorot",
        dropout: Share = 0.0,
        center: bool = False,
        weight_decay: NonNegativeFloat = 0.0135,
        **kwargs,
    ):
        super().__init__(n_items, **kwargs)
        self.units = units
        self.activation = activation
        self.initializer = initializer
        self.dropout = dropout
        self.center = center
        self.weight_decay = weight_decay
        layer_config = LayerConfig(activation, False, initializer, weight_decay, self.seed, self.dtype_policy)
        self.encoder = WeightedEmbeddingBag(n_items, units, layer_config, dropout=dropout, name="encoder")
        self.decoder = ItemLogits(n_items, units, layer_config.for_output(), name="decoder")
        self.means = self.add_state("means", shape=(n_items,))
        self.built = True

    def attach(self, train: sp.csr_array) -> None:
        """Gives the model the ratings to learn from; an untrained model takes the columns' means as output biases.

        From zero, Adam would need thousands of updates to reach these means, since one update moves a weight by about
        the learning rate at most.

        Args:
            train: CSR [n_rows, n_items] of ratings; a stored zero is a rating of zero.
        """
        super().attach(train)
        if self.step.numpy() == 0:
            means = column_means(self.standard_matrix(train))
            self.decoder.bias.assign(means)
            self.means.assign(means if self.center else np.zeros_like(means))

    def code(self, batch: SparseBatch, noise: Noise | None = None) -> tf.Tensor:
        """g(V r + μ) of B rows, [B, units]; deterministic without `noise`."""
        batch = self.standard(batch)
        if self.center:
            batch = batch._replace(values=batch.values - tf.gather(self.means.value, batch.items))
        return self.encoder(batch, noise=noise)

    def objective(self, batch: SparseBatch, noise: Noise) -> dict[str, tf.Tensor]:
        """Half the squared errors of the predicted ratings, summed over a row's ratings and averaged over rows."""
        errors = self.decoder.at_the_items_of(batch, self.code(batch, noise)) - self.standard(batch).values
        error = tf.nn.l2_loss(errors) / tf.cast(tf.shape(batch.lengths)[0], tf.float32)
        return {"loss": error, "error": error}

    def item_vectors(self) -> tf.Tensor:
        """The rows of W, float32 [n_items, units]; see `HasItemVectors`."""
        return tf.convert_to_tensor(self.decoder.kernel.value)

    def scores(self, batch: SparseBatch) -> tf.Tensor:
        """h(r; θ): predicted ratings, float32 [B, n_items], not clipped to the scale."""
        return self.rating_unit * self.decoder(self.code(batch))
