"""From what a user names to a split. The commands' tests have the errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tfvae.data.catalogue import DATASETS
from tfvae.data.opening import open_split, whereabouts
from tfvae.data.vae_cf import write_vae_cf
from tfvae.system.errors import InputError


@pytest.fixture
def events() -> pd.DataFrame:
    """200 users: the first 120 with 8 events of rating 4 or 5, the others with two of 8 so rated."""
    draw = np.random.default_rng(1)
    users = np.repeat(np.arange(200), 8)
    ratings = np.where((users < 120) | (np.arange(1600) % 8 < 2), draw.integers(4, 6, 1600), 1)
    items = np.concatenate([draw.choice(30, 8, replace=False) for _ in range(200)])
    return pd.DataFrame({"user": users, "item": items, "rating": ratings})


def test_a_tenth_of_the_users_with_enough_items_is_held_out(events, tmp_path):
    events.to_csv(tmp_path / "events.csv", index=False)
    everything = open_split(tmp_path / "events.csv")
    assert everything.settings.held_out_users == 20 and everything.settings.min_rating is None
    liked = open_split(tmp_path / "events.csv", columns={"rating": "rating"}, changes={"min_rating": 4})
    assert liked.settings.held_out_users == 12
    assert liked.train.shape[0] == 120 - 24


def test_a_file_is_the_same_in_every_format(events, tmp_path):
    events.to_csv(tmp_path / "a.csv", index=False)
    events.to_csv(tmp_path / "a.csv.gz", index=False)
    events.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    events.to_parquet(tmp_path / "a.parquet")
    digests = {open_split(tmp_path / f"a.{end}").digest for end in ("csv", "csv.gz", "tsv", "parquet")}
    assert len(digests) == 1
    (tmp_path / "a.xlsx").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.xlsx: expected \.csv, \.tsv or \.parquet"):
        open_split(tmp_path / "a.xlsx")


def test_a_split_is_opened_as_it_was_saved(events, tmp_path):
    events.to_csv(tmp_path / "events.csv", index=False)
    split = open_split(tmp_path / "events.csv", changes={"held_out_users": 9})
    split.save(tmp_path / "run" / "split.npz")
    write_vae_cf(split, tmp_path / "pro_sg")
    assert open_split(tmp_path / "run").digest == open_split(tmp_path / "run/split.npz").digest == split.digest
    assert (open_split(tmp_path / "pro_sg").train != split.train).nnz == 0


def test_a_named_data_set_is_cut_by_its_protocol_but_for_the_changes():
    standard = open_split("synthetic").settings
    assert standard == DATASETS["synthetic"].strong.model_copy(update={"held_out_users": 200})
    changed = open_split("synthetic", changes={"min_items_per_user": 10, "held_out_users": 50}).settings
    assert changed == standard.model_copy(update={"min_items_per_user": 10, "held_out_users": 50})


def test_whereabouts(tmp_path, monkeypatch):
    monkeypatch.setenv("TFVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TFVAE_DATA", str(tmp_path))
    assert whereabouts("movietweetings") == "comes with tfvae"
    assert whereabouts("synthetic") == "drawn on demand"
    assert whereabouts("ml-1m") is None
    (tmp_path / "ml-1m").mkdir()
    (tmp_path / "ml-1m" / "ratings.dat").write_text("1::1::5::0\n")
    assert whereabouts("ml-1m") == f"in {tmp_path} (TFVAE_DATA)"
