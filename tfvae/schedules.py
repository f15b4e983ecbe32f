"""KL weights as pure functions of the number of updates done.

Mult-VAE (WWW'18, section 2.2.2) anneals the KL weight linearly from 0; the authors' code makes it
min(cap, t / 200,000) at update t. It is a function of a counter that is a weight of the model, so that it is saved,
restored and never frozen into a graph.
"""

from __future__ import annotations

import tensorflow as tf

__all__ = ["linear_ramp"]


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
