"""An items file: read in every format by one rule for ids, kept with split and run, and seen wherever items are."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_cli import run

import tfvae
from tfvae.data.attributes import Attribute, attribute_arrays, read_attributes
from tfvae.data.interactions import Interactions
from tfvae.data.items import Items
from tfvae.data.items_file import read_items
from tfvae.data.splits import (
    LeaveOneOutSettings,
    RatingHoldoutSettings,
    StrongGeneralizationSettings,
    WeakGeneralizationSettings,
    leave_one_out,
    load_split,
    rating_holdout,
    strong_generalization,
    weak_generalization,
)
from tfvae.models.metadata import encode_metadata
from tfvae.system.errors import InputError
from tfvae.system.files import read_npz, write_npz

CSV = "sku;Name;genres;price;year\n7;Heat;Crime|Drama;2.5;1995\n9;Up;;1;\n12;Léon;Drama;0.25;1994\n"


def written(tmp_path, content, name="items.csv"):
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return tmp_path / name


def rows(table):
    """Everything a table tells, item by item."""
    names = [None] * len(table.ids) if table.titles is None else table.titles.tolist()
    told = [
        {name: attribute.values(item) for name, attribute in table.attributes.items()} for item in range(len(table.ids))
    ]
    return list(zip(table.ids.tolist(), names, told, strict=True))


@pytest.fixture(scope="module")
def events() -> Interactions:
    """60 users with 8 of the 30 items 100 to 129 each, and ratings."""
    draw = np.random.default_rng(2)
    items = np.concatenate([draw.choice(30, 8, replace=False) for _ in range(60)]) + 100
    return Interactions.from_events(np.repeat(np.arange(60), 8), items, draw.integers(1, 6, items.size))


def cut(events):
    return {
        "strong": strong_generalization(events, StrongGeneralizationSettings(held_out_users=12)),
        "weak": weak_generalization(events),
        "one out": leave_one_out(events, LeaveOneOutSettings(n_negatives=5)),
        "ratings": rating_holdout(events, RatingHoldoutSettings(scale=(1, 5))),
    }


# ---- attributes ------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=5)
CELLS = st.one_of(*(st.lists(st.lists(value, max_size=3), max_size=6) for value in (TEXT, st.integers(-9, 9))))


@given(cells=CELLS)
def test_attributes_are_written_and_read_without_loss(cells, tmp_path_factory):
    file = tmp_path_factory.mktemp("attributes") / "a.npz"
    write_npz(file, attribute_arrays({"a/b": Attribute.of(cells), "": Attribute.of([[] for _ in cells])}))
    found = read_attributes(read_npz(file), len(cells))
    assert list(found) == ["a/b", ""] and not any(map(found[""].values, range(len(cells))))
    assert [found["a/b"].values(item) for item in range(len(cells))] == [list(dict.fromkeys(cell)) for cell in cells]


def test_an_attribute_answers_who_has_what():
    genres = Attribute.of([["Drama", "War"], [], ["War"]])
    assert genres.has("War").tolist() == [True, False, True]
    assert genres.has("Drama", "War").tolist() == [True, False, True]
    assert genres.taken(np.array([2, -1, 0])).has("War").tolist() == [True, False, True]
    assert genres.counts.tolist() == [2, 0, 1] and genres.rows.tolist() == [0, 0, 2]
    assert Attribute.of([[3], [4]]).has("4").tolist() == [False, True]
    with pytest.raises(InputError, match="no item has the value 'Noir'; there are Drama, War"):
        genres.has("Noir")


def test_attributes_become_metadata():
    features = {
        "genres": Attribute.of([["Drama", "War"], [], ["War"]]).feature(),
        "price": Attribute.of([[1.5], [], [3.5]]).feature(),
        "age": Attribute.of([[18], [21], [18]]).feature(),
    }
    table, names = encode_metadata(features, 3)
    assert names == ["genres=Drama", "genres=War", "price", "age=18", "age=21"]
    assert table.tolist() == [[1, 1, -1, 1, 0], [0, 0, 0, 0, 1], [0, 1, 1, 1, 0]]


# ---- the file --------------------------------------------------------------------------------------


def test_a_file_is_the_same_in_every_format(tmp_path):
    expected = [
        (7, "Heat", {"genres": ["Crime", "Drama"], "price": [2.5], "year": [1995]}),
        (9, "Up", {"genres": [], "price": [1.0], "year": []}),
        (12, "Léon", {"genres": ["Drama"], "price": [0.25], "year": [1994]}),
    ]
    frame = pd.DataFrame(
        {
            "sku": [12, 7, 9],
            "Name": ["Léon", "Heat", "Up"],
            "genres": [["Drama"], ["Crime", "Drama"], []],
            "price": [0.25, 2.5, 1.0],
            "year": [1994, 1995, None],
        }
    )
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    written(tmp_path, CSV.replace(";", "\t"), "a.tsv")
    written(tmp_path, CSV.replace("Crime|Drama", '"Crime; Drama"'), "a.csv")
    written(tmp_path, CSV.encode("cp1252"), "b.csv")
    written(tmp_path, CSV.encode("utf-16"), "c.csv")
    for name in ("a.parquet", "a.jsonl", "a.tsv", "a.csv", "b.csv", "c.csv"):
        assert rows(read_items(tmp_path / name)) == expected, name


def test_a_line_of_json_may_leave_out_what_is_not_known(tmp_path):
    file = written(tmp_path, '{"id": "a"}\n{"id": "b", "title": "B", "tags": ["x", null]}\n', "items.jsonl")
    assert rows(read_items(file)) == [("a", "", {"tags": []}), ("b", "B", {"tags": ["x"]})]


@pytest.mark.parametrize(
    ("header", "item", "title"),
    [
        ("id,title,kind", "id", "title"),
        ("movieId,title,genres", "movieId", "title"),
        ("ASIN,Product Name,brand", "ASIN", "Product Name"),
        ("item,item_id,name,title", "item", "title"),  # the standard names settle it
        ("track-id,artist_name,year", "track-id", None),
    ],
)
def test_columns_of_usual_names_are_recognised(header, item, title, tmp_path):
    table = read_items(written(tmp_path, f"{header}\n1,x,y,z\n".replace(",z", ",z" * (header.count(",") - 2))))
    titles = f"titles = {title}" if title else "no titles"
    assert table.columns.startswith(f"ids = {item}, {titles}")


def test_columns_may_be_named(tmp_path):
    file = written(tmp_path, "sku,isbn,label,name\n1,2,a,b\n")
    assert rows(read_items(file, "isbn", "label")) == [(2, "a", {"sku": [1], "name": ["b"]})]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("id,title\n", "no data lines"),
        ("what,title\n1,a\n", r"no column is called like ids of items; found: 'what', 'title'.*--items-id-col"),
        ("sku,asin\n1,a\n", r"'sku' and 'asin' could all be the column of item ids.*--items-id-col"),
        ("id,name,label\n1,a,b\n", r"'name' and 'label' could all be the column of titles.*--items-title-col"),
        ("id,title\n1,a\n,b\n", "line 3: item '' is empty"),
        ("id,title\n1,a\n-1,b\n", "line 3: item '-1' is the number that pads"),
        ("id,title\n1,a\n\n2,b\n1,c\n", r"line 5: item 1 was described otherwise before, in line 2 \(title\)"),
        ("id,title,kind\n1,a,x\n1,a,y\n", r"line 3: item 1 was described otherwise before, in line 2 \(kind\)"),
        ("id,title,kind,kind\n1,a,x,y\n", "the column 'kind' is named|2 columns are called 'kind'"),
        ('{"id": 1}\n{"title": "a"}\n', "line 2: no column 'id'"),
    ],
)
def test_what_is_no_list_of_items_is_refused_with_its_line(content, message, tmp_path):
    with pytest.raises(InputError, match=message) as refused:
        read_items(written(tmp_path, content))
    assert "items.csv" in str(refused.value)


def test_the_same_line_twice_is_one_item(tmp_path):
    assert len(read_items(written(tmp_path, "id,title\n1,a\n1,a\n")).ids) == 1


def test_what_has_no_usable_values_is_left_out_and_said(tmp_path):
    pd.DataFrame({"id": [1], "picture": [b"\xff"], "nested": [{"a": 1}], "kind": ["x"]}).to_parquet(tmp_path / "i")
    table = read_items(tmp_path / "i")
    assert list(table.attributes) == ["kind"] and table.columns.endswith("left out = nested, picture")


def test_of_many_columns_the_first_are_named(tmp_path):
    names = [f"c{number}" for number in range(12)]
    table = read_items(written(tmp_path, f"id,{','.join(names)}\n1,{','.join('x' * 12)}\n"))
    assert list(table.attributes) == names and table.columns.endswith("c8, c9 and 2 more")


# ---- with the data ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "parquet as numbers", "parquet as text"])
def test_a_split_keeps_what_is_told_of_its_items_whatever_the_type_of_their_ids(kind, events, tmp_path, caplog):
    ids = np.arange(105, 135)
    frame = pd.DataFrame({"id": ids, "title": [f"T{i}" for i in ids], "kind": ["a|b" if i % 2 else "" for i in ids]})
    if kind == "csv":
        frame.to_csv(tmp_path / "items", index=False)
    else:
        frame.astype({"id": str} if kind.endswith("text") else {}).to_parquet(tmp_path / "items")
    table = read_items(tmp_path / "items")
    for name, split in cut(events).items():
        found = table.described(split)
        assert (found.digest == split.digest) == (name != "ratings")  # of which alone a model may learn the attributes
        assert (found.train != split.train).nnz == 0 and found.counts == split.counts
        file = found.save(tmp_path / f"{name}.npz")
        for same in (found, load_split(file), found.for_tuning()):
            expected = [f"T{item}" if item >= 105 else "" for item in split.item_ids]
            assert same.titles.tolist() == expected
            both = [["a", "b"] if item >= 105 and item % 2 else [] for item in split.item_ids]
            assert [same.attributes["kind"].values(item) for item in range(split.n_items)] == both
        Items.of(found).save(tmp_path)
        items = Items.load(tmp_path)
        assert items.attributes["kind"].has("b").tolist() == [bool(values) for values in both]
        assert items.description == Items.of(found).description != Items.of(split).description
        assert load_split(file).digest == found.digest
    assert "attributes = kind (several values); 25 of the data's 30 items are in it, 5 are not, and 5" in caplog.text


def test_a_title_that_the_file_lacks_stays(tmp_path):
    small = WeakGeneralizationSettings(min_items_per_user=0, holdout_fraction=0.5)
    split = weak_generalization(Interactions.from_events([1, 1, 2, 2], [1, 2, 1, 3]), small)
    named = tfvae.read_items(written(tmp_path, "id,title\n1,old\n2,two\n")).described(split)
    again = tfvae.read_items(written(tmp_path, "id,title\n1,new\n3,\n")).described(named)
    assert again.titles.tolist() == ["new", "two", ""]
    untitled = tfvae.read_items(written(tmp_path, "id,kind\n1,x\n")).described(again)
    assert untitled.titles.tolist() == again.titles.tolist() and untitled.attributes["kind"].values(0) == ["x"]


def test_a_file_of_other_items_is_refused(events, tmp_path):
    table = read_items(written(tmp_path, "id,title\nx,a\n"))
    with pytest.raises(InputError, match="none of its 1 items, such as x, is one of the data, whose ids look like 1"):
        table.described(cut(events)["weak"])


def test_the_metadata_of_p_vae_takes_the_attributes(events, tmp_path):
    from tfvae.models.pvae import PVAE

    file = written(tmp_path, "id,kind\n" + "".join(f"{item},k{item % 3}\n" for item in range(100, 130)))
    split = read_items(file).described(cut(events)["ratings"])
    model = PVAE.for_split(split.for_tuning(), metadata=True, embedding_dim=3, latent_dim=2)
    assert model.n_features == 3 and (np.count_nonzero(model.encoder.features.numpy(), axis=1) == 1).all()
    turned = split.by_items()
    assert turned.titles is None and not turned.attributes and list(turned.user_features) == ["kind"]


def test_items_of_a_former_version_have_no_attributes(tmp_path):
    Items(np.array([3, 1]), None, None, np.array([2, 0])).save(tmp_path)
    assert "attribute_names" not in read_npz(tmp_path / "items.npz")
    assert Items.load(tmp_path).attributes == {}


# ---- the commands ----------------------------------------------------------------------------------


@pytest.fixture
def folder(events, tmp_path, monkeypatch):
    lines = zip(events.users, events.item_ids[events.items], strict=True)
    written(tmp_path, "uid,sku\n" + "".join(f"{user},{item}\n" for user, item in lines), "events.csv")
    written(tmp_path, "id,label,kind\n" + "".join(f"{item},Thing {item},k\n" for item in range(100, 130)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_titles_are_seen_wherever_items_are(folder):
    run("fit", "events.csv", "--items", "items.csv", "--model", "ease")
    shown = run("recommend", "runs/events-ease", "--like", "thing 105", "-k", "3").output
    assert "'thing 105' is taken for Thing 105 (105)" in shown and shown.count("Thing 1") == 4
    assert run("recommend", "runs/events-ease", "--user", "3", "-k", "3").output.count("Thing 1") == 3
    run("recommend", "runs/events-ease", "--all-users", "--out", "top.jsonl", "-k", "2")
    assert json.loads((folder / "top.jsonl").read_text().splitlines()[0])["title"].startswith("Thing 1")
    assert Items.load("runs/events-ease").attributes["kind"].has("k").all()
    run("export", "runs/events-ease", "exported")
    run("prepare", "events.csv", "--items", "items.csv", "--out", "data/one.npz")
    run("fit", "data/one.npz", "--model", "popularity")
    assert "Thing 1" in run("recommend", "runs/one-popularity", "--history", "105", "-k", "3").output
    run("compare", "events.csv", "--items", "items.csv", "--models", "popularity,ease", "--minutes", "1")
    assert Items.load("runs/events-compare/ease").titles[0].startswith("Thing")


@pytest.mark.slow
def test_a_finished_run_keeps_its_titles(folder):
    run("fit", "events.csv", "--model", "popularity")
    before = Items.load("runs/events-popularity")
    refused = run("fit", "events.csv", "--items", "items.csv", "--model", "popularity", code=2).stderr
    assert "was finished with other titles or attributes" in refused
    assert before.description == Items.load("runs/events-popularity").description
    run("fit", "events.csv", "--items", "items.csv", "--model", "popularity", "--run", "titled")
    for arguments in (["--items", "items.csv"], []):
        again = run("fit", "events.csv", *arguments, "--model", "popularity", "--run", "titled").output
        assert "nothing left to do" in again


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "events.csv", "--items", "none.csv"], "none.csv: no such file"),
        (["fit", "events.csv", "--items-id-col", "id"], "give it too (--items)"),
        (["fit", "events.csv", "--items", "items.csv", "--items-id-col", "idd"], "did you mean 'id'?"),
        (["prepare", "events.csv", "--items", "items.csv", "--format", "vae-cf"], "holds no titles"),
    ],
)
def test_bad_input_is_refused(folder, arguments, message):
    assert message in run(*arguments, code=2).stderr
