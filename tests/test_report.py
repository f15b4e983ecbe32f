"""Reports: a pure function of stored files, in which every number can be worked out by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from stored_runs import USERS, page, section, store, values

from tfvae.evaluation.stats import paired_test
from tfvae.experiments import sections
from tfvae.experiments.report import render, render_overview
from tfvae.experiments.results_folder import stored_latents, stored_run
from tfvae.system.errors import InputError

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
SHARING = """
title = "Another table"
caption = "For tests."
metrics = ["ndcg@100", "ndcg@10"]

[published]
ml-20m = { source = "Table 10" }

[[rows]]
name = "Without gates"
slug = "without-gates"
alias_of = "table/mult-vae"
note = "A note of its own."
published.ml-20m = { "ndcg@100" = 0.395 }
"""
ORDERINGS = """
orderings = [
    { above = "mult-vae", below = "ease", source = "section 5" },
    { above = "cdae", below = "ease", source = "Figure 1" },
]
"""


@pytest.fixture
def results(tmp_path):
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "table.toml").write_text(TABLE)
    return tmp_path


def test_cells_differences_and_spread_are_those_worked_out_by_hand(results):
    # In both seeds the same users lie above: their mean over seeds is .52 and .40 with s.e. .1/20.
    store(results, "mult-vae", 1, {"recall@20": values(0.51, 0.1), "ndcg@100": values(0.39, 0.1)})
    store(results, "mult-vae", 2, {"recall@20": values(0.53, 0.1), "ndcg@100": values(0.41, 0.1)})
    text = page(results)
    assert "| Mult-VAE^PR | 0.5200 ± 0.0050 | 0.4000 ± 0.0050 |" in text
    assert "| Mult-VAE^PR | Recall@20 | 0.5200 ± 0.0050 | 0.500 | +0.0200 | above |" in text
    assert "| Mult-VAE^PR | NDCG@100 | 0.4000 ± 0.0050 | 0.390 | +0.0100 | reproduced |" in text
    # Seeds' means .39 and .41: sample sd .0141; mean of 10 and 20 seconds, for 2 epochs each.
    assert "| Mult-VAE^PR | 1, 2 | 0.0141 | 0.4000 | 2, 2 | 1, 1 | 15 | 7.5 | – | 1,234,567 | 25 trials |" in text
    assert "Mean over 400 test users" in text and "left out: 3." in text
    assert "| EASE | not run | not run |" in text and "EASE: An extra row of ours." in text
    assert "| CDAE | NDCG@100 | published only | 0.418 |  |  |" in text
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


@pytest.mark.slow
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


def test_a_setting_that_is_newer_than_a_run_had_its_present_default(results):
    store(results, "mult-vae", 1, {"ndcg@100": values(0.39, 0.1)}, settings={"drop_patience": 5})  # no setting any more
    store(results, "mult-vae", 2, {"ndcg@100": values(0.39, 0.1)}, settings={"final_learning_rate_factor": 1.0})
    assert "§" not in page(results)
    store(results, "mult-vae", 3, {"ndcg@100": values(0.39, 0.1)}, settings={"final_learning_rate_factor": 0.5})
    assert "differing settings" in page(results)


def test_a_data_set_without_published_cells_has_no_verdicts(results):
    store(results, "mult-vae", 1, {"ndcg@100": values(0.4, 0.1)}, dataset="ml-1m")
    text = page(results, "ml-1m")
    assert "0.4000 ± 0.0050" in text
    assert "published" not in text.lower() and "Verdict" not in text and "CDAE" not in text


def test_a_section_is_a_function_and_a_template():
    folder = Path(sections.__file__).parent / "templates" / "sections"
    assert {path.name.removesuffix(".md.j2") for path in folder.iterdir()} == set(sections.SECTIONS)


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
    assert "## A table" in text and "(table/ml-1m/README.md)" in text
    assert "| EASE | not run | 0.3000 ± 0.0050 |" in text and "Not run here: Mult-VAE^PR, CDAE." not in text
    assert "Not run here: Mult-VAE^PR." in text  # CDAE has no model, and no published cell on these data
    assert "## Another" not in text
    assert "- Another: MovieLens-20M, `python -m tfvae table second --dataset ml-20m`." in text
    assert "- A table: MovieLens-20M, `python -m tfvae table table --dataset ml-20m`." in text
    assert re.search("- Mult-VAE, Table 2: .*`python -m tfvae table multvae-table2 --dataset netflix`", text)
    first = text.index("## A table")
    assert text.count("EASE: An extra row of ours.") == 1 and text.index("EASE: An extra row of ours.") > first


def test_the_overview_says_what_was_run_and_what_holds(results):
    path = results / "table" / "table.toml"
    path.write_text(ORDERINGS.replace('"cdae"', '"mult-vae"').replace('"Figure 1"', '"section 6"') + TABLE)
    random = np.random.default_rng(0)
    for slug, mean in (("mult-vae", 0.39), ("ease", 0.3)):
        store(results, slug, 1, {"ndcg@100": mean + 0.01 * random.normal(size=USERS)}, shortened_why="cut")
    text = " ".join(render_overview(results).read_text().split())
    assert "2 runs of 2 models" in text and "2 on MovieLens-20M" in text
    assert "On **MovieLens-20M**, of 1 claims: - 1 hold: Mult-VAE^PR better than EASE." in text  # of two orderings
    path.write_text(path.read_text().replace("section 5", "our own").replace("section 6", "our own"))
    assert "claims" not in render_overview(results).read_text()


def test_a_page_of_the_users_own_is_left_alone(results):
    store(results, "ease", 1, {"ndcg@100": values(0.3, 0.1)}, dataset="ml-1m")
    for path, write in (
        (results / "README.md", lambda: render_overview(results)),
        (results / "table" / "ml-1m" / "README.md", lambda: render("table", "ml-1m", results)),
    ):
        path.write_text("# My own notes")
        with pytest.raises(InputError, match="was not written by tfvae"):
            write()
        assert path.read_text() == "# My own notes"


# ---- orderings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mean", "expected"),
    [
        # Differences of mean ± .1 in equal numbers: s.e. .1/√399 = .0050, t = mean/.0050 with 399 degrees of freedom.
        (0.41, "+0.0100 ± 0.0050 | 0.046 | holds"),
        (0.409, "+0.0090 ± 0.0050 | 0.073 | no difference shown"),
        (0.39, "-0.0100 ± 0.0050 | 0.046 | reversed"),
    ],
)
def test_the_papers_orderings_are_tested_user_by_user(results, mean, expected):
    (results / "table" / "table.toml").write_text(ORDERINGS + TABLE)
    assert "| Mult-VAE^PR | EASE | section 5 | – | – | not run |" in page(results)
    store(results, "mult-vae", 1, {"ndcg@100": values(mean, 0.1)})
    store(results, "ease", 1, {"ndcg@100": values(0.4, 0.0)})
    found = section(page(results), "The paper's orderings")
    assert f"| Mult-VAE^PR | EASE | section 5 | {expected} |" in found
    assert "| CDAE | EASE | Figure 1 | – | – | not run |" in found
    assert "A is to be above B in NDCG@100" in found and "p < 0.05" in found


def test_claims_of_a_table_without_a_paper_are_corrected_for_their_number(results):
    claims = ORDERINGS.replace('above = "cdae", below = "ease"', 'above = "ease", below = "mult-vae"')
    own = TABLE.replace('paper = "Nobody, 2018"\n', "")
    (results / "table" / "table.toml").write_text('correction = "holm"\n' + claims + own)
    store(results, "mult-vae", 1, {"ndcg@100": values(0.412, 0.1)})
    store(results, "ease", 1, {"ndcg@100": values(0.4, 0.0)})
    found = section(page(results), "Comparisons")
    # t = .012/.0050: p = .0168 twice, for one claim and its contrary, and twice that after the correction.
    assert "| Mult-VAE^PR | EASE | section 5 | +0.0120 ± 0.0050 | 0.034 | holds |" in found
    assert "| EASE | Mult-VAE^PR | Figure 1 | -0.0120 ± 0.0050 | 0.034 | reversed |" in found
    assert "corrected for their number by Holm's method" in found


def test_an_ordering_of_marked_cells_says_so_and_one_of_other_data_is_not_judged(results):
    (results / "table" / "table.toml").write_text(ORDERINGS + TABLE)
    store(results, "mult-vae", 1, {"ndcg@100": values(0.5, 0.1)}, shortened_why="5 of 200 epochs")
    store(results, "ease", 1, {"ndcg@100": values(0.4, 0.0)}, overrides={"regularization": 7})
    assert "| < 0.001 | holds †‡ |" in page(results)
    path = results / "table" / "ml-20m" / "ease.seed1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data_digest": "other"}))
    assert "| Mult-VAE^PR | EASE | section 5 | – | – | other data |" in page(results)


# ---- cost -------------------------------------------------------------------------------------------


def test_the_cost_of_a_row_is_seconds_by_epochs_and_the_largest_peak(results):
    for seed, peak in ((1, 1.5), (2, 2.25), (3, None)):
        store(results, "mult-vae", seed, {"ndcg@100": values(0.4, 0.1)}, peak_memory_gb=peak)
    store(results, "ease", 1, {"ndcg@100": values(0.4, 0.1)}, peak_memory_gb=0.75)
    runs = section(page(results), "Runs")
    assert "| 2, 2, 2 | 1, 1, 1 | 20 | 10 | 2.25 | 1,234,567 |" in runs
    assert "| – | – | 10 | – | 0.75 | 1,234,567 |" in runs


def test_runs_stored_before_costs_and_latents_were_are_read(results):
    store(results, "mult-vae", 1, {"ndcg@100": values(0.39, 0.1)})
    before = page(results)
    path = results / "table" / "ml-20m" / "mult-vae.seed1.json"
    old = json.loads(path.read_text())
    assert old.pop("peak_memory_gb", 0) is None and old.pop("latents", 0) is None
    path.write_text(json.dumps(old))
    assert page(results) == before and "As a generative model" not in before


# ---- rows of other tables ---------------------------------------------------------------------------


def test_a_row_of_another_table_is_read_there(results):
    (results / "sharing").mkdir()
    (results / "sharing" / "table.toml").write_text(SHARING)
    store(results, "mult-vae", 1, {"recall@20": values(0.5, 0.1), "ndcg@100": values(0.39, 0.1)})
    text = page(results, table="sharing")
    # NDCG@10 is no metric of the table it was run in.
    assert "| Without gates | 0.3900 ± 0.0050 | not run |" in text
    assert "| Without gates | NDCG@100 | 0.3900 ± 0.0050 | 0.395 | -0.0050 | reproduced |" in text
    assert "Without gates: A note of its own." in text and "`table/mult-vae`, whose settings" in text
    assert "| Without gates | 1 | – | 0.4000 | 2 |" in text
    assert {path.name for path in (results / "sharing").rglob("*.*")} == {
        "table.toml",
        "README.md",
        "learning-curves.png",
    }
    assert "(sharing/ml-20m/README.md)" in render_overview(results).read_text()


def test_a_validation_value_of_another_monitor_is_not_shown(results):
    (results / "sharing").mkdir()
    (results / "sharing" / "table.toml").write_text('monitor = "ndcg@10"' + SHARING)
    store(results, "mult-vae", 1, {"ndcg@100": values(0.39, 0.1)}, settings={"monitor": "ndcg@100"})
    assert "| 1 | – | 0.4000 | 2 |" in page(results)
    text = page(results, table="sharing")
    assert "| Without gates | 1 | – | – | 2 |" in text and "Learning curves" not in text


# ---- generative models ------------------------------------------------------------------------------


def figures(active, kl):
    return {"samples": 100.0, "latent_dim": 200.0, "active_units": active, "marginal_kl": kl, "marginal_users": 5000.0}


def points(seed):
    random = np.random.default_rng(seed)
    return {"posterior": random.normal(size=(50, 2)), "prior": 2 * random.normal(size=(50, 2))}


def test_bounds_and_figures_are_means_over_seeds_beside_the_picture(results):
    for seed, active in ((1, 12.0), (2, 13.0)):
        bounds = {"elbo": values(-120.0 - seed, 4.0), "iwae": values(-110.0 - seed, 2.0)}
        store(
            results,
            "mult-vae",
            seed,
            {"ndcg@100": values(0.39, 0.1)} | bounds,
            settings={"likelihood": "multinomial"},
            latents=figures(active, 3.0 + seed),
            points=points(seed),
        )
    store(results, "ease", 1, {"ndcg@100": values(0.39, 0.1)})
    found = section(page(results), "As a generative model")
    assert "IWAE bound (100 samples)" in found and "of 5,000 test users" in found
    # Standard errors 4/20 and 2/20; means of seeds 1 and 2.
    assert "| Mult-VAE^PR | multinomial | -121.50 ± 0.20 | -111.50 ± 0.10 | 12.5 of 200 | 4.50 |" in found
    assert "| EASE | – | – | – | – | – |" in found
    assert "](latents.png)" in found
    picture = results / "table" / "ml-20m" / "latents.png"
    first = picture.read_bytes()
    page(results)
    assert picture.read_bytes() == first
    # Only the first seed is drawn.
    (results / "table" / "ml-20m" / "mult-vae.seed2.latents.npz").unlink()
    page(results)
    assert picture.read_bytes() == first


def test_a_row_whose_seeds_are_not_all_described_has_no_figures(results):
    store(results, "mult-vae", 1, {"ndcg@100": values(0.39, 0.1), "elbo": values(-9, 1)}, latents=figures(1.0, 2.0))
    assert "1 of 200 | 2.00 |" in page(results)
    store(results, "mult-vae", 2, {"ndcg@100": values(0.39, 0.1)})
    assert "As a generative model" not in page(results)


def test_points_are_stored_in_half_precision_and_vanish_with_a_run_that_has_none(results):
    def drawn():
        return stored_latents(stored_run("table", "ml-20m", "mult-vae", 1, results), results)

    given = points(0)
    given["prior"][0] = 1e6, -1e6
    store(results, "mult-vae", 1, {"ndcg@100": values(0.39, 0.1)}, points=given)
    np.testing.assert_allclose(drawn()["posterior"], given["posterior"], rtol=1e-3)
    assert np.isfinite(drawn()["prior"]).all() and drawn()["prior"].dtype == np.float32
    store(results, "mult-vae", 1, {"ndcg@100": values(0.39, 0.1)})
    assert drawn() is None
