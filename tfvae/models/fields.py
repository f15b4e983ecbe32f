"""The types of settings that many models share; pydantic reads them from the constructors' annotations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

__all__ = ["Activation", "Share", "Width"]

Width = PositiveInt
Share = Annotated[float, Field(ge=0, lt=1)]
Activation = Literal["tanh", "sigmoid", "relu", "elu", "selu", "gelu", "swish", "linear"]
