"""The command `tfvae`: reads what was typed, calls the floors below, prints what came of it.

TensorFlow is imported inside the commands that need it, so that the others answer at once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

import tfvae
from tfvae.cli import options as opt
from tfvae.cli.display import how_to_serve, show_counts, show_metrics, show_ranking, show_table
from tfvae.cli.tables import sweep, table
from tfvae.models import MODELS
from tfvae.system.errors import InputError, TfvaeError

__all__ = ["app", "main"]


class _Commands(TyperGroup):
    """Prints an error that tfvae raised on purpose as its message, and says after Ctrl-C how to go on."""

    def invoke(self, ctx: typer.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TfvaeError as error:
            if ctx.params["debug"]:
                raise
            typer.secho(f"Error: {error}", err=True, fg=typer.colors.RED)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo("\nStopped. Give the same command again, and it goes on where it was.", err=True)
            raise typer.Exit(130) from None


def _examples(*lines: str) -> str:
    return "\n\n".join(["Examples:", *lines])


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_examples(
        "tfvae fit movietweetings --epochs 20",
        "tfvae fit ratings.csv --user-col user_id --item-col movie_id",
        "tfvae recommend runs/ratings-mult-vae --history 318,527",
        "tfvae fit ratings.csv --model p-vae --rating-col stars",
    ),
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tfvae {tfvae.__version__}")
        raise typer.Exit


@app.callback()
def _before_all(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error arose.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Variational autoencoders for recommendation: from raw data to a table, or to a model that serves.

    'tfvae COMMAND --help' explains each command.
    """
    # Before TensorFlow is loaded: its start-up notes say nothing to a user.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


# ---- commands ---------------------------------------------------------------------------------------


@app.command()
def datasets() -> None:
    """List the named data sets: what is on hand, their licences, how to get the others."""
    from tfvae.data.datasets import DATASETS
    from tfvae.data.open_split import whereabouts

    places = {name: whereabouts(name) for name in DATASETS}
    rows = ((name, DATASETS[name].licence, where or "no") for name, where in places.items())
    show_table(("name", "licence", "on hand"), rows)
    typer.echo("\nTo get the others (files fetched by hand go to $TFVAE_DATA/NAME, or are given by --source):")
    for name in (name for name, where in places.items() if not where):
        download = "downloaded when first used; or " if DATASETS[name].urls else ""
        typer.echo(f"  {name}: {download}{DATASETS[name].how_to_get}")


@app.command(
    epilog=_examples(
        "tfvae prepare ml-1m",
        "tfvae prepare ml-20m --source ~/Downloads/ml-20m.zip --format vae-cf --out data/pro_sg",
        "tfvae prepare ratings.csv --user-col uid --item-col sku --rating-col stars --min-rating 4",
        "tfvae prepare ml-1m --protocol rating-holdout",
        "tfvae prepare ratings.csv --user-col uid --item-col sku --time-col when --protocol leave-one-out",
    )
)
def prepare(
    data: opt.Data,
    source: opt.Source = None,
    out: Annotated[Path | None, typer.Option(help="Where to; data/NAME.npz or data/NAME if not given.")] = None,
    format: Annotated[  # noqa: A002, the option's name
        Literal["npz", "vae-cf"], typer.Option(help="One file of ours, or the folder of Mult-VAE's authors.")
    ] = "npz",
    user_col: opt.UserCol = None,
    item_col: opt.ItemCol = None,
    rating_col: opt.RatingCol = None,
    time_col: opt.TimeCol = None,
    min_rating: opt.MinRating = None,
    min_users: opt.MinUsers = None,
    min_items: opt.MinItems = None,
    held_out: opt.HeldOut = None,
    negatives: opt.Negatives = None,
    split_seed: opt.SplitSeed = None,
    protocol: opt.Protocol = None,
) -> None:
    """Split data into training, validation and test users as the papers did, or hold out ratings or items; save it."""
    from tfvae.data.open_split import open_split
    from tfvae.data.vae_cf import write_vae_cf

    changes = opt.those_given(
        min_rating=min_rating,
        min_users_per_item=min_users,
        min_items_per_user=min_items,
        held_out_users=held_out,
        n_negatives=negatives,
        seed=split_seed,
    )
    columns = opt.those_given(user=user_col, item=item_col, rating=rating_col, timestamp=time_col)
    if format == "vae-cf":
        if protocol == "rating-holdout":
            raise InputError("the vae-cf format holds no ratings; leave --format out.")
        if protocol == "leave-one-out":
            raise InputError("the vae-cf format is one of held-out users; leave --format out.")
        protocol = "strong-generalization"
    split = open_split(data, source=source, columns=columns, changes=changes, protocol=protocol)
    out = out or Path("data", opt.stem(data) + (".npz" if format == "npz" else ""))
    if format == "npz":
        out = split.save(out)
    else:
        write_vae_cf(split, out)
    show_counts(split.counts)
    typer.echo(f"Written: {out}")
    suits = {"rating-holdout": " --model p-vae", "leave-one-out": " --model neumf"}
    typer.echo(f"Next: tfvae fit {out}" + suits.get(split.protocol, ""))


@app.command(
    epilog=_examples(
        "tfvae fit movietweetings --epochs 20",
        "tfvae fit ratings.csv --user-col uid --item-col sku --rating-col stars --min-rating 4",
        "tfvae fit data/ml-1m.npz --model mult-dae --set latent_dim=100 --set hidden=[300] --run runs/small",
        "tfvae fit ratings.csv --model p-vae --user-col uid --item-col sku --rating-col stars",
    )
)
def fit(
    data: opt.Data,
    model: Annotated[str, typer.Option(help=f"One of {', '.join(MODELS)}.")] = "mult-vae",
    run: Annotated[Path | None, typer.Option(help="The run folder; runs/DATA-MODEL if not given.")] = None,
    epochs: opt.Epochs = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of weights, order of users and noise.")] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Equal bits from run to run on a GPU too; slower there.")
    ] = False,
    set_: opt.Set = None,
    source: opt.Source = None,
    user_col: opt.UserCol = None,
    item_col: opt.ItemCol = None,
    rating_col: opt.RatingCol = None,
    time_col: opt.TimeCol = None,
    min_rating: opt.MinRating = None,
    held_out: opt.HeldOut = None,
    by: Annotated[
        Literal["users", "items"], typer.Option(help="What a model of ratings takes as rows; items make it item-based.")
    ] = "users",
) -> None:
    """Train a recommender into a run folder; an interrupted run goes on when the command is given again.

    A model of ratings learns from 81 % of them; its epoch is chosen on 9 %, and 10 % are for 'tfvae evaluate'. Of each
    user of gmf, mlp and neumf, who serve nobody else, one item is for the choice and the latest for 'tfvae evaluate'.
    'tfvae prepare' has more ways to cut the data, and its split can be given as DATA.
    """
    from tfvae.cli.run_folder import learnt_from, measure, split_for
    from tfvae.training.adapt import settings_for
    from tfvae.training.loop import train
    from tfvae.training.settings import settings_of

    given = opt.settings_from(set_) | opt.those_given(epochs=epochs, seed=seed, deterministic=deterministic or None)
    settings_of(model, given)  # a misspelt setting shall not have to wait until large data are read
    columns = opt.those_given(user=user_col, item=item_col, rating=rating_col, timestamp=time_col)
    changes = opt.those_given(min_rating=min_rating, held_out_users=held_out)
    split = split_for(model, data, by, source=source, columns=columns, changes=changes)
    part = learnt_from(split)
    folder = run or Path("runs", f"{opt.stem(data)}-{model}" + ("-by-items" if by == "items" else ""))
    finished = (folder / "run.json").is_file()
    trained = train(settings_for(model, given, part, typer.echo), part, folder, log=typer.echo)
    if not (folder / "split.npz").is_file():
        split.save(folder / "split.npz")
    if finished:
        typer.echo(f"{folder} was trained before; there is nothing left to do.")
    elif trained.epochs:
        typer.echo(f"Best epoch: {trained.best_epoch + 1} of {trained.epochs}; {trained.seconds:,.0f} s of training")
    typer.echo("Validation:")
    summary, counts = measure(trained.model, part.validation)
    show_metrics(summary, counts)
    typer.echo(f"Next: tfvae evaluate {folder}")
    if trained.model.scores_new_users:
        rating = f"={split.scale[1]:g}" if trained.model.predicts_ratings else ""
        typer.echo(f"      tfvae recommend {folder} --history {split.item_ids[0]}{rating}")
    else:
        typer.echo(f"      tfvae recommend {folder} --user {split.user_ids[0]}")
    typer.echo(f"      tensorboard --logdir {folder}")


@app.command(epilog=_examples("tfvae evaluate runs/ml-1m-mult-vae --metrics ndcg@10,recall@10"))
def evaluate(
    run: opt.RunFolder,
    metrics: Annotated[
        str,
        typer.Option(
            metavar="NAME@K,…",
            help="Of ndcg, recall and hr, each with its cut-off; ndcg@100,recall@20,recall@50 if not given. Of ratings "
            "rmse and mae.",
        ),
    ] = "",
) -> None:
    """Measure a finished run on the test users or ratings; the result is also written to evaluation.json."""
    from tfvae.cli.run_folder import finished, measure
    from tfvae.system.environment import commit, environment
    from tfvae.system.files import write_json

    trained, split = finished(run)
    summary, counts = measure(trained.model, split.test, opt.listed(metrics))
    outcome = {
        "metrics": summary,
        **counts,
        "data_digest": split.digest,
        "environment": environment(),
        "commit": commit(),
    }
    write_json(run / "evaluation.json", outcome)
    show_metrics(summary, counts)


@app.command(
    epilog=_examples(
        "tfvae recommend runs/ml-1m-mult-vae --history 1,50,260",
        "tfvae recommend runs/movietweetings-mult-vae --like gravity --like 'the matrix' -k 5",
        "tfvae recommend runs/ml-1m-p-vae --history 318=5,527=4 --like 'the matrix=5'",
        "tfvae recommend runs/ml-1m-neumf --user 42",
    )
)
def recommend(
    run: opt.RunFolder,
    history: Annotated[
        str, typer.Option(metavar="ID,ID,…", help="Items somebody has, by id; ID=RATING,… for a model of ratings.")
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
    from tfvae.cli.run_folder import common_items, finished, history_of, ranking_for, typed_history
    from tfvae.serving.saved_model import recommend as ranked

    if bool(history or like) == bool(user):
        raise InputError("name what the person has, --history ID,ID,… or --like 'part of a title'; or --user ID alone.")
    trained, split = finished(run)
    rates, candidates = trained.model.predicts_ratings, common_items(split, min_users)
    if user and not trained.model.scores_new_users:
        show_ranking(ranking_for(trained.model, split, user, k, candidates), rates)
        return
    typed = opt.listed(history), like or []
    ids, ratings = history_of(split, user, rates) if user else typed_history(split, *typed, rates)
    told = {"candidates": candidates} | ({"ratings": [ratings], "scale": split.scale} if rates else {})
    show_ranking(ranked(trained.model, split.item_ids, [ids], min(k, split.n_items), split.titles, **told), rates)


@app.command(epilog=_examples("tfvae export runs/ml-1m-mult-vae exports/ml-1m"))
def export(
    run: opt.RunFolder,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write it.")],
    min_users: opt.OnlyCommon = 0,
) -> None:
    """Write a finished run as a SavedModel, which needs TensorFlow alone to recommend."""
    from tfvae.cli.run_folder import common_items, finished
    from tfvae.serving.saved_model import export as write

    trained, split = finished(run)
    scale = split.scale if trained.model.predicts_ratings else None
    write(trained.model, split.item_ids, folder, split.titles, scale, common_items(split, min_users))
    typer.echo(f"Written: {folder}. To recommend from it:\n{how_to_serve(folder, split.item_ids, scale)}")


app.command(
    epilog=_examples(
        "tfvae table multvae-table2 --dataset ml-1m --seeds 1,2,3",
        "tfvae table multvae-table2 --dataset movietweetings --rows popularity,ease",
        "tfvae table multvae-table2 --data ratings.csv --user-col uid --item-col sku --rows popularity,ease",
    )
)(table)
app.command(
    epilog=_examples(
        "tfvae sweep multvae-table2 --row mult-vae --dataset ml-1m --trials 20",
        "tfvae sweep multvae-table2 --row mult-vae --data ratings.csv --user-col uid --item-col sku --trials 20",
    )
)(sweep)


@app.command()
def doctor(
    device: Annotated[bool, typer.Option("--device", help="Also load TensorFlow and name the device.")] = False,
) -> None:
    """Look whether this machine can run tfvae; the exit code is 1 if something is broken."""
    from tfvae.cli.doctor import examine

    findings = examine(device)
    lines = (("BROKEN" if broken else "ok", what, seen, broken) for what, seen, broken in findings)
    show_table(("", "what", "found", "what to do"), lines)
    raise typer.Exit(int(any(finding.broken for finding in findings)))


def main() -> None:
    """Runs the command line."""
    app(prog_name="tfvae")
