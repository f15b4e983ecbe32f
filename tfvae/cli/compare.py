"""`tfvae compare`: which model is best on one's own data, found within a given time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tfvae.cli import options as opt
from tfvae.cli.display import show_table
from tfvae.cli.json_output import AsJson, answer
from tfvae.system.errors import InputError

if TYPE_CHECKING:
    from tfvae.experiments.comparison import Comparison

__all__ = ["EXAMPLES", "compare", "comparison_folder"]

EXAMPLES = (
    "tfvae compare ratings.csv --user-col uid --item-col sku --minutes 20",
    "tfvae compare movietweetings --minutes 10 --models edlae,wmf,meld",
    "tfvae compare ratings.csv --rating-col stars --ratings",
)


def comparison_folder(data: str) -> Path:
    """Where the comparison of some data lies if no folder is named."""
    from tfvae.data.sources import stem

    return Path("runs", f"{stem(data)}-compare")


def compare(
    data: opt.Data,
    minutes: Annotated[float, typer.Option(help="How long training may take in all.")] = 20.0,
    models: Annotated[
        str, typer.Option(metavar="NAME,NAME,…", help="The models to compare; a selection of all if not given.")
    ] = "",
    ratings: Annotated[
        bool, typer.Option("--ratings", help="Compare models that predict ratings, not those that rank.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="The folder of the runs; runs/DATA-compare if not given.")] = None,
    source: opt.Source = None,
    user_col: opt.UserCol = None,
    item_col: opt.ItemCol = None,
    rating_col: opt.RatingCol = None,
    time_col: opt.TimeCol = None,
    delimiter: opt.Delimiter = None,
    items: opt.Items = None,
    items_id_col: opt.ItemsIdCol = None,
    items_title_col: opt.ItemsTitleCol = None,
    min_rating: opt.MinRating = None,
    held_out: opt.HeldOut = None,
    as_json: AsJson = False,
) -> None:
    """Train several models within a time, and say which one to take and how sure that is.

    The model is chosen on validation users. The test users only tell how good it is, and whether the others are worse.
    'tfvae fit DATA --model auto' takes the chosen model.
    """
    folder = out or comparison_folder(data)
    what = models or ("models of ratings" if ratings else "models that rank")
    typer.echo(f"Comparing {what} on {data} within {minutes:g} minutes of training, in {folder}")

    # What follows takes seconds to load.
    from tfvae.cli.run_folder import keep_split, learnt_from, refuse_other_items, split_for
    from tfvae.experiments import comparison
    from tfvae.serving.quick import keep_quick_copy
    from tfvae.training.loop import load_run

    known = comparison.RATERS if ratings else comparison.RANKERS
    chosen = {name: known.get(name, {}) for name in opt.listed(models)} or known
    columns = opt.file_options(user_col, item_col, rating_col, time_col, delimiter)
    changes = opt.those_given(min_rating=min_rating, held_out_users=held_out)
    _refuse_other_kinds(list(chosen))
    table = opt.item_table(items, items_id_col, items_title_col)
    split = split_for(next(iter(chosen)), data, source=source, columns=columns, changes=changes, items=table)
    part = learnt_from(split)
    if table is not None:
        for name in chosen:
            refuse_other_items(folder / name, split)
    found = comparison.compare(split, part, folder, minutes=minutes, models=chosen, log=typer.echo)
    for entry in found.entries:
        if entry.problem is None:
            keep_split(folder / entry.model, split)
    keep_quick_copy(best := folder / found.chosen.model, load_run(best).model)
    document = {**found.model_dump(exclude={"format"}), "as_good": found.as_good}
    answer({"folder": folder, "chosen": found.chosen.model, **document}, lambda: _show(found, folder))


def _refuse_other_kinds(names: list[str]) -> None:
    """Refuses models that need another split than the first one does, or that score their training users only."""
    from tfvae.models import model_class

    first, *_ = names
    for name in names:
        if not model_class(name).scores_new_users:
            raise InputError(f"{name} cannot be compared: it scores only the users that it was trained on.")
        if model_class(name).predicts_ratings != model_class(first).predicts_ratings:
            raise InputError(f"{first} and {name} cannot be compared: one of them ranks, the other predicts ratings.")


def _show(found: Comparison, folder: Path) -> None:
    verdicts = {verdict.model: verdict for verdict in found.verdicts}
    rows = []
    for entry in found.entries:
        if entry.validation is None:
            continue
        verdict = verdicts.get(entry.model)
        epochs = f"{entry.epochs} of {entry.planned}" if entry.cut_short else str(entry.epochs or "")
        rows.append(
            (
                entry.model,
                f"{entry.validation:.4f}",
                f"{entry.test[found.monitor][0]:.4f}",
                f"{verdict.difference:+.4f} ± {verdict.se:.4f}" if verdict else "",
                _p_value(verdict.p_value) if verdict else "",
                f"{entry.seconds:,.0f}",
                epochs,
            )
        )
    headings = ("model", "validation", "test", "chosen − this", "p", "seconds", "epochs")
    typer.echo(f"{found.monitor}; differences on the test part ± their standard errors:")
    show_table(headings, rows, headings[1:])
    for entry in found.entries:
        if entry.problem is not None:
            typer.echo(f"Left out: {entry.model}, {entry.problem}")
    typer.echo(_said(found))
    typer.echo(f"Next: {opt.command('tfvae', 'evaluate', folder / found.chosen.model)}")


def _p_value(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def _said(found: Comparison) -> str:
    """Which model to take, and how sure that is, in words."""
    name, as_good = found.chosen.model, found.as_good
    if not found.verdicts:
        return f"Take {name}, the only one that was trained."
    if not as_good:
        return f"Take {name}: it was best on the validation part, and all others are worse on the test part (p < 0.05)."
    seconds = {entry.model: entry.seconds for entry in found.entries}
    quickest = min(as_good, key=lambda other: seconds[other])
    cheaper = ""
    if seconds[quickest] < seconds[name] / 2:
        cheaper = f" Of these, {quickest} trains in {seconds[quickest]:,.0f} s instead of {seconds[name]:,.0f}."
    return (
        f"Take {name}, the best on the validation part. It is not shown to be better than {', '.join(as_good)} on the "
        f"test part (p ≥ 0.05).{cheaper}"
    )
