"""The history of a run as a checkpoint keeps it: one entry of finite numbers for each epoch."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, TypeAdapter

from tfvae.system.errors import InputError
from tfvae.system.files import finite_json

__all__ = ["checked_history"]

ALWAYS = ("epoch", "loss", "learning_rate", "seconds")
_ENTRIES = TypeAdapter(list[dict[str, float]], config=ConfigDict(strict=True, allow_inf_nan=False))


def checked_history(text: str, epoch: int) -> list[dict[str, Any]]:
    """Reads the history in the checkpoint of an epoch.

    Args:
        text: The history, as JSON.
        epoch: The last epoch of it, counted from 0.

    Returns:
        One entry for each epoch.

    Raises:
        ValueError: If it is not JSON, or not one entry of finite numbers for each epoch.
    """
    history = finite_json(text)
    _ENTRIES.validate_python(history)
    if [entry.get("epoch") for entry in history] != list(range(epoch + 1)):
        raise InputError(f"the history is not that of the epochs 0 to {epoch}.")
    if missing := [name for name in ALWAYS if any(name not in entry for entry in history)]:
        raise InputError(f"the history lacks {missing[0]!r}.")
    return history
