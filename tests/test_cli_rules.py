"""The rules and reasons of `tfvae recommend`, and what of them is refused before the model is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_cli import COLUMNS, fingerprint, run

from tfvae.data.item_lists import categories_of, item_list, split_column
from tfvae.data.splits import load_split
from tfvae.serving.reasons import reasons
from tfvae.serving.recommendations import recommend, recommend_to_users
from tfvae.serving.reranking import training_vectors
from tfvae.serving.rules import Rules
from tfvae.system.errors import InputError
from tfvae.training.loop import load_run

pytestmark = pytest.mark.slow

EASE, GMF, PVAE = "runs/ratings-ease", "runs/ratings-gmf", "runs/ratings-p-vae"
RATER = ["--rating-col", "stars", "--model", "p-vae", "--set", "latent_dim=3", "--epochs", "2"]
KINDS = ["--categories", "items.csv:kind"]
HISTORY = ["--history", "100,103,107"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A working folder with ratings.csv, 40 users with 12 of 30 items each, three runs, and files of items."""
    folder = tmp_path_factory.mktemp("rules")
    draw = np.random.default_rng(0)
    lines = ["uid,sku,stars"]
    for user in range(40):
        for item in draw.choice(30, 12, replace=False):
            lines.append(f"u{user},{100 + item},{np.clip(round(3 + draw.normal() + (-1) ** (user + item)), 1, 5)}")
    (folder / "ratings.csv").write_text("\n".join(lines) + "\n")
    (folder / "stock.csv").write_text("sku,shelf\n" + "".join(f"{item},x\n" for item in [7, *range(110, 130)]))
    (folder / "sold.csv").write_text("item\n" + "".join(f"{item}\n" for item in range(100, 110)))
    kinds = ["odd", "even", "odd|low", "even| low", ""]
    (folder / "items.csv").write_text("item,kind\n" + "".join(f"{100 + i},{kinds[i % 5]}\n" for i in range(29)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run("fit", "ratings.csv", *COLUMNS, "--model", "ease", "--items", "items.csv")
        run("prepare", "ratings.csv", *COLUMNS, "--protocol", "leave-one-out", "--negatives", "9", "--out", "one.npz")
        run("fit", "one.npz", "--model", "gmf", "--set", "factors=2", "--epochs", "2", "--run", GMF)
        run("fit", "ratings.csv", *COLUMNS, *RATER)
    return folder


@pytest.fixture(autouse=True)
def there(folder, monkeypatch):
    monkeypatch.chdir(folder)


def ids_of(output: str) -> list[int]:
    return [int(line.split()[0]) for line in output.splitlines()[1:] if not line.startswith("  ")]


def categories(item_ids):
    """Those of items.csv, in the order of the model's items, which is that of the ratings."""
    found = [["odd"], ["even"], ["odd", "low"], ["even", "low"], []]
    return [found[item % 5] if item < 129 else [] for item in item_ids.tolist()]


def test_one_person_is_ranked_for_by_the_rules(caplog):
    split, model = load_split(EASE), load_run(EASE).model
    ids = split.item_ids

    def expected(k=10, **rules):
        return recommend(model, ids, [[100, 103, 107]], k, rules=Rules(**rules)).items[0].tolist()

    told = run("recommend", EASE, *HISTORY, "--only", "stock.csv", "--item-col", "sku")
    assert run("recommend", EASE, *HISTORY, "--only", "stock.csv:sku").stdout == told.stdout
    assert ids_of(told.stdout) == expected(only=range(110, 130))
    assert "Not in the training data, left out of only: 1 of 21 ids (7)" in caplog.text
    assert ids_of(run("recommend", EASE, *HISTORY, "--without", "sold.csv").stdout) == expected(without=range(100, 110))
    again = ids_of(run("recommend", EASE, *HISTORY, "--again", "-k", "30").stdout)
    assert again == expected(30, again=True) and {100, 103, 107} < set(again)
    told = run("recommend", EASE, *HISTORY, *KINDS, "--at-most", "1", "-k", "12")
    shown = ids_of(told.stdout)
    assert shown == [item for item in expected(12, at_most=1, categories=categories(ids)) if item >= 0]
    assert "Without a category: 6 of 30 items, of which any number" in told.stderr and len(shown) <= 8
    diverse = ids_of(run("recommend", EASE, *HISTORY, "--diversity", ".6").stdout)
    assert diverse == expected(diversity=0.6, vectors=training_vectors(split.train)) != expected()


def test_training_users_and_everybody_are_ranked_for_by_the_rules():
    options = ["--diversity", ".4", "--at-most", "3", *KINDS, "--min-users-per-item", "12", "-k", "6"]
    for name in (EASE, GMF, PVAE):
        split, model = load_split(name), load_run(name).model
        rules = Rules(diversity=0.4, at_most=3, categories=categories(split.item_ids), min_users=12)
        expected = recommend_to_users(model, split, split.user_ids, 6, rules)
        run("recommend", name, "--all-users", "--out", "all.jsonl", *options)
        found = pd.DataFrame([json.loads(line) for line in Path("all.jsonl").read_text().splitlines()])
        assert found["item"].tolist() == expected.items[expected.items >= 0].tolist()
        one = run("recommend", name, "--user", str(split.user_ids[3]), *options)
        assert ids_of(one.stdout) == [item for item in expected.items[3].tolist() if item >= 0]


def test_why_names_the_items_of_the_history_under_each_line():
    model, ids = load_run(EASE).model, load_split(EASE).item_ids
    lines = run("recommend", EASE, *HISTORY, "-k", "30", "--why").stdout.splitlines()[1:]
    shown = [int(line.split()[0]) for line in lines[::2]]
    found = reasons(model, ids, [100, 103, 107], shown)
    assert len(lines) == 54 and any(found)
    for line, of_item in zip(lines[1::2], found, strict=True):
        named = ", ".join(str(reason.item) for reason in of_item) or "nothing in the history"
        assert line.strip() == f"because of {named}"
    rated = run("recommend", PVAE, "--history", "100=5,103=1", "-k", "3", "--why").stdout
    assert rated.count("because of") == 3
    assert "because of" in run("recommend", EASE, "--user", "u3", "--why").stdout


def test_reasons_are_told_by_title():
    run("fit", "movietweetings", "--model", "ease", "--set", "regularization=100", "--run", "runs/mt")
    told = run("recommend", "runs/mt", "--like", "gravity", "-k", "3", "--why").stdout
    assert told.count("because of Gravity (2013)") == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--at-most", "2"], "--at-most and --categories go together"),
        (KINDS, "--at-most and --categories go together"),
        (["--at-most", "2", "--categories", "items.csv"], "expected FILE:COLUMN, such as items.csv:genre"),
        (["--at-most", "2", "--categories", "items.csv:genre"], "no column 'genre'; found: 'item', 'kind'"),
        (["--at-most", "0", *KINDS], "equal to 1"),
        (["--diversity", "1.5"], "equal to 1"),
        (["--only", "none.csv"], "none.csv: no such file"),
        (["--only", "stock.csv:item"], "no column 'item'"),
        (["--only", "stock.csv:"], "stock.csv:"),
        (["--without", "others.csv"], "none of the 2 ids in without is an item of the training data, such as 1, 2"),
        (["--only", "sold.csv", "--without", "sold.csv"], "10 items are both in only and in without"),
        (["--min-users-per-item", "99"], "no item has 99 training users"),
        (["--at-most", "2", "--categories", "others.csv:item2"], "none of its 2 items, such as 1"),
        (
            ["--at-most", "2", "--categories", "blank.csv:kind"],
            "nothing in the column",
        ),
    ],
)
def test_rules_that_do_not_fit_are_refused_before_the_model_is_loaded(folder, arguments, message, monkeypatch):
    def loaded(folder):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("tfvae.training.loop.load_run", loaded)
    (folder / "others.csv").write_text("item,item2\n1,a\n2,b\n")
    (folder / "blank.csv").write_text("item,kind\n100,\n101,|\n")
    before = fingerprint(folder)
    for whom in (HISTORY, ["--user", "u1"], ["--all-users", "--out", "never.csv"]):
        assert message in run("recommend", EASE, *whom, *arguments, code=2).stderr
    assert fingerprint(folder) == before


def test_reasons_that_cost_too_much_or_do_not_exist_are_refused():
    assert (
        "--why is for one person" in run("recommend", EASE, "--all-users", "--out", "never.csv", "--why", code=2).stderr
    )
    needless = run("recommend", EASE, *HISTORY, "--only", "stock.csv:sku", *COLUMNS, code=2).stderr
    assert "so user would change nothing" in needless
    assert "cannot say why" in run("recommend", GMF, "--user", "u1", "--why", code=2).stderr


def test_categories_and_lists_are_read_from_any_format(tmp_path):
    frame = pd.DataFrame({"item": ["a", "b", "a", "d"], "kinds": [["x", "y|z"], [], ["x"], ["w"]]})
    frame.to_parquet(tmp_path / "items.parquet")
    frame.to_json(tmp_path / "items.jsonl", orient="records", lines=True)
    for name in ("items.parquet", "items.jsonl"):
        found, n_without = categories_of(tmp_path / name, "kinds", ["c", "b", "a"])
        assert found == [[], [], ["x", "y", "z", "x"]] and n_without == 2
        assert item_list(tmp_path / name) == ["a", "b", "d"]
    odd = tmp_path / "odd:name.csv"
    odd.write_text("item\n7\n3\n")
    assert split_column(str(odd)) == (odd, None) and item_list(odd) == [3, 7]
    assert split_column(f"{odd}:sku") == (odd, "sku")
    with pytest.raises(InputError, match="expected FILE:COLUMN"):
        split_column(":kind")


def test_categories_are_those_of_the_items_file_that_the_run_was_trained_with():
    by_file = run("recommend", EASE, *HISTORY, "--at-most", "1", *KINDS, "-k", "6").stdout
    assert run("recommend", EASE, *HISTORY, "--at-most", "1", "--categories", "kind", "-k", "6").stdout == by_file
    refused = run("recommend", EASE, *HISTORY, "--at-most", "1", "--categories", "kid", code=2).output
    assert "unknown attribute of the items 'kid'; did you mean 'kind'" in refused
    refused = run("recommend", PVAE, "--history", "100=5", "--at-most", "1", "--categories", "kind", code=2).output
    assert "knows no attributes of its items; name FILE:COLUMN" in refused


def test_the_column_of_ids_is_known_by_a_usual_name():
    named = run("recommend", EASE, *HISTORY, "--only", "stock.csv:sku").stdout
    assert run("recommend", EASE, *HISTORY, "--only", "stock.csv").stdout == named
