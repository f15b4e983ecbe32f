"""Metrics against hand-worked numbers, a full-sort reference and invariances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from tfvae.evaluation.metrics import (
    hit_rate,
    hits,
    leave_one_out_ranks,
    ndcg,
    parse_metric,
    recall,
    rmse,
)
from tfvae.system.errors import InputError


def csr(rows: list[list[int]], n_items: int) -> csr_array:
    indptr = np.cumsum([0] + [len(row) for row in rows])
    indices = np.array([item for row in rows for item in row], dtype=np.int32)
    return csr_array((np.ones(len(indices), np.float32), indices, indptr), shape=(len(rows), n_items))


def full_sort(scores, fold_in, targets, k):
    """Recall, NDCG and HR of one user by the definition: sort every unseen item, walk the ranks."""
    unseen = [item for item in range(len(scores)) if item not in fold_in]
    ranked = sorted(unseen, key=lambda item: (-scores[item], item))[:k]
    found = [item in targets for item in ranked]
    gain = sum(1 / np.log2(rank + 1) for rank, hit in enumerate(found, start=1) if hit)
    ideal = sum(1 / np.log2(rank + 1) for rank in range(1, min(k, len(targets)) + 1))
    return sum(found) / min(k, len(targets)), gain / ideal, float(any(found))


def test_ndcg_of_hits_at_ranks_one_and_three_of_two_targets():
    found = np.array([[True, False, True, False]])
    assert ndcg(found, [2], 4) == pytest.approx(1.5 / (1 + 1 / np.log2(3)))
    assert ndcg(found, [2], 4) == pytest.approx(0.9197, abs=5e-5)
    assert recall(found, [2], 4) == 1
    assert recall(found, [2], 2) == 0.5


def test_a_perfect_ranking_of_fifty_targets_has_recall_at_20_of_one():
    found = np.ones((1, 20), bool)
    assert recall(found, [50], 20) == 1
    assert ndcg(found, [50], 20) == pytest.approx(1)


def test_hit_rate_looks_at_the_first_k_only():
    found = np.array([[False, False, True], [False, True, False], [False, False, False]])
    np.testing.assert_array_equal(hit_rate(found, [1, 1, 1], 2), [0, 1, 0])


def test_ndcg_of_a_single_target_is_the_inverse_log_of_its_rank():
    found = np.eye(10, dtype=bool)
    np.testing.assert_allclose(ndcg(found, np.ones(10), 10), np.log(2) / np.log(np.arange(1, 11) + 1))


def test_hits_are_the_ranked_items_among_the_users_own_targets():
    targets = csr([[2, 0], [], [4]], n_items=5)
    items = np.array([[0, 4, 2], [0, 1, 4], [3, -1, 4]], dtype=np.int32)
    expected = [[True, False, True], [False, False, False], [False, False, True]]
    np.testing.assert_array_equal(hits(items, targets), expected)


def test_an_empty_rank_never_hits_the_previous_users_last_item():
    targets = csr([[4], [0]], n_items=5)
    assert not hits(np.array([[-1, -1], [-1, -1]]), targets).any()


def test_hits_without_any_target():
    assert not hits(np.array([[0, 1]]), csr([[]], n_items=3)).any()


def test_hits_refuse_rankings_of_other_users_or_items():
    with pytest.raises(InputError, match="2 users"):
        hits(np.array([[0, 1]]), csr([[0], [1]], n_items=3))
    with pytest.raises(InputError, match="3 items"):
        hits(np.array([[0, 3]]), csr([[0]], n_items=3))


def test_users_without_targets_and_short_rankings_are_refused():
    with pytest.raises(InputError, match="1 users have no held-out item"):
        ndcg(np.zeros((2, 5), bool), np.array([1, 0]), 5)
    with pytest.raises(InputError, match="ranking of 5"):
        recall(np.zeros((1, 5), bool), np.array([1]), 6)


@given(st.data())
def test_metrics_equal_a_full_sort(data):
    n_items = data.draw(st.integers(3, 12), label="n_items")
    scores = np.array(data.draw(st.permutations(range(n_items))), float) - n_items
    kinds = data.draw(st.lists(st.sampled_from("ft."), min_size=n_items, max_size=n_items))
    fold_in = [item for item in range(n_items) if kinds[item] == "f"]
    targets = [item for item in range(n_items) if kinds[item] == "t"] or [0]
    fold_in = [item for item in fold_in if item not in targets]
    k = data.draw(st.integers(1, n_items))

    masked = scores.copy()
    masked[fold_in] = -np.inf
    ranked = np.argsort(-masked)[:k]
    ranked[np.isneginf(masked[ranked])] = -1
    found = hits(ranked[None], csr([targets], n_items))
    n_targets = np.array([len(targets)])
    ours = [metric(found, n_targets, k)[0] for metric in (recall, ndcg, hit_rate)]
    np.testing.assert_allclose(ours, full_sort(scores, fold_in, targets, k), rtol=1e-12)


@given(st.integers(0, 2**32 - 1))
def test_metrics_do_not_depend_on_the_names_of_items_or_the_order_of_users(seed):
    rng = np.random.default_rng(seed)
    n_users, n_items, k = 6, 15, 5
    items = np.argsort(rng.random((n_users, n_items)), axis=1)[:, :k]
    rows = [list(np.flatnonzero(row)) or [0] for row in rng.random((n_users, n_items)) < 0.3]
    n_targets = np.array([len(row) for row in rows])
    rename, order = rng.permutation(n_items), rng.permutation(n_users)
    renamed = csr([list(rename[rows[user]]) for user in order], n_items)
    before, after = hits(items, csr(rows, n_items)), hits(rename[items[order]], renamed)
    for metric in (recall, ndcg, hit_rate):
        np.testing.assert_array_equal(metric(before, n_targets, k)[order], metric(after, n_targets[order], k))


def test_parse_metric_finds_the_function_and_the_cut_off():
    assert parse_metric("ndcg@100") == (ndcg, 100)
    assert parse_metric("recall@20") == (recall, 20)
    assert parse_metric("hr@10") == (hit_rate, 10)


@pytest.mark.parametrize("name", ["ndcg", "ndcg@", "ndcg@0", "ndcg@-1", "@10", "NDCG@10", "ndcg@10 "])
def test_parse_metric_refuses_another_form(name):
    with pytest.raises(InputError, match="such as 'ndcg@100'"):
        parse_metric(name)


def test_parse_metric_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'recall'"):
        parse_metric("recal@20")


def loo_metrics(ranks):
    found = ranks[:, None] == np.arange(1, 11)
    return hit_rate(found, np.ones(len(ranks)), 10).mean(), ndcg(found, np.ones(len(ranks)), 10).mean()


def test_a_constant_scorer_has_hit_rate_zero():
    negatives = np.arange(1, 100)[None]
    ranks = leave_one_out_ranks(np.zeros(1), np.zeros((1, 99)), np.array([0]), negatives)
    np.testing.assert_array_equal(ranks, [100])
    assert loo_metrics(ranks) == (0, 0)


def test_a_perfect_scorer_is_first_though_its_item_is_among_the_negatives():
    true_items = np.array([7, 7])
    negatives = np.stack([np.arange(99), np.arange(100, 199)])
    scores = (negatives == 7).astype(float)
    ranks = leave_one_out_ranks(np.ones(2), scores, true_items, negatives)
    np.testing.assert_array_equal(ranks, [1, 1])
    assert loo_metrics(ranks) == (1, 1)


def test_a_repeated_negative_counts_once():
    negatives = np.array([[3, 5, 3, 4, 3]])
    scores = np.array([[2.0, 0.0, 2.0, 3.0, 2.0]])
    np.testing.assert_array_equal(leave_one_out_ranks(np.array([1.0]), scores, np.array([9]), negatives), [3])


@given(st.integers(0, 2**32 - 1))
def test_leave_one_out_ranks_equal_a_dictionary_with_the_true_item_last(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, size=30).astype(float)
    negatives, true_item = rng.integers(0, 29, size=12), 29
    candidates = {item: scores[item] for item in [*negatives, true_item]}
    ranked = sorted(candidates, key=candidates.get, reverse=True)
    ranks = leave_one_out_ranks(scores[[true_item]], scores[negatives][None], np.array([true_item]), negatives[None])
    assert ranks[0] == ranked.index(true_item) + 1


def test_rmse_needs_one_prediction_per_rating():
    with pytest.raises(InputError, match="found 2 and 1"):
        rmse(np.zeros(2), np.zeros(1))
    with pytest.raises(InputError, match="found 0 and 0"):
        rmse(np.zeros(0), np.zeros(0))
