"""The pictures of the figures' pages, drawn from numbers alone: the same numbers give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from tfvae.experiments.canvas import panels, plain, save
from tfvae.experiments.styles import BLUE, Style

__all__ = ["Line", "bars_by_group", "lines_by_group", "speed_and_quality", "values_at"]

GREY = "#6E6E6E"
PLACES = [  # where a name may stand beside its point, in points, the best place first
    (horizontal * away, vertical * away)
    for away in (6, 10, 16, 24)
    for horizontal, vertical in ((1, 0.9), (-1, 0.9), (1, -0.9), (-1, -0.9), (1, 0), (-1, 0), (0, 1.3), (0, -1.3))
]

CLEARLY = 10
"""Pixels by which a name is to be nearer to its point than to any other."""


class Line(NamedTuple):
    """A line over groups.

    Attributes:
        name: What it is, for the legend.
        style: Its colour and dashes.
        values: Its value in each group.
    """

    name: str
    style: Style
    values: Sequence[float]


def bars_by_group(
    means: Mapping[str, Sequence[float]],
    errors: Mapping[str, Sequence[float]],
    path: Path,
    *,
    groups: Sequence[str],
    stars: Sequence[str],
    styles: Mapping[str, Style],
    title: str,
    ylabel: str,
    xlabel: str,
) -> None:
    """Draws bars side by side in each group, with error bars and with stars above them, and writes a PNG.

    Args:
        means: The heights in each group, for each row by its printed name.
        errors: The lengths of the error bars to either side, likewise.
        path: The PNG to write.
        groups: The names of the groups.
        stars: What stands above each group.
        styles: The style of each row, by its printed name.
        title: Heading of the picture.
        ylabel: What the heights are.
        xlabel: What the groups are.
    """
    figure, (axes,) = panels()
    width = 0.8 / len(means)
    for number, (name, heights) in enumerate(means.items()):
        at = [group + (number - (len(means) - 1) / 2) * width for group in range(len(groups))]
        axes.bar(at, heights, width * 0.94, color=styles[name].colour, label=name)
        axes.errorbar(at, heights, errors[name], fmt="none", ecolor="black", elinewidth=1.2, capsize=3)
    top = [max(means[name][group] + errors[name][group] for name in means) for group in range(len(groups))]
    for group, above in enumerate(stars):
        axes.text(group, top[group] + 0.01 * max(top), above, ha="center", va="bottom")
    axes.set_ylim(0, 1.1 * max(top))
    _name_groups(axes, groups)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    _titled(figure, title)
    plain(axes)
    axes.grid(visible=False, axis="x")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(means), frameon=False)
    save(figure, path)


def lines_by_group(
    parts: Mapping[str, Sequence[Line]],
    path: Path,
    *,
    groups: Sequence[str],
    levels: Mapping[str, float],
    title: str,
    ylabel: str,
    xlabel: str,
) -> None:
    """Draws lines over groups, in panels side by side with one vertical axis, and writes a PNG.

    Args:
        parts: The lines of each panel, by its heading; all panels have the same lines.
        path: The PNG to write.
        groups: The names of the groups.
        levels: The value that is aimed at, by the heading of its panel: a thin horizontal line.
        title: Heading of the picture.
        ylabel: What the values are.
        xlabel: What the groups are.
    """
    figure, grid = panels(len(parts), height=5.2)
    for axes, (heading, lines) in zip(grid, parts.items(), strict=True):
        for name, style, values in lines:
            axes.plot(
                range(len(groups)),
                values,
                style.dashes,
                marker=style.marker,
                color=style.colour,
                label=name,
                linewidth=1.8,
            )
        if heading in levels:
            axes.axhline(levels[heading], color=GREY, linewidth=1, zorder=0)
        axes.set_title(heading, fontsize=10)
        _name_groups(axes, groups)
        axes.set_xlabel(xlabel)
        plain(axes)
    grid[0].set_ylabel(ylabel)
    _titled(figure, title)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    save(figure, path)


def values_at(
    places: Sequence[float],
    means: Sequence[float],
    errors: Sequence[float],
    path: Path,
    *,
    title: str,
    xlabel: str,
    ylabel: str,
) -> None:
    """Draws values with error bars at chosen places, which are evenly spaced, and writes a PNG.

    Args:
        places: The places, ascending; they may differ by powers of ten, and one may be 0.
        means: The value at each.
        errors: The length of its error bar to either side.
        path: The PNG to write.
        title: Heading of the picture.
        xlabel: What the places are.
        ylabel: What the values are.
    """
    figure, (axes,) = panels()
    at = range(len(places))
    axes.errorbar(at, means, errors, fmt="o-", color=BLUE, linewidth=1.8, elinewidth=1.2, capsize=4)
    axes.set_xticks(at, [f"{place:g}" for place in places])
    axes.set(xlabel=xlabel, ylabel=ylabel)
    _titled(figure, title)
    plain(axes)
    save(figure, path)


def speed_and_quality(
    points: Mapping[str, tuple[float, float]],
    path: Path,
    *,
    front: Sequence[str],
    styles: Mapping[str, Style],
    title: str,
    xlabel: str,
    ylabel: str,
) -> None:
    """Draws named points over a logarithmic axis, with a line along those of the front, and writes a PNG.

    Args:
        points: Both coordinates of each row, by its printed name; the first is above 0.
        path: The PNG to write.
        front: Names of the points along which the line runs, by their first coordinate.
        styles: The style of each row, by its printed name.
        title: Heading of the picture.
        xlabel: What the first coordinate is.
        ylabel: What the second coordinate is.
    """
    figure, (axes,) = panels(height=7.0)
    axes.set_xscale("log")
    along = [points[name] for name in front]
    axes.plot(*zip(*along, strict=True), color=GREY, linewidth=0.8, alpha=0.6, drawstyle="steps-post", zorder=1)
    for name, (x, y) in points.items():
        axes.plot(x, y, styles[name].marker, color=styles[name].colour, markersize=7)
    axes.xaxis.set_major_formatter(lambda seconds, _: f"{seconds:,g}")
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.margins(0.12, 0.08)
    _titled(figure, title)
    plain(axes)
    _name_points(figure, axes, points)
    save(figure, path)


def _titled(figure: Figure, title: str) -> None:
    figure.suptitle(title, fontsize=11)


def _name_groups(axes: Axes, groups: Sequence[str]) -> None:
    axes.set_xticks(range(len(groups)), groups, fontsize=9)


def _name_points(figure: Figure, axes: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Writes each name where it covers no point and no other name, and is clearly nearer to its point than to others.

    Where there is no such place, it is the one where this is clearest.
    """
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    centres = dict(zip(points, axes.transData.transform(list(points.values())), strict=True))
    taken = [Bbox.from_bounds(x - 7, y - 7, 14, 14) for x, y in centres.values()]
    inside = axes.get_window_extent(renderer)
    for name, point in points.items():
        label = axes.annotate(name, point, (0, 0), textcoords="offset points", fontsize=9, va="bottom")
        label.set_in_layout(False)  # or the axes would move once more, away from what was measured
        size = label.get_window_extent(renderer)
        best, lead = None, -np.inf
        for right, up in PLACES:
            x, y = centres[name] + np.array([right, up]) * figure.dpi / 72
            x -= size.width * (0 if right > 0 else 1 if right < 0 else 0.5)
            y -= size.height * (0 if up > 0 else 1 if up < 0 else 0.5)
            box = Bbox.from_bounds(x, y, size.width, size.height)
            if any(box.overlaps(other) for other in taken) or not _holds(inside, box):
                continue
            others = [_distance(box, *centre) for other, centre in centres.items() if other != name]
            clearly = min(CLEARLY, min(others, default=CLEARLY) - _distance(box, *centres[name]))
            if clearly > lead:
                best, lead = box, clearly
        if best is not None:
            label.set_position((np.array(best.min) - centres[name]) * 72 / figure.dpi)
            taken.append(best)


def _holds(outer: Bbox, inner: Bbox) -> bool:
    return bool(np.all(outer.min < inner.min) and np.all(inner.max < outer.max))


def _distance(box: Bbox, x: float, y: float) -> float:
    """How far a point is from a box."""
    return float(np.hypot(max(box.x0 - x, 0, x - box.x1), max(box.y0 - y, 0, y - box.y1)))
