"""Means, intervals and tests against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from tfvae.evaluation.stats import bootstrap_interval, holm, mean_and_se, paired_test
from tfvae.system.errors import InputError


def test_standard_error_is_the_population_sd_over_root_n():
    mean, se = mean_and_se([0.0, 1.0, 0.0, 1.0])
    assert mean == 0.5
    assert se == pytest.approx(0.5 / 2)


def test_bootstrap_interval_of_many_users_is_the_normal_one():
    values = np.random.default_rng(1).beta(2, 3, size=4000)
    mean, se = mean_and_se(values)
    low, high = bootstrap_interval(values)
    assert low == pytest.approx(mean - 1.96 * se, abs=0.15 * se)
    assert high == pytest.approx(mean + 1.96 * se, abs=0.15 * se)


def test_bootstrap_interval_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    inside = 0
    for trial in range(100):
        low, high = bootstrap_interval(rng.random(60), seed=trial, level=0.9)
        inside += low <= 0.5 <= high
    assert 80 <= inside <= 97


def test_bootstrap_is_a_function_of_its_seed():
    values = np.random.default_rng(0).random(50)
    assert bootstrap_interval(values, seed=5) == bootstrap_interval(values, seed=5)
    assert bootstrap_interval(values, seed=5) != bootstrap_interval(values, seed=6)


def test_bootstrap_of_one_or_equal_users_has_no_width():
    assert bootstrap_interval([0.25]) == (0.25, 0.25)
    assert bootstrap_interval(np.full(10, 0.25)) == (0.25, 0.25)


def test_paired_test_by_hand():
    difference = np.array([1.0, 2.0, 3.0])
    b = np.array([0.5, -1.0, 4.0])
    test = paired_test(b + difference, b)
    assert test.difference == pytest.approx(2)
    assert test.se == pytest.approx(1 / np.sqrt(3))
    assert test.statistic == pytest.approx(2 * np.sqrt(3))
    # With 2 degrees of freedom, P(|T| > t) = 1 - t / sqrt(t² + 2).
    assert test.p_value == pytest.approx(1 - np.sqrt(12 / 14))


def test_paired_test_is_antisymmetric():
    a, b = np.random.default_rng(0).random((2, 40))
    one, other = paired_test(a, b), paired_test(b, a)
    assert one.statistic == pytest.approx(-other.statistic)
    assert one.p_value == pytest.approx(other.p_value)


def test_paired_test_without_spread():
    same = np.arange(4) / 4
    assert paired_test(same, same) == (0, 0, 0, 1)
    assert paired_test(same + 1, same) == (1, 0, np.inf, 0)
    assert paired_test(same, same + 1) == (-1, 0, -np.inf, 0)


def test_p_values_are_uniform_where_there_is_no_difference():
    rng = np.random.default_rng(7)
    p_values = [paired_test(*rng.random((2, 30))).p_value for _ in range(400)]
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.035)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="1 or more users"):
        mean_and_se([])
    with pytest.raises(InputError, match="1 of 2 users' values are not finite"):
        bootstrap_interval([1.0, np.nan])
    with pytest.raises(InputError, match="same users on both sides, found 3 and 2"):
        paired_test(np.arange(3), np.arange(2))
    with pytest.raises(InputError, match="2 or more users"):
        paired_test([1.0], [2.0])


def test_holm_by_hand():
    # Sorted: .01 · 4, .02 · 3, .03 · 2, .2 · 1; the third may not fall below the second, and all stay in order.
    assert holm([0.02, 0.2, 0.01, 0.03]) == pytest.approx([0.06, 0.2, 0.04, 0.06])
    assert holm([0.7, 0.6]) == [1, 1]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_holm_makes_few_false_claims_where_nothing_differs():
    random = np.random.default_rng(0)
    wrong = np.mean([min(holm(random.random(12).tolist())) < 0.05 for _ in range(2_000)])
    assert 0.035 < wrong < 0.065
