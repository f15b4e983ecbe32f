"""The wheel: an installed tfvae, in an empty folder, has the tables of the papers and the embedded data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_an_installed_wheel_makes_a_table_in_an_empty_folder(tmp_path):
    pytest.importorskip("setuptools", minversion="77")  # older ones do not read the licence of pyproject.toml
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    source, installed, empty = tmp_path / "source", tmp_path / "installed", tmp_path / "empty"
    source.mkdir()
    empty.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "tfvae"):  # a build leaves files beside its sources
        (source / name).symlink_to(ROOT / name)
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path / "wheels", source]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = (tmp_path / "wheels").glob("tfvae-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", installed, wheel], check=True)
    assert (installed / "tfvae" / "py.typed").is_file()
    environment = os.environ | {"PYTHONPATH": str(installed)}
    place = subprocess.run(
        [sys.executable, "-c", "import tfvae; print(tfvae.__file__)"],
        cwd=empty,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert Path(place.strip()).is_relative_to(installed)
    table = ["table", "multvae-table2", "--dataset", "movietweetings", "--rows", "popularity,ease"]
    subprocess.run([sys.executable, "-m", "tfvae", *table], cwd=empty, env=environment, check=True)
    page = (empty / "paper_results" / "multvae-table2" / "movietweetings" / "README.md").read_text(encoding="utf-8")
    assert "| EASE (extra row) | 0." in page
