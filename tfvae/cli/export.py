"""`tfvae export`: a finished run as a SavedModel or as a LiteRT file."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer

from tfvae.cli import options as opt
from tfvae.cli.display import how_to_run_litert, how_to_serve, how_to_start_serving
from tfvae.system.errors import InputError

__all__ = ["EXAMPLES", "export"]

EXAMPLES = (
    "tfvae export runs/ml-1m-mult-vae exports/ml-1m",
    "tfvae export runs/ml-1m-mult-vae exports/ml-1m --versioned",
    "tfvae export runs/ml-1m-mult-vae exports/phone --format litert",
)


def export(
    run: opt.RunFolder,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write it.")],
    format_: Annotated[
        Literal["savedmodel", "litert"],
        typer.Option(
            "--format", help="A SavedModel for servers, or a LiteRT (TensorFlow Lite) file for phones and browsers."
        ),
    ] = "savedmodel",
    versioned: Annotated[
        bool,
        typer.Option(
            "--versioned", help="Write into FOLDER/1, or the next free number, as TensorFlow Serving wants its models."
        ),
    ] = False,
    min_users: opt.OnlyCommon = 0,
) -> None:
    """Write a finished run as a SavedModel, which needs TensorFlow alone to recommend, or as a LiteRT file."""
    litert = format_ == "litert"
    if litert and versioned:
        raise InputError("--versioned numbers SavedModels for TensorFlow Serving; leave it out, or leave --format out.")
    from tfvae.cli.run_folder import served
    from tfvae.serving.export_folder import next_version
    from tfvae.serving.litert import export_litert
    from tfvae.serving.rules import Rules
    from tfvae.serving.saved_model import export as export_saved_model

    trained, items = served(run)
    scale = items.scale if trained.model.predicts_ratings else None
    rules = Rules(min_users=min_users, n_users=items.n_users)
    write = export_litert if litert else export_saved_model
    with next_version(folder) if versioned else nullcontext(folder) as place:
        write(trained.model, items.item_ids, place, items.titles, scale, rules)
    how = how_to_run_litert(place, scale) if litert else how_to_serve(place, items.item_ids, scale)
    typer.echo(f"Written: {place}. To recommend from it:\n{how}")
    if versioned:
        typer.echo(f"To serve the newest version in {folder}:\n{how_to_start_serving(folder)}")
