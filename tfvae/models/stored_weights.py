"""The weights within a `.keras` file, looked through before anything is made of them.

Keras stores each weight as one whole, uncompressed dataset of an HDF5 file. So the file cannot hold more numbers than
it has bytes, and a model whose settings ask for a weight that the file does not have is damaged. Both are refused here
before memory is taken for them.
"""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np
import tensorflow as tf

from tfvae.system.errors import InputError

__all__ = ["Weights", "only_stored", "refuse_no_numbers", "stored_weights"]

Weights = Counter[tuple[tuple[int, ...], str]]
"""How many weights there are of each shape and type."""
OPTIMIZER = "optimizer/"  # Keras stores that of a compiled model, which is not read


def stored_weights(content: bytes) -> Weights:
    """The shapes and types of all weights in a file, whose values are not read.

    Args:
        content: An HDF5 file that Keras wrote.

    Raises:
        InputError: If a dataset is not stored as Keras stores weights, or the file is too short for them.
    """
    found: Weights = Counter()
    n_bytes = 0

    def note(name: str, entry: Any) -> None:
        nonlocal n_bytes
        if not isinstance(entry, h5py.Dataset):
            return
        shape, dtype = entry.shape, entry.dtype
        size = math.prod(shape or ()) * dtype.itemsize
        n_bytes += size
        plain = not (shape is None or entry.chunks or entry.external or entry.is_virtual) and dtype.kind in "biuf"
        if not plain or entry.id.get_storage_size() != size or n_bytes > len(content):
            raise InputError(f"{name!r} of its weights is not stored as Keras stores numbers.")
        if not name.startswith(OPTIMIZER):
            found[shape, dtype.name] += 1

    with h5py.File(io.BytesIO(content), "r") as file:
        file.visititems(note)
    return found


@contextmanager
def only_stored(stored: Weights) -> Iterator[None]:
    """Lets a model be made only if its weights are of the stored shapes and types, one for one.

    Scalars are free, since Keras also makes some for its metrics, which it does not store.

    Args:
        stored: What the file holds.

    Raises:
        InputError: Before memory is taken for a weight that is not stored; or at the end, if a stored one is left over.
    """
    left = stored.copy()
    graph = tf.Graph()

    def admit(make: Callable[..., tf.Variable], **given: Any) -> tf.Variable:
        value = given["initial_value"]
        if callable(value):
            with graph.as_default():  # where operations are only noted down
                value = value()
        weight = tuple(value.shape), value.dtype.name
        if weight[0] and not left[weight]:
            raise InputError(f"its settings ask for weights {_named(weight)}, which are not among those in the file.")
        left[weight] -= 1
        return make(**given)

    with tf.variable_creator_scope(admit):
        yield
    for weight, number in left.items():
        if number > 0:
            raise InputError(f"the file holds weights {_named(weight)}, of which a model of its settings has no use.")


def refuse_no_numbers(variables: list[Any]) -> None:
    """Refuses weights that are NaN or infinite.

    Args:
        variables: Variables of Keras.
    """
    for variable in variables:
        if not np.isfinite(variable.numpy()).all():
            raise InputError(f"the weights {variable.path!r} are not all finite numbers.")


def _named(weight: tuple[tuple[int, ...], str]) -> str:
    return f"of shape {list(weight[0])} in {weight[1]}"
