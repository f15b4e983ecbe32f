"""How many multiply-adds a training step and a whole run take, counted in the graph without running anything.

Counted are the products of dense matrices, forward and backward. They take most of a step's time where the logits of
a batch are computed for all items. Not counted are the sparse products, the softmax, the optimiser, drawing noise, what
a model computes between its epochs, and validation.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

import scipy.sparse as sp
import tensorflow as tf

from tfvae.models import model_class
from tfvae.models.gradient import GradientRecommender
from tfvae.nn.batches import steps_per_epoch
from tfvae.nn.optimizers import OPTIMIZERS
from tfvae.training.settings import Settings

__all__ = ["Work", "of_run", "of_step", "uncounted"]

PRODUCTS = {"MatMul": "transpose_a", "BatchMatMul": "adj_x", "BatchMatMulV2": "adj_x", "BatchMatMulV3": "adj_x"}
"""Types of operations that are counted, and the attribute that says whether the first factor is transposed."""


class Work(NamedTuple):
    """What a run has to do.

    Attributes:
        updates: Number of training steps.
        multiply_adds: Number of multiply-adds in all of them; each is two floating-point operations.
    """

    updates: int
    multiply_adds: int


def uncounted(settings: Settings) -> str | None:
    """Why the work of a run cannot be counted before it is run, in words; None if it can."""
    kind = model_class(settings.name)
    if not issubclass(kind, GradientRecommender):
        return "fitted to the whole matrix at once"
    if kind.predicts_ratings or kind.rows_are != GradientRecommender.rows_are or kind.updates_rows(settings.model):
        return "a step's work depends on the histories in its batch"
    return None


def of_run(settings: Settings, train: sp.csr_array) -> Work:
    """The work of a run with all its epochs, which early stopping may shorten.

    The last batch of an epoch counts as a whole one. If the cap of the KL weight is found by a pilot run, that counts
    as well.

    Args:
        settings: Settings whose work is not `uncounted`.
        train: CSR [n_users, n_items], of which only the shape matters.

    Returns:
        The work.
    """
    n_users, n_items = train.shape
    training, model = settings.training, settings.build(n_items, n_users)
    assert isinstance(model, GradientRecommender)  # see `uncounted`
    model.attach(train)
    model.compile(optimizer=OPTIMIZERS[training.optimizer](training.learning_rate), jit_compile=False)
    steps = steps_per_epoch(n_users, training.batch_size)
    runs = 1 if training.beta_selection == "fixed" else 2
    multiply_adds = 0
    for phase, epochs in Counter(map(model.phase_of, range(training.epochs))).items():
        model.phase = phase
        multiply_adds += runs * epochs * steps * of_step(model, training.batch_size)
    return Work(runs * training.epochs * steps, multiply_adds)


def of_step(model: GradientRecommender, batch_size: int) -> int:
    """The multiply-adds of one training step in the model's present phase.

    Args:
        model: A compiled model with training rows, none of those whose work is `uncounted`.
        batch_size: Users in the batch.
    """
    step = tf.function(model.train_step, autograph=False)
    graph = step.get_concrete_function(tf.TensorSpec([None], tf.int64)).graph
    return sum(_of_product(operation, batch_size) for operation in graph.get_operations() if operation.type in PRODUCTS)


def _of_product(operation: tf.Operation, batch_size: int) -> int:
    """The multiply-adds of a product; the only length that is not known while a step is traced is that of the batch."""
    summed = operation.inputs[0].shape[-2 if operation.get_attr(PRODUCTS[operation.type]) else -1]
    return math.prod(batch_size if length is None else length for length in (*operation.outputs[0].shape, summed))
