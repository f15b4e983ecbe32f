"""Autoencoders for large catalogues: a step whose cost is that of its users' items and of a sample of the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from tfvae.data.row_shards import RowShards, item_counts
from tfvae.models.autoencoder import Autoencoder
from tfvae.models.fields import CountFromZero
from tfvae.nn.batches import SparseBatch
from tfvae.nn.item_sampler import ItemSampler
from tfvae.nn.layer_config import LayerConfig
from tfvae.nn.likelihoods import likelihood
from tfvae.nn.noise import Noise
from tfvae.nn.sparse_ops import row_penalty
from tfvae.system.errors import InputError

__all__ = ["SAMPLED", "SampledAutoencoder"]

FLATTENED = 0.75
SAMPLED: dict[str, Any] = {"n_sampled": 30, "sampling": "uniform", "optimizer": "sparse-adam"}
"""Settings that the examples of the models here share; see `Recommender.example_settings`."""


class SampledAutoencoder(Autoencoder):
    """An autoencoder that may be trained on a sample of the items, to be inherited before its other bases.

    With `n_sampled` > 0 each step draws that many items, once for the whole batch, and estimates the likelihood from
    them and the users' own items (`ItemLikelihood.log_prob_sampled`). It then reads and changes no other rows of the
    tables that are as wide as the catalogue, if the optimiser is "sparse-adam". Weight decay acts on the rows of a step
    only; of several replicas each decays the rows that it needs itself, by its share of the users. Scores, validation
    and bounds on log p(x) are those of all items.

    Args:
        n_items: Number of items, I.
        n_sampled: Number of items drawn in each step; 0 takes the exact likelihood. 1,024 is a good number.
        sampling: How they are drawn: "popularity" is in proportion to (1 + the number of users who have the item)^¾,
            "uniform" is all alike.
        **kwargs: Arguments of `Autoencoder`.
    """

    mean_code: Callable[[SparseBatch], tf.Tensor]
    """From B users to the codes that are scored, [B, latent_dim]."""

    def __init__(
        self,
        n_items: int,
        *,
        n_sampled: CountFromZero = 0,
        sampling: Literal["popularity", "uniform"] = "popularity",
        **kwargs,
    ):
        super().__init__(n_items, **kwargs)
        self.n_sampled = n_sampled
        self.sampling = sampling
        self._sampler: ItemSampler | None = None

    @classmethod
    def updates_rows(cls, settings: Mapping[str, Any]) -> bool:
        """Whether a step changes only the rows that it needs, which it does if it samples items."""
        return settings["n_sampled"] > 0

    @classmethod
    def not_by_xla(cls, settings: Mapping[str, Any]) -> str | None:
        """Why XLA cannot compile a step; None if it can, without sampled items."""
        return super().not_by_xla(settings) if settings["n_sampled"] else None

    def drawn(self, batch: SparseBatch, noise: Noise) -> dict[str, tf.Tensor]:
        """See `GradientRecommender.drawn`: what the dropout of the first layer draws."""
        return self.encoder.first.drawn(batch, noise)

    def layer_config(self, *, gated: bool = False, initializer: str = "glorot") -> LayerConfig:
        """See `Autoencoder.layer_config`; if items are sampled, tables are read by rows."""
        return replace(super().layer_config(gated=gated, initializer=initializer), by_rows=self.n_sampled > 0)

    def attach(self, train: sp.csr_array | RowShards) -> None:
        """See `GradientRecommender.attach`; the popularity of the items is counted here."""
        super().attach(train)
        if self.n_sampled:
            counts = item_counts(train)
            weights = (1.0 + counts) ** FLATTENED if self.sampling == "popularity" else np.ones(self.n_items)
            self._sampler = ItemSampler(weights, self.n_sampled)

    def detach(self) -> None:
        """See `GradientRecommender.detach`."""
        super().detach()
        self._sampler = None

    @property
    def sampler(self) -> ItemSampler:
        """What draws the items of a step.

        Raises:
            InputError: If no training rows are attached.
        """
        if self._sampler is None:
            raise InputError(f"{self.name} has no training rows; tfvae.training.loop.prepare_to_fit attaches them.")
        return self._sampler

    def log_likelihood(self, code: tf.Tensor, batch: SparseBatch, noise: Noise | None = None) -> tf.Tensor:
        """Log p(x_u | z_u) of each user, float32 [B]; if items are sampled, an estimate of it.

        Args:
            code: Codes [B, latent_dim].
            batch: B users.
            noise: The random numbers that draw items; None for the exact value.
        """
        if noise is None or not self.n_sampled:
            return super().log_likelihood(code, batch)
        hidden = tf.cast(self.decoder.last_hidden(code), self.compute_dtype)
        own, others, log_weights = self.decoder.last.at_a_sample(batch, hidden, self.sampler.draw(noise))
        of_sample = likelihood(self.likelihood, others, c1=self.c1, c0=self.c0)
        return of_sample.log_prob_sampled(batch, own, log_weights)

    def block_input(self, batch: SparseBatch) -> tf.Tensor:
        """See `ScoresBlocks`: the input of the decoder's last layer."""
        return self.decoder.last_hidden(self.mean_code(batch))

    def scores_of_block(self, code: tf.Tensor, start: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
        """See `ScoresBlocks`."""
        return self.decoder.last.of_block(code, start, stop)

    def row_decay(self, batch: SparseBatch, noise: Noise) -> tf.Tensor | float:
        """λ·Σ‖w‖² over the rows w of the first and the last layer that this step needs; 0 if these have regularisers.

        Args:
            batch: B users.
            noise: The random numbers that draw the items.
        """
        if not (self.n_sampled and self.weight_decay):
            return 0.0
        sampled = self.sampler.draw(noise).items
        first = row_penalty([self.encoder.first.kernel], batch.items)
        return self.weight_decay * (
            first + row_penalty([self.decoder.last.kernel], tf.concat([sampled, batch.items], axis=0))
        )
