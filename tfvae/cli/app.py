"""The command `tfvae`: its subcommands, one file each, and how all of them report errors.

TensorFlow, pandas and whatever needs them are imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import tfvae
from tfvae.cli import (
    compare,
    datasets,
    doctor,
    ensemble,
    evaluate,
    export,
    fit,
    prepare,
    recommend,
    serve,
    similar,
    tables,
)
from tfvae.system.errors import TfvaeError
from tfvae.system.start_up import prepare_start

__all__ = ["app", "main"]

STOPPED = "\nStopped. Give the same command again, and it goes on where it was."


class _Terminated(BaseException):
    """Raised on SIGTERM, as KeyboardInterrupt is on SIGINT."""


class _Commands(TyperGroup):
    """Prints one message when an error raised on purpose, a system error or a signal ends a command."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, _Terminated) as signalled:
            typer.echo(STOPPED, err=True)
            raise typer.Exit(130 if isinstance(signalled, KeyboardInterrupt) else 143) from None
        except Exception as error:
            message = None if ctx.params["debug"] else _told(error)
            if message is None:
                raise
            typer.secho(f"Error: {message}", err=True, fg=typer.colors.RED)
            raise typer.Exit(2) from None


def _told(error: Exception) -> str | None:
    """The message that users get for an error; None for a bug in tfvae, for which a traceback is wanted."""
    if isinstance(error, TfvaeError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"there is not enough memory ({error or 'no more is known'}). What was finished before is kept."
    of_tensorflow = type(error).__module__ == "tensorflow.python.framework.errors_impl"
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        where = f"{error.filename}: " if error.filename else ""
        reason = f"{where}{error.strerror or error}"
    elif of_tensorflow and type(error).__name__ in ("ResourceExhaustedError", "PermissionDeniedError", "UnknownError"):
        reason = str(error)
    else:
        return None
    return f"{reason}. What was finished before is kept: mend this, and give the same command again."


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

    Exit codes: 0 done; 1 a fault, or a finding of 'tfvae doctor'; 2 wrong input, no memory or disk; 130, 143 stopped.
    """


for command, examples in (
    (datasets.datasets, ()),
    (prepare.prepare, prepare.EXAMPLES),
    (fit.fit, fit.EXAMPLES),
    (compare.compare, compare.EXAMPLES),
    (ensemble.ensemble, ensemble.EXAMPLES),
    (evaluate.evaluate, evaluate.EXAMPLES),
    (recommend.recommend, recommend.EXAMPLES),
    (similar.similar, similar.EXAMPLES),
    (export.export, export.EXAMPLES),
    (serve.serve, serve.EXAMPLES),
    (tables.table, tables.TABLE_EXAMPLES),
    (tables.sweep, tables.SWEEP_EXAMPLES),
    (doctor.doctor, ()),
):
    app.command(epilog=_examples(*examples) if examples else None)(command)


def main() -> None:
    """Runs the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a character that a terminal cannot show must not end a run
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    prepare_start()
    try:
        app(prog_name="tfvae")
    except _Terminated:  # raised before or after the command itself
        sys.exit(143)


def _stop(number: int, _: Any) -> None:
    """Ends the process on a signal.

    An exception that is raised while TensorFlow's threads run can lead to a segmentation fault. So once TensorFlow is
    loaded, the process exits at once. Nothing is lost, since every file is either complete or absent at any time.
    """
    if "tensorflow" not in sys.modules:
        raise KeyboardInterrupt if number == signal.SIGINT else _Terminated
    os.write(2, f"{STOPPED}\n".encode())
    os._exit(128 + number)
