"""Latent codes of many users refined by Hamiltonian Monte Carlo: from an encoder's guess to samples of p(z | x).

p-VAE (section 3, "Baselines") improves its predictions by "running Hamiltonian Monte Carlo on latent space z with 20
leapfrog steps and 10 samples", started at the encoder's codes; Neal: MCMC using Hamiltonian dynamics, 2011. The chains
are `tfp.mcmc.HamiltonianMonteCarlo` under `tfp.mcmc.DualAveragingStepSizeAdaptation`, one for each user, side by side.
This module knows no model: the target is whatever function of codes it is given. For p-VAE it is the log joint density

    log p(z, r) = log N(z | 0, I) + Σ_j log N(r_j | f_j(z), σ²)     over the items j that the user has rated,

which differs from log p(z | r) by a constant; `log_joint` in `evaluation/predictive.py` is that line, and
`nn/gaussian_ratings.py` its second term.

Each chain has a step size of its own. A user of 2,000 ratings has a posterior ten times narrower than one of 20, so
that a shared step would suit neither; and what happens to a user must not depend on who is beside them. The paper gives
neither step size nor burn-in. Here the step is adapted in the burn-in and then fixed, as a Markov chain must have it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfvae.nn.noise import derive_seed
from tfvae.system.errors import DivergedError, InputError

__all__ = ["USERS_AT_ONCE", "Sampler", "Samples"]

USERS_AT_ONCE = 64  # their Gram matrices stay in the cache from one leapfrog step to the next
DIVERGED = -1000.0  # log acceptance ratio; Stan's bound
SHORTEST = 0.3  # share of its chain's step size that a proposal may take
ADAPTED_SHARE = 0.8  # of the burn-in


class Samples(NamedTuple):
    """S samples of each of C chains; NumPy arrays from `Sampler.sample_users`, tensors from `Sampler.sample`.

    Attributes:
        codes: float32 [S, C, D]; finite wherever the chain's start is.
        acceptance: float32 [C], mean probability of acceptance of the S proposals; 0.7 to 0.98 is healthy.
        step_size: float32 [C], of the leapfrog, after adaptation; in units of the codes. Proposals take 0.3 to 1 of it.
        divergences: int32 [C], how many of the S proposals ended where the target is not finite, or with 1,000 nats
            too much energy. They are rejected: the chain stays where it was.
    """

    codes: Any
    acceptance: Any
    step_size: Any
    divergences: Any


@dataclass(frozen=True)
class Sampler:
    """How chains are run.

    Example:
        >>> import tensorflow as tf
        >>> from tfvae.nn.hmc import Sampler
        >>> def log_prob(codes):  # of N(3, I), up to a constant
        ...     return -0.5 * tf.reduce_sum((codes - 3.0) ** 2, axis=1)
        >>> samples = Sampler(jit_compile=False).sample(log_prob, start=tf.zeros([500, 2]), seed=1)
        >>> samples.codes.shape
        TensorShape([10, 500, 2])
        >>> round(float(tf.reduce_mean(samples.codes)), 1)
        3.0

    Attributes:
        n_samples: S, the consecutive states of each chain that are kept.
        n_burn_in: Proposals before these; in the first 80 % the step size is adapted. With 0 it stays `step_size`.
        n_leapfrog: Leapfrog steps of a proposal.
        step_size: The first step size, in units of the codes; two orders of magnitude off do no harm.
        target_acceptance: What the step size is adapted for, as a mean over the shares of it that proposals take; a
            short burn-in ends above it, at about 0.9. With the 0.651 that is best for a fixed step (Neal, section 4.4)
            the longest shares of some chains would be unstable.
        jit_compile: Whether XLA compiles the chains; False for a target with operations that XLA lacks. The draws are
            then others.

    Raises:
        InputError: If a setting is out of its range.
    """

    n_samples: int = 10
    n_burn_in: int = 40
    n_leapfrog: int = 20
    step_size: float = 0.1
    target_acceptance: float = 0.8
    jit_compile: bool = True

    def __post_init__(self) -> None:
        """Refuses settings out of their range."""
        for name, least in (("n_samples", 1), ("n_burn_in", 0), ("n_leapfrog", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least {least}.")
        for name, below in (("step_size", np.inf), ("target_acceptance", 1.0)):
            if not 0 < getattr(self, name) < below:
                raise InputError(f"{name} is {getattr(self, name)}; expected a number above 0 and below {below}.")

    def sample(self, log_prob: Callable[[tf.Tensor], tf.Tensor], start: tf.Tensor, seed: int) -> Samples:
        """Samples C targets at once, by one program.

        Inside a `tf.function` the values at the start cannot be refused: a chain whose target is not finite there
        stays, with S divergences.

        Args:
            log_prob: The target, from codes float32 [C, D] to log densities float32 [C], each up to a constant; that of
                chain c depends on code c alone.
            start: float32 [C, D], such as the encoder's means or samples.
            seed: Seed of the random draws; another C gives other draws.

        Returns:
            The samples, tensors.

        Raises:
            InputError: If `start` or the target's value has the wrong shape.
            DivergedError: If the target or its gradient is not finite at the start of a chain.
        """
        start = _checked_start(start)
        chains = self._compiled(lambda codes, _: log_prob(codes), start, ())
        with _full_precision():
            samples, finite = chains(start, (), _key(seed, 0))
        if tf.executing_eagerly():
            _refuse_bad_starts(finite.numpy(), 0)
        return samples

    def sample_users(self, log_prob: Callable, facts: Callable, start: np.ndarray, seed: int) -> Samples:
        """Samples the codes of any number of users, 64 at a time (`USERS_AT_ONCE`), by one compiled program.

        Users 64·b to 64·b + 63 share their noise with no others, so that a user's samples do not depend on how many
        users follow. That 64 is no setting: another number would change every draw (not their law) and spare nothing.

        Args:
            log_prob: The target, from codes float32 [64, D] and the facts of their users to log densities float32 [64].
            facts: From user numbers int64 [64] to what `log_prob` has to know of them: tensors, or a (named) tuple of
                tensors, of the same shapes whoever the users. Runs once for each 64 users and need not suit XLA.
            start: float32 [N, D], of users 0 to N - 1.
            seed: Seed of the random draws.

        Returns:
            The samples of N chains, NumPy arrays.

        Raises:
            InputError: If `start` or the target's value has the wrong shape.
            DivergedError: If the target or its gradient is not finite at the start of a chain.
        """
        start = _checked_start(start)
        facts = tf.function(facts, [tf.TensorSpec([USERS_AT_ONCE], tf.int64)], autograph=False).get_concrete_function()
        n_users, chains, parts = len(start), None, []
        with _full_precision():
            for first in range(0, n_users, USERS_AT_ONCE):
                # The last users are followed by copies of the last one, so that XLA compiles one program.
                users = tf.minimum(tf.range(first, first + USERS_AT_ONCE, dtype=tf.int64), n_users - 1)
                codes, known = tf.gather(start, users), facts(users)
                chains = chains or self._compiled(log_prob, codes, known)
                samples, finite = chains(codes, known, _key(seed, first // USERS_AT_ONCE))
                n = min(USERS_AT_ONCE, n_users - first)
                _refuse_bad_starts(finite.numpy()[:n], first)
                parts.append((samples.codes.numpy()[:, :n], *(part.numpy()[:n] for part in samples[1:])))
        codes, *rest = zip(*parts, strict=True)
        return Samples(np.concatenate(codes, axis=1), *map(np.concatenate, rest))

    def _compiled(self, log_prob: Callable, start: tf.Tensor, facts: Any) -> Callable:
        """One program: from start, facts and seed to `Samples` and whether each chain can start, bool [C]."""

        def chains(start: tf.Tensor, facts: Any, seed: tf.Tensor) -> tuple[Samples, tf.Tensor]:
            def target(codes: tf.Tensor) -> tf.Tensor:
                value = log_prob(codes, facts)
                if not value.shape.is_compatible_with(start.shape[:1]):
                    raise InputError(f"expected one log density for each code of {start.shape}, found {value.shape}.")
                return value

            kernel = tfp.mcmc.DualAveragingStepSizeAdaptation(
                _RandomSteps(target, tf.fill([start.shape[0], 1], self.step_size), self.n_leapfrog),
                num_adaptation_steps=int(ADAPTED_SHARE * self.n_burn_in),
                target_accept_prob=self.target_acceptance,
            )
            codes, (log_ratios, steps) = tfp.mcmc.sample_chain(
                self.n_samples,
                start,
                kernel=kernel,
                num_burnin_steps=self.n_burn_in,
                trace_fn=lambda _, results: (results.inner_results.log_accept_ratio, results.new_step_size),
                seed=seed,
            )
            acceptance = tf.reduce_mean(tf.exp(tf.minimum(log_ratios, 0.0)), axis=0)
            divergences = tf.reduce_sum(tf.cast(log_ratios < DIVERGED, tf.int32), axis=0)
            value, gradient = tfp.math.value_and_gradient(target, start)
            finite = tf.math.is_finite(value) & tf.reduce_all(tf.math.is_finite(gradient), axis=1)
            return Samples(codes, acceptance, steps[-1, :, 0], divergences), finite

        specs = tf.nest.map_structure(lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), (start, facts))
        program = tf.function(chains, autograph=False, jit_compile=self.jit_compile)
        return program.get_concrete_function(*specs, tf.TensorSpec([2], tf.int32))


class _RandomSteps(tfp.mcmc.HamiltonianMonteCarlo):
    """HMC whose every proposal takes a random share, 0.3 to 1, of its chain's step size (Neal, section 3.2).

    With a fixed size, directions in which the posterior is as wide as the prior, of which a user of few ratings has
    many, come full circle together where 20 steps happen to make 2π: ten samples are then worth one or two.
    """

    def one_step(self, current_state: Any, previous_kernel_results: Any, seed: Any = None) -> tuple[Any, Any]:
        """As of the base class."""
        seed, seed_of_shares = tfp.random.split_seed(seed)
        steps = previous_kernel_results.accepted_results.step_size
        shares = tf.random.stateless_uniform(tf.shape(steps), seed_of_shares, SHORTEST, 1.0)

        def with_steps(results, steps):
            return results._replace(accepted_results=results.accepted_results._replace(step_size=steps))

        state, results = super().one_step(current_state, with_steps(previous_kernel_results, steps * shares), seed)
        return state, with_steps(results, steps)


def _checked_start(start: Any) -> tf.Tensor:
    start = tf.cast(start, tf.float32)
    if start.shape.rank != 2 or not all(start.shape):
        raise InputError(
            f"start has shape {start.shape}; expected [C, D], a code for each of a known number of chains."
        )
    return start


def _refuse_bad_starts(finite: np.ndarray, first: int) -> None:
    if bad := np.count_nonzero(~finite):
        raise DivergedError(
            f"the target or its gradient is not finite at the start of {bad} of the chains {first} to "
            f"{first + len(finite) - 1}; check the codes they start from, and the decoder's weights."
        )


def _key(seed: int, block: int) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(tf.constant([derive_seed(seed, "hmc"), 0], tf.int32), block)


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """Keeps products of matrices from TF32, whose rounding recent GPUs would add to the energies; not in a graph."""
    was = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(was)
