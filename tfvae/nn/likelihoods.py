"""The likelihoods p(x | f) of a binary user row x given the decoder's output f, one value per item.

Each is a TFP distribution over item vectors whose `log_prob` takes dense rows. A second, faster method,
`log_prob_rows`, takes the wire format; it passes over the dense [B, n_items] output once forward and once backward, and
has a custom gradient. A third, `log_prob_sampled`, estimates the sum over all items from a sample of them. As in the
papers, terms that do not depend on f are left out.

Source: Mult-VAE (WWW'18), equations 2 (multinomial), 3 (Gaussian) and 4 (logistic); Bernoulli as in EVCF's code.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfvae.nn.batches import SparseBatch
from tfvae.nn.sparse_ops import add_at, binary_matmul, refuse_gradient
from tfvae.system.errors import InputError, unknown_name

__all__ = ["LIKELIHOODS", "Bernoulli", "Gaussian", "Logistic", "Multinomial", "likelihood"]


class ItemLikelihood(tfp.distributions.Distribution):
    """A distribution over item vectors [..., n_items], given the decoder's output.

    Args:
        logits: float32 [B, n_items], the decoder's output f.
    """

    def __init__(self, logits: tf.Tensor, name: str, parameters: dict):
        self.logits = logits
        super().__init__(
            dtype=logits.dtype,
            reparameterization_type=tfp.distributions.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {"logits": tfp.util.ParameterProperties(event_ndims=1)}

    def _event_shape(self):
        return self.logits.shape[-1:]

    def _event_shape_tensor(self):
        return tf.shape(self.logits)[-1:]

    def log_prob_rows(self, batch: SparseBatch) -> tf.Tensor:
        """Log p(x | f) of each of B binary rows, float32 [B]."""
        at = tf.stack([batch.segment_ids, batch.items], axis=1)
        n_users = tf.shape(batch.lengths)[0]

        @tf.custom_gradient
        def log_prob(logits):
            dense, dense_pullback = self._over_all_items(logits, batch.lengths)
            sparse, sparse_slope = self._at_the_items(tf.gather_nd(logits, at))
            total = dense + tf.math.unsorted_segment_sum(sparse, batch.segment_ids, n_users)

            def gradient(upstream):
                at_items = sparse_slope * tf.gather(upstream, batch.segment_ids)
                return add_at(dense_pullback(upstream[:, None]), at, at_items)

            return total, gradient

        return log_prob(self.logits)

    def log_prob_sampled(self, batch: SparseBatch, own: tf.Tensor, log_weights: tf.Tensor) -> tf.Tensor:
        """An estimate of `log_prob_rows` from a sample of the items, of which alone `logits` are then the outputs.

        Sums over the items that a user does not have are estimated by weighted sums over the sample, and the user's own
        items are all there. The Gaussian and the logistic likelihood are such sums, so that estimate and gradient are
        unbiased. `Multinomial` says what is true of its own.

        Args:
            batch: B binary rows.
            own: The decoder's output at the items of the users, float32 [nnz].
            log_weights: float32 [B, m], the logarithm of what a sampled item counts; −∞ if it is one of the user's own.
        """
        of_own = tf.math.unsorted_segment_sum(self._of_a_one(own), batch.segment_ids, tf.shape(batch.lengths)[0])
        return of_own + tf.reduce_sum(tf.exp(log_weights) * self._of_a_zero(self.logits), axis=1)

    def _of_a_one(self, logits: tf.Tensor) -> tf.Tensor:
        """What an item that a user has adds to log p."""
        raise NotImplementedError

    def _of_a_zero(self, logits: tf.Tensor) -> tf.Tensor:
        """What an item that a user does not have adds to log p."""
        raise NotImplementedError

    @abc.abstractmethod
    def _over_all_items(self, logits: tf.Tensor, counts: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        """The part of log p that is a sum over all items, [B], and its pull-back [B, 1] → [B, n_items]."""

    @abc.abstractmethod
    def _at_the_items(self, logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """What each item of a user adds to log p, [nnz], and its derivative, [nnz]."""


class Multinomial(ItemLikelihood):
    """Σ_i x_i · log softmax(f)_i: `tfd.Multinomial` less the log multinomial coefficient."""

    def __init__(self, logits: tf.Tensor, name: str = "Multinomial"):
        super().__init__(logits, name, dict(locals()))

    def _log_prob(self, x):
        return tf.reduce_sum(x * tf.nn.log_softmax(self.logits), axis=-1)

    def _mean(self):
        return tf.nn.softmax(self.logits)

    def log_prob_rows_of(self, hidden: tf.Tensor, kernel: tf.Tensor, batch: SparseBatch) -> tf.Tensor:
        """The same as `log_prob_rows`, for logits hidden · kernel' + bias of a layer that is not trained.

        Then the gradient is (x - n·π) · kernel, the user's items minus the expected ones. It passes over [B, n_items]
        only in the product with the probabilities π.

        Args:
            hidden: [B, units], the only input with a gradient; the logits are computed from `tf.stop_gradient(hidden)`.
            kernel: float32 [n_items, units].
            batch: B binary rows.

        Raises:
            NotImplementedError: If a gradient is taken while a tape watches the kernel, the bias or the logits.
        """

        @tf.custom_gradient
        def log_prob(hidden, kernel, values):
            def gradient(upstream):
                share = tf.cast(self.mean(), hidden.dtype)
                expected = tf.cast(tf.matmul(share, tf.cast(kernel, hidden.dtype)), tf.float32)
                found = binary_matmul(kernel, batch.items, batch.segment_ids, tf.shape(batch.lengths)[0])
                of_hidden = upstream[:, None] * (found - batch.lengths[:, None] * expected)
                # If a caller asks for the other two gradients, `refuse_gradient` raises an error.
                return tf.cast(of_hidden, hidden.dtype), tf.zeros_like(kernel), upstream

            return tf.identity(values), gradient

        reason = "log_prob_rows_of has a gradient for `hidden` alone; to train the layer behind it, take log_prob_rows."
        values = refuse_gradient(self.log_prob_rows(batch), reason)
        return log_prob(hidden, refuse_gradient(kernel, reason), values)

    def log_prob_sampled(self, batch: SparseBatch, own: tf.Tensor, log_weights: tf.Tensor) -> tf.Tensor:
        """Σ_i x_i f_i - n_u log Ẑ_u, where Ẑ_u estimates the normaliser Z_u = Σ_i exp f_i; see the base class.

            Ẑ_u = Σ_{i of the user} exp f_i + Σ_{s in the sample, not of the user} w_s exp f_s,   w_s = c_s / (n·q_s)

        Ẑ_u and its gradient are unbiased, and log Ẑ_u is never less than the logarithm of the sum over the user's own
        items. The logarithm makes a bias: the gradient is ∇Ẑ/Ẑ and not ∇Z/Z, and the difference of expectations falls
        as 1/n with the number n of draws, faster than the gradient's standard deviation, which falls as 1/√n.

        An exactly unbiased gradient is to be had of a bound only: log Z ≤ a + exp(-a)·Z - 1 for a number a, such as the
        log Ẑ of the other half of the sample. It is ∇log Z times E[Z/Ẑ], which is 1 + O(1/n) too, and each half has
        twice the variance. So it is not offered.
        """
        n_users = tf.shape(batch.lengths)[0]
        others = self.logits + log_weights
        largest = tf.maximum(
            tf.reduce_max(others, axis=1), tf.math.unsorted_segment_max(own, batch.segment_ids, n_users)
        )
        # It cancels, so it needs no gradient; a user for whom there are no items at all has no largest logit.
        largest = tf.stop_gradient(tf.where(largest > tf.float32.min, largest, 0.0))
        of_own = tf.exp(own - tf.gather(largest, batch.segment_ids))
        total = tf.math.unsorted_segment_sum(of_own, batch.segment_ids, n_users)
        total += tf.reduce_sum(tf.exp(others - largest[:, None]), axis=1)
        log_normalizer = tf.math.multiply_no_nan(tf.math.log(total) + largest, batch.lengths)
        return tf.math.unsorted_segment_sum(own, batch.segment_ids, n_users) - log_normalizer

    def _over_all_items(self, logits, counts):
        share = tf.nn.softmax(logits)
        # The largest share is exp(max f - logsumexp f). So this is exact, and saves a second pass of exponentials.
        log_normalizer = tf.reduce_max(logits, axis=1) - tf.math.log(tf.reduce_max(share, axis=1))
        return -counts * log_normalizer, lambda upstream: share * (-counts[:, None] * upstream)

    def _at_the_items(self, logits):
        return logits, tf.ones_like(logits)


class Gaussian(ItemLikelihood):
    """-½ Σ_i c_i (x_i - f_i)² with confidence c1 where x_i = 1 and c0 where x_i = 0.

    This is the sum of `tfd.Normal(f_i, c_i^-½)` less the terms without f.

    Args:
        logits: float32 [B, n_items], the decoder's output f.
        c1: Confidence of the ones.
        c0: Confidence of the zeros; the papers take c1 > c0.
    """

    def __init__(self, logits: tf.Tensor, c1: float = 1.0, c0: float = 1.0, name: str = "Gaussian"):
        self.c1, self.c0 = c1, c0
        super().__init__(logits, name, dict(locals()))

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        scalar = tfp.util.ParameterProperties()
        return super()._parameter_properties(dtype) | {"c1": scalar, "c0": scalar}

    def _log_prob(self, x):
        confidence = self.c0 + (self.c1 - self.c0) * x
        return -0.5 * tf.reduce_sum(confidence * tf.square(x - self.logits), axis=-1)

    def _mean(self):
        return self.logits

    def log_prob_rows(self, batch: SparseBatch) -> tf.Tensor:
        """See the base class.

        Raises:
            InputError: If a confidence is a tensor or a variable, since it would get no gradient here.
        """
        for name, value in (("c1", self.c1), ("c0", self.c0)):
            if not isinstance(value, int | float | np.number):
                raise InputError(
                    f"{name} is a {type(value).__name__}; expected a number, since log_prob_rows has a gradient for "
                    "the logits only. log_prob of dense rows has one for the confidences too."
                )
        return super().log_prob_rows(batch)

    def _over_all_items(self, logits, counts):
        total = -0.5 * self.c0 * tf.reduce_sum(tf.square(logits), axis=1)
        return total, lambda upstream: logits * (-self.c0 * upstream)

    def _at_the_items(self, logits):
        value = 0.5 * (self.c0 * tf.square(logits) - self.c1 * tf.square(1.0 - logits))
        return value, self.c0 * logits + self.c1 * (1.0 - logits)

    def _of_a_one(self, logits):
        return -0.5 * self.c1 * tf.square(1.0 - logits)

    def _of_a_zero(self, logits):
        return -0.5 * self.c0 * tf.square(logits)


class Logistic(ItemLikelihood):
    """Σ_i x_i log σ(f_i) + (1 - x_i) log(1 - σ(f_i)): the sum of `tfd.Bernoulli(logits=f_i)`."""

    def __init__(self, logits: tf.Tensor, name: str = "Logistic"):
        super().__init__(logits, name, dict(locals()))

    def _log_prob(self, x):
        return tf.reduce_sum(x * self.logits - tf.math.softplus(self.logits), axis=-1)

    def _mean(self):
        return tf.sigmoid(self.logits)

    def _over_all_items(self, logits, counts):
        total = -tf.reduce_sum(tf.math.softplus(logits), axis=1)
        return total, lambda upstream: tf.sigmoid(logits) * -upstream

    def _at_the_items(self, logits):
        return logits, tf.ones_like(logits)

    def _of_a_one(self, logits):
        return -tf.math.softplus(-logits)

    def _of_a_zero(self, logits):
        return -tf.math.softplus(logits)


class Bernoulli(Logistic):
    """The logistic likelihood with probabilities clipped to [1e-5, 1 - 1e-5], as in EVCF's code.

    An item whose σ(f) lies outside that range has no gradient.
    """

    def __init__(self, logits: tf.Tensor, name: str = "Bernoulli"):
        super().__init__(_clip(logits), name)

    def _of_a_one(self, logits):
        return super()._of_a_one(_clip(logits))


def _clip(logits: tf.Tensor) -> tf.Tensor:
    furthest = math.log(1 - 1e-5) - math.log(1e-5)
    return tf.clip_by_value(logits, -furthest, furthest)


LIKELIHOODS = {"multinomial": Multinomial, "gaussian": Gaussian, "logistic": Logistic, "bernoulli": Bernoulli}


def likelihood(name: str, logits: tf.Tensor, **confidences: float) -> ItemLikelihood:
    """The likelihood with the given name.

    Args:
        name: A key of `LIKELIHOODS`.
        logits: float32 [B, n_items], the decoder's output.
        **confidences: `c1` and `c0`; only the Gaussian has them.

    Raises:
        InputError: If there is no such likelihood.
    """
    if name not in LIKELIHOODS:
        raise unknown_name("likelihood", name, LIKELIHOODS)
    return LIKELIHOODS[name](logits, **confidences) if name == "gaussian" else LIKELIHOODS[name](logits)
