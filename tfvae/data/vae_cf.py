"""The pre-split folder of the Mult-VAE authors' code (`vae_cf`), in which many researchers exchange splits.

`unique_sid.txt` lists the item ids, one a line: line `sid`, counted from 0, is the item of column `sid`.
Five csv files of `uid,sid` hold the events: `train.csv` (in the order of the raw file), and for
validation and test the fold-in (`_tr`) and the targets (`_te`), user by user in the order of the original
user ids. `uid` numbers training, validation and test users consecutively; the original ids are not stored.
"""

from __future__ import annotations

import filecmp
import logging
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from tfvae.data import ids, streams, text
from tfvae.data.row_shards import in_memory
from tfvae.data.splits.base import binary_rows
from tfvae.data.splits.filters import table_counts
from tfvae.data.splits.strong import HeldOutUsers, StrongGeneralization, group_counts
from tfvae.system.errors import InputError
from tfvae.system.files import digest, reading, replacing, sha256_of

__all__ = ["FILES", "read_events", "read_item_ids", "read_vae_cf", "write_vae_cf"]

EVENTS = ("train", "validation_tr", "validation_te", "test_tr", "test_te")
ITEMS = "unique_sid.txt"
FILES = (*(f"{name}.csv" for name in EVENTS), ITEMS)
"""All files of the layout."""

_log = logging.getLogger(__name__)


def read_vae_cf(folder: str | os.PathLike) -> StrongGeneralization:
    """Reads a pre-split folder as it is.

    Args:
        folder: The folder of the six files.

    Returns:
        The split; user ids are the `uid` of the files, and there are no settings.

    Raises:
        InputError: If a file or a column is missing, an entry is malformed or out of range, a user is in two
            groups, an event is both fold-in and target, or no user in validation or in test has a target.
    """
    folder = Path(folder)
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise InputError(f"{folder}: expected {', '.join(FILES)}, found no {', '.join(missing)}.")
    item_ids = read_item_ids(folder / ITEMS)
    events = {name: read_events(folder / f"{name}.csv", len(item_ids)) for name in EVENTS}
    bounds = _bounds(folder, {name: uids for name, (uids, _) in events.items()})

    matrices, lines = {}, {}
    for name, (uids, sids) in events.items():
        first, stop = bounds[name.partition("_")[0]]
        matrices[name], lines[name] = binary_rows(uids - first, sids, (stop - first, len(item_ids)))
    train = matrices["train"]
    groups = {}
    for name in ("validation", "test"):
        try:
            groups[name] = HeldOutUsers(matrices[f"{name}_tr"], matrices[f"{name}_te"], np.arange(*bounds[name]))
        except InputError as error:
            raise InputError(f"{folder}, {name}_tr.csv and {name}_te.csv: {error}") from None
    n_events = sum(matrix.nnz for matrix in matrices.values())
    return StrongGeneralization(
        train=train,
        user_ids=np.arange(*bounds["train"]),
        validation=groups["validation"],
        test=groups["test"],
        item_ids=item_ids,
        titles=None,
        settings=None,
        counts=table_counts(n_events, bounds["test"][1], len(item_ids)) | group_counts(train, **groups),
        digest=digest("vae_cf", {name: sha256_of(folder / name) for name in FILES}),
        lines=lines,
    )


def write_vae_cf(split: StrongGeneralization, folder: str | os.PathLike) -> None:
    """Writes a split as a pre-split folder, as the authors' code would have written it.

    Args:
        split: The split; if the order of its file is not known, it is written row by row.
        folder: The folder to write; it may be new, empty, or hold the same files. All six files are replaced at once.

    Raises:
        InputError: If the folder holds anything but files of this layout with the same content, the split has no test
            part, or an item's id would not be read back unchanged.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: expected a folder, found a file; give another name.")
    present = sorted(path.name for path in folder.glob("*"))
    if others := [name for name in present if name not in FILES]:
        raise InputError(f"{folder}: expected a new or empty folder, found {others[0]!r}; give another name.")
    names = "".join(f"{item}\n" for item in split.item_ids.tolist())
    _refuse_other_names(split.item_ids, names, folder)
    validation, test = split.validation, split.test_part
    train = in_memory(split.train, "the layout of vae_cf")
    sides = (train, validation.history, validation.targets, test.history, test.targets)
    n_train, n_validation = len(split.user_ids), len(validation.user_ids)
    firsts = (0, n_train, n_train, n_train + n_validation, n_train + n_validation)
    with replacing(folder) as draft:
        draft.mkdir()
        for name, matrix, first in zip(EVENTS, sides, firsts, strict=True):
            entries = matrix.tocoo()
            order = np.empty(matrix.nnz, dtype=np.int64)
            order[split.lines.get(name, slice(None))] = np.arange(matrix.nnz)
            frame = pd.DataFrame({"uid": first + entries.row[order], "sid": entries.col[order]})
            frame.to_csv(draft / f"{name}.csv", index=False, lineterminator="\n")
        (draft / ITEMS).write_text(names, encoding="utf-8", newline="\n")
        # The files bear no mark of ours: they may be somebody else's, so they are never replaced by other content.
        for name in present:
            if not filecmp.cmp(draft / name, folder / name, shallow=False):
                raise InputError(f"{folder / name} is of another split; give another name, or remove the folder.")


def read_events(path: str | os.PathLike, n_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads one csv file of the layout.

    Args:
        path: The file, compressed or not.
        n_items: Number of items; every `sid` must be below it.

    Returns:
        The uids and the sids of the events, each int64 [n_events], in file order; repeated events count once, with a
        warning.

    Raises:
        InputError: If the file is missing or malformed, or an entry is out of range.
    """
    path = Path(path)
    table = text.read_delimited(path, {"uid": pa.int64(), "sid": pa.int64()})
    uids, sids = (table[name].to_numpy() for name in ("uid", "sid"))
    for name, numbers, stop in (("uid", uids, np.iinfo(np.int32).max), ("sid", sids, n_items)):
        outside = (numbers < 0) | (numbers >= stop)
        if outside.any():
            line = int(outside.argmax())
            raise InputError(f"{path}, line {line + 2}: expected {name} from 0 to {stop - 1:,}, found {numbers[line]}.")
    streams.refuse_other_bytes(path, b"0123456789,\r\n", header=True)
    again = pd.Series(uids * n_items + sids).duplicated().to_numpy()
    if again.any():
        _log.warning("%s: %d events come twice or more; each counts once", path, again.sum())
        uids, sids = uids[~again], sids[~again]
    return uids, sids


def read_item_ids(path: str | os.PathLike) -> np.ndarray:
    """Reads `unique_sid.txt` by the rule of `tfvae.data.ids`.

    Returns:
        The ids [n_items] in file order, int64 or fixed-width text.

    Raises:
        InputError: If the file is missing or empty, or an id is refused or occurs twice.
    """
    path = Path(path)
    with reading(path, "a list of item ids in UTF-8, one a line"), streams.reading(path) as file:
        content = file.read().decode("utf-8-sig")
    return _ids_of(content, path)


def _ids_of(content: str, path: Path) -> np.ndarray:
    """The ids in the text of `unique_sid.txt`; only line feeds end a line, since an id may contain other separators."""
    lines = [line.removesuffix("\r") for line in content.removesuffix("\n").split("\n")]
    if lines == [""]:
        raise InputError(f"{path}: expected one item id a line, found an empty file.")
    return ids.of_text(lines, "item", path, lambda number: f"line {number + 1}")


def _refuse_other_names(item_ids: np.ndarray, content: str, folder: Path) -> None:
    """Refuses ids that would not be read back unchanged from `unique_sid.txt`."""
    read = _ids_of(content, folder / ITEMS)
    if read.tolist() != item_ids.tolist():
        same = min(len(read), len(item_ids))
        differs = [str(one) != str(other) for one, other in zip(read[:same], item_ids[:same], strict=True)]
        first = differs.index(True) if True in differs else same - 1
        raise InputError(
            f"the layout of vae_cf has an id a line and cannot hold item {str(item_ids[first])!r}; save the split as "
            "npz, or give the item another id."
        )


def _bounds(folder: Path, uids: dict[str, np.ndarray]) -> dict[str, tuple[int, int]]:
    """The first uid and the one after the last, for training, validation and test.

    Users without events in the files leave gaps. A gap between validation and test is divided so that both
    groups are equally large, as in the authors' data.
    """
    ends = {name: int(of_file.max()) + 1 for name, of_file in uids.items()}
    starts = {name: int(of_file.min()) for name, of_file in uids.items()}
    n_train = ends["train"]
    validation_end = max(ends["validation_tr"], ends["validation_te"])
    for before, end, names in (
        ("training", n_train, ("validation_tr", "validation_te")),
        ("validation", validation_end, ("test_tr", "test_te")),
    ):
        for name in names:
            if starts[name] < end:
                line = int((uids[name] < end).argmax()) + 2
                raise InputError(
                    f"{folder / name}.csv, line {line}: expected a uid above those of {before} users "
                    f"(up to {end - 1}), found {uids[name][line - 2]}; no user may be in two groups."
                )
    test_start = min(starts["test_tr"], starts["test_te"])
    test_end = max(ends["test_tr"], ends["test_te"])
    held_out = max(validation_end - n_train, -(-(test_end - n_train) // 2))
    if n_train + held_out <= test_start:
        test_start, test_end = n_train + held_out, n_train + 2 * held_out
    return {"train": (0, n_train), "validation": (n_train, test_start), "test": (test_start, test_end)}
