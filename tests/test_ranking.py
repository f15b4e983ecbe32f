"""Ranking in the graph against the metrics in NumPy, a plain loop, and the cases in which a hit is invented."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from scipy.sparse import csr_array

from tfvae.evaluation.metrics import hits, ndcg
from tfvae.nn.batches import RowStore, SparseBatch
from tfvae.nn.ranking import EMPTY_RANK, LEAST_IDEAL, best_unseen, ndcg_of_unseen

N_USERS, N_ITEMS = 23, 17


def rows_of(x) -> SparseBatch:
    """All rows of a dense matrix in the wire format."""
    return RowStore(csr_array(np.asarray(x, np.float32))).gather(tf.range(len(x)))


def random_case(seed, with_ties=False):
    """Scores, owned items and those of them that are shown; users 0 to 2 own nothing, see nothing, see all."""
    rng = np.random.default_rng(seed)
    owned = rng.random((N_USERS, N_ITEMS)) < rng.uniform(0.1, 0.9, (N_USERS, 1))
    shown = owned & (rng.random(owned.shape) < rng.uniform(0, 1, (N_USERS, 1)))
    owned[0], shown[0] = False, False
    shown[1] = False
    owned[2] = shown[2] = rng.random(N_ITEMS) < 0.5
    owned[2, 3] = shown[2, 3] = True
    scores = rng.normal(size=owned.shape).astype(np.float32)
    return (np.round(scores) if with_ties else scores), owned, shown


def found(scores, owned, shown, k):
    """The library's values; the mask is laid on the stored items."""
    values = ndcg_of_unseen(tf.constant(scores, tf.float32), rows_of(owned), tf.constant(shown[owned]), k)
    assert values.dtype == tf.float32
    return values.numpy()


def by_hand(scores, owned, shown, k):
    """One user after the other, in plain Python."""
    values = []
    for user in range(len(scores)):
        candidates = [item for item in range(scores.shape[1]) if not shown[user, item]]
        ranking = sorted(candidates, key=lambda item: (-scores[user, item], item))[:k]
        wanted = {item for item in candidates if owned[user, item]}
        gain = sum(1 / math.log2(rank + 1) for rank, item in enumerate(ranking, start=1) if item in wanted)
        ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(wanted)) + 1))
        values.append(gain / ideal if wanted else 0.0)
    return values


@pytest.mark.parametrize("k", [1, 3, 10, N_ITEMS, N_ITEMS + 1, 100])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_metric_of_numpy_on_the_withheld_items(seed, k):
    scores, owned, shown = random_case(seed)
    withheld = owned & ~shown
    masked = np.where(shown, -np.inf, scores)
    ranked = np.argsort(-masked, axis=1, kind="stable")
    ranked = np.where(np.take_along_axis(shown, ranked, axis=1), -1, ranked)
    ranked = np.pad(ranked, [(0, 0), (0, max(k - N_ITEMS, 0))], constant_values=-1)[:, :k]
    some = withheld.any(axis=1)
    found_by_numpy = hits(ranked, csr_array(withheld.astype(np.float32)))[some]
    expected = ndcg(found_by_numpy, withheld.sum(axis=1)[some], k)
    values = found(scores, owned, shown, k)
    np.testing.assert_allclose(values[some], expected, rtol=1e-5, atol=1e-7)
    assert 1 < some.sum() < N_USERS - 1 and np.ptp(expected) > 0.5


@pytest.mark.parametrize("with_ties", [False, True], ids=["distinct", "tied"])
@pytest.mark.parametrize("k", [1, 4, 30])
def test_it_is_what_a_plain_loop_finds_and_ties_go_by_item_number(k, with_ties):
    for seed in range(3, 6):
        case = random_case(seed, with_ties)
        np.testing.assert_allclose(found(*case, k), by_hand(*case, k), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("shift", [0.0, -1000.0], ids=["mixed", "all negative"])
def test_shown_items_take_no_rank_though_they_score_highest(shift):
    scores, owned, shown = random_case(1)
    expected = by_hand(scores, owned, shown, 5)
    scores = np.where(shown, np.float32(500), scores) + np.float32(shift)
    assert (scores.max() < 0) == bool(shift)
    np.testing.assert_allclose(found(scores, owned, shown, 5), by_hand(scores, owned, shown, 5), rtol=1e-5)
    if not shift:  # so far from 0 some scores would be rounded to ties
        np.testing.assert_allclose(found(scores, owned, shown, 5), expected, rtol=1e-5)
    # The same scores without the mask are another ranking, so that a mask that is ignored would be seen.
    assert np.abs(found(scores, owned, np.zeros_like(shown), 5) - expected).max() > 0.5


def test_a_user_who_was_shown_everything_has_nothing_to_be_found():
    # The empty ranks of user 1 would be the last item of user 0, were they not empty, and that one is withheld.
    owned = np.array([[0, 0, 0, 1], [1, 1, 1, 1], [1, 1, 0, 0]], bool)
    shown = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]], bool)
    for k in (1, 4, 9):
        values = found(np.zeros((3, 4)), owned, shown, k)
        assert values[1] == values[2] == 0
        assert values[0] == pytest.approx(1 / math.log2(5) if k >= 4 else 0)


def test_a_user_without_items_has_zero():
    owned = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]], bool)
    np.testing.assert_array_equal(found(np.eye(3), owned, np.zeros_like(owned), 2), [0, 1, 0])


def test_no_items_at_all_and_no_users_at_all_are_no_error():
    nothing = np.zeros((2, 5), bool)
    np.testing.assert_array_equal(found(np.ones((2, 5)), nothing, nothing, 3), [0, 0])
    assert found(np.ones((0, 5)), nothing[:0], nothing[:0], 3).shape == (0,)


@pytest.mark.parametrize("k", [1, 2, 5, 40])
def test_a_perfect_ranking_has_one_and_the_worst_has_zero(k):
    owned = np.zeros((2, 30), bool)
    owned[0, [3, 7, 21]] = owned[1, 10:26] = True
    shown = owned & (np.arange(30) % 7 == 0)
    withheld = (owned & ~shown).astype(np.float32)
    np.testing.assert_allclose(found(withheld, owned, shown, k), 1, rtol=1e-6)
    worst = found(-withheld, owned, shown, k)
    assert worst[0] < 0.4 and (worst[0] == 0) == (k < 40)


def test_the_values_are_those_of_the_formula_at_hand_worked_ranks():
    # Of items 0 to 4, 0 is shown; the others rank 3, 1, 4, 2; 1 and 4 are withheld: hits at ranks 2 and 4.
    scores, owned, shown = (np.array([row]) for row in ([9, 3.0, 1, 4, 0], [1, 1, 0, 0, 1], [1, 0, 0, 0, 0]))
    scores[0, [1, 2, 3, 4]] = 3, 2, 4, 1
    gain = 1 / math.log2(3) + 1 / math.log2(5)
    assert found(scores, owned > 0, shown > 0, 4)[0] == pytest.approx(gain / (1 + 1 / math.log2(3)))
    assert found(scores, owned > 0, shown > 0, 3)[0] == pytest.approx(1 / math.log2(3) / (1 + 1 / math.log2(3)))
    assert found(scores, owned > 0, shown > 0, 1)[0] == 0


def test_permuting_users_permutes_the_values():
    scores, owned, shown = random_case(7)
    order = np.random.default_rng(0).permutation(N_USERS)
    expected = found(scores, owned, shown, 6)[order]
    np.testing.assert_array_equal(found(scores[order], owned[order], shown[order], 6), expected)


def test_the_order_of_the_items_within_a_row_does_not_matter():
    scores, owned, shown = random_case(8)
    rows = rows_of(owned)
    keys = np.random.default_rng(1).random(len(rows.items))
    order = np.lexsort((keys, rows.segment_ids))  # still user by user
    assert (order != np.arange(len(order))).any()
    mixed = rows._replace(items=tf.gather(rows.items, order))
    values = ndcg_of_unseen(scores, mixed, tf.constant(shown[owned][order]), 6)
    np.testing.assert_array_equal(values, found(scores, owned, shown, 6))


@pytest.mark.slow
def test_one_trace_serves_batches_and_catalogues_of_any_size():
    traces = []

    @tf.function(reduce_retracing=True)
    def compiled(scores, items, segment_ids, counts, seen):
        traces.append(scores.shape)
        return ndcg_of_unseen(scores, SparseBatch(items, segment_ids, counts), seen, 6)

    signature = [tf.TensorSpec([None, None]), *[tf.TensorSpec([None], tf.int32)] * 2, tf.TensorSpec([None])]
    traced = compiled.get_concrete_function(*signature, tf.TensorSpec([None], tf.bool))
    scores, owned, shown = random_case(9)
    for n_users, n_items in ((0, 17), (1, 17), (5, 4), (23, 17)):
        part = scores[:n_users, :n_items], owned[:n_users, :n_items], shown[:n_users, :n_items]
        rows = rows_of(part[1])
        values = traced(tf.constant(part[0]), rows.items, rows.segment_ids, rows.lengths, tf.constant(part[2][part[1]]))
        assert values.shape == (n_users,)
        np.testing.assert_allclose(values, by_hand(*part, 6), rtol=1e-5, atol=1e-7)
    assert len(traces) == 1


def test_the_floor_of_the_ideal_touches_only_users_with_nothing_withheld(monkeypatch):
    scores, owned, shown = random_case(10)
    expected = found(scores, owned, shown, 50)
    # The least ideal of any other user is that of one item, which is 1.
    monkeypatch.setattr("tfvae.nn.ranking.LEAST_IDEAL", 1.0)
    np.testing.assert_array_equal(found(scores, owned, shown, 50), expected)
    monkeypatch.setattr("tfvae.nn.ranking.LEAST_IDEAL", 1.5)
    fewer = np.flatnonzero(found(scores, owned, shown, 50) != expected)
    np.testing.assert_array_equal(fewer, np.flatnonzero((owned & ~shown).sum(axis=1) == 1))
    assert 0 < LEAST_IDEAL <= 1 and len(fewer)


def test_it_has_no_gradient():
    scores, owned, shown = random_case(11)
    scores = tf.constant(scores)
    with tf.GradientTape() as tape:
        tape.watch(scores)
        values = ndcg_of_unseen(scores, rows_of(owned), tf.constant(shown[owned]), 5)
    assert tape.gradient(values, scores) is None


# ---- best_unseen ------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 4, N_ITEMS, 30])
@pytest.mark.parametrize("seed", range(2))
def test_the_best_unseen_are_a_full_sort_without_the_history(seed, k):
    scores, owned, _ = random_case(seed, with_ties=True)
    scores -= 50  # a seen item that was set to 0 would come first
    items, best = best_unseen(tf.constant(scores), rows_of(owned), k)
    assert items.shape == best.shape == (N_USERS, k)
    assert (items.dtype, best.dtype) == (tf.int32, tf.float32)
    for user in range(N_USERS):
        candidates = [item for item in range(N_ITEMS) if not owned[user, item]]
        ranking = sorted(candidates, key=lambda item: (-scores[user, item], item))[:k]
        empty = k - len(ranking)
        np.testing.assert_array_equal(items[user], ranking + [EMPTY_RANK] * empty)
        np.testing.assert_array_equal(best[user], [*scores[user, ranking], *[-np.inf] * empty])


def test_the_length_of_the_ranking_may_be_a_tensor():
    scores, owned, _ = random_case(0)
    rows = rows_of(owned)
    compiled = tf.function(lambda k: best_unseen(scores, rows, k), input_signature=[tf.TensorSpec([], tf.int32)])
    for k in (0, 2, 20):
        for one, other in zip(compiled(k), best_unseen(scores, rows, k), strict=True):
            assert other.shape == (N_USERS, k)
            np.testing.assert_array_equal(one, other)


def test_who_has_seen_everything_gets_empty_ranks_only():
    items, best = best_unseen(tf.zeros([2, 3]), rows_of([[1, 1, 1], [0, 0, 0]]), 4)
    np.testing.assert_array_equal(items, [[-1] * 4, [0, 1, 2, -1]])
    np.testing.assert_array_equal(best, [[-np.inf] * 4, [0, 0, 0, -np.inf]])
