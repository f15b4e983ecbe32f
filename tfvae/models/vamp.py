"""Vamp: Mult-VAE whose prior is a mixture of its own posteriors.

Kim, Suh: Enhancing VAEs for Collaborative Filtering: Flexible Priors & Gating Mechanisms, RecSys 2019, section 4.1;
the prior is from Tomczak and Welling (VAE with a VampPrior, AISTATS 2018):

    p_λ(z) = 1/K Σ_k q_φ(z | u_k),   u_1 … u_K learnt user rows, the pseudo-inputs                      (eq. 4)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import keras

from tfvae.models.autoencoder import CHECKERBOARD, EXAMPLE
from tfvae.models.evcf import EVCF
from tfvae.models.fields import Width
from tfvae.models.gradient import Plan
from tfvae.nn.batches import SparseBatch
from tfvae.nn.item_layers import PseudoInputs
from tfvae.nn.mlp import Decoder
from tfvae.nn.noise import Noise
from tfvae.nn.priors import VampPrior

__all__ = ["Vamp", "WithVampPrior"]

USERS_PER_PSEUDO_INPUT = 10


class WithVampPrior(EVCF):
    """An EVCF model whose top code has a VampPrior.

    Args:
        n_items: Number of items, I.
        n_pseudo_inputs: K, the number of the prior's components; it should be far below the number of users.
        divergence: "sampled": KL(q ‖ p) has no closed form where p is a mixture.
        **kwargs: Settings of `EVCF`.
    """

    def __init__(
        self,
        n_items: int,
        *,
        n_pseudo_inputs: Width = 1000,
        divergence: Literal["sampled"] = "sampled",
        **kwargs,
    ):
        super().__init__(n_items, divergence=divergence, **kwargs)
        self.n_pseudo_inputs = n_pseudo_inputs
        self.pseudo_inputs = PseudoInputs(n_pseudo_inputs, n_items, self.seed, name="pseudo_inputs")

    @classmethod
    def adapted(cls, settings: Mapping[str, Any], plan: Plan) -> Iterator[tuple[str, Any, str]]:
        """Limits the pseudo-inputs to one for ten training users, and adapts what `EVCF.adapted` does."""
        most = max(1, plan.n_users // USERS_PER_PSEUDO_INPUT)
        fewer = min(settings["n_pseudo_inputs"], most)
        yield "n_pseudo_inputs", fewer, f", since there are {plan.n_users:,} training users."
        yield from super().adapted(settings, plan)

    def prior(self, batch: SparseBatch | None = None, noise: Noise | None = None) -> VampPrior:
        """The prior p_λ(z); in training the encoder's dropout acts on the pseudo-inputs, which are never normalised."""
        return VampPrior(*self.moments(self.encoder.encode_dense(self.pseudo_inputs.clipped(), noise)))


@keras.saving.register_keras_serializable(package="tfvae")
class Vamp(WithVampPrior):
    """Mult-VAE with a VampPrior, trained as EVCF's authors do; `gated=True` is "Vamp (Gated)".

    Args:
        n_items: Number of items, I.
        **kwargs: Settings of `WithVampPrior` and `EVCF`.
    """

    example_settings = EXAMPLE | {
        "hidden": [12, 10],
        "gated": True,
        "initializer": "glorot",
        "separate_heads": False,
        "log_variance_range": [-5.0, 2.0],
        "beta_cap": 0.1,
        "warmup_epochs": 3,
        "likelihood": "bernoulli",
        "n_pseudo_inputs": 7,
        "optimizer": "adam",
    }
    checkerboard_settings = CHECKERBOARD | {
        "hidden": [16],
        "beta_cap": 0.0,
        "learning_rate": 0.01,
        "n_pseudo_inputs": 4,
    }

    def __init__(self, n_items: int, **kwargs):
        super().__init__(n_items, **kwargs)
        self.decoder = Decoder(n_items, self.hidden[::-1], self.latent_dim, self.layers_config)
        self.built = True
