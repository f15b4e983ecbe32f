"""What is measured of weak generalisation: LightGCN's recall and NDCG, worked out once more user by user."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from tfvae.data.interactions import Interactions
from tfvae.data.splits import HeldOutShares, WeakGeneralizationSettings, weak_generalization
from tfvae.data.synthetic import synthetic
from tfvae.evaluation.evaluate import default_metrics, evaluate
from tfvae.evaluation.metrics import parse_metric, uncapped_recall
from tfvae.evaluation.scoring import scores_at
from tfvae.evaluation.users import UserEvaluator
from tfvae.experiments.rendering import printed_metric
from tfvae.models.ease import EASE
from tfvae.models.ncf import GMF
from tfvae.system.errors import InputError

METRICS = ("uncapped-recall@5", "ndcg@5", "recall@5", "uncapped-recall@20", "ndcg@20", "hr@5")


def by_hand(scores, history, targets, k):
    """Recall divided by all held-out items and NDCG of one user's ranking of all items that they have not met."""
    ranked = [item for item in np.argsort(-scores, kind="stable") if not history[item]][:k]
    gains = [targets[item] / np.log2(place + 2) for place, item in enumerate(ranked)]
    ideal = sum(1 / np.log2(place + 2) for place in range(min(k, int(targets.sum()))))
    return sum(targets[item] for item in ranked) / targets.sum(), sum(gains) / ideal


@pytest.fixture(scope="module")
def split():
    """90 users of 40 items, of whom some have one item only and so none for test."""
    events = synthetic(n_users=90, n_items=40, n_events=900, n_tastes=4, taste=0.9)
    users = np.concatenate([events.user_ids[events.users], [1000, 1001]])
    items = np.concatenate([events.item_ids[events.items], [events.item_ids[3]] * 2])
    cut = weak_generalization(
        Interactions.from_events(users, items),
        WeakGeneralizationSettings(min_items_per_user=0, holdout_fraction=0.6),
    )
    assert cut.counts["users_without_test"] >= 2 and np.diff(cut.test.targets.indptr).max() > 5
    return cut


def test_recall_is_divided_by_all_held_out_items():
    hits = np.ones((2, 20), bool)
    assert uncapped_recall(hits, np.array([30, 20]), 20).tolist() == [20 / 30, 1.0]
    recall, k = parse_metric("recall@20")
    assert recall(hits, np.array([30, 20]), k).tolist() == [1.0, 1.0]
    with pytest.raises(InputError, match="no held-out item"):
        uncapped_recall(hits, np.array([0, 2]), 20)
    assert printed_metric("uncapped-recall@20") == "uncapped Recall@20"
    assert printed_metric("full-uncapped-recall@5") == "full uncapped Recall@5"
    with pytest.raises(InputError, match="unknown metric 'uncaped-recall'; did you mean 'uncapped-recall'"):
        parse_metric("uncaped-recall@20")


@pytest.mark.parametrize("batch_size", [7, 500])
@pytest.mark.parametrize("kind", ["ease", "gmf"])
def test_metrics_are_those_of_each_user_by_hand(split, kind, batch_size):
    """GMF knows its users by their rows in the whole matrix, of which those without test items are left out."""
    if kind == "ease":
        model = EASE(split.n_items, regularization=10.0)
        model.fit_matrix(split.train, log=[].append)
        scores = split.train.toarray() @ model.item_weights.numpy()
    else:
        model = GMF(split.n_items, split.train.shape[0], factors=3, seed=5)
        places = np.indices(split.train.shape).reshape(2, -1)
        scores = scores_at(model, split.train, *places).reshape(split.train.shape)
    found = evaluate(model, split.test, METRICS, batch_size)
    history, targets = split.train.toarray(), split.test.targets.toarray()
    users = np.flatnonzero(targets.any(axis=1))
    assert len(users) < len(targets)
    np.testing.assert_array_equal(found.user_ids, split.user_ids[users])
    assert found.n_without_targets == len(targets) - len(users)
    for k in (5, 20):
        expected = np.array([by_hand(scores[user], history[user], targets[user], k) for user in users])
        np.testing.assert_allclose(found.values(f"uncapped-recall@{k}"), expected[:, 0])
        np.testing.assert_allclose(found.values(f"ndcg@{k}"), expected[:, 1])
    assert (found.values("uncapped-recall@5") <= found.values("recall@5")).all()
    assert found.mean("uncapped-recall@5") < found.mean("recall@5")


def test_its_metrics_are_those_of_the_papers_and_models_of_training_users_are_welcome(split):
    assert default_metrics(split.test) == ("uncapped-recall@20", "ndcg@20")
    model = GMF(split.n_items, split.train.shape[0], factors=3)
    assert evaluate(model, split.test).names == ("uncapped-recall@20", "ndcg@20")


def test_without_any_target_there_is_nothing_to_measure(split):
    nothing = HeldOutShares(split.train, csr_array(split.train.shape, dtype=np.float32), split.user_ids)
    with pytest.raises(InputError, match="none of the .* held-out users has a target"):
        UserEvaluator(EASE(split.n_items), nothing)
    with pytest.raises(InputError, match=f"{split.train.nnz} events are both trained on and held out"):
        HeldOutShares(split.train, split.train, split.user_ids)
    with pytest.raises(InputError, match="of one shape and an id for each row"):
        HeldOutShares(split.train, split.train[1:], split.user_ids)
