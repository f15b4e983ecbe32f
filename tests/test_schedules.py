"""The annealing of the KL weight, update by update and epoch by epoch."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfvae.nn.schedules import linear_ramp, warm_up


@pytest.mark.parametrize(
    ("update", "beta"),
    [(0, 0.0), (1, 1 / 200_000), (20_000, 0.1), (39_999, 0.199995), (40_000, 0.2), (46_800, 0.2), (10**7, 0.2)],
)
def test_the_papers_schedule_on_ml_20m(update, beta):
    found = linear_ramp(tf.constant(update, tf.int64), 200_000, 0.2)
    assert found.dtype == tf.float32 and found.shape == ()
    assert float(found) == pytest.approx(beta, rel=1e-6)


def test_the_slope_does_not_depend_on_the_cap():
    betas = [[float(linear_ramp(update, 1000, cap)) for update in range(0, 1500, 10)] for cap in (0.2, 1.0)]
    np.testing.assert_allclose(betas[0], np.minimum(0.2, betas[1]), rtol=1e-6)
    assert betas[1][50] == pytest.approx(0.5)
    assert max(betas[1]) == 1.0
    assert (np.diff(betas[1]) >= 0).all()


@pytest.mark.parametrize("update", [0, 1, 10**6])
def test_no_ramp_means_the_cap_from_the_start(update):
    assert float(linear_ramp(update, 0, 0.3)) == pytest.approx(0.3)


def test_fractions_of_an_update_count():
    assert float(linear_ramp(0.5, 10, 1.0)) == pytest.approx(0.05)


def test_the_counter_is_an_input_of_the_graph():
    counter, cap = tf.Variable(0, dtype=tf.int64), tf.Variable(1.0)
    beta = tf.function(lambda: linear_ramp(counter, 4, cap))
    found = []
    for _ in range(4):
        found.append(float(beta()))
        counter.assign_add(1)
    cap.assign(0.5)
    assert [*found, float(beta())] == [0.0, 0.25, 0.5, 0.75, 0.5]
    assert beta.experimental_get_tracing_count() == 1


@pytest.mark.parametrize(
    ("epoch", "share"), [(1, 0.01), (2, 0.02), (50, 0.5), (99, 0.99), (100, 1.0), (101, 1.0), (400, 1.0)]
)
@pytest.mark.parametrize("cap", [1.0, 0.3])
def test_evcfs_warm_up_over_100_epochs(epoch, share, cap):
    found = warm_up(tf.constant(epoch, tf.int64), 100, cap)
    assert found.dtype == tf.float32 and found.shape == ()
    assert float(found) == pytest.approx(share * cap, rel=1e-6)


def test_the_slope_of_a_warm_up_depends_on_its_cap():
    betas = [[float(warm_up(epoch, 20, cap)) for epoch in range(1, 40)] for cap in (0.3, 1.0)]
    np.testing.assert_allclose(betas[0], 0.3 * np.array(betas[1]), rtol=1e-6)
    assert betas[0][:20] == pytest.approx(0.3 * np.arange(1, 21) / 20)
    assert betas[0][19:] == [np.float32(0.3)] * 20


@pytest.mark.parametrize("epoch", [1, 2, 1000])
def test_no_warm_up_means_the_cap_from_the_start(epoch):
    assert float(warm_up(epoch, 0, 0.3)) == pytest.approx(0.3)
