"""Rankings of everybody: equal to those of one person at a time, in three formats, whatever interrupts them."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rating_rows import random_ratings, ready
from scipy.sparse import csr_array

from tfvae.data.histories import Histories
from tfvae.data.interactions import Interactions
from tfvae.data.items import Items
from tfvae.data.splits import LeaveOneOutSettings, leave_one_out
from tfvae.serving import everybody
from tfvae.serving.everybody import recommend_to_all
from tfvae.serving.ranking_files import ranking_table, writing
from tfvae.serving.recommendations import recommend, recommend_to_users
from tfvae.system.errors import DivergedError, InputError
from tfvae.system.locks import held
from tfvae.training.settings import settings_of

pytestmark = pytest.mark.slow

N_USERS, N_ITEMS, K, SCALE = 23, 40, 12, (1.0, 5.0)
NUMBERS = np.random.default_rng(1).permutation(1000)[:N_ITEMS] - 200  # in no order; some are negative
STRINGS = np.array([f'tt{number:04d}é, "{number}"' for number in range(N_ITEMS)])
TITLES = np.array([f"Title, of “{number}”" if number % 3 else "" for number in range(N_ITEMS)])
ENDINGS = ["parquet", "csv", "jsonl"]
SMALL = {
    "mult-dae": {"latent_dim": 4},
    "ease": {},
    "popularity": {},
    "gmf": {"factors": 2},
    "cdae": {"latent_dim": 4},
    "p-vae": {"embedding_dim": 6, "latent_dim": 3, "decoder_hidden": [5], "variance": 0.8},
    "bias-mf": {"factors": 2, "regularization": 0.05},
}
RATES = {"p-vae", "bias-mf"}
USERS = {
    "numbers": np.arange(N_USERS) * 7 - 40,
    "texts": np.array([f'{number % 5},"{number}"\nü' for number in range(N_USERS)]),
}


def built(name):
    """A model with random or fitted weights."""
    model = settings_of(name, SMALL[name]).build(N_ITEMS, n_users=60)
    rows = random_ratings(60, N_ITEMS, seed=5) if name in RATES else histories_of(60, seed=5)
    if hasattr(model, "fit_matrix"):
        model.fit_matrix(rows, log=lambda line: None)
    elif name in RATES:
        ready(model, rows)
    return model


@pytest.fixture(scope="module")
def models():
    return {name: built(name) for name in SMALL if name != "gmf"}


def histories_of(n_users=N_USERS, seed=0):
    """Random histories as a matrix; user 4 has all items but two."""
    kept = np.random.default_rng(seed).random((n_users, N_ITEMS)) < 0.2
    kept[:, 0] |= ~kept.any(axis=1)
    kept[4] = True
    kept[4, [7, 30]] = False
    return csr_array(kept.astype(np.float32))


def items_of(item_ids, *, rates=False, titles=TITLES):
    return Items(item_ids, titles, SCALE if rates else None, np.arange(N_ITEMS))


def events_of(matrix, user_ids, item_ids):
    """User, item and rating of each entry of a matrix, shuffled, so that a user's events are all over the file."""
    rows, columns = matrix.nonzero()
    order = np.random.default_rng(9).permutation(len(rows))
    return {"user": user_ids[rows[order]], "item": item_ids[columns[order]], "rating": matrix.data[order]}


def written(path: Path, columns) -> Path:
    """Events as a CSV, JSON lines or Parquet file."""
    columns = {name: values.tolist() if isinstance(values, np.ndarray) else values for name, values in columns.items()}
    rows = list(zip(*columns.values(), strict=True))
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".csv":
        with open(path, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([columns, *rows])
    else:
        lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
        path.write_text("\n".join(lines), encoding="utf-8")
    return path


def read(path: Path) -> dict[str, list]:
    """The columns of a file of rankings, as Python values; those of CSV as it is read by the csv module, with types."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pydict()
    if path.suffix == ".csv":
        with open(path, encoding="utf-8", newline="") as file:
            names, *rows = csv.reader(file)
        kinds = {"rank": int, "score": np.float32, "sd": np.float32}
        return {
            name: list(map(kinds.get(name, str), column))
            for name, column in zip(names, zip(*rows, strict=True), strict=True)
        }
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {name: [row[name] for row in rows] for name in rows[0]}


def rows_of(ranking, user_ids, titles=True):
    """The rows that a `Ranking` of users makes."""
    filled = np.isfinite(ranking.scores)
    users, ranks = np.nonzero(filled)
    rows = {"user": np.asarray(user_ids)[users], "rank": ranks + 1, "item": ranking.items[filled]}
    rows["score"] = ranking.scores[filled]
    if titles:
        rows["title"] = ranking.titles[filled]
    if ranking.sd is not None:
        rows["sd"] = ranking.sd[filled]
    return {name: values.tolist() for name, values in rows.items()}


def assert_same(found, expected, exact=True):
    assert list(found) == list(expected)
    for name, values in expected.items():
        if name in ("score", "sd"):
            close = np.float32(found[name]), np.float32(values)
            np.testing.assert_array_equal(*close) if exact else np.testing.assert_allclose(*close, rtol=1e-5, atol=1e-7)
        else:
            assert found[name] == values, name


# ---- equal to one at a time -------------------------------------------------------------------------


@pytest.mark.parametrize("item_ids", [NUMBERS, STRINGS], ids=["number items", "text items"])
@pytest.mark.parametrize("users", USERS)
@pytest.mark.parametrize("name", ["mult-dae", "ease", "p-vae", "bias-mf"])
def test_new_users_get_what_recommend_gives_them(models, name, users, item_ids, tmp_path):
    rates, user_ids = name in RATES, np.sort(USERS[users])
    matrix = random_ratings(N_USERS, N_ITEMS, seed=3, empty=()) if rates else histories_of()
    items = items_of(item_ids, rates=rates)
    lists = [matrix[[row]] for row in range(N_USERS)]
    expected = recommend(
        models[name],
        item_ids,
        [item_ids[row.indices].tolist() for row in lists],
        K,
        TITLES,
        [row.data.tolist() for row in lists] if rates else None,
        items.scale,
    )
    expected = rows_of(expected, user_ids)
    assert ("sd" in expected) == (name == "p-vae")
    out, digests = tmp_path / "top.parquet", set()
    for ending in ENDINGS:
        file = written(tmp_path / f"given.{ending}", events_of(matrix, user_ids, item_ids))
        histories = Histories.from_file(file, items, rating="rating" if rates else None)
        digests.add(histories.digest)
    told = recommend_to_all(models[name], items, histories, out, K, progress=False)
    assert told == (out, N_USERS, len(expected["user"]), 0) and len(digests) == 1
    assert_same(read(out), expected, exact=False)
    assert {path.name for path in tmp_path.iterdir()} == {out.name, *(f"given.{ending}" for ending in ENDINGS)}


@pytest.mark.parametrize("ids", [NUMBERS, STRINGS], ids=["numbers", "texts"])
@pytest.mark.parametrize("name", ["ease", "mult-dae", "cdae", "gmf"])
def test_training_users_get_what_recommend_to_users_gives_them_to_the_bit(name, ids, tmp_path):
    users, items = histories_of(60, seed=5).nonzero()
    events = Interactions.from_events(users * 7 + 3, ids[items])
    split = leave_one_out(events, LeaveOneOutSettings(n_negatives=1))
    model = settings_of(name, SMALL[name]).build_for(split)
    if hasattr(model, "fit_matrix"):
        model.fit_matrix(split.train, log=lambda line: None)
    recommend_to_all(model, split, Histories.of_training(split), tmp_path / "all.parquet", K, progress=False)
    expected = recommend_to_users(model, split, split.user_ids, K)
    assert_same(read(tmp_path / "all.parquet"), rows_of(expected, split.user_ids, titles=False))
    strangers = Histories.from_file(written(tmp_path / "u.csv", {"user": [1], "item": ids[:1]}), split)
    if model.scores_new_users:
        recommend_to_all(model, split, strangers, tmp_path / "all.parquet", K, progress=False)
        assert set(read(tmp_path / "all.parquet")["user"]) == {1}
    else:
        with pytest.raises(InputError, match="serves its training users only.*--all-users"):
            recommend_to_all(model, split, strangers, tmp_path / "all.parquet", K, progress=False)


@pytest.mark.parametrize("users", USERS)
@pytest.mark.parametrize(("name", "item_ids"), [("mult-dae", NUMBERS), ("p-vae", STRINGS)])
def test_the_three_formats_hold_the_same(models, name, item_ids, users, tmp_path):
    rates = name in RATES
    matrix = random_ratings(N_USERS, N_ITEMS, seed=3) if rates else histories_of()
    items = items_of(item_ids, rates=rates)
    file = written(tmp_path / "given.parquet", events_of(matrix, USERS[users], item_ids))
    histories = Histories.from_file(file, items, rating="rating" if rates else None)
    for ending in ENDINGS:
        recommend_to_all(models[name], items, histories, tmp_path / f"top.{ending}", K, progress=False)
    parquet, plain, lines = [read(tmp_path / f"top.{ending}") for ending in ENDINGS]
    kinds = pq.read_schema(tmp_path / "top.parquet")
    assert [kinds.field(column).type for column in ("rank", "score")] == [pa.int32(), pa.float32()]
    assert_same(lines, parquet)
    plain |= {name: list(map(type(parquet[name][0]), plain[name])) for name in ("user", "item")}  # CSV has no types
    assert_same(plain, parquet)


KINDS = [
    *(pa.int8(), pa.int32(), pa.int64(), pa.uint16(), pa.uint64(), pa.float32(), pa.float64()),
    *(pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary()),
    pa.dictionary(pa.int8(), pa.string()),
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_user_ids_keep_their_type_in_parquet_and_their_text_elsewhere(kind, tmp_path):
    ids = ["5", "30", "7"]
    users = pa.array(ids).cast(pa.string()).cast(kind)
    pq.write_table(pa.table({"user": users, "item": NUMBERS[:3]}), tmp_path / "given.parquet")
    histories = Histories.from_file(tmp_path / "given.parquet", items_of(NUMBERS))
    found = {"items": np.int32([[0], [1], [2]]), "scores": np.zeros((3, 1), np.float32)}
    table = ranking_table(histories.user_ids, pa.array(NUMBERS), None, found)
    for ending in ENDINGS:
        with writing(tmp_path / f"top.{ending}", table.schema) as write:
            write(table)
        read_back = read(tmp_path / f"top.{ending}")["user"]
        read_back = [name.decode() if isinstance(name, bytes) else name for name in read_back]
        assert {f"{name:g}" if isinstance(name, float) else str(name) for name in read_back} == set(ids)
    plainly = {pa.dictionary(pa.int8(), pa.string()): pa.string(), pa.string_view(): pa.string()}
    assert pq.read_schema(tmp_path / "top.parquet").field("user").type == plainly.get(kind, kind)


def test_ids_beyond_64_bits_and_with_leading_zeros_stay_text(models, tmp_path):
    items = items_of(NUMBERS, titles=None)
    for ids in (["9" * 25, "5"], ["007", "7"]):
        file = written(tmp_path / "given.csv", {"user": ids, "item": NUMBERS[:2]})
        recommend_to_all(models["ease"], items, Histories.from_file(file, items), tmp_path / "t.parquet", 1)
        assert read(tmp_path / "t.parquet")["user"] == sorted(ids)


def test_sizes_of_batches_and_parts_change_no_ranking(models, tmp_path, monkeypatch):
    items = items_of(NUMBERS)
    histories = Histories.from_file(
        written(tmp_path / "u.csv", events_of(histories_of(), USERS["numbers"], NUMBERS)), items
    )
    recommend_to_all(models["mult-dae"], items, histories, tmp_path / "one.parquet", N_ITEMS + 5, progress=False)
    monkeypatch.setattr(everybody, "USERS_A_PART", 6)
    recommend_to_all(models["mult-dae"], items, histories, tmp_path / "two.parquet", 999, batch_size=2, progress=False)
    one, two = (read(tmp_path / f"{name}.parquet") for name in ("one", "two"))
    assert_same(one, two, exact=False)
    assert pq.ParquetFile(tmp_path / "two.parquet").num_row_groups == 4  # of 6, 6, 6 and 5 users
    assert np.bincount(np.unique(one["user"], return_inverse=True)[1]).tolist() == [
        N_ITEMS - n for n in np.diff(histories.matrix.indptr)
    ]


def test_long_rankings_are_kept_in_small_parts(tmp_path):
    assert [len(everybody._Parts(tmp_path, 20_000, k, 500, 10**6).users(0)) for k in (50, 1_000, 10**6)] == [
        5_000, 1_000, 500,
    ]  # fmt: skip


def test_only_candidates_are_recommended_and_who_gets_none_is_counted(models, tmp_path):
    items, wanted = items_of(NUMBERS), np.isin(np.arange(N_ITEMS), [0, 3])
    matrix = histories_of()
    histories = Histories.from_file(written(tmp_path / "u.csv", events_of(matrix, USERS["numbers"], NUMBERS)), items)
    told = recommend_to_all(models["ease"], items, histories, tmp_path / "top.csv", K, wanted, progress=False)
    has = np.zeros((N_USERS, 2), bool)
    rows, columns = matrix.nonzero()
    for place, item in enumerate((0, 3)):
        has[rows[columns == item], place] = True
    assert told.n_without == has.all(axis=1).sum() > 0 and told.n_rows == (~has).sum()
    assert set(read(tmp_path / "top.csv")["item"]) == set(map(str, NUMBERS[[0, 3]]))


# ---- what a file of histories says ------------------------------------------------------------------


def test_events_of_a_user_are_joined_and_unknown_items_counted(tmp_path):
    known = NUMBERS[:3].tolist()
    items = items_of(NUMBERS, rates=True)
    columns = {
        "uid": ["b", "a", "b", "c", "b", "c", "b"],
        "sku": [known[0], known[1], "zzz", "yyy", known[2], "zzz", known[0]],
        "stars": [1, 2, 3, 4, 5, 1, 4],
    }
    file = written(tmp_path / "given.csv", columns)
    histories = Histories.from_file(file, items, "uid", "sku", "stars")
    assert histories.user_ids.to_pylist() == ["a", "b", "c"]
    assert histories.matrix.toarray()[:, :3].tolist() == [[0, 2, 0], [4, 0, 5], [0, 0, 0]]  # the last of a pair counts
    assert (histories.n_unknown, histories.n_events, histories.n_empty) == (3, 6, 1)
    assert histories.unknown_items.tolist() == ["zzz", "yyy"]
    semicolons = tmp_path / "given2.csv"
    semicolons.write_text(file.read_text().replace(",", ";"))
    again = Histories.from_file(semicolons, items, "uid", "sku", "stars", delimiter=";")
    assert again.digest == histories.digest


def test_items_are_known_by_their_text_whatever_the_type_of_their_column(tmp_path):
    for item_ids in (NUMBERS, NUMBERS.astype(str)):
        for given in (NUMBERS, NUMBERS.astype(str), NUMBERS.astype(float)):
            file = written(tmp_path / "given.parquet", {"user": np.arange(N_ITEMS), "item": given})
            histories = Histories.from_file(file, items_of(item_ids))
            assert histories.matrix.indices.tolist() == list(range(N_ITEMS)) and not histories.n_unknown


def test_who_ranks_may_say_which_ratings_count(tmp_path):
    columns = {"user": [1, 1, 2], "item": [*NUMBERS[:2].tolist(), 7_777], "rating": [4, 3, 1]}
    file = written(tmp_path / "given.csv", columns)
    histories = Histories.from_file(file, items_of(NUMBERS), rating="rating", min_rating=4)
    assert histories.matrix.toarray()[:, :2].tolist() == [[1, 0], [0, 0]]
    assert (histories.n_unknown, histories.n_empty) == (0, 1)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("", {}, r"given.csv: the file is empty"),
        ("user,item\n", {}, r"given.csv: no data lines after the header"),
        ("user,itme\n1,3\n", {}, r"no column 'item'; found: 'user', 'itme'; did you mean 'itme'"),
        ("user,item\n1,\n", {}, r"line 2: item '' is empty"),
        ("user,item\n1,nix\n2,nox\n", {}, r"none of its 2 items, such as nix, is one of the training data"),
        ("user,item,rating\n1,{0},5\n", {"rating": "rating"}, r"by what is in a history, not by ratings"),
        ("user,item,rating\n1,{0},5\n", {"min_rating": 4}, r"min_rating=4 needs ratings"),
        ("user,item,rating\n1,{0},5\n", {"rates": True}, r"needs people's ratings; name their column"),
        ("user,item,rating\n1,{0},5\n", {"rates": True, "rating": "rating", "min_rating": 4}, "would change nothing"),
        (
            "user,item,rating\n1,{0},5\n\n2,{1},5.5\n2,nix,0\n",
            {"rates": True, "rating": "rating"},
            r"given.csv, line 4: expected ratings from 1 to 5, as in the training data, found 5.5 \(2 such in all\)",
        ),
        (
            "user,item,rating\n1,{0},good\n",
            {"rates": True, "rating": "rating"},
            "line 2: rating 'good' is not a number",
        ),
    ],
)
def test_a_file_that_is_not_as_it_should_be_is_refused_with_its_line(content, options, message, tmp_path):
    (tmp_path / "given.csv").write_text(content.format(*NUMBERS))
    items = items_of(NUMBERS, rates=options.pop("rates", False))
    with pytest.raises(InputError, match=message):
        Histories.from_file(tmp_path / "given.csv", items, **options)


# ---- interrupted, and in whose place ----------------------------------------------------------------


@pytest.fixture
def job(models, tmp_path, monkeypatch):
    """A function that ranks in parts of 6 users; options replace its arguments."""
    monkeypatch.setattr(everybody, "USERS_A_PART", 6)
    items = items_of(STRINGS)
    file = written(tmp_path / "given.parquet", events_of(histories_of(), USERS["texts"], STRINGS))
    given = {"model": models["mult-dae"], "items": items, "histories": Histories.from_file(file, items), "k": 5}

    def run(out, **options):
        return recommend_to_all(**given | {"out": tmp_path / out, "batch_size": 3, "progress": False} | options)

    return run


class Killed(BaseException):
    pass


def counted(monkeypatch, deadline):
    """Lets the rename or removal of number `deadline` and all later ones fail, as if the process were dead by then."""
    done = 0

    def after(function):
        def wrapper(*arguments, **options):
            nonlocal done
            done += 1
            if done > deadline:
                raise Killed
            return function(*arguments, **options)

        return wrapper

    monkeypatch.setattr("os.replace", after(os.replace))
    monkeypatch.setattr(Path, "unlink", after(Path.unlink))


def noted(calls, function):
    """The function, which also appends its first argument to `calls`."""

    def wrapper(first, *arguments, **options):
        calls.append(first)
        return function(first, *arguments, **options)

    return wrapper


@pytest.mark.parametrize("ending", ENDINGS)
def test_killed_between_any_two_writes_it_goes_on_to_equal_bytes(job, ending, tmp_path):
    job(f"whole.{ending}")
    whole = (tmp_path / f"whole.{ending}").read_bytes()
    out = tmp_path / f"top.{ending}"
    for deadline in range(20):
        out.unlink(missing_ok=True)
        with pytest.MonkeyPatch.context() as patch:
            counted(patch, deadline)
            try:
                job(out.name)
            except Killed:
                pass
            else:
                break
        assert not out.exists() or out.read_bytes() == whole
        kept = sum(1 for _ in Path(f"{out}.parts").glob("part-*"))
        made = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(everybody, "write_npz", noted(made, everybody.write_npz))
            job(out.name)
        assert len(made) == 4 - kept
        assert out.read_bytes() == whole
        assert sorted(p.name for p in tmp_path.iterdir()) == ["given.parquet", out.name, f"whole.{ending}"]
    assert deadline == 1 + 4 + 1 + 4 + 1 + 1  # the mark, the parts, the file; then parts, mark and lock are removed


def test_a_damaged_part_is_made_again(job, tmp_path):
    job("whole.csv")
    with pytest.MonkeyPatch.context() as patch:
        counted(patch, 4)
        with pytest.raises(Killed):
            job("top.csv")
    parts = sorted((tmp_path / "top.csv.parts").glob("part-*"))
    assert len(parts) == 3
    parts[0].write_bytes(parts[0].read_bytes()[:-200])
    with np.load(parts[1]) as stored:
        arrays = dict(stored)
    np.savez(parts[1], **arrays | {"items": arrays["items"] + 1_000})
    np.savez(parts[2], **{name: array[:2] for name, array in arrays.items()})
    job("top.csv")
    assert (tmp_path / "top.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_the_beginning_of_another_ranking_is_left_alone(job, models, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        counted(patch, 3)
        with pytest.raises(Killed):
            job("top.csv")
    folder = tmp_path / "top.csv.parts"
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    file = written(tmp_path / "fewer.csv", {"user": ["x"], "item": STRINGS[:1]})
    fewer = Histories.from_file(file, items_of(STRINGS))
    for options, message in (
        ({"k": 6}, "another ranking: k is 5 there, 6 here. Finish that one"),
        ({"batch_size": 2}, "batch_size is 3 there, 2 here"),
        ({"model": models["ease"]}, "another ranking: the model is other"),
        ({"histories": fewer}, "the histories are other"),
        ({"items": items_of(STRINGS, titles=None)}, "the items are other"),
        ({"candidates": np.arange(N_ITEMS) < 9, "k": 6}, "k is 5 there, 6 here; the items that may be recommended are"),
    ):
        with pytest.raises(InputError, match=message):
            job("top.csv", **options)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    job("top.csv")
    assert not folder.exists()


def test_another_process_is_waited_for_and_other_files_are_left_alone(job, tmp_path):
    with held(tmp_path / "top.csv.parts"), pytest.raises(InputError, match="in use by another process"):
        job("top.csv")
    (tmp_path / "top.csv.parts").mkdir()
    (tmp_path / "top.csv.parts" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="not of an unfinished ranking: it holds letter.txt"):
        job("top.csv")
    (tmp_path / "real").mkdir()
    (tmp_path / "top.jsonl.parts").symlink_to(tmp_path / "real")
    with pytest.raises(InputError, match="found a file or a link"):
        job("top.jsonl")
    (tmp_path / "top.parquet.parts").mkdir()
    (tmp_path / "top.parquet.parts" / "mark.json").write_text("{}")
    (tmp_path / "top.parquet.parts" / "mark.json").write_text('{"format": "my own"}')
    with pytest.raises(InputError, match="mark.json"):
        job("top.parquet")
    assert not list((tmp_path / "real").iterdir()) and not (tmp_path / "top.csv").exists()


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_ranking_is_replaced_and_nothing_else(job, ending, tmp_path):
    out = tmp_path / f"top.{ending}"
    job(out.name, k=3)
    job(out.name)
    assert max(read(out)["rank"]) == 5
    out.write_bytes(b"")
    job(out.name)
    for content in (b"dear", b'{"user": 1, "item": 2}\n', b"user,rank,item,score,mine\n", b"\xff\xfe\x00"):
        out.write_bytes(content)
        with pytest.raises(InputError, match="exists and is no ranking of tfvae; give another name"):
            job(out.name)
        assert out.read_bytes() == content
    out.unlink()
    out.mkdir()
    with pytest.raises(InputError, match="no ranking"):
        job(out.name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k is 0; expected at least 1"),
        ({"batch_size": 0}, "batch_size is 0; expected at least 1"),
        ({"out": "top.xlsx"}, "expected a name that ends in .parquet, .csv, .jsonl"),
        ({"out": "top"}, "expected a name that ends in"),
        ({"candidates": [True]}, "has 40 items, but 1 candidates"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_and_leave_nothing(job, options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        job(**{"out": "top.csv"} | options)
    assert [path.name for path in tmp_path.iterdir()] == ["given.parquet"]


def test_a_model_of_the_other_kind_is_refused(models, job, tmp_path):
    with pytest.raises(InputError, match="predicts ratings; give the scale"):
        job("top.csv", model=models["bias-mf"])
    file = written(tmp_path / "given.csv", events_of(random_ratings(9, N_ITEMS), np.arange(9), NUMBERS))
    items = items_of(NUMBERS, rates=True)
    with pytest.raises(InputError, match="predicts no ratings"):
        job("top.csv", items=items, histories=Histories.from_file(file, items, rating="rating"))


def test_scores_that_are_no_numbers_leave_nothing(job, tmp_path):
    model = built("popularity")
    model.item_counts.assign(np.full(N_ITEMS, np.nan, np.float32))
    with pytest.raises(DivergedError, match="NaN or infinite"):
        job("top.csv", model=model)
    assert [path.name for path in tmp_path.iterdir()] == ["given.parquet"]


@pytest.mark.parametrize("name", SMALL)
def test_models_with_other_weights_have_other_marks(name):
    """So that no ranking goes on with another model's parts."""
    model = built(name)
    before = everybody._model_digest(model)
    assert before == everybody._model_digest(built(name))
    weight = model.weights[-1]
    weight.assign(np.asarray(weight) + np.ones((), weight.dtype))
    assert everybody._model_digest(model) != before
