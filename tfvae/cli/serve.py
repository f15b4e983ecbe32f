"""`tfvae serve`: finished runs behind an HTTP service."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from tfvae.system.errors import InputError

__all__ = ["EXAMPLES", "serve"]

EXAMPLES = (
    "tfvae serve runs/movietweetings-mult-vae",
    "tfvae serve runs/shop-edlae runs/ml-1m-p-vae --port 8080",
    "ln -sfn shop-2026-03 runs/shop && tfvae serve runs/shop --max-history 500",
)

NEEDED = ("fastapi", "fastapi_offline", "uvicorn", "prometheus_client")
_LIMITS = "Limits"


def serve(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders, or symbolic links to such; their names are the models'."),
    ],
    host: Annotated[str, typer.Option(help="The address to listen on; others cannot reach the default.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8000,
    max_history: Annotated[
        int, typer.Option(min=1, rich_help_panel=_LIMITS, help="Largest number of items in a history.")
    ] = 1_000,
    max_k: Annotated[
        int, typer.Option(min=1, rich_help_panel=_LIMITS, help="Largest number of items in an answer.")
    ] = 1_000,
    max_body: Annotated[
        int, typer.Option(min=1, rich_help_panel=_LIMITS, help="Largest body of a request, in bytes.")
    ] = 2**20,
    queue: Annotated[
        int,
        typer.Option(
            min=1, rich_help_panel=_LIMITS, help="Requests to a model that may wait or run; more get status 503."
        ),
    ] = 512,
    window_ms: Annotated[
        float,
        typer.Option(
            min=0,
            max=1000,
            rich_help_panel=_LIMITS,
            help="Milliseconds that a request waits for others that are answered in the same batch.",
        ),
    ] = 2.0,
    poll_seconds: Annotated[
        float, typer.Option(min=0.1, help="Seconds between two looks whether a folder has another finished run.")
    ] = 5.0,
) -> None:
    """Answer requests over HTTP: recommendations, similar items, predicted ratings. http://HOST:PORT/docs lists them.

    When another finished run lies in a folder, or a symbolic link leads to one, it takes over without a lost request.
    SIGTERM and Ctrl-C end the service once all requests are answered. docs/serving.md has an example of each request.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise InputError(f"{', '.join(missing)} is not installed; the service needs it: pip install 'tfvae[serve]'")
    from tfvae.serving.http.limits import Limits
    from tfvae.serving.http.server import serve as serve_until_signal

    limits = Limits(
        max_history=max_history,
        max_k=max_k,
        max_body=max_body,
        queue=queue,
        window_ms=window_ms,
        poll_seconds=poll_seconds,
    )
    serve_until_signal(runs, host, port, limits, typer.echo)
