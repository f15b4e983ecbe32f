"""The raw formats read a second time, slowly and line by line, to be compared with what the readers accepted.

A parser raises AssertionError for a line that is not of its format, so that a reader that accepted it is found.
"""

from __future__ import annotations

import csv
import datetime
import io
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfvae.data.formats import RawEvents
from tfvae.data.interactions import Interactions

__all__ = [
    "EXAMPLES",
    "OWN",
    "PARSERS",
    "PARTS",
    "compare",
    "compare_layout",
    "compare_own",
    "compare_parts",
    "own_json",
]

WHOLE, NUMBER = r"[0-9]+", r"[0-9]+\.?[0-9]*|\.[0-9]+"
FLAGS = "|".join(["0"] * 18 + ["1"])

EXAMPLES = {
    "double_colon": "1::1193::5::978300760\n10::0054890::4.5::978302109\n2::7::.5::1\n",
    "movielens_csv": "userId,movieId,rating,timestamp\n1,2,3.5,1112486027\n1,29,3.5,1112484676\n7,29,4.0,1112484680\n",
    "tabbed": "196\t242\t3\t881250949\n186\t302\t3\t891717742\n22\t377\t1\t878887116\n",
    "triplets": "b80344d0\tSOAKIMP12\t1\nb80344d0\tSOAPDEY12\t12\n00000a\tSOAKIMP12\t2\n",
    "netflix": "1:\n1488844,3,2005-09-06\n822109,5,2005-05-13\n2:\n8:\n30878,4,1970-01-02\n",
    "movies_dat": "11::Léon: The Pro (1994)::Crime|Drama\n12::Heat::Crime\n",
    "movies_csv": 'movieId,title,genres\n4,"Heat, and ""Dust""",(no genres listed)\n29,Lost Children,Adventure\n',
    "netflix_titles": "1,2003,Dinosaur Planet\n72,NULL,At Home, Among Strängers\n",
    "u_item": f"242|Kolya (1996)|24-Jan-1997||http://x|{FLAGS}\n302|L.A. Confidential|01-Jan-1997||http://y|{FLAGS}\n",
    "users_dat": "1::F::1::10::48067\n2::M::56::16::02460-1\n",
    "u_user": "186|39|F|executive|00000\n196|49|M|writer|55105\n",
    "ncf_negatives": "(0,25)\t1064\t174\n(1,133)\t1072\t3154\n",
    "user_lists": "0 17 3 42\n7 3\n12 \n10 5 120 017\n",
}
PARTS = {"train.txt": "0 17 3 42\n7 3 9\n12 8 17\n", "valid.txt": "0 9\n12 3 42\n", "test.txt": "0 8\n7 17\n12\n"}
OWN = "user,item,rating,time\n7,a-1,3.5,1112486027\n7,b 2,4,1112484676\n12,a-1,1e0,-5\n9,c,.5,0\n"


def own_json() -> str:
    """The own events, one JSON object in each line."""
    rows = csv.DictReader(io.StringIO(OWN))
    events = ({**row, "rating": float(row["rating"]), "time": int(row["time"])} for row in rows)
    return "".join(json.dumps(event) + "\n" for event in events)


def lines_of(content: bytes, encoding: str = "utf-8", ends: str = "\r\n|\n|\r") -> list[str]:
    """The lines that are not empty, without a byte order mark."""
    text = content.removeprefix(b"\xef\xbb\xbf").decode(encoding)
    return [line for line in re.split(ends, text) if line]


def fields_of(line: str, *patterns: str, between: str) -> list[str]:
    """The fields of a line, each of which must be of its pattern."""
    found = re.fullmatch(between.join(f"({pattern})" for pattern in patterns), line, flags=re.DOTALL)
    assert found, f"{line[:100]!r} is no line of {patterns}"
    return list(found.groups())


def in_range(number: str, bits: int = 64) -> int:
    """A whole number that fits."""
    assert int(number) < 2 ** (bits - 1), number
    return int(number)


def event(user: str, item: str, rating: str, time: str | None = None) -> tuple:
    """Ids of 32 bits, a finite rating, a time of 64 bits."""
    value = np.float32(rating)
    assert np.isfinite(value), rating
    return in_range(user, 32), in_range(item, 32), value, None if time is None else in_range(time)


def double_colon(content: bytes) -> list[tuple]:
    return [event(*fields_of(line, WHOLE, WHOLE, NUMBER, WHOLE, between="::")) for line in lines_of(content)]


def movielens_csv(content: bytes) -> list[tuple]:
    head, *lines = lines_of(content)
    names = [name for name in ("userId", "movieId", "rating", "timestamp") if name in head.split(",")]
    assert len(names) >= 3 and (len(names) == 4 or len(head.split(",")) == 3), head
    places = [head.split(",").index(name) for name in names]
    rows = [line.split(",") for line in lines]
    assert all(len(row) == len(head.split(",")) for row in rows)
    patterns = [WHOLE, WHOLE, NUMBER, WHOLE][: len(names)]
    return [event(*fields_of(",".join(row[place] for place in places), *patterns, between=",")) for row in rows]


def tabbed(content: bytes) -> list[tuple]:
    lines = lines_of(content)
    patterns = [WHOLE, WHOLE, NUMBER, WHOLE][: 4 if lines[0].count("\t") == 3 else 3]
    return [event(*fields_of(line, *patterns, between="\t")) for line in lines]


def triplets(content: bytes) -> list[tuple]:
    found = []
    for line in lines_of(content):
        user, song, plays = fields_of(
            line, "[^\t]+", "[^\t]+", rf" *(?:\+|-(?=0*$))?(?:{NUMBER})(?:[eE][-+]?[0-9]+)? *", between="\t"
        )
        assert np.isfinite(np.float32(plays)), plays
        found.append((user, song, np.float32(plays), None))
    return found


def netflix(content: bytes) -> list[tuple]:
    movie, found = None, []
    for line in lines_of(content):
        if re.fullmatch("[0-9]+:", line):
            movie = in_range(line[:-1], 32)
            continue
        user, rating, date = fields_of(line, WHOLE, NUMBER, "[0-9]{4}-[0-9]{2}-[0-9]{2}", between=",")
        days = (datetime.date.fromisoformat(date) - datetime.date(1970, 1, 1)).days
        assert movie is not None
        found.append((*event(user, str(movie), rating)[:3], days * 86_400))
    return found


def _table(between: str, *patterns: str, encoding: str = "utf-8") -> Callable[[bytes], list[tuple]]:
    def parse(content: bytes) -> list[tuple]:
        lines = lines_of(content, encoding, ends="\r*\n|\r+$")
        return [tuple(fields_of(line, WHOLE, *patterns, between=re.escape(between))) for line in lines]

    return parse


def movies_csv(content: bytes) -> list[tuple]:
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))
    assert all(re.fullmatch(WHOLE, row["movieId"]) and None not in row for row in rows)
    return [(row["movieId"], row["title"], row["genres"]) for row in rows]


def ncf_negatives(content: bytes) -> list[tuple]:
    lines = lines_of(content)
    n = lines[0].count("\t")
    pattern = r"\([0-9]+,[0-9]+\)"
    rows = [fields_of(line, pattern, *[WHOLE] * n, between="\t") for line in lines]
    return [(*map(in_range, row[0].strip("()").split(",")), *map(in_range, row[1:])) for row in rows]


def user_lists(content: bytes) -> list[tuple]:
    found: dict[int, list[int]] = {}
    for line in lines_of(content):
        assert re.fullmatch("[0-9]+( [0-9]+)* *", line), line
        user, *items = (in_range(number, 32) for number in line.split())
        assert user not in found and len(set(items)) == len(items), line
        found[user] = items
    return [(user, item, None, None) for user, items in found.items() for item in items]


PARSERS: dict[str, Callable[[bytes], list[tuple]]] = {
    "double_colon": double_colon,
    "movielens_csv": movielens_csv,
    "tabbed": tabbed,
    "triplets": triplets,
    "netflix": netflix,
    "movies_dat": _table("::", "(?:(?!::).)*", ".*"),
    "movies_csv": movies_csv,
    "netflix_titles": _table(",", "NULL|[0-9]*", ".*", encoding="latin-1"),
    "u_item": _table("|", *[r"[^|]*"] * 4, r"[01](?:\|[01]){18}", encoding="latin-1"),
    "users_dat": _table("::", "(?:(?!::).)*", *["NULL|[0-9]*"] * 2, ".*"),
    "u_user": _table("|", "NULL|[0-9]*", "[^|]*", "[^|]*", ".*"),
    "ncf_negatives": ncf_negatives,
    "user_lists": user_lists,
}


def compare(name: str, found: Any, content: bytes) -> None:
    """Raises AssertionError unless a reader found just what the slow parser does."""
    expected = PARSERS[name](content)
    if isinstance(found, RawEvents):
        columns = [[None] * len(expected) if part is None else np.asarray(part).tolist() for part in found]
        assert list(zip(*columns, strict=True)) == [tuple(map(_plain, row)) for row in expected]
    elif isinstance(found, tuple):
        users, items, negatives = found
        assert np.column_stack([users, items, negatives]).tolist() == [list(row) for row in expected]
    else:
        assert found.index.tolist() == [int(row[0]) for row in expected]
        assert len(set(found.index)) == len(found), "an id comes twice"
        places = {
            "title": -1 if name == "netflix_titles" else 1,
            "zip_code": -1,
            "gender": 2 if name == "u_user" else 1,
        }
        for column, place in places.items():
            if column in found:
                assert found[column].tolist() == [row[place] for row in expected], column
        for column in {"year", "age"} & set(found):
            place = 2 if name == "users_dat" else 1
            numbers = [float(row[place]) if row[place].isdecimal() else None for row in expected]
            assert found[column].astype(object).where(found[column].notna(), None).tolist() == numbers


def compare_parts(found: Any, files: Mapping[str, bytes]) -> None:
    """As `compare`, for the events of three files together: each is in the part of its file, and in no other."""
    train, validation, test = ({row[:2] for row in user_lists(files[name])} for name in PARTS)
    events = list(zip(found.users.tolist(), found.items.tolist(), strict=True))
    assert events == sorted(train | validation | test) and len(events) == len(train) + len(validation) + len(test)
    assert {event for event, inside in zip(events, found.test, strict=True) if inside} == test
    assert {event for event, inside in zip(events, found.validation, strict=True) if inside} == validation
    assert {user for user, _ in events} == {user for user, _ in train}


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, np.floating) else value


def compare_own(found: Interactions, content: bytes) -> None:
    """As `compare`, for own files whose first line and letters are still what they were."""
    try:
        head, *lines = content.decode().split("\n")
    except UnicodeDecodeError:
        return
    if (
        head.removesuffix("\r") != OWN.partition("\n")[0]
        or '"' in content.decode()
        or "\r" in content.decode().replace("\r\n", "\n")
    ):
        return
    rows = [line.removesuffix("\r").split(",") for line in lines if line.removesuffix("\r")]
    assert all(len(row) == 4 for row in rows)
    last = {(row[0], row[1]): row for row in sorted(rows, key=lambda row: _seconds(row[3]))}
    assert found.n_events == len(last)
    rating = {pair: np.float32(row[2]) for pair, row in last.items()}
    for user, item, value in zip(found.user_ids[found.users], found.item_ids[found.items], found.values, strict=True):
        names = {name for name in rating if _same(name[0], user) and _same(name[1], item)}
        assert len(names) == 1 and value == rating[names.pop()]


def _seconds(time: str) -> float:
    time = time.strip()
    return float(time) if re.fullmatch(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?", time, flags=re.I) else 0.0


def _same(name: str, found: Any) -> bool:
    return name == str(found) or (isinstance(found, np.integer) and re.fullmatch(rf"{found}\.0+", name) is not None)


def compare_layout(split: Any, files: Mapping[str, bytes]) -> None:
    """As `compare`, for a pre-split folder: each event is where its line says, each item's name is its line."""
    names = files["layout/unique_sid.txt"].decode("utf-8-sig").removesuffix("\n").split("\n")
    assert len(names) == split.n_items
    assert all(_same(name.removesuffix("\r"), item) for name, item in zip(names, split.item_ids, strict=True))
    sides = {
        "train": (split.train, split.user_ids),
        "validation_tr": (split.validation.history, split.validation.user_ids),
        "validation_te": (split.validation.targets, split.validation.user_ids),
        "test_tr": (split.test.history, split.test.user_ids),
        "test_te": (split.test.targets, split.test.user_ids),
    }
    for name, (matrix, user_ids) in sides.items():
        head, *lines = lines_of(files[f"layout/{name}.csv"])
        order = [head.split(",").index(column) for column in ("uid", "sid")]
        rows = [fields_of(line, *[WHOLE] * (head.count(",") + 1), between=",") for line in lines]
        expected = {tuple(int(row[place]) for place in order) for row in rows}
        places = matrix.tocoo()
        assert expected == set(zip(user_ids[places.row].tolist(), places.col.tolist(), strict=True)), name
