"""Damaged files of every kind are refused in words of ours, or what is read is valid; `make soak` tries more."""

from __future__ import annotations

from collections import Counter

import pytest
from readers import READERS, outcome_of

FEWER = {"own parquet": 40, "vae_cf": 40, "saved model": 30, "checkpoint": 30, "SLIM's parts": 30}


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_refused_or_read_as_something_valid(name, tmp_path):
    outcomes = Counter(outcome_of(name, seed, tmp_path) for seed in range(FEWER.get(name, 80)))
    assert outcomes["refused"] > 10
