"""The colour and the dashes of each row in pictures: a model looks the same in all of them.

The colours are Okabe and Ito's palette, which colour-blind readers can tell apart; dashes and markers tell the models
of one colour apart, and all models in print without colour.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import cycle
from typing import NamedTuple

__all__ = ["COLOURS", "DASHES", "Style", "styles_of"]

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK = COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000",
)  # fmt: skip
DASHES = ("-", "--", "-.", ":")
FEW = 3
"""Rows of one model that have one colour; more could not be told apart by their dashes alone."""
MARKERS = dict(zip(DASHES, "os^D", strict=True))


class Style(NamedTuple):
    """How a row is drawn.

    Attributes:
        colour: Its colour, such as ``"#0072B2"``.
        dashes: The dashes of its line, as Matplotlib writes them.
    """

    colour: str
    dashes: str

    @property
    def marker(self) -> str:
        """The marker of its points, as Matplotlib writes it."""
        return MARKERS[self.dashes]


OF_MODELS = {
    "mult-vae": Style(BLUE, "-"),
    "evcf-mult-vae": Style(BLUE, "--"),
    "mult-dae": Style(VERMILLION, "-"),
    "cdae": Style(VERMILLION, "--"),
    "recvae": Style(GREEN, "-"),
    "ract": Style(GREEN, "--"),
    "vamp": Style(PURPLE, "-"),
    "h-vamp": Style(PURPLE, "--"),
    "wmf": Style(ORANGE, "-"),
    "bpr": Style(ORANGE, "--"),
    "neumf": Style(ORANGE, "-."),
    "ease": Style(SKY, "-"),
    "edlae": Style(SKY, "--"),
    "slim": Style(SKY, "-."),
    "meld": Style(BLACK, "-"),
    "ensemble": Style(BLACK, "--"),
    "rp3beta": Style(BLACK, "-."),
    "popularity": Style(BLACK, ":"),
    "p-vae": Style(BLUE, "-"),
    "two-sided-p-vae": Style(BLACK, "-"),
    "rating-ensemble": Style(BLACK, "--"),
    "autorec": Style(VERMILLION, "-"),
    "rbm": Style(PURPLE, "-"),
    "nnmf": Style(GREEN, "-"),
    "pmf": Style(ORANGE, "-"),
    "bias-mf": Style(ORANGE, "--"),
    "llorma": Style(SKY, "-"),
}
"""Models of rankings and models of ratings are never in one picture, so both have all colours."""


def styles_of(models: Mapping[str, str]) -> dict[str, Style]:
    """A style for each row, no two the same as long as there are enough.

    The first row of a model has the model's own style. Up to two further rows of it have its colour, where there are
    other models to tell it from. All other rows get what is free, as different in colour as possible.

    Args:
        models: The model's name in the registry, for each row, by its printed name.

    Returns:
        The styles by printed name.
    """
    found: dict[str, Style] = {}
    for name, model in models.items():
        if model in OF_MODELS and OF_MODELS[model] not in found.values():
            found[name] = OF_MODELS[model]
    rows_of = Counter(models.values())
    shifted = [(*DASHES[shift:], *DASHES[:shift]) for shift in range(len(DASHES))]
    styles = [Style(*style) for dashes in shifted for style in zip(COLOURS, cycle(dashes), strict=False)]
    for name, model in models.items():
        if name not in found:
            free = [style for style in styles if style not in found.values()] or styles
            taken = {style.colour for style in found.values()}
            if model in OF_MODELS and len(rows_of) > 1 and rows_of[model] <= FEW:
                taken = {*COLOURS} - {OF_MODELS[model].colour}
            found[name] = min(free, key=lambda style: style.colour in taken)
    return {name: found[name] for name in models}
