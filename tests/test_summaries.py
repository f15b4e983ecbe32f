"""What a printed cell says: the stated rules."""

from __future__ import annotations

import pytest

from tfvae.evaluation.stats import PairedTest
from tfvae.experiments.summaries import ordering_verdict, verdict


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (0.0, "reproduced"),
        (0.0044, "reproduced"),
        (-0.0044, "reproduced"),
        (0.0046, "above"),
        (-0.0046, "below"),
    ],
)
def test_the_verdict_is_two_standard_errors_and_the_rounding(difference, expected):
    assert verdict(difference, se=0.002) == expected


@pytest.mark.parametrize(
    ("difference", "p_value", "expected"),
    [
        (0.01, 0.049, "holds"),
        (-0.01, 0.049, "reversed"),
        (0.01, 0.05, "no difference shown"),
        (-0.01, 0.7, "no difference shown"),
        (0.0, 1.0, "no difference shown"),
    ],
)
def test_an_ordering_is_judged_by_sign_and_p(difference, p_value, expected):
    assert ordering_verdict(PairedTest(difference, 0.005, difference / 0.005, p_value), "ndcg@100") == expected
