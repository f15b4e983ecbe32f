"""Prepares data that do not fit in memory: from a file of events to a folder with a split and shards of its rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tfvae.data.catalogue import DATASETS
from tfvae.data.items_file import ItemTable
from tfvae.data.open_split import columns_of, provisional_settings, tenth_of_users
from tfvae.data.row_shards import RowShards
from tfvae.data.sorted_events import refuse_no_duckdb, sorted_events
from tfvae.data.splits import Split, StrongGeneralization, StrongGeneralizationSettings, load_split
from tfvae.data.splits.base import FILE_NAME
from tfvae.data.splits.sharded import liked_by_user, sharded_generalization
from tfvae.system.errors import InputError
from tfvae.system.files import replacing
from tfvae.system.validation import checked

__all__ = ["prepare_shards"]

_SHARDS = "shards"


def prepare_shards(
    given: str | os.PathLike,
    out: str | os.PathLike,
    *,
    memory: int = 4 * 10**9,
    columns: Mapping[str, str] | None = None,
    changes: Mapping[str, Any] | None = None,
    items: ItemTable | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> Split:
    """Splits a file of events by strong generalisation within limited memory, and saves it.

    The split is the same as that of `open_split`, with the same digest; only its training rows are in files. The folder
    can be given wherever a split can, such as to `open_split` and `tfvae fit`. While it is made, temporary files beside
    it take some 40 bytes an event.

    Args:
        given: A file of events, CSV or Parquet.
        out: The folder that is written; it is replaced if it holds such a split and nothing else.
        memory: Bytes that may be used. The ids of users and items must fit in a part of them.
        columns: As for `open_split`.
        changes: As for `open_split`.
        items: As for `open_split`.
        log: Called with a line at a time.

    Returns:
        The split, as it is loaded from the folder.

    Raises:
        InputError: As for `open_split`; or if DuckDB is not installed, the data are no CSV or Parquet, or the folder
            holds anything else.
        TooLargeError: If the memory does not suffice.
    """
    refuse_no_duckdb()
    path, out, named, changes = Path(given), Path(out), dict(columns or {}), dict(changes or {})
    if str(given) in DATASETS or not path.is_file():
        raise InputError(f"--shards splits a file of events, CSV or Parquet; {given} is none. Leave --shards out.")
    if "timestamp" in named:
        raise InputError("only leave-one-out asks for times, so timestamp would change nothing; leave it out.")
    if out.suffix == ".npz":
        raise InputError(f"--shards writes a folder; give a name for --out that does not end in .npz, not {out}.")
    refuse_other_folder(out)
    settings = provisional_settings(changes)
    options = columns_of(path, named, StrongGeneralizationSettings, changes)
    named = {purpose: options[purpose] for purpose in ("user", "item", "rating") if purpose in options}
    form = {name: options[name] for name in ("delimiter", "encoding") if name in options}
    with replacing(out) as draft:
        work = draft.parent / "work"
        work.mkdir()
        events = sorted_events(path, named, work, memory, log=log, **form)
        if "held_out_users" not in changes:
            changes["held_out_users"] = tenth_of_users(liked_by_user(events, settings.min_rating), settings)
        settings = checked(StrongGeneralizationSettings, changes, f"the split of {given}")
        log("Writing the training rows")
        split: Split = sharded_generalization(events, settings, draft / _SHARDS)
        (split if items is None else items.described(split)).save(draft)
    return load_split(out)


def refuse_other_folder(folder: Path) -> None:
    """Refuses to replace a folder that holds anything but a split in shards.

    Raises:
        InputError: If it does.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names == {FILE_NAME, _SHARDS}:
        split = load_split(folder)
        if isinstance(split, StrongGeneralization) and isinstance(split.train, RowShards):
            return
    raise InputError(f"{folder} exists and is no folder of 'tfvae prepare --shards'; give another name, or remove it.")
