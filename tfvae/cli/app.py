"""The command `tfvae`: its commands, one file each, and what all of them do about errors.

TensorFlow, pandas and what needs them are imported inside the commands, so that help is there at once.
"""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import tfvae
from tfvae.cli import datasets, doctor, evaluate, export, fit, prepare, recommend, tables
from tfvae.system.errors import TfvaeError

__all__ = ["app", "main"]


class _Commands(TyperGroup):
    """Prints an error that tfvae raised on purpose as its message, and says after Ctrl-C how to go on."""

    def invoke(self, ctx: Any) -> Any:
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


for command, examples in (
    (datasets.datasets, ()),
    (prepare.prepare, prepare.EXAMPLES),
    (fit.fit, fit.EXAMPLES),
    (evaluate.evaluate, evaluate.EXAMPLES),
    (recommend.recommend, recommend.EXAMPLES),
    (export.export, export.EXAMPLES),
    (tables.table, tables.TABLE_EXAMPLES),
    (tables.sweep, tables.SWEEP_EXAMPLES),
    (doctor.doctor, ()),
):
    app.command(epilog=_examples(*examples) if examples else None)(command)


def main() -> None:
    """Runs the command line."""
    app(prog_name="tfvae")
