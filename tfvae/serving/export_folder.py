"""The folder of an exported model: written in one step, replaced by another export only, perhaps with versions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tfvae.system.errors import InputError
from tfvae.system.files import read_json, reading, replacing, sha256_of, write_json
from tfvae.system.locks import held

if TYPE_CHECKING:
    from tfvae.serving.rules import Rules

__all__ = ["MODEL_FILE", "exporting", "is_litert", "made_of", "next_version", "refuse_changed", "refuse_export"]

MODEL_FILE = "model.tflite"
MARK = "tfvae-export.json"  # lists the files of an export, so that no other files are ever replaced


def is_litert(folder: Path) -> bool:
    """Whether a folder is the export of a LiteRT file."""
    return (folder / MODEL_FILE).is_file() and (folder / MARK).is_file()


def refuse_export(folder: Path, rules: Rules | None) -> None:
    """Refuses a folder that is no export, and rules that no exported graph can follow.

    Args:
        folder: The folder to write.
        rules: What may be recommended; None allows all items.

    Raises:
        InputError: If the folder holds anything but an export, or the rules re-rank.
    """
    if folder.exists() and not _replaceable(folder):
        raise InputError(
            f"{folder} exists, and is not an exported model of tfvae with nothing else in it; choose another folder, "
            "or remove it."
        )
    if rules is not None and rules.reranks:
        raise InputError(
            "at_most and diversity re-rank lists outside the graph, which an exported model cannot; export without "
            "them, and take longer lists from it to re-rank."
        )


@contextmanager
def exporting(folder: Path, read_again: Sequence[str] = (), of: str | None = None) -> Iterator[Path]:
    """Yields a new folder to write an export to, which takes the place of an earlier export when it is whole.

    Args:
        folder: The folder to write, which `refuse_export` has let pass.
        read_again: Names of files that tfvae itself will read again; `refuse_changed` compares their SHA-256.
        of: What `made_of` is to say of the export.

    Yields:
        The folder to write to.
    """
    with replacing(folder) as draft:
        draft.mkdir()
        yield draft
        files = sorted(str(path.relative_to(draft)) for path in draft.rglob("*") if path.is_file())
        sums = {name: sha256_of(draft / name) for name in read_again}
        mark = {"format": "tfvae export", "version": 1, "files": [*files, MARK], "sha256": sums}
        write_json(draft / MARK, mark if of is None else mark | {"made_of": of})


def made_of(folder: Path) -> str | None:
    """What an export was said to be made of; None if nothing was said.

    Args:
        folder: The export.

    Raises:
        InputError: If its list of files cannot be read.
    """
    with reading(folder / MARK, "the list of an export's files"):
        return read_json(folder / MARK, "the list of an export's files").get("made_of")


def refuse_changed(folder: Path, names: Sequence[str]) -> None:
    """Refuses files of an export that are not as they were written.

    Args:
        folder: The export.
        names: Names of the files, which were among those to be read again.

    Raises:
        InputError: If one has another SHA-256, or the export lists none, as one of an earlier version of tfvae.
    """
    sums = read_json(folder / MARK, "the list of an export's files")
    with reading(folder / MARK, "the list of an export's files"):
        known = {name: sums.get("sha256", {}).get(name) for name in names}
    for name, expected in known.items():
        if expected is None:
            raise InputError(
                f"{folder} was exported by an earlier version of tfvae, which kept no {name}; export anew."
            )
        if not (folder / name).is_file() or sha256_of(folder / name) != expected:
            raise InputError(f"{folder / name} is missing or not as it was exported; export anew.")


@contextmanager
def next_version(folder: Path) -> Iterator[Path]:
    """Yields the folder of a model's next version, numbered from 1 as TensorFlow Serving wants them.

    Earlier versions stay, and so does whatever else is in the folder. It is held meanwhile, so that two processes do
    not take one number.

    Args:
        folder: The folder of all versions; it is created if it is missing.

    Yields:
        The folder to write, which does not exist yet.

    Raises:
        InputError: If the folder is a file or an export without versions, or another process holds it.
    """
    if (folder.exists() and not folder.is_dir()) or (folder / MARK).exists() or (folder / "saved_model.pb").exists():
        raise InputError(
            f"{folder} is itself a file or an exported model; expected a folder whose folders are versions of one. "
            "Choose another."
        )
    with held(folder):
        names = [path.name for path in folder.iterdir()]
        yield folder / str(1 + max((int(name) for name in names if name.isascii() and name.isdecimal()), default=0))


def _replaceable(folder: Path) -> bool:
    """Whether the folder is empty, or an export to which nothing was added."""
    if not folder.is_dir():
        return False
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
    if not there:
        return not any(folder.iterdir())
    try:
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
        return mark["format"] == "tfvae export" and there <= set(mark["files"])
    except (OSError, ValueError, TypeError, KeyError):
        return False
