"""The wheel is the whole product: installed alone, in an empty folder, every command works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
EVENTS = "user,item\n" + "".join(f"{user},{item}\n" for user in range(60) for item in range(user % 7, user % 7 + 9))


def run(folder: Path, *command: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | environment,
        timeout=400,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy, so that the checkout stays as it is."""
    folder = tmp_path_factory.mktemp("build")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "tfvae", folder / "tfvae", ignore=shutil.ignore_patterns("__pycache__"))
    run(folder, "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", "dist")
    (built,) = (folder / "dist").glob("tfvae-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    run(folder, "pip", "install", "--no-deps", "--quiet", "--target", str(folder), str(wheel))
    return folder


def test_the_wheel_has_all_that_is_not_code(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = [path for path in (ROOT / "tfvae").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {path.relative_to(ROOT).as_posix() for path in ours} <= names
    assert "tfvae/py.typed" in names and "tfvae/experiments/tables/multvae-table2.toml" in names


COMMANDS = [
    "table multvae-table2 --dataset movietweetings --rows popularity,ease",
    "sweep multvae-table2 --row ease --dataset movietweetings --trials 2",
    "fit ratings.csv --model ease --run runs/ease",
    "evaluate runs/ease",
    "recommend runs/ease --history 1,2,3 -k 2",
    "export runs/ease exports/ease",
]
CODE = """
import sys, tfvae
from tfvae.cli.app import app
print(tfvae.__file__)
for command in sys.argv[1:]:
    app(command.split(), standalone_mode=False)
"""


@pytest.mark.long
def test_every_command_works_from_the_wheel_in_an_empty_folder(installed, tmp_path):
    (tmp_path / "ratings.csv").write_text(EVENTS)
    (tmp_path / "commands.py").write_text(CODE)  # in one process, since each would load TensorFlow anew
    shown = run(tmp_path, "commands", *COMMANDS, PYTHONPATH=str(installed))
    assert shown.startswith(str(installed))
    stored = tmp_path / "paper_results/multvae-table2/movietweetings"
    assert (stored / "README.md").is_file() and (stored / "ease.sweep.json").is_file()
    assert "ndcg@100" in shown.lower()
    assert (tmp_path / "exports/ease/saved_model.pb").is_file()
    assert run(tmp_path, "tfvae", "--version", PYTHONPATH=str(installed)).startswith("tfvae ")
