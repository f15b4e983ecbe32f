"""What all pictures have in common: their size, their lines, and the file, whose bytes only depend on what is drawn."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tfvae.system.files import replacing

__all__ = ["blank", "panels", "plain", "save"]


def blank(width: float, height: float, dpi: int = 120) -> Figure:
    """An empty figure of this size in inches."""
    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def panels(count: int = 1, *, width: float = 8.0, height: float = 4.8) -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side, which share their vertical axis.

    Args:
        count: Number of panels.
        width: Of the figure, in inches; at 700 pixels its text is still readable.
        height: Of the figure, in inches.
    """
    figure = blank(width, height)
    return figure, list(figure.subplots(1, count, squeeze=False, sharey=True).ravel())


def plain(axes: Axes) -> None:
    """Leaves out the box, and draws a pale grid behind what is shown."""
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG that says nothing of the software."""
    with replacing(path) as draft:
        figure.savefig(draft, metadata={"Software": None})
