"""Locks on folders: one process at a time holds a folder, and its lock ends with it, even if it is killed."""

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
"""Name of the lock file in a folder that is held."""


@contextmanager
def held(folder: Path) -> Iterator[Path]:
    """Locks a folder against other processes; a missing folder is created.

    The operating system locks a file `.lock`, which contains the process ID. At the end the file is removed, and so is
    the folder if it is empty. A file that a killed process has left behind is not locked. On a file system without
    locks, a warning is logged and the folder is used unlocked.

    Args:
        folder: The folder.

    Yields:
        The folder.

    Raises:
        InputError: If another process holds the folder; the message has its process ID.
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
            folder.rmdir()  # fails if anything was written into it


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
            pass  # the process that held it has just removed the file
        os.close(descriptor)
