"""The raw formats under Hypothesis: what is written is read back equal, any text is refused or read as it stands."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

import numpy as np
import pytest
import slow_parsers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from readers import READERS

from tfvae.system.errors import TfvaeError

FORMATS = list(slow_parsers.EXAMPLES)
# One folder serves all examples of a test; each example writes its file anew.
any_file = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])

ids = st.integers(0, 2**31 - 1)
ratings = st.floats(0, 2.0**60, width=32).map(lambda value: np.format_float_positional(np.float32(value), trim="-"))
times = st.integers(0, 2**63 - 1)
events = st.lists(st.tuples(ids, ids, ratings, times), min_size=1, max_size=12)
ends = st.sampled_from(["\n", "\r\n", "\n\n"])
title = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), min_size=1)


def read(name: str, folder: Path, content: bytes):
    """What the reader makes of a file, and that the slow parser agrees."""
    (folder / "raw").write_bytes(content)
    found = READERS[name].read(folder)
    READERS[name].check(found, {"raw": content})
    return found


@pytest.mark.parametrize(
    ("name", "head", "between"),
    [("double_colon", "", "::"), ("movielens_csv", "userId,movieId,rating,timestamp\n", ","), ("tabbed", "", "\t")],
)
@any_file
@given(rows=events, end=ends)
def test_events_are_read_back_equal(name, head, between, rows, end, tmp_path):
    text = head + end.join(between.join(map(str, row)) for row in rows)
    found = read(name, tmp_path, text.encode())
    columns = [np.asarray(column).tolist() for column in found]
    expected = [(user, item, float(np.float32(rating)), time) for user, item, rating, time in rows]
    assert list(zip(*columns, strict=True)) == expected


@any_file
@given(rows=st.lists(st.tuples(st.from_regex("[0-9a-f]{1,8}z", fullmatch=True), st.text("SOAB'", min_size=1), ids)))
def test_triplets_are_read_back_equal(rows, tmp_path):
    content = "".join(f"{user}\t{song}\t{plays}\n" for user, song, plays in rows)
    if not rows:
        with pytest.raises(TfvaeError, match="raw"):
            read("triplets", tmp_path, content.encode())
        return
    found = read("triplets", tmp_path, content.encode())
    assert found.users.to_pylist() == [row[0] for row in rows]
    assert found.items.to_pylist() == [row[1] for row in rows]
    assert found.values.to_pylist() == [float(np.float32(row[2])) for row in rows]


dates = st.dates(datetime.date(1970, 1, 1), datetime.date(9999, 12, 31))
customers = st.lists(st.tuples(st.integers(1, 2**31 - 1), st.integers(1, 5), dates), max_size=5)


@any_file
@given(first=customers.filter(len), others=st.lists(st.tuples(ids, customers), max_size=4), end=ends)
def test_netflix_blocks_are_read_back_equal(first, others, end, tmp_path):
    blocks = [(1, first), *others]
    lines = [part for movie, rows in blocks for part in (f"{movie}:", *(",".join(map(str, row)) for row in rows))]
    found = read("netflix", tmp_path, end.join(lines).encode())
    assert found.items.tolist() == [movie for movie, rows in blocks for _ in rows]
    assert found.users.tolist() == [row[0] for _, rows in blocks for row in rows]
    midnights = [int((row[2] - datetime.date(1970, 1, 1)).total_seconds()) for _, rows in blocks for row in rows]
    assert found.timestamps.tolist() == midnights


@any_file
@given(titles=st.lists(title, min_size=1, max_size=6))
def test_titles_are_read_back_equal(titles, tmp_path):
    quoted = ['"' + name.replace('"', '""') + '"' for name in titles]
    content = "movieId,title,genres\n" + "".join(f"{number},{name},x\n" for number, name in enumerate(quoted))
    assert read("movies_csv", tmp_path, content.encode()).title.tolist() == titles
    plain = [name.replace("::", "") + "." for name in titles]
    content = "".join(f"{number}::{name}::Drama\n" for number, name in enumerate(plain))
    assert read("movies_dat", tmp_path, content.encode()).title.tolist() == plain


@pytest.mark.parametrize("name", FORMATS)
@any_file
@given(data=st.data())
def test_any_text_is_refused_or_read_as_it_stands(name, data, tmp_path):
    example = slow_parsers.EXAMPLES[name]
    letters = st.sampled_from([*sorted(set(example)), *"٣-+ _xe\0\u2028\ufeff\r"])
    line = st.text(letters, max_size=12)
    piece = st.sampled_from([*re.split(r"(\n)", example), *re.findall(r"\w+|\W", example)])
    content = "".join(data.draw(st.lists(st.one_of(piece, piece, line), max_size=30)))
    try:
        read(name, tmp_path, content.encode())
    except TfvaeError as problem:
        assert str(tmp_path / "raw") in str(problem)


@pytest.mark.parametrize(
    "number", ["0x102", "-1", " 5", "5 ", "+5", "1_000", "٣", "1e3", "-0", "1" * 5_000, str(10**25)]
)
@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("triplets",)])
def test_only_digits_are_an_id(name, number, tmp_path):
    example = slow_parsers.EXAMPLES[name]
    head, rows = example.split("\n", 1) if name == "movielens_csv" or name == "movies_csv" else ("", example)
    for place in (re.search(r"\d+(?!.*:\n)", rows), *re.finditer(r"(?<=::)\d{9}|(?<=,)\d{10}|(?<=\t)\d{9}", rows)):
        damaged = rows[: place.start()] + number + rows[place.end() :]
        with pytest.raises(TfvaeError, match="raw"):
            read(name, tmp_path, f"{head}\n{damaged}".lstrip("\n").encode())
