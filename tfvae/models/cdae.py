"""CDAE: a denoising autoencoder of user rows with a weight vector, called a node, for each training user.

Wu, DuBois, Zheng, Ester: Collaborative Denoising Auto-Encoders for Top-N Recommender Systems, WSDM 2016, section 3.2,
in the form that Mult-VAE (Liang et al., WWW 2018, section 4.3) has in its tables: tanh at the bottleneck and at the
output, a weighted square loss in place of one with sampled zeros, batches of users, Adam, weight decay:

    z_u = tanh(W'x̃_u + V_u + b),   x̂_u = tanh(W''z_u + b'')                                    (eqs. 9 and 10)
    L = mean_u ½ Σ_i c_ui (x_ui − x̂_ui)² + λ(‖W‖² + ‖V‖² + ‖W''‖²),   c_ui = c1 where x_ui = 1, else c0

A user who was not in training has no node. Mult-VAE does not say how it scored such users; see `user_node`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import keras
import tensorflow as tf
from pydantic import NonNegativeFloat, PositiveFloat

from tfvae.models.fields import Count, Share, Width
from tfvae.models.gradient import GradientRecommender
from tfvae.nn.batches import SparseBatch
from tfvae.nn.item_layers import EmbeddingBag, ItemLogits
from tfvae.nn.layer_config import LayerConfig
from tfvae.nn.likelihoods import likelihood
from tfvae.nn.noise import Noise

__all__ = ["CDAE"]

FIRST_STEP = 0.01  # of the fit of a node; a step that lowers the loss doubles the next one, any other quarters it


@keras.saving.register_keras_serializable(package="tfvae")
class CDAE(GradientRecommender):
    """CDAE: Mult-DAE with a node for each training user, and the square loss.

    The nodes of training users serve in training only: equal histories get equal scores, whichever user they belong to.

    Args:
        n_items: Width of the catalogue, I.
        n_users: Number of training users.
        latent_dim: Width of the bottleneck, K.
        dropout: Share of a history's items dropped in training.
        normalize: Whether a row is scaled to length one before the dropout, as in Mult-VAE; otherwise it has zeros and
            ones.
        c1: Confidence of the ones.
        c0: Confidence of the zeros.
        weight_decay: λ of λ·Σ‖·‖² over the kernels and the nodes, biases excluded.
        user_node: What replaces V_u in scoring: "none" is zero; "mean" is the mean of the training users' nodes;
            "fitted" is a node that lowers the history's own part of L, found by gradient descent from zero.
        node_steps: Steps of that descent; each costs as much as a step of training.
        **kwargs: `seed`, and the arguments of `keras.Model`.

    Attributes:
        nodes: V, float32 weight [n_users, latent_dim].

    Raises:
        InputError: Without `n_users`.
    """

    example_settings: ClassVar[dict[str, Any]] = {
        "latent_dim": 6,
        "dropout": 0.3,
        "normalize": True,
        "c1": 2.0,
        "c0": 0.5,
        "weight_decay": 0.001,
        "user_node": "fitted",
        "node_steps": 3,
        "learning_rate": 0.02,
    }
    checkerboard_settings: ClassVar[dict[str, Any] | None] = {
        "latent_dim": 4,
        "dropout": 0.2,
        "weight_decay": 0.0,
        "learning_rate": 0.02,
        "epochs": 60,
    }

    n_users: int
    loss_terms = ("nll",)
    has_user_weights = True

    def __init__(
        self,
        n_items: int,
        n_users: int | None = None,
        *,
        latent_dim: Width = 200,
        dropout: Share = 0.5,
        normalize: bool = False,
        c1: PositiveFloat = 5.0,
        c0: PositiveFloat = 1.0,
        weight_decay: NonNegativeFloat = 0.01,
        user_node: Literal["none", "mean", "fitted"] = "none",
        node_steps: Count = 10,
        **kwargs,
    ):
        super().__init__(n_items, n_users, **kwargs)
        self.latent_dim = latent_dim
        self.dropout = dropout
        self.normalize = normalize
        self.c1 = c1
        self.c0 = c0
        self.weight_decay = weight_decay
        self.user_node = user_node
        self.node_steps = node_steps

        # The layers are linear, since the node is added before the tanh.
        layer_config = LayerConfig("linear", weight_decay=weight_decay, seed=self.seed, dtype=self.dtype_policy)
        self.encoder = EmbeddingBag(
            n_items, latent_dim, layer_config, dropout=dropout, normalize=normalize, name="encoder"
        )
        node = layer_config.weights("nodes", fan_in=self.n_users)
        self.nodes = self.add_weight(
            name="nodes",
            shape=(n_users, latent_dim),
            initializer=node["kernel_initializer"],
            regularizer=node["kernel_regularizer"],
            autocast=False,
        )
        self.decoder = ItemLogits(n_items, latent_dim, layer_config, name="decoder")
        self.built = True

    def logits(self, hidden: tf.Tensor, nodes: tf.Tensor | float) -> tf.Tensor:
        """The output before its tanh, float32 [B, n_items].

        Args:
            hidden: W'x + b of B rows, float [B, latent_dim].
            nodes: V_u, float [B, latent_dim]; or one node for all users, [latent_dim] or a number.
        """
        return self.decoder(tf.tanh(hidden + tf.cast(nodes, hidden.dtype)))

    def log_likelihood(self, logits: tf.Tensor, batch: SparseBatch) -> tf.Tensor:
        """The negative of the weighted square loss of each user, float32 [B]."""
        return likelihood("gaussian", tf.tanh(logits), c1=self.c1, c0=self.c0).log_prob_rows(batch)

    def objective(self, batch: SparseBatch, noise: Noise) -> dict[str, tf.Tensor]:
        """The square loss of the whole row given the row after dropout and the user's node, averaged over users."""
        nodes = tf.gather(tf.convert_to_tensor(self.nodes.value), batch.users)
        nll = -tf.reduce_mean(self.log_likelihood(self.logits(self.encoder(batch, noise=noise), nodes), batch))
        return {"loss": nll, "nll": nll}

    def scores(self, batch: SparseBatch) -> tf.Tensor:
        """The output before its tanh, float32 [B, n_items], with the node that `user_node` names for every user.

        The tanh is left out, since its rounding would turn the largest outputs into ties. `batch.users` is not used,
        because for held-out users it holds row numbers of another matrix.
        """
        hidden = self.encoder(batch)
        if self.user_node == "fitted":
            return self.logits(hidden, self.fitted_nodes(batch)[0])
        nodes = tf.convert_to_tensor(self.nodes.value)
        return self.logits(hidden, tf.reduce_mean(nodes, axis=0) if self.user_node == "mean" else 0.0)

    def item_vectors(self) -> tf.Tensor:
        """The rows of the decoder, float32 [n_items, latent_dim]; see `HasItemVectors`."""
        return tf.convert_to_tensor(self.decoder.kernel.value)

    def expected(self, batch: SparseBatch) -> tf.Tensor:
        """The output x̂ of equation 10, float32 [B, n_items]."""
        return tf.tanh(self.scores(batch))

    def fitted_nodes(self, batch: SparseBatch) -> tuple[tf.Tensor, tf.Tensor]:
        """Nodes fitted to B histories, with all other weights fixed; no step raises a user's loss.

        In training, weight decay acts on every node in every update, but a user's own loss acts in one update of an
        epoch only. Therefore λ is multiplied by the number of training users here.

        Args:
            batch: The histories.

        Returns:
            The nodes, float32 [B, latent_dim], and each user's loss ½ Σ_i c_ui (x_ui − x̂_ui)² + n_users·λ‖V_u‖²
            before the first step and after each step, float32 [node_steps + 1, B].
        """
        hidden = self.encoder(batch)

        def slope(nodes):
            with tf.GradientTape() as tape:
                tape.watch(nodes)
                decay = self.n_users * self.weight_decay * tf.reduce_sum(nodes**2, axis=1)
                loss = decay - self.log_likelihood(self.logits(hidden, nodes), batch)
            return loss, tape.gradient(loss, nodes)

        nodes = tf.zeros([tf.shape(batch.lengths)[0], self.latent_dim])
        step = tf.fill([tf.shape(batch.lengths)[0], 1], FIRST_STEP)
        loss, gradient = slope(nodes)
        losses = [loss]
        for _ in range(self.node_steps):
            tried = nodes - step * gradient
            tried_loss, tried_gradient = slope(tried)
            better = tried_loss < loss
            loss = tf.where(better, tried_loss, loss)
            better = better[:, None]
            nodes, gradient = tf.where(better, tried, nodes), tf.where(better, tried_gradient, gradient)
            step *= tf.where(better, 2.0, 0.25)
            losses.append(loss)
        return nodes, tf.stack(losses)
