"""`tfvae fit`: from data to a trained model in a run folder."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tfvae.cli import options as opt
from tfvae.cli.compare import comparison_folder
from tfvae.cli.display import show_metrics
from tfvae.cli.json_output import AsJson, answer
from tfvae.cli.retrain import retrain
from tfvae.models import MODELS
from tfvae.system.errors import InputError, unknown_name

if TYPE_CHECKING:
    from tfvae.data.splits import Split

__all__ = ["EXAMPLES", "fit"]

AUTO = "auto"

EXAMPLES = (
    "tfvae fit movietweetings --epochs 20",
    "tfvae fit ratings.csv --user-col uid --item-col sku --rating-col stars --min-rating 4",
    "tfvae fit data/ml-1m.npz --model mult-dae --set latent_dim=100 --set hidden=[300] --run runs/small",
    "tfvae fit orders.parquet --items products.csv --model edlae",
    "tfvae fit ratings.csv --model p-vae --user-col uid --item-col sku --rating-col stars",
    "tfvae fit ratings-today.csv --from runs/ratings-mult-vae --epochs 20",
    "tfvae fit ratings.csv --log mlflow",
    "tfvae fit gowalla --protocol weak-generalization --model ease --set regularization=80",
)


def fit(
    data: opt.Data,
    model: Annotated[
        str | None,
        typer.Option(
            help=f"One of {', '.join(MODELS)}; or auto, which takes the one that 'tfvae compare' chose, else the one "
            "that our results support for data of that size. If not given, it is auto, or the model of --from."
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="The run folder; runs/DATA-MODEL if not given, with a number if --from finds that taken."),
    ] = None,
    former: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="A finished run that goes on with DATA, which are the whole data as they are now, not only what is "
            "new. Known items keep their weights; held-out users stay held out, and new ones are for training. "
            "Settings and options of the data are RUN's where no others are given, but for the names of columns and "
            "--items. RUN is only read.",
        ),
    ] = None,
    epochs: opt.Epochs = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of weights, order of users and noise.")] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Equal bits from run to run on a GPU too; slower there.")
    ] = False,
    tensorboard: Annotated[
        Literal["all", "curves", "off"],
        typer.Option(help="What is logged for TensorBoard; curves leave out the item vectors of its projector."),
    ] = "all",
    set_: opt.Set = None,
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
    protocol: opt.Protocol = None,
    by: Annotated[
        Literal["users", "items"], typer.Option(help="What a model of ratings takes as rows; items make it item-based.")
    ] = "users",
    log_to: Annotated[
        Literal["mlflow"] | None,
        typer.Option(
            "--log",
            help="Log the run to MLflow as well, where MLFLOW_TRACKING_URI says; TensorBoard has it in any case.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a recommender into a run folder; an interrupted run goes on when the command is given again.

    A model of ratings learns from 81 % of them; its epoch is chosen on 9 %, and 10 % are for 'tfvae evaluate'. Of each
    user of gmf, mlp and neumf, who serve nobody else, one item is for the choice and the latest for 'tfvae evaluate'.
    With --protocol weak-generalization, a fifth of each user's items is for 'tfvae evaluate' and a tenth of the others
    for the choice.
    'tfvae prepare' has more ways to cut the data, and its split can be given as DATA.
    Where TF_CONFIG names several workers, each of which is given the same command, they train together.
    With --from, new users and items join a finished run, in a folder of its own; what moved is printed, and kept there
    in retrained.json. Models in closed form are solved anew.
    """
    from tfvae.data.sources import stem

    if model is not None and model not in (AUTO, *MODELS):
        raise unknown_name("model", model, [*MODELS, AUTO])
    if log_to == "mlflow":
        from tfvae.training.mlflow_log import refuse_no_mlflow

        refuse_no_mlflow()
    given = opt.settings_from(set_) | opt.those_given(epochs=epochs, seed=seed, deterministic=deterministic or None)
    columns = opt.file_options(user_col, item_col, rating_col, time_col, delimiter)
    changes = opt.those_given(min_rating=min_rating, held_out_users=held_out)
    table = opt.item_table(items, items_id_col, items_title_col)
    of_the_data: dict[str, Any] = {"source": source, "columns": columns, "changes": changes}
    if former is not None:
        if os.environ.get("TF_CONFIG"):
            raise InputError("--from: a run goes on on one machine; unset TF_CONFIG.")
        typer.echo(f"Training {former} further on {data}")
        asked: dict[str, Any] = {
            "model": model,
            "run": run,
            "settings": given,
            "by": by,
            "protocol": protocol,
            "table": table,
        }
        retrain(data, former, tensorboard=tensorboard, log_to=log_to, **asked, **of_the_data)
        return
    model = model or AUTO

    def folder_of(model: str) -> Path:
        return run or Path("runs", f"{stem(data)}-{model}" + ("-by-items" if by == "items" else ""))

    trains = "a model that suits the data" if model == AUTO else model
    where = "" if model == AUTO and run is None else f", in {folder_of(model)}"
    typer.echo(f"Training {trains}: {data}{where}")

    # What follows takes seconds to load.
    from tfvae.cli.run_folder import (
        keep_split,
        learnt_from,
        measure,
        next_commands,
        refuse_another_split,
        refuse_other_items,
        say_trained,
        split_for,
    )
    from tfvae.data.items import Items
    from tfvae.serving.quick import keep_quick_copy
    from tfvae.training.adapt import settings_for
    from tfvae.training.loop import train
    from tfvae.training.mlflow_log import in_mlflow
    from tfvae.training.run_folder import RunFolder
    from tfvae.training.settings import TrainingSettings, settings_of
    from tfvae.training.workers import join, refuse_one_machine

    if model != AUTO and os.environ.get("TF_CONFIG"):
        refuse_one_machine(model)
    workers = join()
    # So that a wrong setting is reported before large data are read.
    if model != AUTO:
        settings_of(model, given)
    elif of_a_model := sorted(given.keys() - TrainingSettings.model_fields.keys()):
        raise InputError(
            f"--set {of_a_model[0]}: which settings there are depends on the model; name it, with --model."
        )
    split = split_for(_opened(model, data), data, by, protocol, items=table, **of_the_data)
    if model == AUTO:
        model, found = _chosen(data, split)
        given = found | given
    part = learnt_from(split)
    folder = folder_of(model)
    refuse_another_split(folder, split)
    if table is not None:
        refuse_other_items(folder, split)
    finished = RunFolder(folder).is_finished
    # The stored items are those of the whole split, although the model learns from a part of it.
    settings = settings_for(model, given, part, typer.echo)
    together = train if workers is None else workers.train
    keeps_run = workers is None or workers.is_chief
    with in_mlflow(folder, typer.echo) if log_to == "mlflow" and keeps_run else nullcontext() as follow:
        trained = together(
            settings, part, folder, items=Items.of(split), follow=follow, tensorboard=tensorboard, log=typer.echo
        )
    if trained is None:
        typer.echo("This worker is done; worker 0 has the run.")
        return
    keep_split(folder, split)
    keep_quick_copy(folder, trained.model)
    say_trained(folder, finished, trained)
    summary, counts = measure(trained.model, part.validation_part)
    told = {
        "run": folder,
        "model": model,
        "trained_before": finished,
        "epochs": trained.epochs,
        "best_epoch": trained.best_epoch,
        "seconds": trained.seconds,
        "validation": {"metrics": summary, **counts},
    }
    answer(told, lambda: _show(summary, counts))
    next_commands(folder, split, trained.model)


def _show(summary: dict[str, dict[str, float]], counts: dict[str, int]) -> None:
    typer.echo("Validation:")
    show_metrics(summary, counts)


def _opened(model: str, data: str) -> str:
    """The model whose split is opened; for `auto` one that suits data that come split, or ranks."""
    from tfvae.cli.run_folder import is_saved
    from tfvae.data.splits import load_split

    if model != AUTO:
        return model
    return "p-vae" if is_saved(data) and load_split(data).protocol == "rating-holdout" else "ease"


def _chosen(data: str, split: Split) -> tuple[str, dict[str, Any]]:
    """The model that `tfvae compare` chose for these data, or the usual one, and its settings; says which and why."""
    from tfvae.experiments.comparison import chosen_model
    from tfvae.experiments.usual_model import usual_model

    folder = comparison_folder(data)
    entry = chosen_model(folder, split)
    if entry is not None:
        typer.echo(f"auto takes {entry.model}, which was best on the validation part in {folder}.")
        return entry.model, {name: value for name, value in entry.settings.items() if name != "model"}
    usual = usual_model(split)
    typer.echo(
        f"auto takes {usual.name}: {usual.why}. Which model is best on your data, "
        f"'{opt.command('tfvae', 'compare', data)}' finds out."
    )
    return usual.name, usual.settings
