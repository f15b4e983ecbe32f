"""What a figure's page shows: pictures, the numbers behind them, and what can be said of these."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

__all__ = ["FIGURE", "ERRORS", "Drawn", "Numbers", "group_names"]

FIGURE = "figure.png"
ERRORS = "errors.png"


class Numbers(NamedTuple):
    """A table of the numbers that a picture shows.

    Attributes:
        header: The headings of its columns; the first is of the rows' names.
        lines: The cells of each line, as printed.
    """

    header: list[str]
    lines: list[list[str]]


class Drawn(NamedTuple):
    """What a figure's page shows.

    Attributes:
        pictures: The pictures' file names, with what each shows in words.
        finding: What the numbers say, in a sentence or two.
        numbers: The numbers behind each picture.
        notes: How it was measured, a paragraph each.
    """

    pictures: dict[str, str]
    finding: str
    numbers: list[Numbers]
    notes: list[str]


def group_names(bounds: Sequence[tuple[float, float]]) -> list[str]:
    """The smallest and the largest whole number in each group."""
    starts = [round(low) for low, _ in bounds]
    ends = [*(following - 1 for _, following in pairwise(starts)), round(bounds[-1][1])]
    return [f"{low}–{high}" if high > low else f"{low}" for low, high in zip(starts, ends, strict=True)]
