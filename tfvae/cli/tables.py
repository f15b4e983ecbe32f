"""`tfvae table` and `tfvae sweep`: tables and searches for their settings, on a named data set or a user's own file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tfvae.cli import options as opt
from tfvae.cli.display import show_forecast, show_runs
from tfvae.cli.json_output import AsJson, answer
from tfvae.system.errors import InputError, unknown_name

if TYPE_CHECKING:
    from tfvae.experiments.protocols import OwnData

__all__ = ["SWEEP_EXAMPLES", "TABLE_EXAMPLES", "sweep", "table"]

TABLE_EXAMPLES = (
    "tfvae table multvae-table2 --dataset ml-1m --seeds 1,2,3",
    "tfvae table multvae-table2 --dataset movietweetings --rows popularity,ease",
    "tfvae table multvae-table2 --data ratings.csv --user-col uid --item-col sku --rows popularity,ease",
    "tfvae table multvae-table2 --dataset ml-20m --dry-run",
)
SWEEP_EXAMPLES = (
    "tfvae sweep multvae-table2 --row mult-vae --dataset ml-1m --trials 20",
    "tfvae sweep multvae-table2 --row mult-vae --data ratings.csv --user-col uid --item-col sku --trials 20",
)

IN_DOCUMENT = {"row", "slug", "model", "seed", "metrics", "validation", "users", "seconds", "epochs", "shortened"}
"""What of a stored run is in the document of --json; the stored file has the rest."""


def table(
    name: opt.TableName,
    dataset: opt.DatasetName = None,
    seeds: Annotated[str, typer.Option(metavar="N,N,…", help="The table's own if not given.")] = "",
    splits: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many of its seeds: of ratings, splits.")
    ] = None,
    rows: Annotated[str, typer.Option(metavar="ROW,ROW,…", help="All rows if not given.")] = "",
    epochs: opt.Epochs = None,
    set_: opt.Set = None,
    source: opt.Source = None,
    data: opt.OwnFile = None,
    user_col: opt.UserCol = None,
    item_col: opt.ItemCol = None,
    rating_col: opt.RatingCol = None,
    time_col: opt.TimeCol = None,
    delimiter: opt.Delimiter = None,
    min_rating: opt.MinRating = None,
    min_users: opt.MinUsers = None,
    min_items: opt.MinItems = None,
    held_out: opt.HeldOut = None,
    negatives: opt.Negatives = None,
    split_seed: opt.SplitSeed = None,
    render_only: Annotated[bool, typer.Option("--render-only", help="Run nothing; render what is stored.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Run nothing; compute updates, operations and hours of all its runs.")
    ] = False,
    tflops: Annotated[
        float | None,
        typer.Option(
            min=1e-6,
            help="With --dry-run: 10¹² operations a second of a training step, which 'tfvae doctor --device' measures; "
            "10 if not given, an assumption for one card of an A100's class.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bring a paper's table up to date on a data set: run what is missing, then render it."""
    if dry_run and render_only:
        raise InputError("--dry-run computes what runs would take, and --render-only renders stored ones; give one.")
    if tflops is not None and not dry_run:
        raise InputError("--tflops is the rate by which --dry-run computes hours; give both, or neither.")
    if dry_run:
        typer.echo(f"Counting the operations of {name} on {data or dataset}")
    elif not render_only and (data or dataset):
        typer.echo(f"Running what {name} lacks on {data or dataset}, into paper_results")
    columns = opt.file_options(user_col, item_col, rating_col, time_col, delimiter)
    changes = opt.those_given(
        min_rating=min_rating,
        min_users_per_item=min_users,
        min_items_per_user=min_items,
        held_out_users=held_out,
        n_negatives=negatives,
        seed=split_seed,
    )
    own = _own_data(data, columns, changes)
    if render_only:
        from tfvae.experiments.report import render, render_overview

        pages = [render(name, _stored_data(name, own.name if own else dataset)), render_overview()]
        answer({"pages": pages}, lambda: typer.echo(f"Written: {', '.join(map(str, pages))}"))
        return
    from tfvae.experiments.definitions import load_table

    if splits and seeds:
        raise InputError("--splits takes the first of the table's seeds; give either --splits or --seeds.")
    asked = (
        name,
        dataset,
        load_table(name).seeds[:splits] if splits else opt.whole_numbers(seeds) or None,
        opt.listed(rows) or None,
    )
    changed: dict[str, Any] = {
        "epochs": epochs,
        "overrides": opt.settings_from(set_),
        "source": source,
        "own": own,
        "log": typer.echo,
    }
    if dry_run:
        from tfvae.experiments.forecast import ASSUMED_TFLOPS, forecast

        rate, expected = tflops or ASSUMED_TFLOPS, forecast(*asked, **changed)
        answer(
            {
                "table": name,
                "dataset": own.name if own else dataset,
                "tflops": rate,
                "expected": [asdict(one) | {"hours": one.hours(rate)} for one in expected],
            },
            lambda: show_forecast(expected, rate),
        )
        return
    from tfvae.experiments.runner import run_table

    runs = run_table(*asked, **changed)
    found = [run.model_dump(mode="json", include=IN_DOCUMENT) for run in runs]
    answer(
        {"table": name, "dataset": own.name if own else dataset, "runs": found},
        lambda: show_runs(runs) if runs else None,
    )


def sweep(
    table: opt.TableName,
    row: Annotated[str, typer.Option(help="The row's slug, as in its file names.")],
    trials: Annotated[int, typer.Option(min=1, help="How many in all, with those of earlier calls.")],
    dataset: opt.DatasetName = None,
    seconds: Annotated[float | None, typer.Option(min=0, help="Begin no new trial after so long.")] = None,
    epochs: opt.Epochs = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search.")] = 0,
    source: opt.Source = None,
    data: opt.OwnFile = None,
    user_col: opt.UserCol = None,
    item_col: opt.ItemCol = None,
    rating_col: opt.RatingCol = None,
    time_col: opt.TimeCol = None,
    delimiter: opt.Delimiter = None,
    min_rating: opt.MinRating = None,
    min_users: opt.MinUsers = None,
    min_items: opt.MinItems = None,
    held_out: opt.HeldOut = None,
    negatives: opt.Negatives = None,
    split_seed: opt.SplitSeed = None,
    as_json: AsJson = False,
) -> None:
    """Search a row's settings on validation users; 'tfvae table' then uses the best."""
    if data or dataset:
        typer.echo(
            f"Searching the settings of {row} of {table} on {data or dataset}, {trials} trials, into paper_results"
        )

    # What follows takes seconds to load.
    from tfvae.experiments.sweep import run_sweep

    columns = opt.file_options(user_col, item_col, rating_col, time_col, delimiter)
    changes = opt.those_given(
        min_rating=min_rating,
        min_users_per_item=min_users,
        min_items_per_user=min_items,
        held_out_users=held_out,
        n_negatives=negatives,
        seed=split_seed,
    )
    own = _own_data(data, columns, changes)
    found = run_sweep(
        table, row, dataset, trials, seed, epochs=epochs, seconds=seconds, source=source, own=own, log=typer.echo
    )
    if found.best is None:
        raise InputError(f"none of {len(found.trials)} trials came through; see their reasons above.")
    best, told = found.best, found.model_dump(include={"table", "row", "dataset", "seed", "monitor", "trials"})
    answer(
        {**told, "best": best.model_dump()},
        lambda: typer.echo(f"Best of {len(found.trials)}: {found.monitor} {best.value:.4f} with {best.params}"),
    )


def _own_data(data: Path | None, columns: dict[str, str], changes: dict[str, Any]) -> OwnData | None:
    """A user's own data; None for a named data set, which is split as in its paper.

    Raises:
        InputError: If options for a user's own file are given without the file.
    """
    from tfvae.experiments.protocols import OwnData

    if data is not None:
        return OwnData(data, columns, changes)
    if columns or changes:
        raise InputError(f"{', '.join(columns | changes)}: only for a file of your own (--data); leave it out.")
    return None


def _stored_data(table: str, dataset: str | None) -> str:
    """Checks the name of a data set to render, which must be known or have stored results.

    Raises:
        InputError: If there is no such data set.
    """
    from tfvae.data.datasets import DATASETS
    from tfvae.experiments.definitions import load_table
    from tfvae.experiments.results_folder import datasets_of

    known = [*DATASETS, *(name for name in datasets_of(load_table(table)) if name not in DATASETS)]
    if dataset not in known:
        raise unknown_name("data set", dataset or "", known)
    return dataset
