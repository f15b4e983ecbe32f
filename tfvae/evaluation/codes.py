"""The codes of a group of users at one moment of training: where they lie, how wide they are, which dimensions count.

It costs one pass of the encoder, so that it can be looked at between epochs; `tfvae.evaluation.latents` measures a
finished model as a generative model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
import tensorflow as tf
from scipy.sparse import csr_array
from tensorflow_probability import distributions as tfd

from tfvae.models.base import HasPosterior, HasRatingPosterior
from tfvae.nn.batches import RowStore
from tfvae.system.errors import InputError

__all__ = ["USERS", "Codes", "active_units", "codes_of", "has_codes", "spaced"]

ACTIVE_VARIANCE = 0.01  # Burda et al., section 5
USERS = 1000
USERS_AT_ONCE = 500


@dataclass(frozen=True, eq=False)
class Codes:
    """The posteriors of n users over codes of D dimensions.

    Attributes:
        mean: float32 [n, D], the posteriors' means.
        sd: float32 [n, D], their standard deviations.
        kl: float32 [D], KL(q(z_d | x) ‖ p(z_d)) in nats, averaged over the users; None where the prior is not a product
            over dimensions, or differs from user to user.
    """

    mean: np.ndarray
    sd: np.ndarray
    kl: np.ndarray | None

    @property
    def are_finite(self) -> bool:
        """Whether all numbers are."""
        return all(np.isfinite(array).all() for array in (self.mean, self.sd, self.kl) if array is not None)


def has_codes(model: object) -> TypeGuard[HasPosterior | HasRatingPosterior]:
    """Whether a model gives each user a distribution over codes."""
    if isinstance(model, HasRatingPosterior):
        return model.stochastic
    return isinstance(model, HasPosterior)


def codes_of(model: HasPosterior | HasRatingPosterior, histories: csr_array, most: int = USERS) -> Codes:
    """The codes of users; of more than `most` users so many are taken, evenly spaced.

    Args:
        model: The model.
        histories: The users' items or ratings, sparse [n_users, n_items].
        most: The largest number of users.

    Returns:
        The codes.

    Raises:
        InputError: If there are no users.
    """
    if not histories.shape[0]:
        raise InputError("codes are those of users; found histories without rows.")
    rows = histories[spaced(histories.shape[0], most)]
    store = RowStore(rows, with_values=isinstance(model, HasRatingPosterior))
    has_one_prior = isinstance(model, HasRatingPosterior) or model.has_one_prior
    prior = _factors(model.prior()) if has_one_prior else None
    means, sds, divergences = [], [], []
    for first in range(0, store.n_rows, USERS_AT_ONCE):
        users = tf.range(first, min(first + USERS_AT_ONCE, store.n_rows), dtype=tf.int64)
        posterior = model.posterior(store.gather(users))
        means.append(posterior.mean().numpy())
        sds.append(posterior.stddev().numpy())
        if prior is not None:
            divergences.append(tfd.kl_divergence(tfd.Normal(means[-1], sds[-1]), prior).numpy())
    kl = np.concatenate(divergences).mean(axis=0) if divergences else None
    return Codes(np.concatenate(means), np.concatenate(sds), kl)


def _factors(prior: tfd.Distribution) -> tfd.Normal | None:
    """The normal distributions whose product over the dimensions a prior is; None if it is no such product."""
    if isinstance(prior, tfd.Independent) and isinstance(prior.distribution, tfd.Normal):
        return prior.distribution
    return None


def active_units(mean: np.ndarray) -> int:
    """The number of dimensions in which posterior means, [n, D], have a variance over users above 0.01.

    Example:
        >>> import numpy as np
        >>> from tfvae.evaluation.codes import active_units
        >>> active_units(np.array([[1.0, 0.05, 3.0], [-1.0, 0.0, 3.0]]))
        1
    """
    return int(np.count_nonzero(mean.var(axis=0, dtype=np.float64) > ACTIVE_VARIANCE))


def spaced(n: int, at_most: int) -> np.ndarray:
    """At most `at_most` evenly spaced whole numbers from 0 to n - 1, int64; all n of them if n is not larger."""
    return np.linspace(0, n - 1, min(n, at_most)).astype(np.int64)
