"""What all training contestants share: the problem, the clock, the limit L and the form of their answer.

Needs NumPy and SciPy only, since the PyTorch contestants run in an environment without tfvae and TensorFlow.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array

if TYPE_CHECKING:
    from tfvae.data.interactions import Interactions

__all__ = [
    "MODEL",
    "Limit",
    "Meter",
    "Problem",
    "answer",
    "contestant_arguments",
    "forget_peak",
    "matrix_of",
    "peak_gb",
]


@dataclass(frozen=True)
class _MultVAE:
    """The model and schedule of every contestant: Mult-VAE [I, 600, 200, 600, I] as published for ML-20M."""

    hidden: int = 600
    latent_dim: int = 200
    dropout: float = 0.5
    batch_size: int = 500
    learning_rate: float = 1e-3
    beta_cap: float = 0.2
    anneal_updates: int = 200_000
    seed: int = 98765

    def beta(self, updates: int) -> float:
        """The KL weight of the next update."""
        return min(self.beta_cap, updates / self.anneal_updates)


MODEL = _MultVAE()


@dataclass(frozen=True, eq=False)
class Problem:
    """Training data and the batches of user numbers that every contestant meets, in this order.

    Attributes:
        matrix: Binary float32 [n_users, n_items].
        batches: int64 [B] each; warm-up first.
    """

    matrix: csr_array
    batches: list[np.ndarray]

    def save(self, path: Path) -> None:
        """Writes an `.npz` without pickle."""
        np.savez(
            path,
            shape=self.matrix.shape,
            indptr=self.matrix.indptr,
            items=self.matrix.indices.astype(np.int32),
            users=np.concatenate(self.batches),
            ends=np.cumsum([len(batch) for batch in self.batches]),
        )

    @classmethod
    def load(cls, path: Path) -> Problem:
        """Reads what `save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            items = stored["items"]
            ones = np.ones(len(items), np.float32)
            matrix = csr_array((ones, items, stored["indptr"]), shape=tuple(stored["shape"]))
            return cls(matrix, np.split(stored["users"], stored["ends"][:-1]))


def matrix_of(interactions: Interactions) -> csr_array:
    """The values as a matrix, float32 [n_users, n_items], with sorted indices."""
    places = interactions.users, interactions.items
    return csr_array((interactions.values, places), shape=(interactions.n_users, interactions.n_items))


class Limit:
    """Times the three matrix products of the decoder's last layer: the machine's own limit, L.

    With B = 500 users, H = 600 hidden units and I items, in float32, each as the contestant's layer has it:

        forward   [B, H] · kernel     -> [B, I]      the logits
        backward  [B, I] · kernel'    -> [B, H]      the gradient of the hidden layer
        backward  the gradient of the kernel, in the kernel's layout

    An item-major kernel is [I, H]; its products are h·K', d·K and d'·h. A hidden-major one is [H, I]; its
    products are h·K, d·K' and h'·d. L is the sum of the three. The plain product is h·K for a hidden-major
    kernel, which needs no transposition.

    Args:
        n_items: I.
        item_major: The layout of the contestant's kernel.
        constant: Makes the framework's tensor of an array.
        matmul: (a, b, transpose_a, transpose_b) to the finished product.
    """

    def __init__(self, n_items: int, item_major: bool, constant: Callable, matmul: Callable):
        rng = np.random.default_rng(0)
        kernel = rng.standard_normal((n_items, MODEL.hidden), np.float32)
        hidden_major = constant(kernel.reshape(MODEL.hidden, n_items))
        h = constant(rng.standard_normal((MODEL.batch_size, MODEL.hidden), np.float32))
        d = constant(rng.standard_normal((MODEL.batch_size, n_items), np.float32))
        self._matmul = matmul
        self._plain = (h, hidden_major, False, False)
        if item_major:
            k = constant(kernel)
            self._three = [(h, k, False, True), (d, k, False, False), (d, h, True, False)]
        else:
            self._three = [self._plain, (d, hidden_major, False, True), (h, d, True, False)]

    def sample(self) -> tuple[float, float]:
        """Seconds of L, and of one plain product, now."""
        return sum(self._seconds(product) for product in self._three), self._seconds(self._plain)

    def _seconds(self, product: tuple) -> float:
        begun = time.perf_counter()
        self._matmul(*product)
        return time.perf_counter() - begun


class Meter:
    """Times steps end to end, input pipeline and callbacks included, and L between them.

    Args:
        limit: Makes the `Limit`; called after the warm-up.
        warmup: Steps not counted.
        every: L is timed after each so many steps.

    Attributes:
        steps: Seconds of each counted step.
        limits: Seconds of L and of the plain product, each time they were taken.
        peak_after_warmup_gb: Peak memory of the process after the warm-up, before the arrays of L are made.
    """

    def __init__(self, limit: Callable[[], Limit], warmup: int, every: int):
        self._make_limit, self._warmup, self._every = limit, warmup, every
        self._limit: Limit | None = None
        self._done = 0
        self.peak_after_warmup_gb = float("nan")
        self.steps: list[float] = []
        self.limits: list[tuple[float, float]] = []
        self._begun = time.perf_counter()

    def step_done(self) -> None:
        """To be called after each update; the next step begins when this returns."""
        seconds = time.perf_counter() - self._begun
        self._done += 1
        timed = self._done - self._warmup
        if timed > 0:
            self.steps.append(seconds)
        if timed == 0:
            self.peak_after_warmup_gb = peak_gb()
            self._limit = self._make_limit()
            self._limit.sample()
        elif timed > 0 and timed % self._every == 0:
            self.limits.append(self._limit.sample())
        self._begun = time.perf_counter()


def peak_gb() -> float:
    """Peak resident memory of this process in GB (10⁹ bytes)."""
    try:
        # Linux hands ru_maxrss on through exec: a child would report at least its parent's size.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib * 1024 / 1e9


def forget_peak() -> None:
    """Lets `peak_gb` start anew from what is resident now; without effect elsewhere than on Linux."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def contestant_arguments(description: str, variants: list[str]) -> argparse.Namespace:
    """The command line of every contestant; with the `problem` loaded."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--problem", type=Path, required=True, help="the .npz that training.py made")
    parser.add_argument("--out", type=Path, required=True, help="where to write the answer, as JSON")
    parser.add_argument("--variant", choices=variants, default=variants[0])
    parser.add_argument("--warmup", type=int, default=6, help="steps that are not counted")
    parser.add_argument("--every", type=int, default=3, help="time L after each so many steps")
    arguments = parser.parse_args()
    arguments.problem = Problem.load(arguments.problem)
    return arguments


def answer(path: Path, meter: Meter, loss: float, between_epochs: float = 0.0, **versions: str) -> None:
    """Writes what a contestant measured.

    Args:
        path: The file.
        meter: Of its steps.
        loss: The mean over all users met, warm-up included.
        between_epochs: Seconds it spends before an epoch of this kind.
        **versions: Of packages that are not in the environment of tfvae.
    """
    measured = {
        "steps": meter.steps,
        "limits": meter.limits,
        "loss": float(loss),
        "between_epochs": between_epochs,
        "peak_after_warmup_gb": meter.peak_after_warmup_gb,
        "peak_gb": peak_gb(),
        "versions": versions,
    }
    path.write_text(json.dumps(measured), encoding="utf-8")
