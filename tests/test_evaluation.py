"""Ranking and evaluation against a dense full sort, and in the cases where rankings go wrong silently."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from scipy.sparse import csr_array

from tfvae.data.splits import HeldOutItems, HeldOutUsers
from tfvae.evaluation.evaluate import evaluate
from tfvae.evaluation.results import Evaluation, compare
from tfvae.evaluation.scoring import scores_at, top_k
from tfvae.evaluation.stats import mean_and_se
from tfvae.evaluation.users import UserEvaluator
from tfvae.models.ease import EASE
from tfvae.system.errors import DivergedError, InputError

METRICS = ("ndcg@10", "recall@5", "recall@10", "hr@10")


class CountingModel(EASE):
    """A linear model with given weights that counts how often it is traced."""

    def __init__(self, weights: np.ndarray):
        super().__init__(len(weights))
        self.item_weights.assign(weights)
        self.traces = 0

    def scores(self, rows):
        self.traces += 1
        return super().scores(rows)


def random_case(seed=0, n_users=57, n_items=40):
    """A model with negative scores and held-out users of whom some lack targets and some have no history."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, size=(n_users, n_items), p=[0.7, 0.2, 0.1])
    kind[rng.random(n_users) < 0.2, :] %= 2
    kind[3] = 0
    kind[4, :] = 2 * (rng.random(n_items) < 0.5)
    fold_in, targets = (csr_array((kind == part).astype(np.float32)) for part in (1, 2))
    weights = rng.normal(-5, 1, size=(n_items, n_items)).astype(np.float32)
    return CountingModel(weights), HeldOutUsers(fold_in, targets, np.arange(100, 100 + n_users))


def full_sort_metrics(model, held_out, user):
    """Recall@5, recall@10, NDCG@10 and HR@10 of one user from a dense score row and a full sort."""
    row = held_out.history[[user]].toarray()[0]
    target = held_out.targets[[user]].toarray()[0] > 0
    scores = np.where(row > 0, -np.inf, row @ model.item_weights.numpy())
    order = np.lexsort((np.arange(len(scores)), -scores))
    found = (target & (row == 0))[order]
    discounts = 1 / np.log2(np.arange(2, len(row) + 2))
    ideal = discounts[: min(10, target.sum())].sum()
    return {
        "recall@5": found[:5].sum() / min(5, target.sum()),
        "recall@10": found[:10].sum() / min(10, target.sum()),
        "ndcg@10": (found[:10] * discounts[:10]).sum() / ideal,
        "hr@10": float(found[:10].any()),
    }


@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_a_dense_full_sort(seed):
    model, held_out = random_case(seed)
    result = evaluate(model, held_out, METRICS, batch_size=10)
    with_targets = np.flatnonzero(np.diff(held_out.targets.indptr))
    assert result.n_users == len(with_targets) < 57
    assert result.n_without_targets == 57 - len(with_targets)
    np.testing.assert_array_equal(result.user_ids, 100 + with_targets)
    for position, user in enumerate(with_targets):
        for metric, value in full_sort_metrics(model, held_out, user).items():
            assert result.per_user[metric][position] == pytest.approx(value, rel=1e-12), (user, metric)


@pytest.mark.parametrize("batch_size", [1, 7, 57, 500])
def test_the_batch_size_changes_no_result(batch_size):
    model, held_out = random_case()
    expected = evaluate(model, held_out, METRICS, batch_size=20)
    found = evaluate(model, held_out, METRICS, batch_size=batch_size)
    for metric in METRICS:
        np.testing.assert_array_equal(found.per_user[metric], expected.per_user[metric])


def test_the_graph_is_traced_once_whatever_the_batches_and_the_weights():
    model, held_out = random_case()
    evaluator = UserEvaluator(model, held_out, METRICS, batch_size=10)
    before = evaluator()
    model.item_weights.assign(-model.item_weights.numpy())
    after = evaluator()
    assert model.traces == 1
    assert before.mean("ndcg@10") != after.mean("ndcg@10")


def test_no_seen_item_is_ever_returned_though_all_scores_are_negative():
    model, held_out = random_case()
    items, scores = top_k(model, held_out.history, k=40)
    assert scores[np.isfinite(scores)].max() <= 0
    for user, row in enumerate(held_out.history.toarray()):
        ranked = items[user][items[user] >= 0]
        np.testing.assert_array_equal(np.sort(ranked), np.flatnonzero(row == 0))
        assert np.all(np.diff(scores[user][: len(ranked)]) <= 0)


def test_ranks_beyond_the_unseen_items_are_empty():
    model = CountingModel(np.zeros((4, 4), np.float32))
    histories = csr_array(np.array([[1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]], np.float32))
    items, scores = top_k(model, histories, k=6)
    np.testing.assert_array_equal(items, [[1, 3, -1, -1, -1, -1], [-1] * 6, [0, 1, 2, 3, -1, -1]])
    np.testing.assert_array_equal(np.isneginf(scores), items == -1)
    assert items.dtype == np.int32 and scores.dtype == np.float32


def test_a_catalogue_smaller_than_k_is_evaluated():
    model = CountingModel(np.zeros((4, 4), np.float32))
    fold_in = csr_array(np.array([[1, 0, 0, 0], [0, 0, 0, 0]], np.float32))
    targets = csr_array(np.array([[0, 0, 0, 1], [1, 0, 0, 0]], np.float32))
    result = evaluate(model, HeldOutUsers(fold_in, targets, np.arange(2)))
    np.testing.assert_allclose(result.per_user["ndcg@100"], [1 / np.log2(4), 1])
    np.testing.assert_array_equal(result.per_user["recall@20"], [1, 1])


def test_equal_scores_are_ranked_by_item_number():
    model = CountingModel(np.zeros((50, 50), np.float32))
    items, _ = top_k(model, csr_array(np.eye(1, 50, dtype=np.float32)), k=5)
    np.testing.assert_array_equal(items, [[1, 2, 3, 4, 5]])


@pytest.mark.slow
@budget(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 56), min_size=1), st.integers(1, 70))
def test_chosen_users_have_the_rankings_they_have_among_all(users, batch_size):
    model, held_out = random_case()
    everybody = top_k(model, held_out.history, k=7)
    for found, among_all in zip(top_k(model, held_out.history, 7, batch_size, users), everybody, strict=True):
        np.testing.assert_array_equal(found, among_all[users])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_no_numbers_are_refused(value):
    model, held_out = random_case()
    weights = model.item_weights.numpy()
    user = 20
    seen = held_out.history[[user]].indices[0]
    weights[seen, 0] = value
    model.item_weights.assign(weights)
    with pytest.raises(DivergedError, match="NaN or infinite"):
        evaluate(model, held_out, METRICS, batch_size=10)
    with pytest.raises(DivergedError, match="1 of 1 users .first: row 0."):
        top_k(model, held_out.history[[user]], k=5)


def test_inputs_that_do_not_fit_are_refused():
    model, held_out = random_case()
    other = HeldOutUsers(csr_array((3, 41)), csr_array(np.eye(3, 41)), np.arange(3))
    with pytest.raises(InputError, match="scores 40 items, but the histories have 41"):
        evaluate(model, other)
    nobody = HeldOutUsers(csr_array((3, 40)), csr_array((3, 40)), np.arange(3))
    with pytest.raises(InputError, match="none of the 3 held-out users"):
        evaluate(model, nobody)
    with pytest.raises(InputError, match="user numbers from 0 to 56, found 3 to 57"):
        top_k(model, held_out.history, users=[3, 57])
    with pytest.raises(InputError, match="batch_size is 0"):
        evaluate(model, held_out, batch_size=0)


def test_summary_and_mean_are_those_of_the_users():
    values = np.random.default_rng(0).random(200)
    result = Evaluation({"ndcg@100": values}, np.arange(200), 3)
    mean, se = mean_and_se(values)
    summary = result.summary()
    assert result.mean("ndcg@100") == mean
    assert list(summary) == ["ndcg@100"]
    assert (summary["ndcg@100"]["mean"], summary["ndcg@100"]["se"]) == (mean, se)
    assert mean - 3 * se < summary["ndcg@100"]["low"] < mean < summary["ndcg@100"]["high"] < mean + 3 * se
    with pytest.raises(InputError, match="did you mean 'ndcg@100'"):
        result.mean("ndcg@10")


def test_compare_pairs_users():
    values = np.random.default_rng(0).random(30)
    better = Evaluation({"hr@10": values + 0.1 + 1e-3 * values}, np.arange(30))
    worse = Evaluation({"hr@10": values}, np.arange(30))
    test = compare(better, worse, "hr@10")
    assert test.difference == pytest.approx(0.1 + 1e-3 * values.mean())
    assert test.p_value < 1e-6
    with pytest.raises(InputError, match="same users"):
        compare(better, Evaluation({"hr@10": values}, np.arange(1, 31)), "hr@10")
    with pytest.raises(InputError, match="unknown metric of this evaluation"):
        compare(better, worse, "ndcg@10")


def test_scores_at_gives_each_pair_its_score_in_any_order():
    model, held_out = random_case()
    dense = held_out.history.toarray() @ model.item_weights.numpy()
    rng = np.random.default_rng(1)
    users, items = rng.integers(0, 57, 300), rng.integers(0, 40, 300)
    users[users == 11] = 12
    found = scores_at(model, held_out.history, users, items, batch_size=1)
    np.testing.assert_allclose(found, dense[users, items], rtol=1e-5)
    np.testing.assert_array_equal(scores_at(model, held_out.history, users, items, batch_size=25), found)
    assert model.traces == 2
    with pytest.raises(InputError, match="item numbers from 0 to 39"):
        scores_at(model, held_out.history, [0], [40])
    with pytest.raises(InputError, match="user numbers from 0 to 56"):
        scores_at(model, held_out.history, [-1], [0])


CANDIDATES = HeldOutItems(  # 3 users, 200 items, 99 negatives each
    csr_array(np.eye(3, 200, dtype=np.float32)),
    np.array([100, 150, 199], dtype=np.int32),
    np.tile(np.arange(80, 179, dtype=np.int32), (3, 1)),
    np.array(["a", "b", "c"]),
)


def test_leave_one_out_of_a_constant_scorer_is_zero():
    constant = CountingModel(np.ones((200, 200), np.float32))
    result = evaluate(constant, CANDIDATES)
    assert result.mean("hr@10") == result.mean("ndcg@10") == 0


def test_leave_one_out_of_a_perfect_scorer_is_one_and_of_a_given_rank_as_worked_by_hand():
    weights = np.zeros((200, 200), np.float32)
    weights[np.arange(3), CANDIDATES.items] = 1
    perfect = evaluate(CountingModel(weights), CANDIDATES)
    assert perfect.mean("hr@10") == perfect.mean("ndcg@10") == 1
    weights[2, [80, 90]] = 2
    third = evaluate(CountingModel(weights), CANDIDATES, batch_size=2)
    np.testing.assert_allclose(third.per_user["ndcg@10"], [1, 1, 0.5])
    np.testing.assert_array_equal(third.per_user["hr@10"], [1, 1, 1])
