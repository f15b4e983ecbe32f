"""Named data sets: every one in its makers' layout, where files are looked for, and the real ones on hand."""

from __future__ import annotations

import dataclasses
import logging
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tfvae.data import sources
from tfvae.data.datasets import DATASETS, default_split, load_dataset, load_ncf
from tfvae.data.splits import LeaveOneOutSettings
from tfvae.system.errors import InputError

ON_HAND = Path(os.environ.get("TFVAE_DATA") or Path(__file__).parents[2] / "shared" / "data")

FILES = {
    "ml-100k": {
        "u.data": "196\t242\t3\t881250949\n186\t302\t3\t891717742\n",
        "u.item": f"242|Kolya (1996)|24-Jan-1997||http://x|{'0|' * 18}1\n",
        "u.user": "186|39|F|executive|00000\n196|49|M|writer|55105\n",
    },
    "ml-1m": {
        "ratings.dat": "1::1193::5::978300760\n1::661::3::978302109\n",
        "movies.dat": "661::James and the Giant Peach (1996)::Animation\n",
        "users.dat": "1::F::1::10::48067\n",
    },
    "ml-10m": {"ratings.dat": "1::122::5::838985046\n1::185::4.5::838983525\n"},
    "ml-20m": {
        "ratings.csv": "userId,movieId,rating,timestamp\n1,2,3.5,1112486027\n1,29,3.5,1112484676\n",
        "movies.csv": 'movieId,title,genres\n2,"Jumanji, the film (1995)",Adventure\n',
    },
    "netflix": {
        "combined_data_1.txt": "1:\n1488844,3,2005-09-06\n",
        "combined_data_2.txt": "4500:\n2532865,4,2005-07-26\n",
        "movie_titles.csv": "1,2003,Dinosaur Planet\n",
    },
    "msd": {"train_triplets.txt": "b80344d0\tSOAKIMP12\t1\nb80344d0\tSOAPDEY12\t2\n"},
    "gowalla": {"train.txt": "0 7\n", "test.txt": "0 9\n"},
    "amazon-book": {"train.txt": "0 9\n1 \n", "test.txt": "0 7\n1 \n"},
    "pinterest": {"pinterest-20.train.rating": "0\t7\t1\n", "pinterest-20.test.rating": "0\t9\t1\n"},
}


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No data on hand and no network, but what the test gives."""
    monkeypatch.delenv("TFVAE_DATA", raising=False)
    monkeypatch.setenv("TFVAE_CACHE", str(tmp_path / "cache"))
    offline = {name: dataclasses.replace(entry, urls=()) for name, entry in DATASETS.items()}
    for name, entry in offline.items():
        monkeypatch.setitem(DATASETS, name, entry)


def place(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def zipped(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(f"{path.stem}/{name}", text)
    return path


@pytest.mark.parametrize("name", FILES)
def test_folder_zip_single_file_and_tfvae_data_agree(name, tmp_path, monkeypatch):
    folder = place(tmp_path / "by hand", FILES[name])
    found = load_dataset(name, folder)
    assert (found.n_events, found.n_items) == (2, 2)
    assert (found.titles is None) == (name in ("ml-10m", "msd", "gowalla", "amazon-book", "pinterest"))
    assert load_dataset(name, zipped(tmp_path / "set.zip", FILES[name])).digest == found.digest
    if name != "netflix":  # its ratings fill several files
        assert load_dataset(name, folder / next(iter(FILES[name]))).digest == found.digest
    monkeypatch.setenv("TFVAE_DATA", str(folder))
    assert load_dataset(name).digest == found.digest
    place(tmp_path / "all" / name, FILES[name])
    monkeypatch.setenv("TFVAE_DATA", str(tmp_path / "all"))
    assert load_dataset(name).digest == found.digest


def test_titles_and_features_are_read(tmp_path):
    found = load_dataset("ml-1m", place(tmp_path, FILES["ml-1m"]))
    assert found.titles.tolist() == ["James and the Giant Peach (1996)", ""]
    assert found.user_features["gender"].tolist() == ["F"]
    found = load_dataset("ml-100k", place(tmp_path, FILES["ml-100k"]))
    assert found.item_features["genres"].tolist() == ["Western", ""]
    assert found.user_features["age"].tolist() == [39, 49]


def test_ml_1m_without_times(tmp_path):
    found = load_dataset("ml-1m", place(tmp_path, {"ratings.csv": "userId,movieId,rating\n1,1,5\n1,48,4\n"}))
    assert found.values.tolist() == [5, 4]
    assert found.timestamps is None


def test_netflix_keeps_the_order_of_its_files(tmp_path):
    found = load_dataset("netflix", place(tmp_path / "a", FILES["netflix"]))
    users, items = found.users, found.items
    assert found.user_ids[users].tolist() == [1488844, 2532865]
    assert found.item_ids[items].tolist() == [1, 4500]
    old = {"mv_0000001.txt": "1:\n7,3,2005-09-06\n", "mv_0000002.txt": "2:\n6,3,2005-09-06\n"}
    place(tmp_path / "b" / "training_set", old)
    found = load_dataset("netflix", tmp_path / "b")
    assert found.user_ids[found.users].tolist() == [7, 6]


def test_a_part_of_a_data_set_is_said_to_be_one(tmp_path, caplog):
    load_dataset("ml-20m", place(tmp_path, FILES["ml-20m"]))
    assert "MovieLens-20M has 20,000,263 events, found 2" in caplog.text


@pytest.mark.parametrize("name", sorted(set(FILES) | {"ncf-ml-1m", "ncf-pinterest"}))
def test_what_is_missing_says_where_to_ask_and_what_to_place_where(name, tmp_path):
    load = load_ncf if name.startswith("ncf") else load_dataset
    with pytest.raises(InputError, match=rf"(https?://|\.com/).*TFVAE_DATA/{name}, or give its path"):
        load(name)
    with pytest.raises(InputError, match="no .* there"):
        load(name, tmp_path)


def test_download_is_used_last_and_checked(tmp_path, monkeypatch):
    served = zipped(tmp_path / "ml-1m.zip", FILES["ml-1m"])
    asked = []

    def download(urls, checksum, file_name):
        asked.append((urls, checksum, file_name))
        return served

    monkeypatch.setattr(sources, "download", download)
    entry = dataclasses.replace(DATASETS["ml-1m"], urls=("https://a/ml-1m.zip", "https://b/ml-1m.zip"))
    monkeypatch.setitem(DATASETS, "ml-1m", entry)
    assert load_dataset("ml-1m").n_events == 2
    assert asked == [(entry.urls, "md5:c4d9eecfca2ab87c1945afe126590906", "ml-1m.zip")]
    load_dataset("ml-1m", place(tmp_path / "here", FILES["ml-1m"]))
    assert len(asked) == 1


def test_unknown_and_already_split_names():
    with pytest.raises(InputError, match="unknown data set 'ml-2m'"):
        load_dataset("ml-2m")
    with pytest.raises(InputError, match="load_ncf"):
        load_dataset("ncf-ml-1m")
    with pytest.raises(InputError, match="unknown NCF data set 'ml-1m'; did you mean 'ncf-ml-1m'"):
        load_ncf("ml-1m")
    with pytest.raises(InputError, match="already split"):
        default_split("ncf-ml-1m")


@pytest.mark.parametrize(
    ("name", "min_rating", "users_per_item", "items_per_user", "held_out"),
    [
        ("ml-20m", 4, 0, 5, 10_000),
        ("netflix", 4, 0, 5, 40_000),
        ("msd", None, 200, 20, 50_000),
        ("ml-10m", 4, 0, 5, 5_000),
        ("ml-1m", 4, 0, 5, 1_000),
        ("ml-100k", 4, 0, 5, 100),
        ("movietweetings", 7, 5, 5, 500),
        ("gowalla", None, 0, 5, 3_000),
        ("amazon-book", None, 0, 5, 7_000),
        ("pinterest", None, 0, 5, 5_500),
    ],
)
def test_settings_of_the_papers(name, min_rating, users_per_item, items_per_user, held_out):
    found = default_split(name)
    assert found.min_rating == min_rating
    assert (found.min_users_per_item, found.min_items_per_user) == (users_per_item, items_per_user)
    assert (found.held_out_users, found.holdout_fraction, found.seed) == (held_out, 0.2, 98765)


def test_synthetic_takes_its_options():
    assert load_dataset("synthetic", n_users=30, n_items=20, n_events=90).n_events == 90
    assert default_split("synthetic", n_users=30).held_out_users == 3
    assert default_split("synthetic").held_out_users * 10 == load_dataset("synthetic").n_users


NCF = {
    "ml-1m.train.rating": "0\t3\t5\t97\n0\t1\t4\t98\n1\t3\t5\t99\n1\t5\t5\t99\n",
    "ml-1m.test.rating": "0\t2\t5\t97\n1\t1\t4\t98\n2\t0\t3\t99\n",
    "ml-1m.test.negative": "(0,2)\t0\t4\n(1,1)\t2\t0\n(2,0)\t1\t2\n",
}


def test_ncf_with_its_own_negatives(tmp_path, caplog):
    split = load_ncf("ncf-ml-1m", place(tmp_path, NCF))
    assert split.item_ids[split.test.items].tolist() == [2, 1]
    assert split.item_ids[split.test.negatives].tolist() == [[0, 4], [2, 0]]
    assert split.item_ids[split.train.indices].tolist() == [1, 3, 3, 5]
    assert "1 of 3 test users have no training events" in caplog.text


def test_ncf_without_negatives_draws_them_and_says_so(tmp_path, caplog):
    files = {name: text for name, text in NCF.items() if "negative" not in name}
    split = load_ncf("ncf-ml-1m", place(tmp_path, files), LeaveOneOutSettings(n_negatives=1))
    assert split.test.negatives.shape == (2, 1)
    assert "negatives are drawn" in caplog.text


def test_ncf_files_that_do_not_belong_together(tmp_path):
    other = NCF | {"ml-1m.test.negative": "(0,2)\t0\t4\n(1,3)\t2\t5\n(2,0)\t1\t2\n"}
    with pytest.raises(InputError, match=r"test.negative: its \(user,item\) pairs are not those of"):
        load_ncf("ncf-ml-1m", place(tmp_path, other))
    with pytest.raises(InputError, match="user 1 of the training file has no test item"):
        load_ncf("ncf-ml-1m", place(tmp_path, NCF | {"ml-1m.test.rating": "0\t2\t5\t97\n"}))
    (tmp_path / "ml-1m.test.rating").unlink()
    with pytest.raises(InputError, match="no test file beside"):
        load_ncf("ncf-ml-1m", tmp_path)


def test_movietweetings_is_embedded(caplog):
    found = load_dataset("movietweetings")
    assert (found.n_events, found.n_users, found.n_items) == (141_695, 21_081, 12_611)
    assert found.titles[found.item_ids == 110912].tolist() == ["Pulp Fiction (1994)"]
    assert (found.titles != "").all()
    assert (found.values.min(), found.values.max()) == (0, 10)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


needs = {
    name: pytest.mark.skipif(not (ON_HAND / path).is_file(), reason=f"{path} is not in {ON_HAND}")
    for name, path in {
        "ml-1m": "ml-1m/ratings.csv.xz",
        "ncf-ml-1m": "ml-1m/ml-1m.train.rating.xz",
        "ncf-pinterest": "pinterest-20/pinterest-20.train.rating.xz",
    }.items()
}


@needs["ml-1m"]
def test_real_ml_1m():
    found = load_dataset("ml-1m", ON_HAND)
    assert (found.n_events, found.n_users, found.n_items) == (1_000_209, 6_040, 3_706)
    assert np.bincount(found.values.astype(int)).tolist() == [0, 56_174, 107_557, 261_197, 348_971, 226_310]
    assert (found.titles != "").all()
    assert found.user_features["gender"][:3].tolist() == ["F", "M", "M"]


@needs["ncf-ml-1m"]
def test_real_ncf_ml_1m():
    split = load_ncf("ncf-ml-1m", ON_HAND)
    assert split.train.shape == (6_040, 3_706)
    assert split.train.nnz == 994_169
    assert split.test.negatives.shape == (6_040, 99)
    assert split.counts["users_with_test_item_among_negatives"] == 156
    assert split.counts["negatives_met_in_training"] == 0


@pytest.mark.slow
@needs["ncf-pinterest"]
def test_real_ncf_pinterest_is_partial_and_says_so(caplog):
    split = load_ncf("ncf-pinterest", ON_HAND)
    assert split.train.nnz == 962_653
    assert split.test.negatives.shape == (37_501, 99)
    assert "17,686 of 55,187 test users" in caplog.text
