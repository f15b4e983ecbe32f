"""Models for tests that train each of them: those whose parts are all run through by another model's test are `long`.

`make test` leaves such tests out and `make test-all` runs them, so that the former grows less with the number of
models. A model that is new belongs to none of these; what it owes is tested at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import pytest

__all__ = ["of_each_kind"]

LIKE = {
    "mult-dae": "mult-vae",  # without its divergence
    "evcf-mult-vae": "h-vamp",
    "vamp": "h-vamp",
    "gmf": "neumf",  # one of its two parts
    "mlp": "neumf",  # the other one
    "autorec": "p-vae",
    "two-sided-p-vae": "p-vae",  # two of them
    "nnmf": "neumf",  # factors of users and items, and a perceptron
}
"""The models that are left out, each with the one that stands for it."""


def of_each_kind(names: Iterable[str], elsewhere: Collection[str] = ()) -> list:
    """The same names as parameters, of which those in `LIKE` are marked `long` if what stands for them is there.

    So are those that a test of their own file puts through the same, `elsewhere`.
    """
    names = list(names)
    assert set(elsewhere) <= set(names), elsewhere
    left_out = {name for name in names if LIKE.get(name) in names} | set(elsewhere)
    return [pytest.param(name, marks=pytest.mark.long) if name in left_out else name for name in names]
