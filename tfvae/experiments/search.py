"""How a row's settings are searched: the values that may be tried, and how much searching there is."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from tfvae.system.validation import Strict

__all__ = ["Budget", "SearchSpace", "Value"]

Value = int | float | str | bool | list | None


class SearchSpace(Strict):
    """The values that the sweep may try for one setting: an interval or a list of choices.

    Attributes:
        low: Smallest value, included.
        high: Largest value, included. If both limits are whole numbers, only whole numbers are tried.
        log: Whether to search on a logarithmic scale.
        step: Distance between neighbouring values of the interval; None for 1 between whole numbers and for a
            continuous interval otherwise.
        choices: The values, of any JSON type, instead of an interval.
    """

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = None
    choices: list[Value] | None = None

    @property
    def interval(self) -> tuple[int | float, int | float] | None:
        """The smallest and the largest value; None for choices."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.interval is None) == (self.choices is None):
            raise ValueError("expected either low and high, or choices")
        if self.interval and self.interval[0] >= self.interval[1]:
            raise ValueError(f"low must be below high, found {self.low} and {self.high}")
        if self.choices is not None and (self.log or self.step is not None or {self.low, self.high} != {None}):
            raise ValueError("choices have no low, high, log or step")
        if self.interval and self.log and (self.interval[0] <= 0 or self.step is not None):
            raise ValueError(f"expected a low above 0 and no step on a logarithmic scale, found {self.low}")
        if any(isinstance(limit, int) and abs(limit) >= 2**63 for limit in (self.low, self.high, self.step)):
            raise ValueError("expected whole numbers of 64 bits")
        if self.step is not None and not 0 < self.step <= (self.high or 0) - (self.low or 0):
            raise ValueError(f"expected a step above 0 and no longer than the interval, found {self.step}")
        return self

    def holds(self, value: Value) -> bool:
        """Whether a value is among those that may be tried."""
        if self.choices is not None:
            return value in self.choices
        low, high = self.interval or (0, 0)
        whole = isinstance(low, int) and isinstance(high, int)
        number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        return number and low <= value <= high  # type: ignore[operator]


class Budget(Strict):
    """How much searching each row of a table gets, the same for all.

    A search ends with its last trial, or with the trial in which its seconds are over, whichever comes first.

    Attributes:
        trials: Number of trials.
        seconds: Seconds of all trials together.
    """

    trials: Annotated[int, Field(ge=1)]
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)]
