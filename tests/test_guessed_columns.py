"""Columns of one's own file are recognised by usual names, which is said; what is not clear is refused."""

from __future__ import annotations

import io
import sys
from itertools import product

import numpy as np
import pandas as pd
import pytest
from ranking_examples import NUMBERS, items_of

from tfvae.data.column_names import KNOWN, STANDARD, guessed_events
from tfvae.data.histories import Histories
from tfvae.data.open_split import open_split
from tfvae.system.errors import InputError

ALL = tuple(STANDARD)


@pytest.fixture
def frame() -> pd.DataFrame:
    """40 users with 8 of 30 items each."""
    draw = np.random.default_rng(1)
    users = np.repeat(np.arange(40), 8)
    items = np.concatenate([draw.choice(30, 8, replace=False) for _ in range(40)])
    ratings, times = draw.integers(1, 6, users.size), draw.permutation(users.size)
    return pd.DataFrame({"user": users, "item": items, "rating": ratings, "timestamp": times})


def guessed(tmp_path, header, named=None, wanted=ALL):
    (tmp_path / "own.csv").write_text(f"{header}\n1,2,3,4,5\n")
    return guessed_events(tmp_path / "own.csv", named or {}, wanted)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("uid,sku,stars,date", "uid sku stars date"),
        ("reviewerID,asin,overall,unixReviewTime", "reviewerID asin overall unixReviewTime"),
        ("userId,movieId,rating,timestamp", "userId movieId rating timestamp"),
        ("Customer ID,Product-Id,Score,created_at", "Customer ID,Product-Id,Score,created_at"),
        ("VISITOR_ID,ARTICLE,value,ts", "VISITOR_ID ARTICLE value ts"),
        ("time,rating,item,user", "user item rating time"),
        ("id,user_id,item_id,rating,ts", "user_id item_id rating ts"),  # an event's own id is nobody's
    ],
)
def test_usual_names_are_recognised_however_they_are_written(header, expected, tmp_path):
    names = expected.split("," if "," in expected else " ")
    assert guessed(tmp_path, header) == dict(zip(ALL, names, strict=True))


def test_no_name_is_usual_for_two_purposes():
    assert all(not KNOWN[one] & KNOWN[other] for one, other in product(ALL, ALL) if one != other)
    assert all(name == "".join(filter(str.isalnum, name)).casefold() for names in KNOWN.values() for name in names)


def test_what_is_guessed_is_said_in_one_line_and_nothing_is_said_of_the_standard_names(tmp_path, caplog):
    guessed(tmp_path, "uid,sku,stars,date")
    assert caplog.messages == [
        "own.csv: columns: user = uid, item = sku, rating = stars, time = date; name them by --user-col, --item-col, "
        "--rating-col, --time-col if that is wrong"
    ]
    caplog.clear()
    guessed(tmp_path, "uid,item,stars", {"user": "uid"}, ("user", "item"))
    guessed(tmp_path, "user,item,stars,date", wanted=("user", "item"))
    guessed(tmp_path, "uid,sku", {"user": "uid", "item": "sku"}, ("user", "item"))
    assert not caplog.messages


def test_two_candidates_are_refused_unless_one_has_the_standard_name(tmp_path):
    with pytest.raises(InputError, match=r"'uid' and 'Member ID' could all be the column of user ids.*--user-col"):
        guessed(tmp_path, "uid,Member ID,sku")
    with pytest.raises(InputError, match=r"'time' and 'date' could all be the column of times.*--time-col"):
        guessed(tmp_path, "user,item,time,date")
    assert guessed(tmp_path, "user_id,user,item,movie_id,timestamp,date", wanted=("user", "item", "timestamp")) == {
        "user": "user",
        "item": "item",
        "timestamp": "timestamp",
    }
    ids = ("user", "item")
    assert guessed(tmp_path, "uid,member,sku", {"user": "member"}, ids) == {"user": "member", "item": "sku"}
    assert guessed(tmp_path, "user,item,time,date", wanted=ids) == {"user": "user", "item": "item"}


def test_a_column_that_was_named_is_not_guessed_again(tmp_path):
    assert guessed(tmp_path, "uid,sku,score", {"item": "score"}, ("user", "item")) == {"user": "uid", "item": "score"}


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_a_file_is_cut_alike_whether_its_columns_are_named_or_guessed(suffix, frame, tmp_path):
    path, names = tmp_path / f"own.{suffix}", {"user": "uid", "item": "SKU", "rating": "stars", "timestamp": "date"}
    frame = frame.rename(columns=names)
    {
        "csv": lambda: frame.to_csv(path, index=False),
        "tsv": lambda: frame.to_csv(path, index=False, sep="\t"),
        "jsonl": lambda: frame.to_json(path, orient="records", lines=True),
        "parquet": lambda: frame.to_parquet(path),
    }[suffix]()
    needed = {
        "strong-generalization": ("user", "item"),
        "weak-generalization": ("user", "item"),
        "rating-holdout": ("user", "item", "rating"),
        "leave-one-out": ("user", "item", "timestamp"),
    }
    for protocol, purposes in needed.items():
        changes = {"n_negatives": 5} if protocol == "leave-one-out" else {}
        named = {purpose: names[purpose] for purpose in purposes}
        found = open_split(path, protocol=protocol, changes=changes)
        assert found.digest == open_split(path, protocol=protocol, changes=changes, columns=named).digest
    liked = open_split(path, changes={"min_rating": 2})
    assert liked.settings.min_rating == 2 and liked.train.nnz < open_split(path).train.nnz


def test_standard_input_is_guessed_too(frame, tmp_path, monkeypatch):
    text = frame.rename(columns={"user": "uid", "item": "sku"}).to_csv(index=False)
    (tmp_path / "own.csv").write_text(text)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert open_split("-").digest == open_split(tmp_path / "own.csv").digest


@pytest.mark.parametrize(
    ("header", "options", "message"),
    [
        ("who,what", {}, "no column 'user'; found: 'who', 'what'"),
        ("uid,what", {}, "no column 'item'; found: 'uid', 'what'"),
        ("uid,sku", {"changes": {"min_rating": 4}}, r"min_rating=4 needs ratings; name their column \(--rating-col\)"),
        ("uid,sku", {"protocol": "rating-holdout"}, r"needs ratings; name their column \(--rating-col\)"),
        ("uid,sku", {"columns": {"timestamp": "when"}}, "only leave-one-out asks for times"),
        ("1,2", {}, "line 1: expected the names of the columns"),
    ],
)
def test_where_nothing_is_recognised_it_is_refused(header, options, message, tmp_path):
    (tmp_path / "own.csv").write_text(f"{header}\n1,2\n")
    with pytest.raises(InputError, match=message):
        open_split(tmp_path / "own.csv", **options)


def test_histories_are_guessed_too(tmp_path, caplog):
    file = tmp_path / "new.csv"
    file.write_text(f"uid,sku,stars\n5,{NUMBERS[0]},5\n5,{NUMBERS[1]},1\n")
    assert Histories.from_file(file, items_of(NUMBERS)).matrix.nnz == 2
    assert "new.csv: columns: user = uid, item = sku; name them by" in caplog.text
    assert Histories.from_file(file, items_of(NUMBERS), min_rating=4).matrix.nnz == 1
    assert Histories.from_file(file, items_of(NUMBERS, rates=True)).matrix.data.tolist() == [5, 1]
