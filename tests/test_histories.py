"""A history as somebody types it."""

from __future__ import annotations

import numpy as np
import pytest

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
