"""The output of the commands: tables of text, and lines of Python."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    import numpy as np

    from tfvae.experiments.forecast import Forecast
    from tfvae.experiments.records import StoredRun
    from tfvae.serving.ranking import Ranking

__all__ = [
    "how_to_run_litert",
    "how_to_serve",
    "how_to_start_serving",
    "show_counts",
    "show_counts_of",
    "show_forecast",
    "show_metrics",
    "show_ranking",
    "show_runs",
    "show_table",
]


def show_table(headings: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[str] = ()) -> None:
    """Prints a table.

    Args:
        headings: Headings of the columns.
        rows: The cells of each row.
        numbers: Headings of the columns that are aligned to the right.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right" if heading in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    # Without markup, since paths and titles may have brackets.
    Console(markup=False, emoji=False, highlight=False).print(table)


def show_counts(report: Mapping[str, int | float]) -> None:
    """Prints the counts of a split, one a line; numbers that are not whole are printed as percentages."""
    for name, count in report.items():
        shown = f"{count:,}" if isinstance(count, int) else f"{count:.4%}"
        typer.echo(f"  {name.replace('_', ' '):<34}{shown:>14}")


def show_metrics(summary: Mapping[str, Mapping[str, float]], counts: Mapping[str, int]) -> None:
    """Prints metrics with standard errors and 95 % intervals, and the number of users or ratings behind them.

    Args:
        summary: The "mean", "se", "low" and "high" of each metric, by name.
        counts: Numbers of users or ratings, by name.
    """
    rows = (
        (name, f"{value['mean']:.4f}", f"± {value['se']:.4f}", f"{value['low']:.4f} to {value['high']:.4f}")
        for name, value in summary.items()
    )
    show_table(("metric", "mean", "s.e.", "95 % interval"), rows)
    show_counts_of(counts)


def show_counts_of(measured: Mapping[str, int]) -> None:
    """Prints in one line how many users or ratings a measurement has, by name."""
    typer.echo(", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in measured.items()))


def show_forecast(expected: Sequence[Forecast], tflops: float) -> None:
    """Prints what the runs of a table would take.

    Args:
        expected: What the runs of each row would take.
        tflops: The rate by which hours are computed, in 10¹² operations a second.
    """
    numbers = ("runs", "updates", "10¹⁵ operations", "hours")
    rows = [
        (
            one.row,
            f"{one.runs}",
            *(
                (f"{one.updates:,}", f"{one.operations / 1e15:,.2f}", f"{one.hours(tflops):,.2f}")
                if one.updates
                else ("", "", "")
            ),
            one.uncounted or "",
        )
        for one in expected
    ]
    operations, hours = sum(one.operations for one in expected), sum(one.hours(tflops) for one in expected)
    rows.append(("together", "", "", f"{operations / 1e15:,.2f}", f"{hours:,.2f}", ""))
    show_table(("row", *numbers, "not counted"), rows, numbers)
    typer.echo(
        f"Hours at {tflops:g} TFLOP/s, computed from operation counts, not measured. Counted are the dense products"
    )
    typer.echo(
        "of all training steps; not sparse products, softmax, optimiser, validation, evaluation and sweeps. Patience"
    )
    typer.echo("may end runs earlier.")


def show_ranking(ranking: Ranking, predicts_ratings: bool, because: Sequence[Sequence[str]] | None = None) -> None:
    """Prints the first user's ranking without its empty ranks.

    Args:
        ranking: The ranking.
        predicts_ratings: Whether its scores are predicted ratings.
        because: For each rank that is not empty, the reasons for it; None prints none.
    """
    columns = {"id": ranking.items[0].tolist()}
    if ranking.titles is not None:
        columns["title"] = ranking.titles[0].tolist()
    numbers = {"predicted rating" if predicts_ratings else "score": ranking.scores[0]}
    if ranking.sd is not None:
        numbers["s.d."] = ranking.sd[0]
    columns |= {name: [f"{value:.3f}" for value in values] for name, values in numbers.items()}
    filled = ranking.scores[0] > float("-inf")
    cells = zip(*columns.values(), strict=True)
    rows = [list(map(str, row)) for row, real in zip(cells, filled, strict=True) if real]
    last = len(columns) - len(numbers) - 1  # the title, or else the id
    for row, reasons in zip(rows, because or (), strict=False):
        row[last] += f"\n  because of {', '.join(reasons)}" if reasons else "\n  because of nothing in the history"
    show_table(list(columns), rows, list(numbers))


def how_to_serve(folder: Path, item_ids: np.ndarray, scale: tuple[float, float] | None) -> str:
    """Lines of Python that recommend items with an exported model.

    Args:
        folder: The folder of the export.
        item_ids: Ids of the model's items, [n_items].
        scale: For a model of ratings, the lowest and the highest rating; None for a model that ranks.
    """
    whole = item_ids.dtype.kind in "iu"
    history, dtype = [*item_ids[:2].tolist(), -1 if whole else ""], "int64" if whole else "string"
    ratings = "" if scale is None else f"ratings=tf.constant([[{scale[1]:.1f}, {scale[0]:.1f}, 0.0]]), "
    return (
        "  import tensorflow as tf\n"
        f"  model = tf.saved_model.load({str(folder)!r})\n"
        f'  model.signatures["recommend"](history=tf.constant([{history}], tf.{dtype}), {ratings}k=tf.constant(10))'
    )


def how_to_start_serving(folder: Path) -> str:
    """The command that lets TensorFlow Serving serve the newest version of an exported model.

    Args:
        folder: The folder of its versions.
    """
    place = folder.resolve()
    volume = shlex.quote(f"{place}:/models/{place.name}")
    name = shlex.quote(f"MODEL_NAME={place.name}")
    return f"  docker run -p 8500:8500 -p 8501:8501 -v {volume} -e {name} tensorflow/serving"


def how_to_run_litert(folder: Path, scale: tuple[float, float] | None) -> str:
    """Lines of Python that recommend items with a LiteRT file, by the items' numbers.

    Args:
        folder: The folder of the export.
        scale: For a model of ratings, the lowest and the highest rating; None for a model that ranks.
    """
    ratings = "" if scale is None else f"ratings=np.array([[{scale[1]:.1f}, {scale[0]:.1f}]], np.float32), "
    return (
        "  import numpy as np\n"
        "  from ai_edge_litert.interpreter import Interpreter\n"
        f"  recommend = Interpreter({str(folder / 'model.tflite')!r}).get_signature_runner('recommend')\n"
        f"  recommend(history=np.array([[0, 1]], np.int32), {ratings}k=np.int32(10))  # numbers of items.csv"
    )


def show_runs(runs: Sequence[StoredRun]) -> None:
    """Prints the metrics of stored runs, one run a line; a dash stands for a metric that only other runs have."""
    metrics = list(dict.fromkeys(name for run in runs for name in run.metrics))
    lines = []
    for run in runs:
        found = [run.metrics.get(name) for name in metrics]
        cells = [f"{cell['mean']:.4f} ± {cell['se']:.4f}" if cell else "–" for cell in found]
        lines.append((run.row, str(run.seed), *cells))
    show_table(("row", "seed", *metrics), lines)
