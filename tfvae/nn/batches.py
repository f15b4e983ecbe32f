"""The wire format: user rows as flat non-zeros, gathered inside the graph from one stored CSR matrix.

tf.data streams *row numbers* only, of users or of their pairs with items. The CSR arrays live once in memory as
tensors, and a batch's rows are gathered from them inside the graph. No dense array is made, a batch costs less than a
millisecond, and `tf.distribute` accepts row numbers (it refuses sparse and ragged batches). In serving, a batch arrives
as padded ids; `unpad` turns it into the same flat non-zeros before the first layer.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from tfvae.system.errors import InputError

__all__ = [
    "HOST",
    "TrainingRows",
    "PairStore",
    "RowStore",
    "SparseBatch",
    "as_batch",
    "as_matrix",
    "check_batch_size",
    "column_means",
    "row_numbers",
    "steps_per_epoch",
    "unpad",
]

HOST = "CPU:0"
"""Where matrices lie and rows are gathered. TensorFlow gathers ragged rows on a CPU only; a matrix that lay in a GPU's
memory would be copied from there at each step."""


class SparseBatch(NamedTuple):
    """A batch of B user rows with nnz stored items in all.

    Attributes:
        items: int32 [nnz], item columns, one user after the other.
        segment_ids: int32 [nnz], the batch row of each stored item, ascending.
        lengths: float32 [B], the number of stored items of each user (0 for an empty history).
        values: float32 [nnz], ratings or weights; None when the data are binary.
        users: int64 [B], the users' row numbers in the `RowStore` they come from; None for rows from elsewhere.
    """

    items: tf.Tensor
    segment_ids: tf.Tensor
    lengths: tf.Tensor
    values: tf.Tensor | None = None
    users: tf.Tensor | None = None

    @property
    def ratings(self) -> tf.Tensor:
        """The values, for callers that need them.

        Raises:
            InputError: If the data are binary.
        """
        if self.values is None:
            raise InputError("expected a batch with ratings as its values; found one without values.")
        return self.values


class TrainingRows(Protocol):
    """The rows whose numbers `fit` streams: a `RowStore`, a `PairStore` or `ShardedRows`."""

    n_rows: int

    def ahead(self, numbers: tf.data.Dataset, /) -> tf.data.Dataset:
        """The same batches of row numbers, made ready for `gather` where that takes time."""

    def gather(self, numbers: tf.Tensor, /) -> SparseBatch:
        """The rows with these numbers, int [B]."""


class RowStore:
    """A user-by-item matrix held as tensors, from which batches of rows are gathered in the graph.

    The tensors are no weights: they are neither trained nor saved with a model.

    Args:
        matrix: CSR [n_rows, n_items]; its values are kept only with `with_values`.
        with_values: Whether batches carry the stored values (ratings); binary data need none.
    """

    def __init__(self, matrix: sp.csr_array, with_values: bool = False):
        self.n_rows, self.n_items = matrix.shape

        def ragged(flat: np.ndarray) -> tf.RaggedTensor:
            return tf.RaggedTensor.from_row_splits(tf.constant(flat), starts, validate=False)

        with tf.device(HOST):
            starts = tf.constant(matrix.indptr.astype(np.int64))
            self._items = ragged(matrix.indices.astype(np.int32))
            self._values = ragged(matrix.data.astype(np.float32)) if with_values else None

    def ahead(self, numbers: tf.data.Dataset) -> tf.data.Dataset:
        """See `TrainingRows`; what is in memory is ready."""
        return numbers

    def gather(self, users: tf.Tensor) -> SparseBatch:
        """The rows of a batch.

        Args:
            users: int [B], row numbers of the stored matrix.

        Returns:
            The rows in the wire format, in the order of `users`.
        """
        with tf.device(HOST):
            items = tf.gather(self._items, users)
            values = None if self._values is None else tf.gather(self._values, users).values
            # `value_rowids` would make an array [B, longest history]; the search takes half of the time.
            places = tf.range(tf.size(items.values, tf.int64))
            rows_begun = tf.raw_ops.UpperBound(sorted_inputs=items.row_splits[None], values=places[None])[0]
            return SparseBatch(
                items=items.values,
                segment_ids=rows_begun - 1,
                lengths=tf.cast(items.row_lengths(), tf.float32),
                values=values,
                users=users,
            )


class PairStore:
    """The stored entries of a user-by-item matrix; each is streamed as a row of its own with one item.

    Args:
        matrix: CSR [n_users, n_items].

    Attributes:
        n_rows: Number of stored entries.
    """

    def __init__(self, matrix: sp.csr_array):
        matrix = matrix.sorted_indices()
        self.n_rows, self.n_items = matrix.nnz, matrix.shape[1]
        lengths, starts = np.diff(matrix.indptr), matrix.indptr[:-1]
        users = np.repeat(np.arange(matrix.shape[0]), lengths)
        # If i is the j-th item of a user, counted from 0, then i - j of the items before it are unseen. This number
        # ascends with j.
        unseen_before = matrix.indices - (np.arange(matrix.nnz) - starts[users])
        with tf.device(HOST):
            self._users, self._items = tf.constant(users), tf.constant(matrix.indices.astype(np.int32))
            self._starts, self._unseen = (tf.constant(a.astype(np.int32)) for a in (starts, self.n_items - lengths))
            self._unseen_before = self._keys(self._users, tf.constant(unseen_before))

    def ahead(self, numbers: tf.data.Dataset) -> tf.data.Dataset:
        """See `TrainingRows`; what is in memory is ready."""
        return numbers

    def gather(self, numbers: tf.Tensor) -> SparseBatch:
        """The pairs of a batch.

        Args:
            numbers: int [B], numbers of stored entries, which are counted row by row.

        Returns:
            B rows in the wire format; `users` are row numbers of the matrix.
        """
        with tf.device(HOST):
            return SparseBatch(
                items=tf.gather(self._items, numbers),
                segment_ids=tf.range(tf.size(numbers)),
                lengths=tf.ones(tf.shape(numbers)),
                users=tf.gather(self._users, numbers),
            )

    def unseen(self, users: tf.Tensor, uniform: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Draws for each user one item that they do not have; all such items are equally likely.

        Args:
            users: int64 [N], rows of the matrix.
            uniform: float32 [N], draws from U[0, 1).

        Returns:
            The items, int32 [N], and whether there was one to draw, bool [N]; if not, the user has the given item.
        """
        with tf.device(HOST):
            choices = tf.gather(self._unseen, users)
            rank = tf.minimum(tf.cast(uniform * tf.cast(choices, tf.float32), tf.int32), choices - 1)
            # The unseen item of that rank comes after every seen item that has at most `rank` unseen items before it.
            # One search in the concatenation of all rows counts these seen items.
            found = tf.searchsorted(self._unseen_before, self._keys(users, rank), side="right")
            items = rank + found - tf.gather(self._starts, users)
            return tf.clip_by_value(items, 0, self.n_items - 1), choices > 0

    def _keys(self, users: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
        return tf.cast(users, tf.int64) * (self.n_items + 1) + tf.cast(numbers, tf.int64)


def as_matrix(x: Any, n_items: int, *, ratings: bool) -> sp.csr_array:
    """The matrix that a `RowStore` holds, made from histories in any common format.

    Args:
        x: A SciPy sparse matrix, or a dense array, list of lists or tensor, [B, n_items]; or a `SparseBatch` outside
            graphs. A stored zero of a sparse matrix is a rating of zero; in a dense array 0 means that there is no
            rating.
        n_items: Number of items of the model.
        ratings: Whether the values are ratings; otherwise they are ones.

    Returns:
        CSR [B, n_items], float32, with sorted indices.

    Raises:
        InputError: If `x` is of another type, has another number of columns, or has impossible values.
    """
    expected = f"expected histories as a SciPy sparse matrix or an array of shape [n, {n_items}]"
    if isinstance(x, SparseBatch):
        matrix = _matrix_of(x, n_items, ratings)
    elif sp.issparse(x):
        matrix = sp.csr_array(x, dtype=np.float32, copy=True)
    else:
        try:
            dense = np.asarray(x, np.float32)
        except (TypeError, ValueError):
            raise InputError(f"{expected}, or a SparseBatch; found {type(x).__name__}.") from None
        if dense.ndim != 2:
            raise InputError(f"{expected}; found shape {list(dense.shape)}. One user is a row of its own: x[None, :].")
        matrix = sp.csr_array(dense)
    if matrix.shape[1] != n_items:
        raise InputError(f"{expected}; found {matrix.shape[1]} columns. Take the items that the model was trained on.")
    if not np.isfinite(matrix.data).all():
        raise InputError(f"{expected} of finite numbers; found NaN or infinity.")
    if not ratings:
        if (matrix.data < 0).any() or (matrix.data > 1).any() or (matrix.data % 1).any():
            wrong = matrix.data[(matrix.data != 0) & (matrix.data != 1)][0]
            raise InputError(
                f"{expected} of zeros and ones, which items a user has; found {wrong:g}. Choose what counts, as in "
                "(x >= 4).astype('float32')."
            )
        matrix.eliminate_zeros()
    matrix.sum_duplicates()
    matrix.sort_indices()
    return matrix


def as_batch(x: Any, n_items: int, *, ratings: bool = False) -> SparseBatch:
    """The wire format of histories; a `SparseBatch` is returned as it is, anything else goes through `as_matrix`.

    Args:
        x: A `SparseBatch`, or anything that `as_matrix` takes.
        n_items: Number of items of the model.
        ratings: Whether the values are ratings.

    Raises:
        InputError: If `as_matrix` refuses `x`, or a `SparseBatch` has items outside the catalogue.

    Example:
        >>> as_batch([[1, 0, 1], [0, 0, 0]], n_items=3).items.numpy().tolist()
        [0, 2]
    """
    if isinstance(x, SparseBatch):
        _refuse_other_items(x, n_items)
        return x
    matrix = as_matrix(x, n_items, ratings=ratings)
    batch = RowStore(matrix, with_values=ratings).gather(tf.range(matrix.shape[0], dtype=tf.int64))
    return batch._replace(users=None)  # the rows belong to no training matrix


def _matrix_of(batch: SparseBatch, n_items: int, ratings: bool) -> sp.csr_array:
    """The rows of a batch as CSR [B, n_items]."""
    _refuse_other_items(batch, n_items)
    data = batch.ratings.numpy() if ratings else np.ones(len(batch.items), np.float32)
    starts = np.concatenate([[0], np.cumsum(batch.lengths.numpy().astype(np.int64))])
    return sp.csr_array((data.astype(np.float32), batch.items.numpy(), starts), shape=(len(batch.lengths), n_items))


def _refuse_other_items(batch: SparseBatch, n_items: int) -> None:
    """Refuses a batch with items outside the catalogue; in a graph the items are not known yet and not checked."""
    if tf.is_symbolic_tensor(batch.items):
        return
    items = np.asarray(batch.items)
    wrong = items[(items < 0) | (items >= n_items)]
    if len(wrong):
        raise InputError(f"expected a batch of items 0 to {n_items - 1}; found item {wrong[0]}.")


def unpad(padded: tf.Tensor, pad: int = -1, values: tf.Tensor | None = None) -> SparseBatch:
    """Turns padded item columns into the wire format; pads may be anywhere in a row.

    Args:
        padded: int32 [B, L], item columns and pads.
        pad: The number that serves as the pad.
        values: float32 [B, L], the items' ratings or weights; they may be anything at pads. None for binary rows.

    Returns:
        The rows without pads.
    """
    present = tf.not_equal(padded, pad)
    return SparseBatch(
        items=tf.boolean_mask(padded, present),
        segment_ids=tf.cast(tf.where(present)[:, 0], tf.int32),
        lengths=tf.reduce_sum(tf.cast(present, tf.float32), axis=1),
        values=None if values is None else tf.boolean_mask(values, present),
    )


def column_means(ratings: sp.csr_array, damping: float = 5.0) -> np.ndarray:
    """The mean rating of each column, damped towards the overall mean, so that a few ratings have little effect.

    Args:
        ratings: CSR [n_rows, n_items]; a stored zero is a rating of zero.
        damping: How many ratings of the overall mean are added to each column; must be positive.

    Returns:
        float32 [n_items]. A column without ratings has the overall mean, which is 0 if there are no ratings at all.
    """
    n_items = ratings.shape[1]
    counts = np.bincount(ratings.indices, minlength=n_items)
    sums = np.bincount(ratings.indices, ratings.data, minlength=n_items)
    overall = ratings.data.sum(dtype=float) / max(ratings.nnz, 1)
    return ((sums + damping * overall) / (counts + damping)).astype(np.float32)


def check_batch_size(n_rows: int, batch_size: int, kind: str = "training users") -> None:
    """Refuses a batch size that is larger than the data.

    Raises:
        InputError: If it is larger, or less than 1.
    """
    if not 0 < batch_size <= n_rows:
        raise InputError(f"batch_size is {batch_size}, but there are {n_rows} {kind}; choose 1 to {n_rows}.")


def steps_per_epoch(n_rows: int, batch_size: int) -> int:
    """Number of updates in one pass over the rows; the last, smaller batch counts too."""
    return -(-n_rows // batch_size)


def row_numbers(n_rows: int, batch_size: int, seed: int, first_epoch: int = 0) -> tf.data.Dataset:
    """Batches of row numbers for an endless sequence of epochs; each epoch is a new permutation of all rows.

    The order is a function of the seed and the epoch's number alone, so that a resumed run meets the rows in
    the same order as an uninterrupted one.

    Args:
        n_rows: Number of rows: of training users, or of pairs.
        batch_size: Rows per batch; the last batch of an epoch has the remaining rows.
        seed: The run's seed.
        first_epoch: The first epoch, counted from 0.

    Returns:
        A dataset of int64 [B]; `steps_per_epoch` batches make one epoch.

    Raises:
        InputError: If a batch would be larger than the data, or empty.
    """
    check_batch_size(n_rows, batch_size)

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        key = tf.stack([tf.constant(seed, tf.int64), epoch])
        order = tf.random.experimental.stateless_shuffle(tf.range(n_rows, dtype=tf.int64), seed=key)
        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size)

    return tf.data.Dataset.counter(start=first_epoch).flat_map(one_epoch).prefetch(2)
