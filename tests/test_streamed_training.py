"""Training from shards: which models can, and that it is the training in memory bit by bit, resumed or not."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from shard_examples import log_of, write_log
from test_training import assert_same_run
from typer.testing import CliRunner

from tfvae.cli.app import app
from tfvae.data.open_split import open_split
from tfvae.data.prepare_shards import prepare_shards
from tfvae.data.row_shards import rows_of
from tfvae.models import MODELS, model_class
from tfvae.models.gradient import GradientRecommender
from tfvae.nn.batches import RowStore
from tfvae.nn.sharded_rows import ShardedRows
from tfvae.serving.recommendations import recommend_to_users
from tfvae.system.errors import InputError
from tfvae.training.loop import load_run, train
from tfvae.training.settings import settings_of
from tfvae.training.streaming import refuse_not_streamed

pytestmark = pytest.mark.slow

STREAMED = {"mult-vae", "mult-dae", "vamp", "h-vamp", "evcf-mult-vae", "recvae", "ract", "cdae", "popularity"}
BY_MEMBERS = {"ensemble", "rating-ensemble"}
SMALL = {"epochs": 2, "batch_size": 40, "monitor": "ndcg@10"}


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """The same split in memory and in shards."""
    folder = tmp_path_factory.mktemp("data")
    path = write_log(folder, "log.parquet", log_of())
    return open_split(path), prepare_shards(path, folder / "out")


def example(name, **changes):
    kind = model_class(name)
    given = kind.example_settings | (SMALL if issubclass(kind, GradientRecommender) else {}) | changes
    return settings_of(name, given)


@pytest.mark.parametrize("name", MODELS)
def test_each_model_learns_from_shards_or_says_why_not(name, splits):
    if name in STREAMED | BY_MEMBERS:
        refuse_not_streamed(example(name), splits[1])
        return
    with pytest.raises(InputError, match=f"{name} cannot learn from training rows in shards: .*prepare them without"):
        refuse_not_streamed(example(name), splits[1])


@pytest.mark.long  # the next test shows it of one model
@pytest.mark.parametrize("name", sorted(STREAMED))
def test_the_weights_are_those_of_training_in_memory(name, splits, tmp_path):
    in_memory, in_shards = splits
    one = train(example(name), in_memory, tmp_path / "memory", progress=False, log=[].append)
    other = train(example(name), in_shards, tmp_path / "shards", progress=False, log=[].append)
    assert_same_run(one, other)


def test_a_killed_run_goes_on_as_if_it_had_not_been_killed(splits, tmp_path):
    in_memory, in_shards = splits
    settings = example("mult-vae", epochs=4)
    whole = train(settings, in_memory, tmp_path / "whole", progress=False, log=[].append)

    def kill(history):
        if len(history) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(settings, in_shards, tmp_path / "run", follow=kill, progress=False, log=[].append)
    resumed = train(settings, in_shards, tmp_path / "run", progress=False, log=[].append)
    assert resumed.resumed
    assert_same_run(resumed, whole)


def test_batches_are_those_of_a_matrix_in_memory_in_any_order(splits):
    train_rows = splits[1].train
    in_memory, in_shards = RowStore(rows_of(train_rows, range(train_rows.shape[0]))), ShardedRows(train_rows)
    for users in ([5, 1, 5, train_rows.shape[0] - 1], [0], []):
        numbers = tf.constant(users, tf.int64)
        one, other = (tf.function(store.gather)(numbers) for store in (in_memory, in_shards))
        for name in ("items", "segment_ids", "lengths", "users"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
            assert getattr(one, name).dtype == getattr(other, name).dtype
    batches = tf.data.Dataset.range(9).batch(4)
    ahead = in_shards.ahead(batches)
    assert [batch.tolist() for batch in ahead.as_numpy_iterator()] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]


def test_a_damaged_shard_is_named_before_anything_is_trained(tmp_path):
    path = write_log(tmp_path, "log.parquet", log_of())
    split = prepare_shards(path, tmp_path / "out")
    shard = tmp_path / "out" / "shards" / "rows-00000.arrow"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"rows-00000\.arrow"):
        train(example("mult-vae"), split, tmp_path / "run", progress=False, log=[].append)
    assert not (tmp_path / "run" / "settings.json").exists()


def test_the_commands_from_a_log_to_a_ranking(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_log(tmp_path, "log.csv", log_of())

    def run(*arguments, code=0):
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
        return result.output

    assert "Next: tfvae fit data/log" in run("prepare", "log.csv", "--shards", "--memory", "500MB")
    assert "auto takes mult-vae: it learns from shards" in run(
        "fit", "data/log", "--run", "runs/shards", "--epochs", "1"
    )
    run("evaluate", "runs/shards")
    assert "ease cannot learn from training rows in shards" in run("fit", "data/log", "--model", "ease", code=2)
    assert "--diversity needs" in run("recommend", "runs/shards", "--history", "100", "--diversity", ".5", code=2)
    split, in_memory = open_split("data/log"), open_split("log.csv")
    model, users = load_run(tmp_path / "runs" / "shards").model, split.user_ids[[3, 0]].tolist()
    found, expected = (recommend_to_users(model, given, users, 5) for given in (split, in_memory))
    np.testing.assert_array_equal(found.items, expected.items)
    assert str(found.items[0, 0]) in run("recommend", "runs/shards", "--user", users[0], "-k", "5")
