"""Columns that their names do not tell are taken by their contents if these leave no doubt; if not, it is asked."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfvae.data.column_contents import first_columns
from tfvae.data.column_names import guessed_events
from tfvae.data.open_split import open_split
from tfvae.system.errors import InputError

N_USERS, N_ITEMS, EACH = 40, 30, 8
USERS = np.repeat(np.arange(N_USERS), EACH)
ITEMS = np.concatenate([np.random.default_rng(user).choice(N_ITEMS, EACH, replace=False) for user in range(N_USERS)])
DRAW = np.random.default_rng(0)
DATES = pd.Series(pd.to_datetime(DRAW.integers(1.6e9, 1.7e9, USERS.size), unit="s"))
SECONDS = DATES.astype("datetime64[s]").astype("int64")
RATINGS = DRAW.choice([1, 2, 3, 4, 5], USERS.size, p=[0.1, 0.1, 0.2, 0.4, 0.2])
ADDRESSES = [f"p{user}@example.org" for user in USERS]
COLUMNS = {
    "who": USERS,
    "what": 100 + ITEMS,
    "dates": DATES.dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
    "days": DATES.dt.strftime("%Y-%m-%d"),
    "seconds": SECONDS,
    "milliseconds": SECONDS * 1000,
    "birth": pd.Series(DATES[USERS]).dt.strftime("%Y-%m-%d"),
    "release": pd.Series(DATES[ITEMS]).dt.strftime("%Y-%m-%d"),
    "order_number": SECONDS,
    "barcode": SECONDS[ITEMS] * 1000,
    "note": RATINGS,
    "halves": RATINGS / 2 + 2.5,
    "bought": DRAW.choice([1, 2, 3, 4, 5], USERS.size, p=[0.7, 0.1, 0.1, 0.05, 0.05]),
    "clicked": DRAW.integers(0, 2, USERS.size),
    "hours": DRAW.integers(0, 24, USERS.size),
    "rank of the store": RATINGS[USERS],
    "minutes": DRAW.random(USERS.size) * 90,
    "mail": ADDRESSES,
    "film": [f"tt{item:07}" for item in ITEMS],
    "product": [f"B0{item:08}" for item in ITEMS],
    "row": np.arange(USERS.size),
    "session": USERS // 2 * 7,
    "country": np.array(["at", "de", "fr"])[USERS % 3],
    "name of it": [f"film {item}" for item in ITEMS],
    "scores": DRAW.integers(-1, 2, USERS.size),
    "called": [f"film {item}" for item in ITEMS],
    "american": DATES.dt.strftime("%m/%d/%Y"),
    "year": 1990 + ITEMS,
    "compact": DATES.dt.strftime("%Y%m%d"),
}


def file_of(folder, names, suffix="csv", **renamed):
    """A file with these of the columns above, some under other names."""
    frame = pd.DataFrame({renamed.get(name, name): np.asarray(COLUMNS[name]) for name in names})
    path = folder / f"own.{suffix}"
    {
        "csv": lambda: frame.to_csv(path, index=False),
        "jsonl": lambda: frame.to_json(path, orient="records", lines=True),
        "parquet": lambda: frame.to_parquet(path),
    }[suffix]()
    return path


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("column", ["dates", "days", "seconds", "milliseconds"])
def test_the_only_times_of_events_are_taken_for_times(column, suffix, tmp_path, caplog):
    path = file_of(tmp_path, ["who", "what", column, "birth", "release", "order_number", "barcode"], suffix, who="user")
    found = guessed_events(path, {"item": "what"}, ("user", "item", "timestamp"))
    assert found == {"user": "user", "item": "what", "timestamp": column}
    assert f"own.{suffix}: times = {column}, since it alone has " in caplog.text and "--time-col" in caplog.text


@pytest.mark.parametrize("column", ["birth", "release", "order_number", "barcode", "year", "compact", "note"])
def test_what_is_no_time_of_an_event_is_not_taken_for_one(column, tmp_path, caplog):
    path = file_of(tmp_path, ["who", "what", column], who="user", what="item")
    assert guessed_events(path, {}, ("user", "item", "timestamp")) == {"user": "user", "item": "item"}
    assert not caplog.messages


def test_of_two_columns_of_times_one_must_be_named(tmp_path):
    path = file_of(tmp_path, ["who", "what", "dates", "seconds"], who="user", what="item")
    with pytest.raises(InputError, match=r"'dates' and 'seconds' could all be the column of times") as error:
        guessed_events(path, {}, ("user", "item", "timestamp"))
    assert str(error.value).endswith("Add to the command --time-col dates, or --time-col seconds")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("column", ["note", "halves"])
def test_the_only_numbers_on_a_scale_are_taken_for_ratings(column, suffix, tmp_path, caplog):
    names = ["who", "what", column, "bought", "clicked", "hours", "minutes", "rank of the store", "dates"]
    path = file_of(tmp_path, names, suffix, who="user", what="item")
    assert guessed_events(path, {}, ("user", "item", "rating"))["rating"] == column
    assert caplog.messages == [
        f"own.{suffix}: ratings = {column}, since it alone has numbers on the scale of ratings; name another by "
        "--rating-col if that is wrong"
    ]


@pytest.mark.parametrize("column", ["bought", "clicked", "hours", "minutes", "rank of the store", "year"])
def test_other_numbers_are_not_taken_for_ratings(column, tmp_path):
    path = file_of(tmp_path, ["who", "what", column], who="user", what="item")
    with pytest.raises(InputError, match=r"min_rating=4 needs ratings; name their column \(--rating-col\)"):
        open_split(path, changes={"min_rating": 4})


def test_a_column_on_a_scale_that_is_called_otherwise_is_not_taken_for_ratings(tmp_path):
    path = file_of(tmp_path, ["who", "what", "note"], who="user", what="item", note="Item Quantity")
    with pytest.raises(InputError, match="ratings are needed"):
        guessed_events(path, {}, ("user", "item", "rating"))


@pytest.mark.parametrize(
    ("names", "named", "expected"),
    [
        (["who", "what"], {"user": "who"}, {"item": "what"}),
        (["who", "what"], {"item": "what"}, {"user": "who"}),
        (["what", "dates", "note", "minutes", "row", "who"], {"user": "who"}, {"item": "what"}),
        (["mail", "what"], {}, {"user": "mail", "item": "what"}),
        (["who", "film", "dates"], {}, {"user": "who", "item": "film"}),
        (["mail", "film", "what", "name of it"], {}, {"user": "mail", "item": "film"}),
        (["who", "what", "product"], {"user": "who"}, {"item": "product"}),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_ids_are_taken_where_nothing_else_could_be_meant(names, named, expected, suffix, tmp_path, caplog):
    path = file_of(tmp_path, names, suffix)
    assert guessed_events(path, named, ("user", "item")) == named | expected
    assert len(caplog.messages) == len(expected)


@pytest.mark.parametrize(
    ("names", "named", "suggested"),
    [
        (["who", "what"], {}, "--user-col who --item-col what, or --user-col what --item-col who"),
        (["who", "what", "called"], {"user": "who"}, "--item-col what, or --item-col called"),
        (["who", "country"], {"user": "who"}, "--item-col COLUMN"),
        (["what", "who", "scores"], {}, "--user-col what --item-col who, or --user-col who --item-col what"),
        (["who", "dates"], {"user": "who"}, "--item-col COLUMN"),
        (["who", "compact", "american"], {"user": "who"}, "--item-col COLUMN"),
        (["who", "session"], {"user": "who"}, "--item-col session"),
        (["who", "mail"], {"user": "who"}, "--item-col COLUMN"),
        (["who", "what", "session", "row"], {}, "--user-col COLUMN --item-col COLUMN"),
    ],
)
def test_otherwise_it_is_asked_with_what_is_there(names, named, suggested, tmp_path):
    path = file_of(tmp_path, names)
    with pytest.raises(InputError, match="own.csv: no column '(user|item)'; found: 'wh") as error:
        guessed_events(path, named, ("user", "item"))
    _, first, *columns, last = str(error.value).splitlines()
    assert first == f"Columns, by their first values ({USERS.size}):"
    assert [line.split("  ")[1].strip() for line in columns] == names
    assert last == f"Add to the command {suggested}"
    if "who" in named.values():
        (line,) = [line for line in columns if line.startswith("  who")]
        assert line.endswith("0, 1, 2: whole numbers, 40 different; it is taken for user")


def test_few_rows_settle_nothing(tmp_path):
    (tmp_path / "own.csv").write_text("user,what\n1,2\n1,3\n2,3\n2,2\n")
    with pytest.raises(InputError, match="--item-col what"):
        guessed_events(tmp_path / "own.csv", {}, ("user", "item"))


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["who", "what", "note"], "user,item,rating"),
        (["who", "what", "seconds"], "user,item,timestamp"),
        (["film", "mail", "dates"], "user,item,timestamp"),
        (["country", "name of it"], "user,item"),
        (["who", "what", "bought"], "user,item,column3"),
    ],
)
def test_a_file_without_names_is_refused_and_the_advice_works(names, line, tmp_path):
    path = file_of(tmp_path, names)
    first, _, rest = path.read_text().partition("\n")
    path.write_text(rest)
    with pytest.raises(InputError, match="line 1: expected the names of the columns") as error:
        guessed_events(path, {}, ("user", "item"))
    assert f"the first line looks like data: {rest.splitlines()[0]}\n" in str(error.value)
    assert str(error.value).splitlines()[-1] == f"  {line}"
    path.write_text(f"{line}\n{rest}")
    assert guessed_events(path, {}, ("user", "item")) == {"user": "user", "item": "item"}


@pytest.mark.parametrize("header", ["who,what", "who,2019", "wer;was"])
def test_a_line_of_unusual_names_is_no_data(header, tmp_path):
    mark = ";" if ";" in header else ","
    (tmp_path / "own.csv").write_text(f"{header}\n" + "".join(f"{n % 9}{mark}a{n % 7}\n" for n in range(40)))
    with pytest.raises(InputError, match="no column 'user'; found: 'w"):
        guessed_events(tmp_path / "own.csv", {}, ("user", "item"))


@given(st.lists(st.lists(st.text("ab17.-@,;\"' \té\n", max_size=6), min_size=1, max_size=4), min_size=1, max_size=6))
def test_any_text_gets_columns_or_one_clear_error(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("any") / "own.csv"
    path.write_text("\n".join(",".join(row) for row in rows), encoding="utf-8")
    try:
        columns = first_columns(path, None, None)
    except InputError as error:
        assert "own.csv" in str(error)
    else:
        assert columns and all(column.looks for column in columns)
    with pytest.raises(InputError, match="own.csv"):
        guessed_events(path, {}, ("user", "item"))
