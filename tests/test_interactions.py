"""Interactions: what goes in comes out, whatever it came from; what is wrong is said once and clearly."""

from __future__ import annotations

import gzip
import logging

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfvae.data.interactions import Interactions
from tfvae.system.errors import InputError

USERS, ITEMS = ["b", "a", "b", "c", "a"], [30, 7, 7, 100, 30]
RATINGS, TIMES = [1.0, 2.0, 3.0, 4.0, 5.0], [50, 40, 30, 20, 10]


@pytest.fixture
def five() -> Interactions:
    return Interactions.from_events(USERS, ITEMS, RATINGS, TIMES)


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame({"who": USERS, "what": ITEMS, "stars": RATINGS, "when": TIMES})


def test_events_keep_the_order_of_the_file(five):
    assert five.user_ids.tolist() == ["a", "b", "c"]
    assert five.item_ids.tolist() == [7, 30, 100]
    assert five.users.tolist() == [1, 0, 1, 2, 0]
    assert five.items.tolist() == [1, 0, 0, 2, 1]
    assert five.values.tolist() == RATINGS and five.timestamps.tolist() == TIMES
    assert (five.n_users, five.n_items, five.n_events, five.density) == (3, 3, 5, 5 / 9)


def test_events_are_grouped_by_user_in_file_order(five):
    indptr, order = five.by_user
    assert indptr.tolist() == [0, 2, 4, 5] and order.tolist() == [1, 4, 0, 2, 3]
    assert Interactions.from_events([1, 1, 2], [9, 3, 5]).by_user[1] is None
    assert Interactions.from_events([2, 2, 1], [9, 3, 5]).by_user[1].tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("arguments", "sha256"),
    [
        (
            {"user_ids": [2, 1, 2, 1, 3], "item_ids": [9, 7, 5, 9, 5], "values": RATINGS, "timestamps": TIMES},
            "83c869593da746f57aa09e3d46224de013024490003a1c5bd4a5104267d9d6a8",
        ),
        (
            {
                "user_ids": ["b", "a", "b"],
                "item_ids": ["x", "y", "z"],
                "items": pd.DataFrame({"title": ["X", "Z"]}, index=["x", "z"]),
                "users": pd.DataFrame({"age": [3.0, 4.0]}, index=["a", "b"]),
            },
            "64de86b582a8bf3ab162fa33851648e9a7573f5947c7855d46292fc69712b5cb",
        ),
        (
            {"user_ids": [1, 1, 2], "item_ids": [9, 3, 5]},
            "dc4a35a35788fc61bc049dbaf0b4f153a92e6dd1050e213cfdf77aebc214d9b9",
        ),
    ],
    ids=["interleaved", "features", "user by user"],
)
def test_digests_are_those_of_stored_runs(arguments, sha256):
    assert Interactions.from_events(**arguments).digest == sha256


def test_numbers_sort_numerically_and_strings_lexicographically():
    assert Interactions.from_events([10, 9], [1, 2]).user_ids.tolist() == [9, 10]
    assert Interactions.from_events(["10", "9"], [1, 2]).user_ids.tolist() == ["10", "9"]


pairs = st.lists(st.tuples(st.integers(0, 10), st.integers(0, 9)), min_size=1, unique=True)


@given(pairs)
def test_file_order_is_recovered(events):
    users, items = zip(*events, strict=True)
    found = Interactions.from_events(users, items, np.arange(len(events)))
    rows, columns, values = found.users, found.items, found.values
    assert found.user_ids[rows].tolist() == list(users)
    assert found.item_ids[columns].tolist() == list(items)
    assert values.tolist() == list(range(len(events)))


@pytest.mark.parametrize(
    ("policy", "values", "items"),
    [("last", [2, 3], [1, 0]), ("first", [1, 2], [0, 1]), ("sum", [4, 2], [0, 1])],
)
def test_duplicates_follow_the_policy_with_one_warning(policy, values, items, caplog):
    with caplog.at_level(logging.WARNING):
        found = Interactions.from_events([5, 5, 5], [0, 1, 0], [1, 2, 3], [10, 20, 30], duplicates=policy)
    assert found.values.tolist() == values
    assert found.items.tolist() == items
    assert len(found.timestamps) == 2
    assert len(caplog.records) == 1
    assert "1 repeated user-item pairs among 3 events" in caplog.text


def test_duplicates_can_be_refused_and_the_policy_is_checked():
    with pytest.raises(InputError, match="1 repeated user-item pairs"):
        Interactions.from_events([5, 5], [0, 0], duplicates="error")
    with pytest.raises(InputError, match="did you mean 'first'"):
        Interactions.from_events([5], [0], duplicates="frist")


def test_arrays_cannot_be_changed_and_the_callers_can():
    mine = np.arange(3)
    ratings = np.ones(3, np.float32)
    found = Interactions.from_events(mine, mine, ratings)
    with pytest.raises(ValueError, match="read-only"):
        found.values[0] = 2
    mine[0] = ratings[0] = 7


def test_features_and_titles_are_aligned_by_id():
    users = pd.DataFrame({"age": [30, 20]}, index=["b", "a"])
    items = pd.DataFrame({"title": ["Seven", "Unseen"], "year": [1995, 2000]}, index=[7, 8])
    found = Interactions.from_events(USERS, ITEMS, users=users, items=items)
    assert found.titles.tolist() == ["Seven", "", ""]
    np.testing.assert_array_equal(found.user_features["age"], [20, 30, np.nan])
    np.testing.assert_array_equal(found.item_features["year"], [1995, np.nan, np.nan])


def test_frame_csv_and_parquet_agree(five, frame, tmp_path):
    columns = {"user": "who", "item": "what", "rating": "stars", "timestamp": "when"}
    frame.to_csv(tmp_path / "e.csv", index=False)
    frame.to_csv(tmp_path / "e.tsv.xz", index=False, sep="\t")
    frame.to_parquet(tmp_path / "e.parquet")
    with gzip.open(tmp_path / "e.csv.gz", "wb") as file:
        file.write((tmp_path / "e.csv").read_bytes())
    for found in (
        Interactions.from_frame(frame, **columns),
        Interactions.from_csv(tmp_path / "e.csv", **columns),
        Interactions.from_csv(tmp_path / "e.csv.gz", **columns),
        Interactions.from_csv(tmp_path / "e.tsv.xz", delimiter="\t", **columns),
        Interactions.from_parquet(tmp_path / "e.parquet", **columns),
    ):
        assert found.digest == five.digest


def test_ids_in_text_are_numbers_only_if_all_are(tmp_path):
    (tmp_path / "e.csv").write_text('user,item,extra\n10,007,"a,b"\n9,12,c\n')
    found = Interactions.from_csv(tmp_path / "e.csv")
    assert found.user_ids.tolist() == [9, 10]
    assert found.item_ids.tolist() == ["007", "12"]
    assert found.values.tolist() == [1, 1]


@pytest.mark.parametrize("ids", [["x", "y"], [1, 2], [1.0, 2.0], np.array([1, 2], np.int32)])
@pytest.mark.parametrize("kind", ["category", None])
def test_ids_of_any_kind(ids, kind):
    found = Interactions.from_events(pd.Series(ids, dtype=kind), ids)
    assert found.user_ids.tolist() == found.item_ids.tolist() == list(ids)
    assert found.user_ids.dtype.kind in "iU"


def test_save_and_load_keep_everything(five, tmp_path):
    items = pd.DataFrame({"title": ["Seven"], "genre": ["thriller"]}, index=[7])
    for found in (five, Interactions.from_events(USERS, ITEMS, items=items)):
        found.save(tmp_path / "e.npz")
        again = Interactions.load(tmp_path / "e.npz")
        assert again.digest == found.digest
        assert again.user_ids.tolist() == found.user_ids.tolist()
        assert (again.titles is None) == (found.titles is None)
        assert list(again.item_features) == list(found.item_features)


def test_digest_depends_on_values_ids_and_file_order(five):
    others = [
        Interactions.from_events(USERS, ITEMS, [1, 2, 3, 4, 4], TIMES),
        Interactions.from_events(USERS, [30, 7, 7, 101, 30], RATINGS, TIMES),
        Interactions.from_events(["b", "b", "a", "c", "a"], [30, 7, 7, 100, 30], [1, 3, 2, 4, 5], [50, 30, 40, 20, 10]),
    ]
    assert len({five.digest, *(other.digest for other in others)}) == 4


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut off"])
def test_load_refuses_what_it_did_not_save(content, tmp_path):
    (tmp_path / "e.npz").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as saved interactions"):
        Interactions.load(tmp_path / "e.npz")


def test_load_refuses_a_pair_that_comes_twice(five, tmp_path):
    arrays = five._arrays() | {"users": np.zeros(five.n_events, np.int32), "items": np.zeros(five.n_events, np.int32)}
    np.savez(tmp_path / "e.npz", **arrays)
    with pytest.raises(InputError, match="each user-item pair once"):
        Interactions.load(tmp_path / "e.npz")


def test_load_refuses_other_arrays(tmp_path):
    np.savez(tmp_path / "e.npz", weights=np.ones(3))
    with pytest.raises(InputError, match="holds 'weights'"):
        Interactions.load(tmp_path / "e.npz")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty; expected events"),
        ("user,item,rating\n", "no data lines"),
        (
            "userId,item,rating\n1,2,3\n",
            "no column 'user'; found: 'userId', 'item', 'rating'; did you mean 'userId'",
        ),
        ("user,item,rating\n1,2,3\n\n1,3,good\n", "line 4: rating 'good' is not a number"),
        ("user,item,rating\n1,2,3\n,3,4\n", "line 3: user '' is empty"),
        ("user,item,rating\n1,2,3\n1,NaN,4\n", "line 3: item 'NaN' stands for a missing id"),
        ("user,item,rating\n1,2,3\n1,3\n", "line 3: 3 fields expected, 2 found in '1,3'"),
        ("user,item,rating\n1,2,3\n1,3,inf\n", "line 3: rating 'inf' is no finite number"),
    ],
)
def test_bad_csv_is_named_by_file_and_line(text, message, tmp_path):
    (tmp_path / "e.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        Interactions.from_csv(tmp_path / "e.csv", rating="rating")
    assert str(tmp_path / "e.csv") in str(caught.value)
    assert message in str(caught.value)


def test_absent_and_damaged_files_are_input_errors(tmp_path):
    (tmp_path / "e.csv.xz").write_bytes(b"not xz at all")
    (tmp_path / "e.csv.gz").write_bytes(gzip.compress(b"user,item\n1,2\n")[:-4])
    (tmp_path / "e.parquet").write_bytes(b"PAR1 not quite")
    for name, message in {"none.csv": "no such file", "e.csv.gz": "cannot be read", "e.csv.xz": "no column"}.items():
        with pytest.raises(InputError, match=f"{name}: {message}"):
            Interactions.from_csv(tmp_path / name)
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        Interactions.from_parquet(tmp_path / "e.parquet")


def test_bad_frames(frame, tmp_path):
    with pytest.raises(InputError, match="no column 'star'; found: .*; did you mean 'stars'"):
        Interactions.from_frame(frame, "who", "what", "star")
    frame.to_parquet(tmp_path / "e.parquet")
    with pytest.raises(InputError, match="e.parquet: no column 'user'"):
        Interactions.from_parquet(tmp_path / "e.parquet")
    with pytest.raises(InputError, match="event 2: rating 'good'"):
        Interactions.from_frame(frame.assign(stars=[1, "good", 2, 3, 4]), "who", "what", "stars")
    with pytest.raises(InputError, match="event 3: no user id"):
        Interactions.from_frame(frame.assign(who=["b", "a", None, "c", "a"]), "who", "what")
    with pytest.raises(InputError, match="item 1.5 is no whole number"):
        Interactions.from_frame(frame.assign(what=[1.5, 2, 3, 4, 5]), "who", "what")
    with pytest.raises(InputError, match="no interactions"):
        Interactions.from_frame(frame[:0], "who", "what")
    with pytest.raises(InputError, match=r"unequal lengths \[1, 2\]"):
        Interactions.from_events([1, 2], [1])


def test_datetimes_become_unix_seconds(frame):
    frame["when"] = pd.to_datetime(frame["when"], unit="s")
    assert Interactions.from_frame(frame, "who", "what", timestamp="when").timestamps.tolist() == TIMES
