"""Figures: which runs they show, numbers that can be worked out by hand, and what is said where there are none."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.sparse import csr_array
from stored_runs import USERS, page, store, values

from tfvae.data.splits import HeldOutRatings
from tfvae.evaluation.groups import groups_by_size
from tfvae.evaluation.ratings import errors_by_number
from tfvae.evaluation.results import RatingEvaluation
from tfvae.evaluation.stats import holm, paired_test
from tfvae.experiments.definitions import load_table
from tfvae.experiments.figures import FIGURES
from tfvae.experiments.records import Activity
from tfvae.experiments.report import render_overview
from tfvae.experiments.results_folder import store_activity
from tfvae.system.errors import InputError

TABLE = """
title = "A figure"
caption = "For tests."
figure = "{figure}"
metrics = ["ndcg@100"]

[[rows]]
name = "One"
slug = "one"
model = "mult-vae"

[[rows]]
name = "Other"
slug = "other"
model = "mult-dae"

[[rows]]
name = "Closed"
slug = "closed"
model = "ease"
"""


@pytest.fixture
def figure(tmp_path):
    """Defines the table of a figure, and returns its results folder."""

    def defined(kind):
        (tmp_path / "table").mkdir(exist_ok=True)
        (tmp_path / "table" / "table.toml").write_text(TABLE.replace("{figure}", kind))
        return tmp_path

    return defined


def picture(results, name="figure.png"):
    return (results / "table" / "ml-20m" / name).is_file()


@pytest.mark.parametrize("kind", FIGURES)
def test_a_figure_without_runs_says_which_command_makes_them(figure, kind):
    results = figure(kind)
    text = page(results)
    assert "`python -m tfvae table table --dataset ml-20m`" in text and not picture(results)
    assert (
        "- A figure: MovieLens-1M, `python -m tfvae table table --dataset ml-1m`."
        in render_overview(results).read_text()
    )


def test_an_unknown_picture_is_refused(figure):
    with pytest.raises(InputError, match="figure: .*'curves', 'activity'"):
        load_table("table", figure("pie"))


def test_curves_show_the_best_and_the_last_value(figure):
    results = figure("curves")
    settings = {"beta_cap": 1.0}
    store(results, "one", 1, {"ndcg@100": values(0.4, 0.1)}, epochs=3, history=[0.3, 0.4, 0.35], settings=settings)
    text = page(results)
    assert "One: 0.4000 and 0.3500." in text and "| One | 1 | 0.4000 | 1 | 0.3500 | 2 |" in text
    assert picture(results) and "## Learning curves" not in text


def activity_of(number, digest="d" * 64):
    names = "".join(map(str, number))
    bounds = [(4 * group, 4 * group + 4) for group in range(len(set(names)))]
    return Activity(table="table", dataset="ml-20m", groups=names, bounds=bounds, data_digest=digest)


def test_each_fifth_is_tested_by_itself_and_all_are_corrected_together(figure):
    results = figure("activity")
    random = np.random.default_rng(0)
    number = np.arange(USERS) % 5
    one, other = random.random((2, USERS))
    one += np.where(number == 0, 0.4, 0.0)
    store(results, "one", 1, {"ndcg@100": one})
    store(results, "other", 1, {"ndcg@100": other})
    assert "There is no picture yet" in page(results)  # the groups are missing
    store_activity(activity_of(number), results)
    text = page(results)
    tests = [paired_test(one[number == group], other[number == group]) for group in range(5)]
    p_values = holm([test.p_value for test in tests])
    assert p_values[0] < 0.001 and min(p_values[1:]) > 0.05
    assert "One ranks better in 1 of 5 groups, Other in 0; in the others no difference is shown" in text
    assert f"| 0–3 | 80 | {one[number == 0].mean():.4f} ± {one[number == 0].std() / 80**0.5:.4f} |" in text
    assert f"{tests[0].difference:+.4f} ± {tests[0].se:.4f} | < 0.001 *** |" in text
    assert f"{tests[4].difference:+.4f} ± {tests[4].se:.4f} | {p_values[4]:.3f} |" in text and "| 16–20 | 80 |" in text
    assert picture(results)
    store_activity(activity_of(number, digest="e" * 64), results)
    assert "There is no picture yet" in page(results)  # the groups are those of other data


def test_on_the_front_no_faster_model_ranks_as_well(figure):
    results = figure("speed")
    for slug, seed, mean in (("closed", 1, 0.35), ("one", 2, 0.29), ("other", 3, 0.4)):  # 10 s for each seed
        store(results, slug, seed, {"ndcg@100": values(mean, 0.1)})
    text = page(results)
    assert "No faster model ranks as well as these: Closed (0.3500 in 10 s), Other (0.4000 in 30 s)." in text
    assert "| One | 20.0 | 10.00 | 0.2900 ± 0.0050 |  |" in text and "| Closed | 10.0 | – |" in text
    assert "Too low to be drawn: One." in text and "## Paired tests" not in text and picture(results)


def test_the_best_beta_is_chosen_on_validation_users_and_tested_on_test_users(figure):
    results = figure("beta")
    random = np.random.default_rng(0)
    drawn = random.random(USERS)
    store(results, "one", 1, {"ndcg@100": drawn}, settings={"beta_cap": 0.2})
    store(results, "other", 1, {"ndcg@100": drawn - 0.1 + 0.01 * random.random(USERS)}, settings={"beta_cap": 0.0})
    path = results / "table" / "ml-20m" / "one.seed1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"validation": 0.5}))
    text = page(results)
    assert "β = 0.2 is best on validation users. On the test users it is better than β = 0, and no difference" in text
    assert text.index("| 0 | 0.4000 | 1 |") < text.index("| 0.2 | 0.5000 | 1 |") and picture(results)


def test_a_prior_is_drawn_beside_its_divergence(figure):
    results = figure("prior")
    points = {"posterior": np.zeros((9, 2)), "prior": np.ones((9, 2))}
    latents = {"latent_dim": 20.0, "active_units": 7.0, "marginal_kl": 1.25}
    both = {"ndcg@100": values(0.4, 0.1), "elbo": values(-9.0, 1.0), "iwae": values(-8.0, 1.0)}
    store(results, "one", 1, both, points=points, latents=latents)
    assert "| One | 1.25 | 7 of 20 | -9.00 ± 0.05 | -8.00 ± 0.05 |" in page(results) and picture(results)


def test_groups_are_of_equal_sizes_and_none_is_empty():
    number, bounds = groups_by_size(np.arange(100)[::-1])
    assert np.bincount(number).tolist() == [19, 20, 20, 20, 21] and bounds[-1][1] == 99
    number, bounds = groups_by_size(np.array([3, 3, 3]))
    assert number.tolist() == [0, 0, 0] and bounds == [(3, 3)]
    with pytest.raises(InputError, match="found none"):
        groups_by_size(np.array([], int))


def test_errors_are_grouped_by_the_ratings_of_users_whatever_the_rows_are():
    known = np.array([[1, 0, 0, 0, 0], [1, 1, 1, 0, 0]]) * 2.0
    asked = np.array([[0, 1, 0, 0, 0], [0, 0, 0, 1, 1]]) * 3.0
    of_users = HeldOutRatings(*(csr_array(part) for part in (known, asked)), np.arange(2))
    of_items = HeldOutRatings(*(csr_array(part.T) for part in (known, asked)), np.arange(5))
    expected = [
        {"at_least": 1, "to": 3, "ratings": 1, "rmse": 2.0},
        {"at_least": 3, "to": 3, "ratings": 2, "rmse": pytest.approx(np.sqrt(2.5))},
    ]
    evaluation = RatingEvaluation(np.array([5.0, 4.0, 1.0]), np.array([3.0, 3.0, 3.0]), np.arange(2))
    assert errors_by_number(evaluation, of_users) == expected
    assert errors_by_number(evaluation, of_items, users_are_rows=False) == expected
