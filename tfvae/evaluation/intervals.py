"""How good predicted ratings are as distributions: the CRPS of any model, and the intervals of those with an sd.

A model that knows the standard deviation of its predictions says of a held-out rating that it is distributed as
N(μ, s²). The continuous ranked probability score of this statement, once the rating r is known, is

    CRPS(μ, s; r) = ∫ (F(y) − 1{y ≥ r})² dy = s (z (2Φ(z) − 1) + 2φ(z) − 1/√π),   z = (r − μ) / s.

It is in units of the ratings; the smaller, the better. (Gneiting and Raftery: Strictly proper scoring rules,
prediction, and estimation, JASA 2007, section 4.2, have its negative, of which the greater is the better.) It is
proper: who believes N(μ, s²) expects the least by saying so. A model without a standard deviation says one number, a
distribution with all its mass in one place, whose CRPS is the absolute error. So the two kinds can be compared.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from scipy.special import erf, ndtri

from tfvae.data.splits import HeldOut, HeldOutRatings
from tfvae.evaluation.ratings import RatingEvaluator, centred
from tfvae.evaluation.scoring import moments_at
from tfvae.models.base import Recommender, knows_rating_sd
from tfvae.system.errors import InputError

__all__ = ["Intervals", "describe_intervals", "normal_crps"]

FAR = 40.0
"""Standard deviations beyond which the normal distribution function is 0 or 1 in float64, and the density 0."""


@dataclass(frozen=True)
class Intervals:
    """What the predicted distributions of a model's held-out ratings are worth.

    Attributes:
        crps: Mean continuous ranked probability score, in units of the ratings; the smaller, the better. Without a
            standard deviation it is the mean absolute error.
        within_50: Share of the ratings in the central interval of probability 50 %; None without a standard deviation,
            as the others below.
        within_90: The same of probability 90 %.
        sd: Mean of the standard deviations, in units of the ratings.
    """

    crps: float
    within_50: float | None = None
    within_90: float | None = None
    sd: float | None = None

    @property
    def values(self) -> dict[str, float]:
        """The numbers that are known, by their names above."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def normal_crps(means: np.ndarray, sds: np.ndarray, ratings: np.ndarray) -> np.ndarray:
    """The continuous ranked probability scores of normal distributions; see the module's first lines.

    Args:
        means: μ, float [n].
        sds: s, float [n], not negative; 0 is a point, whose score is the absolute error.
        ratings: The ratings that came, float [n].

    Returns:
        Scores, float64 [n], in units of the ratings; the smaller, the better.

    Example:
        >>> import numpy as np
        >>> from tfvae.evaluation.intervals import normal_crps
        >>> normal_crps(np.array([3.0, 3.0]), np.array([1.0, 0.0]), np.array([0.0, 5.0])).round(4).tolist()
        [2.4366, 2.0]
    """
    means, sds, ratings = (np.asarray(values, np.float64) for values in (means, sds, ratings))
    errors = ratings - means
    # Points have infinite z, or NaN where there is no error; both products below are then what they should be.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        z = np.nan_to_num(errors / sds).clip(-FAR, FAR)
    # 2Φ(z) − 1 is the error function at z/√2. It multiplies the error itself, so that a small sd does no harm.
    return errors * erf(z / np.sqrt(2)) + sds * (np.sqrt(2 / np.pi) * np.exp(-(z**2) / 2) - 1 / np.sqrt(np.pi))


def describe_intervals(model: Recommender, held_out: HeldOut, batch_size: int = 200) -> Intervals | None:
    """Measures the distributions that a model predicts for held-out ratings.

    Means are not clipped to the scale, since a clipped normal distribution is none; the one number of a model without a
    standard deviation is, as it is for the RMSE. All held-out ratings count, and are the same for all models. What has
    no known rating to predict from is predicted by the middle of the range, as for the RMSE, with the standard
    deviation that the model itself gives there: who leaves out what is hard to predict looks better than they are.

    Args:
        model: A model of ratings. Of p-VAE it is the encoder's code that is measured, whether refined later or not.
        held_out: The known ratings and those to predict.
        batch_size: Rows predicted at once, since all items of a row are; it changes no result.

    Returns:
        What was measured; None if what is held out are no ratings.

    Raises:
        DivergedError: If a prediction or a standard deviation is NaN or infinite.
        InputError: If there are no held-out ratings, or the model has another number of items.
    """
    if not isinstance(held_out, HeldOutRatings):
        return None
    if not held_out.targets.nnz:
        raise InputError("there are no held-out ratings to predict; is the split right?")
    if not knows_rating_sd(model):
        return Intervals(crps=RatingEvaluator(model, held_out, batch_size=batch_size)().mean("mae"))
    rows, columns, ratings = held_out.triples()
    means, sds = (
        moments.astype(np.float64) for moments in moments_at(model, held_out.history, rows, columns, batch_size)
    )
    means = centred(means, held_out.history, rows, columns)
    errors = np.abs(ratings - means)
    within_50, within_90 = (float((errors <= ndtri((1 + level) / 2) * sds).mean()) for level in (0.5, 0.9))
    return Intervals(
        crps=float(normal_crps(means, sds, ratings).mean()),
        within_50=within_50,
        within_90=within_90,
        sd=float(sds.mean()),
    )
