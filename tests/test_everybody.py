"""Rankings of everybody: equal to those of one person at a time, with ids as they are, in three formats."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ranking_examples import (
    ENDINGS,
    N_ITEMS,
    N_USERS,
    NUMBERS,
    RATES,
    SMALL,
    STRINGS,
    TITLES,
    USERS,
    K,
    built,
    events_of,
    histories_of,
    items_of,
    read,
    written,
)
from rating_rows import random_ratings

from tfvae.data.histories import Histories
from tfvae.data.interactions import Interactions
from tfvae.data.splits import LeaveOneOutSettings, leave_one_out
from tfvae.serving import everybody
from tfvae.serving.everybody import recommend_to_all
from tfvae.serving.ranking_files import ranking_table, writing
from tfvae.serving.recommendations import recommend, recommend_to_users
from tfvae.serving.rules import Rules
from tfvae.system.errors import InputError
from tfvae.training.settings import settings_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models():
    return {name: built(name) for name in SMALL if name != "gmf"}


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


def test_only_wanted_items_are_recommended_and_who_gets_none_is_counted(models, tmp_path):
    items, wanted = items_of(NUMBERS), Rules(only=NUMBERS[[0, 3]])
    matrix = histories_of()
    histories = Histories.from_file(written(tmp_path / "u.csv", events_of(matrix, USERS["numbers"], NUMBERS)), items)
    told = recommend_to_all(models["ease"], items, histories, tmp_path / "top.csv", K, wanted, progress=False)
    has = np.zeros((N_USERS, 2), bool)
    rows, columns = matrix.nonzero()
    for place, item in enumerate((0, 3)):
        has[rows[columns == item], place] = True
    assert told.n_without == has.all(axis=1).sum() > 0 and told.n_rows == (~has).sum()
    assert set(read(tmp_path / "top.csv")["item"]) == set(map(str, NUMBERS[[0, 3]]))
