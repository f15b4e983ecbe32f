"""Tables on one's own data: a file's runs are cells like others, and are never taken for those of other data."""

from __future__ import annotations

import numpy as np
import pytest

from tfvae.experiments.definitions import load_table
from tfvae.experiments.protocols import OwnData, splits_of
from tfvae.experiments.results_folder import stored_run
from tfvae.experiments.runner import run_table
from tfvae.experiments.sweep import run_sweep
from tfvae.system.errors import InputError


def events(path, seed=0):
    rng = np.random.default_rng(seed)
    lines = [f"{u},{i},{rng.integers(1, 6)}" for u in range(100) for i in rng.choice(40, 10, replace=False)]
    path.write_text("\n".join(["user,item,stars", *lines]) + "\n")
    return path


def test_a_file_becomes_a_cell_and_another_of_its_name_is_other_data(tmp_path):
    own, lines = OwnData(events(tmp_path / "mine.csv")), []
    options = {"rows": ["popularity"], "results": tmp_path / "results", "work": tmp_path / "work", "progress": False}
    (run,) = run_table("multvae-table2", own=own, log=lines.append, **options)
    assert run.dataset == "mine" and not run.shortened and run.metrics["ndcg@100"]["se"] > 0
    page = (tmp_path / "results" / "multvae-table2" / "mine" / "README.md").read_text()
    assert "(mine)" in page and "--data FILE" in page and "Beside the published values" not in page
    run_table("multvae-table2", own=own, log=lines.append, **options)
    assert any(line.endswith("seed 1: stored") for line in lines)
    events(tmp_path / "mine.csv", seed=1)
    run_table("multvae-table2", own=own, log=lines.append, **options)
    assert any("stored with other data" in line for line in lines)
    again = stored_run("multvae-table2", "mine", "popularity", 1, tmp_path / "results")
    assert again.data_digest != run.data_digest


def test_ratings_are_cut_anew_for_each_seed(tmp_path):
    own = OwnData(events(tmp_path / "mine.csv"), {"rating": "stars"})
    splits = splits_of(load_table("pvae-table1"), None, own=own)
    assert splits(1, "users").digest != splits(2, "users").digest
    with pytest.raises(InputError, match="cuts the ratings anew for each of its seeds"):
        splits_of(load_table("pvae-table1"), None, own=OwnData(own.path, own.columns, {"seed": 3}))


def test_either_a_name_or_a_file_that_is_not_called_like_a_data_set(tmp_path):
    table, own = load_table("multvae-table2"), OwnData(tmp_path / "mine.csv")
    with pytest.raises(InputError, match="'ml-1m'; rename the file"):
        OwnData(tmp_path / "ml-1m.csv")
    with pytest.raises(InputError, match="--dataset.*--data"):
        splits_of(table, "ml-1m", own=own)
    with pytest.raises(InputError, match="--dataset.*--data"):
        splits_of(table, None)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("ratings.csv", "ratings"),
        ("My Ratings (2).csv", "my-ratings-2"),
        ("my.a.csv", "my-a"),
        ("my.b.tsv.gz", "my-b"),
        ("Shop_2026.parquet", "shop-2026"),
    ],
)
def test_runs_are_stored_under_a_name_of_the_file_that_any_file_system_has(file, name, tmp_path):
    assert OwnData(tmp_path / file).name == name


@pytest.mark.parametrize("file", ["ML-1M.csv", "ml_1m.csv", "MovieTweetings.parquet", "---.csv"])
def test_a_file_called_like_a_data_set_is_refused_however_it_is_written(file, tmp_path):
    with pytest.raises(InputError, match="rename the file"):
        OwnData(tmp_path / file)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(("choices", "tried"), [([20, 40, 500], {20, 40}), ([500], None)])
def test_a_sweep_tries_no_batch_that_is_larger_than_the_data(choices, tried, tmp_path):
    results = tmp_path / "results"
    (results / "mine").mkdir(parents=True)
    (results / "mine" / "table.toml").write_text(f"""
title = "Mine"
caption = "For tests."
metrics = ["ndcg@10"]
monitor = "ndcg@10"

[[rows]]
name = "Mult-DAE"
slug = "mult-dae"
model = "mult-dae"
settings = {{ epochs = 1, batch_size = 500, latent_dim = 4, hidden = [], dropout = 0.25 }}
search.batch_size = {{ choices = {choices} }}
search.dropout = {{ choices = [0.25, 0.5] }}
""")
    own = OwnData(events(tmp_path / "mine.csv"), {"rating": "stars"})
    places = {"results": results, "work": tmp_path / "work", "progress": False, "log": lambda line: None}
    found = run_sweep("mine", "mult-dae", None, 5, own=own, **places)
    assert [trial.state for trial in found.trials] == ["complete"] * 5
    assert found.trials[0].params.get("batch_size") == (max(tried) if tried else None)
    assert {trial.params.get("batch_size") for trial in found.trials} <= (tried or {None})
