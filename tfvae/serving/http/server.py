"""Serving on a socket until a signal comes."""

from __future__ import annotations

import gc
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import uvicorn

from tfvae.serving.http.app import create_app
from tfvae.serving.http.limits import Limits
from tfvae.serving.http.versions import Models
from tfvae.system.errors import InputError
from tfvae.system.memory import keep_freed_buffers

__all__ = ["serve"]

SECONDS_TO_END = 30
"""How long requests that run may take once the service is told to end."""
EVERYWHERE = ("0.0.0.0", "::", "")


def serve(folders: Sequence[Path], host: str, port: int, limits: Limits, log: Callable[[str], Any] = print) -> None:
    """Serves finished runs until SIGTERM or SIGINT; then it finishes what it has begun, and returns.

    Args:
        folders: Run folders, or symbolic links to such.
        host: The address to listen on.
        port: The port; 0 takes a free one.
        limits: What the service takes.
        log: Called with each line for the user.

    Raises:
        InputError: If the address cannot be listened on, or a run cannot be served.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("tfvae.serving").setLevel(logging.INFO)
    with _bound(host, port) as listener:
        port = listener.getsockname()[1]
        keep_freed_buffers()
        # A collection over all objects of TensorFlow would hold up every request for a quarter of a second.
        gc.collect()
        gc.freeze()
        models = Models(folders, limits)
        config = uvicorn.Config(
            create_app(models), log_config=None, access_log=False, timeout_graceful_shutdown=SECONDS_TO_END
        )
        server = uvicorn.Server(config)
        for number in (signal.SIGINT, signal.SIGTERM):
            # Uvicorn raises a signal again once it has ended, which must not end the process as if it had failed.
            signal.signal(number, lambda *_: setattr(server, "should_exit", True))
        listener.listen(config.backlog)  # from now on callers wait for an answer and are not refused
        if host in EVERYWHERE:
            log("Anybody who reaches this machine can ask: the service has no passwords.")
        names = ", ".join(f"{served.name} ({served.current.run.kind}, {served.current.name})" for served in models)
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{port}"
        log(f"Serving {names} on {address}, where a page shows what they recommend; described at {address}/docs")
        server.run(sockets=[listener])
        log("Stopped; every request was answered.")


def _bound(host: str, port: int) -> socket.socket:
    """A socket that is bound to an address, before any model is loaded."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # With its protocol, since asyncio sets TCP_NODELAY only where that is named. Otherwise the body of an answer
        # waits until the caller's system has acknowledged the header, which takes 40 ms.
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as problem:
        raise InputError(
            f"cannot listen on {host}, port {port}: {problem.strerror or problem}; choose another --host or --port."
        ) from None
    return listener
