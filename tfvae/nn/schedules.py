"""KL weights as pure functions of the updates or epochs done.

Mult-VAE (WWW'18, section 2.2.2) anneals the KL weight linearly from 0; the authors' code makes it
min(cap, t / 200,000) at update t. EVCF (RecSys'19) warms up epoch by epoch. Either is a function of a counter that is
a weight of the model, so that it is saved, restored and never frozen into a graph.
"""

from __future__ import annotations

import tensorflow as tf

__all__ = ["linear_ramp", "warm_up"]


def linear_ramp(updates: tf.Tensor, ramp: tf.Tensor | float, cap: tf.Tensor | float) -> tf.Tensor:
    """min(cap, updates / ramp): the first update has weight 0, the slope does not depend on the cap.

    Args:
        updates: Updates done so far; a scalar, not negative.
        ramp: Updates in which the weight would rise to 1; 0 means the cap from the start.
        cap: The largest weight.

    Returns:
        float32 scalar in [0, cap].
    """
    cap = tf.cast(cap, tf.float32)
    ramp = tf.cast(ramp, tf.float32)
    risen = tf.math.divide_no_nan(tf.cast(updates, tf.float32), ramp)
    return tf.where(ramp > 0, tf.minimum(cap, risen), cap)


def warm_up(epoch: tf.Tensor, epochs: tf.Tensor | float, cap: tf.Tensor | float) -> tf.Tensor:
    """Cap · min(1, epoch / epochs): constant within an epoch, the slope depends on the cap (EVCF's code).

    Args:
        epoch: The number of the epoch, counted from 1; a scalar.
        epochs: Epochs in which the weight rises to the cap; 0 means the cap from the start.
        cap: The largest weight.

    Returns:
        float32 scalar in [0, cap].
    """
    epochs = tf.cast(epochs, tf.float32)
    risen = tf.math.divide_no_nan(tf.cast(epoch, tf.float32), epochs)
    return tf.cast(cap, tf.float32) * tf.where(epochs > 0, tf.minimum(1.0, risen), 1.0)
