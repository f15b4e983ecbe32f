"""Ids: what the user wrote, from every source alike, or a clear refusal before anything is trained."""

from __future__ import annotations

import csv
import datetime
import decimal
import re
import tracemalloc
import uuid

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfvae.data import ids
from tfvae.data.interactions import Interactions
from tfvae.data.splits import StrongGeneralizationSettings, strong_generalization
from tfvae.data.vae_cf import read_item_ids, read_vae_cf, write_vae_cf
from tfvae.system.errors import InputError


def as_csv(folder, items):
    with open(folder / "events.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(
            [("user", "item"), *((7, item) for item in items)]
        )
    return Interactions.from_csv(folder / "events.csv")


def as_parquet(folder, items):
    pq.write_table(pa.table({"user": pa.array([7] * len(items)), "item": items}), folder / "events.parquet")
    return Interactions.from_parquet(folder / "events.parquet")


def as_frame(folder, items):
    return Interactions.from_frame(pd.DataFrame({"user": 7, "item": items}))


def as_array(folder, items):
    return Interactions.from_events(np.full(len(items), 7), items)


def written(found: Interactions) -> list:
    """The item of each event, as Python's own."""
    return found.item_ids[found.items].tolist()


INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


@pytest.mark.parametrize("source", [as_csv, as_parquet, as_frame, as_array])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_whole_numbers_are_exact_whatever_their_type(dtype, source, tmp_path):
    items = np.array([np.iinfo(dtype).max, 3, 0, np.iinfo(dtype).min, 100], dtype)
    items = items[np.sort(np.unique(items, return_index=True)[1])]
    beyond = dtype == "uint64"  # needs more than 64 bits with sign: text, and so all of them
    assert written(source(tmp_path, items)) == [str(item) if beyond else int(item) for item in items]


@pytest.mark.parametrize("source", [as_csv, as_parquet, as_frame, as_array])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floating_point_whole_numbers_are_these_numbers(dtype, source, tmp_path):
    assert written(source(tmp_path, np.array([3, 1, 2], dtype))) == [3, 1, 2]
    for bad, why in ((1.5, "no whole number"), (np.inf, "no whole number"), (2.0**60, "exactly")):
        if source is not as_csv:  # which has no types, so that these are text there
            with pytest.raises(InputError, match=rf"event 2: item \S+ is .*{why}"):
                source(tmp_path, np.array([3, bad], dtype))


@pytest.mark.parametrize(
    "kind", ["Int64", "UInt64", "string", "category", "string[pyarrow]", "int64[pyarrow]", "object"]
)
def test_pandas_own_types(kind, tmp_path):
    for values in (["b", "a", "07"], [5, 3, 4]):
        if isinstance(values[0], str) != (kind in ("string", "string[pyarrow]")) and kind not in ("category", "object"):
            continue
        assert written(as_frame(tmp_path, pd.Series(values, dtype=kind))) == values


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_arrows_kinds_of_text(kind, tmp_path):
    assert written(as_parquet(tmp_path, pa.array(["b", "a", "07"], kind))) == ["b", "a", "07"]


def test_bytes_are_text_in_utf8(tmp_path):
    assert written(as_parquet(tmp_path, pa.array(["ä".encode(), b"b"]))) == ["ä", "b"]
    assert written(as_array(tmp_path, np.array([b"b", b"a"]))) == ["b", "a"]
    with pytest.raises(InputError, match="event 2: item .* is no text in UTF-8"):
        as_parquet(tmp_path, pa.array([b"a", b"\xff"]))


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (["10", "9", "-3"], [10, 9, -3]),
        (["1.0", "2.0"], [1, 2]),
        (["1", "2.0"], [1, 2]),
        (["007", "7"], ["007", "7"]),
        (["1e3", "2"], ["1e3", "2"]),
        (["-0", "2"], ["-0", "2"]),
        (["+2", "3"], ["+2", "3"]),
        (["٣", "2"], ["٣", "2"]),
        (["1", "1.0", "x"], ["1", "1.0", "x"]),
        (["9223372036854775808", "1"], ["9223372036854775808", "1"]),
        (["-9223372036854775808", "1"], [-9223372036854775808, 1]),
        (["10000000000000000000000000", "1"], ["10000000000000000000000000", "1"]),
        (["0x1F", "1"], ["0x1F", "1"]),
        (["a,b", 'say "hi"', "two\nlines"], ["a,b", 'say "hi"', "two\nlines"]),
    ],
)
def test_text_files_have_numbers_where_all_are_plain_ones(items, expected, tmp_path):
    assert written(as_csv(tmp_path, items)) == expected
    (tmp_path / "unique_sid.txt").write_text("".join(f"{item}\n" for item in items), newline="\n")
    if "two\nlines" not in items:
        assert read_item_ids(tmp_path / "unique_sid.txt").tolist() == expected


def test_text_in_a_typed_column_stays_text(tmp_path):
    for source in (as_parquet, as_frame, as_array):
        assert written(source(tmp_path, ["10", "9", "1.0"])) == ["10", "9", "1.0"]


@pytest.mark.parametrize(
    ("item", "why"),
    [
        ("", "empty|stands for a missing id"),
        ("nan", "empty|stands for a missing id"),
        ("NULL", "empty|stands for a missing id"),
        ("None", "stands for a missing id"),
        ("<NA>", "stands for a missing id"),
        (" 2", "white space at its ends"),
        ("2\t", "white space at its ends"),
        ("a\0", "NUL"),
        ("a\0b", "NUL"),
    ],
)
@pytest.mark.parametrize("source", [as_csv, as_parquet, as_frame, as_array])
def test_what_cannot_be_told_apart_or_given_back_is_refused_with_its_place(source, item, why, tmp_path):
    with pytest.raises(InputError, match=why) as error:
        source(tmp_path, ["first", item])
    if not (source is as_array and item == "a\0"):
        assert ("line 3" if source is as_csv else "event 2") in str(error.value)


def test_an_array_has_lost_the_nul_at_an_end_before_we_see_it(tmp_path):
    assert written(as_array(tmp_path, np.array(["a\0", "b"]))) == ["a", "b"]


@pytest.mark.parametrize("source", [as_csv, as_parquet, as_frame, as_array])
def test_the_number_that_pads_histories_is_no_id(source, tmp_path):
    with pytest.raises(InputError, match="item -1 is the number that pads|item '-1' is the number that pads"):
        source(tmp_path, [3, -1])
    assert written(source(tmp_path, [3, -2])) == [3, -2]


def test_two_spellings_of_one_number_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"line 4: item '1\.0' is another spelling"):
        as_csv(tmp_path, ["1", "2", "1.0"])


@pytest.mark.parametrize(
    "items",
    [
        [1, "1"],
        [True, False],
        [1, True],
        [decimal.Decimal(1), decimal.Decimal(2)],
        [uuid.UUID(int=1), uuid.UUID(int=2)],
        [datetime.date(2026, 1, 1)],
        [(1, 2), (3, 4)],
        [[1], [2]],
        [1 + 2j],
    ],
)
def test_other_kinds_of_values_are_refused(items):
    column = pd.Series(items, dtype=object)
    with pytest.raises(InputError, match="item"):
        Interactions.from_frame(pd.DataFrame({"user": range(len(items)), "item": column}))


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, pd.NaT])
def test_a_missing_id_is_refused_with_its_place(missing):
    with pytest.raises(InputError, match="event 2: no item id, and 1 are missing"):
        Interactions.from_events([1, 2], pd.Series([5, missing], dtype=object))


def test_large_numbers_in_objects_are_exact(tmp_path):
    assert written(as_frame(tmp_path, pd.Series([2**70, 1], dtype=object))) == [str(2**70), "1"]
    assert written(as_frame(tmp_path, pd.Series([2**62 + 1, 1], dtype=object))) == [2**62 + 1, 1]


# ---- whatever the text -----------------------------------------------------------------------------

letters = st.characters(exclude_categories=["Cs"])
names = st.lists(st.text(letters, min_size=1, max_size=6), min_size=1, max_size=12, unique=True)


@settings(max_examples=30)
@given(names)
def test_any_text_is_read_exactly_or_refused(tmp_path_factory, items):
    folder = tmp_path_factory.mktemp("ids")
    for source in (as_csv, as_parquet, as_frame):
        try:
            found = written(source(folder, items))
        except InputError:
            continue
        for name, item in zip(items, found, strict=True):
            assert name == item or (isinstance(item, int) and re.fullmatch(rf"{item}(\.0+)?", name))


@settings(max_examples=30)
@given(names)
def test_any_names_survive_a_vae_cf_folder_or_are_refused(tmp_path_factory, items):
    folder = tmp_path_factory.mktemp("names") / "folder"
    items = [f"{name}{number}" if name.strip() != name else name for number, name in enumerate(items)]
    users = np.repeat(np.arange(12), len(items))
    try:
        interactions = Interactions.from_events(users, items * 12)
        split = strong_generalization(
            interactions, StrongGeneralizationSettings(held_out_users=2, min_items_per_user=0)
        )
        write_vae_cf(split, folder)
    except InputError:
        assert not folder.exists()
        return
    assert read_vae_cf(folder).item_ids.tolist() == split.item_ids.tolist()


def test_a_line_separator_in_a_name_ends_no_line(tmp_path):
    items = [f"item\u2028{number}" for number in range(20)]
    interactions = Interactions.from_events(np.repeat(np.arange(30), 20), items * 30)
    split = strong_generalization(interactions, StrongGeneralizationSettings(held_out_users=5))
    write_vae_cf(split, tmp_path / "folder")
    assert read_vae_cf(tmp_path / "folder").item_ids.tolist() == split.item_ids.tolist()


@pytest.mark.parametrize("name", ["two\nlines", "7"])
def test_a_name_that_the_layout_cannot_hold_is_refused_before_anything_is_written(name, tmp_path):
    items = [name, *map(str, range(20, 29))] if name == "7" else [name, *"abcdefghi"]
    interactions = Interactions.from_events(np.repeat(np.arange(30), 10), items * 30)
    split = strong_generalization(interactions, StrongGeneralizationSettings(held_out_users=5))
    with pytest.raises(InputError, match="cannot hold item"):
        write_vae_cf(split, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_ids_of_a_list_come_once(tmp_path):
    with pytest.raises(InputError, match="line 3: item 'a' was given before"):
        ids.of_text(["a", "b", "a"], "item", "list", lambda number: f"line {number + 1}")


def test_one_id_far_longer_than_the_others_takes_memory_by_its_own_length(tmp_path):
    long = "x" * 5_000
    users = [*(f"user {n:05}" for n in range(50_000)), long]
    titles = pd.DataFrame({"title": ["t" * 100_000]}, index=[long])
    tracemalloc.start()
    found = Interactions.from_events(users, [*users[1:], users[0]], items=titles)
    found.save(tmp_path / "events.npz")
    read = Interactions.load(tmp_path / "events.npz")
    assert tracemalloc.get_traced_memory()[1] < 100e6  # at one width, the ids alone would take a gigabyte
    tracemalloc.stop()
    assert found.user_ids.tolist() == found.item_ids.tolist() == users
    assert read.user_ids.tolist() == users
    assert read.titles.tolist() == [""] * 50_000 + ["t" * 100_000]
    assert read.digest == found.digest != Interactions.from_events([*users[:-1], long[:-1]], users).digest


def test_numbers_of_thousands_of_digits_are_text_or_refused():
    digits = "1" + "0" * 5_000
    (found,) = Interactions.from_events([1], pd.Series([digits])).item_ids
    assert found == digits
    with pytest.raises(InputError, match="event 2: item 0x.*… has more than 4,096 bits"):
        Interactions.from_events([1, 2], [7, 10**5_000])
