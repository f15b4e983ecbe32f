"""Files from somebody else execute nothing, and nothing is written outside the folder that one names."""

from __future__ import annotations

import io
import json
import pickle
import stat
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

import tfvae
from tfvae.data.interactions import Interactions
from tfvae.data.items import Items
from tfvae.data.sources import Place
from tfvae.data.splits import load_split
from tfvae.models.ease import EASE
from tfvae.models.saved import load_model
from tfvae.system.errors import InputError
from tfvae.training.run_folder import RunFolder
from tfvae.training.settings import settings_of


class Touches:
    """Unpickling it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def rewritten(path: Path, change, more: dict[str, bytes] | None = None) -> Path:
    """A copy of a `.keras` file with another configuration, and with more members."""
    other = path.with_name("other.keras")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "config.json":
                config = json.loads(content)
                config = change(config) or config
                content = json.dumps(config).encode()
            target.writestr(name, content)
        for name, content in (more or {}).items():
            target.writestr(name, content)
    return other


@pytest.fixture
def ease(tmp_path) -> Path:
    EASE(5, regularization=3.0).save(tmp_path / "ease.keras")
    return tmp_path / "ease.keras"


def test_a_model_of_ours_is_loaded(ease):
    assert load_model(ease).regularization == 3.0
    assert load_model(rewritten(ease, lambda config: None)).n_items == 5


SYSTEM = {"module": "os", "class_name": "system", "config": {"command": "touch harm"}, "registered_name": None}
FETCH = {"module": "keras.utils", "class_name": "get_file", "config": {"fname": "harm"}, "registered_name": None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: SYSTEM, "found the class 'system'"),
        (lambda config: FETCH, "found the class 'get_file'"),
        (lambda config: config.update(registered_name="tfvae>FusedAdam"), "found the class 'tfvae>FusedAdam'"),
        (lambda config: config.update(registered_name="other>EASE"), "found the class 'other>EASE'"),
        (lambda config: config["config"].update(dtype=SYSTEM), "found the class 'os.system'"),
        (lambda config: config["config"].update(regularization=[[FETCH]]), "found the class 'keras.utils.get_file'"),
        (lambda config: config["config"].update(regularization=-1), "regularization"),
        (lambda config: config["config"].update(n_items=10**12), "other.keras"),
        (lambda config: config.pop("config"), "other.keras"),
        (lambda config: [config], "other.keras"),
    ],
)
def test_a_keras_file_of_anything_else_is_refused(change, message, ease, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    path = rewritten(ease, change)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=message) as caught:
        load_model(path)
    assert "other.keras" in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["../harm", "/harm", "assets/harm.txt", "code.py"])
def test_a_keras_file_with_other_members_is_refused(name, ease):
    with pytest.raises(InputError, match="a model consists of config.json, metadata.json, model.weights.h5"):
        load_model(rewritten(ease, lambda config: None, {name: b"harm"}))


def test_a_lambda_layer_is_refused_by_ours_and_by_keras(tmp_path):
    done = []
    network = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: done.append(1) or x)])
    network.save(tmp_path / "lambda.keras")
    done.clear()
    with pytest.raises(InputError, match="expected a model of tfvae, found the class 'Sequential'"):
        load_model(tmp_path / "lambda.keras")
    with pytest.raises(ValueError, match="Lambda"):
        keras.models.load_model(tmp_path / "lambda.keras")
    assert tfvae.__version__ and not done


def test_a_damaged_model_is_an_input_error(ease):
    whole = ease.read_bytes()
    middle = len(whole) // 2
    changed = whole[:middle] + bytes(255 - byte for byte in whole[middle : middle + 400]) + whole[middle + 400 :]
    for content in (b"", b"PK", whole[:-50], whole[:middle], changed):
        ease.write_bytes(content)
        with pytest.raises(InputError, match=r"ease\.keras"):
            load_model(ease)
    with pytest.raises(InputError, match="no such file"):
        load_model(ease.with_name("none.keras"))


def test_weights_that_lead_to_another_file_are_refused(ease, tmp_path):
    import h5py

    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["weights"] = np.ones((5, 5))
    with zipfile.ZipFile(ease) as archive:
        weights = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(weights, "r+") as file:
        name = next(iter(file["vars"]))
        del file["vars"][name]
        file["vars"][name] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "weights")
    other = tmp_path / "linked.keras"
    with zipfile.ZipFile(ease) as source, zipfile.ZipFile(other, "w") as target:
        for name in source.namelist():
            target.writestr(name, weights.getvalue() if name.endswith(".h5") else source.read(name))
    with pytest.raises(InputError, match=r"linked\.keras"):
        load_model(other)


@pytest.mark.parametrize("load", [load_split, Interactions.load, lambda path: Items.load(path.parent)])
def test_arrays_of_objects_are_refused_and_not_unpickled(load, tmp_path):
    path, harm = tmp_path / "items.npz", tmp_path / "harm"
    with open(path, "wb") as file:
        np.savez(file, item_ids=np.array([Touches(harm)], dtype=object), protocol=np.array("leave-one-out"))
    with pytest.raises(InputError, match=r"items\.npz"):
        load(path)
    path.write_bytes(pickle.dumps(Touches(harm)))
    with pytest.raises(InputError, match=r"items\.npz"):
        load(path)
    assert not harm.exists()


@pytest.mark.parametrize(
    "name", ["../ratings.dat", "a/../../ratings.dat", "/ratings.dat", "..\\ratings.dat", "C:/a.dat"]
)
def test_an_archive_that_leads_out_of_its_folder_is_refused(name, tmp_path):
    for file in ("set.zip", "events.csv"):
        with zipfile.ZipFile(tmp_path / file, "w") as archive:
            archive.writestr(name, "user,item\n1,2\n")
    with pytest.raises(InputError, match="leads out of the archive's folder"):
        Place(tmp_path / "set.zip")
    with pytest.raises(InputError, match="leads out of the archive's folder"):
        Interactions.from_file(tmp_path / "events.csv")


def test_a_link_in_an_archive_is_refused(tmp_path):
    link = zipfile.ZipInfo("ratings.dat")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="'ratings.dat' is a link"):
        Place(tmp_path / "set.zip")


@pytest.mark.parametrize("name", ["parts", "pilot", "tensorboard"])
def test_a_run_writes_nothing_through_a_link_in_its_folder(name, tmp_path):
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "run"
    elsewhere.mkdir()
    settings = settings_of("ease", {})
    folder.mkdir()
    RunFolder(folder).mark(settings, "digest")
    (folder / name).symlink_to(elsewhere)
    with pytest.raises(InputError, match="is a link"), RunFolder(folder).taken(settings, "digest"):
        pass
    assert not list(elsewhere.iterdir())
