"""Held-out ratings: what a search is given, the split with items as rows, and files that come back."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from scipy.sparse import csr_array

from tfvae.data.splits import HeldOutRatings, RatingHoldoutSettings, load_split, rating_holdout
from tfvae.data.synthetic import synthetic
from tfvae.system.errors import InputError


def cut(seed=0, fraction=0.1, data=1):
    """A split of 700 ratings of 50 users and 30 items, with features of both."""
    interactions = synthetic(50, 30, 700, n_tastes=3, seed=data)
    return rating_holdout(interactions, RatingHoldoutSettings(seed=seed, test_fraction=fraction))


def entries(matrix) -> dict[tuple[int, int], float]:
    """The stored values by row and column."""
    found = matrix.tocoo()
    return dict(zip(zip(found.row.tolist(), found.col.tolist(), strict=True), found.data.tolist(), strict=True))


def assert_same(one, other):
    """Compares all arrays, names included."""
    first, second = one.arrays(), other.arrays()
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype, name
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


@budget(max_examples=25, deadline=None)
@given(st.integers(0, 99), st.floats(0.05, 0.6), st.booleans())
def test_a_search_is_given_a_part_of_the_training_ratings_and_no_test_rating(seed, fraction, by_items):
    whole = cut(seed, fraction)
    whole = whole.by_items() if by_items else whole
    tuning = whole.for_tuning()
    assert tuning.test is None and tuning.validation.history is tuning.train
    kept, chosen = entries(tuning.train), entries(tuning.validation.targets)
    assert not kept.keys() & chosen.keys()
    assert kept | chosen == entries(whole.train)
    assert not (kept | chosen).keys() & entries(whole.test.targets).keys()
    assert len(kept) == int((1 - fraction) * whole.train.nnz)
    assert tuning.train.dtype == np.float32 and tuning.train.has_sorted_indices


def test_a_search_is_given_the_same_cut_by_the_same_seed():
    one, again, other = (cut(seed).for_tuning() for seed in (3, 3, 4))
    assert_same(one, again)
    assert one.digest == again.digest
    assert len({one.digest, other.digest, cut(3).digest}) == 3
    # Another seed cuts the same training ratings otherwise.
    reseeded = dataclasses.replace(cut(3), settings=RatingHoldoutSettings(seed=4)).for_tuning()
    assert entries(one.validation.targets).keys() != entries(reseeded.validation.targets).keys()


def test_a_rating_of_zero_stays_a_rating_in_every_form():
    interactions = synthetic(50, 30, 700, seed=2)
    values = np.where(interactions.values < 4, 0, interactions.values).astype(np.float32)
    object.__setattr__(interactions, "values", values)
    split = rating_holdout(interactions)
    assert (split.train.data == 0).any() and split.train.nnz == 630
    for form in (split, split.by_items()):
        tuning = form.for_tuning()
        assert tuning.train.nnz == 567 and tuning.validation.targets.nnz == 63
        assert (tuning.train.data == 0).any() and (tuning.validation.targets.data == 0).any()


@pytest.mark.parametrize("tuning", [False, True])
def test_with_items_as_rows_all_is_swapped_and_swapped_again_it_is_as_before(tuning):
    split = cut().for_tuning() if tuning else cut()
    turned = split.by_items()
    np.testing.assert_array_equal(turned.train.toarray(), split.train.toarray().T)
    part, other = (of.validation if tuning else of.test for of in (split, turned))
    np.testing.assert_array_equal(other.targets.toarray(), part.targets.toarray().T)
    np.testing.assert_array_equal(other.history.toarray(), part.history.toarray().T)
    assert turned.train.format == other.targets.format == "csr" and turned.train.has_sorted_indices
    assert (turned.test is None) == tuning == (turned.validation is not None)
    np.testing.assert_array_equal(turned.user_ids, split.item_ids)
    np.testing.assert_array_equal(turned.item_ids, split.user_ids)
    assert turned.n_items == 50 and turned.user_features == split.item_features
    assert turned.item_features == split.user_features and turned.user_features["taste"].shape == (30,)
    assert turned.digest != split.digest and turned.counts == split.counts

    back = turned.by_items()
    np.testing.assert_array_equal(back.train.toarray(), split.train.toarray())
    assert entries(getattr(back, "validation" if tuning else "test").targets) == entries(part.targets)
    assert back.user_features == split.user_features and back.item_features == split.item_features


@pytest.mark.parametrize("form", ["whole", "for tuning", "by items", "by items, for tuning"])
def test_each_form_comes_back_from_its_file(form, tmp_path):
    split = cut()
    split = split.by_items() if "by items" in form else split
    split = split.for_tuning() if "for tuning" in form else split
    loaded = load_split(split.save(tmp_path))
    assert_same(split, loaded)
    assert (loaded.settings, loaded.counts, loaded.digest) == (split.settings, split.counts, split.digest)
    for name in ("validation", "test"):
        ours, theirs = getattr(split, name), getattr(loaded, name)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert entries(ours.targets) == entries(theirs.targets)
            assert theirs.history is loaded.train
    assert loaded.user_features.keys() == loaded.item_features.keys() == {"taste"}


def test_what_is_told_cannot_be_asked():
    split = cut()
    with pytest.raises(InputError, match="630 ratings are both told and to be predicted"):
        HeldOutRatings(split.train, split.train, split.user_ids)
    one, other = (csr_array((np.float32([0, 3]), ([0, 1], [1, 2])), shape=(2, 3)) for _ in range(2))
    with pytest.raises(InputError, match="2 ratings are both told"):  # one of them a zero
        HeldOutRatings(one, other, np.arange(2))
    with pytest.raises(InputError, match="of one shape"):
        HeldOutRatings(split.train, split.by_items().test.targets, split.user_ids)
