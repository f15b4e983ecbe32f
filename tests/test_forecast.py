"""What a table would take, computed without its data and without running anything."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tfvae.cli.app import app
from tfvae.experiments import forecast as module
from tfvae.experiments.definitions import load_table, table_names
from tfvae.experiments.forecast import ASSUMED_TFLOPS, Forecast, forecast

SMALL = {"hidden": [8], "latent_dim": 4, "beta_cap": 0.1}
USERS, ITEMS = 116_677, 20_108  # of ML-20M


@pytest.fixture
def no_data(monkeypatch):
    monkeypatch.setattr(module, "splits_of", lambda *_: pytest.fail("read data"))


@pytest.mark.slow
def test_a_published_size_is_enough(no_data, tmp_path):
    (vae,) = forecast("multvae-table2", "ml-20m", rows=["mult-vae"], epochs=3, overrides=SMALL, results=tmp_path)
    (ease,) = forecast("multvae-table2", "ml-20m", rows=["ease"], results=tmp_path)
    assert (vae.slug, vae.runs, vae.updates) == ("mult-vae", 3, 3 * 3 * 234)
    assert vae.operations == vae.updates * 2 * 3 * 500 * (8 * 2 * 4 + 4 * 8 + 8 * ITEMS) and vae.uncounted is None
    assert (ease.runs, ease.updates, ease.operations) == (1, 0, 0) and "at once" in ease.uncounted


@pytest.mark.slow
def test_other_tables_on_the_same_data_have_the_same_size(no_data, tmp_path):
    given = {"rows": ["mult-vae"], "epochs": 1, "overrides": SMALL, "results": tmp_path}
    own = forecast("multvae-table2", "ml-20m", seeds=[7], **given)
    assert forecast("recvae-table", "ml-20m", seeds=[7], **given) == [
        Forecast("Mult-VAE", "mult-vae", 1, own[0].updates, own[0].operations, None)
    ]
    sizes: dict[tuple, set] = {}
    for table in map(load_table, table_names()):
        for dataset, of in table.published.items():
            if of.train_users:
                sizes.setdefault((table.protocol, dataset), set()).add((of.train_users, of.n_items))
    assert sizes["strong-generalization", "ml-20m"] == {(USERS, ITEMS)}
    assert all(len(found) == 1 for found in sizes.values())


@pytest.mark.slow
def test_an_ensemble_takes_what_its_members_take(no_data, tmp_path):
    (tmp_path / "pair").mkdir()
    (tmp_path / "pair/table.toml").write_text(
        'title = "A pair"\ncaption = "."\nmetrics = ["ndcg@100"]\n'
        '[[rows]]\nname = "Both"\nslug = "both"\nmodel = "ensemble"\n'
        'members = ["small/dae", "small/ease"]\n',
        encoding="utf-8",
    )
    (tmp_path / "small").mkdir()
    (tmp_path / "small/table.toml").write_text(
        'title = "Small"\ncaption = "."\nmetrics = ["ndcg@100"]\n'
        '[[rows]]\nname = "DAE"\nslug = "dae"\nmodel = "mult-dae"\n'
        "settings = { latent_dim = 4, epochs = 2, batch_size = 500 }\n"
        '[[rows]]\nname = "EASE"\nslug = "ease"\nmodel = "ease"\n',
        encoding="utf-8",
    )
    (both,) = forecast("pair", "ml-20m", results=tmp_path)
    (alone,) = forecast("small", "ml-20m", rows=["dae"], results=tmp_path)
    assert (both.updates, both.operations) == (alone.updates, alone.operations) == (468, 468 * 6 * 500 * 4 * ITEMS)
    assert both.uncounted == "members: fitted to the whole matrix at once" and alone.uncounted is None


def test_hours_follow_from_the_rate():
    assert Forecast("row", "row", 1, 10, 72 * 10**15, None).hours(10) == pytest.approx(2)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--dry-run", "--render-only"], "--render-only"),
        (["--tflops", "3"], "--dry-run"),
        (["--dry-run", "--rows", "mult-vea"], "mult-vae"),
    ],
)
def test_what_does_not_go_together_is_refused(options, why):
    told = CliRunner().invoke(app, ["table", "multvae-table2", "--dataset", "ml-20m", *options])
    assert told.exit_code != 0
    assert why in f"{told.output}{told.exception}"


@pytest.mark.long
def test_the_guide_has_the_hours_that_are_computed(no_data, tmp_path):
    guide = (Path(__file__).parents[1] / "docs/scale.md").read_text(encoding="utf-8")
    (cells,) = re.findall(r"^\| `multvae-table2` \| (.*) \|$", guide, flags=re.MULTILINE)
    datasets = ("ml-20m", "netflix", "msd")
    runs = {dataset: forecast("multvae-table2", dataset, results=tmp_path) for dataset in datasets}
    assert f"{ASSUMED_TFLOPS:g} TFLOP/s" in guide
    assert cells == " | ".join(f"{sum(row.hours(ASSUMED_TFLOPS) for row in of):.1f}" for of in runs.values())
