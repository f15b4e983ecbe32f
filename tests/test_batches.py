"""The wire format against dense rows, and the order of users over epochs."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from dense_reference import on_the_items, random_rows, rows_of
from scipy.sparse import csr_array

from tfvae.nn.batches import RowStore, row_numbers, steps_per_epoch, unpad
from tfvae.system.errors import InputError


def dense(rows, n_items, flat=None) -> np.ndarray:
    x = np.zeros((len(rows.lengths), n_items), np.float32)
    np.add.at(x, (rows.segment_ids.numpy(), rows.items.numpy()), 1 if flat is None else flat)
    return x


@pytest.mark.parametrize("users", [range(7), [6, 2, 2, 0, 5], [2, 5], [4]], ids=str)
def test_gathered_rows_are_those_of_the_matrix(users):
    x = random_rows()
    batch = RowStore(csr_array(x)).gather(tf.constant(list(users), tf.int64))
    np.testing.assert_array_equal(dense(batch, 13), x[list(users)])
    np.testing.assert_array_equal(batch.lengths, x[list(users)].sum(axis=1))
    assert (np.diff(batch.segment_ids) >= 0).all()
    assert (batch.items.dtype, batch.segment_ids.dtype, batch.lengths.dtype) == (tf.int32, tf.int32, tf.float32)
    assert batch.values is None


def test_gather_within_a_graph_of_unknown_batch_size():
    x = random_rows()
    store = RowStore(csr_array(x))
    gather = tf.function(store.gather, input_signature=[tf.TensorSpec([None], tf.int64)])
    for users in ([3, 1], [0, 2, 4, 6]):
        np.testing.assert_array_equal(dense(gather(tf.constant(users, tf.int64)), 13), x[users])


def test_values_come_along_when_asked_for():
    ratings = random_rows() * np.random.default_rng(1).integers(1, 6, (7, 13)).astype(np.float32)
    batch = RowStore(csr_array(ratings), with_values=True).gather(tf.constant([5, 1, 3]))
    np.testing.assert_array_equal(dense(batch, 13, batch.values.numpy()), ratings[[5, 1, 3]])


@pytest.mark.parametrize("pad", [-1, 99])
def test_unpad_drops_pads_wherever_they_stand(pad):
    padded = [[pad, 3, pad, 0], [pad, pad, pad, pad], [5, 7, 2, 1], [4, pad, pad, pad]]
    batch = unpad(tf.constant(padded), pad)
    assert batch.items.numpy().tolist() == [3, 0, 5, 7, 2, 1, 4]
    assert batch.segment_ids.numpy().tolist() == [0, 0, 2, 2, 2, 2, 3]
    assert batch.lengths.numpy().tolist() == [2, 0, 4, 1]


def test_unpadded_histories_are_the_gathered_rows():
    x = random_rows()
    padded = np.where(x > 0, np.arange(13), -1).astype(np.int32)
    for one, other in zip(unpad(tf.constant(padded))[:3], rows_of(x)[:3], strict=True):
        np.testing.assert_array_equal(one, other)


def test_unpad_of_no_columns_is_empty_histories():
    batch = unpad(tf.zeros([3, 0], tf.int32))
    assert len(batch.items) == 0 and batch.lengths.numpy().tolist() == [0, 0, 0]


def epochs_of(n_users, batch_size, seed, first_epoch=0, n=3):
    batches = iter(row_numbers(n_users, batch_size, seed, first_epoch).as_numpy_iterator())
    return [[next(batches) for _ in range(steps_per_epoch(n_users, batch_size))] for _ in range(n)]


@pytest.mark.parametrize(("n_users", "batch_size"), [(10, 4), (12, 4), (5, 5), (3, 1)])
def test_every_epoch_is_a_full_permutation_and_keeps_the_last_batch(n_users, batch_size):
    for epoch in epochs_of(n_users, batch_size, seed=1):
        assert sorted(np.concatenate(epoch)) == list(range(n_users))
        sizes = [len(batch) for batch in epoch]
        assert sizes == [batch_size] * (n_users // batch_size) + [n_users % batch_size] * (n_users % batch_size > 0)


def test_order_is_a_function_of_seed_and_epoch():
    first, second, third = (np.concatenate(epoch) for epoch in epochs_of(200, 30, seed=1))
    again = [np.concatenate(epoch) for epoch in epochs_of(200, 30, seed=1)]
    np.testing.assert_array_equal([first, second, third], again)
    other_seed = np.concatenate(epochs_of(200, 30, seed=2, n=1)[0])
    orders = [tuple(order) for order in (first, second, third, other_seed, np.arange(200))]
    assert len(set(orders)) == 5
    # seed 1, epoch 2 must not be seed 2, epoch 1
    assert not np.array_equal(third, np.concatenate(epochs_of(200, 30, seed=2, first_epoch=1, n=1)[0]))


def test_a_resumed_run_meets_the_users_in_the_order_of_the_uninterrupted_one():
    whole = epochs_of(50, 8, seed=3, n=4)
    resumed = epochs_of(50, 8, seed=3, first_epoch=2, n=2)
    np.testing.assert_array_equal(np.concatenate(whole[2] + whole[3]), np.concatenate(resumed[0] + resumed[1]))


def test_shuffling_reaches_over_all_users():
    # A small shuffle buffer would leave users near their place: |place - number| is n/3 on average by chance.
    order = np.concatenate(epochs_of(3000, 100, seed=4, n=1)[0])
    assert np.abs(order - np.arange(3000)).mean() == pytest.approx(1000, rel=0.05)


@pytest.mark.parametrize("batch_size", [11, 0])
def test_a_batch_larger_than_the_data_or_empty_is_refused(batch_size):
    with pytest.raises(InputError, match=f"batch_size is {batch_size}, .* 10 training users; choose 1 to 10"):
        row_numbers(10, batch_size, seed=0)


def test_values_laid_out_by_the_reference_are_in_the_order_of_the_wire_format():
    x = random_rows()
    np.testing.assert_array_equal(on_the_items(x, rows_of(x).items), x * np.arange(13))
