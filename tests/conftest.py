"""Shared fixtures; two logical CPUs, so that every test can ask for two replicas."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import tfvae  # noqa: F401, before TensorFlow as in the command line, so that both compute the same bits

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pytest
import tensorflow as tf
from graph_optimizer import without_optimizer
from hypothesis import HealthCheck, settings
from scipy.sparse import csr_array

from tfvae.data.splits import (
    LeaveOneOut,
    LeaveOneOutSettings,
    StrongGeneralization,
    StrongGeneralizationSettings,
    leave_one_out,
    strong_generalization,
)
from tfvae.data.synthetic import synthetic
from tfvae.serving import quick

# A busy machine is no reason to fail.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
tf.get_logger().setLevel("ERROR")
without_optimizer()
# What is imported stays, and TensorFlow's graphs are many objects: to look through them all for garbage takes long.
gc.freeze()
gc.set_threshold(100_000, 20, 50)
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


@pytest.fixture(scope="session", autouse=True)
def no_quick_copies() -> Iterator[None]:
    """No run has a quick copy but those of `quick_copies`, since each takes a second or two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quick, "LARGEST", -1)
        yield


@pytest.fixture(scope="session")
def tiny_split() -> StrongGeneralization:
    """90 training users, 30 for validation and test each, 40 items of 4 tastes."""
    interactions = synthetic(n_users=150, n_items=40, n_tastes=4, taste=0.9)
    return strong_generalization(interactions, StrongGeneralizationSettings(held_out_users=30))


@pytest.fixture(scope="session")
def tiny_items() -> LeaveOneOut:
    """90 users of 40 items, of whom one item each is held out for validation."""
    interactions = synthetic(n_users=90, n_items=40, n_tastes=4, taste=0.9)
    return leave_one_out(interactions, LeaveOneOutSettings(n_negatives=10, min_items_per_user=3)).for_tuning()


@pytest.fixture(scope="session")
def checkerboard() -> csr_array:
    """User u has the items of u's parity, all but item u, which a model should rank first."""
    users, items = np.indices((16, 16))
    return csr_array(((users + items) % 2 == 0) & (users != items), dtype=np.float32)


@pytest.fixture(scope="session")
def two_replicas() -> tf.distribute.Strategy:
    """A mirrored strategy on the two logical CPUs."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture
def silent_noise(monkeypatch) -> None:
    """Nothing is dropped and every normal draw is 0, so that replicas cannot differ by their noise."""
    monkeypatch.setattr("tfvae.nn.noise.Noise.normal", lambda self, shape, name: tf.zeros(shape))
    monkeypatch.setattr("tfvae.nn.noise.Noise.uniform", lambda self, shape, name: tf.zeros(shape))
    monkeypatch.setattr("tfvae.nn.noise.Noise.kept", lambda self, shape, share, name: tf.fill(shape, True))
