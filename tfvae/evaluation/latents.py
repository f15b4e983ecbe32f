"""A model with latent codes as a generative model: bounds on log p(x), and the aggregated posterior beside the prior.

Ranking metrics measure what a model recommends; this module measures how well it models the data. All values are for
one group of users. Their *histories* are both the input x and the x of log p(x). For test users these are the fold-in
items, since held-out items never enter a network. The KL weight is 1, whatever β the model was trained with.

    ELBO_S  = 1/S Σ_s log w_s,   IWAE_S = log 1/S Σ_s w_s,   w_s = p(x, z_s) / q(z_s | x),   z_s ~ q(z | x)

Burda, Grosse, Salakhutdinov: Importance Weighted Autoencoders, ICLR 2016: E ELBO_S ≤ E IWAE_S ≤ log p(x), and
E IWAE_S grows with S. Hoffman, Johnson: ELBO surgery, 2016: the prior should match the aggregated posterior
q(z) = 1/N Σ_u q(z | x_u); KL(q(z) ‖ p(z)) is the only part of the mean KL term that depends on the prior.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from scipy.sparse import csr_array
from sklearn.decomposition import PCA

from tfvae.evaluation.codes import active_units, spaced
from tfvae.evaluation.scoring import traced
from tfvae.models.base import HasPosterior, Recommender
from tfvae.nn.batches import RowStore
from tfvae.nn.noise import Noise, derive_seed
from tfvae.nn.priors import VampPrior, sample_with
from tfvae.system.errors import DivergedError, InputError
from tfvae.system.memory import keep_freed_buffers

__all__ = ["LatentDiagnostics", "latent_diagnostics", "has_latents"]

SAMPLES = 100
USERS_OF_MIXTURE = 5000
POINTS = 2000
USERS_PER_DRAW = 64


@dataclass(frozen=True, eq=False)
class LatentDiagnostics:
    """Measurements of a model as a generative model, on n_users users.

    Attributes:
        per_user: "elbo" and "iwae" of each user, float64 [n_users], in nats; the second is never below the first.
        values: "samples", S of these two; "latent_dim"; "active_units", the number of latent dimensions in which the
            posterior mean has a variance over users above 0.01; "marginal_kl", KL(q(z) ‖ p(z)) in nats;
            "marginal_users", the number of users in that q(z).
        posterior: float32 [n, 2], samples of the aggregated posterior in the plane of their two principal components.
        prior: float32 [n, 2], samples of the prior in the same plane.
    """

    per_user: dict[str, np.ndarray]
    values: dict[str, float]
    posterior: np.ndarray
    prior: np.ndarray


def has_latents(model: Recommender) -> TypeGuard[HasPosterior]:
    """Whether a model has a posterior, and one prior for all users; `latent_diagnostics` needs both."""
    return isinstance(model, HasPosterior) and model.has_one_prior


def latent_diagnostics(
    model: HasPosterior,
    histories: csr_array,
    samples: int = SAMPLES,
    seed: int = 0,
    batch_size: int = 500,
) -> LatentDiagnostics:
    """Measures a model on users; the result is a function of the model, the histories, `samples` and `seed`.

    Each user has noise of their own, so that `batch_size` changes nothing beyond float rounding. A batch's logits are
    computed for one sample at a time.

    KL(q(z) ‖ p(z)) is the mean of log q(z_u) - log p(z_u) over users, with one z_u ~ q(z | x_u) for each. q(z) is
    of at most 5,000 users, and the points to draw are of at most 2,000 of these, evenly spaced. For the mixture of
    these N users the estimate has no bias.
    As an estimate for all future users it is too high, since the component q(z | x_u) that z_u was drawn from is part
    of q(z). The mean KL(q(z | x_u) ‖ p(z)) exceeds it by at most log N (Hoffman and Johnson), however far apart the
    posteriors are.

    Args:
        model: The model.
        histories: The users' items, sparse [n_users, n_items].
        samples: S, the number of draws per user.
        seed: Seed of the random draws.
        batch_size: Users at once; a larger number needs more memory.

    Returns:
        The bounds, the values and the points to draw.

    Raises:
        InputError: If there are no users, the histories have another number of items than the model, or an argument is
            below 1.
        DivergedError: If a bound is not finite.
    """
    n_users, n_items = histories.shape
    if n_items != model.n_items:
        raise InputError(f"expected histories of the model's {model.n_items} items, found {n_items} columns.")
    for name, number in (("users", n_users), ("samples", samples), ("batch_size", batch_size)):
        if number < 1:
            raise InputError(f"{name} is {number}; expected at least 1.")
    keep_freed_buffers()
    visit = _visit(model, RowStore(histories), samples, seed)
    starts = range(0, n_users, batch_size)
    visited = [visit(tf.range(first, min(first + batch_size, n_users), dtype=tf.int64)) for first in starts]
    elbo, iwae, mean, sd, z = (np.concatenate(parts) for parts in zip(*visited, strict=True))
    if diverged := np.count_nonzero(~np.isfinite(iwae + elbo)):
        raise DivergedError(f"{model.name} gives {diverged} of {n_users} users a bound that is not finite.")

    mixture = spaced(n_users, USERS_OF_MIXTURE)
    drawn = spaced(len(mixture), POINTS)
    log_prior, of_prior = _at_prior(model, len(drawn), seed)(tf.constant(z[mixture]))
    log_aggregated = _log_mixture(z[mixture], mean[mixture], sd[mixture])
    values = {
        "samples": float(samples),
        "latent_dim": float(z.shape[1]),
        "active_units": float(active_units(mean)),
        "marginal_kl": float(np.mean(log_aggregated - log_prior.numpy().astype(np.float64))),
        "marginal_users": float(len(mixture)),
    }
    plane = _principal_plane(z[mixture][drawn], of_prior.numpy())
    return LatentDiagnostics({"elbo": elbo, "iwae": iwae}, values, *plane)


def _visit(model: HasPosterior, store: RowStore, samples: int, seed: int) -> Callable:
    """A graph that maps consecutive user numbers [B] to ELBO, IWAE, posterior mean and sd, and one z of each user."""
    seed = derive_seed(seed, "generative")

    def visit(users: tf.Tensor) -> tuple[tf.Tensor, ...]:
        batch = store.gather(users)
        log_weight = model.importance(batch)
        # The samples are drawn one after the other, since each needs logits [B, n_items].
        log_weights = tf.map_fn(
            lambda sample: log_weight(_NoiseOfUsers(seed, sample, users)),
            tf.range(samples, dtype=tf.int64),
            fn_output_signature=tf.float32,
            parallel_iterations=1,
        )
        log_weights = tf.cast(log_weights, tf.float64)
        elbo = tf.reduce_mean(log_weights, axis=0)
        iwae = tfp.math.reduce_logmeanexp(log_weights, axis=0)
        posterior = model.posterior(batch)
        z = sample_with(_NoiseOfUsers(seed, samples, users), "aggregated", posterior)
        # Equal weights give equal bounds; rounding must not make the ELBO the larger one.
        return elbo, tf.maximum(iwae, elbo), posterior.mean(), posterior.stddev(), z

    return traced(visit, tf.TensorSpec([None], tf.int64))


def _at_prior(model: HasPosterior, n: int, seed: int) -> Callable:
    """A graph that maps codes [N, D] to their log p(z), and to n samples of the prior, which is computed once."""
    key = tf.constant([derive_seed(seed, "prior"), 0], tf.int32)

    def at_prior(z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        prior = model.prior()
        return prior.log_prob(z), prior.sample(n, seed=key)

    return traced(at_prior, tf.TensorSpec([None, None], tf.float32))


class _NoiseOfUsers(Noise):
    """Draws that depend on the user, not on the batch: one draw serves the users 64·b to 64·b + 63.

    Args:
        seed: Seed of the `Noise`.
        sample: int64 scalar, the number of the draw.
        users: int64 [B], consecutive user numbers.
    """

    def __init__(self, seed: int, sample: tf.Tensor, users: tf.Tensor):
        super().__init__(seed, sample)
        self._users = users

    def normal(self, shape, name: str) -> tf.Tensor:
        """float32 draws from N(0, 1) of the given shape, whose first axis is the users."""
        first, last = self._users[0] // USERS_PER_DRAW, self._users[-1] // USERS_PER_DRAW
        shape_of_draw = tf.concat([[USERS_PER_DRAW], shape[1:]], axis=0)

        def draw(block: tf.Tensor) -> tf.Tensor:
            seed = tf.random.experimental.stateless_fold_in(self._seed(name), block)
            return tf.random.stateless_normal(shape_of_draw, seed)

        draws = tf.map_fn(draw, tf.range(first, last + 1), fn_output_signature=tf.float32)
        rows = tf.reshape(draws, tf.concat([[-1], shape[1:]], axis=0))
        return tf.gather(rows, self._users - first * USERS_PER_DRAW)


def _log_mixture(z: np.ndarray, mean: np.ndarray, sd: np.ndarray, codes_at_once: int = 500) -> np.ndarray:
    """Log density of codes [N, D] under the even mixture of N Normals, float64 [N]; no array [N, N, D] is made.

    It is computed in double precision, since narrow posteriors make the squares in the exponent large.
    """
    mixture = VampPrior(mean.astype(np.float64), 2 * np.log(sd.astype(np.float64)))
    starts = range(0, len(z), codes_at_once)
    parts = [mixture.log_prob(z[first : first + codes_at_once].astype(np.float64)) for first in starts]
    return np.concatenate(parts)


def _principal_plane(posterior: np.ndarray, prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sets of codes, [n, D], on the first two principal components of the posterior's codes, float32 [n, 2].

    The sign of a component makes its largest entry positive. Codes of one dimension have 0 as the second coordinate.
    """
    count = min(2, *posterior.shape)
    with np.errstate(invalid="ignore"):  # a single user has no variance, which is not needed here
        components = PCA(count, svd_solver="full").fit(posterior.astype(np.float64))
    planes = []
    for codes in (posterior, prior):
        plane = np.zeros((len(codes), 2), np.float32)
        plane[:, :count] = components.transform(codes)
        planes.append(plane)
    return planes[0], planes[1]
