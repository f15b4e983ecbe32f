"""Models in `.keras` files, which may be somebody else's: only tfvae's own are built, and no code is run.

Keras itself refuses lambda layers, classes that are not registered, and links in the file of weights. Before that the
file is looked through, so that nothing but a model of tfvae is even begun. That includes the checksums of its members,
without which Keras goes on where one is wrong (from Python 3.12 on), and the shapes of its weights.
"""

from __future__ import annotations

import json
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import keras

from tfvae.models import MODELS
from tfvae.models.base import Recommender
from tfvae.models.stored_weights import Weights, only_stored, refuse_no_numbers, stored_weights
from tfvae.system.errors import InputError
from tfvae.system.files import reading, replacing

__all__ = ["load_model", "save_model"]

_WEIGHTS = "model.weights.h5"
_MEMBERS = {"metadata.json", "config.json", _WEIGHTS}
_LARGEST_JSON = 1 << 20
_PRECISIONS = ("float32", "mixed_bfloat16")


def load_model(path: str | os.PathLike) -> Recommender:
    """Reads a recommender that Keras saved.

    Args:
        path: A `.keras` file of a model of tfvae.

    Returns:
        The model, not compiled.

    Raises:
        InputError: If the file is missing or damaged, or holds anything but a model of tfvae.
    """
    with reading(path, "a saved model"):
        with zipfile.ZipFile(path) as archive:
            _refuse_foreign(archive)
            stored = _looked_through(archive)
        with only_stored(stored), warnings.catch_warnings():
            # Keras would go on with weights that nobody has trained.
            warnings.filterwarnings("error", "Skipping nested container")
            model = keras.models.load_model(Path(path), compile=False, safe_mode=True)
        if not isinstance(model, Recommender):
            raise InputError(f"expected a model of tfvae, found {type(model).__name__}.")
        if model.dtype_policy.name not in _PRECISIONS:
            raise InputError(f"a model computes in {' or '.join(_PRECISIONS)}; found {model.dtype_policy.name!r}.")
        refuse_no_numbers(model.variables)
        return model


def save_model(model: Recommender, path: str | os.PathLike) -> None:
    """Writes a recommender as `model.save` does, by way of files.

    Where twice the weights fit into memory, `model.save` puts the whole file together there, so that it needs three
    times the memory of an item-item matrix. Here memory holds the weights and a copy of one of them,
    and for a while they are on disk twice.

    Args:
        model: The model.
        path: The `.keras` file; it is replaced when the new one is whole.
    """
    with replacing(path) as draft:
        folder = draft.with_name("members")
        model.save(folder, zipped=False)
        with zipfile.ZipFile(draft, "w") as archive:
            for name in sorted(_MEMBERS):
                archive.write(folder / name, name)


def _refuse_foreign(archive: zipfile.ZipFile) -> None:
    """Refuses an archive that holds other members than a model's, or another class than tfvae's."""
    names = archive.namelist()
    if foreign := sorted(set(names) - _MEMBERS):
        raise InputError(f"a model consists of {', '.join(sorted(_MEMBERS))}; found {foreign[0]!r} as well.")
    for member in archive.infolist():
        if names.count(member.filename) > 1:
            raise InputError(f"it holds {member.filename} twice.")
        if member.compress_type != zipfile.ZIP_STORED:  # from a few bytes there would come any number of them
            raise InputError(f"its {member.filename} is compressed, which Keras does not do.")
        if member.filename != _WEIGHTS and member.file_size > _LARGEST_JSON:
            raise InputError(f"its {member.filename} is larger than that of any model.")
    config = json.loads(archive.read("config.json"))
    own = {f"tfvae>{place.partition(':')[2]}" for place in MODELS.values()}
    if config.get("registered_name") not in own:
        found = config.get("registered_name") or config.get("class_name")
        raise InputError(f"expected a model of tfvae, found the class {found!r}.")
    if foreign := [name for name in _classes(config["config"]) if name != "keras.DTypePolicy"]:
        raise InputError(f"the settings of a model are numbers and text; found the class {foreign[0]!r} among them.")


def _looked_through(archive: zipfile.ZipFile) -> Weights:
    """The shapes and types of the weights; raises an error if a member is missing or has another checksum."""
    archive.read("metadata.json")  # reading a member compares its checksum
    return stored_weights(archive.read(_WEIGHTS))


def _classes(value: Any) -> list[str]:
    """The names of all classes in a configuration, at whatever depth."""
    if isinstance(value, list):
        return [name for part in value for name in _classes(part)]
    if not isinstance(value, dict):
        return []
    own = [f"{value.get('module')}.{value['class_name']}"] if "class_name" in value else []
    return own + [name for part in value.values() for name in _classes(part)]
