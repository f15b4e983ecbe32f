"""How the layers of a network are made: activation, gates, initialisers, weight decay."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import keras

from tfvae.nn.noise import derive_seed

__all__ = ["PLAIN", "LayerConfig"]


@dataclass(frozen=True)
class LayerConfig:
    """How all layers of a network are made.

    Attributes:
        activation: Activation of the hidden layers; a gated layer has none.
        gated: Whether hidden layers are gated linear units (EVCF, equation 7).
        initializer: "glorot" as in Mult-VAE's code: Glorot uniform kernels, biases from a truncated normal of sd
            0.001. "he" as in EVCF's code: kernels from N(0, 2 / fan_in), not truncated, biases from U(±1/√fan_in).
            "fan-in" as in RecVAE's code, the default of PyTorch: kernels and biases from U(±1/√fan_in).
        weight_decay: λ of λ·Σ kernel², which is added to the model's losses.
        seed: Seed of the initialisers; each layer also uses its name, so that no two layers draw the same numbers.
        dtype: A Keras dtype policy.
        by_rows: Whether a step reads only those rows of a table as wide as the catalogue that it needs, so that the
            table's gradient consists of slices. Such a table has no regulariser; see `row_penalty`.
    """

    activation: str = "linear"
    gated: bool = False
    initializer: str = "glorot"
    weight_decay: float = 0.0
    seed: int = 0
    dtype: Any = None
    by_rows: bool = False

    def for_output(self, activation: str = "linear") -> LayerConfig:
        """The configuration of an output layer: never gated, with an activation of its own."""
        return replace(self, activation=activation, gated=False)

    def weights(self, name: str, fan_in: int, *, table: bool = False) -> dict:
        """The initialisers and the regulariser of a kernel and its bias, as arguments of Keras's `Dense`.

        Args:
            name: Name of the layer and of the use; it must be unique in the model.
            fan_in: Number of inputs of a unit. The kernel's shape does not tell it, since a kernel may be item-major.
            table: Whether the kernel is as wide as the catalogue.
        """
        kernel_seed, bias_seed = (derive_seed(self.seed, f"{name}/{part}") for part in ("kernel", "bias"))
        if self.initializer == "glorot":
            kernel = keras.initializers.GlorotUniform(kernel_seed)
            bias = keras.initializers.TruncatedNormal(stddev=0.001, seed=bias_seed)
        else:
            limit = fan_in**-0.5
            if self.initializer == "he":
                # Keras's HeNormal is truncated, so it is not used.
                kernel = keras.initializers.RandomNormal(stddev=2**0.5 * limit, seed=kernel_seed)
            else:
                kernel = keras.initializers.RandomUniform(-limit, limit, seed=kernel_seed)
            bias = keras.initializers.RandomUniform(-limit, limit, seed=bias_seed)
        # Keras's L2 is the coefficient times the sum of squares, without a factor ½.
        whole = not (table and self.by_rows)
        decay = keras.regularizers.L2(self.weight_decay) if self.weight_decay and whole else None
        return {"kernel_initializer": kernel, "bias_initializer": bias, "kernel_regularizer": decay}


PLAIN = LayerConfig()
