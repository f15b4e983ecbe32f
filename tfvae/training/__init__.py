"""From settings and a split to a trained model in a run folder; names are imported when they are first used."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "load_run": "tfvae.training.loop",
    "prepare_to_fit": "tfvae.training.loop",
    "retrain": "tfvae.training.retraining",
    "settings_of": "tfvae.training.settings",
    "train": "tfvae.training.loop",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
