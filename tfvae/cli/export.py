"""`tfvae export`: a finished run as a SavedModel."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfvae.cli import options as opt
from tfvae.cli.display import how_to_serve

__all__ = ["EXAMPLES", "export"]

EXAMPLES = ("tfvae export runs/ml-1m-mult-vae exports/ml-1m",)


def export(
    run: opt.RunFolder,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write it.")],
    min_users: opt.OnlyCommon = 0,
) -> None:
    """Write a finished run as a SavedModel, which needs TensorFlow alone to recommend."""
    from tfvae.cli.run_folder import served
    from tfvae.serving.rules import Rules
    from tfvae.serving.saved_model import export as write

    trained, items = served(run)
    scale = items.scale if trained.model.predicts_ratings else None
    rules = Rules(min_users=min_users, n_users=items.n_users)
    write(trained.model, items.item_ids, folder, items.titles, scale, rules)
    typer.echo(f"Written: {folder}. To recommend from it:\n{how_to_serve(folder, items.item_ids, scale)}")
