"""EDLAE: EASE with dropout, which penalises each item in proportion to its number of users; in closed form.

Steck: Autoencoders that don't overfit towards the Identity, NeurIPS 2020, section 3, full rank. A linear autoencoder
gets X as its input, where each one is dropped with probability p (and the kept ones are divided by 1 − p), and has to
predict the dropped ones only. In expectation over the dropout its loss is

    min_B ‖X − XB‖² + ‖Λ^½ B‖²   subject to   diag(B) = 0,   Λ = λI + p / (1 − p) · diag(X'X),

which has the solution of EASE with another diagonal:

    P = (X'X + Λ)⁻¹,   B_ij = −P_ij / P_jj for i ≠ j.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import keras
import numpy as np
from pydantic import Field, PositiveFloat

from tfvae.models.ease import EASE

__all__ = ["EDLAE", "penalties"]


@keras.saving.register_keras_serializable(package="tfvae")
class EDLAE(EASE):
    """EDLAE of full rank (Steck 2020): EASE whose λ grows by p / (1 − p) times the item's number of users.

    Args:
        n_items: Width of the catalogue, I.
        regularization: λ, on the scale of a number of users; 300 on ML-20M, 500 on Netflix, 70 on MSD.
        dropout: p, the share of a history's items that is dropped: 0.33 on ML-20M and Netflix, 0.25 on MSD. With 0 the
            model is EASE.
        **kwargs: Settings of `EASE`.

    Raises:
        TooLargeError: If B alone does not fit in memory.
        InputError: If λ is not positive, p is not in [0, 1) or `gram_precision` is unknown.
    """

    example_settings: ClassVar[dict[str, Any]] = {
        "regularization": 5.0,
        "dropout": 0.25,
        "gram_precision": "float64",
    }
    checkerboard_settings: ClassVar[dict[str, Any] | None] = {
        "regularization": 1.0,
    }

    def __init__(
        self,
        n_items: int,
        *,
        regularization: PositiveFloat = 300.0,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.33,
        **kwargs,
    ):
        super().__init__(n_items, regularization=regularization, **kwargs)
        self.dropout = dropout

    def penalty(self, item_counts: np.ndarray) -> np.ndarray:
        """The diagonal of Λ, float [n_items]."""
        return penalties(item_counts, self.regularization, self.dropout)


def penalties(item_counts: np.ndarray, regularization: float, dropout: float) -> np.ndarray:
    """The diagonal of Λ, float [n_items]: λ plus p / (1 − p) times each item's number of users, int [n_items]."""
    return regularization + dropout / (1 - dropout) * item_counts
