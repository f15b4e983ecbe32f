"""The wire format against dense rows, and the order of users over epochs."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from dense_reference import on_the_items, random_rows, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.sparse import coo_matrix, csc_array, csr_array

from tfvae.evaluation.scoring import top_k
from tfvae.models.autorec import AutoRec
from tfvae.models.ease import EASE
from tfvae.models.ncf import GMF
from tfvae.nn.batches import PairStore, RowStore, as_batch, as_matrix, row_numbers, steps_per_epoch, unpad
from tfvae.system.errors import InputError


def dense(rows, n_items, flat=None) -> np.ndarray:
    x = np.zeros((len(rows.lengths), n_items), np.float32)
    np.add.at(x, (rows.segment_ids.numpy(), rows.items.numpy()), 1 if flat is None else flat)
    return x


@pytest.mark.parametrize("users", [range(7), [6, 2, 2, 0, 5], [2, 5], [4], []], ids=str)
def test_gathered_rows_are_those_of_the_matrix(users):
    x = random_rows()
    batch = RowStore(csr_array(x)).gather(tf.constant(list(users), tf.int64))
    np.testing.assert_array_equal(dense(batch, 13), x[list(users)])
    np.testing.assert_array_equal(batch.lengths, x[list(users)].sum(axis=1))
    assert (np.diff(batch.segment_ids) >= 0).all()
    assert (batch.items.dtype, batch.segment_ids.dtype, batch.lengths.dtype) == (tf.int32, tf.int32, tf.float32)
    assert batch.values is None


@pytest.mark.parametrize("kind", [RowStore, PairStore])
def test_a_matrix_lies_in_the_host_s_memory_wherever_the_step_runs(kind):
    with tf.device("CPU:1"):  # it stands for a GPU
        store = kind(csr_array(random_rows()))
        tensors = [part for part in tf.nest.flatten(vars(store), expand_composites=True) if tf.is_tensor(part)]
        gathered = store.gather(tf.constant([0, 1], tf.int64))
    assert len(tensors) > 1
    for tensor in [*tensors, gathered.items, gathered.segment_ids, gathered.lengths]:
        assert tf.DeviceSpec.from_string(tensor.device).device_index == 0


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


# ---- histories as people have them -----------------------------------------------------------------

BINARY = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.sampled_from([0.0, 1.0]))
FEW = settings(max_examples=40, deadline=None)


def assert_equal_batches(one, other):
    for name in ("items", "segment_ids", "lengths"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


@pytest.mark.slow
@FEW
@given(BINARY)
def test_any_binary_rows_are_one_batch_whatever_they_come_as(x):
    expected = RowStore(csr_array(x)).gather(tf.range(len(x), dtype=tf.int64))
    for given_as in (
        x,
        x.tolist(),
        x.astype(bool),
        x.astype(int),
        tf.constant(x),
        csr_array(x),
        csc_array(x),
        coo_matrix(x),
    ):
        found = as_batch(given_as, x.shape[1])
        assert_equal_batches(found, expected)
        assert found.values is None and found.users is None
    assert as_batch(expected, x.shape[1]) is expected


@FEW
@given(
    arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.sampled_from([0.0, 0.5, 3.0, 5.0]))
)
def test_any_ratings_keep_their_values(x):
    for given_as in (x, csr_array(x), csc_array(x)):
        batch = as_batch(given_as, x.shape[1], ratings=True)
        np.testing.assert_array_equal(dense(batch, x.shape[1], batch.values.numpy()), x)


def test_a_stored_zero_is_a_rating_of_zero_but_no_item_that_a_user_has():
    stored = csr_array((np.float32([0, 2]), ([0, 0], [1, 2])), shape=(1, 4))
    assert as_batch(stored, 4, ratings=True).items.numpy().tolist() == [1, 2]
    stored.data[1] = 1
    assert as_batch(stored, 4).items.numpy().tolist() == [2]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 5)), r"shape \[n, 4\]; found 5 columns"),
        (csr_array((2, 3)), "found 3 columns"),
        (np.zeros(4), r"found shape \[4\]. One user is a row of its own"),
        (np.full((1, 4), 5.0), "of zeros and ones, which items a user has; found 5"),
        (np.full((1, 4), -1.0), "found -1"),
        (np.full((1, 4), np.nan), "found NaN or infinity"),
        ("rows", "or a SparseBatch; found str"),
        ({"items": [1]}, "found dict"),
        ([[1, 0, 1, 0], [1]], "found list"),
    ],
)
def test_anything_else_gets_the_one_clear_error(x, message):
    model = EASE(4, regularization=1.0)
    for door in (model, model.predict, lambda x: as_batch(x, 4)):
        with pytest.raises(InputError, match=message):
            door(x)


def test_what_is_given_is_not_changed():
    stored = csr_array((np.float64([0, 1]), ([0, 0], [2, 1])), shape=(1, 3))
    before = stored.data.tolist(), stored.indices.tolist(), stored.dtype
    as_matrix(stored, 3, ratings=False)
    assert (stored.data.tolist(), stored.indices.tolist(), stored.dtype) == before


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 3, 500])
def test_call_and_predict_are_the_scores(batch_size):
    x = random_rows()
    ranker, rater = EASE(13, regularization=1.0), AutoRec(13, units=4)
    ranker.fit_matrix(csr_array(x), log=[].append)
    for model in (ranker, rater):
        scores = model.scores(as_batch(x, 13, ratings=model.predicts_ratings))
        np.testing.assert_array_equal(model(x), scores)
        np.testing.assert_array_equal(model(csr_array(x)), scores)
        found = model.predict(csr_array(x), batch_size=batch_size, verbose=0)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, scores, rtol=1e-5, atol=1e-6)
        assert model.predict(np.zeros((0, 13))).shape == (0, 13)


def test_a_model_of_its_training_users_says_so():
    model = GMF(13, 7, factors=2)
    for door in (model, model.predict):
        with pytest.raises(InputError, match="^GMF only scores the users it was trained on.*recommend --user"):
            door(random_rows())
    of_training = RowStore(csr_array(random_rows())).gather(tf.range(7, dtype=tf.int64))
    assert model(of_training).shape == (7, 13)
    with pytest.raises(InputError, match="GMF was made for 7 users, the histories have 8 rows"):
        top_k(model, np.zeros((8, 13)), k=2)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "all"])
def test_a_batch_has_at_least_one_row(batch_size):
    with pytest.raises(InputError, match="batch_size is .*; expected a whole number of at least 1"):
        EASE(13, regularization=1.0).predict(random_rows(), batch_size=batch_size)


def test_predict_and_top_k_take_the_wire_format():
    x, model = random_rows(), EASE(13, regularization=1.0)
    model.fit_matrix(csr_array(x), log=[].append)
    batch = RowStore(csr_array(x)).gather(tf.constant([3, 0], tf.int64))
    np.testing.assert_allclose(model.predict(batch), model.predict(x[[3, 0]]), rtol=1e-6)
    np.testing.assert_array_equal(top_k(model, batch, k=2)[0], top_k(model, x[[3, 0]], k=2)[0])
    ratings = AutoRec(13, units=4)
    rated = RowStore(csr_array(3 * x), with_values=True).gather(tf.range(7, dtype=tf.int64))
    np.testing.assert_allclose(ratings.predict(rated), ratings.predict(3 * x), rtol=1e-5)
    with pytest.raises(InputError, match="AutoRec|ratings"):
        ratings.predict(batch)


def test_a_wire_format_of_other_items_is_refused():
    batch = as_batch(np.eye(20, dtype=np.float32), 20)
    model = EASE(13, regularization=1.0)
    for door in (model, model.predict, lambda x: top_k(model, x, k=1)):
        with pytest.raises(InputError, match="of items 0 to 12; found item 13"):
            door(batch)


# ---- any input -------------------------------------------------------------------------------------


@FEW
@given(BINARY, st.data())
def test_any_padding_of_any_rows_is_these_rows(x, data):
    histories = [np.flatnonzero(row).tolist() for row in x]
    width = max(map(len, histories)) + data.draw(st.integers(0, 3))
    padded = np.full((len(x), width), -1)
    for row, history in zip(padded, histories, strict=True):
        places = data.draw(st.permutations(range(width)))[: len(history)]
        row[sorted(places)] = history
    assert_equal_batches(unpad(tf.constant(padded, tf.int32)), as_batch(x, x.shape[1]))


@FEW
@given(BINARY, st.data())
def test_any_rows_are_gathered_in_any_order(x, data):
    users = data.draw(st.lists(st.integers(0, len(x) - 1), max_size=9))
    batch = RowStore(csr_array(x)).gather(tf.constant(users, tf.int64))
    np.testing.assert_array_equal(dense(batch, x.shape[1]), x[users])
    assert batch.users.numpy().tolist() == users


@FEW
@given(BINARY, st.floats(0, 1, exclude_max=True, width=32))
def test_an_unseen_item_is_one_that_the_user_does_not_have(x, uniform):
    users = tf.range(len(x), dtype=tf.int64)
    items, found = PairStore(csr_array(x)).unseen(users, tf.fill([len(x)], uniform))
    np.testing.assert_array_equal(found, x.min(axis=1) == 0)
    for user, item in enumerate(items.numpy()):
        assert x[user, item] == (0 if found[user] else 1)
