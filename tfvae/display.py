"""What the commands print: tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from tfvae.records import Run

__all__ = ["show_counts", "show_metrics", "show_runs", "show_table"]


def show_table(headings: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[str] = ()) -> None:
    """Prints a table.

    Args:
        headings: Of the columns.
        rows: Their cells.
        numbers: Headings of the columns to be aligned right.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right" if heading in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    # No markup: a bracket in a path or a title is a bracket.
    Console(markup=False, emoji=False, highlight=False).print(table)


def show_counts(report: Mapping[str, int | float]) -> None:
    """Prints the report of a split, one count a line."""
    for name, count in report.items():
        shown = f"{count:,}" if isinstance(count, int) else f"{count:.4%}"
        typer.echo(f"  {name.replace('_', ' '):<34}{shown:>14}")


def show_metrics(summary: Mapping[str, Mapping[str, float]], n_users: int, n_without_targets: int) -> None:
    """Prints metrics with standard error and 95 % interval, and over whom they are means."""
    rows = (
        (name, f"{value['mean']:.4f}", f"± {value['se']:.4f}", f"{value['low']:.4f} to {value['high']:.4f}")
        for name, value in summary.items()
    )
    show_table(("metric", "mean", "s.e.", "95 % interval"), rows)
    typer.echo(f"{n_users:,} users; {n_without_targets:,} without targets left out")


def show_runs(runs: Sequence[Run]) -> None:
    """Prints the metrics of stored runs, one run a line; a dash where a run lacks another's metric."""
    metrics = list(dict.fromkeys(name for run in runs for name in run.metrics))
    lines = []
    for run in runs:
        found = [run.metrics.get(name) for name in metrics]
        cells = [f"{cell['mean']:.4f} ± {cell['se']:.4f}" if cell else "–" for cell in found]
        lines.append((run.row, str(run.seed), *cells))
    show_table(("row", "seed", *metrics), lines)
