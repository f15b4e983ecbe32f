"""Products of a sparse batch of user rows with dense matrices, each with its own gradient.

Every floating-point input has its true gradient; the integers that say where the non-zeros stand have none. Each
gradient adds its terms in one order, so that equal runs are equal to the last bit.
"""

from __future__ import annotations

import tensorflow as tf

__all__ = ["binary_matmul", "products_at", "refuse_gradient", "sparse_matmul"]


@tf.custom_gradient
def binary_matmul(kernel: tf.Tensor, items: tf.Tensor, segment_ids: tf.Tensor, n_users: tf.Tensor):
    """The sparse product X·kernel for binary X, [B, units], whose gradient is the same kind of product with X'."""
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
    """The product of the sparse matrix of this shape and a dense one, float32 [rows, units].

    It takes a third of the time of `tf.sparse.sparse_dense_matmul`, and less than that of a product of dense batches.
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
    """The same of the transpose of that matrix, [columns, units].

    The operation's own `transpose_a` adds the parts of several threads up in the order in which they finish, so that
    no run would equal another bit for bit.
    """
    by_item = tf.argsort(items)
    values, items, segment_ids = (tf.gather(part, by_item) for part in (values, items, segment_ids))
    return _sparse_product(values, segment_ids, items, shape[::-1], dense)


@tf.custom_gradient
def sparse_matmul(kernel: tf.Tensor, values: tf.Tensor, items: tf.Tensor, segment_ids: tf.Tensor, n_users: tf.Tensor):
    """The sparse product X·kernel, [B, units], for X of the given values; with gradients for kernel and values.

    In a compiled step whose values are data, their gradient costs nothing: TensorFlow removes what nobody reads.
    """
    # A gradient must not share the sparse matrix, since the function of one that does cannot be saved.
    where = values, items, segment_ids, [n_users, tf.shape(kernel)[0]]

    def gradient(upstream):
        of_values = products_at(upstream, kernel, items, segment_ids)
        return _transposed_product(*where, upstream), of_values, None, None, None

    return _sparse_product(*where, kernel), gradient


@tf.custom_gradient
def products_at(hidden: tf.Tensor, kernel: tf.Tensor, items: tf.Tensor, segment_ids: tf.Tensor):
    """The entries (segment_ids, items) of hidden·kernel', [nnz].

    At a density of some per cent one dense product is faster than as many inner products as there are entries. Its
    gradient is two sparse products.
    """
    products = tf.gather_nd(tf.matmul(hidden, kernel, transpose_b=True), tf.stack([segment_ids, items], axis=1))

    def gradient(upstream):
        where = tf.cast(upstream, tf.float32), items, segment_ids, [tf.shape(hidden)[0], tf.shape(kernel)[0]]
        hidden_gradient = _sparse_product(*where, tf.cast(kernel, tf.float32))
        of_kernel = _transposed_product(*where, tf.cast(hidden, tf.float32))
        return tf.cast(hidden_gradient, hidden.dtype), tf.cast(of_kernel, kernel.dtype), None, None

    return products, gradient


def refuse_gradient(tensor: tf.Tensor, reason: str) -> tf.Tensor:
    """The same tensor, whose gradient is an error instead of a silent None.

    Args:
        tensor: Any.
        reason: What has no gradient, and what to do instead.
    """

    @tf.custom_gradient
    def same(tensor):
        def gradient(upstream):
            raise NotImplementedError(reason)

        return tf.identity(tensor), gradient

    return same(tensor)
