"""`tfvae recommend`: recommendations of a finished run for one user."""

from __future__ import annotations

from typing import Annotated

import typer

from tfvae.cli import options as opt
from tfvae.cli.display import show_ranking
from tfvae.system.errors import InputError

__all__ = ["EXAMPLES", "recommend"]

EXAMPLES = (
    "tfvae recommend runs/ml-1m-mult-vae --history 1,50,260",
    "tfvae recommend runs/movietweetings-mult-vae --like gravity --like 'the matrix' -k 5",
    "tfvae recommend runs/ml-1m-p-vae --history 318=5,527=4 --like 'the matrix=5'",
    "tfvae recommend runs/ml-1m-neumf --user 42",
)


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
) -> None:
    """Recommend items to somebody with a history, whom the model need not know, or to one of its training users.

    A model of ratings predicts them, with their standard deviation where it knows one. If it was trained '--by items',
    it is told the ratings of an item by users' ids, and predicts those of other users.
    """
    from tfvae.cli.run_folder import common_items, history_parts, served, training_split, typed_history
    from tfvae.serving.recommendations import recommend as ranked
    from tfvae.serving.recommendations import recommend_to_users

    if "" in (like or ()):
        raise InputError("--like '' names no item; give a part of a title.")
    if bool(history or history_file or like) == bool(user):
        raise InputError("name what the person has, --history ID,ID,… or --like 'part of a title'; or --user ID alone.")
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
