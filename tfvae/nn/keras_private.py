"""The private parts of Keras that tfvae depends on, in one place, so that an upgrade of Keras breaks here or nowhere.

Each has a test of its own in `tests/test_keras_private.py`, which says what is expected of Keras.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

__all__ = ["BuiltByConstructor", "adam_moments", "forget_step", "summary_writer", "use_step"]


class BuiltByConstructor:
    """To be inherited before `keras.Model`: `fit` builds nothing, since the constructor has built everything.

    Under `tf.distribute` Keras would build a model by calling it on the mean of the replicas' batches. Where a batch
    holds row numbers such a mean has no meaning, and it fails where the replicas' batches are of unequal size.
    """

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        return


def use_step(model: keras.Model, step: Callable | None) -> Callable:
    """Sets the compiled training step that `fit` runs from now on, even within a call of `fit`.

    Args:
        model: A compiled model.
        step: What an earlier call returned; None to compile `model.train_step` anew.

    Returns:
        The step in use.
    """
    model.train_function = step
    model.make_train_function()
    return model.train_function


def forget_step(model: keras.Model) -> None:
    """Lets the next `fit` compile `model.train_step` anew."""
    model.train_function = None


def adam_moments(optimizer: keras.optimizers.Adam, variable: keras.Variable) -> tuple[tf.Variable, tf.Variable]:
    """The running means of a variable's gradient and of its square, which an optimiser that is built keeps.

    Args:
        optimizer: Keras's Adam or a subclass.
        variable: One of the variables that it was built with.

    Returns:
        Two variables of the variable's shape.
    """
    index = optimizer._get_variable_index(variable)
    return optimizer._momentums[index].value, optimizer._velocities[index].value


def summary_writer(callback: keras.callbacks.TensorBoard) -> tf.summary.SummaryWriter:
    """The writer of a TensorBoard callback's training curves."""
    return callback._train_writer
