"""Types of settings that several models share; pydantic checks them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

__all__ = [
    "Activation",
    "Count",
    "CountFromZero",
    "Initializer",
    "Precision",
    "Range",
    "Seed",
    "Share",
    "Weight",
    "Width",
]


def _ascending(given: tuple[float, float]) -> tuple[float, float]:
    if given[0] >= given[1]:
        raise ValueError(f"expected a lower and a greater value, found {list(given)}")
    return given


Width = Annotated[int, Field(gt=0, le=10**6)]
Count = Annotated[int, Field(gt=0, le=10**9)]
CountFromZero = Annotated[int, Field(ge=0, le=10**9)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""What NumPy's legacy generator takes as a seed."""
Range = Annotated[tuple[float, float], AfterValidator(_ascending)]
"""A least and a greatest value."""
Share = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0, le=1)]
Activation = Literal["tanh", "sigmoid", "relu", "elu", "selu", "gelu", "swish", "linear"]
Initializer = Literal["glorot", "he", "fan-in"]
Precision = Literal["float32", "float64"]
