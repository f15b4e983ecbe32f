"""Reasons of models whose scores are known by hand: which items of a history raise a score, and by how much."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from ranking_examples import N_ITEMS, NUMBERS, STRINGS, built
from rating_rows import random_ratings
from scipy.sparse import csr_array

from tfvae.models.base import Recommender
from tfvae.nn.batches import as_batch
from tfvae.serving import reasons as module
from tfvae.serving.reasons import reasons
from tfvae.system.errors import DivergedError, InputError

# What each of the five items (row) in a history adds to the score of each item (column).
EFFECTS = np.float32(
    [
        [9, 0, 1, 2, 0.5],
        [1, 9, 2, -4, 0.5],
        [2, 3, 9, 0, 0.5],
        [0, 1, 4, 9, -1],
        [8, -2, 1, 3, 9],
    ]
)
IDS = ["tea", "rye", "oil", "nut", "fig"]


class Linear(Recommender):
    """Scores are a constant and the sum of the effects of the items, times their ratings if there are any."""

    def __init__(self, n_items, **kwargs):
        super().__init__(n_items, **kwargs)
        self.effects = tf.constant(EFFECTS)

    def scores(self, batch):
        rows = tf.gather(self.effects, batch.items)
        rows = rows if batch.values is None else rows * batch.values[:, None]
        return 100 + tf.math.unsorted_segment_sum(rows, batch.segment_ids, tf.shape(batch.lengths)[0])


class LinearRatings(Linear):
    """The same, as a model of ratings."""

    predicts_ratings = True


def plain(found):
    return [[(reason.item, round(reason.effect, 4)) for reason in of_item] for of_item in found]


def test_the_effects_of_a_linear_model_are_its_weights():
    found = reasons(Linear(5), IDS, ["rye", "tea", "fig", "nut"], ["oil", "nut", "tea"])
    assert plain(found) == [
        [("nut", 4), ("rye", 2), ("tea", 1)],  # fig adds as much as tea, and comes later among the items
        [("fig", 3), ("tea", 2)],  # rye lowers the score, and nut is no reason for itself
        [("fig", 8), ("rye", 1)],  # nut has no effect
    ]
    assert plain(reasons(Linear(5), IDS, ["fig", "nut"], ["rye"], n=1)) == [[("nut", 1)]]


def test_ratings_count_as_they_are_and_the_last_of_an_item_twice():
    found = reasons(LinearRatings(5), IDS, ["rye", "nut", "rye", "tea"], ["oil", "nut"], ratings=[9, 0.5, -1, 3])
    assert plain(found) == [[("tea", 3), ("nut", 2)], [("tea", 6), ("rye", 4)]]


def test_unknown_and_repeated_items_change_nothing():
    noisy = reasons(Linear(5), IDS, ["?", "nut", "nut", "rye", "??"], ["oil"])
    assert noisy == reasons(Linear(5), IDS, ["nut", "rye"], ["oil"])
    assert reasons(Linear(5), IDS, [], ["oil", "tea"]) == reasons(Linear(5), IDS, ["?"], ["oil", "tea"]) == [[], []]
    assert reasons(Linear(5), IDS, ["tea"], []) == []


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 3 * N_ITEMS, 2**24])
@pytest.mark.parametrize(("name", "ids"), [("mult-dae", NUMBERS), ("ease", STRINGS), ("p-vae", NUMBERS)])
def test_any_model_is_asked_without_each_item_in_turn(name, ids, at_once, monkeypatch):
    monkeypatch.setattr(module, "CELLS_AT_ONCE", at_once)
    model, rates = built(name), name == "p-vae"
    row = random_ratings(1, N_ITEMS, seed=2, empty=())
    row.data = row.data if rates else np.ones_like(row.data)
    wanted = [3, 17, 30]
    found = reasons(
        model,
        ids,
        ids[row.indices].tolist(),
        ids[wanted].tolist(),
        n=N_ITEMS,
        ratings=row.data.tolist() if rates else None,
    )

    def scores(kept):
        one = csr_array((row.data[kept], row.indices[kept], [0, kept.sum()]), shape=(1, N_ITEMS))
        return model.scores(as_batch(one, N_ITEMS, ratings=rates)).numpy()[0, wanted]

    whole = scores(np.ones(row.nnz, bool))
    for column, item in enumerate(wanted):
        effects = {
            ids[left_out]: whole[column] - scores(row.indices != left_out)[column]
            for left_out in row.indices
            if left_out != item
        }
        given = {reason.item: reason.effect for reason in found[column]}
        assert list(given.values()) == sorted(given.values(), reverse=True) and min(given.values(), default=1) > 0
        within = 1e-6 + 1e-5 * abs(float(whole[column]))
        for of_history, effect in effects.items():
            assert given.get(of_history, 0) == pytest.approx(max(effect, 0), abs=within)
        assert max(given.values()) > 5 * within and set(given) <= set(effects)


@pytest.mark.slow
def test_where_nobodys_history_counts_there_are_no_reasons():
    assert reasons(built("popularity"), NUMBERS, NUMBERS[:5].tolist(), NUMBERS[7:9].tolist()) == [[], []]


def test_scores_that_are_no_numbers_are_refused():
    model = Linear(5)
    model.effects = tf.constant(EFFECTS * np.float32(np.nan))
    with pytest.raises(DivergedError, match="NaN or infinite"):
        reasons(model, IDS, ["tea"], ["oil"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 0}, "n is 0; expected at least 1"),
        ({"item_ids": IDS[1:]}, "has 5 items, but 4 item ids were given"),
        ({"recommended": ["oil", "?"]}, "'\\?' is no item of linear, so nothing raises its score"),
        ({"ratings": [5]}, "not by ratings; leave the ratings out"),
        ({"model": LinearRatings(5)}, "predicts ratings from ratings; give them too"),
        ({"model": LinearRatings(5), "ratings": [5, 4]}, "expected 1 ratings, one for each item of the history"),
        ({"model": built("gmf")}, "gmf serves its training users by weights of their own"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    given = {"model": Linear(5), "item_ids": IDS, "history": ["tea"], "recommended": ["oil"]}
    with pytest.raises(InputError, match=message):
        reasons(**given | changes)
