"""The commands among odd names, terminals, signals and disks: no traceback, and what is printed works."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tfvae.cli.app import app
from tfvae.data.sources import stem

pytestmark = pytest.mark.slow

NAMES = ["a, b", 'say "hi"', "it's", "two words", "-5", "x=3", "a", "b", "f", "g"]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working folder with odd names.csv: 60 users, each with five of ten items of odd names, rated."""
    monkeypatch.chdir(tmp_path)
    quoted = ['"' + name.replace('"', '""') + '"' for name in NAMES]
    lines = [f"u{user},{quoted[(user + n) % 10]},{1 + (user * n) % 5}" for user in range(60) for n in range(5)]
    (tmp_path / "odd names.csv").write_text("\n".join(["user,item,stars", *lines]) + "\n", encoding="utf-8")
    return tmp_path


def run(*arguments, code=0, given=None):
    result = CliRunner().invoke(app, list(map(str, arguments)), input=given)
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result


def process(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "tfvae", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize(("model", "rates"), [("ease", False), ("bias-mf", True)])
def test_every_printed_command_can_be_pasted_and_any_item_can_be_named(model, rates, folder):
    rating = ("--rating-col", "stars") if rates else ()
    told = run(
        "fit", "odd names.csv", "--model", model, *rating, "--run", "my run", *(("--epochs", 1) if rates else ())
    )
    lines = [line.removeprefix("Next:").strip() for line in told.output.splitlines()]
    printed = [line for line in lines if line.startswith("tfvae ")]
    assert len(printed) == 2
    for line in printed:
        command, *arguments = shlex.split(line)
        assert command == "tfvae"
        run(*arguments)
    end = "=4" if rates else ""
    for name in NAMES:
        found = run("recommend", "my run", f"--history={name}{end}", "-k", 9)
        assert "left out" not in found.stderr, name
        assert name not in [line.split("  ")[0].strip() for line in found.stdout.splitlines()[1:]]
    both = run("recommend", "my run", f"--history=a, b{end}", f"--history=a{end},b{end}", "-k", 9).stdout
    (folder / "history.txt").write_text("".join(f"{name}{end}\n" for name in ("a, b", "a", "b")))
    assert run("recommend", "my run", "--history-file", "history.txt", "-k", 9).stdout == both
    typed = (folder / "history.txt").read_text()
    assert run("recommend", "my run", "--history-file", "-", "-k", 9, given=typed).stdout == both


def test_a_search_for_nothing_and_a_missing_file_of_a_history_are_refused(folder):
    run("fit", "odd names.csv", "--model", "popularity", "--run", "run")
    assert "names no item" in run("recommend", "run", "--like", "", code=2).stderr
    assert "no such file" in run("recommend", "run", "--history-file", "absent", code=2).stderr


def test_data_of_other_names_have_other_files():
    assert stem("a/ratings.2023.csv") == "ratings.2023" != stem("ratings.2024.csv.gz") == "ratings.2024"
    assert stem("movietweetings") == "movietweetings" and stem("ml-1m.npz") == "ml-1m"


@pytest.mark.long
@pytest.mark.parametrize("encoding", ["ascii"])
def test_a_terminal_that_is_not_utf8_ends_no_run(encoding, folder):
    done = process(
        "fit", "odd names.csv", "--model", "mult-vae", "--epochs", 1, "--run", encoding, PYTHONIOENCODING=encoding
    )
    output, errors = done.communicate(timeout=300)
    assert done.returncode == 0, errors
    assert b"ndcg@100" in output and (folder / encoding / "run.json").is_file()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.long)]
)
def test_a_signal_ends_a_command_with_one_line_and_nothing_lost(number, code, folder):
    training = process("fit", "odd names.csv", "--model", "mult-vae", "--epochs", 100_000, "--run", "run")
    states = lambda: list((folder / "run").glob("state-*.npz"))  # noqa: E731
    until = time.monotonic() + 200
    while not states() and training.poll() is None and time.monotonic() < until:
        time.sleep(0.1)
    training.send_signal(number)
    _, errors = training.communicate(timeout=100)
    assert training.returncode == code, errors
    assert b"Give the same command again" in errors and b"Traceback" not in errors
    assert states()


@pytest.mark.parametrize("arguments", [["fit", "odd names.csv", "--model", "popularity", "--run", "file/run"]])
def test_what_cannot_be_written_is_one_clear_error(arguments, folder):
    (folder / "file").write_text("my own")
    told = run(*arguments, code=2)
    assert "file" in told.stderr and "Traceback" not in told.stderr
    assert (folder / "file").read_text() == "my own"


def test_a_full_disk_is_one_clear_error_and_the_same_command_goes_on(folder, monkeypatch):
    import tfvae.system.files as files

    def full(*_):
        raise OSError(28, "No space left on device", "run/model.keras")

    command = ["fit", "odd names.csv", "--model", "mult-vae", "--epochs", 2, "--run", "run"]
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", full)
        told = run(*command, code=2)
    assert "run/model.keras: No space left on device. What was finished before is kept" in told.stderr
    run(*command)
    assert sorted(path.name for path in (folder / "run").iterdir() if path.name != "tensorboard") == [
        *("items.npz", "model.keras", "run.json", "settings.json", "split.npz")
    ]


def test_a_measured_run_is_shown_even_where_nothing_can_be_written(folder, monkeypatch):
    run("fit", "odd names.csv", "--model", "popularity", "--run", "run")

    def read_only(*_, **__):
        raise PermissionError(13, "Permission denied", "run/evaluation.json")

    monkeypatch.setattr("tfvae.system.files.write_json", read_only)
    told = run("evaluate", "run")
    assert "ndcg@100" in told.stdout and "Not written to run/evaluation.json" in told.stderr
