"""What recommended lists are like: plain definitions that must agree, and what is stored and printed of a run."""

from __future__ import annotations

import json
import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from stored_runs import page, section, store, values

from tfvae.data.interactions import Interactions
from tfvae.data.splits import (
    HeldOutRatings,
    HeldOutShares,
    HeldOutUsers,
    WeakGeneralizationSettings,
    weak_generalization,
)
from tfvae.data.synthetic import synthetic
from tfvae.evaluation import lists as module
from tfvae.evaluation.lists import describe_lists, list_statistics
from tfvae.evaluation.scoring import scores_at
from tfvae.experiments import runner as tables
from tfvae.experiments.results_folder import stored_run
from tfvae.models.ease import EASE
from tfvae.models.ncf import GMF
from tfvae.models.popularity import Popularity
from tfvae.nn.ranking import EMPTY_RANK
from tfvae.system.errors import InputError

TABLE = """
title = "A table"
caption = "For tests."
metrics = ["recall@20", "ndcg@100"]

[[rows]]
name = "Popularity"
slug = "popularity"
model = "popularity"

[[rows]]
name = "EASE"
slug = "ease"
model = "ease"
"""
LISTS = {"k": 20.0, "coverage": 0.5, "popularity": 0.25, "similarity": 0.125, "users_per_second": 4000.0}


def mean_of(numbers):
    return sum(numbers) / len(numbers) if numbers else None


def by_definition(lists, train):
    """Coverage, popularity and similarity, from the sets of users who have each item, pair by pair."""
    n_users, n_items = train.shape
    having = [{user for user in range(n_users) if train[user, item]} for item in range(n_items)]

    def cosine(a, b):
        common = len(having[a] & having[b])
        return common / math.sqrt(len(having[a]) * len(having[b])) if common else 0.0

    found = [[item for item in places if item != EMPTY_RANK] for places in lists]
    popular = [mean_of([len(having[item]) / n_users for item in items]) for items in found]
    similar = [mean_of([cosine(*pair) for pair in combinations(items, 2)]) for items in found]
    coverage = len({item for items in found for item in items}) / n_items
    known = [mean_of([value for value in of_users if value is not None]) for of_users in (popular, similar)]
    return coverage, *known, popular, similar


def check(found, lists, train):
    """The statistics are those of the definitions, for each user and in the mean."""
    coverage, popularity, similarity, popular, similar = by_definition(lists, train)
    assert found.coverage == coverage and found.k == lists.shape[1]
    assert found.popularity == (popularity if popularity is None else pytest.approx(popularity))
    assert found.similarity == (similarity if similarity is None else pytest.approx(similarity, abs=1e-12))
    for name, expected in (("popularity", popular), ("similarity", similar)):
        assert found.per_user[name].dtype == np.float64
        expected = [np.nan if value is None else value for value in expected]
        np.testing.assert_allclose(found.per_user[name], expected, atol=1e-12)
    assert all(0 <= found.values.get(name, 0) <= 1 for name in ("coverage", "popularity", "similarity"))


# ---- the definitions --------------------------------------------------------------------------------


def test_statistics_worked_out_by_hand():
    # Users 0, 1 and 2 have item 0, users 0 and 1 item 1, user 3 item 2, users 0 and 3 item 4, and nobody the others.
    train = csr_array([[1, 1, 0, 0, 1, 0], [1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0], [0, 0, 1, 0, 1, 0]])
    lists = np.array([[0, 1, -1], [2, 3, 4], [-1, 1, -1], [-1, -1, -1]])
    found = list_statistics(lists, train)
    assert found.coverage == 5 / 6
    np.testing.assert_allclose(found.per_user["popularity"], [5 / 8, 1 / 4, 1 / 2, np.nan])
    # Items 0 and 1: 2/√(3·2). Items 2 and 4: 1/√2, one of three pairs; item 3 is like no other.
    np.testing.assert_allclose(found.per_user["similarity"], [2 / 6**0.5, 1 / (3 * 2**0.5), np.nan, np.nan])
    assert found.popularity == pytest.approx((5 / 8 + 1 / 4 + 1 / 2) / 3)
    assert found.similarity == pytest.approx((2 / 6**0.5 + 1 / (3 * 2**0.5)) / 2)
    assert found.values.keys() == {"k", "coverage", "popularity", "similarity"} and found.users_per_second is None


@st.composite
def examples(draw):
    """Lists of different items with empty places anywhere, and a training matrix in which items may be nobody's."""
    n_users, n_items, n_lists, k = (draw(st.integers(1, high)) for high in (7, 7, 6, 8))
    rows = st.lists(st.booleans(), min_size=n_items, max_size=n_items)
    train = np.array(draw(st.lists(rows, min_size=n_users, max_size=n_users)), np.float32)
    places = st.permutations([*range(n_items), *[EMPTY_RANK] * k]).map(lambda order: order[:k])
    lists = np.array(draw(st.lists(places, min_size=n_lists, max_size=n_lists)), np.int32)
    return lists, csr_array(train)


@pytest.mark.parametrize("at_once", [1, 5, module.ENTRIES_AT_ONCE])
@given(example=examples())
def test_statistics_are_those_of_the_definitions(at_once, example):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ENTRIES_AT_ONCE", at_once)
        check(list_statistics(*example), *example)


def test_values_of_the_training_matrix_change_nothing():
    ones = csr_array([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    weights = csr_array((np.array([3.0, 0.5, 2.0, 7.0]), ones.indices, ones.indptr), shape=ones.shape)
    lists = np.array([[0, 1], [2, 0]])
    assert list_statistics(lists, ones).values == list_statistics(lists, weights).values


def test_the_same_users_make_a_similarity_of_one_and_others_of_zero():
    train = csr_array([[1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 0]])
    assert list_statistics(np.array([[2, 1, 0]]), train).similarity == 1.0
    assert list_statistics(np.array([[0, 3], [4, 3]]), train).similarity == 0.0


def test_lists_without_pairs_have_no_similarity_and_empty_ones_no_popularity():
    train = csr_array([[1, 1], [1, 0]])
    single = list_statistics(np.array([[0, -1], [-1, 1]]), train)
    assert (single.coverage, single.popularity, single.similarity) == (1.0, 0.75, None)
    empty = list_statistics(np.full((3, 2), EMPTY_RANK), train)
    assert empty.values == {"k": 2.0, "coverage": 0.0}
    assert list_statistics(np.empty((0, 2), np.int32), train).values == empty.values


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (np.array([0, 1]), "expected lists of item numbers"),
        (np.array([[0.0, 1.0]]), "expected lists of item numbers"),
        (np.array([[0, 2]]), "expected item numbers from 0 to 1, found 0 to 2"),
        (np.array([[0, -2]]), "expected item numbers from 0 to 1, found -2 to 0"),
        (np.array([[0, 1, -1, -1], [1, -1, 1, -1]]), "item 1 is twice in the list of user 1"),
    ],
)
def test_what_is_no_list_is_refused(lists, message):
    with pytest.raises(InputError, match=message):
        list_statistics(lists, csr_array([[1, 1]]))


def test_nothing_is_measured_without_training_users():
    with pytest.raises(InputError, match="expected a training matrix with users and items"):
        list_statistics(np.array([[0]]), csr_array((0, 2)))


# ---- the lists of a model ---------------------------------------------------------------------------


def ranked(scores, seen, k):
    """The best unseen items of each user, equal scores by item number."""
    lists = np.full((len(scores), k), EMPTY_RANK)
    for user, row in enumerate(scores):
        best = [item for item in np.argsort(-row, kind="stable") if not seen[user, item]][:k]
        lists[user, : len(best)] = best
    return lists


@pytest.fixture(scope="module")
def shares():
    """90 users of 40 items, of whom some have nothing held out."""
    events = synthetic(n_users=90, n_items=40, n_events=900, n_tastes=4, taste=0.9)
    users = np.concatenate([events.user_ids[events.users], [1000, 1001]])
    items = np.concatenate([events.item_ids[events.items], [events.item_ids[3]] * 2])
    kept = WeakGeneralizationSettings(min_items_per_user=0, holdout_fraction=0.6)
    return weak_generalization(Interactions.from_events(users, items), kept)


@pytest.mark.parametrize(("k", "batch_size"), [(5, 7), (20, 500), (50, 500)])
def test_lists_of_held_out_users_are_the_best_items_that_they_have_not_seen(tiny_split, k, batch_size):
    model = EASE(tiny_split.n_items, regularization=10.0)
    model.fit_matrix(tiny_split.train, log=[].append)
    found = describe_lists(model, tiny_split.test, tiny_split.train, k, batch_size)
    users = np.flatnonzero(tiny_split.test.targets.sum(axis=1))
    history = tiny_split.test.history.toarray()[users]
    check(found, ranked(history @ model.item_weights.numpy(), history, k), tiny_split.train)
    assert 0 < found.users_per_second < math.inf
    assert found.values.keys() == {"k", "coverage", "popularity", "similarity", "users_per_second"}


def test_lists_of_training_users_leave_out_those_without_targets(shares):
    model = GMF(shares.n_items, shares.train.shape[0], factors=3, seed=5)
    users = np.flatnonzero(shares.test.targets.sum(axis=1))
    assert len(users) < shares.train.shape[0]
    scores = scores_at(model, shares.train, *np.indices(shares.train.shape).reshape(2, -1)).reshape(shares.train.shape)
    found = describe_lists(model, shares.test, shares.train, 5)
    check(found, ranked(scores[users], shares.train.toarray()[users], 5), shares.train)


def test_lists_beside_one_held_out_item_are_of_all_unseen_items(tiny_items):
    model = Popularity(tiny_items.n_items)
    model.fit_matrix(tiny_items.train, log=[].append)
    seen = tiny_items.validation.history.toarray()
    scores = np.tile(tiny_items.train.sum(axis=0), (len(seen), 1))
    check(describe_lists(model, tiny_items.validation, tiny_items.train), ranked(scores, seen, 20), tiny_items.train)


def test_there_are_no_lists_of_ratings():
    shown, asked = csr_array([[4.0, 0.0], [0.0, 2.0]]), csr_array([[0.0, 3.0], [0.0, 0.0]])
    assert describe_lists(Popularity(2), HeldOutRatings(shown, asked, np.arange(2)), shown) is None


def test_lists_that_cannot_be_made_are_refused(tiny_split, shares):
    model, test = EASE(tiny_split.n_items), tiny_split.test
    with pytest.raises(InputError, match="k is 0; expected at least 1"):
        describe_lists(model, test, tiny_split.train, k=0)
    with pytest.raises(InputError, match="expected a training matrix of 40 items, found 39"):
        describe_lists(model, test, tiny_split.train[:, :39])
    nothing = HeldOutUsers(test.history, csr_array(test.history.shape, dtype=np.float32), test.user_ids)
    with pytest.raises(InputError, match="none of the 30 held-out users has a target"):
        describe_lists(model, nothing, tiny_split.train)
    of_training_users = GMF(tiny_split.n_items, test.history.shape[0], factors=3)
    with pytest.raises(InputError, match="scores only the users it was trained on"):
        describe_lists(of_training_users, test, tiny_split.train)
    others = HeldOutShares(shares.train[:9], shares.test.targets[:9], shares.user_ids[:9])
    with pytest.raises(InputError, match="was made for 30 users, the histories have 9 rows"):
        describe_lists(of_training_users, others, shares.train)


# ---- stored and printed -----------------------------------------------------------------------------


@pytest.fixture
def results(tmp_path):
    (tmp_path / "results" / "table").mkdir(parents=True)
    (tmp_path / "results" / "table" / "table.toml").write_text(TABLE)
    return tmp_path / "results"


def test_a_run_stores_what_its_lists_are_like_and_the_page_shows_it(results, tiny_split, monkeypatch):
    monkeypatch.setattr(tables, "splits_of", lambda *_: lambda seed, by: tiny_split)
    quiet = {"progress": False, "log": lambda line: None}
    (run,) = tables.run_table(
        "table", "synthetic", [1], ["popularity"], results=results, work=results.parent / "work", **quiet
    )
    model = Popularity(tiny_split.n_items)
    model.fit_matrix(tiny_split.train, log=[].append)
    expected = describe_lists(model, tiny_split.test, tiny_split.train).values
    assert run.lists == expected | {"users_per_second": run.lists["users_per_second"]} and run.lists["k"] == 20
    assert stored_run("table", "synthetic", "popularity", 1, results) == run
    shown = section(page(results, "synthetic"), "The recommended lists")
    (line,) = [line for line in shown.splitlines() if line.startswith("| Popularity")]
    assert line == (
        f"| Popularity | {100 * expected['coverage']:.1f} % | {100 * expected['popularity']:.1f} % | "
        f"{expected['similarity']:.3f} | {run.lists['users_per_second']:,.0f} |"
    )


def test_a_row_is_the_mean_over_the_seeds_that_have_lists(results):
    metrics = {"recall@20": values(0.5, 0.1), "ndcg@100": values(0.4, 0.1)}
    store(results, "popularity", 1, metrics)
    assert "## The recommended lists" not in page(results)
    store(results, "popularity", 2, metrics, lists=LISTS)
    store(results, "popularity", 3, metrics, lists=LISTS | {"coverage": 0.7, "users_per_second": 5000.0})
    text = section(page(results), "The recommended lists")
    assert "| Popularity | 60.0 % | 25.0 % | 0.125 | 4,500 |" in text and "the 20 best items" in text
    assert "EASE" not in text
    store(results, "ease", 1, metrics, lists={name: LISTS[name] for name in LISTS if name != "similarity"} | {"k": 5.0})
    text = section(page(results), "The recommended lists")
    assert "| EASE | 50.0 % | 25.0 % | – | 4,000 |" in text and "the 5 or 20 best items" in text


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"coverage": math.nan}, "NaN"),
        ({"coverage": 1.5}, "expected a coverage from 0 to 1, found 1.5"),
        ({"popularity": -0.1}, "expected a popularity from 0 to 1, found -0.1"),
        ({"similarity": 1.1}, "expected a similarity from 0 to 1, found 1.1"),
        ({"k": 2.5}, "expected a whole k"),
        ({"k": 0}, "expected a whole k"),
        ({"users_per_second": 0}, "users_per_second, both above 0"),
        ({"novelty": 0.5}, "found .*novelty"),
        ({"popularity": None}, "popularity"),
    ],
)
def test_damaged_lists_of_a_stored_run_are_refused(results, damage, message):
    store(results, "popularity", 1, {"recall@20": values(0.5, 0.1)}, lists=LISTS)
    path = results / "table" / "ml-20m" / "popularity.seed1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lists": LISTS | damage}))
    with pytest.raises(InputError, match=message) as refused:
        stored_run("table", "ml-20m", "popularity", 1, results)
    assert str(path) in str(refused.value)


def test_lists_without_a_coverage_are_refused(results):
    store(results, "popularity", 1, {"recall@20": values(0.5, 0.1)}, lists=LISTS)
    path = results / "table" / "ml-20m" / "popularity.seed1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lists": {"k": 20}}))
    with pytest.raises(InputError, match="expected coverage, k, popularity, users_per_second and similarity, found k"):
        stored_run("table", "ml-20m", "popularity", 1, results)


def test_of_many_users_some_are_described_evenly_spread(monkeypatch, tiny_split):
    monkeypatch.setattr(module, "MOST_USERS", 7)
    model = EASE(tiny_split.n_items, regularization=10.0)
    model.fit_matrix(tiny_split.train, log=[].append)
    found = describe_lists(model, tiny_split.test, tiny_split.train, 5)
    users = np.flatnonzero(tiny_split.test.targets.sum(axis=1))
    users = users[:: math.ceil(len(users) / 7)]
    assert 3 < len(users) <= 7
    history = tiny_split.test.history.toarray()[users]
    check(found, ranked(history @ model.item_weights.numpy(), history, 5), tiny_split.train)
