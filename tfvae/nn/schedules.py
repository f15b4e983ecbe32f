"""Schedules of the KL weight β: each gives β at a step, from counters that are weights of the model.

A counter that is a weight is saved, restored and never frozen into a graph. A schedule itself changes no state.

| schedule | β | source |
|---|---|---|
| `LinearRamp` | min(cap, t / T) at step t | Mult-VAE, WWW'18, section 2.2.2 |
| `WarmUp` | cap · min(1, e / E) in epoch e | EVCF's code, RecSys'19 |
| `Fixed` | a constant | |
| `Rescaled` | γ · the number of a user's items | RecVAE, WSDM'20 |
"""

from __future__ import annotations

import abc
from dataclasses import dataclass

import tensorflow as tf

__all__ = ["Fixed", "LinearRamp", "Rescaled", "Schedule", "WarmUp"]


class Schedule(abc.ABC):
    """The KL weight in the course of training."""

    @property
    def patient_from(self) -> int:
        """The epoch, counted from 0, before which early stopping does not count."""
        return 0

    @abc.abstractmethod
    def beta(self, step: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """β at a step.

        Args:
            step: Number of steps done so far, a scalar.
            epoch: Number of epochs completed so far, a scalar.

        Returns:
            float32 scalar.
        """

    def of_users(self, beta: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """The KL weights of B users.

        Args:
            beta: The result of the method `beta` for this step, float32 scalar.
            lengths: float32 [B], the number of items of each user.

        Returns:
            float32, a scalar if all users have the same weight, otherwise [B].
        """
        return beta


@dataclass(frozen=True)
class LinearRamp(Schedule):
    """β = min(cap, step / steps): β is 0 at the first step, and the slope does not depend on the cap.

    Attributes:
        steps: Number of steps in which β would rise to 1; with 0, β is at the cap from the start.
        cap: The largest β.
    """

    steps: int
    cap: float

    def beta(self, step: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """See `Schedule.beta`."""
        cap, steps = tf.cast(self.cap, tf.float32), tf.cast(self.steps, tf.float32)
        risen = tf.math.divide_no_nan(tf.cast(step, tf.float32), steps)
        return tf.where(steps > 0, tf.minimum(cap, risen), cap)

    def fitted_to(self, planned: int) -> LinearRamp:
        """The same schedule, or a steeper one that reaches its cap halfway through the planned steps."""
        if self.cap * self.steps <= planned:
            return self
        return LinearRamp(max(1, round(planned / 2 / self.cap)), self.cap)


@dataclass(frozen=True)
class WarmUp(Schedule):
    """β = cap · min(1, epoch / epochs), with the epoch counted from 1; β is constant within an epoch.

    Attributes:
        epochs: Number of epochs in which β rises to the cap; with 0, β is at the cap from the start.
        cap: The largest β.
    """

    epochs: int
    cap: float

    @property
    def patient_from(self) -> int:
        """The first epoch after the warm-up."""
        return self.epochs

    def beta(self, step: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """See `Schedule.beta`."""
        epochs = tf.cast(self.epochs, tf.float32)
        risen = tf.math.divide_no_nan(tf.cast(epoch + 1, tf.float32), epochs)
        return tf.cast(self.cap, tf.float32) * tf.where(epochs > 0, tf.minimum(1.0, risen), 1.0)

    def fitted_to(self, planned: int) -> WarmUp:
        """The same schedule, or a shorter one that ends halfway through the planned epochs."""
        return self if self.epochs <= planned else WarmUp(max(1, planned // 2), self.cap)


@dataclass(frozen=True)
class Fixed(Schedule):
    """β is the same in all steps.

    Attributes:
        cap: The constant β.
    """

    cap: float

    def beta(self, step: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """See `Schedule.beta`."""
        return tf.cast(self.cap, tf.float32)


@dataclass(frozen=True)
class Rescaled(Schedule):
    """Each user has a KL weight of their own, γ times the number of their items; β is γ.

    Attributes:
        gamma: γ, the KL weight for each item of a user.
    """

    gamma: float

    def beta(self, step: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """See `Schedule.beta`."""
        return tf.cast(self.gamma, tf.float32)

    def of_users(self, beta: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """See `Schedule.of_users`; the result is float32 [B]."""
        return self.gamma * lengths
