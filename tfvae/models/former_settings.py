"""Reads settings that were stored when a model had other settings, or moves them to the model that has them today.

Stored runs, run folders and `.keras` files keep all settings of their model. If a setting has since been removed from a
model, a stored model is still the same model today, provided that the setting had the value that is now built in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["todays_settings"]

_PLAIN = {"gated": False, "initializer": "glorot"}
_ONE_HEAD = {"separate_heads": False, "log_variance_range": None}
_BY_STEPS = {"anneal_by": "updates", "warmup_epochs": ...}

# For each model, the settings that it once had, each with the value that is built in today; ... if it had no effect.
TAKEN_OUT: dict[str, dict[str, Any]] = {
    "mult-vae": _PLAIN | _ONE_HEAD | _BY_STEPS | {"divergence": "analytic"},
    "mult-dae": _PLAIN,
    "evcf-mult-vae": {"anneal_by": "epochs", "anneal_updates": ...},
    "vamp": {"anneal_by": "epochs", "anneal_updates": ...},
    "h-vamp": {"anneal_by": "epochs", "anneal_updates": ...},
    "recvae": {"gated": False} | _ONE_HEAD | _BY_STEPS,
    "ract": _PLAIN | {"log_variance_range": None, "divergence": "analytic"} | _BY_STEPS,
}
# For a model that has lost options, the model that has them today.
HEIRS = {"mult-vae": "evcf-mult-vae"}


def todays_settings(model: str, stored: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The model and its settings as they are called today.

    Args:
        model: The model's name in the registry, when its settings were stored.
        stored: All settings that were stored, by name.

    Returns:
        The name and the settings, without those that are built in today. If a setting has a value that no model can
        have today, all settings are returned as they are, and the model's constructor will refuse them.
    """
    for name in filter(None, (model, HEIRS.get(model))):
        taken_out = TAKEN_OUT.get(name, {})
        if all(_built_in(stored[key], value) for key, value in taken_out.items() if key in stored):
            return name, {key: value for key, value in stored.items() if key not in taken_out}
    return model, dict(stored)


def _built_in(stored: Any, value: Any) -> bool:
    return value is ... or stored == value
