"""The pictures on a table's page, drawn from stored runs alone: the same runs give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.ndimage import gaussian_filter

from tfvae.experiments.canvas import blank, panels, plain, save
from tfvae.experiments.styles import COLOURS, DASHES, Style

__all__ = ["latent_planes", "learning_curves", "learning_shapes"]

LOWEST_SHARE = 0.5
GREY = "#6E6E6E"
SHADES = LinearSegmentedColormap.from_list("prior", ["#FFFFFF", "#8F8F8F"])
DENSITY_BINS = 120
PANELS_ABREAST = 4


def learning_curves(
    curves: Mapping[str, Sequence[Mapping[int, float]]],
    levels: Mapping[str, float],
    path: Path,
    *,
    styles: Mapping[str, Style],
    title: str,
    metric: str,
) -> None:
    """Draws a metric on validation users against the epoch, one curve per row, and writes a PNG.

    A row's curve is the mean over its seeds at the epochs that all of them have; the range of the seeds is shaded. A
    model without epochs is a thin horizontal line. The vertical axis begins at half the largest value or above, since
    the differences that matter are near the top.

    Args:
        curves: For each row, by its printed name, the values of each seed by epoch, counted from 0 and ascending.
        levels: The value of each row whose model has no epochs, by its printed name.
        path: The PNG to write.
        styles: The style of each row, by its printed name.
        title: Heading of the figure.
        metric: Name of the metric, for the axis.
    """
    figure, (axes,) = panels()
    values = list(levels.values())
    for name, seeds in curves.items():
        colour, dashes = styles[name]
        at = [epoch for epoch in seeds[0] if all(epoch in seed for seed in seeds)]
        stacked = np.array([[seed[epoch] for epoch in at] for seed in seeds])
        axes.plot(at, stacked.mean(axis=0), dashes, color=colour, label=name, linewidth=1.8)
        axes.plot(at[-1], stacked[:, -1].mean(), "o", color=colour, markersize=4)
        axes.fill_between(at, stacked.min(axis=0), stacked.max(axis=0), color=colour, alpha=0.15, linewidth=0)
        values.extend(stacked.ravel())
    for name, level in levels.items():
        colour, dashes = styles[name]
        axes.axhline(level, color=colour, linestyle=dashes, linewidth=1, label=f"{name} (no epochs)")
    axes.set_ylim(bottom=max(LOWEST_SHARE * max(values), min(values) - 0.05 * max(values)))
    axes.set(xlabel="epoch (from 0)", ylabel=f"{metric}, validation users", title=title)
    _finish(figure, axes, path)


def learning_shapes(curves: Mapping[str, Mapping[int, float]], path: Path, *, title: str, metric: str) -> None:
    """Draws learning curves as shares of their own best value against the round, and writes a PNG.

    Args:
        curves: The shares of each curve, by its name and by round, counted from 1 and ascending.
        path: The PNG to write.
        title: Heading of the figure.
        metric: Name of the metric, for the axis.
    """
    figure, (axes,) = panels()
    for (name, shares), colour, dashes in zip(curves.items(), cycle(COLOURS), cycle(DASHES), strict=False):
        marker = "." if len(shares) < max(shares) else ""  # a curve that is not known for every round shows its points
        axes.plot(list(shares), list(shares.values()), dashes + marker, color=colour, label=name, linewidth=1.8)
    axes.set_ylim(bottom=max(LOWEST_SHARE, min(min(shares.values()) for shares in curves.values()) - 0.02))
    axes.set(xlabel="rounds", ylabel=f"{metric}, validation users, share of the best", title=title)
    _finish(figure, axes, path)


def _finish(figure: Figure, axes: Axes, path: Path) -> None:
    """Adds what all figures of curves have in common, and writes the file."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    plain(axes)
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    save(figure, path)


def latent_planes(
    planes: Mapping[str, tuple[np.ndarray, np.ndarray]],
    path: Path,
    *,
    styles: Mapping[str, Style],
    title: str,
    size: float = 2.5,
) -> None:
    """Draws samples of aggregated posteriors over the densities of their priors, a panel per row, and writes a PNG.

    Each panel has a plane and a scale of its own, which is the same on both axes. The density of a prior is estimated
    by smoothing a histogram of its samples; the shades show its square root, so that the tails can be seen.

    Args:
        planes: For each row, by its printed name, the points of the posterior and of the prior, float [n, 2] each.
        path: The PNG to write.
        styles: The style of each row, by its printed name.
        title: Heading of the figure.
        size: Of a panel, in inches.
    """
    down = -(-len(planes) // PANELS_ABREAST)
    abreast = -(-len(planes) // down)
    figure = blank(size * abreast + 0.5, (size + 0.1) * down + 0.7, dpi=150)
    grid = figure.subplots(down, abreast, squeeze=False).ravel()
    for axes in grid[len(planes) :]:
        axes.set_axis_off()
    for axes, (name, (posterior, prior)) in zip(grid, planes.items(), strict=False):
        both = np.concatenate([posterior, prior])
        low, high = both.min(axis=0), both.max(axis=0)
        half = 0.53 * float((high - low).max()) or 1.0
        x, y = ((middle - half, middle + half) for middle in ((low + high) / 2).tolist())
        counts, _, _ = np.histogram2d(prior[:, 0], prior[:, 1], bins=DENSITY_BINS, range=[x, y])
        shade = np.sqrt(gaussian_filter(counts, sigma=DENSITY_BINS / 40).T)
        axes.imshow(shade, cmap=SHADES, origin="lower", extent=(*x, *y), interpolation="bilinear")
        axes.scatter(*posterior.T, s=3 * (size / 2.5) ** 2, color=styles[name].colour, alpha=0.7, linewidths=0)
        axes.set(xlim=x, ylim=y)
        axes.set_title(name, fontsize=9)
        axes.locator_params(nbins=4)
        axes.tick_params(labelsize=7, length=2, color=GREY, labelcolor=GREY)
        axes.spines[:].set(color=GREY, alpha=0.4)
    figure.suptitle(f"{title}\ndots: aggregated posterior; grey: prior", fontsize=9)
    save(figure, path)
