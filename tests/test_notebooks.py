"""The notebooks run from top to bottom, show what they promise, and are committed without outputs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def executed(path, runs, monkeypatch):
    """The notebook's code cells by id, after a run from top to bottom in the notebook's own folder."""
    monkeypatch.setenv("TFVAE_RUNS", str(runs))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
    return {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}


def shown(cell, kind):
    """What a cell displays in one MIME type."""
    return [output.data[kind] for output in cell.outputs if kind in output.get("data", {})]


def cells_of_table(cell):
    """The texts of the cells of the data frame a cell displays, row by row."""
    (table,) = shown(cell, "text/html")
    return re.findall(r"<td>(.*?)</td>", table)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_committed_without_outputs(path):
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None, cell.id


def test_the_quickstart_does_its_five_steps(tmp_path, monkeypatch):
    path = ROOT / "notebooks" / "01_quickstart.ipynb"
    before = sorted(path.parent.iterdir())
    cells = executed(path, tmp_path, monkeypatch)

    assert shown(cells["curve"], "image/png")
    (table,) = shown(cells["evaluate"], "text/plain")
    ndcg = {row.split()[0]: float(row.split()[1]) for row in table.splitlines()[1:]}
    assert set(ndcg) == {"popularity", "ease", "mult-vae"}
    assert ndcg["mult-vae"] > ndcg["popularity"] + 0.02

    (recommended,) = shown(cells["recommend"], "text/plain")
    (served,) = shown(cells["export"], "text/plain")
    served = ast.literal_eval(served)
    assert len(set(served)) == 10 and all(title in recommended for title in served)
    assert not any(title in recommended for title in ("Toy Story (1995)", "Ratatouille (2007)", "Up (2009)"))

    assert list((tmp_path / "mult-vae" / "tensorboard").rglob("events.out.tfevents.*"))
    assert (tmp_path / "exported" / "saved_model.pb").exists()
    assert sorted(path.parent.iterdir()) == before


@pytest.mark.long
def test_the_flexible_prior_is_described_drawn_and_read(tmp_path, monkeypatch):
    path = ROOT / "notebooks" / "02_flexible_priors.ipynb"
    before = sorted(path.parent.iterdir())
    cells = executed(path, tmp_path, monkeypatch)

    mult_vae, vamp = np.reshape(cells_of_table(cells["bounds"]), (2, 5)).astype(float)
    for ndcg, elbo, iwae, active, marginal in (mult_vae, vamp):
        assert ndcg > 0.18 and elbo < iwae < 0
        assert 0 < active <= 50 and 0 < marginal < 50
    assert shown(cells["picture"], "image/png")
    for cell in ("pseudo", "sample"):
        films = cells_of_table(cells[cell])
        assert len(films) == 18 and len(set(films)) > 12  # they are not all the same person
    assert sorted(path.parent.iterdir()) == before
