"""Damaged files of every kind are refused in words of ours, or what is read is valid; `make soak` tries more."""

from __future__ import annotations

from collections import Counter

import pytest
from readers import READERS, outcome_of

SLOW_READERS = {"own parquet", "vae_cf"}


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_refused_or_read_as_something_valid(name, tmp_path):
    outcomes = Counter(outcome_of(name, seed, tmp_path) for seed in range(60 if name in SLOW_READERS else 120))
    assert outcomes["refused"] > 10
