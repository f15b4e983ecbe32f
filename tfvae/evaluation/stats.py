"""Statistics of a mean over users: its standard error, its interval, and a test of whether two models differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tfvae.system.errors import InputError

__all__ = ["PairedTest", "bootstrap_interval", "holm", "mean_and_se", "paired_test"]

RESAMPLES = 2000
RESAMPLES_AT_ONCE = 50


class PairedTest(NamedTuple):
    """A two-sided paired t-test of `a` against `b` on the same users.

    Attributes:
        difference: Mean of a − b.
        se: Standard error of the difference (sample sd / √n, as the test uses it).
        statistic: Student's t with n − 1 degrees of freedom.
        p_value: The two-sided p-value.
    """

    difference: float
    se: float
    statistic: float
    p_value: float


def mean_and_se(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard error over users: population sd / √n, as in Liang et al. 2018.

    The error is that of sampling users; it does not include the spread between training seeds.

    Args:
        values: One value per user, float [n].

    Returns:
        The mean and its standard error.

    Raises:
        InputError: If there is no value.
    """
    values = _per_user(values, at_least=1)
    return float(values.mean()), float(values.std() / np.sqrt(len(values)))


def bootstrap_interval(values: np.ndarray, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over users, from 2,000 resamples.

    The percentile method is used, because the corrected method (BCa) needs an [n, n] jackknife for n users.

    Args:
        values: One value per user, float [n].
        seed: Seed of the resampling; the same seed gives the same interval.
        level: Coverage, in (0, 1).

    Returns:
        The lower and the upper end of the interval.

    Raises:
        InputError: If there is no value.
    """
    values = _per_user(values, at_least=1)
    if len(values) == 1:
        return float(values[0]), float(values[0])
    from scipy import stats  # here, since it takes a second, and rankings need none of it

    low, high = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=RESAMPLES_AT_ONCE,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(low), float(high)


def paired_test(a: np.ndarray, b: np.ndarray) -> PairedTest:
    """Paired t-test of two models on the same users (Liang et al. 2018, Figure 3).

    Two equal vectors give t = 0 and p = 1; two vectors that differ by the same constant everywhere give p = 0.

    Args:
        a: One value per user, float [n].
        b: The other model's value for the same users in the same order, float [n].

    Returns:
        Mean difference, its standard error, the statistic and the p-value.

    Raises:
        InputError: If the lengths differ or there are fewer than two users.
    """
    a, b = _per_user(a, at_least=2), _per_user(b, at_least=2)
    if len(a) != len(b):
        raise InputError(f"a paired test needs the same users on both sides, found {len(a)} and {len(b)}.")
    difference = a - b
    if np.all(difference == difference[0]):
        shift = float(difference[0])
        return PairedTest(shift, 0.0, float(np.sign(shift) * np.inf) if shift else 0.0, 0.0 if shift else 1.0)
    from scipy import stats

    test = stats.ttest_rel(a, b)
    return PairedTest(float(difference.mean()), float(stats.sem(difference)), float(test.statistic), float(test.pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects the p-values of several tests for their number, so that 5 % is the chance of *any* false claim.

    Holm: A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 1979. The smallest
    of m p-values is multiplied by m, the next by m − 1, and so on; none becomes less than a smaller one, or above 1.

    Args:
        p_values: The p-values, in any order.

    Returns:
        The corrected p-values, in the same order.

    Example:
        >>> holm([0.02, 0.01, 0.04])
        [0.04, 0.03, 0.04]
    """
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * factors), 1)
    return corrected.tolist()


def _per_user(values: np.ndarray, at_least: int) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) < at_least:
        raise InputError(f"expected one value for each of {at_least} or more users, found shape {values.shape}.")
    if not np.isfinite(values).all():
        raise InputError(f"{np.count_nonzero(~np.isfinite(values))} of {len(values)} users' values are not finite.")
    return values
