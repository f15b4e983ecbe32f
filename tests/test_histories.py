"""Histories: one as somebody types it, and those of many people in a file of events."""

from __future__ import annotations

import numpy as np
import pytest
from ranking_examples import N_ITEMS, NUMBERS, items_of, written

from tfvae.data.histories import Histories
from tfvae.data.items import Items
from tfvae.serving.typed_history import find_titles, known_ids
from tfvae.system.errors import InputError


def items(ids, titles=None):
    """Four items; the first has one training user, the others two, three and none."""
    return Items(np.array(ids), None if titles is None else np.array(titles), None, np.array([1, 2, 3, 0]))


def test_ids_keep_the_type_of_the_data():
    assert known_ids(items([7, 10, 200, 3]), ["200", "7", "x", "07"]) == ([200, 7], ["x", "07"])
    assert known_ids(items(["7", "b", "c", "d"]), ["7"]) == (["7"], [])
    assert known_ids(items([7, 10, 200, 3]), []) == ([], [])


def test_ids_of_which_none_is_known_are_named():
    with pytest.raises(InputError, match=r"x, y\. Ids look like 7\."):
        known_ids(items([7, 10, 200, 3]), ["x", "y"])


def test_titles_are_found_in_any_case_the_best_known_first():
    films = items([7, 10, 200, 3], ["Heat", "The Heat", "White Heat", "Alien"])
    assert find_titles(films, "heat") == [(200, "White Heat"), (10, "The Heat"), (7, "Heat")]
    with pytest.raises(InputError, match="no title contains 'cold'"):
        find_titles(films, "cold")
    with pytest.raises(InputError, match="no titles"):
        find_titles(items([7, 10, 200, 3]), "heat")


# ---- in a file -------------------------------------------------------------------------------------


def test_events_of_a_user_are_joined_and_unknown_items_counted(tmp_path):
    known = NUMBERS[:3].tolist()
    items = items_of(NUMBERS, rates=True)
    columns = {
        "uid": ["b", "a", "b", "c", "b", "c", "b"],
        "sku": [known[0], known[1], "zzz", "yyy", known[2], "zzz", known[0]],
        "stars": [1, 2, 3, 4, 5, 1, 4],
    }
    file = written(tmp_path / "given.csv", columns)
    histories = Histories.from_file(file, items, "uid", "sku", "stars")
    assert histories.user_ids.to_pylist() == ["a", "b", "c"]
    assert histories.matrix.toarray()[:, :3].tolist() == [[0, 2, 0], [4, 0, 5], [0, 0, 0]]  # the last of a pair counts
    assert (histories.n_unknown, histories.n_events, histories.n_empty) == (3, 6, 1)
    assert histories.unknown_items.tolist() == ["zzz", "yyy"]
    semicolons = tmp_path / "given2.csv"
    semicolons.write_text(file.read_text().replace(",", ";"))
    again = Histories.from_file(semicolons, items, "uid", "sku", "stars", delimiter=";")
    assert again.digest == histories.digest


def test_items_are_known_by_their_text_whatever_the_type_of_their_column(tmp_path):
    for item_ids in (NUMBERS, NUMBERS.astype(str)):
        for given in (NUMBERS, NUMBERS.astype(str), NUMBERS.astype(float)):
            file = written(tmp_path / "given.parquet", {"user": np.arange(N_ITEMS), "item": given})
            histories = Histories.from_file(file, items_of(item_ids))
            assert histories.matrix.indices.tolist() == list(range(N_ITEMS)) and not histories.n_unknown


def test_who_ranks_may_say_which_ratings_count(tmp_path):
    columns = {"user": [1, 1, 2], "item": [*NUMBERS[:2].tolist(), 7_777], "rating": [4, 3, 1]}
    file = written(tmp_path / "given.csv", columns)
    histories = Histories.from_file(file, items_of(NUMBERS), rating="rating", min_rating=4)
    assert histories.matrix.toarray()[:, :2].tolist() == [[1, 0], [0, 0]]
    assert (histories.n_unknown, histories.n_empty) == (0, 1)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("", {}, r"given.csv: the file is empty"),
        ("user,item\n", {}, r"given.csv: no data lines after the header"),
        ("user,itme\n1,3\n", {}, r"no column 'item'; found: 'user', 'itme'; did you mean 'itme'"),
        ("user,item\n1,\n", {}, r"line 2: item '' is empty"),
        ("user,item\n1,nix\n2,nox\n", {}, r"none of its 2 items, such as nix, is one of the training data"),
        ("user,item,rating\n1,{0},5\n", {"rating": "rating"}, r"by what is in a history, not by ratings"),
        ("user,item,points\n1,{0},5\n", {"min_rating": 4}, r"min_rating=4 needs ratings"),
        ("user,item,points\n1,{0},5\n", {"rates": True}, r"needs people's ratings; name their column"),
        ("user,item,rating\n1,{0},5\n", {"rates": True, "rating": "rating", "min_rating": 4}, "would change nothing"),
        (
            "user,item,rating\n1,{0},5\n\n2,{1},5.5\n2,nix,0\n",
            {"rates": True, "rating": "rating"},
            r"given.csv, line 4: expected ratings from 1 to 5, as in the training data, found 5.5 \(2 such in all\)",
        ),
        (
            "user,item,rating\n1,{0},good\n",
            {"rates": True, "rating": "rating"},
            "line 2: rating 'good' is not a number",
        ),
    ],
)
def test_a_file_that_is_not_as_it_should_be_is_refused_with_its_line(content, options, message, tmp_path):
    (tmp_path / "given.csv").write_text(content.format(*NUMBERS))
    items = items_of(NUMBERS, rates=options.pop("rates", False))
    with pytest.raises(InputError, match=message):
        Histories.from_file(tmp_path / "given.csv", items, **options)
