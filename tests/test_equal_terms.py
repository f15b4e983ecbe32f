"""A table on equal terms: every row gets the same budget of searching, and an ensemble's members are other rows."""

from __future__ import annotations

import pytest

from tfvae.data.splits import (
    RatingHoldoutSettings,
    StrongGeneralizationSettings,
    rating_holdout,
    strong_generalization,
)
from tfvae.data.synthetic import synthetic
from tfvae.experiments import runner, sweep
from tfvae.experiments.definitions import load_table
from tfvae.experiments.report import render
from tfvae.experiments.results_folder import stored_run, stored_runs, stored_sweep
from tfvae.experiments.runner import run_table
from tfvae.experiments.summaries import cells_of
from tfvae.experiments.sweep import run_sweep
from tfvae.system.errors import InputError
from tfvae.training.settings import member_settings, stored_settings

pytestmark = pytest.mark.slow

HOME = """
title = "Home"
caption = "For tests."
metrics = ["ndcg@10"]
monitor = "ndcg@10"
seeds = [1]

[[rows]]
name = "EASE"
slug = "ease"
model = "ease"
search.regularization = { low = 1.0, high = 1000.0, log = true }

[[rows]]
name = "WMF"
slug = "wmf"
model = "wmf"
settings = { factors = 4, iterations = 2 }

[[rows]]
name = "Mult-DAE"
slug = "mult-dae"
model = "mult-dae"
settings = { epochs = 3, batch_size = 50, latent_dim = 4, hidden = [] }
"""
EQUAL = """
title = "Equal terms"
caption = "For tests."
metrics = ["ndcg@10"]
monitor = "ndcg@10"
seeds = [2, 1]
budget = { trials = 3, seconds = 600 }

[[rows]]
name = "EASE"
slug = "ease"
alias_of = "home/ease"

[[rows]]
name = "WMF"
slug = "wmf"
alias_of = "home/wmf"

[[rows]]
name = "RP3beta"
slug = "rp3beta"
model = "rp3beta"
search.beta = { choices = [0.4, 0.6, 0.2] }

[[rows]]
name = "All"
slug = "all"
model = "ensemble"
members = ["home/ease", "home/mult-dae"]
"""
RATINGS = """
title = "Ratings"
caption = "For tests."
protocol = "rating-holdout"
metrics = ["rmse"]
monitor = "rmse"
seeds = [1, 0]

[[rows]]
name = "BiasMF"
slug = "bias-mf"
model = "bias-mf"
settings = { factors = 2, iterations = 4 }
search.regularization = { low = 0.5, high = 50.0, log = true }

[[rows]]
name = "I-AutoRec"
slug = "i-autorec"
model = "autorec"
by = "items"
settings = { units = 4, epochs = 2, batch_size = 10 }
search.weight_decay = { low = 1e-3, high = 1e-1, log = true }

[[rows]]
name = "U-p-VAE"
slug = "u-p-vae"
model = "p-vae"
settings = { embedding_dim = 4, latent_dim = 3, epochs = 2, batch_size = 30 }

[[rows]]
name = "BiasMF, tuned as the first"
slug = "tuned-elsewhere"
model = "bias-mf"
settings = { factors = 2, iterations = 4 }
tuning_from = "ratings/bias-mf"
"""
RATERS = """
title = "Equal terms of ratings"
caption = "For tests."
protocol = "rating-holdout"
metrics = ["rmse", "mae"]
monitor = "rmse"
seeds = [1, 0]
budget = { trials = 3, seconds = 600 }
rows = [
    { name = "BiasMF", slug = "bias-mf", alias_of = "ratings/bias-mf" },
    { name = "I-AutoRec", slug = "i-autorec", alias_of = "ratings/i-autorec" },
    { name = "Tuned elsewhere", slug = "tuned-elsewhere", alias_of = "ratings/tuned-elsewhere" },
    { name = "All", slug = "all", model = "rating-ensemble", members = [
        "ratings/bias-mf", "ratings/u-p-vae", "ratings/bias-mf"
    ] },
]
"""


@pytest.fixture(scope="module")
def split():
    return strong_generalization(synthetic(150, 30, 1800, seed=1), StrongGeneralizationSettings(held_out_users=30))


@pytest.fixture
def place(tmp_path, split, monkeypatch):
    """Keyword arguments for `run_table` in an empty folder whose only data set is the tiny split."""
    for name, definition in (("home", HOME), ("equal", EQUAL)):
        (tmp_path / "results" / name).mkdir(parents=True)
        (tmp_path / "results" / name / "table.toml").write_text(definition)
    for module in (runner, sweep):
        monkeypatch.setattr(module, "splits_of", lambda *_: lambda seed, by: split)
    return {"results": tmp_path / "results", "work": tmp_path / "work", "progress": False, "log": lambda line: None}


def test_each_row_is_searched_for_its_budget_before_it_is_run(place):
    runs = run_table("equal", "ml-20m", rows=["ease", "rp3beta"], **place)
    for table, slug in (("home", "ease"), ("equal", "rp3beta")):
        found = stored_sweep(table, "ml-20m", slug, place["results"])
        assert len(found.trials) == 3
    assert [(run.slug, run.tuned.trials) for run in runs] == [("ease", 3), ("rp3beta", 3)]


def test_what_was_searched_before_counts(place):
    """A search of another seed and another number of epochs is gone on with as it was begun."""
    run_sweep("home", "ease", "ml-20m", 2, 7, **place)
    begun = stored_sweep("home", "ml-20m", "ease", place["results"])
    run_table("equal", "ml-20m", rows=["ease"], **place)
    found = stored_sweep("home", "ml-20m", "ease", place["results"])
    assert found.seed == 7 and found.trials[:2] == begun.trials and len(found.trials) == 3
    run_table("equal", "ml-20m", rows=["ease"], **place)
    assert stored_sweep("home", "ml-20m", "ease", place["results"]) == found


def test_a_search_ends_with_the_trial_in_which_its_seconds_are_over(place, monkeypatch):
    tried = sweep._tried
    monkeypatch.setattr(sweep, "_tried", lambda *given: tried(*given).model_copy(update={"seconds": 4.0}))
    found = run_sweep("home", "ease", "ml-20m", 100, budget_seconds=10, **place)
    assert [trial.seconds for trial in found.trials] == [4.0, 4.0, 4.0] and found.seconds == 12


def test_a_row_of_another_table_is_run_with_the_seeds_of_both(place):
    run_table("equal", "ml-20m", rows=["ease", "wmf"], **place)
    assert [run.seed for run in stored_runs("home", "ml-20m", "wmf", place["results"])] == [1, 2]
    assert [run.seed for run in stored_runs("home", "ml-20m", "ease", place["results"])] == [1], "it is deterministic"


def test_the_members_of_an_ensemble_are_trained_as_their_rows(place):
    run_table("equal", "ml-20m", rows=["ease"], **place)
    run = run_table("equal", "ml-20m", [2], ["all"], **place)[0]
    ease, dae = (member_settings(member) for member in stored_settings(run.settings).members)
    best = stored_sweep("home", "ml-20m", "ease", place["results"]).best.params
    assert (ease.name, ease.model["regularization"]) == ("ease", best["regularization"])
    assert (dae.name, dae.model["latent_dim"], dae.training.epochs) == ("mult-dae", 4, 3)
    members = stored_settings(run.settings).members
    assert all("seed" not in member["training"] for member in members), "each seed of the ensemble trains members anew"


@pytest.mark.long
def test_a_shortened_ensemble_says_so_and_replaces_no_whole_one(place):
    short = run_table("equal", "ml-20m", [2], ["all"], epochs=2, **place)[0]
    assert short.shortened_why.startswith("a member has 2 of 3 epochs")
    whole = run_table("equal", "ml-20m", [2], ["all"], **place)[0]
    assert "epochs" not in whole.shortened_why
    run_table("equal", "ml-20m", [2], ["all"], epochs=2, **place)
    assert stored_run("equal", "ml-20m", "all", 2, place["results"]) == whole


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ('members = ["home/ease", "home/nobody"]', "has the member 'home/nobody': unknown row of home"),
        ('members = ["home/ease", "equal/wmf"]', "no row with a model and settings of its own"),
        ('members = ["home/ease", "equal/all"]', "no row with a model and settings of its own"),
        ('members = ["home/ease", "EASE"]', "should match pattern"),
        ('members = ["home/ease", "home/wmf"]\nsettings = { members = [] }', "instead of the setting"),
    ],
)
def test_members_that_are_no_rows_are_refused_with_their_place(place, written, message):
    path = place["results"] / "equal" / "table.toml"
    path.write_text(EQUAL.replace('members = ["home/ease", "home/mult-dae"]', written))
    with pytest.raises(InputError, match=message) as caught:
        load_table("equal", place["results"])
    assert str(path) in str(caught.value)


def test_only_an_ensemble_has_members(place):
    path = place["results"] / "equal" / "table.toml"
    path.write_text(EQUAL.replace('model = "ensemble"', 'model = "ease"'))
    with pytest.raises(InputError, match="members are rows for ensemble or rating-ensemble"):
        load_table("equal", place["results"])


@pytest.mark.parametrize("budget", ["{ trials = 0, seconds = 1 }", "{ trials = 1, seconds = nan }", "{ trials = 1 }"])
def test_a_budget_is_of_trials_and_seconds(place, budget):
    path = place["results"] / "equal" / "table.toml"
    path.write_text(EQUAL.replace("{ trials = 3, seconds = 600 }", budget))
    with pytest.raises(InputError, match="budget"):
        load_table("equal", place["results"])


CLAIMS = 'seeds = [2, 1]\norderings = [{ above = "ease", below = "wmf", source = "here" }]\ncorrection = "holm"'


def test_the_page_has_the_best_row_first_and_the_claims_of_all_data_sets_stand_side_by_side(place):
    path = place["results"] / "equal" / "table.toml"
    path.write_text(EQUAL.replace("seeds = [2, 1]", CLAIMS))
    for dataset in ("ml-20m", "ml-1m"):
        runs = run_table("equal", dataset, rows=["ease", "wmf", "rp3beta"], **place)
    page = (place["results"] / "equal" / "ml-1m" / "README.md").read_text()
    means = {run.row: [] for run in runs}
    for run in runs:
        means[run.row].append(run.metrics["ndcg@10"]["mean"])
    best = sorted(means, key=lambda name: -sum(means[name]) / len(means[name]))
    cells = page.split("## Results")[1].split("Mean over")[0]
    assert sorted([*best, "All"], key=lambda name: cells.index(f"| {name} |")) == [*best, "All"], "All was not run"
    assert "after 3 trials" in page and "## Paired tests" not in page and "EASE (`home/ease`)" in page
    claims = (place["results"] / "equal" / "claims.md").read_text()
    assert "| A better than B | source | MovieLens-1M | MovieLens-20M |" in claims
    line = next(line for line in claims.splitlines() if line.startswith("| EASE better than WMF | here |"))
    first, second = line.split(" | ")[2:]
    assert first == second.removesuffix(" |"), "the data are the same"
    assert f"{sum(means['EASE']) - sum(means['WMF']) / 2:+.4f} ± " in first


# ---- ratings ----------------------------------------------------------------------------------------


@pytest.fixture
def raters(tmp_path, monkeypatch):
    """As `place`, for ratings, of which each seed cuts another split."""
    interactions = synthetic(60, 25, 700, n_tastes=3, seed=1)
    for name, definition in (("ratings", RATINGS), ("raters", RATERS)):
        (tmp_path / "results" / name).mkdir(parents=True)
        (tmp_path / "results" / name / "table.toml").write_text(definition)
    monkeypatch.setattr("tfvae.data.open_split.load_dataset", lambda *_, **__: interactions)
    return {"results": tmp_path / "results", "work": tmp_path / "work", "progress": False, "log": lambda line: None}


@pytest.mark.long
def test_rows_of_ratings_are_searched_on_the_first_split_and_an_ensemble_of_them_is_run(raters, monkeypatch):
    given, train = [], sweep.train
    monkeypatch.setattr(
        sweep, "train", lambda settings, part, *a, **k: given.append(part) or train(settings, part, *a, **k)
    )
    runs = run_table("raters", "synthetic", **raters)
    whole = rating_holdout(synthetic(60, 25, 700, n_tastes=3, seed=1), RatingHoldoutSettings(seed=1))
    for slug, data in (("bias-mf", whole), ("i-autorec", whole.by_items())):
        found = stored_sweep("ratings", "synthetic", slug, raters["results"])
        assert len(found.trials) == 3 and found.monitor == "rmse" and found.data_digest == data.digest
        assert found.best.value == min(trial.value for trial in found.trials)
    assert len(given) == 6 and all(part.test is None and part.validation is not None for part in given)
    assert all(part.digest != whole.digest and part.train.nnz < whole.train.nnz for part in given)
    assert [(run.slug, run.seed, run.tuned and run.tuned.trials) for run in runs] == [
        (slug, seed, trials)
        for slug, trials in (("bias-mf", 3), ("i-autorec", 3), ("tuned-elsewhere", 3), ("all", None))
        for seed in (0, 1)
    ]
    best = stored_sweep("ratings", "synthetic", "bias-mf", raters["results"]).best.params["regularization"]
    assert {run.settings["regularization"] for run in (*runs[:2], *runs[4:6])} == {best}
    members = [member_settings(member) for member in stored_settings(runs[-1].settings).members]
    assert [member.name for member in members] == ["bias-mf", "p-vae", "bias-mf"]
    assert members[0].model["regularization"] == members[2].model["regularization"] == best
    assert runs[-1].intervals.keys() == {"crps", "within_50", "within_90", "sd"}, "p-VAE knows its standard deviation"


def test_rows_of_a_table_that_shows_fewer_metrics_of_ratings_have_all(raters):
    run_table("raters", "synthetic", rows=["bias-mf"], **raters)
    (cells,) = [
        cells
        for cells in cells_of(load_table("raters", raters["results"]), "synthetic", raters["results"])
        if cells.runs
    ]
    means = [run.metrics["mae"]["mean"] for run in cells.runs]
    assert cells.ours("mae").startswith(f"{sum(means) / 2:.4f} ± ") and load_table(
        "ratings", raters["results"]
    ).metrics == ["rmse"]


def test_a_member_learns_from_the_same_rows_as_its_ensemble(raters):
    path = raters["results"] / "raters" / "table.toml"
    path.write_text(RATERS.replace('"ratings/u-p-vae"', '"ratings/i-autorec"'))
    with pytest.raises(
        InputError, match="'ratings/i-autorec', which learns from rows that are items, while the ens"
    ) as caught:
        load_table("raters", raters["results"])
    assert str(path) in str(caught.value)
    by_items = RATERS.replace('model = "rating-ensemble"', 'model = "rating-ensemble", by = "items"')
    path.write_text(by_items)
    with pytest.raises(InputError, match="'ratings/bias-mf', which learns from rows that are users, while the ens"):
        load_table("raters", raters["results"])
    path.write_text(by_items.replace('"ratings/bias-mf", "ratings/u-p-vae", "ratings/bias-mf"', '"ratings/i-autorec"'))
    assert load_table("raters", raters["results"]).row("all").by == "items"


def test_a_row_that_lacks_trials_or_seeds_says_so_in_its_cell(place):
    run_sweep("home", "ease", "ml-1m", 2, **place)
    run_table("home", "ml-1m", rows=["ease"], **place)
    run_table("home", "ml-1m", [1], ["wmf"], **place)
    render("equal", "ml-1m", place["results"])
    page = place["results"] / "equal" / "ml-1m" / "README.md"
    assert "¶ EASE: searched in 2 trials of " in page.read_text() and "¶ WMF: 1 of 2 seeds." in page.read_text()
    run_table("equal", "ml-1m", rows=["ease", "wmf"], **place)
    assert "¶" not in page.read_text()
