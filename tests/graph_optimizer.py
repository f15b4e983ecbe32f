"""TensorFlow's graph optimiser, which the tests do without.

Most of their graphs run a few times on tiny data, and to optimise them takes a quarter of the whole time. What users
run is optimised: so are the graphs of most processes that tests start, and all those of `make test-all`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

__all__ = ["optimizing", "without_optimizer"]


def without_optimizer() -> None:
    """Turns the optimiser off in this process, unless the environment has OPTIMIZED_GRAPHS."""
    _turn_off("OPTIMIZED_GRAPHS" not in os.environ)


@contextmanager
def optimizing() -> Iterator[None]:
    """With the optimiser, for graphs that are traced meanwhile."""
    _turn_off(False)
    try:
        yield
    finally:
        without_optimizer()


def _turn_off(off: bool) -> None:
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": off})
