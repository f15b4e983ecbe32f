"""Splits: the papers' seeds, nothing on two sides, nothing lost, files that come back, and bad input."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from tfvae.data.interactions import Interactions
from tfvae.data.splits import (
    HeldOutUsers,
    LeaveOneOut,
    LeaveOneOutSettings,
    RatingHoldoutSettings,
    StrongGeneralizationSettings,
    leave_one_out,
    load_split,
    rating_holdout,
    strong_generalization,
    weak_generalization,
)
from tfvae.system.errors import InputError

DATA = Path(os.environ.get("TFVAE_DATA") or Path(__file__).parents[2] / "shared" / "data")
ML_1M = DATA / "ml-1m" / "ratings.csv.xz"
needs_ml_1m = pytest.mark.skipif(not ML_1M.is_file(), reason="ml-1m/ratings.csv.xz is not here")


def some_events(n_users=60, n_items=40, seed=0, density=0.3, ratings=(1, 2, 3, 4, 5)) -> Interactions:
    """Random events in random order; popular items come first, ids have gaps, titles are there."""
    random = np.random.RandomState(seed)
    met = random.rand(n_users, n_items) < 2 * density * np.linspace(1, 0.02, n_items)
    users, items = met.nonzero()
    order = random.permutation(users.size)
    users, items = 10 + 3 * users[order], 100 + 7 * items[order]
    titles = pd.DataFrame({"title": [f"Film {item}" for item in np.unique(items)]}, index=np.unique(items))
    return Interactions.from_events(
        users, items, random.choice(ratings, users.size), random.randint(10**6, size=users.size), items=titles
    )


def pairs(matrix, user_ids, item_ids) -> set[tuple]:
    """The (user id, item id) of all entries."""
    entries = matrix.tocoo()
    return set(zip(user_ids[entries.row].tolist(), item_ids[entries.col].tolist(), strict=True))


def assert_same_arrays(a, b) -> None:
    """Compares two splits array by array, dtype included, and all that goes with them."""
    first, second = a.arrays(), b.arrays()
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype, name
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    assert (a.protocol, a.settings, a.counts, a.digest) == (b.protocol, b.settings, b.counts, b.digest)


# -- strong generalisation


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_users", "first", "last", "sha256"),
    [
        (
            136_677,
            [104323, 11053, 111295, 50587, 126873],
            [2057, 37808, 126893, 69107, 134933],
            "5fbbf6d5a5dc3abff66dd4b3b9b6bfe42d58ea9c5db2643d47ce779266a732d1",
        ),
        (
            463_435,
            [73549, 4588, 373646, 74537, 3872],
            [423901, 389037, 238956, 331251, 134933],
            "376ddb7981a9cec320c9b4a00a2d92ba0bb401722da5386a0d029d19c6596afc",
        ),
        (
            571_355,
            [135622, 434311, 184522, 512939, 266862],
            [463579, 562096, 423901, 389037, 134933],
            "38fb87c545dd3d40d132c1bf053c145091dc3fec4b2826ebfbf0f59664b8ded3",
        ),
    ],
    ids=["ml-20m", "netflix", "msd"],
)
def test_users_are_permuted_as_in_the_papers(n_users, first, last, sha256):
    # Users 0, 1, ... with five events each: the ids in the split's order are the permutation itself.
    interactions = Interactions(
        users=np.repeat(np.arange(n_users, dtype=np.int32), 5),
        items=np.tile(np.arange(5, dtype=np.int32), n_users),
        values=np.ones(5 * n_users, dtype=np.float32),
        user_ids=np.arange(n_users),
        item_ids=np.arange(5),
    )
    split = strong_generalization(interactions, StrongGeneralizationSettings(held_out_users=100))
    ids = np.concatenate([split.user_ids, split.validation.user_ids, split.test.user_ids])
    assert ids[:5].tolist() == first
    assert ids[-5:].tolist() == last
    assert hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest() == sha256


@budget(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(0, 4),
    st.integers(0, 7),
    st.integers(1, 12),
    st.sampled_from([None, 3]),
)
def test_every_event_is_on_one_side_or_accounted_for(seed, min_users, min_items, held_out, min_rating):
    interactions = some_events(seed=seed, density=0.15)
    try:
        split = strong_generalization(
            interactions,
            StrongGeneralizationSettings(
                min_rating=min_rating,
                min_users_per_item=min_users,
                min_items_per_user=min_items,
                held_out_users=held_out,
            ),
        )
    except InputError as error:
        known = ("item to hold out", "expected more than", "passes the filters")
        assert any(reason in str(error) for reason in known)
        return
    groups = [split.validation, split.test]
    ids = [set(part.tolist()) for part in (split.user_ids, *(group.user_ids for group in groups))]
    assert not (ids[0] & ids[1] or ids[0] & ids[2] or ids[1] & ids[2])
    assert [len(part) for part in ids[1:]] == [held_out, held_out]

    users, items, values = interactions.users, interactions.items, interactions.values
    events = pd.DataFrame({"user": interactions.user_ids[users], "item": interactions.item_ids[items], "value": values})
    if min_rating is not None:
        events = events[events["value"] >= min_rating]
    events = events[events["item"].map(events["item"].value_counts()) >= min_users]
    events = events[events["user"].map(events["user"].value_counts()) >= min_items]
    assert set.union(*ids) == set(events["user"])
    trained = events[events["user"].isin(ids[0])]
    assert split.item_ids.tolist() == trained["item"].unique().tolist()
    assert pairs(split.train, split.user_ids, split.item_ids) == set(
        trained[["user", "item"]].itertuples(index=False, name=None)
    )
    for group, name, own_ids in zip(groups, ("validation", "test"), ids[1:], strict=True):
        fold_in = pairs(group.history, group.user_ids, split.item_ids)
        targets = pairs(group.targets, group.user_ids, split.item_ids)
        own = events[events["user"].isin(own_ids)]
        known = own[own["item"].isin(split.item_ids)]
        assert not fold_in & targets
        assert fold_in | targets == set(known[["user", "item"]].itertuples(index=False, name=None))
        assert split.counts[f"{name}_events_on_other_items"] == len(own) - len(known)
        sizes = np.diff(group.history.indptr) + np.diff(group.targets.indptr)
        expected = np.where(sizes >= 5, sizes // 5, 0)
        np.testing.assert_array_equal(np.diff(group.targets.indptr), expected)
        assert split.counts[f"{name}_users_without_targets"] == (expected == 0).sum()


def test_matrices_are_ready_for_models():
    split = strong_generalization(some_events(), StrongGeneralizationSettings(held_out_users=10))
    for group in (split.validation, split.test):
        for matrix in (split.train, group.history, group.targets):
            assert matrix.dtype == np.float32
            assert matrix.indices.dtype == matrix.indptr.dtype == np.int32
            assert (matrix.data == 1).all()
            assert matrix.shape[1] == split.n_items == len(split.titles)
            rows = matrix.tocoo().row
            assert (np.diff(rows * split.n_items + matrix.indices) > 0).all(), "sorted, none twice"
    assert split.titles.tolist() == [f"Film {item}" for item in split.item_ids]


def test_filters_run_once_and_in_order():
    # Item 9 goes (one user), then user 4 (four items left). Item 8 is then down to one user, and stays.
    events = [(user, item) for user in (1, 2, 3, 5) for item in range(5)] + [(4, item) for item in (0, 1, 2, 8, 9)]
    events.append((1, 8))
    users, items = zip(*events, strict=True)
    settings = StrongGeneralizationSettings(min_users_per_item=2, held_out_users=1)
    report = strong_generalization(Interactions.from_events(users, items), settings).counts
    expected = {
        "events_read": 26,
        "events_below_min_rating": 0,
        "events_of_dropped_items": 1,
        "events_of_dropped_users": 4,
        "events": 21,
        "users": 4,
        "items": 6,
        "density": 21 / 24,
        "train_users": 2,
    }
    assert {name: report[name] for name in expected} == expected


def test_ratings_are_filtered_before_users_are_counted():
    # User 0 has five events, of which one is disliked: too few likes.
    users, items = np.repeat(np.arange(6), 5), np.tile(np.arange(5), 6)
    ratings = np.r_[1, np.full(29, 4)]
    settings = StrongGeneralizationSettings(min_rating=4, held_out_users=1)
    split = strong_generalization(Interactions.from_events(users, items, ratings), settings)
    ids = np.concatenate([split.user_ids, split.validation.user_ids, split.test.user_ids])
    assert sorted(ids.tolist()) == [1, 2, 3, 4, 5]
    assert (split.counts["events_below_min_rating"], split.counts["events_of_dropped_users"]) == (1, 4)


def test_users_without_targets_keep_their_rows():
    # Every user has five items; three are all his own, so that two are left of a held-out one's, unless ...
    n = 30
    users = np.repeat(np.arange(n), 5)
    items = np.array([[0, 1, 1000 + u, 2000 + u, 3000 + u] if u % 2 else [0, 1, 2, 3, 4] for u in range(n)])
    split = strong_generalization(
        Interactions.from_events(users, items.ravel()), StrongGeneralizationSettings(held_out_users=8)
    )
    for group, name in ((split.validation, "validation"), (split.test, "test")):
        odd = group.user_ids % 2 == 1
        assert 0 < odd.sum() < 8, "the seed draws users of both kinds"
        assert group.history.shape == group.targets.shape == (8, split.n_items)
        np.testing.assert_array_equal(np.diff(group.targets.indptr), np.where(odd, 0, 1))
        np.testing.assert_array_equal(np.diff(group.history.indptr), np.where(odd, 2, 4))
        assert split.counts[f"{name}_users_without_targets"] == odd.sum()
        assert split.counts[f"{name}_users_without_fold_in"] == 0


def test_draws_restart_for_test_users():
    # All users have ten items: with the seed set anew, the draws for test repeat those for validation.
    users, items = np.repeat(np.arange(40), 10), np.tile(np.arange(10), 40)
    split = strong_generalization(
        Interactions.from_events(users, items), StrongGeneralizationSettings(held_out_users=15)
    )
    by_id = [group.targets.toarray()[np.argsort(group.user_ids)] for group in (split.validation, split.test)]
    np.testing.assert_array_equal(*by_id)
    assert len(np.unique(by_id[0], axis=0)) > 5, "but users differ"


def test_another_seed_gives_another_split_and_another_digest():
    interactions = some_events()
    settings = StrongGeneralizationSettings(held_out_users=10)
    a, again = strong_generalization(interactions, settings), strong_generalization(interactions, settings)
    b = strong_generalization(interactions, settings.model_copy(update={"seed": 1}))
    other = strong_generalization(some_events(seed=1), settings)
    assert_same_arrays(a, again)
    assert len({a.digest, b.digest, other.digest}) == 3
    assert a.validation.user_ids.tolist() != b.validation.user_ids.tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"held_out_users": 30}, "expected more than 60 users .* found 60 .* fewer than half"),
        ({"held_out_users": 1, "min_rating": 6}, "none of .* events passes .* min_rating=6"),
        ({"held_out_users": 1, "min_users_per_item": 61}, "fewer than min_users_per_item=61"),
        ({"held_out_users": 1, "min_items_per_user": 41}, "fewer than min_items_per_user=41"),
        ({"held_out_users": 2, "holdout_fraction": 0.01}, "none of the 2 validation users has an item to"),
    ],
)
def test_empty_splits_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        strong_generalization(some_events(), StrongGeneralizationSettings(**settings))


def test_leaks_are_refused():
    split = strong_generalization(some_events(), StrongGeneralizationSettings(held_out_users=10))
    group = split.validation
    with pytest.raises(InputError, match="both fold-in and target"):
        HeldOutUsers(group.history, group.history, group.user_ids)
    with pytest.raises(InputError, match="one shape"):
        HeldOutUsers(group.history, group.targets[:5], group.user_ids)
    with pytest.raises(InputError, match="two groups"):
        dataclasses.replace(split, test=group)
    with pytest.raises(InputError, match="columns"):
        dataclasses.replace(split, item_ids=split.item_ids[1:])


# -- rating hold-out


@budget(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.05, 0.9), st.integers(0, 99))
def test_ratings_are_in_train_or_in_test(seed, fraction, split_seed):
    interactions = some_events(seed=seed, ratings=(0, 1, 2))
    split = rating_holdout(interactions, RatingHoldoutSettings(test_fraction=fraction, seed=split_seed))
    assert split.train.nnz == int((1 - fraction) * interactions.n_events)
    assert split.train.nnz + split.test.targets.nnz == interactions.n_events, "a rating of zero is a rating"
    rows, columns, values = split.test.triples()
    train = split.train.tocoo()
    whole = {(r, c): v for r, c, v in zip(train.row, train.col, train.data, strict=True)}
    test = {(r, c): v for r, c, v in zip(rows, columns, values, strict=True)}
    assert not whole.keys() & test.keys()
    in_file = zip(interactions.users, interactions.items, interactions.values, strict=True)
    assert whole | test == {(user, item): value for user, item, value in in_file}
    assert split.train.dtype == np.float32 and split.train.indices.dtype == np.int32
    cold = set(columns.tolist()) - set(train.col.tolist())
    assert split.counts["cold_items"] == len(cold)
    assert split.counts["test_ratings_of_cold_items"] == np.isin(columns, list(cold)).sum()
    assert split.counts["cold_users"] == len(set(rows.tolist()) - set(train.row.tolist()))


def test_the_last_of_the_permuted_ratings_are_for_test():
    # RandomState(0).permutation(10) ends in 3; with a fraction of 0.1 that rating alone is held out.
    assert np.random.RandomState(0).permutation(10).tolist() == [2, 8, 4, 9, 1, 6, 7, 3, 0, 5]
    interactions = Interactions.from_events(np.arange(10)[::-1], np.zeros(10, int), np.arange(10))
    split = rating_holdout(interactions)
    assert [part.tolist() for part in split.test.triples()] == [[4], [0], [5]]


def test_too_few_ratings_to_hold_out():
    with pytest.raises(InputError, match="found 1 for test_fraction=0.1"):
        rating_holdout(Interactions.from_events([1], [1], [3.0]))


@needs_ml_1m
def test_ml_1m_global_mean_and_counts():
    interactions = Interactions.from_frame(pd.read_csv(ML_1M), user="userId", item="movieId", rating="rating")
    assert (interactions.n_events, interactions.n_users, interactions.n_items) == (1_000_209, 6_040, 3_706)
    errors, cold_items, cold_ratings = [], [], []
    for seed in range(5):
        split = rating_holdout(interactions, RatingHoldoutSettings(seed=seed))
        values = split.test.targets.data.astype(np.float64)
        errors.append(np.sqrt(np.mean((values - split.train.data.mean(dtype=np.float64)) ** 2)))
        cold_items.append(split.counts["cold_items"])
        cold_ratings.append(split.counts["test_ratings_of_cold_items"])
        assert split.counts["test_ratings"] == 100_021
        assert split.counts["cold_users"] == 0
    assert round(float(np.mean(errors)), 3) == 1.117
    assert round(float(np.std(errors, ddof=1)), 4) == 0.0024
    assert (min(cold_items), max(cold_items), min(cold_ratings), max(cold_ratings)) == (7, 12, 9, 13)

    settings = StrongGeneralizationSettings(min_rating=4, held_out_users=1000)
    report = strong_generalization(interactions, settings).counts
    assert (report["events"], report["users"], report["items"]) == (575_272, 6_034, 3_533)


# -- saving


@pytest.mark.parametrize("text_ids", [False, True])
@pytest.mark.parametrize("kind", ["strong-generalization", "rating-holdout", "leave-one-out", "weak-generalization"])
def test_a_saved_split_comes_back_equal(kind, text_ids, tmp_path):
    interactions = some_events()
    if text_ids:
        users, items, values = interactions.users, interactions.items, interactions.values
        names = [np.char.add(letter, ids.astype(str)) for letter, ids in zip("ui", (users, items), strict=True)]
        interactions = Interactions.from_events(*names, values)
    split = {
        "strong-generalization": lambda: strong_generalization(
            interactions, StrongGeneralizationSettings(held_out_users=10, min_rating=2)
        ),
        "rating-holdout": lambda: rating_holdout(interactions),
        "leave-one-out": lambda: leave_one_out(interactions, LeaveOneOutSettings(n_negatives=2)),
        "weak-generalization": lambda: weak_generalization(interactions),
    }[kind]()
    assert split.protocol == kind
    assert split.save(tmp_path / "a.npz") == tmp_path / "a.npz"
    assert split.save(tmp_path / "folder") == tmp_path / "folder" / "split.npz"
    for path in (tmp_path / "a.npz", tmp_path / "folder"):
        loaded = load_split(path)
        assert type(loaded) is type(split)
        assert_same_arrays(split, loaded)
    assert_same_arrays(split, type(split).load(tmp_path / "folder"))


def test_files_that_are_no_splits(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_split(tmp_path / "missing.npz")
    (tmp_path / "text.npz").write_text("uid,sid")
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    rating_holdout(some_events()).save(tmp_path / "ratings.npz")
    whole = (tmp_path / "ratings.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    for name in ("text", "other", "half"):
        with pytest.raises(InputError, match=f"{name}.npz cannot be read as a split saved by"):
            load_split(tmp_path / f"{name}.npz")
    with pytest.raises(InputError, match="expected a split of kind 'leave-one-out', found 'rating-holdout'"):
        LeaveOneOut.load(tmp_path / "ratings.npz")
    note = {"kind": "rating-holdouts", "settings": None, "report": {}, "digest": "0"}
    np.savez(tmp_path / "note.npz", note=np.array(json.dumps(note)))
    with pytest.raises(InputError, match="did you mean 'rating-holdout'"):
        load_split(tmp_path / "note.npz")


@pytest.mark.parametrize(
    "settings",
    [
        lambda: StrongGeneralizationSettings(),
        lambda: StrongGeneralizationSettings(held_out_users=0),
        lambda: StrongGeneralizationSettings(held_out_users=5, held_out_user=5),
        lambda: RatingHoldoutSettings(test_fraction=1),
        lambda: LeaveOneOutSettings(min_items_per_user=1),
    ],
)
def test_senseless_settings_are_refused(settings):
    with pytest.raises(ValueError):
        settings()
