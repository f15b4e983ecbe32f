"""Lists of items by user, in parts: what is read of them, and what is said of each kind of damage, by file and line."""

from __future__ import annotations

import lzma
import zipfile

import numpy as np
import pytest

from tfvae.data.formats import read_user_lists
from tfvae.data.sources import Place
from tfvae.data.user_lists import read_given_parts
from tfvae.system.errors import InputError

PARTS = {"train.txt": "0 5 3 9\n2 3\n1 9 4\n", "valid.txt": "1 3\n", "test.txt": "0 4\n1 5\n2\n"}


def placed(folder, **changes):
    """A folder with the parts; a change of None leaves one out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (PARTS | {f"{part}.txt": text for part, text in changes.items()}).items():
        if text is not None:
            (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("text", ["4 7 5\n9 5\n", "4 7 5\r\n\r\n9 5", "\ufeff4 7 5 \n9 5 \n3\n", "04 7 05\r9 5\r"])
def test_lists_are_read_in_their_order(text, tmp_path):
    (tmp_path / "lists.txt").write_text(text, encoding="utf-8", newline="")
    found = read_user_lists(tmp_path / "lists.txt")
    assert found.users.tolist() == [4, 4, 9] and found.items.tolist() == [7, 5, 5]
    assert found.values is None and found.timestamps is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no items in it; expected lines of a user's number"),
        ("1\n2\n", "no items in it"),
        ("0 5\n1 x 7\n", "line 2: expected the numbers of a user and of their items between single spaces.*'1 x 7'"),
        ("0 5\n\n1  7\n", "line 3: expected the numbers"),
        ("0 5\n 1 7\n", "line 2: expected the numbers"),
        ("0\t5\n", "line 1: expected the numbers.*mend the line, or fetch the file anew"),
        ("0 5\n1 -7\n", "line 2: expected the numbers"),
        ("0 5\n1 7.0\n", "line 2: expected the numbers"),
        ("0 5\n1 2147483648\n", "line 2: 2147483648 is too large a number; expected 32 bits"),
        ("2147483648 5\n", "line 1: 2147483648 is too large"),
        ("0 5\n1 7\n00 8\n", "line 3: user 0 had a line before, line 1; join the two, or remove one"),
        ("0 5 6 5\n", "line 1: item 5 comes twice for user 0; remove one of them"),
    ],
)
def test_a_damaged_list_is_refused_with_its_line(text, message, tmp_path):
    (tmp_path / "lists.txt").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_user_lists(tmp_path / "lists.txt")
    assert str(tmp_path / "lists.txt") in str(caught.value)


def test_the_parts_of_a_data_set_are_put_together(tmp_path):
    found = read_given_parts(Place(placed(tmp_path)))
    assert found.users.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2]
    assert found.items.tolist() == [3, 4, 5, 9, 3, 4, 5, 9, 3]
    assert np.flatnonzero(found.test).tolist() == [1, 6] and np.flatnonzero(found.validation).tolist() == [4]


def test_without_a_validation_part_its_events_are_trained_on(tmp_path):
    joined = read_given_parts(Place(placed(tmp_path, train="0 5 3 9\n2 3\n1 9 4 3\n", valid=None)))
    assert joined.validation is None
    whole = read_given_parts(Place(placed(tmp_path / "three")))
    for ours, theirs in zip(joined[:3], whole[:3], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_zips_and_compressed_files_are_the_same(tmp_path):
    expected = read_given_parts(Place(placed(tmp_path / "plain")))
    (tmp_path / "packed").mkdir()
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name, text in PARTS.items():
            (tmp_path / "packed" / f"{name}.xz").write_bytes(lzma.compress(text.encode()))
            archive.writestr(name, text)
    for place in ("packed", "set.zip"):
        found = read_given_parts(Place(tmp_path / place))
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test": None}, "expected a file test.txt"),
        ({"test": "0 4\n1 8 4\n"}, r"test.txt, line 2: item 4 of user 1 is also in train.txt, line 3; .* remove one"),
        ({"test": "0 4\n1 3\n"}, r"valid.txt, line 1: item 3 of user 1 is also in test.txt, line 2"),
        ({"test": "\n0 4\n6 9\n"}, r"test.txt, line 3: user 6 has no items in train.txt, .* belong together"),
        ({"valid": "6 9\n"}, r"valid.txt, line 1: user 6 has no items in train.txt"),
        ({"train": "0 5 3 9\n1 \n2 3\n"}, r"test.txt, line 2: user 1 has no items in train.txt"),
        ({"valid": "1 3 3\n"}, "valid.txt, line 1: item 3 comes twice"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused_with_file_and_line(changes, message, tmp_path):
    with pytest.raises(InputError, match=message):
        read_given_parts(Place(placed(tmp_path, **changes)))


def test_a_user_without_any_item_is_no_user(tmp_path):
    found = read_given_parts(Place(placed(tmp_path, train="0 5 3 9\n1 9 4\n2 \n")))
    assert np.unique(found.users).tolist() == [0, 1]
