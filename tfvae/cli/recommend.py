"""`tfvae recommend`: recommendations of a finished run, for one user on the screen or for many in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfvae.cli import options as opt
from tfvae.cli.display import show_ranking
from tfvae.cli.everybody import to_everybody
from tfvae.system.errors import InputError

__all__ = ["EXAMPLES", "recommend"]

EXAMPLES = (
    "tfvae recommend runs/ml-1m-mult-vae --history 1,50,260",
    "tfvae recommend runs/movietweetings-mult-vae --like gravity --like 'the matrix' -k 5",
    "tfvae recommend runs/ml-1m-p-vae --history 318=5,527=4 --like 'the matrix=5'",
    "tfvae recommend runs/ml-1m-neumf --user 42",
    "tfvae recommend runs/shop-edlae --users today.csv --user-col uid --item-col sku --out top.parquet -k 50",
    "tfvae recommend runs/ml-1m-p-vae --all-users --out top.csv",
)

_MANY = "Many people at once"


def recommend(
    run: opt.RunFolder,
    history: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID,ID,…",
            help="Items somebody has, by id; ID=RATING,… for a model of ratings. Repeatable; an id may have commas.",
        ),
    ] = None,
    history_file: Annotated[
        str, typer.Option(metavar="FILE", help="A file with an item a line, as in --history; - is the standard input.")
    ] = "",
    like: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="An item by part of its title, with =RATING likewise; repeatable."),
    ] = None,
    user: Annotated[
        str, typer.Option(metavar="ID", help="Instead of a history: one of the training users, by id.")
    ] = "",
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="How many to recommend.")] = 10,
    min_users: opt.OnlyCommon = 0,
    users: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            rich_help_panel=_MANY,
            help="Everybody in a file of one event per line (CSV, JSON lines or Parquet; - is the standard input).",
        ),
    ] = "",
    all_users: Annotated[
        bool, typer.Option("--all-users", rich_help_panel=_MANY, help="All training users, with their training items.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(rich_help_panel=_MANY, help="The file to write; it ends in .parquet, .csv or .jsonl."),
    ] = None,
    user_col: opt.UserCol = None,
    item_col: opt.ItemCol = None,
    rating_col: opt.RatingCol = None,
    delimiter: opt.Delimiter = None,
    min_rating: Annotated[
        float | None,
        typer.Option(
            rich_help_panel="A file of your own",
            help="First drop events rated below, as 'tfvae fit' was told to; for models that rank.",
        ),
    ] = None,
) -> None:
    """Recommend items to somebody with a history, whom the model need not know, or to one of its training users.

    A model of ratings predicts them, with their standard deviation where it knows one. If it was trained '--by items',
    it is told the ratings of an item by users' ids, and predicts those of other users.

    With --users or --all-users the rankings of many people are written to a file with the columns user, rank, item,
    score, title (where titles are known) and sd (where a model of ratings knows it). If this is interrupted, the same
    command goes on where it was.
    """
    if "" in (like or ()):
        raise InputError("--like '' names no item; give a part of a title.")
    if sum(map(bool, (history or history_file or like, user, users, all_users))) != 1:
        raise InputError(
            "name what the person has, --history ID,ID,… or --like 'part of a title'; or --user ID alone; or many "
            "people, --users FILE or --all-users, alone as well."
        )
    columns = opt.file_options(user_col, item_col, rating_col, None, delimiter)
    columns |= opt.those_given(min_rating=min_rating)
    if columns and not users:
        raise InputError(f"only --users reads a file of events, so {', '.join(columns)} would change nothing.")
    if users or all_users:
        if out is None:
            raise InputError("name the file to write, --out FILE; it ends in .parquet, .csv or .jsonl.")
        to_everybody(run, users, columns, out, k, min_users)
        return
    if out is not None:
        raise InputError("--out is for --users FILE and --all-users; the ranking of one person is printed.")

    from tfvae.cli.run_folder import common_items, history_parts, served, training_split, typed_history
    from tfvae.serving.recommendations import recommend as ranked
    from tfvae.serving.recommendations import recommend_to_users

    trained, items = served(run)
    rates, candidates, k = trained.model.predicts_ratings, common_items(items, min_users), min(k, items.n_items)
    if user:
        ranking = recommend_to_users(trained.model, training_split(run), [user], k, candidates)
    else:
        parts = history_parts(items, history or [], history_file)
        ids, ratings = typed_history(items, parts, like or [], rates)
        told = [ratings] if rates else None
        scale = items.scale if rates else None
        ranking = ranked(trained.model, items.item_ids, [ids], k, items.titles, told, scale, candidates)
    show_ranking(ranking, rates)
