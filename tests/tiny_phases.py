"""A tiny model with several objectives, and what the tests of training in phases do with it."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from scipy.sparse import csr_array

from tfvae.evaluation.results import Evaluation
from tfvae.models.gradient import GradientRecommender, Objective
from tfvae.nn.noise import Noise
from tfvae.nn.optimizers import FusedAdam

RATE = 0.05
N_USERS, BATCH_SIZE = 8, 4

# Objectives by name, each with the names of its variables, its loss and its learning rate; and the phases, in turn.
PLANS = {
    "one loss": ({"a": (["left"], "first", None), "b": (["right", "shared"], "first", None)}, [("a", "b")]),
    "two losses": ({"a": (["left"], "first", None), "b": (["right"], "second", 0.01)}, [("a", "b")]),
    "three phases": (
        {"a": (["left"], "first", None), "b": (["right"], "second", 0.01)},
        [("a",), ("b",), ("b", "a")],
    ),
    "shared": (
        {"a": (["left", "shared"], "first", None), "b": (["shared", "right"], "second", 0.02)},
        [("a",), ("b",)],
    ),
}


@keras.saving.register_keras_serializable(package="test_phases")
class Tiny(GradientRecommender):
    """Three vectors of length three and two losses, each of which depends on all of them."""

    loss_terms = ("error",)

    def __init__(self, n_items, *, plan="three phases", decay=0.0, round_length=1, fresh_start=-1, **kwargs):
        super().__init__(n_items, **{"name": "tiny"} | kwargs)
        self.plan, self.decay, self.round_length, self.fresh_start = plan, decay, round_length, fresh_start
        for number, name in enumerate(("left", "right", "shared")):
            initializer = keras.initializers.RandomUniform(0.2, 0.9, seed=self.seed + number)
            regularizer = keras.regularizers.L2(decay) if decay else None
            setattr(self, name, self.add_weight((3,), initializer, name=name, regularizer=regularizer))
        self.built = True

    @property
    def objectives(self):
        named = PLANS[self.plan][0].items()
        return {name: Objective([getattr(self, v) for v in of], loss, rate) for name, (of, loss, rate) in named}

    def phase_of(self, epoch):
        phases = PLANS[self.plan][1]
        return phases[epoch % len(phases)]

    def round_ends(self, epoch):
        return (epoch + 1) % self.round_length == 0

    def starts_from_best(self, epoch):
        return epoch == self.fresh_start

    def objective(self, rows, noise):
        size = (rows.lengths / 4)[:, None]
        size = size + 0.1 * noise.normal(tf.shape(size), "size")
        inputs = tf.concat([tf.ones_like(size), size, size**2], axis=1)
        left, right, shared = (v.value for v in (self.left, self.right, self.shared))
        first = tf.linalg.matvec(inputs, left + right * shared) - 1
        second = tf.linalg.matvec(inputs, left * right + shared**2) - 2
        return {"first": tf.reduce_mean(first**2), "second": tf.reduce_mean(second**2), "error": tf.reduce_mean(first)}

    def scores(self, rows):
        return rows.lengths[:, None] * tf.reduce_sum(self.left.value) * tf.ones([1, self.n_items])


def matrix(n_users=N_USERS):
    """Users of 1, 2, 3, ... items."""
    return csr_array((np.arange(9) <= np.arange(n_users)[:, None] % 6).astype(np.float32))


def ready(plan, optimizer=None, **settings):
    """A model with the rows attached, compiled."""
    model = Tiny(9, plan=plan, **settings)
    model.attach(matrix())
    model.compile(optimizer=optimizer or FusedAdam(RATE), jit_compile=False)
    return model


def users_of(epochs, batch_size=BATCH_SIZE, n_users=N_USERS):
    """Batches of the users of these epochs, each epoch in an order of its own; the last, smaller batch left out."""
    orders = [np.random.default_rng(epoch).permutation(n_users) for epoch in epochs]
    whole = n_users - n_users % batch_size
    return tf.data.Dataset.from_tensor_slices(np.concatenate([o[:whole].reshape(-1, batch_size) for o in orders]))


def fit(model, epochs, batch_size=BATCH_SIZE, first_epoch=0, n_users=N_USERS, **options):
    """Plain Keras, from `first_epoch` up to `epochs`."""
    return model.fit(
        users_of(range(first_epoch, epochs), batch_size, n_users),
        initial_epoch=first_epoch,
        epochs=epochs,
        steps_per_epoch=n_users // batch_size,
        shuffle=False,
        verbose=0,
        **options,
    ).history


def all_users():
    """All users in one batch, in the order of their numbers, again and again."""
    return tf.data.Dataset.from_tensors(tf.range(N_USERS, dtype=tf.int64)).repeat()


def weights(model):
    return {name: getattr(model, name).numpy() for name in ("left", "right", "shared")}


def state(model):
    """All that training may change, by name: weights and each optimiser's moments, iterations and rate."""
    everything = {variable.path: variable.numpy() for variable in model.variables if "mean" not in variable.path}
    for name, optimizer in model.optimizers.items():
        everything |= {f"{name}: {v.path.split('/', 1)[-1]}": v.numpy() for v in optimizer.variables}
    return everything


def changed(before, after):
    assert before.keys() == after.keys()
    return {name for name in before if not np.array_equal(before[name], after[name])}


def assert_equal_state(one, other):
    one, other = state(one), state(other)
    assert not changed(one, other)


def gradients(model, loss, names):
    """Of one loss on all users with the noise of the model's present update, by the names of its variables."""
    users = tf.range(N_USERS, dtype=tf.int64)
    noise = Noise(model.seed, tf.constant(model.step.numpy()))
    of = [getattr(model, name).value for name in names]
    with tf.GradientTape() as tape:
        value = model.objective(model.histories.gather(users), noise)[loss]
    return dict(zip(names, (g.numpy() for g in tape.gradient(value, of)), strict=True))


class Watch(keras.callbacks.Callback):
    """Notes phase and state at the beginning and the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.phases, self.begun, self.ended, self.optimizers = [], [], [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.phases.append(self.model.phase)
        self.begun.append(state(self.model))
        self.optimizers.append(dict(self.model.optimizers))

    def on_epoch_end(self, epoch, logs=None):
        self.ended.append(state(self.model))


def traced_phases(model, monkeypatch):
    """The phases in which the objective is traced, noted as it happens."""
    traces, objective = [], model.objective
    monkeypatch.setattr(model, "objective", lambda *given: traces.append(model.phase) or objective(*given))
    return traces


class Scripted:
    """Stands for an `Evaluator`: gives validation values and counts how often it was asked."""

    def __init__(self, *values):
        self.values, self.calls = list(values), 0

    def __call__(self):
        self.calls += 1
        return Evaluation({"x": np.array([self.values[self.calls - 1]])}, np.array([0]))
