"""Lets Keras find tfvae's classes when it loads a file, without importing them earlier.

`keras.models.load_model` knows a class only after its module has been imported and has registered it. `import tfvae`
loads neither Keras nor a model. So this module extends Keras's registry: when Keras looks up the name of a class of
tfvae, the module of that class is imported.
"""

from __future__ import annotations

import importlib
from typing import Any

from tfvae.models import MODELS

__all__ = ["register_lazily"]

PACKAGE = "tfvae>"
OPTIMIZERS = ("FusedAdam", "NormalizedAdam")


def register_lazily(registration: Any) -> None:
    """Puts tfvae's classes among Keras's custom objects; called once Keras's own registry has been imported.

    Args:
        registration: `keras.src.saving.object_registration`.
    """
    if not isinstance(registration.GLOBAL_CUSTOM_OBJECTS, _LazyClasses):
        registration.GLOBAL_CUSTOM_OBJECTS = _LazyClasses(registration.GLOBAL_CUSTOM_OBJECTS)


class _LazyClasses(dict):
    """Keras's custom objects by name; the lookup of a tfvae class imports its module, which registers the class."""

    def __contains__(self, name: Any) -> bool:
        if not super().__contains__(name) and isinstance(name, str) and name.startswith(PACKAGE):
            if module := _module_of(name.removeprefix(PACKAGE)):
                importlib.import_module(module)
        return super().__contains__(name)


def _module_of(class_name: str) -> str | None:
    if class_name in OPTIMIZERS:
        return "tfvae.nn.optimizers"
    modules = {name: module for module, _, name in (place.partition(":") for place in MODELS.values())}
    return modules.get(class_name)
