"""`tfvae recommend`: recommendations of a finished run, for one user on the screen or for many in a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tfvae.cli import options as opt
from tfvae.cli.display import show_ranking
from tfvae.cli.everybody import to_everybody
from tfvae.cli.json_output import AsJson, answer
from tfvae.cli.rules import RuleOptions
from tfvae.system.errors import InputError

if TYPE_CHECKING:
    from tfvae.serving.litert_file import LiteRTFile
    from tfvae.serving.ranking import Ranking
    from tfvae.serving.reasons import Reason

__all__ = ["EXAMPLES", "recommend"]

EXAMPLES = (
    "tfvae recommend runs/ml-1m-mult-vae --history 1,50,260",
    "tfvae recommend runs/movietweetings-mult-vae --like gravity --like 'the matrix' -k 5",
    "tfvae recommend runs/ml-1m-p-vae --history 318=5,527=4 --like 'the matrix=5'",
    "tfvae recommend runs/ml-1m-neumf --user 42",
    "tfvae recommend exports/phone --like gravity",
    "tfvae recommend runs/shop-edlae --history 17,23 --only stock.csv --at-most 2 --categories items.csv:kind --why",
    "tfvae recommend runs/shop-edlae --all-users --without sold-out.csv --again --diversity .3 --out top.csv",
    "tfvae recommend runs/shop-edlae --users today.csv --user-col uid --item-col sku --out top.parquet -k 50",
    "tfvae recommend runs/ml-1m-p-vae --all-users --out top.csv",
)

_MANY = "Many people at once"


def recommend(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="The folder of a finished 'tfvae fit', or of a LiteRT export of it."),
    ],
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
    why: Annotated[
        bool,
        typer.Option("--why", help="Say because of which items of the history; for one person, by leaving each out."),
    ] = False,
    only: opt.Only = "",
    without: opt.Without = "",
    again: opt.Again = False,
    min_users: opt.OnlyCommon = 0,
    at_most: opt.AtMost = None,
    categories: opt.Categories = "",
    diversity: opt.Diversity = 0.0,
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
    as_json: AsJson = False,
) -> None:
    """Recommend items to somebody with a history, whom the model need not know, or to one of its training users.

    A model of ratings predicts them, with their standard deviation where it knows one. If it was trained '--by items',
    it is told the ratings of an item by users' ids, and predicts those of other users.

    A history alone is answered at once, without loading TensorFlow, if the extra tfvae[litert] was there when a model
    that ranks was trained; or by a LiteRT export of the run ('tfvae export RUN FOLDER --format litert'), which knows no
    users, and no rules but its own.

    With --users or --all-users the rankings of many people are written to a file with the columns user, rank, item,
    score, title (where titles are known) and sd (where a model of ratings knows it). If this is interrupted, the same
    command goes on where it was.

    The rules hold for one person and for many. Scores stay those of the model; with --diversity they need not fall
    from rank to rank.
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
    given = RuleOptions(only, without, again, min_users, categories, at_most, diversity, item_col)
    if not users and (needless := [name for name in columns if name != "item" or not given.reads_files]):
        raise InputError(f"only --users reads a file of events, so {', '.join(needless)} would change nothing.")
    given.refuse_unfit()
    from tfvae.serving.export_folder import is_litert

    if users or all_users:
        if is_litert(run):
            raise InputError(f"{run} is a LiteRT file, which answers one person at a time; many people need the run.")
        if why:
            raise InputError(
                "--why is for one person: for each, the model would have to score as many histories as they have "
                "items; in Python, tfvae.reasons gives those of chosen people."
            )
        if out is None:
            raise InputError("name the file to write, --out FILE; it ends in .parquet, .csv or .jsonl.")
        to_everybody(run, users, columns, out, k, given)
        return
    if out is not None:
        raise InputError("--out is for --users FILE and --all-users; the ranking of one person is printed.")

    told = [history or [], history_file, like or []]
    from tfvae.serving.litert_file import LiteRTFile
    from tfvae.serving.quick import quick_copy

    a_history_alone = not (user or why or given.are_given)
    if is_litert(run):
        if not a_history_alone:
            raise InputError(
                f"{run} is a LiteRT file, which answers a history by the rules that it was exported with; --user, "
                "--why and further rules need the run itself."
            )
        _from_litert(LiteRTFile(run), told, k)
    elif a_history_alone and (copy := quick_copy(run)):
        _from_litert(copy, told, k)
    else:
        _to_one(run, told, user, k, given, why)


def _from_litert(file: LiteRTFile, told: list, k: int) -> None:
    """Prints the ranking of one person by a LiteRT file, without TensorFlow."""
    from tfvae.cli.histories import history_parts, typed_history

    history, named, like = told
    ids, ratings = typed_history(file.items, history_parts(file.items, history, named), like, file.predicts_ratings)
    ranking = file.recommend(ids, k, ratings if file.predicts_ratings else None)
    answer({"recommended": _records(ranking, None)}, lambda: show_ranking(ranking, file.predicts_ratings))


def _to_one(run: Path, told: list, user: str, k: int, given: RuleOptions, why: bool) -> None:
    """Prints the ranking of one person, who is told by a history or is a training user; checks all before loading."""
    from tfvae.cli.histories import history_parts, typed_history
    from tfvae.cli.run_folder import items_of, training_split
    from tfvae.data.row_shards import rows_of
    from tfvae.models import model_class
    from tfvae.serving.recommendations import recommend as ranked
    from tfvae.serving.recommendations import recommend_to_users
    from tfvae.training.loop import load_run
    from tfvae.training.run_folder import RunFolder
    from tfvae.training.settings import stored_settings

    folder = RunFolder(run)
    folder.refuse_unfinished()
    kind = model_class(name := stored_settings(folder.claim().settings).name)
    if why and not kind.scores_new_users:
        raise InputError(f"{name} serves its training users by weights of their own, and cannot say why.")
    items, rates = items_of(run), kind.predicts_ratings
    rules, k = given.rules(run, items), min(k, items.n_items)
    split = training_split(run) if user else None
    if split is None:
        history, file, like = told
        ids, ratings = typed_history(items, history_parts(items, history, file), like, rates)
    model = load_run(run).model
    if split is not None:
        ranking = recommend_to_users(model, split, [user], k, rules)
        place = [[str(name) for name in split.user_ids.tolist()].index(user)]
        row = rows_of(split.train, place)
        ids, ratings = split.item_ids[row.indices].tolist(), row.data.tolist()
    else:
        scale = items.scale if rates else None
        told_ratings = [ratings] if rates else None
        ranking = ranked(model, items.item_ids, [ids], k, items.titles, told_ratings, scale, rules, graph=False)
    found: list[list[Reason]] | None = None
    if why:
        from tfvae.serving.reasons import reasons

        filled = ranking.items[0][ranking.scores[0] > float("-inf")].tolist()
        found = reasons(model, items.item_ids, ids, filled, ratings=ratings if rates else None)
    because = None
    if found is not None:
        titles = {} if items.titles is None else dict(zip(items.item_ids.tolist(), items.titles.tolist(), strict=True))
        because = [[titles.get(reason.item) or str(reason.item) for reason in of_item] for of_item in found]
    answer({"recommended": _records(ranking, found)}, lambda: show_ranking(ranking, rates, because))


def _records(ranking: Ranking, because: list[list[Reason]] | None) -> list[dict[str, Any]]:
    """What is known of each item of the first user's ranking, without empty ranks; as the columns of a written file."""
    filled = int((ranking.scores[0] > float("-inf")).sum())
    columns = {"item": ranking.items, "title": ranking.titles, "score": ranking.scores, "sd": ranking.sd}
    known = {name: values[0].tolist() for name, values in columns.items() if values is not None}
    records = [{"rank": place + 1} | {name: values[place] for name, values in known.items()} for place in range(filled)]
    for record, reasons in zip(records, because or (), strict=False):
        record["because"] = [reason._asdict() for reason in reasons]
    return records
