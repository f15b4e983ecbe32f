"""Reports: a pure function of stored files, in which every number can be worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tfvae.definitions import load_table
from tfvae.records import Run, Tuned, store_run
from tfvae.report import render, render_overview, verdict
from tfvae.stats import paired_test

TABLE = """
title = "A table"
paper = "Nobody, 2018"
caption = "For tests."
metrics = ["recall@20", "ndcg@100"]

[published]
ml-20m = { source = "Table 9 (a)", standard_error = 0.002 }

[[rows]]
name = "Mult-VAE^PR"
slug = "mult-vae"
model = "mult-vae"
published.ml-20m = { "recall@20" = 0.5, "ndcg@100" = 0.39 }

[[rows]]
name = "EASE"
slug = "ease"
model = "ease"
note = "An extra row of ours."

[[rows]]
name = "CDAE"
slug = "cdae"
published.ml-20m = { "ndcg@100" = 0.418 }
"""
USERS = 400
ENVIRONMENT = {
    "versions": {"tensorflow": "2.21.0"},
    "python": "3.11.0",
    "platform": "Linux x86_64",
    "device": "A processor",
    "cores": 2,
}
COUNTS = {
    "users": 2000,
    "train_items": 50,
    "test_users": 403,
    "events": 12345,
    "percent_of_interactions": 12.345,
}


def values(mean, half):
    """Values of the users whose mean is `mean` and whose standard error is `half`/20, half of them above."""
    return mean + half * np.where(np.arange(USERS) % 2, 1.0, -1.0)


@pytest.fixture
def results(tmp_path):
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "table.toml").write_text(TABLE)
    return tmp_path


def store(results, slug, seed, per_user, dataset="ml-20m", **changes):
    row = load_table("table", results).row(slug)
    run = Run(
        table="table",
        row=row.name,
        slug=slug,
        dataset=dataset,
        model=row.model,
        seed=seed,
        metrics={
            m: {"mean": v.mean(), "se": v.std() / np.sqrt(USERS), "low": 0, "high": 1} for m, v in per_user.items()
        },
        validation=0.4,
        users=USERS,
        users_without_targets=3,
        settings={"model": row.model, "epochs": 2, "seed": seed} | changes.pop("settings", {}),
        overrides=changes.pop("overrides", {}),
        tuned=Tuned(trials=25, failed=1, epochs=None, value=0.41),
        shortened="shortened_why" in changes,
        shortened_why=changes.pop("shortened_why", None),
        environment=ENVIRONMENT,
        seconds=10.0 * seed,
        epochs=2 * (row.model != "ease"),
        best_epoch=1 if row.model != "ease" else None,
        selected_beta=None,
        parameters=1234567,
        history=[0.3, 0.4] if row.model != "ease" else [],
        work="unused",
        commit="0123456789abcdef+changes",
        data=COUNTS,
        data_digest="d" * 64,
        **changes,
    )
    store_run(run, per_user, results)


def page(results, dataset="ml-20m"):
    return render("table", dataset, results).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (0.0, "reproduced"),
        (0.0044, "reproduced"),
        (-0.0044, "reproduced"),
        (0.0046, "above"),
        (-0.0046, "below"),
    ],
)
def test_the_verdict_is_two_standard_errors_and_the_rounding(difference, expected):
    assert verdict(difference, se=0.002) == expected


def test_cells_differences_and_spread_are_those_worked_out_by_hand(results):
    # In both seeds the same users lie above: their mean over seeds is .52 and .40 with s.e. .1/20.
    store(results, "mult-vae", 1, {"recall@20": values(0.51, 0.1), "ndcg@100": values(0.39, 0.1)})
    store(results, "mult-vae", 2, {"recall@20": values(0.53, 0.1), "ndcg@100": values(0.41, 0.1)})
    text = page(results)
    assert "| Mult-VAE^PR | 0.5200 ± 0.0050 | 0.4000 ± 0.0050 |" in text
    assert "| Mult-VAE^PR | Recall@20 | 0.5200 ± 0.0050 | 0.500 | +0.0200 | above |" in text
    assert "| Mult-VAE^PR | NDCG@100 | 0.4000 ± 0.0050 | 0.390 | +0.0100 | reproduced |" in text
    # Seeds' means .39 and .41: sample sd .0141; mean of 10 and 20 seconds.
    assert "| Mult-VAE^PR | 1, 2 | 0.0141 | 0.4000 | 2, 2 | 1, 1 | 15 | 1,234,567 | 25 trials |" in text
    assert "Mean over 400 test users" in text and "left out: 3." in text
    assert "| EASE | not run | not run |" in text and "EASE: An extra row of ours." in text
    assert "| CDAE | NDCG@100 | not built yet | 0.418 |  |  |" in text
    assert "12,345 interactions (12.35 %)" in text and "`dddddddddddddddd`" in text
    assert "`0123456789` with changes" in text and "tensorflow 2.21.0" in text and "A processor | 2 |" in text


def test_rows_are_compared_user_by_user_with_the_mean_over_seeds(results):
    random = np.random.default_rng(0)
    first, second, other = random.random((3, USERS))
    for seed, drawn in ((1, first), (2, second)):
        store(results, "mult-vae", seed, {"ndcg@100": drawn})
    store(results, "ease", 1, {"ndcg@100": other})
    expected = paired_test((first + second) / 2, other)
    line = f"| Mult-VAE^PR | EASE | {expected.difference:+.4f} ± {expected.se:.4f} | {expected.p_value:.3f} |"
    assert line in page(results)


def test_rows_on_different_data_are_not_compared(results):
    store(results, "mult-vae", 1, {"ndcg@100": values(0.4, 0.1)})
    store(results, "ease", 1, {"ndcg@100": values(0.3, 0.1)})
    assert "## Paired tests" in page(results)
    path = results / "table" / "ml-20m" / "ease.seed1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data_digest": "other"}))
    assert "## Paired tests" not in page(results)


@pytest.mark.parametrize(
    ("changes", "sign", "meaning"),
    [
        ({"shortened_why": "5 of 200 epochs"}, "†", "† Mult-VAE^PR: shortened: 5 of 200 epochs."),
        ({"overrides": {"dropout": 0.1}}, "‡", "‡ Mult-VAE^PR: settings by hand: dropout = 0.1."),
        (
            {"settings": {"dropout": 0.1}},
            "§",
            "§ Mult-VAE^PR: its seeds were run with differing settings or data.",
        ),
    ],
)
def test_a_marked_cell_says_why_and_gets_no_verdict(results, changes, sign, meaning):
    store(results, "mult-vae", 1, {"ndcg@100": values(0.39, 0.1)})
    assert "reproduced |" in page(results)
    store(results, "mult-vae", 2, {"ndcg@100": values(0.39, 0.1)}, **changes)
    text = page(results)
    assert f"0.3900 ± 0.0050{sign} |" in text and meaning in text
    assert "reproduced |" not in text and f"no verdict {sign}" in text
    render_overview(results)
    assert f"0.3900 ± 0.0050{sign} / 0.390" in (results / "README.md").read_text()


def test_a_data_set_without_published_cells_has_no_verdicts(results):
    store(results, "mult-vae", 1, {"ndcg@100": values(0.4, 0.1)}, dataset="ml-1m")
    text = page(results, "ml-1m")
    assert "0.4000 ± 0.0050" in text
    assert "published" not in text.lower() and "Verdict" not in text and "CDAE" not in text


def test_the_same_files_give_the_same_bytes(results):
    def everything():
        render("table", "ml-20m", results)
        render_overview(results)
        return {path: path.read_bytes() for path in results.rglob("*") if path.suffix in (".md", ".png")}

    store(results, "mult-vae", 1, {"ndcg@100": values(0.39, 0.1)})
    store(results, "ease", 1, {"ndcg@100": values(0.3, 0.1)})
    first = everything()
    assert {path.name for path in first} == {"README.md", "learning-curves.png"} and len(first) == 3
    assert everything() == first


def test_the_overview_has_every_table_and_what_was_never_run(results):
    (results / "second").mkdir()
    (results / "second" / "table.toml").write_text(TABLE.replace("A table", "Another"))
    store(results, "ease", 1, {"ndcg@100": values(0.3, 0.1)}, dataset="ml-1m")
    text = render_overview(results).read_text()
    assert "## A table" in text and "## Another" in text
    assert "(table/ml-1m/README.md)" in text and "| EASE | not run | 0.3000 ± 0.0050 |" in text
    assert "`python -m tfvae table second --dataset ml-20m`" in text
    assert "| Mult-VAE^PR | not run / 0.500 | not run / 0.390 |" in text
