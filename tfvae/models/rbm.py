"""The restricted Boltzmann machine for ratings.

Salakhutdinov, Mnih, Hinton: Restricted Boltzmann Machines for Collaborative Filtering, ICML 2007, section 2. Each row
has a machine of its own, whose visible units are its observed ratings only: softmax units over the K levels of the
scale. All machines share their weights. For each of them, with p(v, h) ∝ exp(-E(v, h)):

    E(v, h) = - Σ_i b_i(v_i) - Σ_j c_j h_j - Σ_ij W_ij(v_i) (h_j - ½)
    p(v_i = k | h) = softmax_k(b_i(k) + Σ_j W_ij(k) (h_j - ½))                                         (eq. 1)
    p(h_j = 1 | v) = σ(a_j),   a_j = c_j + Σ_i W_ij(v_i)                                               (eq. 2)
    F(v) = -log Σ_h exp(-E(v, h)) = - Σ_i b_i(v_i) - Σ_j (softplus(a_j) - ½ (a_j - c_j))

The ½ is not in the paper. The model is the same with other biases: b_i(k) is the paper's bias plus ½ Σ_j W_ij(k). But
the gradients of the weights then depend on the hidden units' deviations from ½ (Montavon and Müller, Deep Boltzmann
Machines and the Centering Trick, 2012). Without the ½, all hidden units of an untrained machine learn the same.

Contrastive divergence (section 2.2) lowers F at the data and raises it at the end of a short Gibbs chain that starts at
the data.
"""

from __future__ import annotations

from typing import Any, ClassVar

import keras
import numpy as np
import scipy.sparse as sp
import tensorflow as tf
from pydantic import NonNegativeFloat

from tfvae.models.fields import Count, CountFromZero, Width
from tfvae.models.gradient import GradientRecommender
from tfvae.models.rating_model import RatingModel
from tfvae.nn.batches import SparseBatch
from tfvae.nn.item_layers import WeightedEmbeddingBag
from tfvae.nn.layer_config import LayerConfig
from tfvae.nn.noise import Noise
from tfvae.system.errors import InputError

__all__ = ["RBM"]

CENTER = 0.5  # of the hidden units


@keras.saving.register_keras_serializable(package="tfvae")
class RBM(RatingModel, GradientRecommender):
    """A machine of binary hidden units and softmax ratings, trained by contrastive divergence.

    A rating is predicted by its expectation given the hidden units' probabilities, as the paper's section 2.3 does
    for many ratings at once. A rating between two levels counts as the nearer one.

    Args:
        n_items: Width of a row, I: the items, or the users where rows are items.
        units: Number of hidden units.
        n_levels: K, at least the number of different ratings in the training rows; 10 for half stars.
        steps: Steps of the Gibbs chain before epoch `later_from`.
        later_steps: Steps of the chain from epoch `later_from` on.
        later_from: An epoch, counted from 0.
        weight_decay: Factor of Σ W², which is added to the loss of one row; biases are not penalised.
        **kwargs: `seed`, and the arguments of `keras.Model`.

    Attributes:
        levels: float32 weight [n_levels], the distinct ratings in ascending order; if there are fewer, the highest one
            is repeated.
        hidden_field: The layer that computes a_j; row i·K + k of its kernel is W_i(k).
        visible_bias: float32 weight [I·K], which has b_i(k) at i·K + k.
    """

    example_settings: ClassVar[dict[str, Any]] = {
        "units": 6,
        "n_levels": 6,
        "steps": 2,
        "later_steps": 1,
        "later_from": 1,
        "weight_decay": 0.0001,
    }

    training_defaults = {"epochs": 28}
    loss_terms = ("error",)

    def __init__(
        self,
        n_items: int,
        *,
        units: Width = 500,
        n_levels: Count = 5,
        steps: Count = 1,
        later_steps: Count = 3,
        later_from: CountFromZero = 50,
        weight_decay: NonNegativeFloat = 3e-3,
        **kwargs,
    ):
        super().__init__(n_items, **kwargs)
        self.units = units
        self.n_levels = n_levels
        self.steps = steps
        self.later_steps = later_steps
        self.later_from = later_from
        self.weight_decay = weight_decay
        self.levels = self.add_state("levels", shape=(n_levels,))
        # Half precision would gain nothing in a chain of binary states, and is too coarse for the free energies of many
        # ratings.
        layer_config = LayerConfig("linear", weight_decay=weight_decay, seed=self.seed, dtype="float32")
        self.hidden_field = WeightedEmbeddingBag(n_items * n_levels, units, layer_config, name="hidden_field")
        self.visible_bias = self.add_weight(
            name="visible_bias", shape=(n_items * n_levels,), initializer="zeros", dtype="float32", autocast=False
        )
        self.built = True

    def attach(self, train: sp.csr_array) -> None:
        """Gives the model the ratings to learn from; an untrained model takes levels and visible biases from them.

        The visible biases start as the logarithms of the levels' frequencies in each column. One rating, spread over
        the levels by their overall frequencies, is added to each column, so that a column without ratings has these.

        Args:
            train: CSR [n_rows, n_items] of ratings.

        Raises:
            InputError: If there are no ratings, one is NaN or infinite, there are more than `n_levels` different ones,
                or a model that has been trained meets a rating that is not among its levels.
        """
        levels = np.unique(train.data)
        if not levels.size or not np.isfinite(levels).all():
            raise InputError("the training rows of an RBM need ratings, all of them finite numbers.")
        if self.step.numpy() > 0:
            unknown = np.setdiff1d(levels, self.levels.numpy())
            if unknown.size:
                raise InputError(f"this RBM was trained on the ratings {self.levels.numpy()}, not {unknown}.")
        elif levels.size > self.n_levels:
            raise InputError(
                f"there are {levels.size} different ratings, from {levels[0]:g} to {levels[-1]:g}, but the RBM has "
                f"{self.n_levels} levels; give n_levels={levels.size}, or round the ratings."
            )
        else:
            self.levels.assign(np.pad(levels, (0, self.n_levels - levels.size), mode="edge"))
            self.visible_bias.assign(self._log_frequencies(train, np.searchsorted(levels, train.data)))
        super().attach(train)

    def _log_frequencies(self, train: sp.csr_array, levels: np.ndarray) -> np.ndarray:
        overall = np.bincount(levels, minlength=self.n_levels) + 1.0
        cells = train.indices.astype(np.int64) * self.n_levels + levels
        counts = np.bincount(cells, minlength=self.n_items * self.n_levels).reshape(self.n_items, self.n_levels)
        counts = counts + overall / overall.sum()
        return np.log(counts / counts.sum(axis=1, keepdims=True)).ravel()

    def visibles(self, batch: SparseBatch) -> SparseBatch:
        """The visible units that are on: item i with level k becomes the `items` entry i·K + k, with the value 1."""
        distances = tf.abs(batch.ratings[:, None] - tf.convert_to_tensor(self.levels.value))
        return self._switched_on(batch, tf.argmin(distances, axis=1))

    def _switched_on(self, batch: SparseBatch, levels: tf.Tensor) -> SparseBatch:
        units = batch.items * self.n_levels + tf.cast(levels, tf.int32)
        return batch._replace(items=units, values=tf.ones_like(units, tf.float32))

    def free_energy(self, visibles: SparseBatch) -> tf.Tensor:
        """The free energy F(v) of B rows, given the visible units that are on, float32 [B]."""
        biases = tf.gather(tf.convert_to_tensor(self.visible_bias.value), visibles.items)
        of_visibles = tf.math.unsorted_segment_sum(biases, visibles.segment_ids, tf.shape(visibles.lengths)[0])
        field = self.hidden_field(visibles)
        of_weights = CENTER * (field - tf.convert_to_tensor(self.hidden_field.bias.value))
        return -of_visibles - tf.reduce_sum(tf.nn.softplus(field) - of_weights, axis=1)

    def logits(self, hidden: tf.Tensor, batch: SparseBatch | None = None) -> tf.Tensor:
        """The logits b_i(k) + Σ_j W_ij(k) (h_j - ½); p(v | h) is their softmax over the last axis.

        Args:
            hidden: float32 [B, units], states or probabilities of the hidden units.
            batch: B rows, to get the logits at their items only; None for all items.

        Returns:
            float32 [B, n_items, n_levels], or [nnz, n_levels] in the order of `batch.items`.
        """
        products = tf.matmul(hidden - CENTER, tf.convert_to_tensor(self.hidden_field.kernel.value), transpose_b=True)
        products = tf.reshape(products, [-1, self.n_items, self.n_levels])
        biases = tf.reshape(self.visible_bias.value, [self.n_items, self.n_levels])
        if batch is None:
            return products + biases
        return tf.gather_nd(products, tf.stack([batch.segment_ids, batch.items], axis=1)) + tf.gather(
            biases, batch.items
        )

    def expectation(self, logits: tf.Tensor) -> tf.Tensor:
        """The mean rating under logits [..., n_levels]."""
        return tf.linalg.matvec(tf.nn.softmax(logits), self.levels.value)

    def chain(self, batch: SparseBatch, steps: int, noise: Noise) -> tuple[SparseBatch, tf.Tensor]:
        """Block Gibbs sampling from the observed ratings: it draws the hidden units, then the ratings, in turn.

        Args:
            batch: B rows of ratings.
            steps: Number of times that the ratings are drawn.
            noise: The random numbers.

        Returns:
            The visible units that are on at the end, and the logits [nnz, n_levels] that they were drawn from.
        """
        visibles, logits = self.visibles(batch), None
        for step in range(steps):
            field = self.hidden_field(visibles)
            hidden = tf.cast(noise.uniform(tf.shape(field), f"hidden/{step}") < tf.sigmoid(field), tf.float32)
            logits = self.logits(hidden, batch)
            below = tf.cumsum(tf.nn.softmax(logits), axis=1)[:, :-1]
            passed = noise.uniform(tf.shape(below)[:1], f"visible/{step}")[:, None] > below
            visibles = self._switched_on(batch, tf.math.count_nonzero(passed, axis=1, dtype=tf.int32))
        return visibles, logits

    def objective(self, batch: SparseBatch, noise: Noise) -> dict[str, tf.Tensor]:
        """F(data) - F(end of the chain), averaged over rows.

        The end is treated as a constant, so that the gradient is that of contrastive divergence: the difference between
        ∂F at the data and ∂F at the end.
        """
        early = self.rows_seen.value // self.histories.n_rows < self.later_from
        end, logits = tf.cond(
            early, lambda: self.chain(batch, self.steps, noise), lambda: self.chain(batch, self.later_steps, noise)
        )
        # Both ends of the chain go through one product, since its gradient is as large as the kernel.
        start, (n_rows,) = self.visibles(batch), tf.unstack(tf.shape(batch.lengths))
        both = SparseBatch(
            items=tf.concat([start.items, tf.stop_gradient(end.items)], axis=0),
            segment_ids=tf.concat([start.segment_ids, end.segment_ids + n_rows], axis=0),
            lengths=tf.tile(batch.lengths, [2]),
            values=tf.tile(start.values, [2]),
        )
        at_start, at_end = tf.split(self.free_energy(both), 2)
        divergence = tf.reduce_mean(at_start - at_end)
        errors = tf.stop_gradient(self.expectation(logits)) - batch.values
        return {"loss": divergence, "error": tf.nn.l2_loss(errors) / tf.cast(n_rows, tf.float32)}

    def scores(self, batch: SparseBatch) -> tf.Tensor:
        """Expected ratings given the probabilities of the hidden units, float32 [B, n_items]."""
        return self.expectation(self.logits(tf.sigmoid(self.hidden_field(self.visibles(batch)))))
