"""The picture of the start page and of README.md: the leaderboard at a glance, drawn from stored runs."""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from site_builder.places import ROOT
from tfvae.experiments.definitions import RESULTS, load_table
from tfvae.experiments.protocols import dataset_title
from tfvae.experiments.rendering import printed_metric
from tfvae.experiments.summaries import Cells, cells_of
from tfvae.system.files import replacing

__all__ = ["draw_leaderboard"]

TABLE, DATASET = "leaderboard", "ml-1m"
INK = {"light": "#20242c", "dark": "#e6e8ee"}
FAINT = {"light": "#d9dce3", "dark": "#3a3f4c"}
OURS = {"light": "#0f766e", "dark": "#2dd4bf"}
OTHERS = {"light": "#8a93a5", "dark": "#8f98ab"}
SHOWN = 12
"""The best rows are shown; a picture of all would not be read at a glance."""


def draw_leaderboard(path: Path, scheme: str = "light", results: Path = ROOT / RESULTS) -> None:
    """Draws the best rows of the leaderboard with their 95 % intervals, and writes an SVG or a PNG.

    Args:
        path: The file to write; its ending says the format.
        scheme: "light" or "dark", the background that it is drawn for.
        results: The results folder.
    """
    table = load_table(TABLE, results)
    ran = [cells for cells in cells_of(table, DATASET, results) if table.monitor in cells.per_user]
    rows = ran[:SHOWN][::-1]
    figure = Figure(figsize=(6.8, 4.4), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, cells in enumerate(rows):
        mean, width = cells.mean(table.monitor), 1.96 * cells.se(table.monitor)
        colour = (OURS if _is_ours(cells) else OTHERS)[scheme]
        axes.plot([mean - width, mean + width], [place, place], color=colour, linewidth=2.4, solid_capstyle="round")
        axes.plot(mean, place, "o", color=colour, markersize=8)
        axes.annotate(
            f"{mean:.3f}", (mean + width, place), (6, 0), textcoords="offset points", va="center", color=INK[scheme]
        )
    names = axes.set_yticks(range(len(rows)), [cells.row.name for cells in rows])
    for tick, cells in zip(names, rows, strict=True):
        tick.label1.set(
            color=(OURS if _is_ours(cells) else INK)[scheme], weight="bold" if _is_ours(cells) else "normal"
        )
    axes.set_title(
        f"{printed_metric(table.monitor)} on {dataset_title(DATASET)}, the best {SHOWN} of {len(ran)} models, "
        "our own in green",
        color=INK[scheme], fontsize=10, loc="left",
    )  # fmt: skip
    axes.tick_params(colors=INK[scheme], length=0)
    axes.grid(axis="x", color=FAINT[scheme], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.margins(x=0.08, y=0.04)
    options = {"metadata": {"Date": None}} if path.suffix == ".svg" else {"metadata": {"Software": None}}
    with replacing(path) as draft:
        figure.savefig(draft, format=path.suffix[1:], transparent=path.suffix == ".svg", **options)


def _is_ours(cells: Cells) -> bool:
    return cells.row.model in ("meld", "ensemble")


if __name__ == "__main__":
    draw_leaderboard(Path(sys.argv[1]))
