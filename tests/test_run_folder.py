"""Run folders: nothing of the user's is lost, and what is read is one run's."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfvae.system import files, locks
from tfvae.system.errors import InputError
from tfvae.system.files import replacing, sha256_of, write_json
from tfvae.system.locks import held
from tfvae.training.callbacks import ResumableCheckpoint
from tfvae.training.loop import load_run, train
from tfvae.training.run_folder import RunFolder
from tfvae.training.settings import settings_of

VAE = {"hidden": [6], "latent_dim": 3, "epochs": 3, "batch_size": 45, "monitor": "ndcg@10", "anneal_updates": 4}
EASE = settings_of("ease", {})


def vae(**changes):
    return settings_of("mult-vae", VAE | changes)


def trained(settings, split, folder, log=None):
    return train(settings, split, folder, progress=False, log=[].append if log is None else log)


def without_seconds(history):
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in history]


def fingerprint(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_of(path) for path in folder.rglob("*") if path.is_file()}


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def put(folder: Path, *names: str) -> dict[str, str]:
    """Files of the user's own; their fingerprint."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"my own {name}")
    return fingerprint(folder)


@pytest.fixture(scope="module")
def whole(tiny_split, tmp_path_factory):
    """A finished run of a VAE, and its folder."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return trained(vae(), tiny_split, folder), folder


@pytest.fixture
def finished(whole, tmp_path):
    """A copy of the finished run's folder."""
    return shutil.copytree(whole[1], tmp_path / "run")


# ---- folders that are not ours ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ["parts/columns-0.npz", "best-model.npz"],
        ["model.keras"],
        ["items.npz", "run.json"],
        ["settings.json"],
        ["state-0.npz", "best-0.npz"],
        ["pilot/settings.json"],
        ["tensorboard/train/events.out.tfevents.1"],
        ["notes.txt"],
    ],
)
@pytest.mark.parametrize("settings", [EASE, vae()], ids=["matrix", "epochs"])
def test_a_folder_of_the_users_own_is_refused_and_left_as_it_is(names, settings, tiny_split, tmp_path):
    before = put(tmp_path, *names)
    with pytest.raises(InputError, match="not the folder of a run"):
        trained(settings, tiny_split, tmp_path)
    assert fingerprint(tmp_path) == before


@pytest.mark.parametrize(
    "content", ["{}", "[]", "3", '{"settings": {}, "data_digest": 1}', '{"model": "ease"}', "{", ""]
)
def test_settings_of_another_program_are_no_mark(content, tiny_split, tmp_path):
    (tmp_path / "settings.json").write_text(content)
    before = put(tmp_path, "model.keras")
    with pytest.raises(InputError, match="not the folder of a run"):
        trained(EASE, tiny_split, tmp_path)
    with pytest.raises(InputError, match="run.json is missing"):
        load_run(tmp_path)
    assert fingerprint(tmp_path) == before


def test_a_file_is_no_folder(tiny_split, tmp_path):
    put(tmp_path, "run")
    with pytest.raises(InputError, match="expected a folder for the run, found a file"):
        trained(EASE, tiny_split, tmp_path / "run")


def test_hidden_files_do_not_fill_a_folder_and_stay(tiny_split, tmp_path):
    put(tmp_path, ".DS_Store", ".keep/x", ".state.npz.mine/x")
    trained(EASE, tiny_split, tmp_path)
    assert {".DS_Store", ".keep/x", ".state.npz.mine/x"} <= set(fingerprint(tmp_path))


def test_what_the_user_puts_beside_a_run_stays(tiny_split, tmp_path):
    RunFolder(tmp_path).mark(vae(), tiny_split.digest)
    mine = ["notes.txt", "best-model.npz", "state-of-the-art.npz", "parts/mine", "pilot/mine", "tensorboard/mine"]
    before = put(tmp_path, *mine)
    trained(vae(), tiny_split, tmp_path)
    after = fingerprint(tmp_path)
    assert all(after[name] == before[name] for name in mine)
    RunFolder(tmp_path).remove()
    assert sorted(fingerprint(tmp_path)) == sorted(mine)


def test_a_pilot_of_the_users_own_does_not_stop_a_finished_run(finished, tiny_split):
    before = put(finished / "pilot", "settings.json")
    assert trained(vae(), tiny_split, finished).resumed
    assert fingerprint(finished / "pilot") == before


def test_a_run_is_removed_whole(finished):
    RunFolder(finished).remove()
    assert not finished.exists()


# ---- files of different runs -----------------------------------------------------------------------


def test_a_run_of_a_former_version_is_read_and_gone_on_with(whole, finished, tiny_split):
    claim = json.loads((finished / "settings.json").read_text())
    del claim["settings"]["validate_every"]  # a setting that is newer
    write_json(finished / "settings.json", {name: claim[name] for name in ("settings", "data_digest")})
    outcome = json.loads((finished / "run.json").read_text())
    write_json(finished / "run.json", {name: outcome[name] for name in outcome if name not in ("claim", "files")})
    assert load_run(finished).history == whole[0].history
    assert trained(vae(), tiny_split, finished).resumed


def test_the_settings_of_another_run_are_noticed(finished):
    claim = json.loads((finished / "settings.json").read_text())
    claim["settings"]["dropout"] = 0.25
    write_json(finished / "settings.json", claim)
    with pytest.raises(InputError, match=r"settings\.json and run\.json are of different runs"):
        load_run(finished)


@pytest.mark.parametrize("name", ["model.keras", "items.npz"])
def test_a_file_of_another_run_is_noticed(name, finished, tiny_split, tmp_path):
    trained(vae(seed=1, latent_dim=4), tiny_split, tmp_path / "other")
    (finished / name).write_bytes((tmp_path / "other" / name).read_bytes() + b" ")
    with pytest.raises(InputError, match=f"{name} is not the file that the run ended with"):
        load_run(finished)
    (finished / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        load_run(finished)


@pytest.mark.parametrize("name", ["settings.json", "run.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"history": NaN}', b"[" * 100_000])
def test_a_damaged_json_file_is_named(name, content, finished):
    (finished / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        load_run(finished)


def test_another_split_beside_the_run_is_noticed(finished, tiny_split):
    RunFolder(finished).refuse_another_split([tiny_split.digest])
    with pytest.raises(InputError, match="trained on data of digest"):
        RunFolder(finished).refuse_another_split(["0" * 64, "1" * 64])


# ---- checkpoints -----------------------------------------------------------------------------------


class Killed(BaseException):
    """As a signal would end it."""


def stopped_after(epoch, settings, split, folder):
    class Stopping(ResumableCheckpoint):
        def on_epoch_end(self, number, logs=None):
            super().on_epoch_end(number, logs)
            if number == epoch:
                raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfvae.training.fitting.ResumableCheckpoint", Stopping)
        with pytest.raises(Killed):
            trained(settings, split, folder)


def assert_same_run(one, other):
    assert without_seconds(one.history) == without_seconds(other.history)
    for first, second in zip(one.model.variables, other.model.variables, strict=True):
        np.testing.assert_array_equal(first.numpy(), second.numpy(), err_msg=first.path)


def test_a_checkpoint_of_another_run_is_refused(tiny_split, tmp_path):
    stopped_after(1, vae(), tiny_split, tmp_path)
    (tmp_path / "settings.json").unlink()
    with pytest.raises(InputError, match="not the folder of a run"):
        trained(vae(dropout=0.1), tiny_split, tmp_path)
    RunFolder(tmp_path).mark(vae(dropout=0.1), tiny_split.digest)
    with pytest.raises(InputError, match=r"state-1\.npz is a checkpoint of other settings or data"):
        trained(vae(dropout=0.1), tiny_split, tmp_path)


def changed(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [changed, Path.unlink])
@pytest.mark.parametrize(
    ("damaged", "told"), [(["state-1.npz"], "going back by an epoch"), (["state-0.npz", "state-1.npz"], "begins anew")]
)
def test_a_damaged_checkpoint_costs_an_epoch_and_no_bit(damage, damaged, told, whole, tiny_split, tmp_path):
    stopped_after(1, vae(), tiny_split, tmp_path)
    for name in damaged:
        damage(tmp_path / name)
    lines: list[str] = []
    assert_same_run(trained(vae(), tiny_split, tmp_path, lines.append), whole[0])
    assert any(told in line for line in lines) or damage is Path.unlink


@pytest.mark.slow
@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.long)])
def test_killed_between_any_two_writes_it_goes_on_to_equal_bits(step, whole, tiny_split, tmp_path, monkeypatch):
    replace, unlink, left = os.replace, Path.unlink, [0]

    def counted(operation):
        def operate(*given, **options):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return operation(*given, **options)

        return operate

    monkeypatch.setattr(files.os, "replace", counted(replace))
    monkeypatch.setattr(Path, "unlink", counted(unlink))
    for number in range(0, 100, step):
        folder = tmp_path / str(number)
        left[0] = number
        try:
            trained(vae(), tiny_split, folder)
        except Killed:
            left[0] = -1
            assert_same_run(trained(vae(), tiny_split, folder), whole[0])
            assert [name for name in names_in(folder) if name != "tensorboard"] == [
                *("items.npz", "model.keras", "run.json", "settings.json")
            ]
        else:
            break
    assert 12 < number < 100


# ---- other processes -------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from tfvae.system.locks import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_folder_that_another_process_holds_is_refused_until_that_is_gone(tmp_path, tiny_split):
    folder = tmp_path / "run"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, text=True, env=environment
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=rf"in use by another process \(number {holder.pid}\)"):
            trained(EASE, tiny_split, folder)
        holder.send_signal(signal.SIGKILL)
    assert names_in(folder) == [locks.LOCK_FILE]
    trained(EASE, tiny_split, folder)
    assert names_in(folder) == ["items.npz", "model.keras", "run.json", "settings.json", "tensorboard"]


def test_a_file_system_without_locks_is_warned_of_and_used(tmp_path, monkeypatch, caplog):
    def none(*_, **__):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(locks, "lock_descriptor", none)
    with held(tmp_path / "run") as folder:
        (folder / "file").touch()
    assert "cannot be locked" in caplog.text and names_in(tmp_path / "run") == ["file"]


def test_a_folder_in_which_nothing_came_about_is_not_left_behind(tmp_path):
    with pytest.raises(ZeroDivisionError), held(tmp_path / "new"):
        raise ZeroDivisionError
    assert names_in(tmp_path) == []


def test_what_a_killed_process_was_writing_is_removed_by_the_next_write(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    prefix = files._draft_prefix(tmp_path / "a.json")
    for name in (f"{prefix}{gone.pid}-abcdefgh", f"{prefix}{os.getppid()}-abcdefgh", ".a.json.mine"):
        (tmp_path / name).mkdir()
    write_json(tmp_path / "a.json", 1)
    assert names_in(tmp_path) == sorted([".a.json.mine", f"{prefix}{os.getppid()}-abcdefgh", "a.json"])
    with replacing(tmp_path / "b.json") as draft:
        assert f"-{os.getpid()}-" in draft.parent.name
        draft.touch()
