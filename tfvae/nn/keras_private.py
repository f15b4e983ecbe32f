"""The private parts of Keras that tfvae uses, in one place, so that an upgrade of Keras can break only this module.

Each part has a test of its own in `tests/test_keras_private.py`, which says what is expected of Keras.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

__all__ = ["BuiltByConstructor", "adam_moments", "forget_step", "logs_of_step", "use_step"]


class BuiltByConstructor:
    """Keeps `fit` from building the model, since the constructor has built it; to be inherited before `keras.Model`.

    Under `tf.distribute` Keras would build a model by calling it on the mean of the replicas' batches. The mean of row
    numbers is meaningless, and it fails if the replicas' batches have unequal sizes.
    """

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        return


def use_step(model: keras.Model, step: Callable | None) -> Callable:
    """Sets the compiled training step that `fit` runs from now on, even within a call of `fit`.

    Args:
        model: A compiled model.
        step: A step that an earlier call returned; None to compile `model.train_step` again.

    Returns:
        The step that `fit` now runs.
    """
    model.train_function = step
    model.make_train_function()
    return model.train_function


def forget_step(model: keras.Model) -> None:
    """Makes the next `fit` compile `model.train_step` again."""
    model.train_function = None


def logs_of_step(logs: dict[str, tf.Tensor], strategy: tf.distribute.Strategy) -> dict[str, tf.Tensor]:
    """What a training step returns, in the shape that Keras's `fit` expects of it.

    On several machines, `fit` takes the mean over the first axis of each log, which a scalar does not have.

    Args:
        logs: Scalars by name, which are equal on all replicas.
        strategy: The strategy of the step.
    """
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return logs
    return {name: tf.reshape(value, [1]) for name, value in logs.items()}


def adam_moments(optimizer: keras.optimizers.Adam, variable: keras.Variable) -> tuple[tf.Variable, tf.Variable]:
    """The running means of a variable's gradient and of the squared gradient, from a built optimiser.

    Args:
        optimizer: Keras's Adam or a subclass.
        variable: One of the variables that the optimiser was built with.

    Returns:
        Two variables of the variable's shape.
    """
    index = optimizer._get_variable_index(variable)
    return optimizer._momentums[index].value, optimizer._velocities[index].value
