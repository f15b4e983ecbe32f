"""The two-sided p-VAE: a partial VAE of users and one of items predict a rating together. It is ours, from no paper.

Two p-VAEs model the same ratings, one with the users as rows and one with the items as rows. Each is trained by its own
partial bound (`models/pvae.py`, equation 2). The prediction is a weighted mean of the two. The item side represents a
user by the vector that best predicts their ratings from the codes of the items that they rated:

    users:   z_u ~ N(0, I),   p(r_ui | z_u) = N(f_i(z_u), σ_U²),           q(z_u | r_u) = N(μ_u, diag s_u²)
    items:   z_i ~ N(0, I),   p(r_ui | z_i) = N(v_u · z_i + b_u, σ_I²),    q(z_i | r_i) = N(μ_i, diag s_i²)

    r̂_ui = w·(v_u · μ_i + b_u) + (1 - w)·f_i(μ_u)
    v_u, b_u = argmin Σ_{i ∈ u} E_q(z_i) (r_ui - v · z_i - b)² + λ‖v - v̄‖² + (b - b̄)²

The last line minimises the item side's bound as a function of one user's vector, with weight decay towards the mean
v̄, b̄ of the trained vectors instead of towards 0. The minimum has a closed form. So a prediction needs only the user's
ratings, and the user may be new. On held-out ratings of ML-1M that served for tuning, it is also better than a
prediction with the vectors that the item side was trained with. Since the decoders are linear, the mean prediction over
samples of the codes equals the prediction from the codes' means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import keras
import scipy.sparse as sp
import tensorflow as tf
from pydantic import NonNegativeFloat, PositiveFloat

from tfvae.models.checks import require_ratings
from tfvae.models.fields import Share, Weight, Width
from tfvae.models.gradient import GradientRecommender, Objective
from tfvae.models.pvae import PVAE
from tfvae.models.rating_model import RatingModel
from tfvae.nn.batches import HOST, RowStore, SparseBatch
from tfvae.nn.gaussian_ratings import GaussianRatings
from tfvae.nn.noise import Noise, derive_seed
from tfvae.system.errors import InputError

__all__ = ["TwoSidedPVAE"]

SIDES = USERS, ITEMS = "users", "items"
PARTS = "nll", "kl"
ITEMS_AT_ONCE = 500


class _Items(NamedTuple):
    """The training ratings as rows of items, and a graph that encodes the items with given numbers."""

    ratings: RowStore
    encode: Callable[[tf.Tensor], tf.Tensor]


@keras.saving.register_keras_serializable(package="tfvae")
class TwoSidedPVAE(RatingModel, GradientRecommender):
    """The two-sided p-VAE; most settings are pairs, with a value for the user side and one for the item side.

    An update takes a batch of users, and the same share of the items, so that an epoch passes once over both. Each side
    encodes the ratings without centring them, and has a linear decoder.

    Args:
        n_items: Width of the catalogue.
        n_users: Number of training users, which is the width of an item's row.
        weight: w, the weight of the item side's prediction.
        ridge: λ, in squared units of the ratings.
        hidden: Widths of the embeddings e_m, which are also the widths of the encoders' hidden layers.
        latent_dim: Lengths of z_u and z_i.
        variance: σ² of a rating, in squared units of the ratings.
        dropout: Shares of a row's ratings that the encoder does not see in training; the likelihood is of all ratings.
        weight_decay: Factors of Σ‖W‖², which is added to the bound of one row.
        **kwargs: `seed`, and the arguments of `keras.Model`.

    Attributes:
        user_side: The `PVAE` whose rows are users.
        item_side: The `PVAE` whose rows are items, trained with a vector for each training user.
        item_codes: float32 weight [n_items, 2 · latent_dim], the moments of q(z_i | r_i) given all training ratings of
            the items; renewed after each epoch.

    Raises:
        InputError: Without `n_users`.
    """

    example_settings: ClassVar[dict[str, Any]] = {
        "weight": 0.3,
        "ridge": 2.0,
        "hidden": [7, 6],
        "latent_dim": [5, 4],
        "variance": [0.5, 0.4],
        "dropout": [0.2, 0.3],
        "weight_decay": [0.001, 0.002],
    }

    has_user_weights = True
    training_defaults: ClassVar[dict[str, Any]] = {
        "epochs": 32,
        "batch_size": 250,
        "learning_rate": 2e-3,
        "final_learning_rate_factor": 0.1,
        "monitor": "rmse",
    }
    n_users: int
    loss_terms = tuple(f"{side}_{part}" for side in SIDES for part in PARTS)

    def __init__(
        self,
        n_items: int,
        n_users: int | None = None,
        *,
        weight: Weight = 0.6,
        ridge: PositiveFloat = 200.0,
        hidden: tuple[Width, Width] = (100, 500),
        latent_dim: tuple[Width, Width] = (100, 200),
        variance: tuple[PositiveFloat, PositiveFloat] = (0.2, 0.1),
        dropout: tuple[Share, Share] = (0.0, 0.0),
        weight_decay: tuple[NonNegativeFloat, NonNegativeFloat] = (0.02, 0.135),
        **kwargs,
    ):
        super().__init__(n_items, n_users, **kwargs)
        self.weight = weight
        self.ridge = ridge
        self.hidden = tuple(hidden)
        self.latent_dim = tuple(latent_dim)
        self.variance = tuple(variance)
        self.dropout = tuple(dropout)
        self.weight_decay = tuple(weight_decay)
        self.user_side, self.item_side = (
            PVAE(
                width,
                embedding_dim=self.hidden[side],
                latent_dim=self.latent_dim[side],
                decoder_hidden=(),
                center="none",
                variance=self.variance[side],
                dropout=self.dropout[side],
                weight_decay=self.weight_decay[side],
                seed=derive_seed(self.seed, name),
                dtype=self.dtype_policy,
                name=name,
            )
            for side, (name, width) in enumerate([(USERS, n_items), (ITEMS, self.n_users)])
        )
        self.item_codes = self.add_state("item_codes", shape=(n_items, 2 * self.latent_dim[1]))
        self._items: _Items | None = None
        self.built = True

    # ---- training -----------------------------------------------------------------------------------

    @property
    def objectives(self) -> dict[str, Objective]:
        """Each side has its own bound, variables and optimiser."""
        return {name: Objective(side.trainable_variables, name) for name, side in self._sides()}

    def _sides(self) -> list[tuple[str, PVAE]]:
        return [(USERS, self.user_side), (ITEMS, self.item_side)]

    def attach(self, train: sp.csr_array) -> None:
        """Gives both sides the ratings to learn from; an untrained model also starts from them, as `PVAE` does.

        Args:
            train: CSR [n_users, n_items] of ratings; a stored zero is a rating of zero.

        Raises:
            InputError: If it is of other users or items, has no ratings, or has some that are NaN or infinite.
        """
        require_ratings(self, train)
        super().attach(train)
        by_items = train.T.tocsr()
        if self.step.numpy() == 0:
            self.user_side.start_from(train)
            self.item_side.start_from(by_items)
        ratings = RowStore(by_items, with_values=True)
        encode = tf.function(
            lambda items: self.item_side.code(ratings.gather(items)), [tf.TensorSpec([None], tf.int64)], autograph=False
        )
        self._items = _Items(ratings, encode)

    def rate_in(self, unit: float) -> None:
        """See `RatingModel`; both sides have the same unit."""
        super().rate_in(unit)
        for _, side in self._sides():
            side.rate_in(unit)

    def detach(self) -> None:
        """See `GradientRecommender.detach`."""
        super().detach()
        self._items = None

    @property
    def items(self) -> _Items:
        """The training ratings as rows of items.

        Raises:
            InputError: If no training rows are attached.
        """
        if self._items is None:
            raise InputError(f"{self.name} has no training rows; tfvae.training.loop.prepare_to_fit attaches them.")
        return self._items

    def end_epoch(self) -> None:
        """Encodes all items again, in the same batches every time, so that a resumed run has the same bits."""
        items = tf.range(self.n_items, dtype=tf.int64)
        starts = range(0, self.n_items, ITEMS_AT_ONCE)
        codes = [self.items.encode(items[start : start + ITEMS_AT_ONCE]) for start in starts]
        self.item_codes.assign(tf.concat(codes, axis=0))

    def items_of_update(self, n_users: tf.Tensor) -> tf.Tensor:
        """The items of the next update: the same share of all items as its users are of all users, at least one item.

        Args:
            n_users: Number of users of the update, int64 scalar.

        Returns:
            int64 [n]. In each epoch, the updates take them from one permutation, which depends on seed and epoch only.
        """
        epoch, met = self.rows_seen.value // self.n_users, self.rows_seen.value % self.n_users
        key = tf.stack([tf.constant(derive_seed(self.seed, ITEMS), tf.int64), epoch])
        first, last = (users * self.n_items // self.n_users for users in (met, met + n_users))
        with tf.device(HOST):  # TensorFlow shuffles on a CPU only, and the items' rows are gathered there
            order = tf.random.experimental.stateless_shuffle(tf.range(self.n_items, dtype=tf.int64), seed=key)
            return order[first : tf.maximum(last, first + 1)]

    def objective(self, batch: SparseBatch, noise: Noise) -> dict[str, tf.Tensor]:
        """The two partial bounds, averaged over the batch's users and over the update's items."""
        # Each replica has its own users, but all items of the update; the gradients of the items are averaged.
        n_users = tf.distribute.get_replica_context().all_reduce(
            tf.distribute.ReduceOp.SUM, tf.size(batch.lengths, tf.int64)
        )
        items = self.items.ratings.gather(self.items_of_update(n_users))
        means = {
            USERS: self.user_side.objective(batch, noise),
            ITEMS: self.item_side.objective(items, Noise(self.item_side.seed, self.step.value)),
        }
        bounds = {side: means[side]["loss"] for side in SIDES}
        return bounds | {f"{side}_{part}": means[side][part] for side in SIDES for part in PARTS}

    # ---- prediction ---------------------------------------------------------------------------------

    def user_vectors(self, batch: SparseBatch) -> tf.Tensor:
        """b_u and v_u of B users, new or not, float32 [B, 1 + latent_dim]; an empty row gets the average b̄ and v̄.

        Since E (r - v · z - b)² = (r - v · μ - b)² + v' diag(s²) v, this is a ridge regression on the items' codes.
        """
        log_variances = self.item_codes.value[:, self.latent_dim[1] :]
        decoder = self.item_side.decoder
        average = tf.reduce_mean(tf.concat([decoder.bias.value[:, None], decoder.kernel.value], axis=1), axis=0)
        regressors = self._regressors()
        batch = self.standard(batch)
        likelihood = GaussianRatings.of(batch, regressors, tf.linalg.matvec(regressors, average), 1.0)
        spreads = tf.gather(tf.pad(tf.exp(log_variances), [[0, 0], [1, 0]]), batch.items)
        spreads = tf.math.unsorted_segment_sum(spreads, batch.segment_ids, tf.shape(batch.lengths)[0])
        penalties = tf.concat([[1.0], tf.fill([self.latent_dim[1]], self.ridge)], axis=0)
        systems = likelihood.precision + tf.linalg.diag(spreads + penalties)
        targets = likelihood.projection - spreads * average
        return average + tf.linalg.cholesky_solve(tf.linalg.cholesky(systems), targets[:, :, None])[:, :, 0]

    def _regressors(self) -> tf.Tensor:
        """The regressors 1 and μ_i of all items, float32 [n_items, 1 + latent_dim]."""
        means = self.item_codes.value[:, : self.latent_dim[1]]
        return tf.pad(means, [[0, 0], [1, 0]], constant_values=1.0)

    def item_vectors(self) -> tf.Tensor:
        """The items' codes μ_i, float32 [n_items, latent_dim]; see `HasItemVectors`."""
        return tf.convert_to_tensor(self.item_codes.value)[:, : self.latent_dim[1]]

    def scores(self, batch: SparseBatch) -> tf.Tensor:
        """The predicted ratings r̂, float32 [B, n_items], not clipped to the scale."""
        of_items = tf.matmul(self.user_vectors(batch), self._regressors(), transpose_b=True)
        return self.weight * self.rating_unit * of_items + (1 - self.weight) * self.user_side.scores(batch)
