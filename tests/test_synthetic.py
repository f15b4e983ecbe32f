"""The synthetic data: exact in size, the same for the same seed, and with a structure to find."""

from __future__ import annotations

import numpy as np
import pytest

from tfvae.data.synthetic import synthetic
from tfvae.system.errors import InputError


@pytest.mark.parametrize("size", [(2_000, 500, None), (50, 40, 1_000), (300, 20, 300), (1, 2, 1)])
def test_size_is_exact_and_no_pair_repeats(size):
    made = synthetic(*size)
    n_users, n_items, n_events = size
    assert (made.n_users, made.n_items) == (n_users, n_items)
    assert made.n_events == (n_events or 60_000) == made.by_user[0][-1]
    assert len(set(zip(made.users, made.items, strict=True))) == made.n_events
    assert np.diff(made.by_user[0]).min() >= 1


def test_the_seed_decides_everything():
    assert synthetic(100, 50, seed=1).digest == synthetic(100, 50, seed=1).digest
    assert synthetic(100, 50, seed=1).digest != synthetic(100, 50, seed=2).digest


def test_users_prefer_their_own_taste_and_rate_it_higher():
    made = synthetic()
    inside = made.user_features["taste"][made.users] == made.item_features["taste"][made.items]
    chance = 1 / 10
    assert inside.mean() > 4 * chance
    assert made.values[inside].mean() > made.values[~inside].mean() + 0.5
    assert set(np.unique(made.values)) <= {1, 2, 3, 4, 5}
    flat = synthetic(taste=0.0)
    inside = flat.user_features["taste"][flat.users] == flat.item_features["taste"][flat.items]
    assert abs(inside.mean() - chance) < 0.03


def test_items_follow_a_power_law_and_histories_are_log_normal():
    made = synthetic(20_000, 2_000, 800_000, spread=0.8)
    counts = np.sort(np.bincount(made.items, minlength=made.n_items))[::-1]
    ranks = np.arange(10, 1_000)
    slope = np.polyfit(np.log(ranks + 1), np.log(counts[ranks]), 1)[0]
    assert -1.1 < slope < -0.6
    lengths = np.log(np.diff(made.by_user[0]))
    assert abs(lengths.std() - 0.8) < 0.05
    assert abs(lengths.mean() - np.median(lengths)) < 0.05


def test_an_impossible_size_is_refused():
    with pytest.raises(InputError, match="expected 10 to 100"):
        synthetic(10, 20, 101)
    with pytest.raises(InputError, match="does not suit"):
        synthetic(10, 20, 9)
