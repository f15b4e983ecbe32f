"""A history as somebody types it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.sparse import csr_array

from tfvae.serving.typed_history import find_titles, known_ids
from tfvae.system.errors import InputError


def split(ids, titles=None):
    """Four items; the first has one training user, the others two, three and none."""
    train = csr_array(np.array([[1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0]], np.float32))
    titles = None if titles is None else np.array(titles)
    return SimpleNamespace(item_ids=np.array(ids), titles=titles, train=train, n_items=4)


def test_ids_keep_the_type_of_the_data():
    assert known_ids(split([7, 10, 200, 3]), ["200", "7", "x", "07"]) == ([200, 7], ["x", "07"])
    assert known_ids(split(["7", "b", "c", "d"]), ["7"]) == (["7"], [])
    assert known_ids(split([7, 10, 200, 3]), []) == ([], [])


def test_ids_of_which_none_is_known_are_named():
    with pytest.raises(InputError, match=r"x, y\. Ids look like 7\."):
        known_ids(split([7, 10, 200, 3]), ["x", "y"])


def test_titles_are_found_in_any_case_the_best_known_first():
    films = split([7, 10, 200, 3], ["Heat", "The Heat", "White Heat", "Alien"])
    assert find_titles(films, "heat") == [(200, "White Heat"), (10, "The Heat"), (7, "Heat")]
    with pytest.raises(InputError, match="no title contains 'cold'"):
        find_titles(films, "cold")
    with pytest.raises(InputError, match="no titles"):
        find_titles(split([7, 10, 200, 3]), "heat")
