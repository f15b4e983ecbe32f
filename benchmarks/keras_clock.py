"""The clock of the Keras contestants: a callback, and L by TensorFlow's own matrix product."""

from __future__ import annotations

import keras
import tensorflow as tf
from common import Limit, Meter

__all__ = ["Clock"]


class Clock(keras.callbacks.Callback):
    """Tells the meter of each finished step of `fit`.

    Args:
        n_items: Width of the catalogue.
        item_major: Layout of the decoder's last kernel.
        warmup: Steps not counted.
        every: L is timed after each so many steps.

    Attributes:
        meter: Holds what was measured.
        loss: Mean over the steps so far.
    """

    def __init__(self, n_items: int, item_major: bool, warmup: int, every: int):
        super().__init__()
        # Eager products on a CPU are finished when they return.
        self.meter = Meter(lambda: Limit(n_items, item_major, tf.constant, tf.linalg.matmul), warmup, every)
        self.loss = float("nan")

    def on_train_batch_end(self, batch, logs=None):
        """Keras calls this after each update; `logs` holds the means of the epoch so far."""
        self.loss = float(logs["loss"])
        self.meter.step_done()
