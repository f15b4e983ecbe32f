"""The commands on a share of each user's items: from a file of one's own to models, measures, tables and sweeps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_cli import COLUMNS, fingerprint, run

from tfvae.data.splits import WeakGeneralization, load_split

pytestmark = pytest.mark.slow

WEAK = ["--protocol", "weak-generalization"]
SMALL = ["--set", "latent_dim=3", "--set", "hidden=[]", "--epochs", "2"]
TABLE = """
title = "Shares"
caption = "For tests."
protocol = "weak-generalization"
metrics = ["uncapped-recall@20", "ndcg@20"]
monitor = "ndcg@20"

[[rows]]
name = "RP3β"
slug = "rp3beta"
model = "rp3beta"
search.beta = { low = 0.0, high = 1.0 }

[[rows]]
name = "Mult-DAE"
slug = "mult-dae"
model = "mult-dae"
settings = { latent_dim = 3, hidden = [], epochs = 3 }
search.dropout = { low = 0.2, high = 0.8 }

[[rows]]
name = "GMF"
slug = "gmf"
model = "gmf"
settings = { factors = 2, epochs = 2 }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A working folder with ratings.csv: 60 users with 12 of 50 items each, a split of it, and a table."""
    folder = tmp_path_factory.mktemp("shares")
    draw = np.random.default_rng(0)
    lines = ["uid,sku,stars"]
    for user in range(60):
        for item in draw.choice(50, 12, replace=False):
            lines.append(f"{user},{100 + item},{1 + (item + user) % 5}")
    (folder / "ratings.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "paper_results/shares").mkdir(parents=True)
    (folder / "paper_results/shares/table.toml").write_text(TABLE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        told = run("prepare", "ratings.csv", *COLUMNS, *WEAK, "--holdout-fraction", "0.25", "--split-seed", "3")
        assert "Next: tfvae fit data/ratings.npz" in told.output and "test events" in told.output.replace("_", " ")
    return folder


@pytest.fixture(autouse=True)
def there(folder, monkeypatch):
    monkeypatch.chdir(folder)


def test_a_prepared_split_is_what_was_asked_for():
    split = load_split("data/ratings.npz")
    assert isinstance(split, WeakGeneralization)
    assert (split.train.nnz, split.test.targets.nnz, split.settings.seed) == (540, 180, 3)


def test_models_of_all_kinds_learn_from_the_same_split():
    for model, settings in (("mult-vae", SMALL), ("rp3beta", []), ("gmf", ["--set", "factors=2", "--epochs", "2"])):
        said = run("fit", "data/ratings.npz", "--model", model, *settings, "--run", f"runs/{model}").output
        assert "Learns from 480 events; 60 are for validation" in said and "180 for 'tfvae evaluate'" in said
        assert ("monitor: ndcg@20 instead of ndcg@100" in said) == (model != "rp3beta")
        assert load_split(f"runs/{model}").digest == load_split("data/ratings.npz").digest
        shown = run("evaluate", f"runs/{model}").output
        stored = json.loads(Path(f"runs/{model}/evaluation.json").read_text())
        assert set(stored["metrics"]) == {"uncapped-recall@20", "ndcg@20"} and stored["users"] == 60
        assert f"{stored['metrics']['ndcg@20']['mean']:.4f}" in shown
        ids = [line.split()[0] for line in run("recommend", f"runs/{model}", "--user", "5").stdout.splitlines()[1:]]
        split = load_split("data/ratings.npz")
        known = set(map(str, split.item_ids[split.train[[5]].indices].tolist()))
        assert len(ids) == 10 and not known & set(ids)


def test_fit_cuts_a_file_by_the_protocol_that_is_asked_for():
    told = ["fit", "ratings.csv", *COLUMNS, "--rating-col", "stars", "--min-rating", "2", "--model", "rp3beta", *WEAK]
    assert "are for validation" in run(*told).output
    assert load_split("runs/ratings-rp3beta").settings.min_rating == 2
    before = fingerprint(Path("runs/ratings-rp3beta"))
    assert "nothing left to do" in run(*told).output
    assert fingerprint(Path("runs/ratings-rp3beta")) == before
    one_out = ["fit", "ratings.csv", *COLUMNS, "--protocol", "leave-one-out", "--model", "popularity", "--run", "one"]
    assert "to draw negatives from" in run(*one_out, code=2).stderr


def test_a_table_is_run_on_own_data_with_the_epochs_that_its_sweep_chose():
    data = ["--data", "ratings.csv", *COLUMNS]
    for row in ("rp3beta", "mult-dae"):
        assert "Best of 2: ndcg@20" in run("sweep", "shares", "--row", row, *data, "--trials", "2").output
    shown = run("table", "shares", *data, "--seeds", "1").output
    cells = {}
    for slug in ("rp3beta", "mult-dae", "gmf"):
        stored = json.loads(Path(f"paper_results/shares/ratings/{slug}.seed1.json").read_text())
        cells[slug] = stored["metrics"]["uncapped-recall@20"]
        assert f"{cells[slug]['mean']:.4f} ± {cells[slug]['se']:.4f}" in shown
        assert stored["users"] == 60 and stored["validation"] is None and not stored["shortened"]
    sweep = json.loads(Path("paper_results/shares/ratings/mult-dae.sweep.json").read_text())
    best = max(sweep["trials"], key=lambda trial: trial["value"])
    stored = json.loads(Path("paper_results/shares/ratings/mult-dae.seed1.json").read_text())
    assert stored["epochs"] == best["best_epoch"] + 1 and stored["settings"]["dropout"] == best["params"]["dropout"]
    page = Path("paper_results/shares/ratings/README.md").read_text(encoding="utf-8")
    assert "uncapped Recall@20" in page and "a part of the users' training items" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "ratings.csv", *COLUMNS, *WEAK, "--held-out-users", "4"], "held_out_users would change nothing"),
        (["prepare", "ratings.csv", *COLUMNS, *WEAK, "--holdout-fraction", "1.5"], "less than 1"),
        (["prepare", "ratings.csv", *COLUMNS, *WEAK, "--format", "vae-cf"], "one of held-out users"),
        (["prepare", "points.csv", *COLUMNS, *WEAK, "--min-rating", "4"], "needs ratings"),
        (["fit", "ratings.csv", *COLUMNS, "--model", "p-vae", *WEAK], "p-vae cannot learn from a split of kind 'weak"),
        (["fit", "data/ratings.npz", "--model", "p-vae"], "found 'weak-generalization'"),
        (
            ["fit", "ratings.csv", *COLUMNS, "--model", "gmf", "--protocol", "strong-generalization"],
            "gmf cannot learn from a split of kind 'strong-generalization', only from leave-one-out or weak",
        ),
        (
            ["fit", "data/ratings.npz", "--model", "popularity", "--protocol", "leave-one-out"],
            "expected a split of kind 'leave-one-out', found 'weak-generalization'",
        ),
        (["fit", "part.npz", "--model", "gmf"], "part.npz has nothing for test; expected a whole split"),
    ],
)
def test_what_does_not_fit_gets_one_message_and_leaves_nothing_behind(folder, arguments, message):
    if not Path("part.npz").exists():
        load_split("data/ratings.npz").for_tuning().save("part.npz")
    (folder / "points.csv").write_text("uid,sku,points\n1,100,5\n")
    before = fingerprint(folder)
    result = run(*arguments, code=2)
    assert result.stderr.startswith("Error: ") and message in result.stderr
    assert fingerprint(folder) == before
