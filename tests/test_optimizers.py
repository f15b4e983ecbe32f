"""The fused Adam and EVCF's against Keras's, against the formulas, and on gradients that arrive as slices."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfvae.nn.optimizers import OPTIMIZERS, FusedAdam, NormalizedAdam, SparseAdam


def gradients(n_steps=50, shape=(6, 3)):
    rng = np.random.default_rng(0)
    scales = np.exp(rng.normal(0, 4, shape))  # from hardly any to huge, as for rare and popular items
    return [tf.constant(scales * rng.normal(size=shape), tf.float32) for _ in range(n_steps)]


def trained(optimizer, steps):
    start = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    variable = keras.Variable(start, name="table")
    optimizer.build([variable])
    for gradient in steps:
        optimizer.apply([gradient], [variable])
    return variable.numpy()


def test_fifty_steps_equal_those_of_stock_adam():
    found = trained(FusedAdam(0.01), gradients())
    expected = trained(keras.optimizers.Adam(0.01, epsilon=1e-8), gradients())
    np.testing.assert_allclose(found, expected, atol=5e-6)


def test_steps_equal_the_formula_of_tensorflow_1():
    found = trained(FusedAdam(0.01, beta_1=0.8, beta_2=0.99), gradients(5))
    x = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32).astype(float)
    m = v = np.zeros_like(x)
    for t, gradient in enumerate(gradients(5), start=1):
        g = gradient.numpy().astype(float)
        m, v = 0.8 * m + 0.2 * g, 0.99 * v + 0.01 * g**2
        rate = 0.01 * np.sqrt(1 - 0.99**t) / (1 - 0.8**t)
        x = x - rate * m / (np.sqrt(v) + 1e-8)
    np.testing.assert_allclose(found, x, atol=2e-6)


def test_epsilon_is_that_of_tensorflow_1_and_matters_for_tiny_gradients():
    tiny = [1e-8 * gradient / tf.norm(gradient) for gradient in gradients(5)]
    found = trained(FusedAdam(0.01), tiny)
    np.testing.assert_allclose(found, trained(keras.optimizers.Adam(0.01, epsilon=1e-8), tiny), atol=1e-6)
    assert np.abs(found - trained(keras.optimizers.Adam(0.01), tiny)).max() > 1e-3
    assert FusedAdam().epsilon == 1e-8


def slices():
    """A gradient in which row 2 occurs twice, row 4 three times: both as slices and dense."""
    values = np.random.default_rng(2).normal(size=(6, 3)).astype(np.float32)
    indices = np.array([2, 0, 4, 2, 4, 4])
    dense = np.zeros((6, 3), np.float32)
    np.add.at(dense, indices, values)
    return tf.IndexedSlices(tf.constant(values), tf.constant(indices), (6, 3)), tf.constant(dense)


def test_duplicate_slices_are_added_before_they_are_squared():
    sliced, dense = slices()
    np.testing.assert_allclose(trained(FusedAdam(0.1), [sliced] * 3), trained(FusedAdam(0.1), [dense] * 3), atol=1e-6)


def test_stock_adam_is_wrong_on_duplicate_slices():
    # The reason why FusedAdam makes gradients dense. When Keras mends it, that line may go.
    sliced, dense = slices()
    wrong, right = (trained(keras.optimizers.Adam(0.1, epsilon=1e-8), [g] * 3) for g in (sliced, dense))
    assert np.abs(wrong - right)[[2, 4]].max() > 0.01
    np.testing.assert_allclose(wrong[[0, 1, 3, 5]], right[[0, 1, 3, 5]], atol=1e-6)


def test_rows_without_gradient_go_on_moving():
    # TensorFlow 1 saw dense gradients; a lazy Adam would leave row 1 where it is.
    first = tf.constant(np.ones((6, 3), np.float32))
    later = tf.IndexedSlices(tf.ones([1, 3]), tf.constant([0]), (6, 3))
    moved = trained(FusedAdam(0.1), [first, later]) - trained(FusedAdam(0.1), [first])
    assert np.abs(moved[1]).min() > 0.01


def test_it_is_built_again_from_its_config():
    optimizer = FusedAdam(0.3, beta_1=0.7, beta_2=0.8, epsilon=1e-3)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is FusedAdam
    assert again.get_config() == optimizer.get_config()
    np.testing.assert_array_equal(trained(again, gradients(3)), trained(optimizer, gradients(3)))


def test_the_learning_rate_can_be_changed_in_a_compiled_step():
    variable = keras.Variable(np.zeros(3, np.float32))
    optimizer = FusedAdam(0.1)
    optimizer.build([variable])
    step = tf.function(lambda: optimizer.apply([tf.ones(3)], [variable]))
    step()
    optimizer.learning_rate = 0.0
    before = variable.numpy()
    step()
    np.testing.assert_array_equal(variable.numpy(), before)
    np.testing.assert_allclose(before, -0.1, rtol=1e-5)


@pytest.mark.parametrize("n_steps", [1, 2, 50])
def test_normalized_steps_equal_evcfs_formula(n_steps):
    found = trained(NormalizedAdam(0.01), gradients(n_steps))
    x = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32).astype(float)
    m = v = np.zeros_like(x)
    for t, gradient in enumerate(gradients(n_steps), start=1):
        g = gradient.numpy().astype(float)
        g /= np.linalg.norm(g) + 1e-7
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        x -= 0.01 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-8)
    # Where g is hardly more than 1e-8 of the norm, ε matters, and rounding with it.
    np.testing.assert_allclose(found, x, atol=1e-5)
    assert np.abs(found - trained(FusedAdam(0.01), gradients(n_steps))).max() > 1e-3 or n_steps == 1


def moments(optimizer, steps):
    """What the optimiser made of each gradient, from its first moments."""
    variable = keras.Variable(np.zeros((6, 3), np.float32))
    optimizer.build([variable])
    seen, before = [], np.zeros((6, 3))
    for gradient in steps:
        optimizer.apply([gradient], [variable])
        after = optimizer._momentums[0].numpy().astype(float)
        seen.append((after - 0.9 * before) / 0.1)
        before = after
    return seen


def test_each_processed_gradient_has_length_one_and_the_direction_of_the_given():
    for given, processed in zip(gradients(20), moments(NormalizedAdam(0.01), gradients(20)), strict=True):
        assert np.linalg.norm(processed) == pytest.approx(1, abs=1e-4)
        np.testing.assert_allclose(processed, given / np.linalg.norm(given), atol=1e-5)


def test_lengths_are_those_of_tensors_not_of_all_gradients_together():
    variables = [keras.Variable(np.zeros(shape, np.float32)) for shape in ((4, 3), (3,))]
    optimizer = NormalizedAdam(0.01)
    optimizer.build(variables)
    optimizer.apply([tf.fill([4, 3], 1e3), tf.fill([3], -1e-3)], variables)
    for momentum, sign in zip(optimizer._momentums, (1, -1), strict=True):
        processed = momentum.numpy() / 0.1
        np.testing.assert_allclose(processed, sign / np.sqrt(processed.size), rtol=1e-3)


def test_the_scale_of_the_loss_drops_out_but_for_gradients_as_small_as_a_ten_millionth():
    once, scaled = (trained(NormalizedAdam(0.01), [c * g for g in gradients(20)]) for c in (1.0, 1024.0))
    np.testing.assert_allclose(once, scaled, atol=2e-6)
    given = gradients(1)[0]
    tiny = moments(NormalizedAdam(0.01), [1e-7 * given / tf.norm(given)])[0]
    assert np.linalg.norm(tiny) == pytest.approx(0.5, rel=1e-4)


def test_a_zero_gradient_moves_nothing_and_leaves_no_nan():
    zeros = [tf.zeros([6, 3])] * 3
    start = trained(NormalizedAdam(0.0), gradients(1))
    np.testing.assert_array_equal(trained(NormalizedAdam(0.1), zeros), start)
    assert np.isfinite(trained(NormalizedAdam(0.1), zeros + gradients(2))).all()


def test_duplicate_slices_are_added_before_their_length_is_taken():
    sliced, dense = slices()
    found = trained(NormalizedAdam(0.1), [sliced] * 3)
    np.testing.assert_allclose(found, trained(NormalizedAdam(0.1), [dense] * 3), atol=1e-6)
    np.testing.assert_allclose(moments(NormalizedAdam(0.1), [sliced])[0], dense / np.linalg.norm(dense), atol=1e-6)
    assert abs(np.linalg.norm(sliced.values) - np.linalg.norm(dense)) > 0.1


def test_two_replicas_normalise_the_sum_of_their_gradients(two_replicas):
    with two_replicas.scope():
        variable, optimizer = keras.Variable(np.zeros(2, np.float32)), NormalizedAdam(0.1)
        optimizer.build([variable])

    @tf.function
    def step():
        def replica():
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
            gradient = tf.where(number == 0, [3.0, 0.0], [0.0, 4.0])
            optimizer.apply([gradient], [variable])

        two_replicas.run(replica)

    step()
    np.testing.assert_allclose(optimizer._momentums[0].numpy() / 0.1, [0.6, 0.8], rtol=1e-5)


def test_normalized_adam_is_built_again_from_its_config_and_has_a_name():
    optimizer = NormalizedAdam(0.3, beta_1=0.7, beta_2=0.8, epsilon=1e-3)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is NormalizedAdam and again.get_config() == optimizer.get_config()
    np.testing.assert_array_equal(trained(again, gradients(3)), trained(optimizer, gradients(3)))
    assert OPTIMIZERS == {"adam": FusedAdam, "sparse-adam": SparseAdam, "normalized-adam": NormalizedAdam}


def some_rows(step, rows):
    """Slices of some rows, in an order of their own, one of them twice."""
    values = tf.gather(gradients(50)[step], [*rows, rows[0]])
    return tf.IndexedSlices(values, tf.constant([*rows, rows[0]]), (6, 3))


def test_sparse_adam_moves_rows_of_every_step_as_adam_does_and_no_other():
    steps = [some_rows(step, [4, 1, 3] if step % 2 else [3, 4, 1]) for step in range(30)]
    found, dense = trained(SparseAdam(0.01), steps), trained(FusedAdam(0.01), steps)
    np.testing.assert_allclose(found, dense, atol=5e-6)
    start = trained(FusedAdam(0.0), [])
    np.testing.assert_array_equal(found[[0, 2, 5]], start[[0, 2, 5]])
    assert np.abs(found - start)[[1, 3, 4]].min() > 0.01


def test_sparse_adam_corrects_a_bias_by_all_steps_and_keeps_the_moments_of_a_row_without_slices():
    variable, optimizer = keras.Variable(np.zeros((6, 3), np.float32)), SparseAdam(0.1)
    optimizer.build([variable])
    for step, rows in enumerate([[1, 2], [2], [2], [1]]):
        before = [moment.numpy() for moment in (*optimizer._momentums, *optimizer._velocities)]
        optimizer.apply([some_rows(step, rows)], [variable])
        others = [row for row in range(6) if row not in rows]
        for old, new in zip(before, (*optimizer._momentums, *optimizer._velocities), strict=True):
            np.testing.assert_array_equal(new.numpy()[others], old[others])
    first, last = (2.0 * gradients(50)[step].numpy()[1].astype(float) for step in (0, 3))  # each came twice
    mean, square = 0.1 * first, 0.001 * first**2
    moved = 0.1 * np.sqrt(1 - 0.999) / (1 - 0.9) * mean / (np.sqrt(square) + 1e-8)
    mean, square = 0.9 * mean + 0.1 * last, 0.999 * square + 0.001 * last**2
    moved += 0.1 * np.sqrt(1 - 0.999**4) / (1 - 0.9**4) * mean / (np.sqrt(square) + 1e-8)
    np.testing.assert_allclose(variable.numpy()[1], -moved, rtol=1e-4)


def test_sparse_adam_is_adam_for_dense_gradients_and_is_built_again_from_its_config():
    optimizer = SparseAdam(0.3, beta_1=0.7, beta_2=0.8, epsilon=1e-3)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is SparseAdam and again.get_config() == optimizer.get_config()
    dense = trained(FusedAdam(0.3, beta_1=0.7, beta_2=0.8, epsilon=1e-3), gradients(3))
    np.testing.assert_array_equal(trained(again, gradients(3)), dense)
