"""A saved model is refused before memory is taken for what it does not hold, and has no weights that nobody stored."""

from __future__ import annotations

import io
import json
import re
import tracemalloc
import zipfile
from collections import Counter
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from tfvae.models.ease import EASE
from tfvae.models.multvae import MultVAE
from tfvae.models.saved import load_model, save_model
from tfvae.models.stored_weights import only_stored
from tfvae.system.errors import InputError
from tfvae.system.memory import forget_peak, peak_gb


@pytest.fixture
def saved(tmp_path) -> Path:
    """A Mult-VAE of two equal hidden layers."""
    MultVAE(7, hidden=(4, 4), latent_dim=3).save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def rewrite(path: Path, *, config=None, weights=None, compression: int = zipfile.ZIP_STORED, **more: bytes) -> None:
    """Changes the configuration or the weights of a file, whose checksums are then right again."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    if config:
        settings = json.loads(members["config.json"])
        config(settings["config"])
        members["config.json"] = json.dumps(settings).encode()
    if weights:
        buffer = io.BytesIO(members["model.weights.h5"])
        with h5py.File(buffer, "r+") as file:
            weights(file)
        members["model.weights.h5"] = buffer.getvalue()
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in (members | more).items():
            archive.writestr(name, content)


def largest(file: h5py.File) -> str:
    """The name of the largest dataset."""
    found: list[tuple[int, str]] = []
    file.visititems(lambda name, entry: found.append((entry.size, name)) if isinstance(entry, h5py.Dataset) else None)
    return max(found)[1]


def put(file: h5py.File, **dataset) -> None:
    name = largest(file)
    dtype = file[name].dtype
    del file[name]
    file.create_dataset(name, **({"dtype": dtype} | dataset))


@pytest.mark.parametrize(
    "change",
    [
        {"n_items": 10**9},
        {"latent_dim": 10**6},
        {"hidden": [10**6]},
        {"hidden": [4, 10**6]},
        {"hidden": [10**6, 10**6]},
        {"hidden": [4] * 50_000},
    ],
)
def test_units_that_the_file_does_not_hold_are_refused_before_they_take_memory(change, saved):
    rewrite(saved, config=lambda config: config.update(change))
    forget_peak()
    before = peak_gb()
    with pytest.raises(InputError, match=r"model\.keras: its settings ask for weights of shape \[.*\] in float32"):
        load_model(saved)
    assert before is None or peak_gb() - before < 0.1


def test_weights_for_which_the_model_has_no_place_are_noticed(saved):
    rewrite(saved, weights=lambda file: file.create_dataset("encoder/other", data=np.zeros((4, 5), np.float32)))
    assert isinstance(keras.models.load_model(saved, compile=False), MultVAE)  # Keras ignores them
    with pytest.raises(InputError, match=r"model\.keras: the file holds weights of shape \[4, 5\] in float32"):
        load_model(saved)


def test_a_wrong_checksum_of_the_weights_is_noticed(saved):
    # Keras reads the member once more after the error, and from Python 3.12 on, then without its checksum.
    content = bytearray(saved.read_bytes())
    with zipfile.ZipFile(saved) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        value = file[largest(file)][0].tobytes()
    assert content.count(value) == 1
    content[content.find(value) + 2] ^= 64
    saved.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.keras cannot be read as a saved model \(BadZipFile: Bad CRC-32"):
        load_model(saved)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(value, saved):
    rewrite(saved, weights=lambda file: file[largest(file)].write_direct(np.full((7, 4), value, np.float32)))
    with pytest.raises(InputError, match=r"model\.keras: the weights '.*' are not all finite numbers"):
        load_model(saved)


@pytest.mark.parametrize(
    "dataset",
    [
        {"shape": (10**9, 10**9), "chunks": (10, 10)},
        {"shape": (10**4, 10**4)},
        {"data": np.zeros((7, 4), np.float32), "compression": "gzip"},
        {"shape": (7, 4), "dtype": h5py.string_dtype()},
        {"data": h5py.Empty("f4"), "dtype": "f4"},
    ],
)
def test_weights_that_are_stored_otherwise_than_by_keras_are_refused(dataset, saved):
    rewrite(saved, weights=lambda file: put(file, **dataset))
    with pytest.raises(InputError, match=r"model\.keras: '.*' of its weights is not stored as Keras stores numbers"):
        load_model(saved)


def test_weights_of_another_type_are_refused(saved):
    rewrite(saved, weights=lambda file: put(file, data=np.zeros((7, 4)), dtype="f8"))
    with pytest.raises(InputError, match=r"model\.keras: its settings ask for weights of shape \[7, 4\] in float32"):
        load_model(saved)


def test_a_compressed_member_and_one_that_is_there_twice_are_refused(saved):
    whole = saved.read_bytes()
    rewrite(saved, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match=r"model\.keras: its .* is compressed"):
        load_model(saved)
    saved.write_bytes(whole)
    with zipfile.ZipFile(saved, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("config.json", "{}")
    with pytest.raises(InputError, match=r"model\.keras: it holds config\.json twice"):
        load_model(saved)
    saved.write_bytes(whole)
    rewrite(saved, **{"metadata.json": b" " * (1 << 21)})
    with pytest.raises(InputError, match=r"model\.keras: its metadata\.json is larger"):
        load_model(saved)


def test_a_precision_in_which_no_model_computes_is_refused(tmp_path):
    EASE(5).save(tmp_path / "model.keras")
    rewrite(tmp_path / "model.keras", config=lambda config: config.update(dtype="float16"))
    with pytest.raises(
        InputError, match=r"model\.keras: a model computes in float32 or mixed_bfloat16; found 'float16'"
    ):
        load_model(tmp_path / "model.keras")


def test_a_compiled_model_is_read_without_its_optimizer(tmp_path):
    model = MultVAE(7, hidden=(4,), latent_dim=3)
    model.compile("adam")
    model.save(tmp_path / "model.keras")
    for one, other in zip(load_model(tmp_path / "model.keras").variables, model.variables, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_variable_takes_its_place_before_its_initial_value_is_computed():
    computed = []

    def initial():
        computed.append(tf.executing_eagerly())
        return tf.zeros((2, 3))

    with only_stored(Counter({((2, 3), "float32"): 1})):
        tf.Variable(initial)
        computed.clear()
        with pytest.raises(InputError, match=re.escape("of shape [2, 3]")):
            tf.Variable(initial)
    assert computed == [False]


# ---- writing ----------------------------------------------------------------------------------------


def test_a_file_is_written_as_keras_writes_it_but_is_never_in_memory(tmp_path):
    model = EASE(1500)
    model.item_weights.assign(np.random.default_rng(0).normal(size=(1500, 1500)))
    size = model.item_weights.numpy().nbytes

    def peak(save) -> int:
        tracemalloc.start()
        save()
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    of_keras = peak(lambda: model.save(tmp_path / "keras.keras"))
    ours = peak(lambda: save_model(model, tmp_path / "model.keras"))
    assert ours < 1.2 * size < 1.8 * size < of_keras, (ours, of_keras)
    with zipfile.ZipFile(tmp_path / "keras.keras") as one, zipfile.ZipFile(tmp_path / "model.keras") as other:
        assert sorted(one.namelist()) == sorted(other.namelist())
        assert one.read("config.json") == other.read("config.json")
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".keras"] == []
    np.testing.assert_array_equal(load_model(tmp_path / "model.keras").item_weights, model.item_weights)
