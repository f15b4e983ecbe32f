"""Products of a sparse batch of user rows with dense matrices, each with a custom gradient.

Every floating-point input has its true gradient; the integers that give the places of the non-zeros have none. Each
gradient adds its terms in a fixed order, so that equal runs are equal to the last bit.

A graph that is traced within `portable_ops` has the same products in operations that every runtime knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import tensorflow as tf

__all__ = ["add_at", "binary_matmul", "portable_ops", "products_at", "refuse_gradient", "sparse_matmul"]

_PORTABLE = ContextVar("portable", default=False)


@contextmanager
def portable_ops() -> Iterator[None]:
    """Within it, graphs are traced with gathers and segment sums, since LiteRT has no kernels for sparse products.

    The results differ by rounding only. A gathered row of the matrix takes memory for each non-zero, and the order in
    which gradients add their terms is not fixed; so such graphs are for serving a few users at a time.
    """
    before = _PORTABLE.set(True)
    try:
        yield
    finally:
        _PORTABLE.reset(before)


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
    matrix = tf.raw_ops.SparseTensorToCSRSparseMatrix(
        indices=tf.cast(tf.stack([segment_ids, items], axis=1), tf.int64),
        values=values,
        dense_shape=tf.cast(tf.stack(shape), tf.int64),
    )
    return tf.raw_ops.SparseMatrixMatMul(a=matrix, b=dense)


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

    def gradient(upstream):
        where = tf.cast(upstream, tf.float32), items, segment_ids, [tf.shape(hidden)[0], tf.shape(kernel)[0]]
        hidden_gradient = _sparse_product(*where, tf.cast(kernel, tf.float32))
        of_kernel = _transposed_product(*where, tf.cast(hidden, tf.float32))
        return tf.cast(hidden_gradient, hidden.dtype), tf.cast(of_kernel, kernel.dtype), None, None

    return products, gradient


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
