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


def test_every_command_works_from_the_wheel_in_an_empty_folder(installed, tmp_path):
    def tfvae(*arguments: str) -> str:
        return run(tmp_path, "tfvae", *arguments, PYTHONPATH=str(installed))

    code = "import tfvae; print(tfvae.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        check=True,
    )
    assert found.stdout.startswith(str(installed))
    tfvae("table", "multvae-table2", "--dataset", "movietweetings", "--rows", "popularity,ease")
    assert (tmp_path / "paper_results/multvae-table2/movietweetings/README.md").is_file()
    tfvae("sweep", "multvae-table2", "--row", "ease", "--dataset", "movietweetings", "--trials", "2")
    assert (tmp_path / "paper_results/multvae-table2/movietweetings/ease.sweep.json").is_file()
    (tmp_path / "ratings.csv").write_text(EVENTS)
    tfvae("fit", "ratings.csv", "--model", "ease", "--run", "runs/ease")
    assert "ndcg@100" in tfvae("evaluate", "runs/ease").lower()
    assert tfvae("recommend", "runs/ease", "--history", "1,2,3", "-k", "2")
    tfvae("export", "runs/ease", "exports/ease")
    assert (tmp_path / "exports/ease/saved_model.pb").is_file()
