"""Files that are either whole or absent: written under a temporary name, then renamed."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from tfvae.system.errors import InputError

__all__ = ["digest", "reading", "remove_drafts", "replacing", "sha256_of", "write_json", "write_npz", "write_text"]


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path; on success it becomes `path` in one step, on error it vanishes.

    The temporary name lies in the same folder (so that the rename is atomic) and keeps the suffix
    of `path` (some writers choose their format by it). It may become a file or a folder. What a killed
    process left of an earlier attempt at the same path is removed.

    Args:
        path: Where the finished file or folder shall lie; parents are made.

    Yields:
        The path to write to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_drafts(path)
    scratch = Path(tempfile.mkdtemp(prefix=f"{_draft_prefix(path)}{os.getpid()}-", dir=path.parent))
    try:
        draft = scratch / path.name
        yield draft
        if draft.is_dir() and path.is_dir():
            path.rename(scratch / "replaced")
        os.replace(draft, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def remove_drafts(path: str | os.PathLike) -> None:
    """Removes the drafts of a file or folder whose process on this machine is gone, such as a killed one."""
    path = Path(path)
    prefix = _draft_prefix(path)
    for draft in path.parent.glob(f"{glob.escape(prefix)}*"):
        process = draft.name.removeprefix(prefix).partition("-")[0]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            shutil.rmtree(draft, ignore_errors=True)


def _draft_prefix(path: Path) -> str:
    # The machine's name is part of it, since process numbers of another one say nothing here.
    machine = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]
    return f".{path.name[:100]}.{machine}-"


@contextmanager
def reading(path: str | os.PathLike, what: str) -> Iterator[None]:
    """Says of whatever goes wrong while a file is read and taken apart that the file is not what it should be.

    Args:
        path: The file, for messages.
        what: What it should be, such as "a saved split".

    Raises:
        InputError: For any error; one that was raised on purpose keeps its text, with the file's name before it.
    """
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected {what}.") from None
    except InputError as problem:
        if str(path) in str(problem):
            raise
        raise InputError(f"{path}: {problem}") from problem
    # A damaged or foreign file can raise nearly anything in the libraries that take it apart.
    except Exception as problem:
        kind = "" if isinstance(problem, OSError) else f"{type(problem).__name__}: "
        raise InputError(f"{path} cannot be read as {what} ({kind}{problem}); is the file whole?") from problem


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a UTF-8 text file in one step."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes a JSON file in one step; a NaN is refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_npz(path: str | os.PathLike, arrays: dict[str, np.ndarray], *, compressed: bool = True) -> None:
    """Writes named arrays as `.npz` in one step; object arrays (pickles) are refused."""
    save = np.savez_compressed if compressed else np.savez
    with replacing(path) as draft, open(draft, "wb") as file:
        save(file, allow_pickle=False, **arrays)


def sha256_of(path: str | os.PathLike) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(*parts: Any) -> str:
    """A SHA-256 over arrays (dtype, shape and bytes) and JSON values, in hexadecimal."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            part = np.ascontiguousarray(part)
            total.update(f"{part.dtype.str}{part.shape}".encode())
            total.update(part.tobytes() if part.dtype.kind in "US" else part.data)
        else:
            total.update(json.dumps(part, sort_keys=True, default=str).encode())
    return total.hexdigest()
