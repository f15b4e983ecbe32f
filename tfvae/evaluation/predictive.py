"""The predictive distributions of ratings, from models with latent codes, and how well they fit held-out ratings.

Given S samples z_s of a row's code, from the encoder's posterior or refined by Hamiltonian Monte Carlo, a rating has
the distribution

    p(r | r_O) ≈ 1/S Σ_s N(r | f(z_s), σ²)

p-VAE (section 3) predicts with the mean of this distribution and promises "better uncertainty estimation", but does not
show it. This module measures which share of held-out ratings lies in the central 50 and 90 % of their distribution,
in groups of rows by their number of ratings. A rating lies in the central share c if the distribution function at the
rating differs from ½ by at most c / 2.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import tensorflow as tf
from scipy.sparse import csr_array
from scipy.special import ndtr

from tfvae.data.splits import HeldOutRatings
from tfvae.evaluation.groups import groups_by_size
from tfvae.evaluation.ratings import bounded
from tfvae.evaluation.results import RatingEvaluation
from tfvae.models.base import HasRatingPosterior, Recommender
from tfvae.nn.batches import RowStore, SparseBatch
from tfvae.nn.gaussian_ratings import GaussianRatings
from tfvae.nn.hmc import Sampler, Samples
from tfvae.nn.noise import Noise
from tfvae.nn.priors import sample_with

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "LEVELS",
    "Predictions",
    "describe_predictions",
    "encoder_codes",
    "has_rating_posterior",
    "mixture_quantiles",
    "predict",
    "refined_codes",
]

LEVELS = (0.5, 0.9)
ROWS_AT_ONCE = 500


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictive distributions of n ratings; each is a mixture of S normals with the same variance.

    Attributes:
        means: The means f(z_s) of the normals, float32 [S, n].
        variance: σ², in squared units of the ratings.
    """

    means: np.ndarray
    variance: float

    @property
    def mean(self) -> np.ndarray:
        """The mean of each distribution, float32 [n]."""
        return self.means.mean(axis=0)

    @property
    def sd(self) -> np.ndarray:
        """The standard deviation of each distribution, float32 [n], from rating noise and the code's uncertainty."""
        return np.sqrt(self.variance + self.means.var(axis=0))

    def below(self, ratings: np.ndarray) -> np.ndarray:
        """The values of the distribution functions at these ratings, float64 [n]."""
        return ndtr((ratings - self.means) / self.variance**0.5).mean(axis=0)

    def within(self, ratings: np.ndarray, level: float) -> np.ndarray:
        """Whether each rating lies in the central share `level` of its distribution, bool [n]."""
        return np.abs(self.below(ratings) - 0.5) <= level / 2


def has_rating_posterior(model: Recommender) -> TypeGuard[HasRatingPosterior]:
    """Whether a model has a posterior over codes of ratings, which a setting of p-VAE can switch off."""
    return isinstance(model, HasRatingPosterior) and model.stochastic


def encoder_codes(model: HasRatingPosterior, histories: csr_array, n_samples: int = 10, seed: int = 0) -> np.ndarray:
    """Samples of q(z | r_O) for all rows.

    Args:
        model: The model.
        histories: The known ratings, sparse [N, n_items].
        n_samples: S, the number of samples.
        seed: Seed of the random draws.

    Returns:
        float32 [S, N, latent_dim].
    """

    def draw(batch: SparseBatch, first: tf.Tensor) -> tf.Tensor:
        posterior = model.posterior(batch)
        noise = Noise(seed, first)
        return tf.stack([sample_with(noise, f"z{number}", posterior) for number in range(n_samples)])

    return np.concatenate(list(_by_rows(draw, histories)), axis=1)


def refined_codes(
    model: HasRatingPosterior, histories: csr_array, seed: int = 0, sampler: Sampler | None = None
) -> Samples:
    """Samples of p(z | r_O) for all rows by Hamiltonian Monte Carlo, started at the encoder's means (p-VAE, section 3).

    Args:
        model: The model; its decoder is fixed.
        histories: The known ratings, sparse [N, n_items].
        seed: Seed of the random draws.
        sampler: The settings of the chains; None takes the paper's 20 leapfrog steps and 10 samples.

    Returns:
        The samples, with acceptance, step size and divergences of each chain.

    Raises:
        DivergedError: If the target is not finite at the start of a chain.
    """
    start = np.concatenate(list(_by_rows(lambda batch, _: model.posterior(batch).mean(), histories)))
    store = RowStore(histories, with_values=True)
    vectors, biases = (tf.convert_to_tensor(v.value) for v in (model.decoder.kernel, model.decoder.bias))

    def facts(rows: tf.Tensor) -> GaussianRatings:
        return GaussianRatings.of(model.standard(store.gather(rows)), vectors, biases, model.variance)

    def log_joint(z: tf.Tensor, observed: GaussianRatings) -> tf.Tensor:
        return observed.log_prob(model.hidden(z)) - 0.5 * tf.reduce_sum(tf.square(z), axis=1)

    return (sampler or Sampler()).sample_users(log_joint, facts, start, seed)


def predict(model: HasRatingPosterior, codes: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> Predictions:
    """The predictive distributions of chosen ratings.

    Args:
        model: The model.
        codes: Samples of the codes of all rows, float32 [S, N, latent_dim].
        rows: Row of each rating, int [n], in any order.
        columns: Column of each rating, int [n].

    Returns:
        The distributions, in the order of the ratings.
    """
    n_rows = codes.shape[1]
    order = np.argsort(rows, kind="stable")
    means = np.empty((len(codes), len(rows)), np.float32)

    @tf.function(
        input_signature=[tf.TensorSpec([None, codes.shape[2]], tf.float32), tf.TensorSpec([None, 2], tf.int64)],
        autograph=False,
    )
    def pick(z: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
        return model.rating_unit * tf.gather_nd(model.decoder(model.hidden(z)), places)

    for first in range(0, n_rows, ROWS_AT_ONCE):
        last = min(first + ROWS_AT_ONCE, n_rows)
        chosen = order[slice(*np.searchsorted(rows, [first, last], sorter=order))]
        places = tf.constant(np.column_stack([rows[chosen] - first, columns[chosen]]), tf.int64)
        for sample, code in enumerate(codes):
            means[sample, chosen] = pick(code[first:last], places)
    return Predictions(means, model.variance * model.rating_unit**2)


def mixture_quantiles(predictions: Predictions, probability: float) -> np.ndarray:
    """The quantile of each predictive distribution, float64 [n], by 60 steps of bisection.

    Args:
        predictions: The distributions.
        probability: The probability below the quantile, in (0, 1).
    """
    far = 10 * predictions.variance**0.5
    low, high = predictions.means.min(axis=0) - far, predictions.means.max(axis=0) + far
    low, high = low.astype(np.float64), high.astype(np.float64)
    for _ in range(60):
        middle = (low + high) / 2
        below = predictions.below(middle) < probability
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2


def describe_predictions(
    model: HasRatingPosterior, held_out: HeldOutRatings, seed: int = 0, *, refine: bool = True
) -> tuple[dict[str, Any], RatingEvaluation]:
    """Measures how good a model's predictive distributions are, the encoder's and the refined ones.

    Args:
        model: The model.
        held_out: The known ratings and the ratings to predict.
        seed: Seed of the random draws.
        refine: Whether to run Hamiltonian Monte Carlo.

    Returns:
        A dictionary with the values of "encoder" and, with `refine`, of "hmc", and the evaluation of the last of them.
        The values are "rmse", the RMSE of the mean; "within_50" and "within_90", the shares of ratings in the central
        50 and 90 %; "sd", the mean predictive sd; and "groups", up to five groups of rows by their number of ratings.
        A group has the smallest number of ratings, "from"; the number "to", which only the last group includes; its
        number of held-out "ratings"; and its shares. "hmc" also has the mean "acceptance", "divergences" and "seconds".
    """
    rows, columns, ratings = held_out.triples()
    of_size = groups_by_size(np.diff(held_out.history.indptr)[rows])
    found: dict[str, Any] = {}

    def measured(codes: np.ndarray) -> tuple[dict[str, Any], RatingEvaluation]:
        predictions = predict(model, codes, rows, columns)
        evaluation = RatingEvaluation(
            bounded(predictions.mean, held_out.history, rows, columns), ratings, np.unique(rows)
        )
        hits = {f"within_{100 * level:g}": predictions.within(ratings, level) for level in LEVELS}
        groups = []
        for number, (low, high) in enumerate(of_size.bounds):
            inside = of_size.number == number
            shares = {name: float(hit[inside].mean()) for name, hit in hits.items()}
            groups.append({"from": low, "to": high, "ratings": int(inside.sum()), **shares})
        figures: dict[str, Any] = {name: float(hit.mean()) for name, hit in hits.items()}
        figures |= {"rmse": evaluation.mean("rmse"), "sd": float(predictions.sd.mean()), "groups": groups}
        return figures, evaluation

    found["encoder"], evaluation = measured(encoder_codes(model, held_out.history, seed=seed))
    if refine:
        begun = time.perf_counter()
        samples = refined_codes(model, held_out.history, seed)
        seconds = time.perf_counter() - begun
        found["hmc"], evaluation = measured(samples.codes)
        found["hmc"] |= {
            "acceptance": float(samples.acceptance.mean()),
            "divergences": int(samples.divergences.sum()),
            "seconds": round(seconds, 1),
        }
    return found, evaluation


def _by_rows(function: Callable[[SparseBatch, tf.Tensor], tf.Tensor], histories: csr_array):
    """Yields the results of a function for all rows, part by part; the function is traced once.

    It is called with a batch of consecutive rows and the number of the first of these rows.
    """
    store = RowStore(histories, with_values=True)
    traced = tf.function(
        lambda batch: function(store.gather(batch), batch[0]), [tf.TensorSpec([None], tf.int64)], autograph=False
    ).get_concrete_function()
    numbers = np.arange(histories.shape[0], dtype=np.int64)
    for first in range(0, len(numbers), ROWS_AT_ONCE):
        yield traced(tf.constant(numbers[first : first + ROWS_AT_ONCE])).numpy()
