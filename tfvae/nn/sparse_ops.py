"""Products of a sparse batch of user rows with dense matrices, each with a custom gradient.

Every floating-point input has its true gradient; the integers that give the places of the non-zeros have none. Each
gradient adds its terms in a fixed order, so that equal runs are equal to the last bit.

A graph that is traced within `portable_ops` has the same products in operations that every runtime knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import keras
import tensorflow as tf

from tfvae.nn.batches import HOST

__all__ = [
    "add_at",
    "binary_matmul",
    "distinct",
    "is_portable",
    "portable_ops",
    "products_at",
    "products_of_pairs",
    "refuse_gradient",
    "row_penalty",
    "rows_at",
    "sparse_matmul",
    "sum_of_rows",
]

_PORTABLE = ContextVar("portable", default=False)


@contextmanager
def portable_ops() -> Iterator[None]:
    """Within it, graphs are traced with gathers and segment sums: LiteRT and XLA have no kernels for sparse products.

    The results differ by rounding only. A gathered row of the matrix takes memory for each non-zero, and the order in
    which gradients add their terms is not fixed; so such graphs are for serving a few users at a time, and for
    `tfvae.nn.xla`.
    """
    before = _PORTABLE.set(True)
    try:
        yield
    finally:
        _PORTABLE.reset(before)


def is_portable() -> bool:
    """Whether a graph is being traced within `portable_ops`."""
    return _PORTABLE.get()


def distinct(items: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The distinct numbers in the order in which they first occur, int32 [m], and each number's place there, [n]."""
    with tf.device(HOST):
        return tf.unique(items)


def rows_at(table: keras.Variable, items: tf.Tensor) -> tf.Tensor:
    """The rows of a variable with the given numbers; the variable's gradient consists of these rows only.

    The variable itself is not read: from the first such access on, TensorFlow copies a variable when it is read as a
    whole.

    Args:
        table: Any floating-point variable, [n_items, ...].
        items: int32 [m].
    """
    return tf.gather(tf.convert_to_tensor(table.value) if is_portable() else table.value, items)


def sum_of_rows(values: tf.Tensor, places: tf.Tensor, n_rows: tf.Tensor) -> tf.Tensor:
    """The sums of the rows that have the same place, [n_rows, ...]; the order of the terms is fixed.

    Args:
        values: float32 [n, ...].
        places: int32 [n], in any order.
        n_rows: Number of places.
    """
    by_place = tf.argsort(places, stable=True)
    return tf.raw_ops.SparseSegmentSumWithNumSegments(
        data=values, indices=by_place, segment_ids=tf.gather(places, by_place), num_segments=n_rows
    )


def row_penalty(tables: Iterable[keras.Variable], items: tf.Tensor) -> tf.Tensor:
    """The sum of the squared entries of some rows of tables, a scalar; each row counts once.

    Args:
        tables: Variables [n_items, ...].
        items: Numbers of the rows, int32 [m], in any order and with repetitions.
    """
    rows, _ = distinct(items)
    return tf.add_n([2.0 * tf.nn.l2_loss(rows_at(table, rows)) for table in tables])


def binary_matmul(kernel: tf.Tensor, items: tf.Tensor, segment_ids: tf.Tensor, n_users: tf.Tensor) -> tf.Tensor:
    """The sparse product X·kernel for binary X, [B, units], whose gradient is the same kind of product with X'."""
    if _PORTABLE.get():
        return tf.math.unsorted_segment_sum(tf.gather(kernel, items), segment_ids, n_users)
    return _binary_matmul(kernel, items, segment_ids, n_users)


@tf.custom_gradient
def _binary_matmul(kernel: tf.Tensor, items: tf.Tensor, segment_ids: tf.Tensor, n_users: tf.Tensor):
    total = tf.raw_ops.SparseSegmentSumWithNumSegments(
        data=kernel, indices=items, segment_ids=segment_ids, num_segments=n_users
    )

    def gradient(upstream):
        by_item = tf.argsort(items)
        kernel_gradient = tf.raw_ops.SparseSegmentSumWithNumSegments(
            data=upstream,
            indices=tf.gather(segment_ids, by_item),
            segment_ids=tf.gather(items, by_item),
            num_segments=tf.shape(kernel)[0],
        )
        return kernel_gradient, None, None, None

    return total, gradient


def _sparse_product(
    values: tf.Tensor, items: tf.Tensor, segment_ids: tf.Tensor, shape: list[tf.Tensor], dense: tf.Tensor
) -> tf.Tensor:
    """The product of a sparse matrix of the given shape and a dense one, float32 [rows, units].

    It takes a third of the time of `tf.sparse.sparse_dense_matmul`, and less time than a product of dense batches.
    """
    n_rows, n_columns = shape
    matrix = tf.raw_ops.SparseTensorToCSRSparseMatrix(
        indices=tf.cast(tf.stack([segment_ids, items], axis=1), tf.int64),
        values=values,
        # The operation divides by the number of rows, and none would end the process.
        dense_shape=tf.cast(tf.stack([tf.maximum(n_rows, 1), n_columns]), tf.int64),
    )
    return tf.raw_ops.SparseMatrixMatMul(a=matrix, b=dense)[:n_rows]


def _transposed_product(
    values: tf.Tensor, items: tf.Tensor, segment_ids: tf.Tensor, shape: list[tf.Tensor], dense: tf.Tensor
) -> tf.Tensor:
    """The product of the transposed sparse matrix and a dense one, [columns, units].

    The option `transpose_a` of the operation adds up the parts of several threads in the order in which they finish, so
    that two runs would not be equal bit for bit.
    """
    by_item = tf.argsort(items)
    values, items, segment_ids = (tf.gather(part, by_item) for part in (values, items, segment_ids))
    return _sparse_product(values, segment_ids, items, shape[::-1], dense)


def sparse_matmul(
    kernel: tf.Tensor, values: tf.Tensor, items: tf.Tensor, segment_ids: tf.Tensor, n_users: tf.Tensor
) -> tf.Tensor:
    """The sparse product X·kernel, [B, units], for X with the given values; kernel and values have gradients.

    If the values are data, their gradient costs nothing in a compiled step, since TensorFlow removes unused results.
    """
    if _PORTABLE.get():
        return tf.math.unsorted_segment_sum(values[:, None] * tf.gather(kernel, items), segment_ids, n_users)
    return _sparse_matmul(kernel, values, items, segment_ids, n_users)


@tf.custom_gradient
def _sparse_matmul(kernel: tf.Tensor, values: tf.Tensor, items: tf.Tensor, segment_ids: tf.Tensor, n_users: tf.Tensor):
    # The gradient must not reuse the sparse matrix of the forward pass, since such a function cannot be saved.
    where = values, items, segment_ids, [n_users, tf.shape(kernel)[0]]

    def gradient(upstream):
        of_values = products_at(upstream, kernel, items, segment_ids)
        return _transposed_product(*where, upstream), of_values, None, None, None

    return _sparse_product(*where, kernel), gradient


@tf.custom_gradient
def products_at(hidden: tf.Tensor, kernel: tf.Tensor, items: tf.Tensor, segment_ids: tf.Tensor):
    """The entries of hidden·kernel' at the places (segment_ids, items), [nnz].

    At a density of some per cent, one dense product is faster than one inner product for each entry. The gradient
    consists of two sparse products.
    """
    # For factors of two types `tf.matmul` takes a kernel that exists on CPUs only.
    dense = tf.matmul(hidden, tf.cast(kernel, hidden.dtype), transpose_b=True)
    products = tf.gather_nd(dense, tf.stack([segment_ids, items], axis=1))
    return products, lambda upstream: _factors_gradients(upstream, hidden, kernel, items, segment_ids)


@tf.custom_gradient
def products_of_pairs(hidden: tf.Tensor, kernel: tf.Tensor, items: tf.Tensor, segment_ids: tf.Tensor):
    """The same as `products_at` in float32, by one inner product for each entry: its cost is that of the entries.

    It takes the memory of a row of each factor for each entry, and is faster where the entries are a small share of
    [B, n_items].
    """
    factors = tf.gather(hidden, segment_ids), tf.gather(kernel, items)
    products = tf.reduce_sum(tf.cast(factors[0], tf.float32) * tf.cast(factors[1], tf.float32), axis=1)
    return products, lambda upstream: _factors_gradients(upstream, hidden, kernel, items, segment_ids)


def _factors_gradients(
    upstream: tf.Tensor, hidden: tf.Tensor, kernel: tf.Tensor, items: tf.Tensor, segment_ids: tf.Tensor
) -> tuple:
    """The gradients of some entries of hidden·kernel', two sparse products."""
    where = tf.cast(upstream, tf.float32), items, segment_ids, [tf.shape(hidden)[0], tf.shape(kernel)[0]]
    of_hidden = _sparse_product(*where, tf.cast(kernel, tf.float32))
    of_kernel = _transposed_product(*where, tf.cast(hidden, tf.float32))
    return tf.cast(of_hidden, hidden.dtype), tf.cast(of_kernel, kernel.dtype), None, None


def add_at(dense: tf.Tensor, at: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """The matrix `dense` with `values` [nnz] added at the places `at` [nnz, 2], of which no two are the same."""
    if _PORTABLE.get():
        return dense + tf.scatter_nd(at, values, tf.shape(dense))
    if tf.config.list_logical_devices("GPU"):  # SparseTensorDenseAdd has no GPU kernel
        return tf.tensor_scatter_nd_add(dense, at, values)
    # On a CPU this takes a third of the scatter's time, including the copy.
    shape = tf.shape(dense, tf.int64)
    return tf.raw_ops.SparseTensorDenseAdd(a_indices=tf.cast(at, tf.int64), a_values=values, a_shape=shape, b=dense)


def refuse_gradient(tensor: tf.Tensor, reason: str) -> tf.Tensor:
    """Returns the tensor unchanged, but raises an error if its gradient is taken, instead of a silent None.

    Args:
        tensor: Any tensor.
        reason: The text of the error: what has no gradient, and what to do instead.
    """

    @tf.custom_gradient
    def same(tensor):
        def gradient(upstream):
            raise NotImplementedError(reason)

        return tf.identity(tensor), gradient

    return same(tensor)
