"""CSV as the world writes it, JSON lines and Parquet: read exactly, or refused by file and line in words of ours."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import logging
import lzma
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfvae.data import csv_files
from tfvae.data.interactions import Interactions
from tfvae.data.open_split import open_split
from tfvae.system.errors import InputError

PLAIN = "user,item,stars\nann,x,4.5\nbob,y,3\n"


def found(interactions: Interactions) -> list[tuple]:
    """The events, with the ids that the user wrote."""
    users, items = interactions.user_ids[interactions.users], interactions.item_ids[interactions.items]
    return list(zip(users.tolist(), items.tolist(), interactions.values.tolist(), strict=True))


EVENTS = [("ann", "x", 4.5), ("bob", "y", 3.0)]


@pytest.fixture
def read(tmp_path):
    def read(content: str | bytes, name: str = "events.csv", **options) -> Interactions:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return Interactions.from_file(tmp_path / name, **({"rating": "stars"} | options))

    return read


@pytest.mark.parametrize(
    "pack", [gzip.compress, lzma.compress, bz2.compress, lambda content: content], ids=["gzip", "xz", "bzip2", "plain"]
)
@pytest.mark.parametrize("name", ["events.csv", "events.csv.gz", "events.txt", "events"])
def test_compression_is_known_by_content_whatever_the_name(pack, name, read):
    assert found(read(pack(PLAIN.encode()), name)) == EVENTS


def test_a_zip_of_one_file_is_read_and_another_is_refused(read):
    for names in (["e.csv", "__MACOSX/e.csv"], ["a.csv", "b.csv"], ["[Content_Types].xml", "sheet.xml"]):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for name in names:
                archive.writestr(name, PLAIN)
        if "e.csv" in names:
            assert found(read(packed.getvalue())) == EVENTS
        else:
            with pytest.raises(InputError, match=r"expected one file in the zip, found 2|found a spreadsheet"):
                read(packed.getvalue())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_encodings_line_ends_and_delimiters_are_found(encoding, ending, delimiter, read, caplog):
    lines = ["user,item,stars", "andré,x,4.5", "bob,y,3"]
    content = ending.join(line.replace(",", delimiter) for line in lines)
    with caplog.at_level(logging.WARNING):
        assert found(read(content.encode(encoding))) == [("andré", "x", 4.5), ("bob", "y", 3.0)]
    assert ("read as Windows-1252" in caplog.text) == (encoding == "cp1252")


def test_the_delimiter_is_the_one_that_gives_the_columns_asked_for(read):
    assert found(read("user;item;stars,a,b,c,d\nann;x;4.5,,,,\n", rating=None)) == [("ann", "x", 1.0)]
    columns = {"user": "us,er", "item": "item", "rating": "st;ars"}
    assert found(read('"us,er","item","st;ars"\nann,x,4.5\n', **columns)) == [("ann", "x", 4.5)]
    assert found(read("us,er:item:st;ars\nann:x:4.5\n", delimiter=":", **columns)) == [("ann", "x", 4.5)]
    with pytest.raises(InputError, match="'nonsense' is no encoding of text"):
        read(PLAIN, encoding="nonsense")
    assert found(read("user,item,stars\nЖ,x,4.5\n".encode("cp1251"), encoding="cp1251")) == [("Ж", "x", 4.5)]
    for delimiter in ("::", '"', "§"):
        with pytest.raises(InputError, match="expected one ASCII character between fields"):
            read(PLAIN, delimiter=delimiter)


def test_a_decimal_comma_is_read_where_something_else_delimits(read, caplog):
    assert found(read("user;item;stars\nann;x;4,5\nbob;y;3\n")) == EVENTS
    assert "decimal comma" in caplog.text
    with pytest.raises(InputError, match="line 2: 3 fields expected, 4 found"):
        read("user,item,stars\nann,x,4,5\n")
    with pytest.raises(InputError, match="some ratings have a decimal comma and some a decimal point"):
        read("user;item;stars\nann;x;4,5\nbob;y;3.5\n")


def test_quoted_fields_hold_delimiters_quotes_and_line_breaks_in_files_of_several_blocks(read):
    remark = 'says ""fine"",\n\nand\r\nmore, '
    lines = [f'u{n % 50},"i,{n}",{n % 5 + 1},"{remark}{"x" * 300}"' for n in range(20_000)]
    events = read("user,item,stars,remark\n" + "\n".join(lines) + "\n")
    assert found(events) == [(f"u{n % 50}", f"i,{n}", n % 5 + 1.0) for n in range(20_000)]


def test_a_header_of_several_lines_after_blank_ones(read):
    assert found(read('\n\n"the\nuser",item,stars\nann,x,4.5\nbob,y,3\n', user="the\nuser")) == EVENTS


def test_a_field_longer_than_a_block(read):
    content = f'user,item,stars,remark\nann,x,4.5,"{"long " * 2_000_000}"\nbob,y,3,\n'
    assert len(content) > csv_files._CHUNK
    assert found(read(content)) == EVENTS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('user,item,stars,note\nann,x,4,"two\nlines"\nbob,y,bad,\n', "line 4: stars 'bad' is not a number"),
        ('user,item,stars,note\nann,x,4,"two\nlines"\n\nbob,y,1\n', "line 5: 4 fields expected, 3 found"),
        ('user,item,stars,note\nann,x,4,"two\nlines"\nbob,-,3,\nbob,-,3,\n,x,3,\n', "line 6: user '' is empty"),
        ('user,item,stars\nann,"x,4\nbob,y,3\n', "line 2: a field in double quotes is malformed or never closed"),
        ('user,item,stars\nann,"x\nbob,y","3"x\n', "line 2: a field in double quotes is malformed"),
        ('user,item,stars\nann,x,4\nbob,"y,3\ncat,"z,3\n', "line 3: a field in double quotes is malformed"),
        ("user,item,stars,stars\nann,x,4,5\n", "2 columns are called 'stars'; rename all but one"),
        ("1,31,2.5\n1,1029,3\n", "line 1: expected the names of the columns, among them 'user', 'item', 'stars'"),
        ("user,item,stars\nann,x,1_0\n", "line 2: stars '1_0' is not a number"),
        ("user,item,stars\nann,x,٣\n", "line 2: stars '٣' is not a number"),
        ("user,item,stars\nann,x,0x10\n", "line 2: stars '0x10' is not a number"),
        ("user,item,stars\nann,x,\n", "line 2: stars '' is not a number"),
        ("user,item,stars\nann,x,1e400\n", "line 2: rating 'inf' is no finite number"),
        (b"user,item,stars\nann,x\x81,4\n", "cannot be read"),
        (PLAIN.encode("utf-16")[:-1], "cannot be read"),
        (gzip.compress(PLAIN.encode(), mtime=0)[:-9], "cannot be read"),
        ('{"user": 1, "item": 2, "stars": 3}\n\n{"user": 1, "item": 3}\n', "line 3: no column 'stars'"),
        ('{"user": 1, "item": 2, "stars": NaN}\n', "line 1: expected a JSON object (NaN is not a number of JSON)"),
        ('{"user": 1, "item": 2, "stars": "3"}\n', "line 1: stars '3' is not a number"),
        ('{"user": 1, "item": 2, "stars": true}\n', "line 1: stars True is not a number"),
        ('{"user": 1, "user": 2, "item": 2, "stars": 1}\n', "a key comes twice"),
        ('{"user": 1, "item": [2], "stars": 1}\n', "item"),
        ('{"user": 1, "item": 2, "stars": 1}\n[1, 2]\n', "line 2: expected a JSON object"),
        ('{"user": 1, "item": 2, "stars": 1}\n{"user"\n', "line 2: expected a JSON object"),
        ("{" * 100_000, "line 1: expected a JSON object"),
        ('{"user": ' + "[" * 100_000, "line 1: expected a JSON object"),
        ('{"user": ' + "9" * 5_000 + "}", "line 1: expected a JSON object"),
    ],
)
def test_what_is_malformed_is_named_by_the_line_of_the_file(content, message, read):
    with pytest.raises(InputError) as caught:
        read(content)
    assert message in str(caught.value) and "events.csv" in str(caught.value)


def test_one_column_for_two_purposes_is_refused_from_every_source(read, tmp_path):
    frame = pd.DataFrame({"user": [1, 2], "item": [3, 4], "stars": [5, 5]})
    frame.to_parquet(tmp_path / "e.parquet")
    frame.to_json(tmp_path / "e.jsonl", orient="records", lines=True)
    frame.to_csv(tmp_path / "e.csv", index=False)
    for name in ("e.parquet", "e.jsonl", "e.csv"):
        with pytest.raises(InputError, match=f"{name}: the column 'item' is named for item and for rating"):
            Interactions.from_file(tmp_path / name, rating="item")
    with pytest.raises(InputError, match="'user' is named for user and for item"):
        Interactions.from_frame(frame, item="user")
    twice = pd.concat([frame, frame[["user"]]], axis=1)
    with pytest.raises(InputError, match="2 columns are called 'user'"):
        Interactions.from_frame(twice)


def test_parquet_is_read_packed_as_well(read):
    packed = io.BytesIO()
    pd.DataFrame({"user": ["ann", "bob"], "item": ["x", "y"], "stars": [4.5, 3.0]}).to_parquet(packed)
    assert found(read(gzip.compress(packed.getvalue()))) == found(read(packed.getvalue())) == EVENTS


def test_json_lines_keep_numbers_and_text_as_they_are_written(read):
    content = '{"user": "07", "item": 18446744073709551615, "stars": 4.5}\n{"stars": 3, "item": 1, "user": "7"}\n'
    events = read(content, "events.jsonl")
    assert events.user_ids.tolist() == ["07", "7"]
    assert events.item_ids.tolist() == ["1", "18446744073709551615"]
    assert events.values.tolist() == [4.5, 3.0]


def test_standard_input_is_a_file_like_others(monkeypatch):
    lines = [f"u{n // 5},i{n * 7 % 20}" for n in range(100)]
    content = gzip.compress("\n".join(["user,item", *lines]).encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    split = open_split("-", changes={"held_out_users": 2, "min_items_per_user": 1})
    assert split.counts["users"] == 20
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"user,item\n1,2,3\n")))
    with pytest.raises(InputError, match="^standard input, line 2: 2 fields expected"):
        Interactions.from_file("-")


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
names = text.map(lambda middle: f"<{middle}>")  # never empty, a number, or with white space at its ends


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.tuples(names, names, st.floats(-1e6, 1e6, width=32), text), min_size=1, max_size=12),
    delimiter=st.sampled_from(",;\t|"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
)
def test_any_csv_is_read_as_it_was_written(rows, delimiter, encoding, tmp_path_factory):
    path = tmp_path_factory.mktemp("csv") / "events.csv"
    with open(path, "w", newline="", encoding=encoding) as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["user", "item", "stars", "note"])
        writer.writerows(rows)
    events = Interactions.from_file(path, rating="stars")
    last = {(user, item): np.float32(stars) for user, item, stars, _ in rows}
    assert {(user, item): value for user, item, value in found(events)} == last


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=200) | text.map(lambda lines: json.dumps({"user": lines, "item": 1}).encode()))
def test_any_bytes_are_read_or_refused_in_words_of_ours(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("bytes") / "events.csv"
    path.write_bytes(b"user,item\n" + content if len(content) % 2 else content)
    try:
        assert Interactions.from_file(path).n_events >= 1
    except InputError as problem:
        assert "events.csv" in str(problem)
