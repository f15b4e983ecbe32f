"""From what a user names to a split. The commands' tests have the errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tfvae.data.catalogue import DATASETS
from tfvae.data.open_split import open_split, whereabouts
from tfvae.data.vae_cf import write_vae_cf
from tfvae.experiments.definitions import Table, load_table
from tfvae.experiments.protocols import splits_of
from tfvae.experiments.results_folder import stored_runs
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
    events.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    digests = {open_split(tmp_path / f"a.{end}").digest for end in ("csv", "csv.gz", "tsv", "parquet", "jsonl")}
    assert len(digests) == 1
    (tmp_path / "a.xlsx").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.xlsx: the file is empty"):
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


# ---- one opening of the data ------------------------------------------------------------------------


def pairs_of_data_and_protocol():
    return [(name, protocol) for name, dataset in DATASETS.items() for protocol in dataset.protocols]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "protocol"), pairs_of_data_and_protocol())
def test_commands_and_tables_have_one_split(name, protocol):
    if name not in ("movietweetings", "synthetic") and whereabouts(name) is None:
        pytest.skip(f"{name} is not at hand")
    table = Table(name="any", title="Any", caption="Any.", protocol=protocol, monitor="rmse", metrics=["rmse"])
    shown = splits_of(table, name)(0, "users")
    opened = open_split(name, protocol=protocol)
    assert opened.protocol == shown.protocol == protocol
    assert opened.digest == shown.digest


def test_leave_one_out_leaves_each_user_an_item_to_learn_from_beside_two_held_out_ones():
    split = open_split("movietweetings", protocol="leave-one-out")
    assert len(split.user_ids) == 9_041 and np.diff(split.train.indptr).min() == 2
    assert np.diff(split.for_tuning().train.indptr).min() == 1


@pytest.mark.slow
@pytest.mark.parametrize("table", ["multvae-table2", "multvae-table4", "multvae-table3", "pvae-table1", "evcf-table1"])
def test_the_stored_runs_are_of_the_splits_that_are_opened_today(table):
    results, definition, seen = Path(__file__).parents[1] / "paper_results", load_table(table), 0
    for folder in sorted(path for path in (results / table).iterdir() if path.is_dir()):
        if folder.name != "movietweetings" and whereabouts(folder.name) is None:
            continue
        for row in definition.rows:
            for run in stored_runs(table, folder.name, row.slug, results)[:1]:
                assert splits_of(definition, folder.name)(run.seed, row.by).digest == run.data_digest, row.slug
                seen += 1
    if not seen:
        pytest.skip("the data of this table are not at hand")
