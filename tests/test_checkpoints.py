"""A checkpoint is restored whole or not at all: whatever is wrong with its files, the one before it is taken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from plain_fit import fit

from tfvae.models.multvae import MultVAE
from tfvae.system.errors import InputError
from tfvae.training.callbacks import ResumableCheckpoint
from tfvae.training.loop import prepare_to_fit


class Better(keras.callbacks.Callback):
    """Each epoch is the best so far."""

    def on_epoch_end(self, epoch, logs=None):
        logs["val_value"] = float(epoch)


@pytest.fixture(scope="module")
def begun(tiny_split, tmp_path_factory):
    """A function that makes an untrained model and its keeper; and the files after two epochs."""

    def begin(folder: Path, lines: list[str], run: str = "the run") -> ResumableCheckpoint:
        model = MultVAE(tiny_split.n_items, hidden=(5,), latent_dim=3)
        prepare_to_fit(model, tiny_split, 0.01)
        keeper = ResumableCheckpoint(folder, "val_value", None, run=run, log=lines.append)
        keeper.set_model(model)
        return keeper

    folder = tmp_path_factory.mktemp("begun")
    keeper = begin(folder, [])
    fit(keeper.model, 90, 45, epochs=2, callbacks=[Better(), keeper])
    return begin, folder


@pytest.fixture
def folder(begun, tmp_path):
    """A copy of the files."""
    return shutil.copytree(begun[1], tmp_path / "run")


def changed(path: Path, change) -> None:
    """Changes the arrays of a file, whose checksums are then right."""
    with np.load(path) as stored:
        arrays = dict(stored)
    change(arrays)
    np.savez(path, **arrays)


def history(change):
    def rewrite(arrays):
        entries = json.loads(str(arrays["history"]))
        arrays["history"] = np.array(json.dumps(change(entries)))

    return rewrite


def drop(name):
    return lambda arrays: arrays.pop(name)


def put(name, value):
    return lambda arrays: arrays.update({name: value(arrays[name])})


COUNTER = "v1"  # rows_seen, as a test below says

IN_EITHER = [drop("v3"), put("v3", lambda a: a[:1]), put("v3", np.float64), put("v3", lambda a: a * np.float32("nan"))]
IN_EITHER += [
    put("v4", lambda a: a + np.float32("inf")),
    put("v3", lambda a: a[None]),
    put("v3", lambda a: a.astype("U9")),
]
IN_STATE = [
    *(put(COUNTER, lambda a: a + 90), put(COUNTER, lambda a: -a), put(COUNTER, np.int32), drop("run"), drop("history")),
    history(lambda entries: entries[:1]),
    history(lambda entries: entries * 2),
    history(lambda entries: entries[::-1]),
    history(lambda entries: [entries[0], entries[1] | {"loss": float("nan")}]),
    history(lambda entries: [entries[0], entries[1] | {"loss": "1.5"}]),
    history(lambda entries: [entries[0], entries[1] | {"val_value": None}]),
    history(lambda entries: [entries[0], {name: v for name, v in entries[1].items() if name != "seconds"}]),
    history(lambda entries: dict(enumerate(entries))),
    history(lambda entries: 7),
    put("history", lambda a: np.array("[" * 100_000)),
]
IN_BEST = [put("run", lambda a: np.array("another")), put("epoch", lambda a: a - 1)]
CASES = [("state-1.npz", case) for case in IN_EITHER + IN_STATE] + [
    ("best-1.npz", case) for case in IN_EITHER + IN_BEST
]


@pytest.mark.parametrize(("name", "change"), CASES)
def test_a_checkpoint_that_is_not_whole_leaves_nothing_behind(name, change, begun, folder):
    changed(folder / name, change)
    lines: list[str] = []
    keeper = begun[0](folder, lines)
    assert keeper.resume()
    assert len(lines) == 1 and "going back by an epoch" in lines[0] and str(folder / name) in lines[0]
    assert [entry["epoch"] for entry in keeper.history] == [0]
    with np.load(folder / "state-0.npz") as stored:
        for number, variable in enumerate(keeper._all_variables()):
            np.testing.assert_array_equal(variable, stored[f"v{number}"])


def test_the_counter_above_is_that_of_rows(begun, folder):
    keeper = begun[0](folder, [])
    assert keeper._all_variables()[int(COUNTER[1:])] is keeper.model.rows_seen
    assert keeper.resume() and keeper.model.rows_seen.numpy() == 180


def test_without_a_whole_checkpoint_the_model_is_as_it_was(begun, folder):
    for epoch in (0, 1):
        changed(folder / f"state-{epoch}.npz", put("v9", lambda a: a * np.float32("inf")))
    lines: list[str] = []
    keeper = begun[0](folder, lines)
    before = [variable.numpy() for variable in keeper._all_variables()]
    assert not keeper.resume() and keeper.history == []
    assert len(lines) == 3 and "training begins anew" in lines[-1]
    for variable, value in zip(keeper._all_variables(), before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_best_weights_that_are_damaged_while_training_are_named_at_its_end(begun, folder):
    keeper = begun[0](folder, [])
    assert keeper.resume()
    before = [variable.numpy() for variable in keeper.model.variables]
    for damage in (Path.unlink, lambda path: path.write_bytes(b"PK"), lambda path: path.write_bytes(b"")):
        damage(folder / "best-1.npz")
        with pytest.raises(InputError, match=r"best-1\.npz"):
            keeper.restore_best()
    for variable, value in zip(keeper.model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_best_weights_of_a_former_version_are_read(begun, folder):
    for epoch in (0, 1):
        changed(folder / f"best-{epoch}.npz", lambda arrays: [arrays.pop(name) for name in ("run", "epoch")])
    lines: list[str] = []
    keeper = begun[0](folder, lines)
    assert keeper.resume() and not lines and len(keeper.history) == 2
    keeper.restore_best()


def test_a_file_that_may_not_be_read_is_not_passed_over(begun, folder, monkeypatch):
    def refuse(path, **given):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("tfvae.training.callbacks.np.load", refuse)
    with pytest.raises(PermissionError):
        begun[0](folder, []).resume()


def test_a_checkpoint_of_another_run_is_refused(begun, folder):
    with pytest.raises(InputError, match=r"state-1\.npz is a checkpoint of other settings or data"):
        begun[0](folder, [], run="another").resume()
