"""The readers of models and of what their training leaves, with whole files and what holds of whatever they read.

These files are saved models, checkpoints with their best weights, and SLIM's stored parts. Where the house goes back to
an earlier file instead of an error, the reader here first checks what it went back to, and then raises what was logged.
"""

from __future__ import annotations

import io
import json
import random
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf
from model_mutations import keras_damaged
from mutations import json_damaged, npz_damaged
from plain_fit import fit
from reader import Reader
from scipy.sparse import csr_array

from tfvae.models import model_class
from tfvae.models.base import Recommender
from tfvae.models.gradient import GradientRecommender
from tfvae.models.rating_model import RatingModel
from tfvae.models.saved import load_model
from tfvae.models.slim import COLUMNS_AT_ONCE, SLIM
from tfvae.nn.batches import unpad
from tfvae.system.errors import InputError
from tfvae.system.memory import peak_gb
from tfvae.training.callbacks import ResumableCheckpoint
from tfvae.training.loop import prepare_to_fit
from tfvae.training.settings import settings_of

__all__ = ["MODEL_READERS"]

MODEST_GB = 0.3
"""What reading a file of some hundred kB may take; a claim of 10⁹ units would take more."""


@contextmanager
def _modest_memory() -> Iterator[None]:
    with suppress(OSError):  # the peak so far is forgotten; outside Linux it is not known
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = peak_gb()
    yield
    assert before is None or peak_gb() - before < MODEST_GB, f"it took {peak_gb() - before:.2f} GB"


# ---- saved models -----------------------------------------------------------------------------------

N_USERS, N_ITEMS = 9, 12
SAVED = ("mult-vae", "h-vamp", "recvae", "ract", "p-vae", "neumf", "llorma", "ease")


@cache
def _saved_models() -> dict[str, bytes]:
    files = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in SAVED:
            path = Path(folder) / f"{name}.keras"
            _any_weights(settings_of(name, model_class(name).example_settings).build(N_ITEMS, N_USERS)).save(path)
            files[path.name] = path.read_bytes()
    return files


def _any_weights(model: Recommender) -> Recommender:
    """The model with weights that all differ, as if it had learned."""
    rng = np.random.default_rng(0)
    if isinstance(model, RatingModel):
        model.rate_as((1.0, 5.0))
    for variable in model.trainable_variables or model.variables:
        variable.assign(variable + rng.uniform(0.01, 0.1, variable.shape).astype(np.float32))
    return model


def _read_model(folder: Path) -> tuple[str, Recommender]:
    """Loads the one file that is not whole, or any if all are."""
    names = [name for name, whole in _saved_models().items() if (folder / name).read_bytes() != whole]
    name = (names or [SAVED[0] + ".keras"])[0]
    with _modest_memory():
        return name, load_model(folder / name)


def _check_model(found: tuple[str, Recommender], files: Mapping[str, bytes]) -> None:
    """It is a model of tfvae with the weights of the file, which are finite, and scores all items."""
    name, model = found
    assert isinstance(model, Recommender)
    assert all(np.isfinite(variable.numpy()).all() for variable in model.variables)
    stored, loaded = _stored_weights(files[name]), Counter(map(_bits, (v.numpy() for v in model.variables)))
    assert not loaded - stored, "weights that the file does not have"
    assert all(shape == () for shape, *_ in stored - loaded), "weights that the model does not have"
    batch = unpad(tf.constant([[0, 1], [model.n_items - 1, -1]]), values=tf.constant([[1.0, 5.0], [3.0, 0.0]]))
    if not model.scores_new_users:
        batch = batch._replace(users=tf.constant([0, model.n_users - 1], tf.int64))
    scores = model.scores(batch if model.predicts_ratings else batch._replace(values=None))
    assert (scores.shape, scores.dtype) == ((2, model.n_items), tf.float32)


def _stored_weights(content: bytes) -> Counter:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        weights = io.BytesIO(archive.read("model.weights.h5"))
    found: list[np.ndarray] = []
    with h5py.File(weights) as file:
        file.visititems(lambda _, entry: found.append(entry[()]) if isinstance(entry, h5py.Dataset) else None)
    return Counter(map(_bits, found))


def _bits(array: Any) -> tuple[tuple[int, ...], str, bytes]:
    array = np.asarray(array)
    return array.shape, str(array.dtype), array.tobytes()


# ---- checkpoints ------------------------------------------------------------------------------------

RUN_DIGEST = "the run"


class _Better(keras.callbacks.Callback):
    """A monitored value that gets better epoch by epoch, so that each epoch has its file of best weights."""

    def on_epoch_end(self, epoch, logs=None):
        logs["val_value"] = epoch / 2


@cache
def _training() -> tuple[GradientRecommender, list[np.ndarray]]:
    """A model that is ready to be trained, and its variables at the start."""
    rows = np.random.default_rng(0).random((20, N_ITEMS)) < 0.3
    split = _Rows(csr_array(rows.astype(np.float32)))
    model = settings_of("mult-vae", {"hidden": [5], "latent_dim": 3}).build(N_ITEMS)
    prepare_to_fit(model, split, 0.01)
    return model, [variable.numpy() for variable in _keeper(model, Path(), [])._all_variables()]


class _Rows:
    scale = None

    def __init__(self, train: csr_array):
        self.train = train


def _keeper(model: GradientRecommender, folder: Path, lines: list[str]) -> ResumableCheckpoint:
    keeper = ResumableCheckpoint(folder, "val_value", None, run=RUN_DIGEST, log=lines.append)
    keeper.set_model(model)
    return keeper


def _begun(folder: Path, lines: list[str]) -> ResumableCheckpoint:
    """The callbacks of a run that has not done anything yet."""
    model, fresh = _training()
    keeper = _keeper(model, folder, lines)
    for variable, value in zip(keeper._all_variables(), fresh, strict=True):
        variable.assign(value)
    return keeper


def _checkpoints(folder: Path) -> dict[str, bytes]:
    model, _ = _training()
    for path in folder.glob("*.npz"):
        path.unlink()
    fit(model, 20, 10, epochs=2, callbacks=[_Better(), _begun(folder, [])])
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.npz"))}


def _checkpoint_damaged(content: bytes, rng: random.Random) -> bytes:
    """A fault as in any npz, or one in the history."""
    with np.load(io.BytesIO(content)) as stored:
        arrays = dict(stored)
    if "history" not in arrays or rng.random() < 0.7:
        return npz_damaged(content, rng)
    history = json_damaged(str(arrays["history"]).encode(), rng)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays | {"history": np.array(history.decode("utf-8", "replace"))})
    return buffer.getvalue()


def _resume(folder: Path) -> ResumableCheckpoint:
    lines: list[str] = []
    keeper = _begun(folder, lines)
    with _modest_memory():
        found = keeper.resume()
    if lines:  # the newest epoch is damaged, of which nothing may be left
        assert found and len(lines) == 1 and len(keeper.history) == 1
        _check_resumed(keeper, {path.name: path.read_bytes() for path in folder.glob("*.npz")})
        raise InputError(lines[0])
    assert found
    return keeper


def _check_resumed(keeper: ResumableCheckpoint, files: Mapping[str, bytes]) -> None:
    """Every weight and the history are those of the file, and finite; the best weights can be read."""
    model, fresh = _training()
    epoch = len(keeper.history) - 1
    with np.load(io.BytesIO(files[f"state-{epoch}.npz"])) as stored:
        assert str(stored["run"]) == RUN_DIGEST
        assert keeper.history == json.loads(str(stored["history"]))
        _check_weights(keeper._all_variables(), stored)
    assert [entry["epoch"] for entry in keeper.history] == list(range(epoch + 1))
    assert all(isinstance(value, int | float) for entry in keeper.history for value in entry.values())
    assert all(np.isfinite(float(value)) for entry in keeper.history for value in entry.values())
    assert model.rows_seen.numpy() == 20 * (epoch + 1)
    keeper.restore_best()
    with np.load(io.BytesIO(files[f"best-{keeper.best_epoch}.npz"])) as stored:
        _check_weights(model.variables, stored)
    assert all(not np.array_equal(now, then) for now, then in zip(model.trainable_variables, fresh, strict=False))


def _check_weights(variables: list[keras.Variable], stored: Mapping[str, np.ndarray]) -> None:
    for number, variable in enumerate(variables):
        assert np.isfinite(variable.numpy()).all()
        assert _bits(variable) == _bits(stored[f"v{number}"])


# ---- SLIM's parts -----------------------------------------------------------------------------------

PARTS = ("slim.json", "columns-0.npz", f"columns-{COLUMNS_AT_ONCE}.npz")


@cache
def _slim() -> tuple[csr_array, np.ndarray, dict[str, bytes]]:
    """A training matrix, the weights fitted to it, and the files that the fit left."""
    n_items = COLUMNS_AT_ONCE + 6
    train = csr_array((np.random.default_rng(0).random((60, n_items)) < 0.2).astype(np.float32))
    with tempfile.TemporaryDirectory() as folder:
        whole = _fit_slim(train, Path(folder), [])
        return train, whole.item_weights.numpy(), {name: (Path(folder) / name).read_bytes() for name in PARTS}


def _fit_slim(train: csr_array, folder: Path, lines: list[str]) -> SLIM:
    model = SLIM(train.shape[1], l1=0.5, l2=1.0)
    model.fit_matrix(train, lines.append, folder, n_jobs=1)
    return model


def _go_on_with_slim(folder: Path) -> SLIM:
    train, whole, files = _slim()
    damaged = {name: (folder / name).read_bytes() for name in PARTS if (folder / name).read_bytes() != files[name]}
    lines: list[str] = []
    with _modest_memory():
        model = _fit_slim(train, folder, lines)
    if told := [line for line in lines if str(folder) in line and "solved again" in line]:
        assert len(told) == len(damaged) == 1
        np.testing.assert_array_equal(model.item_weights, whole)
        with np.load(folder / next(iter(damaged))) as mended:
            assert mended["weights"].dtype == np.float32
        raise InputError(told[0])
    return model


def _check_slim(model: SLIM, files: Mapping[str, bytes]) -> None:
    """The columns are those of the files, finite, not negative, and no item's own."""
    weights = model.item_weights.numpy()
    assert np.isfinite(weights).all() and (weights >= 0).all() and not np.diagonal(weights).any()
    stored = [np.load(io.BytesIO(files[name]))["weights"] for name in PARTS[1:]]
    np.testing.assert_array_equal(weights, np.hstack(stored))
    assert np.isfinite(model.scores(unpad(tf.constant([[0, 1], [2, -1]])))).all()


def _slim_damaged(content: bytes, rng: random.Random) -> bytes:
    return json_damaged(content, rng) if content.startswith(b"{") else npz_damaged(content, rng)


MODEL_READERS = {
    "saved model": Reader(lambda folder: _saved_models(), keras_damaged, _read_model, _check_model, cost=20),
    "checkpoint": Reader(
        *(_checkpoints, _checkpoint_damaged, _resume, _check_resumed), damaged=("state-1.npz", "best-1.npz"), cost=20
    ),
    "SLIM's parts": Reader(lambda folder: _slim()[2], _slim_damaged, _go_on_with_slim, _check_slim, cost=20),
}
