"""Predicted ratings against numbers worked out by hand, and what must not reach a prediction."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from rating_rows import ratings_at
from scipy.sparse import csr_array

from tfvae.data.splits import HeldOutItems, HeldOutRatings, HeldOutUsers
from tfvae.evaluation.evaluate import default_metrics, evaluate, evaluator
from tfvae.evaluation.items import ItemEvaluator
from tfvae.evaluation.metrics import RATING_METRICS, check_metric, lower_is_better
from tfvae.evaluation.ratings import RatingEvaluator, bounded
from tfvae.evaluation.results import RatingEvaluation
from tfvae.evaluation.users import UserEvaluator
from tfvae.models.base import Recommender
from tfvae.system.errors import DivergedError, InputError


class Linear(Recommender):
    """Predicts a row's ratings by a matrix; with an identity, each rating by itself."""

    predicts_ratings = True

    def __init__(self, matrix, offset=0.0):
        super().__init__(len(matrix), name="linear")
        self.matrix, self.offset = tf.constant(matrix, tf.float32), offset

    def scores(self, rows):
        terms = tf.gather(self.matrix, rows.items) * rows.values[:, None]
        return self.offset + tf.math.unsorted_segment_sum(terms, rows.segment_ids, tf.shape(rows.lengths)[0])


def random_held_out(seed=0, n_rows=23, n_columns=17):
    """Told ratings from 1 to 4, and as many to predict from 0.5 to 5; row 4 and column 6 are cold."""
    generator = np.random.default_rng(seed)
    kind = generator.choice(3, size=(n_rows, n_columns), p=[0.4, 0.3, 0.3])
    told, asked = kind == 1, kind == 2
    told[4], told[:, 6], asked[4, :3], asked[:3, 6] = False, False, True, True
    histories = ratings_at(told, generator.choice(np.float32([1, 2, 3, 4]), size=kind.shape))
    targets = ratings_at(asked, generator.choice(np.float32([0.5, 3, 5]), size=kind.shape))
    return HeldOutRatings(histories, targets, np.arange(len(kind)))


def random_model(seed=0, n_columns=17):
    return Linear(np.random.default_rng(seed).normal(0.3, 0.2, size=(n_columns, n_columns)), offset=0.5)


# ---- ratings ----------------------------------------------------------------------------------------


def test_errors_are_those_worked_out_by_hand():
    # Errors 1, -1, 0 and 2: squares 1, 1, 0, 4 with mean 1.5 and sd 1.5; sizes 1, 1, 0, 2 with mean 1 and sd √½.
    found = RatingEvaluation(np.array([2.0, 3, 4, 5]), np.array([1.0, 4, 4, 3]), np.arange(3))
    root = 1.5**0.5
    assert found.mean("rmse") == pytest.approx(root) and found.mean("mae") == pytest.approx(1.0)
    summary = found.summary()
    assert summary.keys() == {"rmse", "mae"} == set(found.names)
    assert summary["rmse"]["mean"] == found.mean("rmse") and summary["mae"]["mean"] == found.mean("mae")
    assert summary["rmse"]["se"] == pytest.approx(1.5 / (2 * root) / 2)
    assert summary["mae"]["se"] == pytest.approx(0.5**0.5 / 2)
    assert summary["rmse"]["low"] == pytest.approx(root - 1.96 * 1.5 / (2 * root) / 2)
    assert summary["mae"]["high"] == pytest.approx(1 + 1.96 * 0.5**0.5 / 2)
    assert found.per_user == {} and found.n_users == 3 and found.n_without_targets == 0
    with pytest.raises(InputError, match="did you mean 'rmse'"):
        found.mean("rsme")


def test_standard_errors_are_those_of_a_bootstrap():
    generator = np.random.default_rng(0)
    ratings = generator.integers(1, 6, 900).astype(float)
    predicted = ratings + generator.normal(0.2, 0.9, 900)
    chosen = generator.integers(0, 900, size=(4000, 900))
    summary = RatingEvaluation(predicted, ratings, np.arange(900)).summary()
    errors = np.abs(predicted - ratings)[chosen]
    for metric, values in (("rmse", np.sqrt(np.mean(errors**2, axis=1))), ("mae", errors.mean(axis=1))):
        assert summary[metric]["se"] == pytest.approx(values.std(), rel=0.05)


def test_predictions_without_error_have_no_standard_error():
    summary = RatingEvaluation(np.ones(3), np.ones(3), np.arange(3)).summary()
    assert summary == {name: dict.fromkeys(("mean", "se", "low", "high"), 0.0) for name in ("rmse", "mae")}


def test_predictions_are_those_of_the_dense_product_clipped_and_cold_ones_the_middle():
    held_out, model = random_held_out(), random_model()
    rows, columns, ratings = held_out.triples()
    dense = 0.5 + held_out.history.toarray() @ model.matrix.numpy()
    expected = np.clip(dense[rows, columns], 1, 4)
    cold = (rows == 4) | (columns == 6)
    expected[cold] = 2.5
    found = evaluate(model, held_out)
    assert 0 < cold.sum() < len(rows) and 0.1 < (expected == dense[rows, columns]).mean() < 0.9
    np.testing.assert_allclose(found.predicted, expected, rtol=1e-5)
    np.testing.assert_array_equal(found.ratings, ratings)
    np.testing.assert_array_equal(found.user_ids, np.unique(rows))


def test_bounds_are_those_of_the_told_ratings_and_hold_for_many_samples_at_once():
    histories = csr_array(np.array([[2.0, 0, 4], [0, 0, 0], [3, 0, 0]]))
    rows, columns = np.array([0, 0, 1, 2, 2]), np.array([0, 2, 0, 1, 2])
    predicted = np.array([[9.0, 3.5, 2.2, 3.9, -1], [2.0, 4.0, 4.0, 2.0, 2.5]])
    np.testing.assert_array_equal(bounded(predicted, histories, rows, columns), [[4, 3.5, 3, 3, 2], [2, 4, 3, 3, 2.5]])


@pytest.mark.parametrize("batch_size", [1, 5, 23, 100])
def test_the_batch_size_changes_no_prediction(batch_size):
    held_out, model = random_held_out(), random_model()
    expected = evaluate(model, held_out, batch_size=7).predicted
    np.testing.assert_allclose(evaluate(model, held_out, batch_size=batch_size).predicted, expected, rtol=1e-6)


def test_no_prediction_knows_what_it_is_compared_with():
    held_out, model = random_held_out(), random_model()
    before = evaluate(model, held_out)
    targets = held_out.targets.copy()
    targets.data = np.where(np.arange(targets.nnz) == 8, 77.0, targets.data)
    after = evaluate(model, dataclasses.replace(held_out, targets=targets))
    np.testing.assert_array_equal(after.predicted, before.predicted)
    assert after.mean("rmse") > before.mean("rmse")
    # A told rating of the same row does change them.
    histories = held_out.history.copy()
    histories.data[0] = 5 - histories.data[0]
    assert np.any(evaluate(model, dataclasses.replace(held_out, history=histories)).predicted != before.predicted)


def test_an_evaluator_follows_the_weights_it_was_traced_with():
    held_out = random_held_out()
    model = random_model()
    model.weight = tf.Variable(1.0)
    model.scores = lambda batch: model.weight * tf.ones([tf.shape(batch.lengths)[0], 17])
    measure = RatingEvaluator(model, held_out)
    low = measure().mean("mae")
    model.weight.assign(3.0)
    assert measure().mean("mae") < low


def test_what_cannot_be_evaluated_is_refused():
    held_out = random_held_out()
    with pytest.raises(InputError, match="unknown metric of ratings 'ndcg@10'"):
        RatingEvaluator(random_model(), held_out, ("ndcg@10",))
    with pytest.raises(InputError, match="no held-out ratings"):
        RatingEvaluator(random_model(), dataclasses.replace(held_out, targets=csr_array(held_out.history.shape)))
    with pytest.raises(InputError, match="scores 16 items"):
        RatingEvaluator(random_model(n_columns=16), held_out)
    with pytest.raises(DivergedError, match="NaN or infinite"):
        evaluate(Linear(np.full((17, 17), np.nan)), held_out)


# ---- items ------------------------------------------------------------------------------------------


class Ranked(Linear):
    """A linear model of what a user has, not of ratings."""

    predicts_ratings = False

    def scores(self, rows):
        return super().scores(rows._replace(values=tf.ones_like(rows.items, tf.float32)))


def random_items(seed=0, n_users=31, n_items=40):
    """Each user's held-out item and nine negatives, none of which are in the history."""
    generator = np.random.default_rng(seed)
    histories = csr_array((generator.random((n_users, n_items)) < 0.2).astype(np.float32))
    drawn = [generator.permutation(np.flatnonzero(row == 0))[:10] for row in histories.toarray()]
    items, negatives = np.split(np.int32(drawn), [1], axis=1)
    return HeldOutItems(histories, items[:, 0], negatives, np.arange(100, 100 + n_users))


def test_sampled_and_full_rankings_are_those_of_a_dense_sort():
    held_out = random_items()
    model = Ranked(np.random.default_rng(1).normal(size=(40, 40)))
    names = ("hr@3", "ndcg@3", "full-hr@10", "full-ndcg@10", "full-ndcg@5")
    found = evaluate(model, held_out, names, batch_size=9)
    history = held_out.history.toarray()
    for user, scores in enumerate(history @ model.matrix.numpy()):
        item = held_out.items[user]
        sampled = 1 + np.sum(scores[held_out.negatives[user]] >= scores[item])
        whole = 1 + int(np.argwhere(np.argsort(-np.where(history[user] > 0, -np.inf, scores)) == item)[0, 0])
        expected = [sampled <= 3, (sampled <= 3) / np.log2(sampled + 1)]
        expected += [whole <= 10, (whole <= 10) / np.log2(whole + 1), (whole <= 5) / np.log2(whole + 1)]
        np.testing.assert_allclose([found.per_user[name][user] for name in names], expected, err_msg=str(user))
    np.testing.assert_array_equal(found.user_ids, held_out.user_ids)
    assert 0 < found.mean("full-hr@10") < 1 and found.mean("full-hr@10") != found.mean("hr@3")


def test_a_constant_scorer_finds_nothing_and_a_perfect_one_all():
    held_out = random_items()
    constant = evaluate(Ranked(np.ones((40, 40))), held_out, ("hr@9", "ndcg@9"))
    assert constant.mean("hr@9") == constant.mean("ndcg@9") == 0
    perfect = Ranked(np.zeros((40, 40)))
    perfect.scores = lambda batch: tf.one_hot(tf.gather(held_out.items, batch.users), 40)
    found = evaluate(perfect, held_out, ("hr@1", "ndcg@1", "full-hr@1", "full-ndcg@7"))
    assert [found.mean(name) for name in found.names] == [1, 1, 1, 1]


def test_a_held_out_item_that_is_its_own_negative_is_one_candidate():
    held_out = random_items()
    negatives = held_out.negatives.copy()
    negatives[:, 0] = held_out.items
    found = evaluate(Ranked(np.ones((40, 40))), dataclasses.replace(held_out, negatives=negatives), ("hr@9",))
    assert found.mean("hr@9") == 1  # eight rivals tie with it, so that it comes ninth


# ---- the one evaluator ------------------------------------------------------------------------------


def test_each_kind_of_held_out_data_has_its_evaluator_and_its_metrics():
    ratings, items = random_held_out(), random_items()
    users = HeldOutUsers(items.history, csr_array((np.ones(31), (np.arange(31), items.items)), (31, 40)), items.items)
    ranked = Ranked(np.eye(40))
    for held_out, model, kind, metrics in (
        (ratings, random_model(), RatingEvaluator, ("rmse", "mae")),
        (items, ranked, ItemEvaluator, ("hr@10", "ndcg@10")),
        (users, ranked, UserEvaluator, ("ndcg@100", "recall@20", "recall@50")),
    ):
        assert default_metrics(held_out) == metrics
        found = evaluator(model, held_out)
        assert type(found) is kind and tuple(found().names) == metrics
    assert tuple(evaluator(ranked, items, ("hr@2",))().names) == ("hr@2",)
    with pytest.raises(InputError, match="such as 'ndcg@100', found 'rmse'"):
        evaluator(ranked, items, ("rmse",))


def test_which_metrics_there_are_and_which_are_errors():
    for name in ("rmse", "mae", "ndcg@100", "full-hr@10"):
        check_metric(name)
        assert lower_is_better(name) == (name in RATING_METRICS)
    for name, message in (("rsme", "such as"), ("full-rmse", "such as"), ("full-ndgc@5", "did you mean 'ndcg'")):
        with pytest.raises(InputError, match=message):
            check_metric(name)
