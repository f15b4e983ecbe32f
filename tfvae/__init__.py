"""Variational autoencoders for collaborative filtering: the models, baselines and tables of five papers.

The names below are loaded when they are first used, so that `import tfvae` loads neither TensorFlow
nor NumPy. `tfvae.export` is the module: `tfvae.export.export` writes a SavedModel.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from tfvae.system.imports import after_import

__version__ = "0.2.0"

# TensorFlow takes oneDNN's matrix products on newer processors only. On those without AVX-512, too, the decoder's
# products are up to twice as fast with them. It works when tfvae is imported before TensorFlow.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# `keras.models.load_model` finds the models of tfvae, whichever of the two is imported first.
after_import(
    "keras.src.saving.object_registration",
    lambda registry: importlib.import_module("tfvae.models.registration").register_lazily(registry),
)

_MODULES = {
    "export": "tfvae.serving.saved_model",
    "generative": "tfvae.evaluation.latents",
    "hmc": "tfvae.nn.hmc",
    "predictive": "tfvae.evaluation.predictive",
}
_HOMES = {
    "Histories": "tfvae.data.histories",
    "Interactions": "tfvae.data.interactions",
    "LeaveOneOutSettings": "tfvae.data.splits",
    "RatingHoldoutSettings": "tfvae.data.splits",
    "Rules": "tfvae.serving.rules",
    "StrongGeneralizationSettings": "tfvae.data.splits",
    "WeakGeneralizationSettings": "tfvae.data.splits",
    "continued_generalization": "tfvae.data.splits",
    "ensemble": "tfvae.training.ensemble",
    "evaluate": "tfvae.evaluation.evaluate",
    "latent_diagnostics": "tfvae.evaluation.latents",
    "leave_one_out": "tfvae.data.splits",
    "load_dataset": "tfvae.data.datasets",
    "load_run": "tfvae.training.loop",
    "model_class": "tfvae.models",
    "prepare_to_fit": "tfvae.training.loop",
    "rating_holdout": "tfvae.data.splits",
    "read_items": "tfvae.data.items_file",
    "reasons": "tfvae.serving.reasons",
    "recommend": "tfvae.serving.recommendations",
    "recommend_to_all": "tfvae.serving.everybody",
    "recommend_to_users": "tfvae.serving.recommendations",
    "retrain": "tfvae.training.retraining",
    "settings_of": "tfvae.training.settings",
    "similar_items": "tfvae.serving.similar",
    "strong_generalization": "tfvae.data.splits",
    "top_k": "tfvae.evaluation.scoring",
    "train": "tfvae.training.loop",
    "weak_generalization": "tfvae.data.splits",
}

__all__ = ["__version__", *_MODULES, *_HOMES]  # noqa: F822, they are found by __getattr__


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
