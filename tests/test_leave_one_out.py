"""Leave-one-out: the latest event, honest negatives, and the files of others as they are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from tfvae.data.interactions import Interactions
from tfvae.data.splits import LeaveOneOutSettings, leave_one_out, load_split
from tfvae.system.errors import InputError


def some_events(seed=0) -> Interactions:
    """Random events of 60 users and 40 items in random order, at random times."""
    random = np.random.RandomState(seed)
    users, items = random.permutation(np.argwhere(random.rand(60, 40) < 0.2)).T
    return Interactions.from_events(3 * users, 7 * items, timestamps=random.randint(50, size=users.size))


def test_the_latest_event_is_held_out():
    users = [1, 1, 1, 2, 2, 2, 3, 4, 4]
    items = [5, 6, 7, 5, 6, 7, 8, 7, 5]
    times = [3, 9, 4, 8, 8, 1, 1, 2, 2]  # users 2 and 4 have equals: the last in the file counts
    settings = LeaveOneOutSettings(n_negatives=1)
    by_time = leave_one_out(Interactions.from_events(users, items, timestamps=times), settings)
    by_file = leave_one_out(Interactions.from_events(users, items), settings)
    assert by_time.user_ids.tolist() == by_file.user_ids.tolist() == [1, 2, 4]
    assert by_time.item_ids[by_time.test.items].tolist() == [6, 6, 5]
    assert by_file.item_ids[by_file.test.items].tolist() == [7, 7, 5]
    np.testing.assert_array_equal(by_time.train.toarray(), [[1, 0, 1, 0], [1, 0, 1, 0], [0, 0, 1, 0]])
    np.testing.assert_array_equal(by_file.train.toarray(), [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]])
    assert by_time.counts["users_dropped"] == 1


@budget(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 99))
def test_negatives_are_items_the_user_never_met(seed, split_seed):
    interactions = some_events(seed)
    split = leave_one_out(interactions, LeaveOneOutSettings(n_negatives=4, seed=split_seed))
    met = np.zeros((interactions.n_users, interactions.n_items), bool)
    met[interactions.users, interactions.items] = True
    met = met[np.isin(interactions.user_ids, split.user_ids)]
    rows = np.arange(len(split.user_ids))
    assert split.test.negatives.shape == (len(rows), 4) and split.test.negatives.dtype == np.int32
    assert not met[rows[:, None], split.test.negatives].any()
    assert (np.diff(np.sort(split.test.negatives), axis=1) > 0).all(), "none twice"
    trained = split.train.toarray() > 0
    assert not trained[rows, split.test.items].any()
    trained[rows, split.test.items] = True
    np.testing.assert_array_equal(trained, met)
    assert split.counts["negatives_met_in_training"] == 0


def test_negatives_follow_the_seed():
    interactions = some_events()
    a, again, b = (leave_one_out(interactions, LeaveOneOutSettings(n_negatives=4, seed=s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(a.test.negatives, again.test.negatives)
    assert a.digest == again.digest != b.digest
    assert (a.test.negatives != b.test.negatives).any()
    np.testing.assert_array_equal(a.test.items, b.test.items)


def test_given_test_items_and_negatives():
    # Item 9 comes only as a test item, item 4 only as a negative; user 2's test item is among his negatives.
    interactions = Interactions.from_events(["b", "a", "a"], [6, 5, 7])
    split = leave_one_out(interactions, test_items=[9, 7], negatives=[[4, 6], [5, 7]])
    assert split.item_ids.tolist() == [4, 5, 6, 7, 9]
    assert split.user_ids.tolist() == ["a", "b"]
    assert split.item_ids[split.test.items].tolist() == [9, 7]
    assert split.item_ids[split.test.negatives].tolist() == [[4, 6], [5, 7]]
    np.testing.assert_array_equal(split.train.toarray(), [[0, 1, 0, 1, 0], [0, 0, 1, 0, 0]])
    assert split.counts["users_with_test_item_among_negatives"] == 1
    assert split.counts["users_without_training"] == 0


def test_given_test_items_leave_training_and_oddities_are_counted():
    interactions = Interactions.from_events([1, 1, 2], [5, 6, 5])
    split = leave_one_out(interactions, test_items=[6, 5], negatives=[[5], [6]])
    np.testing.assert_array_equal(split.train.toarray(), [[1, 0], [0, 0]])
    assert split.counts["users_without_training"] == 1
    assert split.counts["negatives_met_in_training"] == 1
    other = leave_one_out(interactions, test_items=[6, 5], negatives=[[6], [6]])
    assert split.digest != other.digest


def test_titles_of_given_items():
    titles = pd.DataFrame({"title": ["Heat", "Casino"]}, index=[5, 7])
    interactions = Interactions.from_events([1, 2], [5, 7], items=titles)
    split = leave_one_out(interactions, LeaveOneOutSettings(n_negatives=1), test_items=[6, 6])
    assert split.item_ids.tolist() == [5, 6, 7]
    assert split.titles.tolist() == ["Heat", "", "Casino"]


def test_given_ids_may_come_from_a_frame(tmp_path):
    interactions = Interactions.from_events(["b", "a"], ["x", "y"])
    given = pd.DataFrame({"test": ["z", "y"], "negative": ["x", "x"]})
    split = leave_one_out(interactions, test_items=given["test"], negatives=given[["negative"]])
    assert split.item_ids[split.test.items].tolist() == ["z", "y"]
    assert load_split(split.save(tmp_path)).item_ids.tolist() == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"negatives": [[1]]}, "only together with test items"),
        ({"test_items": [1]}, r"test items of shape \[2\].*found \[1\]"),
        ({"test_items": [1, 2], "negatives": [1, 2]}, r"negatives of shape \[2, n\]"),
        ({"test_items": ["x", "y"]}, "ids like those of the interactions"),
        ({"settings": LeaveOneOutSettings(n_negatives=3)}, "that user 1 never met.*found 1;"),
        ({"settings": LeaveOneOutSettings(min_items_per_user=4)}, "none of 2 users"),
    ],
)
def test_bad_leave_one_out(arguments, message):
    interactions = Interactions.from_events([1, 1, 2, 2, 2], [5, 6, 5, 6, 7])
    with pytest.raises(InputError, match=message):
        leave_one_out(interactions, **arguments)
