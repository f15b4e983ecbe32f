"""Weak generalisation: a share of every user's items is held out, drawn or given, and a part to choose by is inside."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from tfvae.data.interactions import Interactions
from tfvae.data.splits import WeakGeneralizationSettings, load_split, weak_generalization
from tfvae.system.errors import InputError

EVERYTHING = {"min_items_per_user": 0}


def some_events(seed=0, share=0.2) -> Interactions:
    """Random events of 60 users and 40 items, in random order."""
    random = np.random.RandomState(seed)
    users, items = random.permutation(np.argwhere(random.rand(60, 40) < share)).T
    return Interactions.from_events(3 * users, 7 * items, random.randint(1, 6, users.size))


def pairs(split, matrix) -> set[tuple[int, int]]:
    """The ids of a matrix's entries."""
    places = matrix.tocoo()
    return set(zip(split.user_ids[places.row].tolist(), split.item_ids[places.col].tolist(), strict=True))


def pairs_of(events: Interactions) -> set[tuple[int, int]]:
    users, items = events.user_ids[events.users].tolist(), events.item_ids[events.items].tolist()
    return set(zip(users, items, strict=True))


@budget(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 2**32 - 1), st.floats(0.01, 0.7))
def test_every_event_is_trained_on_or_held_out_and_a_search_sees_none_of_the_latter(data, seed, fraction):
    events = some_events(data)
    split = weak_generalization(
        events, WeakGeneralizationSettings(holdout_fraction=fraction, seed=seed, validation_fraction=0.3, **EVERYTHING)
    )
    train, test = pairs(split, split.train), pairs(split, split.test.targets)
    assert train | test == pairs_of(events) and not train & test
    n_items = np.diff(split.train.indptr) + np.diff(split.test.targets.indptr)
    expected = np.where(n_items > 1, np.maximum(1, (fraction * n_items).astype(int)), 0)
    np.testing.assert_array_equal(np.diff(split.test.targets.indptr), expected)
    part = split.for_tuning()
    inner, chosen = pairs(part, part.train), pairs(part, part.validation.targets)
    assert inner | chosen == train and not inner & chosen and part.test is None
    n_trained = np.diff(split.train.indptr)
    expected = np.where(n_trained > 1, np.maximum(1, (0.3 * n_trained).astype(int)), 0)
    np.testing.assert_array_equal(np.diff(part.validation.targets.indptr), expected)
    assert part.validation.history is part.train and split.test.history is split.train
    np.testing.assert_array_equal(part.user_ids, split.user_ids)


def test_the_draw_follows_the_seed_and_not_the_order_of_the_file():
    events = some_events()
    cut = [weak_generalization(events, WeakGeneralizationSettings(seed=seed)) for seed in (1, 1, 2)]
    held_out = [pairs(split, split.test.targets) for split in cut]
    assert held_out[0] == held_out[1] != held_out[2]
    assert cut[0].digest == cut[1].digest != cut[2].digest
    order = np.random.RandomState(5).permutation(events.n_events)
    users, items = events.user_ids[events.users[order]], events.item_ids[events.items[order]]
    again = weak_generalization(
        Interactions.from_events(users, items, events.values[order]), WeakGeneralizationSettings(seed=1)
    )
    assert pairs(again, again.test.targets) == held_out[0]
    drawn = [split.for_tuning().validation.targets for split in cut]
    assert pairs(cut[0], drawn[0]) == pairs(cut[1], drawn[1]) != pairs(cut[2], drawn[2])


def test_each_item_of_a_user_is_as_likely_to_be_held_out():
    events = Interactions.from_events(np.repeat(np.arange(4000), 5), np.tile(np.arange(5), 4000))
    split = weak_generalization(events)
    drawn = np.bincount(split.test.targets.indices, minlength=5)
    assert drawn.sum() == 4000
    assert np.abs(drawn - 800).max() < 5 * np.sqrt(4000 * 0.2 * 0.8)
    # The two draws have nothing to do with each other: the validation item is each of the four others as often.
    inner = split.for_tuning().validation.targets
    pairs_drawn = np.zeros((5, 5), int)
    np.add.at(pairs_drawn, (split.test.targets.indices, inner.indices), 1)
    others = pairs_drawn[~np.eye(5, dtype=bool)]
    assert np.abs(others - 200).max() < 5 * np.sqrt(4000 * 0.05 * 0.95)


def test_filters_come_first_and_are_counted():
    users = [1, 1, 1, 1, 1, 1, 2, 2, 2, 3]
    items = [1, 2, 3, 4, 5, 6, 1, 2, 3, 1]
    ratings = [5, 5, 5, 5, 5, 1, 5, 5, 5, 5]
    events = Interactions.from_events(users, items, ratings)
    settings = WeakGeneralizationSettings(min_rating=4, min_users_per_item=2, min_items_per_user=2)
    split = weak_generalization(events, settings)
    assert split.user_ids.tolist() == [1, 2] and split.item_ids.tolist() == [1, 2, 3]
    counts = {
        name: split.counts[name] for name in ("events_read", "events_below_min_rating", "events_of_dropped_items")
    }
    assert counts == {"events_read": 10, "events_below_min_rating": 1, "events_of_dropped_items": 2}
    assert split.counts["events_of_dropped_users"] == 1
    assert (split.counts["events"], split.counts["users"], split.counts["items"]) == (6, 2, 3)
    assert (split.counts["train_events"], split.counts["test_events"], split.counts["test_users"]) == (4, 2, 2)


def test_given_parts_are_taken_as_they_are():
    users = [1, 1, 1, 1, 2, 2, 3, 3, 3]
    items = [5, 6, 7, 8, 5, 9, 6, 7, 8]
    test = np.array([0, 0, 0, 1, 0, 1, 0, 0, 0], bool)
    validation = np.array([0, 1, 0, 0, 0, 0, 0, 0, 1], bool)
    events = Interactions.from_events(users, items)
    split = weak_generalization(events, WeakGeneralizationSettings(**EVERYTHING), test, validation)
    assert pairs(split, split.test.targets) == {(1, 8), (2, 9)}
    assert pairs(split, split.train) == {(1, 5), (1, 6), (1, 7), (2, 5), (3, 6), (3, 7), (3, 8)}
    part = split.for_tuning()
    assert pairs(part, part.validation.targets) == {(1, 6), (3, 8)}
    assert pairs(part, part.train) == {(1, 5), (1, 7), (2, 5), (3, 6), (3, 7)}
    assert part.given_validation is None and part.digest == split.tuning_digest != split.digest
    # Item 9 is only held out, and user 3 has nothing for test.
    assert split.counts["test_events_on_other_items"] == 1 and split.counts["users_without_test"] == 1
    assert split.counts["train_items"] == 4 and split.counts["items"] == 5
    drawn = weak_generalization(events, WeakGeneralizationSettings(**EVERYTHING), test)
    assert (drawn.train != split.train).nnz == 0 and drawn.digest != split.digest
    assert np.diff(drawn.for_tuning().validation.targets.indptr).tolist() == [1, 0, 1]


def test_titles_follow_their_items():
    titles = pd.DataFrame({"title": ["Heat", "Casino"]}, index=[6, 8])
    events = Interactions.from_events([1, 1, 1, 2], [5, 6, 8, 9], items=titles)
    split = weak_generalization(events, WeakGeneralizationSettings(min_items_per_user=2))
    assert split.item_ids.tolist() == [5, 6, 8] and split.titles.tolist() == ["", "Heat", "Casino"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"validation": [True, False, False, False, False]}, "only together with a test part"),
        ({"test": [True, False]}, r"for test a truth value for each of 5 events, found \(2,\)"),
        ({"test": [True] * 5}, "none of the 2 users has an item to train on"),
        ({"test": [False] * 5}, "none of the 2 users has an item to hold out"),
        (
            {"test": [True, False, False, False, False], "validation": [True, True, False, False, False]},
            "1 events are both for validation and for test",
        ),
        (
            {"test": [True, False, False, False, False], "validation": [False] * 5},
            "a validation part of training events, at least one",
        ),
        ({"settings": WeakGeneralizationSettings(min_items_per_user=4)}, "none of 5 events passes the filters"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    events = Interactions.from_events([1, 1, 2, 2, 2], [5, 6, 5, 6, 7])
    parts = {name: np.array(value) if isinstance(value, list) else value for name, value in arguments.items()}
    with pytest.raises(InputError, match=message):
        weak_generalization(events, **parts)


def test_users_of_one_item_can_choose_nothing():
    events = Interactions.from_events([1, 1, 2, 2], [5, 6, 5, 6])
    split = weak_generalization(events, WeakGeneralizationSettings(**EVERYTHING))
    assert split.train.nnz == 2
    with pytest.raises(InputError, match="no user has two training items"):
        split.for_tuning()


@pytest.mark.parametrize("given_parts", [False, True])
def test_it_comes_back_from_its_file(given_parts, tmp_path):
    events = some_events()
    place = np.arange(events.n_events)
    parts = {"test": place % 5 == 0, "validation": place % 7 == 1} if given_parts else {}
    parts = {name: part & ~(place % 35 == 15) for name, part in parts.items()}
    whole = weak_generalization(events, WeakGeneralizationSettings(min_rating=None, seed=3), **parts)
    for split in (whole, whole.for_tuning()):
        loaded = load_split(split.save(tmp_path / "split.npz"))
        assert (loaded.digest, loaded.counts, loaded.settings) == (split.digest, split.counts, split.settings)
        assert (loaded.train != split.train).nnz == 0
        for name in ("validation", "test"):
            ours, theirs = getattr(split, name), getattr(loaded, name)
            assert (ours is None) == (theirs is None)
            if ours is not None:
                assert (ours.targets != theirs.targets).nnz == 0 and theirs.history is loaded.train
        assert loaded.for_tuning().validation.targets.nnz if split is whole else loaded.test is None
        if split is whole:
            again, once = loaded.for_tuning().validation.targets, whole.for_tuning().validation.targets
            assert (again != once).nnz == 0


def test_a_file_with_a_validation_part_of_events_that_are_not_trained_on_is_refused(tmp_path):
    events = some_events()
    place = np.arange(events.n_events)
    split = weak_generalization(events, test=place % 5 == 0, validation=place % 5 == 1)
    arrays = split.arrays()
    held_out = {name.replace("test.", "given_validation."): array for name, array in arrays.items() if "test." in name}
    with pytest.raises(InputError, match="a validation part of training events"):
        type(split).restored(arrays | held_out, {"settings": {}, "report": {}, "digest": "x"})
