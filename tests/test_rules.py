"""Rules against a plain, slow definition over the whole catalogue, through every door, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from ranking_examples import (
    N_ITEMS,
    N_USERS,
    NUMBERS,
    RATES,
    SCALE,
    STRINGS,
    USERS,
    built,
    events_of,
    histories_of,
    items_of,
    read,
    written,
)
from rating_rows import random_ratings
from scipy.sparse import csr_array

from tfvae.data.histories import Histories
from tfvae.data.interactions import Interactions
from tfvae.data.splits import LeaveOneOutSettings, leave_one_out
from tfvae.nn.batches import as_batch
from tfvae.serving import reranking
from tfvae.serving.everybody import recommend_to_all
from tfvae.serving.recommendations import Recommendations, recommend, recommend_to_users
from tfvae.serving.reranking import Reranker, training_vectors
from tfvae.serving.rules import Rules
from tfvae.system.errors import InputError

CLOSE = 1e-5
KINDS = [["a"], ["b"], ["c"], ["a", "b"], []]
CATEGORIES = [KINDS[place % 5] for place in range(N_ITEMS)]
VECTORS = np.random.default_rng(4).normal(size=(N_ITEMS, 6)).astype(np.float32)
COUNTS = np.arange(N_ITEMS)


def cosines(vectors) -> np.ndarray:
    """The similarities of all pairs of items, as the rule has them."""
    dense = np.asarray(vectors.todense() if hasattr(vectors, "todense") else vectors, np.float64)
    lengths = np.linalg.norm(dense, axis=1)
    lengths[lengths == 0] = 1
    return np.maximum(dense @ dense.T / np.outer(lengths, lengths), 0)


def assert_greedy(chosen, scores, may, k, rules):
    """Follows a ranking rank by rank: each choice is the best of all items that the rule allows there.

    Args:
        chosen: Places of the ranked items, without empty ranks.
        scores: float [n_items], the scores of one person.
        may: bool [n_items], what may be recommended to them.
        k: Length of the ranking.
        rules: The rules.
    """
    order = [item for item in sorted(range(len(scores)), key=lambda item: (-scores[item], item)) if may[item]]
    best = scores[order[:k]].astype(np.float64) if order else np.zeros(1)
    relevance = (scores - best[-1]) / (best[0] - best[-1] or 1.0)
    alike = cosines(rules.vectors) if rules.diversity else np.zeros((len(scores), len(scores)))
    labels, counts = rules.categories or [()] * len(scores), {}

    def free(item):
        return item not in taken and all(counts.get(label, 0) < (rules.at_most or 1) for label in labels[item])

    taken: list[int] = []
    for choice in chosen:
        left = [item for item in order if free(item)]
        values = [
            (1 - rules.diversity) * relevance[item] - rules.diversity * max([0, *alike[item, taken]]) for item in left
        ]
        assert choice in left and values[left.index(choice)] >= max(values) - CLOSE
        if not rules.diversity:
            assert choice == left[0]
        taken.append(choice)
        for label in labels[choice]:
            counts[label] = counts.get(label, 0) + 1
    assert len(chosen) == k or not any(map(free, order))


# ---- re-ranking --------------------------------------------------------------------------------------


def listing(scores, may, asked):
    """Lists as the graph does; the lengths that are asked for are appended to `asked`."""

    def listed(rows, length):
        asked.append((len(rows), length))
        masked = np.where(may[rows], scores[rows], -np.inf)
        items = np.argsort(-masked, axis=1, kind="stable")[:, :length].astype(np.int32)
        best = np.take_along_axis(masked, items, axis=1)
        return {"items": np.where(np.isneginf(best), -1, items), "scores": best}

    return listed


@given(
    seed=st.integers(0, 2**32 - 1),
    n_items=st.integers(1, 40),
    k=st.integers(1, 6) | st.just(40),
    diversity=st.sampled_from([0.0, 0.05, 0.3, 0.7, 1.0]),
    at_most=st.sampled_from([None, 1, 2, 5]),
    tied=st.booleans(),
    sparse=st.booleans(),
)
def test_short_lists_give_what_the_whole_catalogue_gives(seed, n_items, k, diversity, at_most, tied, sparse):
    draw, n_users = np.random.default_rng(seed), 5
    k = min(k, n_items)
    scores = draw.normal(size=(n_users, n_items)).astype(np.float32)
    scores = np.round(scores) if tied else scores
    may = draw.random((n_users, n_items)) < 0.8
    vectors = draw.integers(0, 2, (n_items, 6)) if sparse else draw.normal(size=(n_items, 3))
    rules = Rules(
        diversity=diversity,
        vectors=csr_array(vectors.astype(np.float32)) if sparse else vectors,
        at_most=at_most,
        categories=[KINDS[number] for number in draw.integers(0, 5, n_items)] if at_most else None,
    )
    asked: list = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reranking, "SHORTEST", 1)
        patch.setattr(reranking, "LISTS_PER_RANKING", 2)
        patch.setattr(reranking, "RANKS_AT_ONCE", 20)
        found = Reranker(rules, n_items)(listing(scores, may, asked), n_users, k)
    assert found["items"].shape == found["scores"].shape == (n_users, k) and found["items"].dtype == np.int32
    assert max(length for _, length in asked) <= n_items
    for row in range(n_users):
        chosen = found["items"][row][found["items"][row] >= 0]
        assert (found["items"][row, len(chosen) :] == -1).all() and len(set(chosen)) == len(chosen)
        assert np.isneginf(found["scores"][row, len(chosen) :]).all()
        np.testing.assert_array_equal(found["scores"][row, : len(chosen)], scores[row, chosen])
        assert_greedy(chosen.tolist(), scores[row], may[row], k, rules)


def test_lists_become_longer_for_those_only_who_need_it():
    scores, n_items = np.tile(np.arange(1000, 0, -1, dtype=np.float32), (3, 1)), 1000
    categories = ["a"] * 600 + ["b"] * 400
    asked: list = []
    may = np.ones((3, n_items), bool)
    may[0, :599] = may[1, :150] = False
    found = Reranker(Rules(at_most=1, categories=categories), n_items)(listing(scores, may, asked), 3, 2)
    assert asked == [(3, 100), (2, 400), (2, 1000)]  # the first person has one of each in a hundred
    np.testing.assert_array_equal(found["items"], [[599, 600], [150, 600], [0, 600]])


def test_a_dose_of_diversity_by_hand():
    """Scores 1, .9, .8 and 0, of which the first two are alike; k is 3, so that relevances are 1, .5, 0 and −4."""
    vectors = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 2]])
    scores, may = np.float32([[1, 0.9, 0.8, 0]]), np.ones((1, 4), bool)

    def ranked(diversity, k=3):
        rules = Rules(diversity=diversity, vectors=vectors)
        return Reranker(rules, 4)(listing(scores, may, []), 1, k)["items"][0].tolist()

    assert ranked(0.3) == [0, 1, 2]  # .7 · .5 − .3 = .05 for the second beats 0 ...
    assert ranked(0.35) == [0, 2, 1]  # ... and .65 · .5 − .35 = −.025 does not
    assert ranked(0.0) == [0, 1, 2] and ranked(1.0) == [0, 2, 3]
    assert ranked(1.0, k=4) == [0, 2, 3, 1] and ranked(0.9, k=1) == [0]


def test_opposite_and_empty_vectors_are_no_less_alike_than_unlike_ones():
    vectors = np.array([[1.0, 0], [-1, 0], [0, 1], [0, 0]])
    found = Reranker(Rules(diversity=0.9, vectors=vectors), 4)
    scores = np.float32([[4, 1, 2, 3]])
    assert found(listing(scores, np.ones((1, 4), bool), []), 1, 4)["items"].tolist() == [[0, 3, 2, 1]]


def test_vectors_of_the_training_matrix_have_the_cosines_of_its_columns():
    train = random_ratings(20, 9)
    binary = (train.toarray() > 0).astype(float)
    lengths = np.linalg.norm(binary, axis=0)
    lengths[lengths == 0] = 1
    expected = binary.T @ binary / np.outer(lengths, lengths)
    for vectors in (training_vectors(train), training_vectors(train).toarray()):
        similarity = reranking.Similarity(vectors).among(np.arange(9))
        np.testing.assert_allclose([similarity(item) for item in range(9)], expected, atol=1e-6)


# ---- through the doors --------------------------------------------------------------------------------

CASES = {
    "only": (Rules(only=[str(item) for item in NUMBERS[5:25]]), np.isin(COUNTS, range(5, 25))),
    "without": (Rules(without=NUMBERS[::2]), COUNTS % 2 == 1),
    "again": (Rules(again=True), np.ones(N_ITEMS, bool)),
    "common": (Rules(min_users=30, n_users=COUNTS), COUNTS >= 30),
    "categories": (Rules(at_most=2, categories=CATEGORIES), np.ones(N_ITEMS, bool)),
    "diversity": (Rules(diversity=0.4, vectors=VECTORS), np.ones(N_ITEMS, bool)),
    "all": (
        Rules(
            only=np.delete(NUMBERS, [0, 1, 2, 20, 21]),
            without=NUMBERS[20:22],
            again=True,
            min_users=6,
            at_most=3,
            diversity=0.2,
            categories=CATEGORIES,
            vectors=csr_array(np.abs(VECTORS)),
            n_users=COUNTS,
        ),
        (COUNTS >= 6) & ~np.isin(COUNTS, [20, 21]),
    ),
}


@pytest.fixture(scope="module")
def models():
    return {name: built(name) for name in ("ease", "p-vae", "cdae")}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["ease", "p-vae"])
def test_in_process_and_in_a_file_the_rules_are_followed(models, name, case, tmp_path, monkeypatch):
    monkeypatch.setattr(reranking, "SHORTEST", 1)
    monkeypatch.setattr(reranking, "LISTS_PER_RANKING", 2)
    (rules, may), rates, k = CASES[case], name in RATES, 6
    matrix = random_ratings(N_USERS, N_ITEMS, seed=3, empty=()) if rates else histories_of()
    lists = [matrix[[row]] for row in range(N_USERS)]
    found = recommend(
        models[name],
        NUMBERS,
        [NUMBERS[row.indices].tolist() for row in lists],
        k,
        ratings=[row.data.tolist() for row in lists] if rates else None,
        scale=SCALE if rates else None,
        rules=rules,
    )
    scores = models[name].scores(as_batch(matrix, N_ITEMS, ratings=rates)).numpy()
    place_of = {item: place for place, item in enumerate(NUMBERS.tolist())}
    for row in range(N_USERS):
        theirs = may if rules.again else may & ~np.isin(COUNTS, lists[row].indices)
        chosen = [place_of[item] for item in found.items[row].tolist() if item in place_of]
        # Scores of one person are compared within their own batch, which rounds in its own way.
        exact = scores[row].copy()
        clipped = np.clip(exact[chosen], *SCALE) if rates else exact[chosen]
        np.testing.assert_allclose(found.scores[row, : len(chosen)], clipped, rtol=1e-4)
        assert np.isneginf(found.scores[row, len(chosen) :]).all() and (found.items[row, len(chosen) :] == -1).all()
        assert_greedy(chosen, exact, theirs, k, rules)
    assert (found.sd is not None) == rates
    items = dataclasses.replace(items_of(NUMBERS, rates=rates, titles=None), n_users=COUNTS)
    file = written(tmp_path / "given.parquet", events_of(matrix, USERS["numbers"], NUMBERS))
    people = Histories.from_file(file, items, rating="rating" if rates else None)
    recommend_to_all(models[name], items, people, tmp_path / "t.parquet", k, rules, progress=False)
    table = read(tmp_path / "t.parquet")
    assert table["item"] == found.items[found.items != -1].tolist()
    np.testing.assert_allclose(table["score"], found.scores[found.items != -1], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("diversity", [0.0, 0.3])
def test_training_users_get_diversity_by_the_training_columns(models, diversity, tmp_path):
    users, items = histories_of(60, seed=5).nonzero()
    split = leave_one_out(Interactions.from_events(users, NUMBERS[items]), LeaveOneOutSettings(n_negatives=1))
    model = built("cdae")
    rules = Rules(diversity=diversity, min_users=3)
    found = recommend_to_users(model, split, split.user_ids[:9], 5, rules)
    full = dataclasses.replace(rules, vectors=training_vectors(split.train) if diversity else None)
    scores = recommend_to_users(model, split, split.user_ids[:9], split.n_items, Rules(again=True))
    place_of = {item: place for place, item in enumerate(split.item_ids.tolist())}
    common = np.bincount(split.train.indices, minlength=split.n_items) >= 3
    for row in range(9):
        ordered = np.empty(split.n_items, np.float32)
        ordered[[place_of[item] for item in scores.items[row].tolist()]] = scores.scores[row]
        may = common & ~np.isin(np.arange(split.n_items), split.train[[row]].indices)
        chosen = [place_of[item] for item in found.items[row].tolist() if item != -1]
        assert_greedy(chosen, ordered, may, 5, full)
    recommend_to_all(model, split, Histories.of_training(split), tmp_path / "t.csv", 5, rules, progress=False)
    expected = [str(item) for item in found.items.ravel() if item != -1]
    assert len(expected) > 30 and read(tmp_path / "t.csv")["item"][: len(expected)] == expected


@pytest.mark.slow
def test_nobody_and_long_rankings(models):
    rules = Rules(at_most=1, categories=CATEGORIES)
    assert recommend(models["ease"], STRINGS, [], 3, rules=rules).items.shape == (0, 3)
    found = recommend(models["ease"], STRINGS, [["unknown"], []], N_ITEMS + 9, rules=rules)
    assert found.items.shape == (2, N_ITEMS + 9) and found.unknown.tolist() == [1, 0]
    assert 8 + 2 <= (found.items[0] != "").sum() <= 8 + 3  # all without a category, and one of each; or a and b at once


@pytest.mark.slow
def test_a_mask_of_the_moment_comes_on_top_of_the_rules(models):
    serving = Recommendations(models["ease"], NUMBERS, rules=Rules(without=NUMBERS[:5]))
    history = tf.constant(NUMBERS[None, [7, 9]].repeat(2, axis=0))
    allowed = np.zeros((2, N_ITEMS), bool)
    allowed[0, 3:8] = allowed[1, 20:22] = True
    found = serving.recommend_allowed(history, tf.constant(4), tf.constant(allowed))
    assert [set(row) for row in found["items"].numpy().tolist()] == [{*NUMBERS[5:7], -1}, {*NUMBERS[20:22], -1}]
    same = serving.recommend_allowed(history, tf.constant(4), tf.ones((1, N_ITEMS), tf.bool))
    np.testing.assert_array_equal(same["items"], serving.recommend(history, tf.constant(4))["items"])
    np.testing.assert_array_equal(serving.items()["items"], NUMBERS)


# ---- what is refused, and what is told ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"only": [1, 2, 3], "without": ["3", 2]}, "2 items are both in only and in without, such as 2, 3"),
        ({"only": []}, "only names no item"),
        ({"only": "heat"}, "expected a list of item ids as only, found 'heat'"),
        ({"min_users": -1}, "min_users is -1; expected a whole number of at least 0"),
        ({"at_most": 0, "categories": ["a"]}, "at_most is 0; expected a whole number of at least 1"),
        ({"at_most": True, "categories": ["a"]}, "at_most is True"),
        ({"at_most": 1.5, "categories": ["a"]}, "at_most is 1.5"),
        ({"at_most": 2}, "at_most needs the categories of the items"),
        ({"categories": ["a"]}, "categories change nothing without at_most"),
        ({"diversity": 1.1}, "diversity is 1.1; expected a number from 0 to 1"),
        ({"diversity": float("nan")}, "diversity is nan"),
        ({"diversity": "much"}, "diversity is 'much'"),
        ({"vectors": [1, 2]}, r"expected vectors of shape \[n_items, d\], found \[2\]"),
        ({"vectors": [["a"]]}, "expected numbers as vectors"),
        ({"vectors": [[np.inf]]}, "NaN or infinite"),
    ],
)
def test_rules_that_make_no_sense_are_refused_when_they_are_made(given, message):
    with pytest.raises(InputError, match=message):
        Rules(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"only": ["x", "y"]}, "none of the 2 ids in only is an item of the training data, such as x, y; ids there"),
        ({"without": [7]}, "none of the 1 ids in without"),
        ({"only": ["a"], "min_users": 3, "n_users": [1, 2, 3]}, "the rules leave no item"),
        ({"without": ["a", "b", "c"]}, "the rules leave no item"),
        ({"min_users": 3}, "give n_users as well"),
        ({"min_users": 4, "n_users": [1, 2, 3]}, "no item has 4 training users, the most common has 3; lower it"),
        ({"at_most": 1, "categories": ["x"]}, "the rules have 1 categories for 3 items"),
        ({"diversity": 0.1, "vectors": np.eye(2)}, "the rules have 2 vectors for 3 items"),
        ({"diversity": 0.1, "vectors": csr_array(np.eye(2))}, "the rules have 2 vectors for 3 items"),
        ({"n_users": [1]}, "the rules have 1 n_users for 3 items"),
    ],
)
def test_rules_for_other_items_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        Rules(**given).for_items(["a", "b", "c"])


def test_unknown_ids_are_counted_and_told_once(caplog):
    rules = Rules(only=["a", "x", "b"], without=["c", *"uvwyz"]).for_items(["a", "b", "c"])
    assert "left out of only: 1 of 3 ids (x)" in caplog.text
    assert "left out of without: 5 of 6 ids (u, v, w, …)" in caplog.text
    caplog.clear()
    assert rules.for_items(["a", "b", "c"]).allowed(["a", "b", "c"]).tolist() == [True, True, False]
    assert not caplog.text


def test_rules_that_do_the_same_have_the_same_digest():
    ids, plain = ["1", "2", "3"], Rules().digest(["1", "2", "3"])
    same = [Rules(only=[1, 2]), Rules(without=["3"]), Rules(min_users=5, n_users=[5, 6, 4]), Rules(only=[2, 1])]
    assert len({rules.digest(ids) for rules in same}) == 1
    others = [
        Rules(again=True),
        Rules(at_most=1, categories="aab"),
        Rules(at_most=2, categories="aab"),
        Rules(at_most=2, categories="abb"),
        Rules(diversity=0.1, vectors=np.eye(3)),
        Rules(diversity=0.2, vectors=np.eye(3)),
        Rules(diversity=0.2, vectors=2 * np.eye(3)),
        Rules(diversity=0.2, vectors=csr_array(np.eye(3))),
        Rules(diversity=0.2, vectors=csr_array(2 * np.eye(3))),
    ]
    assert len({plain, same[0].digest(ids), *(rules.digest(ids) for rules in others)}) == len(others) + 2
    assert Rules(vectors=np.eye(3)).digest(ids) == plain
