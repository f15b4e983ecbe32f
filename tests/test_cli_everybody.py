"""`tfvae recommend` for many people: what it says, what it refuses before the model is loaded, and kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_cli import COLUMNS, fingerprint, run
from typer.testing import CliRunner

from tfvae.cli.app import app
from tfvae.data.splits import load_split
from tfvae.serving.recommendations import recommend, recommend_to_users
from tfvae.serving.rules import Rules
from tfvae.training.loop import load_run

pytestmark = pytest.mark.slow

RATED = [*COLUMNS, "--rating-col", "stars"]
RATER = ["--model", "p-vae", "--set", "latent_dim=3", "--set", "embedding_dim=5", "--epochs", "2"]
EASE, GMF, PVAE = "runs/ratings-ease", "runs/ratings-gmf", "runs/ratings-p-vae"
OUT = ["--out", "top.csv"]

KILLED = """
import os, signal
import tfvae.serving.everybody as everybody
from tfvae.cli.app import main
everybody.USERS_A_PART = 10
everybody.recommend_to_all.__kwdefaults__["batch_size"] = 5
whole, left = os.replace, int(os.environ["PARTS"])
def replace(source, target):
    global left
    if "part-" in str(target):
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)  # the draft of the part is whole, and is left behind
        left -= 1
    whole(source, target)
os.replace = replace
main()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A working folder with ratings.csv, 40 users with 12 of 30 items each, and three runs; new.csv has new users."""
    folder = tmp_path_factory.mktemp("everybody")
    draw = np.random.default_rng(0)
    lines = ["uid,sku,stars"]
    for user in range(40):
        for item in draw.choice(30, 12, replace=False):
            lines.append(f"u{user},{100 + item},{np.clip(round(3 + draw.normal() + (-1) ** (user + item)), 1, 5)}")
    (folder / "ratings.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    new = ["uid;sku;stars"]
    new += [f"n{user:02};{100 + item};{1 + (user + item) % 5}" for item in range(0, 30, 4) for user in range(30)]
    new += ["zoe;bike;1", "zoe;9;2", "ann;bike;3", "ann;101;4"]
    (folder / "new.csv").write_text("\n".join(new) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run("fit", "ratings.csv", *COLUMNS, "--model", "ease")
        run("prepare", "ratings.csv", *COLUMNS, "--protocol", "leave-one-out", "--negatives", "9", "--out", "one.npz")
        run("fit", "one.npz", "--model", "gmf", "--set", "factors=2", "--epochs", "2", "--run", GMF)
        run("fit", "ratings.csv", *RATED, *RATER)
    return folder


@pytest.fixture(autouse=True)
def there(folder, monkeypatch):
    monkeypatch.chdir(folder)


def test_new_users_of_a_file_are_ranked_for_and_what_is_unknown_is_told():
    told = run("recommend", EASE, "--users", "new.csv", *COLUMNS, "--out", "out/top.parquet", "-k", "4")
    assert "Written: out/top.parquet, 128 rows for 32 users" in told.stdout
    lines = told.stderr.splitlines()
    assert "Not in the training data, left out: 3 of 244 events, with 2 different items (bike, 9)" in lines
    assert any(line.startswith("Without any known item: 1 of 32 users") for line in lines)
    found = pd.read_parquet("out/top.parquet")
    assert list(found) == ["user", "rank", "item", "score"]
    new = pd.read_csv("new.csv", sep=";", dtype=str)
    items = load_split(EASE).item_ids
    histories = {
        user: rows.sku[rows.sku.isin(items.astype(str))].astype(int).tolist() for user, rows in new.groupby("uid")
    }
    expected = recommend(load_run(EASE).model, items, [histories[user] for user in sorted(histories)], 4)
    assert found.user.tolist() == sorted([*histories] * 4) and found["rank"].tolist() == [1, 2, 3, 4] * 32
    np.testing.assert_array_equal(found["item"].to_numpy().reshape(32, 4), expected.items)
    np.testing.assert_allclose(found.score.to_numpy().reshape(32, 4), expected.scores, rtol=1e-5)


def test_ratings_come_with_their_sd_and_common_items_only():
    told = run("recommend", PVAE, "--users", "new.csv", *RATED, *OUT, "-k", "99", "--min-users-per-item", "13").stdout
    found = pd.read_csv("top.csv", dtype={"score": np.float32, "sd": np.float32})
    assert list(found) == ["user", "rank", "item", "score", "sd"] and f"{len(found)} rows" in told
    assert found.score.between(1, 5).all() and (found.sd > 0).all()
    split = load_split(PVAE)
    common = np.bincount(split.train.indices, minlength=30) >= 13
    assert 0 < common.sum() < 30 and set(found["item"]) <= {*split.item_ids[common]}
    ann = recommend(
        load_run(PVAE).model,
        split.item_ids,
        [[101]],
        30,
        ratings=[[4]],
        scale=split.scale,
        rules=Rules(only=split.item_ids[common]),
    )
    mine = found[found.user == "ann"]
    assert mine["item"].tolist() == [item for item in ann.items[0].tolist() if item >= 0]
    np.testing.assert_allclose(mine.sd, ann.sd[0][: len(mine)], rtol=1e-4)


@pytest.mark.parametrize("run_folder", [EASE, GMF, PVAE])
def test_all_training_users_are_ranked_for(run_folder):
    told = run("recommend", run_folder, "--all-users", "--out", "all.jsonl").stdout
    split = load_split(run_folder)
    assert f"rows for {len(split.user_ids)} users" in told
    expected = recommend_to_users(load_run(run_folder).model, split, split.user_ids, 10)
    found = pd.read_json("all.jsonl", lines=True)
    filled = np.isfinite(expected.scores)
    assert found["item"].tolist() == expected.items[filled].tolist()
    assert found.user.tolist() == split.user_ids[np.nonzero(filled)[0]].tolist()
    np.testing.assert_array_equal(found.score.to_numpy(np.float32), expected.scores[filled])


def test_standard_input_and_a_threshold_of_ratings(folder):
    given = (folder / "new.csv").read_text()
    arguments = ["recommend", EASE, "--users", "-", *RATED, "--min-rating", "4", "--delimiter", ";", *OUT]
    (folder / "top.csv").unlink(missing_ok=True)
    result = CliRunner().invoke(app, arguments, input=given)
    assert result.exit_code == 0, result.output
    assert (
        "Written: top.csv, 320 rows for 32 users" in result.stdout and "Without any known item: 1 of" in result.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([EASE, "--users", "new.csv", *COLUMNS], "name the file to write, --out FILE"),
        ([EASE, "--users", "new.csv", "--all-users", *OUT], "--users FILE or --all-users, alone as well"),
        ([EASE, "--users", "new.csv", "--history", "100", *OUT], "--users FILE or --all-users, alone as well"),
        ([EASE, "--all-users", "--user", "u1", *OUT], "--users FILE or --all-users, alone as well"),
        ([EASE, "--all-users", *COLUMNS, *OUT], "only --users reads a file of events, so user, item would change"),
        ([EASE, "--history", "100", *OUT], "--out is for --users FILE and --all-users"),
        ([EASE, "--all-users", "--out", "top.xlsx"], "top.xlsx: expected a name that ends in .parquet, .csv, .jsonl"),
        ([EASE, "--all-users", "--out", "ratings.csv"], "ratings.csv exists and is no ranking of tfvae"),
        ([EASE, "--users", "none.csv", *OUT], "none.csv: no such file"),
        ([EASE, "--users", "empty.csv", *OUT], "empty.csv: the file is empty"),
        ([EASE, "--users", "odd.csv", *OUT], "no column 'user'; found: 'who', 'what'"),
        ([EASE, "--users", "new.csv", *RATED, *OUT], "leave it out, or say which ratings count (--min-rating)"),
        ([PVAE, "--users", "odd.csv", *OUT], "name their column (--rating-col)"),
        ([PVAE, "--users", "off.csv", *RATED, *OUT], "off.csv, line 3: expected ratings from 1 to 5"),
        ([GMF, "--users", "new.csv", *COLUMNS, *OUT], "gmf serves its training users only"),
        ([EASE, "--users", "new.csv", *COLUMNS, *OUT, "--min-users-per-item", "99"], "no item has 99 training users"),
        (["runs/none", "--all-users", *OUT], "runs/none holds no finished run"),
        ([EASE, "--all-users", *OUT, "-k", "0"], "equal to 1"),
    ],
)
def test_bad_input_is_refused_before_the_model_is_loaded(folder, arguments, message, monkeypatch):
    def loaded(folder):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("tfvae.training.loop.load_run", loaded)
    (folder / "empty.csv").write_text("")
    (folder / "odd.csv").write_text("who,what\n1,100\n")
    (folder / "off.csv").write_text("uid,sku,stars\n1,100,5\n1,101,7\n")
    (folder / "top.csv").unlink(missing_ok=True)
    before = fingerprint(folder)
    assert message in run("recommend", *arguments, code=2).stderr
    assert fingerprint(folder) == before


def test_the_file_of_histories_is_not_replaced_by_its_ranking(folder):
    content = "user,rank,item,score\n1,1,100,.5\n"
    (folder / "both.csv").write_text(content)
    told = run("recommend", EASE, "--users", "both.csv", "--out", "both.csv", code=2).stderr
    assert "is the file of histories" in told and (folder / "both.csv").read_text() == content


def ranked(out: str, parts: int, code: int) -> str:
    """Gives the command in a process of its own, which is killed when it has written a part beyond so many."""
    arguments = ["recommend", EASE, "--users", "new.csv", *COLUMNS, "--out", out, "-k", "6"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "PARTS": str(parts)}
    command = [sys.executable, "-c", KILLED, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return done.stderr


@pytest.mark.long
def test_killed_in_the_middle_the_same_command_goes_on_to_equal_bytes(folder):
    ranked("whole.csv", 99, 0)
    ranked("cut.csv", 2, -signal.SIGKILL)
    parts = Path("cut.csv.parts")
    assert not Path("cut.csv").exists() and len(list(parts.glob("part-*.npz"))) == 2 and (parts / ".lock").exists()
    assert list(parts.glob(".part-000002.npz.*/part-000002.npz"))
    another = run("recommend", EASE, "--users", "new.csv", *COLUMNS, "--out", "cut.csv", "-k", "7", code=2).stderr
    assert "k is 6 there, 7 here" in another
    ranked("cut.csv", 2, 0)  # of 32 users in parts of 10, two parts are left
    assert Path("cut.csv").read_bytes() == Path("whole.csv").read_bytes() and not parts.exists()
