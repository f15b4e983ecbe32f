"""Finds what is as wide as the catalogue in a traced function."""

from __future__ import annotations

import tensorflow as tf
from gpu_kernels import HANDLES, _graphs

CONSTANTS = ("Const", "Placeholder", "UpperBound", "GatherV2")
"""Operations that read from a constant table: those that have one as an input, or are one."""


def wide_tensors(function: tf.types.experimental.ConcreteFunction, width: int) -> set[str]:
    """The types of the operations that read or make an array with a dimension of the given length.

    Constants made outside the function, and searches and gathers in them, are left out, since their cost does not grow
    with the table. Handles of variables are no arrays; where a whole variable is read or changed, its value or its
    gradient is one.
    """
    found = set()
    for graph in _graphs(function):
        for operation in graph.get_operations():
            tensors = [*operation.inputs, *operation.outputs] if operation.type not in CONSTANTS else operation.outputs
            if operation.type not in ("Const", "Placeholder") and any(_is_wide(tensor, width) for tensor in tensors):
                found.add(operation.type)
    return found


def _is_wide(tensor: tf.Tensor, width: int) -> bool:
    return tensor.dtype not in HANDLES and tensor.shape.rank is not None and width in tensor.shape.as_list()
