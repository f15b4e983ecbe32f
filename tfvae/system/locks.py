"""A folder that one process holds at a time; the lock ends with its process, however that ends."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import lock_descriptor

from tfvae.system.errors import InputError

__all__ = ["LOCK_FILE", "held"]

_log = logging.getLogger(__name__)

LOCK_FILE = ".lock"
"""Its name in a folder that is held."""


@contextmanager
def held(folder: Path) -> Iterator[Path]:
    """Holds a folder, made when missing, against other processes.

    The lock is the operating system's, on a file `.lock` with the number of the process. The file is removed at the
    end; one that a killed process left behind is locked by nobody.

    Args:
        folder: What to hold.

    Yields:
        The folder.

    Raises:
        InputError: If another process holds it, with its number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_FILE
    descriptor = _locked(path, folder)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield folder
    finally:
        try:
            with suppress(OSError):  # Windows does not remove an open file; left behind, it locks nothing
                path.unlink()
        finally:
            os.close(descriptor)
        with suppress(OSError):
            folder.rmdir()  # only where nothing came of it


def _locked(path: Path, folder: Path) -> int:
    """The descriptor of the lock file, locked."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            free = lock_descriptor(descriptor, blocking=False)
        except OSError as problem:  # some network file systems have no locks
            _log.warning("%s cannot be locked (%s): let no other process use it", folder, problem)
            return descriptor
        if not free:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise InputError(
                f"{folder} is in use by another process (number {holder}). Wait until it has ended, or give another "
                "folder."
            )
        try:
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass  # its holder has just removed it
        os.close(descriptor)
