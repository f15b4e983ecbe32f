"""Files that are either whole or absent: written under a temporary name, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["digest", "replacing", "sha256_of", "write_json", "write_npz", "write_text"]


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path; on success it becomes `path` in one step, on error it vanishes.

    The temporary name lies in the same folder (so that the rename is atomic) and keeps the suffix
    of `path` (some writers choose their format by it). It may become a file or a folder.

    Args:
        path: Where the finished file or folder shall lie; parents are made.

    Yields:
        The path to write to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        draft = scratch / path.name
        yield draft
        if draft.is_dir() and path.is_dir():
            path.rename(scratch / "replaced")
        os.replace(draft, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


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
