"""The Makefile: targets that texts name exist, tables have one scheme of names, an existing .venv keeps its Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tfvae.data.catalogue import DATASETS

ROOT = Path(__file__).parents[1]
TABLES = sorted(path.stem for path in (ROOT / "tfvae" / "experiments" / "tables").glob("*.toml"))
TEXTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md", "paper_results/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
SHORT = {"ncf-ml-1m": "ml1m", "ncf-pinterest": "pinterest"}

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")


def make(*arguments: str, folder: Path = ROOT, path: str = os.environ["PATH"]) -> str:
    """What make prints, errors included; without what a make that runs these tests passes on."""
    return subprocess.run(
        ["make", *arguments], cwd=folder, env={"PATH": path}, check=True, text=True, timeout=60,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ).stdout  # fmt: skip


def commands(*arguments: str) -> list[str]:
    """The calls of `tfvae` that make would run, with single spaces."""
    return [
        " ".join(line.partition(" -m tfvae ")[2].split())
        for line in make("-n", *arguments).splitlines()
        if " -m tfvae " in line
    ]


def named_in(text: str) -> set[str]:
    """The commands after `make` in a text's code: its fenced blocks and what stands in backticks."""
    code = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL) + re.findall(r"`([^`\n]+)`", text)
    found = (re.findall(r"^(?:\w+=\S+ )*make ([^#\n]+)", piece, flags=re.MULTILINE) for piece in code)
    return {command.strip() for piece in found for command in piece}


def test_targets_that_texts_name_exist():
    named = {command: path.name for path in TEXTS for command in named_in(path.read_text(encoding="utf-8"))}
    assert len(named) > 10
    for command in named:
        make("-n", *command.split())  # fails where there is none


def test_links_between_texts_lead_somewhere():
    links = [
        (path, link)
        for path in TEXTS
        for link in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8"))
        if "://" not in link
    ]
    assert len(links) > 20
    assert not [f"{path.name}: {link}" for path, link in links if not (path.parent / link).exists()]


def test_help_names_every_table_and_is_narrow():
    lines = make("help").splitlines()
    assert [line.split()[0] for line in lines if "table" in line.split()[:1] or line.split()[:1] == ["help"]]
    first = {line.split()[0] for line in lines if line.strip()}
    assert set(TABLES) <= first
    assert all(len(line) <= 130 for line in lines)


@pytest.mark.parametrize("table", TABLES)
def test_a_table_is_made_by_its_name(table):
    assert commands(table, "DATASET=ml-20m", "SPLITS=1") == [f"table {table} --dataset ml-20m --splits 1"]
    assert commands(table, "DATA=ratings.csv", "OPTIONS=--seeds 1") == [f'table {table} --data "ratings.csv" --seeds 1']
    assert commands(f"{table}-ml20m", "SOURCE=/file") == [f'table {table} --dataset ml-20m --source "/file"']
    assert commands(table, "DATASET=gowalla") == [f"table {table} --dataset gowalla"]
    assert commands(f"{table}-gowalla") == [f"table {table} --dataset gowalla"]


def test_every_data_set_has_a_short_name():
    for name in DATASETS:
        if name != "synthetic":
            table = "multvae-table3" if name.startswith("ncf-") else "multvae-table2"
            short = SHORT.get(name, name.replace("-", ""))
            assert commands(f"{table}-{short}") == [f"table {table} --dataset {name}"]


def test_tables_that_are_made_together_are_all_made():
    assert len(commands(*(f"{table}-netflix" for table in TABLES))) == len(TABLES)


def test_a_table_without_data_is_refused():
    assert "make evcf-table1 DATASET=ml-1m" in make("-n", "evcf-table1")
    assert "on which data" not in make("-n", "evcf-table1", "DATASET=ml-1m")


@pytest.mark.parametrize(
    ("former", "table", "dataset"),
    [
        ("table1-ml20m", "evcf-table1", "ml-20m"),
        ("table1-ml1m", "pvae-table1", "ml-1m"),
        ("table2-ml20m", "multvae-table2", "ml-20m"),
        ("table2-movietweetings", "multvae-table2", "movietweetings"),
        ("table2-gating-ml1m", "evcf-table2", "ml-1m"),
        ("table3-ml1m", "multvae-table3", "ncf-ml-1m"),
        ("table3-pinterest", "multvae-table3", "ncf-pinterest"),
        ("table4-ml1m", "multvae-table4", "ml-1m"),
        ("recvae-msd", "recvae-table", "msd"),
    ],
)
def test_former_names_stay(former, table, dataset):
    assert commands(former, "SOURCE=/file") == [f'table {table} --dataset {dataset} --source "/file"']
    assert f"make {former} is now make {table}-" in make("-n", former)


def test_a_table_by_variables_stays():
    assert commands("table", "TABLE=multvae-table2", "DATASET=ml-1m") == ["table multvae-table2 --dataset ml-1m"]


def test_a_sweep_takes_the_same_data():
    sweep = ("sweep", "TABLE=multvae-table2", "ROW=mult-vae", "TRIALS=20")
    assert commands(*sweep, "DATASET=ml-1m") == ["sweep multvae-table2 --row mult-vae --dataset ml-1m --trials 20"]
    assert commands(*sweep, "DATA=a b.csv") == ['sweep multvae-table2 --row mult-vae --data "a b.csv" --trials 20']


class Machine:
    """A folder with the Makefile, and a PATH whose interpreters only write down how they are called."""

    def __init__(self, folder: Path):
        self.folder, self.log = folder, folder / "log"
        for name in ("Makefile", "requirements.txt", "pyproject.toml"):
            shutil.copy(ROOT / name, folder)
        self.bin = folder / "bin"

    def python(self, name: str, works: bool = True, place: Path | None = None) -> None:
        place = place or self.bin
        place.mkdir(parents=True, exist_ok=True)
        if not works:
            action = "echo not selected >&2; exit 127"
        else:
            # `-m venv --clear FOLDER` leaves an interpreter there that remembers which one made it.
            made = f"mkdir -p $4/bin; sed s/{name}/from-{name}/ $0 > $4/bin/python; chmod +x $4/bin/python"
            action = f'echo "{name} $*" >> {self.log}; case "$*" in "-m venv"*) {made};; esac'
        (place / name).write_text(f"#!/bin/sh\n{action}\n")
        (place / name).chmod(0o755)

    def install(self, *arguments: str) -> list[str]:
        """Calls with a module, in order."""
        self.log.write_text("")
        make("install", *arguments, folder=self.folder, path=f"{self.bin}:/usr/bin:/bin")
        return [" ".join(line.split()[:4]) for line in self.log.read_text().splitlines() if " -m " in line]


def test_the_newest_python_that_runs_is_taken_and_kept(tmp_path):
    machine = Machine(tmp_path)
    machine.python("python3.13", works=False)
    machine.python("python3.12")
    machine.python("python3.11")
    calls = machine.install()
    assert calls[0] == "python3.12 -m venv --clear"
    assert {call.split()[0] for call in calls[1:]} == {"from-python3.12"}

    machine.python("python3.13")
    assert machine.install() == []
    (tmp_path / "requirements.txt").touch()
    assert {call.split()[0] for call in machine.install("PYTHON=python3.11")} == {"from-python3.12"}


def test_a_named_python_is_taken(tmp_path):
    machine = Machine(tmp_path)
    for name in ("python3.13", "python3.12", "python3"):
        machine.python(name)
    assert machine.install("PYTHON=python3")[0] == "python3 -m venv --clear"


def test_a_python_that_does_not_fit_is_refused(tmp_path):
    machine = Machine(tmp_path)
    machine.python("python3.9", works=False)
    with pytest.raises(subprocess.CalledProcessError) as error:
        machine.install("PYTHON=python3.9")
    assert "3.11, 3.12 or 3.13" in error.value.stdout
    assert not (tmp_path / ".venv").exists()


def test_the_versions_of_python_are_the_same_everywhere():
    supported = ["3.11", "3.12", "3.13"]
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.findall(r"Python :: (3\.\d+)", project) == supported
    assert 'requires-python = ">=3.11,<3.14"' in project
    assert re.findall(r'"(3\.\d+)"', (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")) == supported
    assert f"{sys.version_info[0]}.{sys.version_info[1]}" in supported


def test_hooks_have_the_versions_that_are_installed():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    (ruff,) = re.findall(r"ruff-pre-commit\n    rev: v(\S+)", hooks)
    assert f"\nruff=={ruff}\n" in (ROOT / "requirements.txt").read_text(encoding="utf-8")
