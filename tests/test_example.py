"""The example of one's own log: its commands, its rules, and the script as people call it."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from test_cli import run

EXAMPLE = Path(__file__).parents[1] / "examples" / "own_log"
SMALL = {"PEOPLE": "300", "EPOCHS": "1"}

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("sh") is None, reason="there is no sh here")]


def commands_of_the_script(epochs: str | None = None) -> list[str]:
    """What run.sh runs, with this number of epochs, or that which it has by default."""
    text = (EXAMPLE / "run.sh").read_text(encoding="utf-8")
    (usual,) = re.findall(r"epochs=\$\{EPOCHS:-(\d+)\}", text)
    found = re.findall(r'^run "(.*)"$', text, flags=re.MULTILINE)
    return [command.replace("$epochs", epochs or usual) for command in found]


def call(folder: Path) -> subprocess.CompletedProcess:
    """Calls run.sh in a folder, with these tests' Python as `python` and its tfvae as `tfvae`."""
    programs = folder.with_name(f"{folder.name}-bin")
    programs.mkdir()
    for name, words in {"python": "", "tfvae": "-m tfvae "}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {words}"$@"\n')
        (programs / name).chmod(0o755)
    env = os.environ | SMALL | {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(EXAMPLE.parents[1])}
    return subprocess.run(
        ["sh", EXAMPLE / "run.sh"], cwd=folder, env=env, text=True, timeout=900,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def refuse_broken_rules(folder: Path) -> None:
    """Checks top.csv against the log and the genres: nothing seen, at most two of a genre, best first."""
    top, log, films = (pd.read_csv(folder / f"{name}.csv") for name in ("top", "yesterday", "films"))
    assert set(top.columns) == {"user", "rank", "item", "score", "title"} and top.user.nunique() > 100
    assert not set(zip(top.user, top["item"], strict=True)) & set(zip(log.member_id, log.film_id, strict=True))
    genres = films.set_index("film_id").genres.str.split("|")
    own = top.assign(genre=top["item"].map(genres)).explode("genre").groupby(["user", "genre"]).size()
    assert own.max() == 2
    assert all(scores.is_monotonic_decreasing for _, scores in top.groupby("user").score)
    assert (top["item"].map(films.set_index("film_id").title) == top.title).all()


def test_the_commands_do_what_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["make_log.py", "--people", SMALL["PEOPLE"]])
    runpy.run_path(str(EXAMPLE / "make_log.py"), run_name="__main__")
    yesterday, today = (Path(f"{name}.csv").read_text().splitlines() for name in ("yesterday", "today"))
    assert today[: len(yesterday)] == yesterday and len(today) > len(yesterday)
    told = {}
    for command in commands_of_the_script(SMALL["EPOCHS"]):
        program, *words = shlex.split(command)
        if program == "tfvae" and words[0] != "serve":
            told[words[0], "--from" in words] = run(*words).output
    assert {verb for verb, _ in told} == {"fit", "evaluate", "compare", "similar", "recommend"}
    assert "recall@20" in told["evaluate", False] and "Take " in told["compare", False]
    assert "(tt1345836)" in told["similar", False]
    refuse_broken_rules(tmp_path)
    report = json.loads(Path("runs/films-today/retrained.json").read_text())
    assert report["users"]["kept"] == pd.read_csv("top.csv").user.nunique() and report["metrics"]


def test_the_page_has_the_commands_of_the_script():
    page = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    named = [line for block in re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL) for line in block.splitlines()]
    ours = [command for command in commands_of_the_script() if command.split()[0] in ("tfvae", "ln")]
    assert [line for line in named if line.split()[0] in ("tfvae", "ln")] == ours
    assert len(ours) == 9


def test_a_folder_with_files_is_left_alone(tmp_path):
    folder = tmp_path / "used"
    folder.mkdir()
    (folder / "mine.csv").write_text("mine")
    done = call(folder)
    assert done.returncode == 2 and "expected an empty folder" in done.stdout
    assert [path.name for path in folder.iterdir()] == ["mine.csv"]


@pytest.mark.long
@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_the_script_ends_with_a_service_that_has_changed_over(tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    done = call(folder)
    assert done.returncode == 0, done.stdout
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"model"')]
    assert [answer["model"] for answer in answers] == ["films", "films"]
    assert answers[0]["version"] != answers[1]["version"]
    for answer in answers:
        assert len(answer["items"]) == 2 and not answer["unknown"] and all(item["title"] for item in answer["items"])
    assert done.stdout.endswith("Stopped; every request was answered.\n")
    assert (folder / "runs/films").resolve().name == "films-today"
    refuse_broken_rules(folder)
