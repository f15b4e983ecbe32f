"""Saved splits: written over nothing but a split, and read whole or refused with the file's name."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tfvae.data.interactions import Interactions
from tfvae.data.splits import (
    LeaveOneOutSettings,
    RatingHoldoutSettings,
    StrongGeneralizationSettings,
    leave_one_out,
    load_split,
    rating_holdout,
    strong_generalization,
    weak_generalization,
)
from tfvae.data.synthetic import synthetic
from tfvae.system.errors import InputError


def some_events() -> Interactions:
    """Ratings of 60 users of 30 items."""
    return synthetic(n_users=60, n_items=30, n_tastes=3, taste=0.9)


def test_saving_replaces_a_split_and_nothing_else(tmp_path):
    split = rating_holdout(some_events())
    split.save(tmp_path / "a.npz")
    other = rating_holdout(some_events(), RatingHoldoutSettings(seed=1))
    assert load_split(other.save(tmp_path / "a.npz")).digest == other.digest != split.digest
    np.savez(tmp_path / "mine.npz", thesis=np.ones(3))
    (tmp_path / "text.npz").write_text("my own")
    for name in ("mine.npz", "text.npz"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(InputError, match="exists and is no saved split"):
            split.save(tmp_path / name)
        assert (tmp_path / name).read_bytes() == before


BREAK = {
    "row starts": ("indptr", lambda a: a[::-1].copy()),
    "row starts beyond": ("indptr", lambda a: np.append(a[:-1], a[-1] + 1000)),
    "one row start less": ("indptr", lambda a: a[:-1]),
    "row starts of fractions": ("indptr", lambda a: a / 2),
    "columns beyond": ("indices", lambda a: a + 100_000),
    "columns below": ("indices", lambda a: a - 100_000),
    "columns twice": ("indices", lambda a: np.zeros_like(a)),
    "columns in another order": ("indices", lambda a: a[::-1].copy()),
    "one column less": ("indices", lambda a: a[:-1]),
    "another shape": ("shape", lambda a: a + 1),
    "a negative shape": ("shape", lambda a: -a),
    "a shape of three": ("shape", lambda a: np.append(a, 1)),
    "ratings that are none": ("values", lambda a: np.where(a == a[0], np.nan, a)),
    "infinite ratings": ("values", lambda a: np.where(a == a[0], np.inf, a)),
    "ratings of text": ("values", lambda a: a.astype(str)),
    "nothing": (None, None),
}


def with_given_parts():
    """A weak split whose test and validation part are given by item."""
    events = some_events()
    return weak_generalization(events, test=events.items % 5 == 0, validation=events.items % 5 == 1)


@pytest.mark.parametrize("kind", ["strong-generalization", "rating-holdout", "leave-one-out", "weak", "weak, tuning"])
@pytest.mark.parametrize("checked", [True, False], ids=["with a digest of the arrays", "of a former version"])
@pytest.mark.parametrize("fault", BREAK)
def test_a_damaged_split_is_refused_whole(fault, checked, kind, tmp_path):
    cut = {
        "strong-generalization": lambda: strong_generalization(
            some_events(), StrongGeneralizationSettings(held_out_users=10, min_rating=2)
        ),
        "rating-holdout": lambda: rating_holdout(some_events()),
        "leave-one-out": lambda: leave_one_out(some_events(), LeaveOneOutSettings(n_negatives=2)),
        "weak": with_given_parts,
        "weak, tuning": lambda: weak_generalization(some_events()).for_tuning(),
    }[kind]()
    with np.load(cut.save(tmp_path / "a.npz")) as stored:
        arrays = dict(stored)
    if not checked:
        note = json.loads(str(arrays["note"]))
        del note["content"]
        arrays["note"] = np.array(json.dumps(note))
    part, damage = BREAK[fault]
    damaged = [name for name in arrays if part and name.endswith(f".{part}")]
    if fault == "columns twice" and not checked:  # of rows of one entry each they are columns like others
        damaged = ["train.indices"]
    for name in damaged:
        np.savez(tmp_path / "b.npz", **arrays | {name: damage(arrays[name])})
        with pytest.raises(InputError, match=r"b\.npz"):
            load_split(tmp_path / "b.npz")
    for name in () if part else arrays:
        np.savez(tmp_path / "b.npz", **{other: array for other, array in arrays.items() if other != name})
        parts = ("test.indptr", "test.user_ids", "test_items") if not kind.startswith("weak") else ()
        optional = name.startswith(("user_features.", "item_features.", "lines.", *parts)) or name == "titles"
        if checked or not optional:
            with pytest.raises(InputError, match=r"b\.npz"):
                pytest.fail(f"without {name}: {load_split(tmp_path / 'b.npz')}")
    if not part:
        np.savez(tmp_path / "b.npz", **arrays)
        again = load_split(tmp_path / "b.npz")
        assert again.digest == cut.digest and (again.train != cut.train).nnz == 0
