"""The annealing of the KL weight, update by update and epoch by epoch."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfvae.nn.schedules import Fixed, LinearRamp, Rescaled, WarmUp

NOW = tf.constant(0, tf.int64)


@pytest.mark.parametrize(
    ("update", "beta"),
    [(0, 0.0), (1, 1 / 200_000), (20_000, 0.1), (39_999, 0.199995), (40_000, 0.2), (46_800, 0.2), (10**7, 0.2)],
)
def test_the_papers_schedule_on_ml_20m(update, beta):
    found = LinearRamp(200_000, 0.2).beta(tf.constant(update, tf.int64), NOW)
    assert found.dtype == tf.float32 and found.shape == ()
    assert float(found) == pytest.approx(beta, rel=1e-6)


def test_the_slope_does_not_depend_on_the_cap():
    betas = [[float(LinearRamp(1000, cap).beta(update, NOW)) for update in range(0, 1500, 10)] for cap in (0.2, 1.0)]
    np.testing.assert_allclose(betas[0], np.minimum(0.2, betas[1]), rtol=1e-6)
    assert betas[1][50] == pytest.approx(0.5)
    assert max(betas[1]) == 1.0
    assert (np.diff(betas[1]) >= 0).all()


@pytest.mark.parametrize("update", [0, 1, 10**6])
def test_no_ramp_means_the_cap_from_the_start(update):
    assert float(LinearRamp(0, 0.3).beta(update, NOW)) == pytest.approx(0.3)


def test_fractions_of_an_update_count():
    assert float(LinearRamp(10, 1.0).beta(0.5, NOW)) == pytest.approx(0.05)


def test_the_counter_is_an_input_of_the_graph():
    counter = tf.Variable(0, dtype=tf.int64)
    beta = tf.function(lambda: LinearRamp(4, 0.6).beta(counter, NOW))
    found = []
    for _ in range(4):
        found.append(float(beta()))
        counter.assign_add(1)
    assert found == [0.0, 0.25, 0.5, np.float32(0.6)]
    assert beta.experimental_get_tracing_count() == 1


@pytest.mark.parametrize(
    ("epoch", "share"), [(1, 0.01), (2, 0.02), (50, 0.5), (99, 0.99), (100, 1.0), (101, 1.0), (400, 1.0)]
)
@pytest.mark.parametrize("cap", [1.0, 0.3])
def test_evcfs_warm_up_over_100_epochs(epoch, share, cap):
    found = WarmUp(100, cap).beta(NOW, tf.constant(epoch - 1, tf.int64))
    assert found.dtype == tf.float32 and found.shape == ()
    assert float(found) == pytest.approx(share * cap, rel=1e-6)


def test_the_slope_of_a_warm_up_depends_on_its_cap():
    betas = [[float(WarmUp(20, cap).beta(NOW, epoch - 1)) for epoch in range(1, 40)] for cap in (0.3, 1.0)]
    np.testing.assert_allclose(betas[0], 0.3 * np.array(betas[1]), rtol=1e-6)
    assert betas[0][:20] == pytest.approx(0.3 * np.arange(1, 21) / 20)
    assert betas[0][19:] == [np.float32(0.3)] * 20


@pytest.mark.parametrize("epoch", [1, 2, 1000])
def test_no_warm_up_means_the_cap_from_the_start(epoch):
    assert float(WarmUp(0, 0.3).beta(NOW, epoch - 1)) == pytest.approx(0.3)


def test_a_ramp_that_reaches_its_cap_in_time_stays():
    assert LinearRamp(200_000, 0.2).fitted_to(46_800) == LinearRamp(200_000, 0.2)
    assert LinearRamp(200_000, 0.2).fitted_to(800) == LinearRamp(2_000, 0.2)  # 0.2 at step 400
    assert LinearRamp(200_000, 0.0).fitted_to(1) == LinearRamp(200_000, 0.0)
    assert WarmUp(100, 1.0).fitted_to(100) == WarmUp(100, 1.0) and WarmUp(100, 1.0).fitted_to(30) == WarmUp(15, 1.0)


def test_patience_waits_for_a_warm_up_only():
    assert WarmUp(7, 1.0).patient_from == 7
    assert {schedule.patient_from for schedule in (LinearRamp(7, 1.0), Fixed(0.3), Rescaled(0.1))} == {0}


def test_a_fixed_weight_is_the_same_everywhere():
    assert float(Fixed(0.3).beta(NOW, NOW)) == float(Fixed(0.3).beta(NOW + 99, NOW + 9)) == pytest.approx(0.3)


def test_a_rescaled_weight_is_each_users_own():
    schedule, lengths = Rescaled(0.005), tf.constant([0.0, 3.0, 200.0])
    np.testing.assert_allclose(schedule.of_users(schedule.beta(NOW, NOW), lengths), [0, 0.015, 1.0], rtol=1e-6)
    assert LinearRamp(4, 1.0).of_users(tf.constant(0.5), lengths).shape == ()
