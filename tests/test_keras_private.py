"""What tfvae expects of the private parts of Keras: if an upgrade changes them, these tests say which."""

from __future__ import annotations

import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfvae.nn.keras_private import BuiltByConstructor, adam_moments, forget_step, logs_of_step, use_step

PACKAGE = Path(__file__).parents[1] / "tfvae"
NAMES = "maybe_symbolic_build|make_train_function|train_function|get_variable_index|momentums|velocities"
PRIVATE = rf"(?:\.|def )_?({NAMES})\b"


class Counted(keras.Model):
    """A model of one weight; its step, which counts how often it is traced, moves the weight by `distance`."""

    def __init__(self):
        super().__init__()
        self.weight = self.add_weight(shape=(), initializer="zeros", name="weight")
        self.distance, self.traced = 1.0, 0

    def call(self, rows):
        raise ValueError("a model of row numbers is not called by fit")

    def train_step(self, rows):
        self.traced += 1
        self.weight.assign_add(self.distance)
        return {"loss": tf.zeros(())}


class BuiltCounted(BuiltByConstructor, Counted):
    """The same, inheriting as a recommender does."""


def row_numbers() -> tf.data.Dataset:
    return tf.data.Dataset.range(4).batch(2)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_no_other_module_uses_them(path):
    if path.name != "keras_private.py":
        assert not re.search(PRIVATE, path.read_text(encoding="utf-8"))


def test_those_words_are_found():
    text = (PACKAGE / "nn" / "keras_private.py").read_text(encoding="utf-8")
    assert set(re.findall(PRIVATE, text)) == set(NAMES.split("|"))


@pytest.mark.parametrize(("kind", "is_called"), [(Counted, True), (BuiltCounted, False)])
def test_fit_under_a_strategy_builds_no_model_that_its_constructor_built(two_replicas, kind, is_called):
    with two_replicas.scope():
        model = kind()
        model.compile(loss="mse")  # a loss that is not built yet is what Keras calls the model for

    def fit():
        model.fit(row_numbers(), steps_per_epoch=2, verbose=0)

    if is_called:
        with pytest.raises(ValueError):
            fit()
    else:
        fit()


def test_a_step_is_put_back_without_being_traced_again():
    model = Counted()
    model.compile()
    first = use_step(model, None)
    model.fit(row_numbers(), verbose=0)
    traced = model.traced
    assert model.weight.numpy() == 2  # an epoch has two batches

    model.distance = 10.0
    second = use_step(model, None)
    model.fit(row_numbers(), verbose=0)
    assert model.weight.numpy() == 22 and model.traced == 2 * traced

    assert use_step(model, first) is first and second is not first
    model.fit(row_numbers(), verbose=0)
    assert model.weight.numpy() == 24 and model.traced == 2 * traced


def test_a_step_is_changed_between_epochs_of_one_fit():
    model = Counted()
    model.compile()
    steps = {}

    def change(epoch, logs=None):
        model.distance = (1.0, 10.0)[epoch]
        steps[epoch] = use_step(model, None)

    model.fit(row_numbers(), epochs=2, verbose=0, callbacks=[keras.callbacks.LambdaCallback(on_epoch_begin=change)])
    assert model.weight.numpy() == 22 and steps[0] is not steps[1]


def test_a_forgotten_step_is_compiled_anew():
    model = Counted()
    model.compile()
    model.fit(row_numbers(), verbose=0)
    model.distance = 10.0
    model.fit(row_numbers(), verbose=0)
    assert model.weight.numpy() == 4  # the compiled step still has the former distance
    forget_step(model)
    model.fit(row_numbers(), verbose=0)
    assert model.weight.numpy() == 24


def test_moments_are_those_of_their_variable():
    variables = [keras.Variable(np.zeros(shape, "float32")) for shape in ((3,), (2, 2))]
    gradients = [np.full(variable.shape, value, "float32") for variable, value in zip(variables, (1, -2), strict=True)]
    optimizer = keras.optimizers.Adam(beta_1=0.9, beta_2=0.99)
    optimizer.build(variables)
    optimizer.apply([tf.constant(gradient) for gradient in gradients])
    for variable, gradient in zip(variables, gradients, strict=True):
        first, second = adam_moments(optimizer, variable)
        np.testing.assert_allclose(first.numpy(), 0.1 * gradient, rtol=1e-5)
        np.testing.assert_allclose(second.numpy(), 0.01 * gradient**2, rtol=1e-5)
        assert first.handle is not None and second.handle is not None


def test_logs_are_reshaped_for_several_machines_only():
    logs = {"loss": tf.constant(1.0)}
    assert logs_of_step(logs, tf.distribute.get_strategy()) is logs
    # The class is asked for alone: joining machines is for the start of a process.
    together = tf.distribute.MultiWorkerMirroredStrategy.__new__(tf.distribute.MultiWorkerMirroredStrategy)
    assert logs_of_step(logs, together)["loss"].shape == [1]
