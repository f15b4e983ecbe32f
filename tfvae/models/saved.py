"""Models from `.keras` files, which may be somebody else's: only tfvae's own are built, and no code is run.

Keras itself refuses lambda layers, classes that are not registered, and links in the file of weights. Before that the
file is looked through, so that nothing but a model of tfvae is even begun.
"""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import keras

from tfvae.models import MODELS
from tfvae.models.base import Recommender
from tfvae.system.errors import InputError
from tfvae.system.files import reading

__all__ = ["load_model"]

_MEMBERS = {"metadata.json", "config.json", "model.weights.h5"}
_LARGEST_CONFIG = 1 << 20


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
        return keras.models.load_model(Path(path), compile=False, safe_mode=True)


def _refuse_foreign(archive: zipfile.ZipFile) -> None:
    """Refuses an archive that holds other members than a model's, or another class than tfvae's."""
    if foreign := sorted(set(archive.namelist()) - _MEMBERS):
        raise InputError(f"a model consists of {', '.join(sorted(_MEMBERS))}; found {foreign[0]!r} as well.")
    if archive.getinfo("config.json").file_size > _LARGEST_CONFIG:
        raise InputError("its config.json is larger than that of any model.")
    config = json.loads(archive.read("config.json"))
    own = {f"tfvae>{place.partition(':')[2]}" for place in MODELS.values()}
    if config.get("registered_name") not in own:
        found = config.get("registered_name") or config.get("class_name")
        raise InputError(f"expected a model of tfvae, found the class {found!r}.")
    if foreign := [name for name in _classes(config["config"]) if name != "keras.DTypePolicy"]:
        raise InputError(f"the settings of a model are numbers and text; found the class {foreign[0]!r} among them.")


def _classes(value: Any) -> list[str]:
    """The names of all classes in a configuration, at whatever depth."""
    if isinstance(value, list):
        return [name for part in value for name in _classes(part)]
    if not isinstance(value, dict):
        return []
    own = [f"{value.get('module')}.{value['class_name']}"] if "class_name" in value else []
    return own + [name for part in value.values() for name in _classes(part)]
