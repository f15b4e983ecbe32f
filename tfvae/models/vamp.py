"""Vamp: Mult-VAE with a mixture of its own posteriors as prior.

Kim, Suh: Enhancing VAEs for Collaborative Filtering: Flexible Priors & Gating Mechanisms, RecSys 2019, section 4.1;
the prior is Tomczak's and Welling's (VAE with a VampPrior, AISTATS 2018):

    p_λ(z) = 1/K Σ_k q_φ(z | u_k),   u_1 … u_K learnt user rows, the pseudo-inputs                      (eq. 4)

Everything else is `MultVAE` in the settings of the authors' code, of which the paper says little: see DEVIATIONS.md.
"Mult-VAE (Gated)" needs no class: it is `MultVAE` with `gated=True`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import keras
from pydantic import NonNegativeFloat, PositiveInt

from tfvae.models.multvae import MultVAE
from tfvae.nn.batches import SparseBatch
from tfvae.nn.item_layers import PseudoInputs
from tfvae.nn.noise import Noise
from tfvae.nn.priors import VampPrior

__all__ = ["Vamp"]


@keras.saving.register_keras_serializable(package="tfvae")
class Vamp(MultVAE):
    """Mult-VAE with a VampPrior, trained as EVCF's authors do.

    Args:
        n_items: Width of the catalogue, I.
        n_pseudo_inputs: K, components of the prior; it should be far below the number of users.
        initializer: "he", as in the authors' code.
        separate_heads: True, as there.
        log_variance_range: (-12, 4), as there.
        divergence: Without effect here, since a mixture has no closed form; `HVamp` has one for z_1.
        beta_cap: The authors' `max_beta`; 1 unless the data ask for less (0.3 for Netflix).
        anneal_by: "epochs", as in the authors' code.
        **kwargs: `hidden`, `gated`, `likelihood`, `warmup_epochs` and all others of `MultVAE`.
    """

    training_defaults: ClassVar[dict[str, Any]] = {
        "epochs": 400,
        "batch_size": 200,
        "optimizer": "normalized-adam",
        "learning_rate": 5e-4,
        "patience": 50,
    }

    def __init__(
        self,
        n_items: int,
        *,
        n_pseudo_inputs: PositiveInt = 1000,
        initializer: Literal["glorot", "he", "fan-in"] = "he",
        separate_heads: bool = True,
        log_variance_range: tuple[float, float] | None = (-12.0, 4.0),
        divergence: Literal["analytic", "sampled"] = "sampled",
        beta_cap: NonNegativeFloat = 1.0,
        anneal_by: Literal["updates", "visits", "epochs"] = "epochs",
        **kwargs,
    ):
        super().__init__(
            n_items,
            initializer=initializer,
            separate_heads=separate_heads,
            log_variance_range=log_variance_range,
            divergence=divergence,
            beta_cap=beta_cap,
            anneal_by=anneal_by,
            **kwargs,
        )
        self.n_pseudo_inputs = n_pseudo_inputs
        self.pseudo_inputs = PseudoInputs(n_pseudo_inputs, n_items, self.seed, name="pseudo_inputs")

    def prior(self, batch: SparseBatch | None = None, noise: Noise | None = None) -> VampPrior:
        """p_λ(z): pseudo-inputs go through the encoder's dropout in training, but are never normalised."""
        return VampPrior(*self.moments(self.encoder.encode_dense(self.pseudo_inputs.clipped(), noise)))
