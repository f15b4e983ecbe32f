"""Leave-one-out: the other item that a search is given to choose by, and the items that are only reported."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from tfvae.data.interactions import Interactions
from tfvae.data.splits import LeaveOneOutSettings, leave_one_out, load_split
from tfvae.data.synthetic import synthetic
from tfvae.system.errors import InputError

pytestmark = pytest.mark.slow


def cut(data=1, **settings):
    """Of 40 users and 30 items, with seven negatives for each user."""
    return leave_one_out(synthetic(40, 30, 400, seed=data), LeaveOneOutSettings(n_negatives=7, **settings))


@budget(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.integers(0, 99))
def test_a_search_is_given_another_item_of_each_user(data, seed):
    whole = cut(data, seed=seed)
    tuning = whole.for_tuning()
    held_out, rows = tuning.validation, np.arange(len(whole.user_ids))
    before, after = whole.train.toarray() > 0, tuning.train.toarray() > 0
    assert before[rows, held_out.items].all() and not after[rows, held_out.items].any()
    after[rows, held_out.items] = True
    np.testing.assert_array_equal(after, before)
    assert held_out.history is tuning.train and (tuning.train.data == 1).all()
    np.testing.assert_array_equal(held_out.user_ids, whole.user_ids)


@budget(max_examples=20, deadline=None)
@given(st.integers(0, 99))
def test_its_negatives_are_neither_told_nor_the_item_itself(seed):
    tuning = cut(seed=seed).for_tuning()
    held_out, rows = tuning.validation, np.arange(40)[:, None]
    assert held_out.negatives.shape == (40, 7) and held_out.negatives.dtype == held_out.items.dtype == np.int32
    assert not (tuning.train.toarray()[rows, held_out.negatives] > 0).any()
    assert not (held_out.negatives == held_out.items[:, None]).any()
    assert (np.diff(np.sort(held_out.negatives), axis=1) > 0).all(), "none twice"


def test_the_items_to_be_reported_are_not_in_what_a_search_is_given():
    whole = cut()
    tuning = whole.for_tuning()
    assert whole.test is not None and whole.validation is None
    assert whole.test.history is whole.train
    assert tuning.test is None
    assert (tuning.validation.items != whole.test.items).all()
    assert not (tuning.train.toarray()[np.arange(40), whole.test.items] > 0).any()


def test_the_seed_draws_item_and_negatives():
    one, again, other = (cut(seed=seed).for_tuning() for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.validation.items, again.validation.items)
    np.testing.assert_array_equal(one.validation.negatives, again.validation.negatives)
    assert (one.validation.items != other.validation.items).mean() > 0.3
    assert len({one.digest, other.digest, cut(seed=1).digest}) == 3 and one.digest == again.digest


def test_given_negatives_set_how_many_are_drawn():
    interactions = Interactions.from_events([1, 1, 1, 2, 2, 2], [1, 2, 3, 2, 3, 4])
    split = leave_one_out(interactions, test_items=[3, 4], negatives=[[5, 4], [5, 1]])
    assert split.for_tuning().validation.negatives.shape == (2, 2)


def test_a_user_with_one_training_item_has_none_to_spare():
    interactions = Interactions.from_events(["a", "a", "a", "b", "b", "c", "c", "c"], [1, 2, 3, 1, 2, 2, 3, 4])
    split = leave_one_out(interactions, LeaveOneOutSettings(n_negatives=1))
    with pytest.raises(InputError, match="user b has 1 training items; .* at least 2"):
        split.for_tuning()


def test_what_a_search_is_given_comes_back_from_its_file(tmp_path):
    tuning = cut().for_tuning()
    loaded = load_split(tuning.save(tmp_path))
    assert loaded.test is None and loaded.digest == tuning.digest
    assert (loaded.train != tuning.train).nnz == 0 and loaded.validation.history is loaded.train
    for field in dataclasses.fields(tuning.validation)[1:]:
        ours, theirs = (getattr(split.validation, field.name) for split in (tuning, loaded))
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    assert load_split(cut().save(tmp_path / "whole")).validation is None
