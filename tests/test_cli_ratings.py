"""The commands on ratings: from a user's own file to a model that predicts them, and what is refused on the way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_cli import COLUMNS, fingerprint, run

from tfvae.data.splits import load_split
from tfvae.evaluation.scoring import top_k
from tfvae.training.loop import load_run

pytestmark = pytest.mark.slow

RATED = [*COLUMNS, "--rating-col", "stars"]
SMALL = [
    "--model",
    "p-vae",
    "--set",
    "latent_dim=3",
    "--set",
    "embedding_dim=5",
    "--set",
    "variance=0.8",
    "--epochs",
    "3",
    "--set",
    "patience=3",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A working folder with ratings.csv, 40 users with 12 of 30 items each, a p-VAE of it and one that ranks."""
    folder = tmp_path_factory.mktemp("own")
    draw = np.random.default_rng(0)
    lines = ["uid,sku,stars"]
    for user in range(40):
        for item in draw.choice(30, 12, replace=False):
            lines.append(f"{user},{100 + item},{np.clip(round(3 + draw.normal() + (-1) ** (user + item)), 1, 5)}")
    (folder / "ratings.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "fit.txt").write_text(run("fit", "ratings.csv", *RATED, *SMALL).output, encoding="utf-8")
        run("fit", "ratings.csv", *COLUMNS, "--model", "popularity", "--run", "runs/popularity")
    return folder


@pytest.fixture(autouse=True)
def there(folder, monkeypatch):
    monkeypatch.chdir(folder)


RUN = "runs/ratings-p-vae"


def table_of(output: str) -> tuple[list[str], list[list[str]]]:
    heading, *rows = [line.split("  ") for line in output.splitlines()]
    return [cell.strip() for cell in heading if cell.strip()], [[c.strip() for c in row if c.strip()] for row in rows]


def test_fit_says_what_it_learns_from_and_keeps_the_whole_split(folder):
    said = (folder / "fit.txt").read_text(encoding="utf-8")
    split = load_split(RUN)
    part = split.for_tuning()
    assert (part.train.nnz, part.validation.targets.nnz, split.test.targets.nnz) == (388, 44, 48)
    assert "Learns from 388 ratings; 44 are for validation" in said and "48 for 'tfvae evaluate'" in said
    outcome = json.loads(Path(RUN, "run.json").read_text())
    errors = [entry["val_rmse"] for entry in outcome["history"]]
    assert outcome["best_epoch"] == int(np.argmin(errors)) and f"Best epoch: {outcome['best_epoch'] + 1} of 3" in said
    (shown,) = [line.split()[1] for line in said.splitlines() if line.startswith("rmse")]
    assert shown == f"{min(errors):.4f}"
    assert f"tfvae recommend {RUN} --history=100=5" in said


def test_evaluate_measures_the_test_ratings():
    shown = run("evaluate", RUN).output
    stored = json.loads(Path(RUN, "evaluation.json").read_text())
    assert set(stored["metrics"]) == {"rmse", "mae"} and stored["ratings"] == 48
    assert stored["data_digest"] == load_split(RUN).digest
    for name, value in stored["metrics"].items():
        assert any(
            line.split()[:4] == [name, f"{value['mean']:.4f}", "±", f"{value['se']:.4f}"] for line in shown.splitlines()
        )
    assert "48 ratings" in shown
    assert "unknown metric of ratings 'ndcg@10'" in run("evaluate", RUN, "--metrics", "ndcg@10", code=2).stderr


def test_recommend_shows_predicted_ratings_and_their_sd():
    told = run("recommend", RUN, "--history", "100=5,102=1,nonsense=3", "-k", "4")
    assert "left out: nonsense" in told.stderr
    headings, rows = table_of(told.stdout)
    assert headings == ["id", "predicted rating", "s.d."] and len(rows) == 4
    assert not {"100", "102"} & {row[0] for row in rows}
    predicted = [float(row[1]) for row in rows]
    assert predicted == sorted(predicted, reverse=True) and 1 <= predicted[-1] <= predicted[0] <= 5
    assert all(float(row[2]) >= 0.8**0.5 - 1e-3 for row in rows)
    assert run("recommend", RUN, "--history", "102=1,100=5", "-k", "4").stdout == told.stdout
    assert run("recommend", RUN, "--history", "102=5,100=1", "-k", "4").stdout != told.stdout


def test_a_training_user_is_told_by_id():
    split = load_split(RUN)
    row = slice(*split.train.indptr[3:5])
    has = zip(split.item_ids[split.train.indices[row]], split.train.data[row], strict=True)
    typed = ",".join(f"{item}={rating:g}" for item, rating in has)
    same = [run("recommend", RUN, *who).output for who in (["--history", typed], ["--user", "3"])]
    assert same[0] == same[1] and "predicted rating" in same[0]


def test_rare_items_can_be_left_out():
    split = load_split(RUN)
    users = np.bincount(split.train.indices, minlength=30)
    common = {str(item) for item in split.item_ids[users >= 16]}
    assert 2 < len(common) < 30
    _, rows = table_of(run("recommend", RUN, "--history", "100=5", "-k", "30", "--min-users-per-item", "16").stdout)
    assert {row[0] for row in rows} == common - {"100"}
    rare = run("recommend", RUN, "--history", "100=5", "--min-users-per-item", "41", code=2).stderr
    assert "no item has 41 training users" in rare


def test_an_export_takes_ratings():
    lines = run("export", RUN, "out/model").output.splitlines()
    program = "\n".join(line.strip() for line in lines[1:])
    names: dict = {}
    exec(program.replace("model.signatures", "found = model.signatures"), names)  # what a user would paste
    assert names["found"]["items"].shape == names["found"]["sd"].shape == (1, 10)


def test_the_same_command_again_changes_nothing(folder):
    before = fingerprint(folder / RUN)
    assert "nothing left to do" in run("fit", "ratings.csv", *RATED, *SMALL).output
    assert fingerprint(folder / RUN) == before


def test_items_may_be_the_rows():
    said = run("fit", "ratings.csv", *RATED, "--model", "bias-mf", "--set", "factors=2", "--by", "items").output
    by_items = "runs/ratings-bias-mf-by-items"
    assert f"tfvae recommend {by_items} --history=0=5" in said
    assert load_split(by_items).train.shape == (30, 40)
    assert "48 ratings" in run("evaluate", by_items).output
    headings, rows = table_of(run("recommend", by_items, "--history", "0=5,1=2", "-k", "40").stdout)
    assert headings == ["id", "predicted rating"]
    assert sorted(int(row[0]) for row in rows) == list(range(2, 40))  # users


def test_a_prepared_hold_out_is_trained_on_as_it_is():
    told = run("prepare", "ratings.csv", *RATED, "--protocol", "rating-holdout", "--split-seed", "3").output
    assert "test ratings" in told and "tfvae fit data/ratings.npz --model p-vae" in told
    run("fit", "data/ratings.npz", "--model", "autorec", "--epochs", "1", "--run", "runs/autorec")
    assert load_split("runs/autorec").digest == load_split("data/ratings.npz").digest != load_split(RUN).digest
    wrong = run("fit", "data/ratings.npz", "--model", "ease", code=2).stderr
    assert "data/ratings.npz holds ratings out, of which ease has no use" in wrong
    run("prepare", "ratings.csv", *COLUMNS, "--out", "data/users.npz")
    wrong = run("fit", "data/users.npz", "--model", "p-vae", code=2).stderr
    assert "expected a split of kind 'rating-holdout', found 'strong-generalization' in data/users.npz" in wrong


def test_a_model_of_its_training_users_is_fitted_and_measured_but_serves_nobody_else():
    small = ["--set", "features=2", "--set", "products=2", "--set", "hidden=[3]", "--epochs", "1"]
    said = run("fit", "ratings.csv", *RATED, "--model", "nnmf", *small).output
    assert "tfvae evaluate runs/ratings-nnmf" in said and "tfvae recommend runs/ratings-nnmf --user=0" in said
    heading, rows = table_of(run("recommend", "runs/ratings-nnmf", "--user", "3", "-k", "5").output)
    split = load_split("runs/ratings-nnmf")
    items, scores = (found[0] for found in top_k(load_run("runs/ratings-nnmf").model, split.train, k=5, users=[3]))
    predicted = [f"{rating:.3f}" for rating in np.clip(scores, *split.scale)]
    assert heading == ["id", "predicted rating"]
    assert rows == [[str(item), rating] for item, rating in zip(split.item_ids[items], predicted, strict=True)]
    assert "48 ratings" in run("evaluate", "runs/ratings-nnmf").output
    for command in (
        ["recommend", "runs/ratings-nnmf", "--history", "100=5"],
        ["export", "runs/ratings-nnmf", "out/nnmf"],
    ):
        assert "serves its training users only" in run(*command, code=2).stderr
    assert not Path("out/nnmf").exists()


def test_titles_take_ratings():
    run(
        "fit", "movietweetings", "--model", "bias-mf", "--set", "factors=2", "--set", "iterations=2", "--run", "runs/mt"
    )
    told = run("recommend", "runs/mt", "--like", "gravity=10", "-k", "3")
    assert "'gravity' is taken for Gravity (2013) (1454468)" in told.output
    assert "expected ratings from 0 to 10" in run("recommend", "runs/mt", "--like", "gravity=11", code=2).stderr
    assert "expected ITEM=RATING, found 'gravity'" in run("recommend", "runs/mt", "--like", "gravity", code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "points.csv", *COLUMNS, *SMALL], "holding out ratings needs ratings; name their column"),
        (["fit", "ratings.csv", *RATED, *SMALL, "--min-rating", "4"], "min_rating would change nothing"),
        (["fit", "ratings.csv", *RATED, *SMALL, "--held-out-users", "4"], "held_out_users would change nothing"),
        (["fit", "ratings.csv", *COLUMNS, "--by", "items"], "only a model of ratings can take items as rows"),
        (["fit", "msd", "--model", "p-vae"], "msd has no split of the kind 'rating-holdout'"),
        (["fit", "ncf-ml-1m", "--model", "p-vae"], "ncf-ml-1m has no split of the kind 'rating-holdout'"),
        (
            ["prepare", "ratings.csv", *RATED, "--protocol", "rating-holdout", "--format", "vae-cf"],
            "the vae-cf format holds no ratings",
        ),
        (["recommend", RUN, "--history", "100,102=4"], "expected ITEM=RATING, found '100'"),
        (["recommend", RUN, "--history", "100=good"], "expected ITEM=RATING, found '100=good'"),
        (["recommend", RUN, "--history", "100=6"], "expected ratings from 1 to 5"),
        (["recommend", RUN, "--history", "7=5"], "none of these ids is an item of the training data: 7"),
        (["recommend", "runs/popularity", "--history", "100=5"], "not by ratings; give 100 instead of 100=5"),
    ],
)
def test_what_does_not_fit_gets_one_message_and_leaves_nothing_behind(folder, arguments, message):
    (folder / "points.csv").write_text("uid,sku,points\n1,100,5\n")
    before = fingerprint(folder)
    result = run(*arguments, code=2)
    assert result.stderr.startswith("Error: ") and message in result.stderr
    assert fingerprint(folder) == before
