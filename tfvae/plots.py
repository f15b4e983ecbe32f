"""The pictures beside a table: made from stored runs alone, and the same bytes from the same runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tfvae.files import replacing

__all__ = ["learning_curves"]

# Okabe and Ito's palette, which the colour-blind can tell apart; the dashes serve print without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
LOWEST_SHARE = 0.5


def learning_curves(
    curves: Mapping[str, Sequence[Sequence[float]]],
    levels: Mapping[str, float],
    path: Path,
    *,
    title: str,
    metric: str,
) -> None:
    """Draws a metric on validation users against the epoch, one curve per row, and writes a PNG.

    A row's curve is the mean over its seeds as far as the shortest of them goes, with the range of the seeds
    shaded. A closed form has no epochs and is a thin level line. The axis begins at half the best value where
    a curve starts below that, since what matters happens at the top.

    Args:
        curves: By printed row: one list of values per seed, one value per epoch.
        levels: By printed row of a closed form: its value.
        path: The PNG to write.
        title: Heading of the picture.
        metric: Name of the metric, for the axis.
    """
    figure = Figure(figsize=(8, 4.8), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    styles = zip(cycle(COLOURS), cycle(DASHES), strict=False)
    values = list(levels.values())
    for (name, seeds), (colour, dashes) in zip(curves.items(), styles, strict=False):
        epochs = min(len(seed) for seed in seeds)
        stacked = np.array([seed[:epochs] for seed in seeds])
        at = np.arange(epochs)
        axes.plot(at, stacked.mean(axis=0), dashes, color=colour, label=name, linewidth=1.8)
        axes.plot(at[-1], stacked[:, -1].mean(), "o", color=colour, markersize=4)
        axes.fill_between(at, stacked.min(axis=0), stacked.max(axis=0), color=colour, alpha=0.15, linewidth=0)
        values.extend(stacked.ravel())
    for (name, level), (colour, dashes) in zip(levels.items(), styles, strict=False):
        axes.axhline(level, color=colour, linestyle=dashes, linewidth=1, label=f"{name} (closed form)")
    axes.set_ylim(bottom=max(LOWEST_SHARE * max(values), min(values) - 0.05 * max(values)))
    axes.set(xlabel="epoch (from 0)", ylabel=f"{metric}, validation users", title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    with replacing(path) as draft:
        figure.savefig(draft, metadata={"Software": None})
