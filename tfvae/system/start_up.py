"""How the command line loads TensorFlow: without what Keras can do without, and without notices on the screen.

This file is also the program that leaves the notices out: it copies its input to standard error, line by line.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

__all__ = ["NOTICE", "prepare_start", "without_notices"]

NOTICE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog"
    rb"|[IW]\d{4} \d\d:\d\d:"
    # Errors by their letter only: there is no driver of a graphics card, or TensorFlow 2.20 registered a part twice.
    rb"|E\d{4} \d\d:\d\d:.*("
    rb"failed call to cuInit: .*\(303\)|Unable to register cu\w+ factory|computation placer already registered)"
)
"""What a line that says nothing to users begins with."""

OPTIONAL = ("IPython", "matplotlib", "sklearn")
"""What Keras imports if it is there, for plots and wrappers that tfvae has no use of: a quarter of its start."""


def prepare_start() -> None:
    """Arranges how TensorFlow and Keras are loaded when the first command needs them; for the command line only.

    In other programs `keras.utils.plot_model` and the like must go on to work. Who sets `TF_CPP_MIN_LOG_LEVEL` to 0 or
    1 sees all that TensorFlow writes.
    """
    from tfvae.system.imports import around_import, declined  # here, since the program finds no tfvae

    around_import("keras", lambda: declined(*OPTIONAL))
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2") not in ("0", "1"):
        around_import("tensorflow", _quiet_start)


@contextmanager
def _quiet_start() -> Iterator[None]:
    with without_notices():
        yield
        # Looked for now instead of at the first operation, since not to find any leads to a notice, too.
        with suppress(Exception):
            sys.modules["tensorflow"].config.list_physical_devices("GPU")


@contextmanager
def without_notices() -> Iterator[None]:
    """Within it, lines of standard error that are a `NOTICE` are left out, even those that C++ writes.

    TensorFlow writes some while its libraries are loaded, before it has read how much it shall write. A process of its
    own looks at them: loading holds the interpreter's lock, so that a thread could not, and what was written last
    before a crash must not be lost.
    """
    try:
        screen = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    try:
        # In a session of its own, so that Ctrl-C does not end it before all is written.
        sieve = subprocess.Popen([sys.executable, "-I", "-S", __file__], stdin=subprocess.PIPE, start_new_session=True)
    except OSError:
        os.close(screen)
        yield
        return
    assert sieve.stdin is not None
    with sieve.stdin as pipe:
        os.dup2(pipe.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(screen, 2)
        os.close(screen)
        with suppress(subprocess.TimeoutExpired):  # as when a process that goes on has the pipe as well
            sieve.wait(timeout=5)


def _copy(source: BinaryIO, target: BinaryIO) -> None:
    """Copies all lines but the notices, each as soon as it is whole."""
    for line in source:
        if not NOTICE.match(line):
            target.write(line)
            target.flush()


if __name__ == "__main__":
    _copy(sys.stdin.buffer, sys.stderr.buffer)
