"""Types of settings that several models share; pydantic checks them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

__all__ = ["Activation", "Initializer", "Precision", "Share", "Weight", "Width"]

Width = PositiveInt
Share = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0, le=1)]
Activation = Literal["tanh", "sigmoid", "relu", "elu", "selu", "gelu", "swish", "linear"]
Initializer = Literal["glorot", "he", "fan-in"]
Precision = Literal["float32", "float64"]
