"""Answers from an exported LiteRT file: those of the run, without TensorFlow."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from rating_rows import random_ratings
from test_quick import python
from typer.testing import CliRunner

from tfvae.cli.app import app
from tfvae.models.ease import EASE
from tfvae.models.rbm import RBM
from tfvae.serving.litert import export_litert
from tfvae.serving.litert_file import LiteRTFile
from tfvae.serving.recommendations import recommend
from tfvae.serving.rules import Rules
from tfvae.system.errors import InputError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")]

N_ITEMS = 30
SKUS = [f"sku-{number:03}" for number in range(N_ITEMS)]


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with a run on the embedded data, and its export."""
    place = tmp_path_factory.mktemp("litert")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        run("fit", "movietweetings", "--model", "rp3beta", "--run", "run")
        run("export", "run", "phone", "--format", "litert")
        yield place


@pytest.fixture
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.mark.parametrize(
    "told",
    [["--like", "gravity", "-k", "3"], ["--history", "1454468,770828,nobody", "-k", "100000"]],
    ids=["by title", "by id"],
)
def test_the_command_prints_what_it_prints_of_the_run(told, inside):
    of_run, of_file = (run("recommend", place, *told) for place in ("run", "phone"))
    assert of_file.stdout == of_run.stdout and of_file.stderr == of_run.stderr
    of_run, of_file = (json.loads(run("recommend", place, *told, "--json").stdout) for place in ("run", "phone"))
    for one, other in zip(of_run["recommended"], of_file["recommended"], strict=True):
        assert one["item"] == other["item"] and one["title"] == other["title"]
        np.testing.assert_allclose(one["score"], other["score"], rtol=1e-5)


def test_neither_tensorflow_nor_keras_is_loaded(folder):
    code = "import sys; from tfvae.cli.app import main\ntry: main()\nfinally: print('LOADED', *sys.modules)"
    done = python(code, folder, "recommend", "phone", "--like", "gravity")
    assert done.returncode == 0 and not done.stderr and "Iron Man" in done.stdout
    loaded = set(done.stdout[done.stdout.index("LOADED") :].split())
    assert {"tensorflow", "keras", "ai_edge_litert"} & loaded == {"ai_edge_litert"}


def test_without_the_extra_tensorflows_interpreter_answers(inside, monkeypatch):
    expected = run("recommend", "phone", "--like", "gravity").stdout
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    assert run("recommend", "phone", "--like", "gravity").stdout == expected


@pytest.mark.parametrize(
    "wish",
    [
        ["--user", "1"],
        ["--like", "gravity", "--why"],
        ["--like", "gravity", "--again"],
        ["--like", "gravity", "--min-users-per-item", "3"],
        ["--like", "gravity", "--diversity", ".2"],
        ["--all-users", "--out", "top.csv"],
    ],
    ids=" ".join,
)
def test_what_needs_the_run_is_refused(wish, inside):
    refused = run("recommend", "phone", *wish, code=2)
    assert "phone is a LiteRT file" in refused.stderr and "the run" in refused.stderr


def test_text_ids_rules_and_titles(tmp_path):
    ease = EASE(N_ITEMS, regularization=5.0)
    rows = random_ratings(60, N_ITEMS, seed=5)
    rows.data[:] = 1
    ease.fit_matrix(rows, log=[].append)
    rules = Rules(min_users=3, n_users=np.arange(N_ITEMS))
    export_litert(ease, SKUS, tmp_path / "file", [f"Title {sku}" for sku in SKUS], rules=rules)
    file = LiteRTFile(tmp_path / "file")
    assert file.items.n_users.tolist() == list(range(N_ITEMS)) and not file.predicts_ratings
    history = ["sku-004", "sku-011", "unheard of"]
    found = file.recommend(history, k=N_ITEMS)
    expected = recommend(ease, SKUS, [history], N_ITEMS, [f"Title {sku}" for sku in SKUS], rules=rules)
    for one, other in ((found.items, expected.items), (found.titles, expected.titles)):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5, atol=1e-6)
    assert found.unknown == 1 and (found.items == "").sum() == 5  # the history, and three items without three users
    np.testing.assert_array_equal(file.recommend([], 4).scores, file.recommend(["unheard of"], 4).scores)
    with pytest.raises(InputError, match="k is 0; expected at least 1"):
        file.recommend(history, k=0)
    with pytest.raises(InputError, match="needs a rating for each item of a history, and any other model none"):
        file.recommend(history, 3, ratings=[1.0, 2.0, 3.0])


def test_ratings(tmp_path):
    rows = random_ratings(60, N_ITEMS, seed=5)
    model = RBM(N_ITEMS, units=4)
    model.attach(rows)
    export_litert(model, range(N_ITEMS), tmp_path / "file", scale=(1.0, 5.0))
    file = LiteRTFile(tmp_path / "file")
    found = file.recommend([3, 17], 6, [1.0, 4.0])
    expected = recommend(model, range(N_ITEMS), [[3, 17]], 6, ratings=[[1.0, 4.0]], scale=(1.0, 5.0))
    np.testing.assert_array_equal(found.items, expected.items)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)
    assert found.titles is None and found.sd is None
    with pytest.raises(InputError, match="needs a rating for each item"):
        file.recommend([3, 17], 6)
    with pytest.raises(InputError, match="expected 2 ratings, one for each item, found 1"):
        file.recommend([3, 17], 6, [1.0])
    with pytest.raises(InputError, match="expected ratings from 1 to 5, found 6 for item 17"):
        file.recommend([3, 17], 6, [1.0, 6.0])


@pytest.mark.parametrize("name", ["model.tflite", "items.npz"])
def test_a_changed_file_is_refused(name, folder, tmp_path):
    for file in (folder / "phone").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)
    assert f"{name} is missing or not as it was exported" in run("recommend", tmp_path, "--like", "x", code=2).stderr
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing or not as it was exported"):
        LiteRTFile(tmp_path)
    (tmp_path / "tfvae-export.json").write_text('{"format": "tfvae export", "version": 1, "files": []}')
    with pytest.raises(InputError, match=r"exported by an earlier version of tfvae.*; export anew"):
        LiteRTFile(tmp_path)
    (tmp_path / "tfvae-export.json").write_text('["something else"]')
    with pytest.raises(InputError, match="tfvae-export.json"):
        LiteRTFile(tmp_path)
