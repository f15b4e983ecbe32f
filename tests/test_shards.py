"""`tfvae prepare --shards`: the split in files is the split in memory, and what is wrong is said in the same words."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_examples import assert_same_split, log_of, write_log

from tfvae.data import prepare_shards as preparing
from tfvae.data import row_shards, sorted_events
from tfvae.data.items import Items
from tfvae.data.open_split import open_split
from tfvae.data.prepare_shards import prepare_shards
from tfvae.data.splits import load_split
from tfvae.data.vae_cf import write_vae_cf
from tfvae.system.errors import InputError

FILTERS = {"min_rating": 3.0, "min_users_per_item": 12, "min_items_per_user": 4, "held_out_users": 20, "seed": 3}
HEAD = "user,item,rating\n" + "".join(f"u{user},{item},{1 + user % 5}\n" for user in range(30) for item in range(6))


@pytest.fixture
def tiny_pieces(monkeypatch):
    """Many blocks and many shards, of which the usual sizes would make one."""
    monkeypatch.setattr(sorted_events, "_AT_ONCE", 100)
    monkeypatch.setattr(row_shards, "EVENTS_PER_SHARD", 100)


@pytest.mark.parametrize("changes", [{}, FILTERS], ids=["usual", "filtered"])
@pytest.mark.parametrize("name", ["log.csv", "log.parquet", "grouped [1]*.parquet"])
def test_the_split_is_that_in_memory(name, changes, tmp_path, tiny_pieces):
    log = log_of()
    if name.startswith("grouped"):
        log = log.drop_duplicates(["user", "item"]).sort_values("user", kind="stable")
    path = write_log(tmp_path, name, log)
    found = prepare_shards(path, tmp_path / "out", changes=changes)
    assert len(found.train.manifest.files) > 3
    assert_same_split(found, open_split(path, changes=changes))
    assert {file.name for file in tmp_path.iterdir()} == {name, "out"}  # no temporary file is left


@pytest.mark.parametrize(
    "lines",
    [
        "u1,2\n",
        "u1,99,x\n",
        "u1,99,nan\nu1,98,inf\n",
        ",4,3\n",
        '"u1,4,3\n',
        " u5,4,3\n",
        "u2,-1,3\n",
        "\n\nu1,,5\n",
    ],
)
def test_a_bad_line_is_named_as_in_memory(lines, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(HEAD + lines, encoding="utf-8")
    with pytest.raises(InputError) as in_memory:
        open_split(path, changes={"min_rating": 1.0})
    with pytest.raises(InputError) as in_shards:
        prepare_shards(path, tmp_path / "out", changes={"min_rating": 1.0})
    assert str(in_shards.value) == str(in_memory.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "changes", [{"min_items_per_user": 900}, {"held_out_users": 15}, {"min_rating": 1.0, "holdout_fraction": 0.01}]
)
def test_settings_that_leave_nothing_are_refused_as_in_memory(changes, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(HEAD, encoding="utf-8")
    with pytest.raises(InputError) as in_memory:
        open_split(path, changes=changes)
    with pytest.raises(InputError) as in_shards:
        prepare_shards(path, tmp_path / "out", changes=changes)
    assert str(in_shards.value) == str(in_memory.value)


def test_missing_ids_of_parquet_are_counted_as_in_memory(tmp_path):
    users = [*map(float, range(50)), float("nan"), float("nan"), 7.0]
    pq.write_table(pa.table({"user": users, "item": range(len(users))}), tmp_path / "log.parquet")
    with pytest.raises(InputError, match="event 51: no user id, and 2 are missing in all"):
        prepare_shards(tmp_path / "log.parquet", tmp_path / "out")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user": pa.array([b"a", b"b"]), "item": [1, 2]}, "expects whole numbers or text in the column 'user'"),
        ({"user": [1, 2], "item": [1, 2], "Item": [3, 4]}, "cannot tell the column 'item' from another"),
    ],
)
def test_what_duckdb_may_read_otherwise_is_refused(columns, message, tmp_path):
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    named = {"user": "user", "item": "item"}
    with pytest.raises(InputError, match=message):
        prepare_shards(tmp_path / "log.parquet", tmp_path / "out", columns=named)


def test_other_data_and_other_folders_are_refused(tmp_path):
    lines = tmp_path / "log.jsonl"
    lines.write_text('{"user": 1, "item": 2}\n', encoding="utf-8")
    with pytest.raises(InputError, match="found JSON lines"):
        prepare_shards(lines, tmp_path / "out", columns={"user": "user", "item": "item"})
    with pytest.raises(InputError, match="movietweetings is none"):
        prepare_shards("movietweetings", tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("not to be lost", encoding="utf-8")
    with pytest.raises(InputError, match="is no folder of 'tfvae prepare --shards'"):
        prepare_shards(lines, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").is_file()


def test_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "refuse_no_duckdb", sorted_events.refuse_no_duckdb)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'tfvae\[scale\]'"):
        prepare_shards(tmp_path / "log.csv", tmp_path / "out")


@pytest.fixture
def prepared(tmp_path, tiny_pieces):
    """A split in several shards, and its folder."""
    path = write_log(tmp_path, "log.parquet", log_of())
    return prepare_shards(path, tmp_path / "out"), tmp_path / "out"


def test_a_folder_can_be_moved_and_prepared_again(prepared, tmp_path):
    split, folder = prepared
    expected = open_split(tmp_path / "log.parquet")
    assert_same_split(load_split(folder.rename(tmp_path / "elsewhere")), expected)
    prepare_shards(tmp_path / "log.parquet", tmp_path / "elsewhere", changes={"seed": 1})
    assert load_split(tmp_path / "elsewhere").digest == open_split(tmp_path / "log.parquet", changes={"seed": 1}).digest
    split = load_split(tmp_path / "elsewhere")
    split.save(tmp_path / "run" / "split.npz")  # as a run keeps it, without the rows
    assert {file.name for file in (tmp_path / "run").iterdir()} == {"split.npz"}
    assert load_split(tmp_path / "run").train.open().rows([0])[1] == split.train.open().rows([0])[1]


def test_a_missing_and_a_damaged_shard_are_named(prepared):
    split, folder = prepared
    shard = folder / "shards" / "rows-00002.arrow"
    content = shard.read_bytes()
    shard.write_bytes(content[:-300] + bytes([content[-300] ^ 1]) + content[-299:])
    with pytest.raises(InputError, match=r"rows-00002\.arrow: it is not the file that was written"):
        split.train.open()
    shard.unlink()
    with pytest.raises(InputError, match=r"rows-00002\.arrow is missing"):
        split.train.open()


def test_what_needs_the_matrix_says_so_and_counts_are_known(prepared, tmp_path):
    split, _ = prepared
    expected = open_split(tmp_path / "log.parquet")
    assert (Items.of(split).n_users == Items.of(expected).n_users).all()
    with pytest.raises(InputError, match="the layout of vae_cf needs all training rows in memory"):
        write_vae_cf(split, tmp_path / "pro_sg")
