"""NumPy arrays that TensorFlow takes over as they are, for weights of which memory holds only one.

`tf.Variable.assign` copies an array twice on its way, and assigning to a slice of a variable makes TensorFlow copy the
whole variable at each later use. An array that is handed over by DLPack is neither copied then nor later.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf
from numpy.typing import DTypeLike

__all__ = ["aligned_zeros", "handed_over"]

ALIGNMENT = 64  # bytes; TensorFlow's kernels end the process where a buffer of others has less


def aligned_zeros(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Zeros that can be handed over; a page of them takes no memory before something is written to it.

    Args:
        shape: Shape of the array.
        dtype: Its type.

    Returns:
        The array, in C order.
    """
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    buffer = np.zeros(n_bytes + ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    return buffer[start : start + n_bytes].view(dtype).reshape(shape)


def handed_over(array: np.ndarray) -> tf.Tensor:
    """The array as a tensor on the same memory.

    Args:
        array: An array from `aligned_zeros`, which nobody may write to any more.

    Returns:
        The tensor, which keeps the memory.

    Raises:
        ValueError: If the array is another one, whose memory TensorFlow could not use.
    """
    if array.ctypes.data % ALIGNMENT or not array.flags.c_contiguous:
        raise ValueError("only a whole array from aligned_zeros can be handed over")
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
