"""Definitions of tables: what is refused, with its place, and rows that are another table's."""

from __future__ import annotations

import pytest

from tfvae.experiments.definitions import TABLES, load_table, table_names
from tfvae.system.errors import InputError

HOME = """
title = "Home"
paper = "None, 2018"
caption = "For tests."
metrics = ["recall@5", "ndcg@10"]
monitor = "ndcg@10"
orderings = [{ above = "mult-dae", below = "popularity", source = "section 5" }]

[published]
ml-20m = { source = "Table 9" }

[[rows]]
name = "Popularity"
slug = "popularity"
model = "popularity"

[[rows]]
name = "Mult-DAE"
slug = "mult-dae"
model = "mult-dae"
settings = { latent_dim = 8 }
datasets.netflix = { dropout = 0.3 }
published.ml-20m = { "ndcg@10" = 0.5 }
search.dropout = { low = 0.2, high = 0.8 }
note = "At home."

[[rows]]
name = "WMF"
slug = "wmf"
published.ml-20m = { "ndcg@10" = 0.4 }
"""
GUEST = """
title = "Guest"
caption = "For tests."
metrics = ["ndcg@10"]
monitor = "ndcg@10"

[[rows]]
name = "Denoising"
slug = "denoising"
alias_of = "home/mult-dae"
published.ml-20m = { "ndcg@10" = 0.6 }

[[rows]]
name = "Own"
slug = "own"
model = "ease"
tuning_from = "home/ease"
"""


@pytest.fixture
def results(tmp_path):
    for name, definition in (("home", HOME), ("guest", GUEST)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "table.toml").write_text(definition)
    return tmp_path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("caption", "captoin", "did you mean 'caption'"),
        ("settings =", "setings =", "rows.1.*did you mean 'settings'"),
        ("low = 0.2, high", "low = 0.2, hgih", "did you mean 'high'"),
        ("low = 0.2, high = 0.8", "low = 0.8, high = 0.2", "low must be below high"),
        ("published.ml-20m", "published.ml-2m", "did you mean 'ml-20m'"),
        ('{ "ndcg@10" = 0.4', '{ "ndcg@100" = 0.4', "did you mean 'ndcg@10'"),
        ('"recall@5"', '"recal@5"', "did you mean 'recall'"),
        ('slug = "wmf"', 'slug = "mult-dae"', "same slug"),
        ('slug = "wmf"', 'slug = "../wmf"', "pattern"),
        ('title = "Home"', "title = ", "cannot be read as TOML"),
        ('above = "mult-dae"', 'above = "mult-da"', "row in an ordering 'mult-da'; did you mean 'mult-dae'"),
        ('below = "popularity"', 'below = "mult-dae"', "two rows, found 'mult-dae' twice"),
        ('below = "popularity", source = "section 5"', 'below = "popularity"', "source"),
        ('monitor = "ndcg@10"', 'monitor = "ndcg@5"', "judged by ndcg@5, which is not among the metrics"),
    ],
)
def test_a_faulty_definition_is_refused_with_its_place(results, old, new, message):
    path = results / "home" / "table.toml"
    assert old in HOME
    path.write_text(HOME.replace(old, new, 1))
    with pytest.raises(InputError, match=message) as caught:
        load_table("home", results)
    assert str(path) in str(caught.value)


def test_the_tables_of_the_papers_are_there_without_a_results_folder(tmp_path):
    assert "multvae-table2" in table_names(tmp_path / "none")
    assert load_table("multvae-table2", tmp_path / "none").name == "multvae-table2"


def test_a_table_of_ones_own_has_a_name_of_its_own(results):
    assert {"home", "guest"} < set(table_names(results))
    (results / "multvae-table2").mkdir()
    (results / "multvae-table2" / "table.toml").write_text(HOME)
    with pytest.raises(InputError, match="which is a table of tfvae; rename the folder of yours"):
        load_table("multvae-table2", results)
    assert (TABLES / "multvae-table2.toml").is_file()


def test_a_shared_row_has_what_its_home_says_and_its_own_name_cells_and_note(results):
    home, row = load_table("home", results).row("mult-dae"), load_table("guest", results).row("denoising")
    for key in ("model", "settings", "datasets", "search", "tuning_from"):
        assert getattr(row, key) == getattr(home, key)
    assert row.model == "mult-dae" and row.settings == {"latent_dim": 8} and row.search["dropout"].high == 0.8
    assert (row.name, row.slug, row.note) == ("Denoising", "denoising", None)
    assert row.published == {"ml-20m": {"ndcg@10": 0.6}}
    assert row.stored_in("guest") == ("home", "mult-dae") and home.stored_in("home") == ("home", "mult-dae")


def test_a_shared_row_follows_its_home_to_the_row_that_tunes_it(results):
    (results / "third").mkdir()
    (results / "third" / "table.toml").write_text(GUEST.replace("home/mult-dae", "guest/own"))
    row = load_table("third", results).row("denoising")
    assert (row.model, row.tuning_from, row.stored_in("third")) == ("ease", "home/ease", ("guest", "own"))


@pytest.mark.parametrize(
    ("alias_of", "message"),
    [
        ("hme/mult-dae", "unknown table in .* 'hme'; did you mean 'home'"),
        ("home/mult-da", "unknown row of home 'mult-da'; did you mean 'mult-dae'"),
        ("guest/own", "row of its own table"),
        ("third/denoising", "itself alias_of 'home/mult-dae'; name that row"),
        ("mult-dae", "pattern"),
    ],
)
def test_a_row_that_is_none_of_another_table_is_refused_with_its_place(results, alias_of, message):
    (results / "third").mkdir()
    (results / "third" / "table.toml").write_text(GUEST)
    path = results / "guest" / "table.toml"
    path.write_text(GUEST.replace("home/mult-dae", alias_of))
    with pytest.raises(InputError, match=message) as caught:
        load_table("guest", results)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "own",
    [
        'model = "ease"',
        "settings = { latent_dim = 8 }",
        "datasets.netflix = { dropout = 0.3 }",
        "search.dropout = { low = 0.2, high = 0.8 }",
        'tuning_from = "home/popularity"',
    ],
)
def test_a_shared_row_gives_nothing_that_it_shares(results, own):
    path = results / "guest" / "table.toml"
    path.write_text(GUEST.replace('alias_of = "home/mult-dae"', f'alias_of = "home/mult-dae"\n{own}'))
    key = own.split()[0].split(".")[0]
    with pytest.raises(InputError, match=f"alias_of takes {key} from home/mult-dae"):
        load_table("guest", results)
