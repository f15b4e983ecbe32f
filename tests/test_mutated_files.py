"""Damaged files of every kind are refused in words of ours, or what is read is valid; `make soak` tries more."""

from __future__ import annotations

from collections import Counter

import pytest
from readers import READERS, outcome_of

FEWER = {"own parquet": 60, "vae_cf": 60, "saved model": 50, "checkpoint": 50, "SLIM's parts": 50}


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_refused_or_read_as_something_valid(name, tmp_path):
    outcomes = Counter(outcome_of(name, seed, tmp_path) for seed in range(FEWER.get(name, 120)))
    assert outcomes["refused"] > 10
