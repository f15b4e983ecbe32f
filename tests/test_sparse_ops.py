"""The sparse products and every gradient of theirs, against dense products in float64."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from dense_reference import random_rows, rows_of
from graph_optimizer import optimizing
from tensorflow.python.eager import context

from tfvae.nn.sparse_ops import binary_matmul, products_at, products_of_pairs, sparse_matmul

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def places():
    x = random_rows()
    batch = rows_of(x)
    return x, batch.items, batch.segment_ids, tf.shape(batch.lengths)[0]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_the_weighted_product_has_the_gradients_of_its_kernel_and_of_its_values(compiled):
    x, items, segment_ids, n_users = places()
    kernel, values, upstream = normal(x.shape[1], 4), normal(len(items), seed=1), normal(len(x), 4, seed=2)

    def product_and_gradients(kernel, values):
        with tf.GradientTape() as tape:
            tape.watch([kernel, values])
            product = sparse_matmul(kernel, values, items, segment_ids, n_users)
            total = tf.reduce_sum(product * upstream)
        return product, *tape.gradient(total, [kernel, values])

    run = tf.function(product_and_gradients) if compiled else product_and_gradients
    product, of_kernel, of_values = run(tf.constant(kernel), tf.constant(values))
    dense = np.zeros(x.shape)
    dense[segment_ids, items] = values
    np.testing.assert_allclose(product, dense @ kernel, **CLOSE)
    np.testing.assert_allclose(of_kernel, dense.T @ upstream, **CLOSE)
    np.testing.assert_allclose(of_values, (upstream.astype(float) @ kernel.T)[segment_ids, items], **CLOSE)


def test_a_weight_for_each_rating_is_trained_through_the_weighted_product():
    _, items, segment_ids, n_users = places()
    scale, ratings = tf.Variable(2.0), tf.ones(len(items))
    kernel = tf.constant(normal(13, 4))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(sparse_matmul(kernel, scale * ratings, items, segment_ids, n_users))
    assert float(tape.gradient(total, scale)) == pytest.approx(float(total) / 2, rel=1e-4)


def test_a_step_whose_values_are_data_pays_nothing_for_their_gradient():
    _, items, segment_ids, n_users = places()
    values = tf.constant(normal(len(items)))

    def gradients(of_values):
        @tf.function
        def step(kernel, values):
            with tf.GradientTape() as tape:
                tape.watch([kernel, values])
                total = tf.reduce_sum(sparse_matmul(kernel, values, items, segment_ids, n_users) ** 2)
            return tape.gradient(total, [kernel, values] if of_values else kernel)

        run = step.get_concrete_function(tf.TensorSpec([13, 4]), tf.TensorSpec([len(items)]))
        context.context().enable_run_metadata()
        run(tf.constant(normal(13, 4)), values)
        found = context.context().export_run_metadata()
        context.context().disable_run_metadata()
        graphs = [node for graph in found.function_graphs for node in graph.post_optimization_graph.node]
        return sum(node.op in ("GatherNd", "_FusedMatMul", "MatMul") for node in graphs)

    with optimizing():
        assert gradients(of_values=True) > 0
        assert gradients(of_values=False) == 0


def test_the_binary_product_has_the_gradient_of_its_kernel():
    x, items, segment_ids, n_users = places()
    kernel, upstream = tf.constant(normal(x.shape[1], 4)), normal(len(x), 4, seed=2)
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        product = binary_matmul(kernel, items, segment_ids, n_users)
        total = tf.reduce_sum(product * upstream)
    np.testing.assert_allclose(product, x @ kernel.numpy(), **CLOSE)
    np.testing.assert_allclose(tape.gradient(total, kernel), x.T @ upstream, **CLOSE)


def test_products_at_chosen_places_have_the_gradients_of_both_factors():
    x, items, segment_ids, _ = places()
    hidden, kernel = tf.constant(normal(len(x), 4)), tf.constant(normal(x.shape[1], 4, seed=1))
    upstream = normal(len(items), seed=2)
    with tf.GradientTape() as tape:
        tape.watch([hidden, kernel])
        products = products_at(hidden, kernel, items, segment_ids)
        total = tf.reduce_sum(products * upstream)
    of_hidden, of_kernel = tape.gradient(total, [hidden, kernel])
    dense = np.zeros(x.shape)
    dense[segment_ids, items] = upstream
    np.testing.assert_allclose(products, (hidden.numpy() @ kernel.numpy().T)[segment_ids, items], **CLOSE)
    np.testing.assert_allclose(of_hidden, dense @ kernel.numpy(), **CLOSE)
    np.testing.assert_allclose(of_kernel, dense.T @ hidden.numpy(), **CLOSE)


def test_a_bfloat16_input_of_a_float32_kernel_leaves_the_kernel_s_gradient_in_float32():
    x, items, segment_ids, _ = places()
    hidden, kernel = tf.cast(normal(len(x), 4), tf.bfloat16), tf.constant(normal(x.shape[1], 4, seed=1))
    upstream = normal(len(items), seed=2)
    with tf.GradientTape() as tape:
        tape.watch([hidden, kernel])
        products = products_at(hidden, kernel, items, segment_ids)
        total = tf.reduce_sum(tf.cast(products, tf.float32) * upstream)
    of_hidden, of_kernel = tape.gradient(total, [hidden, kernel])
    assert (products.dtype, of_hidden.dtype, of_kernel.dtype) == (tf.bfloat16, tf.bfloat16, tf.float32)
    exact = tf.cast(hidden, tf.float32).numpy()
    dense = np.zeros(x.shape)
    dense[segment_ids, items] = tf.cast(tf.cast(upstream, tf.bfloat16), tf.float32)  # the gradient of the cast
    expected = (exact @ kernel.numpy().T)[segment_ids, items]
    np.testing.assert_allclose(tf.cast(products, tf.float32), expected, rtol=2e-2, atol=5e-2)
    np.testing.assert_allclose(tf.cast(of_hidden, tf.float32), dense @ kernel.numpy(), rtol=2e-2, atol=2e-2)
    np.testing.assert_allclose(of_kernel, dense.T @ exact, **CLOSE)


@pytest.mark.parametrize(("n_users", "n_items"), [(3, 0), (0, 5), (0, 0), (3, 5)])
def test_products_of_nothing_have_gradients_of_zeros(n_users, n_items):
    # As of a batch without ratings, or of a worker that has none of the batch's users.
    nothing, users, kernel = tf.zeros([0], tf.int32), tf.zeros([n_users, 4]), tf.zeros([n_items, 4])
    products = {
        "binary": lambda: binary_matmul(kernel, nothing, nothing, n_users),
        "weighted": lambda: sparse_matmul(kernel, tf.zeros([0]), nothing, nothing, n_users),
        "places": lambda: products_at(users, kernel, nothing, nothing),
        "pairs": lambda: products_of_pairs(users, kernel, nothing, nothing),
    }
    for name, product in products.items():
        with tf.GradientTape() as tape:
            tape.watch([users, kernel])
            total = tf.reduce_sum(product())
        of_users, of_kernel = tape.gradient(total, [users, kernel], unconnected_gradients="zero")
        assert of_users.shape == users.shape and of_kernel.shape == kernel.shape, name
        assert not np.any(of_users) and not np.any(of_kernel), name
