"""Files that are either complete or absent: they are written under a temporary name and then renamed."""

from __future__ import annotations

import glob
import hashlib
import json
import math
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
from tfvae.system.flat_file import FlatFile
from tfvae.system.text_arrays import packed_texts, unpacked_texts

__all__ = [
    "digest",
    "finite_json",
    "read_json",
    "read_npz",
    "reading",
    "remove_drafts",
    "replacing",
    "sha256_of",
    "write_json",
    "write_npz",
    "write_text",
]


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path, which is renamed to `path` on success and removed on an error.

    The temporary path is in a folder beside `path`, so that the rename is atomic, and has the same name, since some
    writers choose their format by the suffix. Either a file or a folder may be written to it; a folder that is already
    at `path` is moved away just before the rename. What killed processes left of earlier attempts at the same path is
    removed.

    Args:
        path: The file or folder to write; missing parents are created.

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
    """Removes the drafts of a file or folder that were left by processes of this machine which no longer exist."""
    path = Path(path)
    prefix = _draft_prefix(path)
    for draft in path.parent.glob(f"{glob.escape(prefix)}*"):
        process = draft.name.removeprefix(prefix).partition("-")[0]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            shutil.rmtree(draft, ignore_errors=True)


def _draft_prefix(path: Path) -> str:
    # The prefix depends on the machine, since the process IDs of another machine mean nothing here.
    machine = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]
    return f".{path.name[:100]}.{machine}-"


@contextmanager
def reading(path: str | os.PathLike, what: str) -> Iterator[None]:
    """Turns every error that occurs while a file is read and parsed into an `InputError` that names the file.

    Args:
        path: The file, for messages.
        what: What the file should be, such as "a saved split".

    Raises:
        InputError: For any error. An `InputError` keeps its text, after the name of the file if it lacks this name.
    """
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected {what}.") from None
    except InputError as problem:
        if str(path) in str(problem):
            raise
        raise InputError(f"{path}: {problem}") from problem
    # The libraries that parse a damaged or foreign file can raise nearly any exception.
    except Exception as problem:
        kind = "" if isinstance(problem, OSError) else f"{type(problem).__name__}: "
        raise InputError(f"{path} cannot be read as {what} ({kind}{problem}); is the file whole?") from problem


def read_json(path: str | os.PathLike, what: str) -> Any:
    """What a JSON file holds.

    Args:
        path: The file.
        what: What it should be, such as "a stored run", for messages.

    Raises:
        InputError: If it is missing or damaged, or holds a number that is not finite.
    """
    with reading(path, what):
        return finite_json(Path(path).read_text(encoding="utf-8"))


def finite_json(text: str, *, distinct_keys: bool = False) -> Any:
    """What a text of JSON says.

    Args:
        text: The text.
        distinct_keys: Whether an object in which a key comes twice is refused; otherwise the last one counts.

    Raises:
        ValueError: If it is no JSON, has a number that is not finite, or a key twice where that is refused.
    """
    pairs = _distinct if distinct_keys else None
    return json.loads(text, parse_constant=_finite, parse_float=_finite, object_pairs_hook=pairs)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} comes twice")
    return found


def _finite(number: str) -> float:
    if not math.isfinite(float(number)):
        raise ValueError(f"{number} is not a finite number")
    return float(number)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a UTF-8 text file in one step."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes a JSON file in one step; NaN and infinity raise ValueError, since JSON has neither."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_npz(path: str | os.PathLike, arrays: dict[str, np.ndarray], *, compressed: bool = True) -> None:
    """Writes named arrays as `.npz` in one step; object arrays raise ValueError, since they would be pickled."""
    save = np.savez_compressed if compressed else np.savez
    with replacing(path) as draft, open(draft, "wb") as file:
        save(file, allow_pickle=False, **packed_texts(arrays))


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The named arrays that `write_npz` wrote; to be called within `reading`, since a damaged file raises any error."""
    with np.load(path, allow_pickle=False) as stored:
        return unpacked_texts(stored)


def sha256_of(path: str | os.PathLike) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(*parts: Any) -> str:
    """The SHA-256 over arrays (dtype, shape and bytes) and JSON values, in hexadecimal.

    A `FlatFile` counts as the array that it holds.
    """
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray) and part.dtype.kind == "T":
            part = part.tolist()  # the bytes of such an array are addresses
        if isinstance(part, np.ndarray):
            part = np.ascontiguousarray(part)
            total.update(f"{part.dtype.str}{part.shape}".encode())
            total.update(part.tobytes() if part.dtype.kind in "US" else part.data)
        elif isinstance(part, FlatFile):
            total.update(f"{part.dtype.str}{(len(part),)}".encode())
            for block in part.blocks():
                total.update(block.data)
        else:
            total.update(json.dumps(part, sort_keys=True, default=str).encode())
    return total.hexdigest()
