"""Runs the notebooks from top to bottom, and writes copies with their outputs, which the site shows as pages.

A notebook runs in a temporary folder, so that nothing it writes lands beside it. The first cell that fails ends the
run, with the cell and its error.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tfvae.system.files import write_text

HERE = Path(__file__).parent
COPIES = HERE.parent / "build" / "notebooks"
SECONDS_A_CELL = 600
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def run(path: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs, after a run in which each cell may take ten minutes.

    Args:
        path: The notebook.
        folder: The folder in which it runs.

    Raises:
        CellExecutionError: If a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(folder)}}
    how = {"timeout": SECONDS_A_CELL, "kernel_name": "python3", "coalesce_streams": True}
    NotebookClient(notebook, resources=where, **how).execute()
    return notebook


def without_noise(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The same notebook without progress bars and what libraries say of this machine, and without times of cells."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs all notebooks, or those whose names begin as given; prints the seconds of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=[""], help="how the names begin, such as 02; all notebooks if none")
    parser.add_argument("--out", type=Path, default=COPIES, help="the folder for the copies (build/notebooks)")
    given = parser.parse_args(arguments)
    paths = [path for path in sorted(HERE.glob("*.ipynb")) if path.name.startswith(tuple(given.names))]
    if not paths:
        known = ", ".join(path.name for path in sorted(HERE.glob("*.ipynb")))
        print(f"no notebook's name begins with {' or '.join(given.names)}; there are {known}.", file=sys.stderr)
        return 2
    given.out.mkdir(parents=True, exist_ok=True)
    for path in paths:
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder) / "notebooks"
            work.mkdir()
            try:
                notebook = run(path, work)
            except CellExecutionError as error:
                print(f"{path.name} failed:\n{COLOURS.sub('', str(error))}", file=sys.stderr)
                return 1
        write_text(given.out / path.name, nbformat.writes(without_noise(notebook)) + "\n")
        print(f"{path.name}: {time.perf_counter() - begun:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
