"""SLIM: a sparse, non-negative item-item matrix, by coordinate descent.

Ning, Karypis: SLIM: Sparse Linear Methods for Top-N Recommender Systems, ICDM 2011, section 3:

    min_W ½‖X − XW‖² + β/2 ‖W‖² + λ‖W‖₁   subject to   W ≥ 0, diag(W) = 0.

Each column of W is a separate elastic net, which depends on the users only through the Gram matrix G = X'X. Let g be
the column of G that belongs to item j. Then w ≥ 0 is the unique minimum for column j if w_j = 0 and, for each other i,

    g_i − (Gw)_i − βw_i = λ where w_i > 0, and ≤ λ where w_i = 0.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
from pydantic import PositiveFloat
from scipy.sparse import csr_array
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import enet_path
from threadpoolctl import threadpool_limits

from tfvae.models.checks import check_matrix
from tfvae.models.fields import Count, Precision
from tfvae.models.item_item import ItemItem, gram
from tfvae.nn.arrays import aligned_zeros
from tfvae.system.errors import InputError
from tfvae.system.files import digest, read_json, reading, write_json, write_npz
from tfvae.system.progress import OncePerMinute

__all__ = ["SLIM"]

COLUMNS_AT_ONCE = 50
SHARE_TO_COPY = 0.25


@keras.saving.register_keras_serializable(package="tfvae")
class SLIM(ItemItem):
    """SLIM (Ning and Karypis 2011): scores are the user's row times a sparse, non-negative item-item matrix W.

    Scikit-learn's coordinate descent solves for the columns, on all cores. Both regularisers are on the scale of the
    paper's objective, where the squared error is a sum over users.

    Example:
        >>> import tfvae
        >>> from scipy.sparse import csr_array
        >>> from tfvae.models.slim import SLIM
        >>> train = csr_array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1]])
        >>> model = SLIM(4, l1=0.1, l2=1.0)
        >>> model.fit_matrix(train, log=lambda line: None)
        >>> items, scores = tfvae.top_k(model, train, k=1)
        >>> items.tolist()
        [[2], [3], [0]]

    Args:
        n_items: Width of the catalogue, I.
        l1: λ, the factor of the sum of the weights; Mult-VAE's table searched 0.1, 0.5, 1 and 5.
        l2: β, the factor of half the sum of the squared weights; the table searched the same values.
        tolerance: A column is done when its duality gap is at most this share of the item's number of users.
        max_iterations: The largest number of rounds over the items for each column.
        gram_precision: Precision of the Gram matrix and the descent, "float32" or "float64"; a tolerance below 1e-6
            needs the latter. W is kept in float32.
        seed: It has no effect, since nothing is random here; every model takes it.
        **kwargs: Arguments of `keras.Model`.

    Raises:
        TooLargeError: If W, which is kept dense, does not fit in memory.
        InputError: If a setting is not a positive number or `gram_precision` is unknown.
    """

    example_settings: ClassVar[dict[str, Any]] = {
        "l1": 0.2,
        "l2": 3.0,
        "tolerance": 1e-05,
        "max_iterations": 500,
        "gram_precision": "float64",
    }
    checkerboard_settings: ClassVar[dict[str, Any] | None] = {
        "l1": 0.1,
        "l2": 1.0,
    }

    part_files: ClassVar[tuple[str, ...]] = ("slim.json", "columns-*.npz")

    def __init__(
        self,
        n_items: int,
        *,
        l1: PositiveFloat = 1.0,
        l2: PositiveFloat = 1.0,
        tolerance: PositiveFloat = 1e-4,
        max_iterations: Count = 1000,
        gram_precision: Precision = "float32",
        seed: int = 98765,
        **kwargs,
    ):
        super().__init__(n_items, seed=seed, **kwargs)
        self.l1 = l1
        self.l2 = l2
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self.gram_precision = gram_precision

    def fit_matrix(
        self,
        train: csr_array,
        log: Callable[[str], None] = print,
        folder: Path | None = None,
        n_jobs: int | None = None,
    ) -> None:
        """Solves for W.

        Args:
            train: Binary user rows, sparse [n_users, n_items], each item at most once per user.
            log: Called with a line on the memory that is needed, before it is allocated, then with a line a minute.
            folder: Folder that keeps the solved columns, so that an interrupted fit continues from them; it is made if
                it does not exist.
            n_jobs: Number of threads; None for one for each core. It does not change the result.

        Raises:
            TooLargeError: If the Gram matrix does not fit in memory.
            InputError: If the matrix is not binary or has another number of items, or the folder has columns of another
                fit.
        """
        check_matrix(self, train)
        starts = range(0, self.n_items, COLUMNS_AT_ONCE)
        paths = [folder and folder / f"columns-{start}.npz" for start in starts]
        if folder:
            self._claim(folder, train, paths)
            if done := sum(path.exists() for path in paths if path):
                log(f"SLIM: {done} of {len(paths)} parts are in {folder} already")
        need = self.require_memory(self.gram_precision, "the Gram matrix")
        log(f"SLIM: {need} for the Gram matrix of {self.n_items:,} items")
        counts = gram(train, self.gram_precision)
        weights = aligned_zeros(counts.shape, np.float32)
        unfinished = []
        progress = OncePerMinute(log)
        threads = ThreadPoolExecutor(n_jobs or os.cpu_count())
        # On several threads BLAS would compete with the columns, and add in another order.
        with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            try:
                parts = threads.map(self._columns, repeat(counts), starts, paths, repeat(log))
                for start, (block, converged) in zip(starts, parts, strict=True):
                    stop = start + len(converged)
                    weights[:, start:stop] = block
                    unfinished += (start + np.flatnonzero(~converged)).tolist()
                    progress(f"SLIM: {stop:,} of {self.n_items:,} items, {progress.seconds:.0f} s")
            finally:
                threads.shutdown(cancel_futures=True)  # an interrupted fit finishes its present parts only
        self.take(weights)
        if unfinished:
            log(
                f"SLIM: {len(unfinished):,} items did not converge in {self.max_iterations} iterations, the first is "
                f"number {unfinished[0]}; raise max_iterations or tolerance"
            )

    def _claim(self, folder: Path, train: csr_array, paths: list[Path | None]) -> None:
        """Marks the folder as that of this fit; raises InputError if it belongs to another fit."""
        settings = {name: getattr(self, name) for name in self.settings() if name != "seed"}
        claim = {"digest": digest(settings, COLUMNS_AT_ONCE, list(train.shape), train.indptr, train.indices)}
        marker = folder / "slim.json"
        if not marker.exists():
            for path in filter(None, paths):  # nothing says which fit they are of
                path.unlink(missing_ok=True)
        elif read_json(marker, "the mark of a fit of SLIM") != claim:
            raise InputError(
                f"{folder} holds SLIM fitted to other data or by other settings; take another, or remove it."
            )
        write_json(marker, claim)

    def _columns(
        self, counts: np.ndarray, start: int, path: Path | None, log: Callable[[str], None]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Some columns of W, float32 [n_items, n_columns], and whether each converged; from a file if there is one."""
        items = range(start, min(start + COLUMNS_AT_ONCE, self.n_items))
        if path and path.exists():
            try:
                return self._stored(path, items)
            except InputError as problem:
                log(f"SLIM: {problem} Its columns are solved again.")
        solved = [self._column(counts, item) for item in items]
        weights, converged = np.stack([column for column, _ in solved], axis=1), np.array([done for _, done in solved])
        if path:
            write_npz(path, {"weights": weights, "converged": converged})
        return weights, converged

    def _stored(self, path: Path, items: range) -> tuple[np.ndarray, np.ndarray]:
        """The columns of some items from a file; raises InputError unless they can be columns of W."""
        with reading(path, "columns of SLIM"), np.load(path, allow_pickle=False) as stored:
            weights, converged = stored["weights"], stored["converged"]
            for array, dtype, shape in (
                (weights, np.float32, (self.n_items, len(items))),
                (converged, np.bool_, (len(items),)),
            ):
                if array.dtype != dtype or array.shape != shape:
                    raise InputError(
                        f"expected {np.dtype(dtype)}{list(shape)}, found {array.dtype}{list(array.shape)}."
                    )
            own = weights[items, range(len(items))]
            if not np.isfinite(weights).all() or weights.min() < 0 or own.any():
                raise InputError("its weights are not finite, or negative, or not 0 for the item itself.")
            return weights, converged

    def _column(self, counts: np.ndarray, item: int) -> tuple[np.ndarray, bool]:
        """One column of W, float32 [n_items], and whether it converged."""
        column, target, users = np.zeros(self.n_items, np.float32), counts[item].copy(), counts[item, item]
        # Neither G nor W is negative, hence g_i − (Gw)_i ≤ g_i, and only `others` can have a weight. The item itself
        # can have none, since its target is set to a negative number; while its weight is 0, loss and duality gap do
        # not depend on this number.
        target[item] = -users
        others = np.flatnonzero(target > self.l1)
        if not len(others):
            return column, True
        if len(others) < SHARE_TO_COPY * self.n_items:
            matrix, target = counts[np.ix_(others, others)], target[others]
        else:
            matrix, others = counts, np.arange(self.n_items)
        # Only the inner products of X and y matter, which are given, and the number of rows, here one, by which the
        # squared error is divided.
        _, weights, gaps, iterations = enet_path(
            np.zeros((1, len(others)), target.dtype),
            np.sqrt([users]),
            precompute=matrix,
            Xy=target,
            alphas=[self.l1 + self.l2],
            l1_ratio=self.l1 / (self.l1 + self.l2),
            positive=True,
            tol=self.tolerance,
            max_iter=self.max_iterations,
            random_state=0,
            check_input=False,
            return_n_iter=True,
        )
        column[others] = weights[:, 0]
        return column, iterations[0] < self.max_iterations or gaps[0] <= self.tolerance * users
