"""What the benchmarks compare is the same: the loss of tfvae and that of the plain model beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from common import Problem  # noqa: E402
from equality import losses  # noqa: E402


def test_at_equal_weights_the_losses_are_equal():
    matrix = sp.random_array((30, 50), density=0.2, rng=np.random.default_rng(0), dtype=np.float32, format="csr")
    matrix.data[:] = 1
    ours, plain = losses(Problem(matrix, [np.arange(20), np.arange(20, 30)])).values()
    assert ours == pytest.approx(plain, rel=1e-5) and ours > 1
