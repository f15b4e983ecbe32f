"""The commands on one held-out item of each user: models of training users, and others beside them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_cli import COLUMNS, fingerprint, run

from tfvae.data.splits import LeaveOneOut, load_split
from tfvae.evaluation.scoring import top_k
from tfvae.training.loop import load_run

pytestmark = pytest.mark.slow

SMALL = ["--set", "factors=2", "--epochs", "2"]
LEAVE_ONE_OUT = ["--protocol", "leave-one-out"]
TIMED = [*COLUMNS, "--time-col", "when"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A working folder with ratings.csv: 40 users with 12 of 150 items each, the times falling; and two with two."""
    folder = tmp_path_factory.mktemp("items")
    draw = np.random.default_rng(0)
    lines = ["uid,sku,when"]
    for user in range(42):
        for time, item in enumerate(draw.choice(150, 12 if user < 40 else 2, replace=False)):
            lines.append(f"{user},{100 + item},{1000 - time}")
    (folder / "ratings.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "fit.txt").write_text(run("fit", "ratings.csv", *TIMED, "--model", "gmf", *SMALL).output)
    return folder


@pytest.fixture(autouse=True)
def there(folder, monkeypatch):
    monkeypatch.chdir(folder)


def test_a_model_of_training_users_is_fitted_to_all_but_two_items_of_each(folder):
    said = (folder / "fit.txt").read_text()
    assert "monitor: ndcg@10 instead of ndcg@100, for an item ranked among 99 others" in said
    assert "Learns from 400 events; one item of each of 40 users is for validation" in said
    assert "hr@10" in said and "tfvae evaluate runs/ratings-gmf" in said
    assert "tfvae recommend runs/ratings-gmf --user=0" in said and "--history" not in said
    split = load_split("runs/ratings-gmf")
    assert isinstance(split, LeaveOneOut) and split.train.shape[0] == 40 and split.validation is None
    lines = [line.split(",") for line in (folder / "ratings.csv").read_text().splitlines()[1:]]
    latest = {int(user): int(item) for user, item, when in lines if when == "1000"}
    assert [latest[user] for user in split.user_ids.tolist()] == split.item_ids[split.test.items].tolist()


def test_it_recommends_to_its_training_users_what_they_do_not_have():
    split, model = load_split("runs/ratings-gmf"), load_run("runs/ratings-gmf").model
    items, scores = (found[0] for found in top_k(model, split.train, k=150, users=[7]))
    shown = run("recommend", "runs/ratings-gmf", "--user", "7", "-k", "4").output.splitlines()
    expected = zip(split.item_ids[items[:4]], scores[:4], strict=True)
    assert [line.split() for line in shown[1:]] == [[str(item), f"{score:.3f}"] for item, score in expected]
    everything = run("recommend", "runs/ratings-gmf", "--user", "7", "-k", "999").output.splitlines()[1:]
    assert {int(line.split()[0]) for line in everything} == {*split.item_ids[items[items >= 0]]}
    common = np.bincount(split.train.indices, minlength=split.n_items) >= 4
    shown = run("recommend", "runs/ratings-gmf", "--user", "7", "-k", "5", "--min-users-per-item", "4").output
    expected = [item for item in items[items >= 0] if common[item]][:5]
    assert [int(line.split()[0]) for line in shown.splitlines()[1:]] == split.item_ids[expected].tolist()


def test_it_is_measured_on_the_latest_items_and_serves_nobody_else():
    shown = run("evaluate", "runs/ratings-gmf").output
    stored = json.loads(Path("runs/ratings-gmf/evaluation.json").read_text())
    assert stored["users"] == 40 and set(stored["metrics"]) == {"hr@10", "ndcg@10"}
    assert f"{stored['metrics']['hr@10']['mean']:.4f}" in shown
    full = run("evaluate", "runs/ratings-gmf", "--metrics", "full-hr@10,hr@100").output
    assert "full-hr@10" in full and "1.0000" in full
    assert "serves its training users only" in run("recommend", "runs/ratings-gmf", "--history", "100", code=2).stderr


def test_a_prepared_split_serves_models_of_both_kinds():
    told = run("prepare", "ratings.csv", *TIMED, *LEAVE_ONE_OUT, "--negatives", "20").output
    assert "Next: tfvae fit data/ratings.npz --model neumf" in told
    assert load_split("data/ratings.npz").test.negatives.shape == (40, 20)
    small = ["--set", "latent_dim=3", "--set", "hidden=[]", "--epochs", "2"]
    for model, settings in (("mult-vae", small), ("popularity", []), ("mlp", SMALL)):
        said = run("fit", "data/ratings.npz", "--model", model, *settings, "--run", f"runs/{model}").output
        assert "one item of each of 40 users" in said
        assert load_split(f"runs/{model}").digest == load_split("data/ratings.npz").digest
        assert "ndcg@10" in run("evaluate", f"runs/{model}").output
    split = load_split("data/ratings.npz")
    has = ",".join(str(item) for item in split.item_ids[split.train[[5]].indices])
    same = [run("recommend", "runs/mult-vae", *who).output for who in (["--history", has], ["--user", "5"])]
    assert same[0] == same[1] and len(same[0].splitlines()) == 11


def test_without_times_the_last_one_in_the_file_is_held_out_and_that_is_said(folder, caplog):
    run("prepare", "ratings.csv", *COLUMNS, *LEAVE_ONE_OUT, "--out", "data/untimed.npz")
    assert "ratings.csv has no time stamps: the last event of each user in it is held out" in caplog.text
    lines = [line.split(",") for line in (folder / "ratings.csv").read_text().splitlines()[1:]]
    last = {int(user): int(item) for user, item, _ in lines}
    split = load_split("data/untimed.npz")
    assert [last[user] for user in split.user_ids.tolist()] == split.item_ids[split.test.items].tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["fit", "ratings.csv", *TIMED, "--model", "gmf", "--held-out-users", "4"],
            "held_out_users would change nothing",
        ),
        (["fit", "ratings.csv", *COLUMNS, "--time-col", "whn", "--model", "gmf"], "did you mean 'when'?"),
        (
            ["fit", "users.npz", "--model", "gmf"],
            "expected a split of kind 'leave-one-out', found 'strong-generalization'",
        ),
        (["fit", "runs/ratings-gmf/split.npz", "--model", "p-vae"], "found 'leave-one-out'"),
        (
            ["recommend", "runs/ratings-gmf", "--user", "41"],
            "41 is none of the 40 training users; their ids look like 0",
        ),
        (["recommend", "runs/ratings-gmf", "--user", "4", "--history", "100"], "or --user ID alone"),
        (["prepare", "ratings.csv", *TIMED], "only leave-one-out asks for times, so timestamp would change nothing"),
        (["prepare", "ratings.csv", *COLUMNS, "--negatives", "9"], "n_negatives would change nothing"),
        (["prepare", "ratings.csv", *TIMED, *LEAVE_ONE_OUT, "--negatives", "149"], "(--negatives of 'tfvae prepare')"),
        (["fit", "part.npz", "--model", "gmf"], "part.npz has nothing for test; expected a whole split"),
        (
            ["prepare", "ratings.csv", *TIMED, *LEAVE_ONE_OUT, "--format", "vae-cf"],
            "the vae-cf format is one of held-out users",
        ),
    ],
)
def test_what_does_not_fit_gets_one_message_and_leaves_nothing_behind(folder, arguments, message):
    if not Path("users.npz").exists():
        run("prepare", "ratings.csv", *COLUMNS, "--out", "users.npz")
        load_split("runs/ratings-gmf").for_tuning().save("part.npz")
    before = fingerprint(folder)
    result = run(*arguments, code=2)
    assert result.stderr.startswith("Error: ") and message in result.stderr
    assert fingerprint(folder) == before
