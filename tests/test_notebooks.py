"""The notebooks run from top to bottom, show what they promise, end in exercises, and are committed without outputs."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path

import nbformat
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
RUNNER = runpy.run_path(str(ROOT / "notebooks" / "run.py"))


@pytest.fixture
def executed(tmp_path, monkeypatch):
    """A function that runs the notebook of a number, and returns its code cells by id."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def cells(number: str):
        (path,) = (path for path in NOTEBOOKS if path.name.startswith(number))
        folder = tmp_path / "notebooks"
        folder.mkdir()
        notebook = RUNNER["without_noise"](RUNNER["run"](path, folder))
        assert not list(folder.iterdir())  # what it writes lies in ../runs
        return {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}

    return cells


def shown(cell, kind):
    """What a cell displays in one MIME type."""
    return [output.data[kind] for output in cell.outputs if kind in output.get("data", {})]


def printed(cell):
    """What a cell prints."""
    return "".join(output.text for output in cell.outputs if output.get("name") == "stdout")


def table_of(cell):
    """The rows of the data frame that a cell displays: lists of texts, without the headings."""
    (table,) = shown(cell, "text/html")
    rows = re.findall(r"<tr>(.*?)</tr>", table.partition("<tbody>")[2], flags=re.DOTALL)
    return [re.findall(r"<td>(.*?)</td>", row) for row in rows]


def test_there_are_six_and_the_readme_names_each():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [path.name[:3] for path in NOTEBOOKS] == [f"0{number}_" for number in range(1, 7)]
    assert all(f"](notebooks/{path.name})" in readme for path in NOTEBOOKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_committed_without_outputs_and_ends_in_exercises(path):
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None, cell.id
        assert not re.search(r"(?<![\w.:/])/(home|work|tmp|root|Users|usr)/", cell.source), cell.id
    last = notebook.cells[-1].source
    assert last.startswith("## Exercises\n") and 3 <= len(re.findall(r"^\d\. ", last, flags=re.MULTILINE)) <= 5


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_what_it_points_to_exists(path):
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    places = re.findall(r"`((?:paper_results|docs|tfvae|examples|notebooks)/[^`\s]*)`", text)
    places += [f"notebooks/{name}" for name in re.findall(r"`(\w+\.ipynb)`", text)]
    assert places
    assert not [place for place in places if not (ROOT / place).exists()]


@pytest.mark.slow
def test_the_quick_start_does_its_five_steps(executed, tmp_path):
    cells = executed("01")
    runs = tmp_path / "runs" / "quick-start"

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

    assert list((runs / "mult-vae" / "tensorboard").rglob("events.out.tfevents.*"))
    assert (runs / "exported" / "saved_model.pb").exists()


@pytest.mark.long
def test_mult_vae_is_its_plain_twin_and_annealing_helps(executed):
    cells = executed("02")  # a cell of it compares losses, gradients and scores
    assert "the same loss, gradients and scores" in printed(cells["twin"])
    popularity, plain = (float(row[0].split()[0]) for row in table_of(cells["evaluate"]))
    assert plain > popularity + 0.005
    assert shown(cells["figure"], "image/png")
    (unannealed, _, _, kl), (_, _, whole, kl_of_annealed), (best, _, partly, kl_of_partly) = table_of(
        cells["figure-table"]
    )
    assert float(best) > float(unannealed) and float(partly) <= 0.2 < float(whole)
    assert float(kl) < float(kl_of_annealed) < float(kl_of_partly)


@pytest.mark.long
def test_the_flexible_prior_is_described_drawn_and_read(executed):
    cells = executed("03")
    mult_vae, vamp = np.array(table_of(cells["bounds"]), float)
    for ndcg, elbo, iwae, active, marginal in (mult_vae, vamp):
        assert ndcg > 0.18 and elbo < iwae < 0
        assert 0 < active <= 50 and 0 < marginal < 50
    assert shown(cells["picture"], "image/png")
    for cell in ("pseudo", "sample"):
        films = sum(table_of(cells[cell]), [])
        assert len(films) == 18 and len(set(films)) > 12  # they are not all the same person


@pytest.mark.long
def test_recvae_starts_at_mult_vae_and_each_step_is_tested(executed):
    cells = executed("04")  # a cell of it compares the losses of RecVAE, all switched off, and of Mult-VAE
    assert shown(cells["prior"], "image/png") and shown(cells["bars"], "image/png")
    rows = table_of(cells["table"])
    assert len(rows) == 4 and all(0 <= float(p) <= 1 for _, p, *_ in rows)
    assert all(abs(float(change.split()[0])) < 0.03 for change, *_ in rows)


@pytest.mark.long
def test_a_posterior_narrows_with_ratings_and_hmc_finds_the_exact_one(executed):
    cells = executed("05")
    of_films, bias_mf, p_vae = (float(rmse) for (rmse,) in table_of(cells["train"]))
    assert max(bias_mf, p_vae) < of_films - 0.1
    areas, gaps, acceptance, distances = np.array(table_of(cells["gap"]), float).T
    assert areas[0] > areas[1] > areas[2] and areas[2] < 0.2
    assert (gaps >= 0).all() and (acceptance > 0.6).all() and (distances < 0.15).all()
    assert shown(cells["picture"], "image/png") and shown(cells["intervals"], "image/png")
    for _, half, most, _ in np.array(table_of(cells["coverage"]), float):
        assert 0.45 < half < 0.7 and 0.87 < most < 0.97


@pytest.mark.long
def test_a_log_becomes_a_service_that_is_renewed(executed):
    cells = executed("06")
    assert len(table_of(cells["compare"])) == 3
    assert len(table_of(cells["serve"])) == 5 and len(table_of(cells["swap"])) == 5
    assert printed(cells["errors"]).startswith("422 ")
    assert "took over; none was lost" in printed(cells["swap"])
    assert shown(cells["spread"], "image/png")


@pytest.mark.slow
def test_the_runner_names_the_cell_that_fails(tmp_path, capsys, monkeypatch):
    broken = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in ("2 + 2", "1 / 0  # here")]
    )
    nbformat.write(broken, tmp_path / "07_broken.ipynb")
    monkeypatch.setitem(RUNNER["main"].__globals__, "HERE", tmp_path)
    assert RUNNER["main"](["07", "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert "07_broken.ipynb failed" in told and "1 / 0  # here" in told and "ZeroDivisionError" in told
    assert not list((tmp_path / "out").iterdir())
    assert RUNNER["main"](["08"]) == 2
