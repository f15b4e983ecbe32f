"""The start page: what tfvae is, one picture of the results, three commands, four doors."""

from __future__ import annotations

from pathlib import Path

from site_builder.pictures import DATASET, TABLE, draw_leaderboard
from site_builder.rendering import render
from site_builder.results import Tables
from tfvae.models import MODELS

__all__ = ["start_page"]


def start_page(tables: Tables, drawn: Path) -> dict[str, str | Path]:
    """The start page and its picture for light and dark.

    Args:
        tables: The tables with their stored runs.
        drawn: The folder into which the pictures are drawn.
    """
    pictures = {f"images/leaderboard-{scheme}.svg": drawn / f"leaderboard-{scheme}.svg" for scheme in ("light", "dark")}
    for scheme in ("light", "dark"):
        draw_leaderboard(drawn / f"leaderboard-{scheme}.svg", scheme, tables.results)
    runs = (run for rows in tables.cells.values() for cells in rows for run in cells.runs)
    n_runs = len({(run.table, run.dataset, run.slug, run.seed) for run in runs})
    board = f"results/{TABLE}/{DATASET}/index.md"
    return {"index.md": render("start.md.j2", "index.md", board=board, n_models=len(MODELS), n_runs=n_runs)} | pictures
