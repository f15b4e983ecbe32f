"""The quick copy of a run: it answers as the run does, without TensorFlow, and never in place of another model."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
from test_litert_file import run
from test_quick import python

from tfvae.data.items import Items
from tfvae.data.splits import load_split
from tfvae.models.ncf import GMF
from tfvae.models.popularity import Popularity
from tfvae.models.rbm import RBM
from tfvae.models.saved import save_model
from tfvae.models.wmf import WMF
from tfvae.serving import quick
from tfvae.serving.export_folder import made_of
from tfvae.serving.quick import QUICK_FOLDER, keep_quick_copy, quick_copy
from tfvae.system.files import sha256_of
from tfvae.training.loop import load_run

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")]

GRAVITY = ("--like", "gravity", "-k", "3")


@pytest.fixture(scope="module", autouse=True)
def quick_copies(no_quick_copies):
    """Runs have their quick copies here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quick, "LARGEST", 2**28)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A working folder with a run on the embedded data, trained by a process of its own without a word of LiteRT's."""
    place = tmp_path_factory.mktemp("quick")
    code = "from tfvae.cli.app import main; main()"
    done = python(code, place, "fit", "movietweetings", "--model", "rp3beta", "--run", "run")
    assert done.returncode == 0 and "Next: tfvae evaluate run" in done.stdout and "delegate" not in done.stderr
    return place


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    """A copy of it that may be spoilt, where commands are given."""
    shutil.copytree(trained / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


@pytest.mark.parametrize(
    "told", [GRAVITY, ("--history", "1454468,770828,nobody", "-k", "300")], ids=["by title", "by id"]
)
def test_it_answers_as_the_run_does(told, folder):
    quick_one, as_json = run("recommend", "run", *told), run("recommend", "run", *told, "--json")
    shutil.rmtree(folder / QUICK_FOLDER)
    of_run = run("recommend", "run", *told)
    assert (quick_one.stdout, quick_one.stderr) == (of_run.stdout, of_run.stderr)
    recommended = [json.loads(one.stdout)["recommended"] for one in (as_json, run("recommend", "run", *told, "--json"))]
    for one, other in zip(*recommended, strict=True):
        assert one.keys() == other.keys() and one["item"] == other["item"]
        np.testing.assert_allclose(one["score"], other["score"], rtol=1e-5)


def test_it_answers_without_tensorflow(folder):
    code = "import sys; from tfvae.cli.app import main\ntry: main()\nfinally: print('LOADED', *sys.modules)"
    done = python(code, folder.parent, "recommend", "run", *GRAVITY)
    assert done.returncode == 0 and not done.stderr, done.stderr
    loaded = set(done.stdout[done.stdout.index("LOADED") :].split())
    assert {"tensorflow", "keras", "ai_edge_litert"} & loaded == {"ai_edge_litert"}


@pytest.mark.parametrize("wish", [["--user"], ["--why"], ["--again"], ["--min-users-per-item", "3"]], ids=" ".join)
def test_what_it_cannot_say_the_run_says(wish, folder, monkeypatch):
    told = ["--user", load_split(folder).user_ids[0]] if "--user" in wish else [*GRAVITY, *wish]
    monkeypatch.setattr(quick, "quick_copy", lambda folder: pytest.fail("the copy was asked"))
    assert run("recommend", "run", *told).stdout


@pytest.mark.parametrize("name", ["model.tflite", "items.npz", "tfvae-export.json"])
def test_a_damaged_copy_leaves_the_answer_to_the_run(name, folder):
    expected = run("recommend", "run", *GRAVITY).stdout
    file = folder / QUICK_FOLDER / name
    file.write_bytes(file.read_bytes()[:-9])
    assert quick_copy(folder) is None
    assert run("recommend", "run", *GRAVITY).stdout == expected
    keep_quick_copy(folder, load_run(folder).model)  # anew, unless what is there may be something else
    assert (quick_copy(folder) is not None) == (name != "tfvae-export.json")


@pytest.mark.parametrize("name", ["model.keras", "items.npz", "run.json", "settings.json"])
def test_a_damaged_run_is_refused_as_without_a_copy(name, folder):
    file = folder / name
    file.write_bytes(file.read_bytes()[:-9])
    assert quick_copy(folder) is None
    assert name in run("recommend", "run", *GRAVITY, code=2).stderr


def test_a_copy_of_another_run_is_not_asked(folder):
    other = load_run(folder).model
    other.beta = 0.1
    assert other.get_config()["beta"] == 0.1
    save_model(other, folder / "model.keras")
    record = json.loads((folder / "run.json").read_text())
    record["files"]["model.keras"] = sha256_of(folder / "model.keras")
    (folder / "run.json").write_text(json.dumps(record))
    assert quick_copy(folder) is None
    before = made_of(folder / QUICK_FOLDER)
    run("fit", "movietweetings", "--model", "rp3beta", "--run", "run")
    assert quick_copy(folder) is not None and made_of(folder / QUICK_FOLDER) != before


def full_disk(*_, **__):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("reason", ["a full disk", "kernels", "ratings", "known users only", "size", "extra"])
def test_there_is_none_where_it_would_not_help(reason, folder, monkeypatch):
    shutil.rmtree(folder / QUICK_FOLDER)
    n_items = Items.load(folder).n_items
    if reason == "size":
        monkeypatch.setattr(quick, "LARGEST", 4 * n_items - 1)
    if reason == "extra":
        monkeypatch.setattr(quick, "find_spec", lambda name: None)
    if reason == "a full disk":
        monkeypatch.setattr("tfvae.serving.litert.exporting", full_disk)
    others = {"kernels": WMF(n_items, factors=2), "ratings": RBM(n_items, units=2)}
    others["known users only"] = GMF(n_items, n_users=3, factors=2)
    keep_quick_copy(folder, others.get(reason) or Popularity(n_items))
    assert not (folder / QUICK_FOLDER).exists() and quick_copy(folder) is None
    assert run("recommend", "run", *GRAVITY).stdout


def test_a_run_of_an_early_version_whose_files_have_no_digests_answers_itself(folder):
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({key: record[key] for key in record.keys() - {"claim", "files"}}))
    keep_quick_copy(folder, load_run(folder).model)
    assert quick_copy(folder) is None
    assert run("recommend", "run", *GRAVITY).stdout


def test_what_else_is_in_its_place_is_kept(folder):
    shutil.rmtree(folder / QUICK_FOLDER)
    (folder / QUICK_FOLDER).mkdir()
    (folder / QUICK_FOLDER / "notes.txt").write_text("mine")
    keep_quick_copy(folder, load_run(folder).model)
    assert [path.name for path in (folder / QUICK_FOLDER).iterdir()] == ["notes.txt"]
    assert run("recommend", "run", *GRAVITY).stdout


def test_without_the_extra_the_run_answers(folder, monkeypatch):
    expected = run("recommend", "run", *GRAVITY).stdout
    monkeypatch.setattr(quick, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    assert run("recommend", "run", *GRAVITY).stdout == expected
