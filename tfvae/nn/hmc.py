"""Hamiltonian Monte Carlo for the latent codes of many users: from an encoder's codes to samples of p(z | x).

p-VAE (section 3, "Baselines") improves its predictions by "running Hamiltonian Monte Carlo on latent space z with 20
leapfrog steps and 10 samples", started at the encoder's codes; Neal: MCMC using Hamiltonian dynamics, 2011. The chains
are `tfp.mcmc.HamiltonianMonteCarlo` under `tfp.mcmc.DualAveragingStepSizeAdaptation`, one chain for each user, and run
in parallel. This module does not depend on any model: the target is a function of codes that the caller gives. For
p-VAE it is the log joint density

    log p(z, r) = log N(z | 0, I) + Σ_j log N(r_j | f_j(z), σ²)     over the items j that the user has rated,

which differs from log p(z | r) by a constant. `log_joint` in `evaluation/predictive.py` implements this line, and
`nn/gaussian_ratings.py` its second term.

Each chain has a step size of its own. The posterior of a user with 2,000 ratings is ten times narrower than that of a
user with 20, so that a shared step would suit neither. Also, the samples of one user must not depend on the other users
in the batch. The paper gives neither step size nor burn-in. Here the step size is adapted during the burn-in and then
fixed, as a Markov chain requires.
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
DIVERGED = -1000.0  # log acceptance ratio below which a proposal has diverged; Stan's bound
SHORTEST = 0.3  # the smallest share of its chain's step size that a proposal takes
ADAPTED_SHARE = 0.8  # of the burn-in


class Samples(NamedTuple):
    """S samples of each of C chains: NumPy arrays from `Sampler.sample_users`, tensors from `Sampler.sample`.

    Attributes:
        codes: float32 [S, C, D]; finite wherever the chain's start is.
        acceptance: float32 [C], mean probability of acceptance of the S proposals; 0.7 to 0.98 is healthy.
        step_size: float32 [C], the leapfrog step size after adaptation, in units of the codes; a proposal takes a share
            between 0.3 and 1 of it.
        divergences: int32 [C], the number of the S proposals whose energy is not finite, or is more than 1,000 nats too
            high. They are rejected: the chain stays at its last state.
    """

    codes: Any
    acceptance: Any
    step_size: Any
    divergences: Any


@dataclass(frozen=True)
class Sampler:
    """The settings of the chains, and the methods that run them.

    Example:
        >>> import tensorflow as tf
        >>> from tfvae.nn.hmc import Sampler
        >>> def log_prob(codes):  # that of N(3, I), up to a constant
        ...     return -0.5 * tf.reduce_sum((codes - 3.0) ** 2, axis=1)
        >>> samples = Sampler(jit_compile=False).sample(log_prob, start=tf.zeros([500, 2]), seed=1)
        >>> samples.codes.shape
        TensorShape([10, 500, 2])
        >>> round(float(tf.reduce_mean(samples.codes)), 1)
        3.0

    Attributes:
        n_samples: S, the number of consecutive states of each chain that are kept.
        n_burn_in: Number of proposals before these; in the first 80 % of them the step size is adapted. With 0 it stays
            `step_size`.
        n_leapfrog: Number of leapfrog steps of a proposal.
        step_size: The first step size, in units of the codes; it may be wrong by two orders of magnitude.
        target_acceptance: The mean acceptance that the step size is adapted to reach; a short burn-in ends above it, at
            about 0.9. With 0.651, which is best for a fixed step (Neal, section 4.4), the longest steps of some chains
            would be unstable.
        jit_compile: Whether XLA compiles the chains; False for a target with operations that XLA lacks. Without XLA the
            random draws are different.

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
        """Refuses settings that are out of their range."""
        for name, least in (("n_samples", 1), ("n_burn_in", 0), ("n_leapfrog", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least {least}.")
        for name, below in (("step_size", np.inf), ("target_acceptance", 1.0)):
            if not 0 < getattr(self, name) < below:
                raise InputError(f"{name} is {getattr(self, name)}; expected a number above 0 and below {below}.")

    def sample(self, log_prob: Callable[[tf.Tensor], tf.Tensor], start: tf.Tensor, seed: int) -> Samples:
        """Samples C targets at once, in one program.

        Inside a `tf.function` bad starts cannot be refused: a chain whose target is not finite at its start stays
        there, with S divergences.

        Args:
            log_prob: The target, which maps codes, float32 [C, D], to log densities, float32 [C], each up to a
                constant. The log density of chain c depends on code c alone.
            start: The first codes, float32 [C, D], such as the encoder's means or samples.
            seed: Seed of the random draws; another C gives other draws.

        Returns:
            The samples, as tensors.

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

        Users 64·b to 64·b + 63 are one block with noise of its own, so that a user's samples do not depend on how many
        users follow. The 64 is not a setting, since another number would change every draw (though not their
        distribution) and save nothing.

        Args:
            log_prob: The target, which maps codes, float32 [64, D], and the facts of their users to log densities,
                float32 [64].
            facts: Maps user numbers, int64 [64], to the data that `log_prob` needs of these users: tensors, or a
                (named) tuple of tensors, whose shapes are the same for all users. It runs once for each 64 users, and
                XLA does not compile it.
            start: The first codes of users 0 to N - 1, float32 [N, D].
            seed: Seed of the random draws.

        Returns:
            The samples of N chains, as NumPy arrays.

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
        """A program that maps start, facts and seed to `Samples`, and to whether each chain can start, bool [C]."""

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
    """HMC in which each proposal takes a random share, 0.3 to 1, of its chain's step size (Neal, section 3.2).

    For a user with few ratings, the posterior is as wide as the prior in many directions. With a fixed step size, the
    motion in all these directions is periodic with the same period. If 20 steps happen to make one period, 2π, each
    proposal ends near its start, and ten samples are worth one or two.
    """

    def one_step(self, current_state: Any, previous_kernel_results: Any, seed: Any = None) -> tuple[Any, Any]:
        """See the base class."""
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
    """Switches off TF32, whose rounding on recent GPUs would add errors to the energies; not for use in a graph."""
    was = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(was)
