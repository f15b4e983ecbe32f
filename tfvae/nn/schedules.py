"""Schedules of the KL weight β: each says what β is at a step, from counters that are weights of the model.

A counter that is a weight is saved, restored and never frozen into a graph. A schedule changes nothing itself.

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
    """The KL weight over a training."""

    @property
    def patient_from(self) -> int:
        """The epoch, counted from 0, from which early stopping may count: before it β is still rising."""
        return 0

    @abc.abstractmethod
    def beta(self, step: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """The β of a step.

        Args:
            step: Number of steps done so far, a scalar.
            epoch: Number of epochs completed so far, a scalar.

        Returns:
            float32 scalar.
        """

    def of_users(self, beta: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """The KL weights of B users.

        Args:
            beta: What `beta` gave for this step, float32 scalar.
            lengths: float32 [B], the number of items of each user.

        Returns:
            float32, a scalar where all users have one weight, otherwise [B].
        """
        return beta


@dataclass(frozen=True)
class LinearRamp(Schedule):
    """β = min(cap, step / steps): 0 at the first step; the slope does not depend on the cap.

    Attributes:
        steps: Steps in which β would rise to 1; 0 makes it the cap from the start.
        cap: The largest β.
    """

    steps: int
    cap: float

    def beta(self, step: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """As `Schedule.beta`."""
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
    """β = cap · min(1, epoch / epochs), with the epoch counted from 1: constant within an epoch.

    Attributes:
        epochs: Epochs in which β rises to the cap; 0 makes it the cap from the start.
        cap: The largest β.
    """

    epochs: int
    cap: float

    @property
    def patient_from(self) -> int:
        """The end of the warm-up."""
        return self.epochs

    def beta(self, step: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """As `Schedule.beta`."""
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
        cap: β.
    """

    cap: float

    def beta(self, step: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """As `Schedule.beta`."""
        return tf.cast(self.cap, tf.float32)


@dataclass(frozen=True)
class Rescaled(Schedule):
    """Each user has a KL weight of their own, γ times the number of their items; β is γ.

    Attributes:
        gamma: γ.
    """

    gamma: float

    def beta(self, step: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """As `Schedule.beta`."""
        return tf.cast(self.gamma, tf.float32)

    def of_users(self, beta: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """As `Schedule.of_users`; float32 [B]."""
        return self.gamma * lengths
