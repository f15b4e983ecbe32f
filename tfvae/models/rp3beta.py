"""RP3β: random walks of three steps from a user over the graph of users and items, with popular items damped.

Paudel, Christoffel, Newell, Bernstein: Updatable, Accurate, Diverse, and Scalable Recommendations for Interactive
Applications, ACM TiiS 7(1), 2017; first in Christoffel et al., RecSys 2015. A walk goes from a user to one of their
items, to one of its users, to one of their items. With d_i the number of users of item i and d_v the number of items of
user v, and with P³α's exponent α on each step's probability (Cooper et al., WWW 2014), the walk from item i to item j
through the users who have both, divided by j's popularity to the power of β, has the weight

    W_ij = Σ_v (1/d_i)^α (1/d_v)^α / d_j^β   for i ≠ j.

A user's scores are the sum of W's rows over their items. The probability of the walk's first step is the same for all
items of a user and so leaves the ranking as it is; it is left out.

Of each row of W, only the largest weights are kept. That is not in the paper, whose walks have no such limit, but is
how the model is run by Ferrari Dacrema, Cremonesi, Jannach (RecSys 2019); it saves memory, and most often ranks better.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from pydantic import NonNegativeFloat
from scipy.sparse import csr_array, diags_array

from tfvae.models.checks import check_matrix
from tfvae.models.fields import Count
from tfvae.models.matrix import MatrixRecommender
from tfvae.nn.batches import SparseBatch
from tfvae.system.progress import OncePerMinute

__all__ = ["RP3Beta"]

ITEMS_AT_ONCE = 1000


@keras.saving.register_keras_serializable(package="tfvae")
class RP3Beta(MatrixRecommender):
    """RP3β (Paudel et al. 2017): scores add up the walks from a user's items to others, which popularity divides.

    The fit is sparse and in blocks of items, and takes seconds. Memory is 12 bytes for each of `n_items` × `neighbors`
    weights: 98 MB for 40,981 items with 200 neighbours each.

    The defaults lie between what suits sparse data (β of 0.1 on Gowalla) and dense data (0.6 on MovieLens-1M);
    search β.

    Example:
        >>> import tfvae
        >>> from scipy.sparse import csr_array
        >>> from tfvae.models.rp3beta import RP3Beta
        >>> train = csr_array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1]])
        >>> model = RP3Beta(4)
        >>> model.fit_matrix(train, log=lambda line: None)
        >>> items, scores = tfvae.top_k(model, train, k=1)
        >>> items.tolist()
        [[2], [3], [0]]

    Args:
        n_items: Width of the catalogue, I.
        alpha: α, the exponent of the steps' probabilities; 1 for true random walks.
        beta: β, the exponent of an item's popularity, by which its score is divided; 0 is P³α.
        neighbors: How many weights of each row of W are kept, the largest; of equal ones that of the first item.
        seed: It has no effect, since nothing is random here; every model takes it.
        **kwargs: Arguments of `keras.Model`.

    Attributes:
        neighbor_items: int64 weight [I, K], with K = min(`neighbors`, I): the columns of the weights that are kept of
            each row. Unused places have item 0 and weight 0.
        neighbor_weights: float32 weight [I, K]: these weights.

    Raises:
        InputError: If an exponent is negative or `neighbors` is not a positive whole number.
    """

    example_settings: ClassVar[dict[str, Any]] = {
        "alpha": 0.7,
        "beta": 0.5,
        "neighbors": 7,
    }
    checkerboard_settings: ClassVar[dict[str, Any] | None] = {}

    is_deterministic: ClassVar[bool] = True

    def __init__(
        self,
        n_items: int,
        *,
        alpha: NonNegativeFloat = 0.8,
        beta: NonNegativeFloat = 0.4,
        neighbors: Count = 200,
        seed: int = 98765,
        **kwargs,
    ):
        super().__init__(n_items, seed=seed, **kwargs)
        self.alpha = alpha
        self.beta = beta
        self.neighbors = neighbors
        shape = (n_items, min(neighbors, n_items))
        options = {"shape": shape, "initializer": "zeros", "trainable": False, "autocast": False}
        self.neighbor_items = self.add_weight(name="neighbor_items", dtype="int64", **options)
        self.neighbor_weights = self.add_weight(name="neighbor_weights", dtype="float32", **options)
        self.build()

    def fit_matrix(self, train: csr_array, log: Callable[[str], None] = print, folder: Path | None = None) -> None:
        """Finds each item's neighbours.

        Args:
            train: Binary user rows, sparse [n_users, n_items], each item at most once per user.
            log: Called with a line at the start, then with a line a minute.
            folder: It has no effect, since this fit keeps no parts.

        Raises:
            InputError: If the matrix is not binary or has another number of items.
        """
        check_matrix(self, train)
        log(f"RP3beta: {self.neighbor_items.shape[1]} neighbours of each of {self.n_items:,} items")
        train = train.astype(np.float64)
        n_users, n_items = np.bincount(train.indices, minlength=self.n_items), np.diff(train.indptr)
        first, second = _power(n_users, -self.alpha), _power(n_items, -self.alpha)
        from_items = csr_array(diags_array(first) @ train.T)
        to_items = csr_array(diags_array(second) @ train @ diags_array(_power(n_users, -self.beta)))
        items = np.zeros(self.neighbor_items.shape, np.int64)
        weights = np.zeros(items.shape, np.float32)
        progress = OncePerMinute(log)
        for start in range(0, self.n_items, ITEMS_AT_ONCE):
            block = csr_array(from_items[start : start + ITEMS_AT_ONCE] @ to_items)
            _keep_largest(block, start, items, weights)
            progress(f"RP3beta: {start + block.shape[0]:,} of {self.n_items:,} items, {progress.seconds:.0f} s")
        self.neighbor_items.assign(items)
        self.neighbor_weights.assign(weights)

    def map_row(self, item: int) -> tf.Tensor:
        """A row of W, float32 [n_items], in which only the kept weights are not 0; see `HasItemMap`."""
        columns, weights = (tf.convert_to_tensor(w.value)[item] for w in (self.neighbor_items, self.neighbor_weights))
        return tf.math.unsorted_segment_sum(weights, columns, self.n_items)

    def scores(self, batch: SparseBatch) -> tf.Tensor:
        """The sum of the weights of each user's items, float32 [B, n_items]."""
        n_rows = tf.shape(batch.lengths, out_type=tf.int64)[0]
        columns = tf.gather(tf.convert_to_tensor(self.neighbor_items.value), batch.items)
        weights = tf.gather(tf.convert_to_tensor(self.neighbor_weights.value), batch.items)
        places = tf.cast(batch.segment_ids, tf.int64)[:, None] * self.n_items + columns
        total = tf.math.unsorted_segment_sum(tf.reshape(weights, [-1]), tf.reshape(places, [-1]), n_rows * self.n_items)
        return tf.ensure_shape(tf.reshape(total, tf.stack([n_rows, self.n_items])), (None, self.n_items))


def _power(counts: np.ndarray, exponent: float) -> np.ndarray:
    """Counts to a power, float64; 0 where the count is, since nothing is walked to or from there."""
    return np.where(counts > 0, np.maximum(counts, 1.0) ** exponent, 0.0)


def _keep_largest(block: csr_array, start: int, items: np.ndarray, weights: np.ndarray) -> None:
    """Writes the largest weights of each row of a block, without the diagonal, into the rows from `start` on.

    Args:
        block: Rows of W, sparse [n_rows, n_items].
        start: The item of the first row.
        items: int64 [n_items, K], into which the columns are written.
        weights: float32 [n_items, K], into which the weights are written, the largest first.
    """
    rows = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
    others = block.indices != rows + start
    rows, columns, values = rows[others], block.indices[others], block.data[others]
    order = np.lexsort((columns, -values, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    place = np.arange(rows.size) - np.searchsorted(rows, rows)
    kept = place < items.shape[1]
    items[rows[kept] + start, place[kept]] = columns[kept]
    weights[rows[kept] + start, place[kept]] = values[kept]
