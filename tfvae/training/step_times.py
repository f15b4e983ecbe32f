"""The time of a training step on this machine's device, beside a matrix product of as many operations."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from tfvae.data.synthetic import synthetic
from tfvae.models.gradient import GradientRecommender
from tfvae.nn.optimizers import OPTIMIZERS
from tfvae.system.memory import keep_freed_buffers
from tfvae.training.operations import of_step
from tfvae.training.settings import settings_of

__all__ = ["ITEMS", "PRECISIONS", "StepTime", "step_time"]

ITEMS = 20_108
"""Items of ML-20M after Mult-VAE's filters."""
PRECISIONS = ("float32", "mixed_bfloat16")
HISTORY = 73  # items of a user of ML-20M on the mean
SECONDS = 1.0  # for which steps, or products, are repeated


class StepTime(NamedTuple):
    """How long a training step takes.

    Attributes:
        precision: The training setting of this name.
        n_items: Items of the catalogue.
        batch_size: Users of the batch.
        seconds: Seconds of a step.
        product_seconds: Seconds of one float32 matrix product with as many operations as all products of the step.
        operations: Floating-point operations in the dense products of a step.
    """

    precision: str
    n_items: int
    batch_size: int
    seconds: float
    product_seconds: float
    operations: int

    @property
    def ratio(self) -> float:
        """How many times as long as the product the step takes."""
        return self.seconds / self.product_seconds

    @property
    def tflops(self) -> float:
        """The operations of the step's dense products by its seconds, in 10¹² a second."""
        return self.operations / self.seconds / 1e12


def step_time(precision: str = "float32", n_items: int = ITEMS, batch_size: int = 500) -> StepTime:
    """Times a step of Mult-VAE [I, 600, 200, 600, I] with Adam, on synthetic histories.

    Args:
        precision: The training setting of this name.
        n_items: Number of items, I.
        batch_size: Users in the batch.

    Returns:
        The median times, after the first step and the first product, which are not counted.
    """
    keep_freed_buffers()
    settings = settings_of("mult-vae", {"precision": precision})
    events = synthetic(batch_size, n_items, batch_size * min(HISTORY, n_items // 2))
    ones = np.ones(len(events.users), np.float32)
    model = settings.build(n_items)
    assert isinstance(model, GradientRecommender)
    model.attach(sp.csr_array((ones, (events.users, events.items)), shape=(batch_size, n_items)))
    model.compile(optimizer=OPTIMIZERS["adam"](settings.training.learning_rate), jit_compile=False)
    step, users = tf.function(model.train_step, autograph=False), tf.range(batch_size, dtype=tf.int64)
    multiply_adds = of_step(model, batch_size)
    seconds = _seconds(lambda: step(users))
    inner = max(1, round(multiply_adds / (batch_size * n_items)))
    product = tf.function(lambda a, b: tf.matmul(a, b), autograph=False)
    factors = tf.ones([batch_size, inner]), tf.ones([inner, n_items])
    return StepTime(precision, n_items, batch_size, seconds, _seconds(lambda: product(*factors)), 2 * multiply_adds)


def _seconds(action: Callable[[], object]) -> float:
    """The median time of an action, with what it has begun on a device; the first time is not counted."""
    taken: list[float] = []
    while len(taken) < 3 or sum(taken[1:]) < SECONDS:
        begun = time.perf_counter()
        action()
        tf.test.experimental.sync_devices()
        taken.append(time.perf_counter() - begun)
    return float(np.median(taken[1:]))
