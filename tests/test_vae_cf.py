"""The authors' folder layout: byte for byte, round trips, their own files, and bad folders."""

from __future__ import annotations

import hashlib
import lzma
import os
from pathlib import Path

import numpy as np
import pytest

from tfvae.data.interactions import Interactions
from tfvae.data.splits import StrongGeneralization, StrongGeneralizationSettings, strong_generalization
from tfvae.data.vae_cf import FILES, read_events, read_item_ids, read_vae_cf, write_vae_cf
from tfvae.system.errors import InputError
from tfvae.system.files import sha256_of

DATA = Path(os.environ.get("TFVAE_DATA") or Path(__file__).parents[2] / "shared" / "data")
GOLDEN = DATA / "ml-20m-golden"

# Of the files that the steps of the authors' notebook, followed with pandas, make of `ratings(layout)`.
NOTEBOOK = {
    "user by user": {
        "train.csv": "9c54cdc17d674106f206e72072367af4d3659707238f63ccfc0358d9395a5383",
        "validation_tr.csv": "67af7333009c900c7f7c8dc3c45e5b6d6475ab1c02a130b6b27c0e7a9ac5aa6c",
        "validation_te.csv": "3db4e8f290fab7e26bbe37c2b3aecd85dcb3f528d5c758f87c747aa2d11a65a8",
        "test_tr.csv": "127ec4275a7ec32124bd8293c06dcfbf1b792cbb2c4838bdd83edc9b5bb84c35",
        "test_te.csv": "9478fa93ed98044664526fd40b34c564b483f878904b6e2b574f9c497617755b",
        "unique_sid.txt": "a843e367a2f2908cae1153f0c9ab51be21627d9617511a2cbed846d9626c56f5",
    },
    "movie by movie": {
        "train.csv": "238faaa080b87c206e6fa442a4e136dfd906a1a7164fc93bcdba29137b95ccbc",
        "validation_tr.csv": "65e9abd1f3a20b5f71efb37ae131c79a5fb123d5fd2179699215ea4c4cf939df",
        "validation_te.csv": "80949fcec9eef56a5092898609e7de9a13744ed056630ecb46f811a254bf444e",
        "test_tr.csv": "c5d51e8acf8ed8130286be27b7aef855fbca93156ff1ec8c232ced32b488a6c5",
        "test_te.csv": "e8012a8dd0fd9bb4664fe4b42885496ea2c12e002b8f352d011207e883b492e7",
        "unique_sid.txt": "eff7da1544bbe41bb9e718d6bcfb3fdc46e3e95ee6ba4a7eb64dca8ab1793150",
    },
    "strings": {
        "train.csv": "e3870c1f761cc18b114a0962c2f18475371801948094926f144df8e715651ee8",
        "validation_tr.csv": "66cf30c3b2aa4cd3576d829afcf6fd0c4f38f9bf5c581738e7e8881a263fc029",
        "validation_te.csv": "c068349bc0e55b96e048747679243185ba3c93a573432b67158c7d7308bd908c",
        "test_tr.csv": "a3069defd969ce4b5ee817c44f525d40f41afe28128b98d393b08a8e33005d36",
        "test_te.csv": "6a1816b373dfaee32b35c08d45f0666728aff2f09073a0effe39cee6239466ed",
        "unique_sid.txt": "e3104411a176af2fd61f89b4f76d38fbda60bce08ab87c918ad5d2555fbf08a1",
    },
}
SETTINGS = dict.fromkeys(
    ("user by user", "movie by movie"), StrongGeneralizationSettings(min_rating=4, held_out_users=18)
)
SETTINGS["strings"] = StrongGeneralizationSettings(min_users_per_item=12, min_items_per_user=20, held_out_users=12)


def ratings(layout: str) -> str:
    """A file like ML-20M's: ids with gaps, users and their items in no order, small users, rare movies.

    It is laid out like ML-20M, like Netflix (movie by movie), or with text for user ids like MSD.
    """
    random = np.random.RandomState(3)
    events = []
    for number in random.permutation(80).tolist():
        popular = random.randint(60, size=(2, random.randint(1, 90))).prod(axis=0) // 25
        for movie in dict.fromkeys(popular.tolist()):
            rating = random.randint(1, 11) / 2
            user = 7 + 11 * number + number % 4
            events.append((user, 2 + 5 * movie, rating, 10**9 + random.randint(10**6)))
    if layout == "movie by movie":
        events.sort(key=lambda event: event[1] * 7919 % 1009)
    prefix = "user" if layout == "strings" else ""
    lines = (f"{prefix}{user},{movie},{rating},{time}\n" for user, movie, rating, time in events)
    return "userId,movieId,rating,timestamp\n" + "".join(lines)


def split_of(layout: str, folder: Path) -> StrongGeneralization:
    path = folder / "ratings.csv"
    path.write_text(ratings(layout), encoding="utf-8")
    interactions = Interactions.from_csv(path, user="userId", item="movieId", rating="rating", timestamp="timestamp")
    return strong_generalization(interactions, SETTINGS[layout])


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder by hand: 2 training users, 2 for validation, 2 for test; user 5 has no targets."""
    made = tmp_path / "pro_sg"
    made.mkdir()
    contents = {
        "train.csv": "uid,sid\n1,0\n0,1\n0,0\n1,2\n",
        "validation_tr.csv": "uid,sid\n3,0\n2,2\n",
        "validation_te.csv": "uid,sid\n3,1\n2,1\n",
        "test_tr.csv": "uid,sid\n4,0\n5,2\n",
        "test_te.csv": "uid,sid\n4,2\n",
        "unique_sid.txt": "50\n7\n90\n",
    }
    for name, text in contents.items():
        (made / name).write_text(text, encoding="utf-8")
    return made


@pytest.mark.parametrize("layout", NOTEBOOK)
def test_written_files_equal_the_notebooks_byte_for_byte(layout, tmp_path):
    write_vae_cf(split_of(layout, tmp_path), tmp_path / "pro_sg")
    assert hashes(tmp_path / "pro_sg") == NOTEBOOK[layout]


@pytest.mark.parametrize("layout", NOTEBOOK)
def test_reading_gives_the_arrays_that_were_written(layout, tmp_path):
    ours = split_of(layout, tmp_path)
    write_vae_cf(ours, tmp_path / "pro_sg")
    theirs = read_vae_cf(tmp_path / "pro_sg")
    for of_split in (
        lambda split: split.train,
        lambda split: split.validation.history,
        lambda split: split.validation.targets,
        lambda split: split.test.history,
        lambda split: split.test.targets,
    ):
        a, b = of_split(ours), of_split(theirs)
        assert a.shape == b.shape
        for part in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(getattr(a, part), getattr(b, part))
            assert getattr(a, part).dtype == getattr(b, part).dtype
    np.testing.assert_array_equal(ours.item_ids, theirs.item_ids)
    assert theirs.settings is None
    kept = [name for name in theirs.counts if name not in ("events", "items", "density")]
    assert {name: theirs.counts[name] for name in kept} == {name: ours.counts[name] for name in kept}


def test_what_was_read_or_loaded_is_written_as_it_was(tmp_path):
    split_of("movie by movie", tmp_path).save(tmp_path / "split.npz")
    write_vae_cf(StrongGeneralization.load(tmp_path / "split.npz"), tmp_path / "a")
    write_vae_cf(read_vae_cf(tmp_path / "a"), tmp_path / "b")
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b") == NOTEBOOK["movie by movie"]


def test_a_folder_by_hand(folder):
    split = read_vae_cf(folder)
    np.testing.assert_array_equal(split.train.toarray(), [[1, 1, 0], [1, 0, 1]])
    np.testing.assert_array_equal(split.validation.history.toarray(), [[0, 0, 1], [1, 0, 0]])
    np.testing.assert_array_equal(split.validation.targets.toarray(), [[0, 1, 0], [0, 1, 0]])
    np.testing.assert_array_equal(split.test.history.toarray(), [[1, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(split.test.targets.toarray(), [[0, 0, 1], [0, 0, 0]])
    np.testing.assert_array_equal(split.item_ids, [50, 7, 90])
    np.testing.assert_array_equal(split.test.user_ids, [4, 5])
    assert split.counts["test_users_without_targets"] == 1
    assert split.counts["events"] == 11


def test_a_user_without_any_event_keeps_a_row(folder):
    # Both groups are equally large: uid 4, of whom nothing is left, can only be the third of validation.
    (folder / "test_tr.csv").write_text("uid,sid\n5,0\n7,2\n")
    (folder / "test_te.csv").write_text("uid,sid\n5,2\n")
    split = read_vae_cf(folder)
    assert split.validation.user_ids.tolist() == [2, 3, 4]
    assert split.test.user_ids.tolist() == [5, 6, 7]
    assert split.validation.history.indptr.tolist() == [0, 1, 2, 2]
    assert split.test.history.indptr.tolist() == [0, 1, 1, 2]


def test_groups_of_unequal_size_are_read(folder):
    (folder / "test_tr.csv").write_text("uid,sid\n4,0\n8,2\n")
    split = read_vae_cf(folder)
    assert split.validation.user_ids.tolist() == [2, 3]
    assert split.test.user_ids.tolist() == [4, 5, 6, 7, 8]


def test_an_event_that_comes_twice_counts_once(folder, caplog):
    (folder / "train.csv").write_text("uid,sid\n1,0\n0,1\n1,0\n1,2\n")
    split = read_vae_cf(folder)
    np.testing.assert_array_equal(split.train.toarray(), [[0, 1, 0], [1, 0, 1]])
    assert "train.csv" in caplog.text and "1 events" in caplog.text


def test_digest_follows_the_files(folder):
    before = read_vae_cf(folder).digest
    assert before == read_vae_cf(folder).digest
    (folder / "unique_sid.txt").write_text("50\n7\n91\n")
    assert before != read_vae_cf(folder).digest


def test_ids_that_are_not_plain_numbers_stay_text(tmp_path):
    for text, expected in (("7\n-3\n", [7, -3]), ("007\n3\n", ["007", "3"]), ("SOABC\n7\n", ["SOABC", "7"])):
        (tmp_path / "unique_sid.txt").write_text(text)
        assert read_item_ids(tmp_path / "unique_sid.txt").tolist() == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train.csv", "user,sid\n1,0\n", r"train\.csv.*'uid'"),
        ("train.csv", "uid,sid\n0,0\n1,x\n", r"train\.csv, line 3.*sid"),
        ("train.csv", "uid,sid\n0,0\n1,\n", r"train\.csv, line 3.*sid"),
        ("train.csv", "uid,sid\n0,0\n1,3\n", r"train\.csv, line 3: expected sid from 0 to 2, found 3"),
        ("train.csv", "uid,sid\n0,0\n-1,1\n", r"train\.csv, line 3: expected uid .* found -1"),
        ("validation_te.csv", "uid,sid\n2,1\n1,0\n", r"validation_te\.csv, line 3: .* training users"),
        ("test_tr.csv", "uid,sid\n4,1\n5,0\n3,2\n", r"test_tr\.csv, line 4: .* validation users"),
        (
            "test_te.csv",
            "uid,sid\n4,0\n",
            r"test_tr\.csv and test_te\.csv: 1 events are both fold-in and target",
        ),
        ("test_te.csv", "uid,sid\n", r"test_te\.csv: no data lines"),
        ("unique_sid.txt", "50\n7\n50\n", r"unique_sid\.txt, line 3.*'50'"),
        ("unique_sid.txt", "50\n\n90\n", r"unique_sid\.txt, line 2"),
        ("unique_sid.txt", "", r"unique_sid\.txt.*empty"),
    ],
)
def test_bad_files_are_named_with_the_line(folder, name, text, message):
    (folder / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_vae_cf(folder)


def test_missing_files_are_named(folder):
    (folder / "test_te.csv").unlink()
    with pytest.raises(InputError, match=r"found no test_te\.csv"):
        read_vae_cf(folder)


def test_writing_replaces_nothing(folder, tmp_path):
    split = read_vae_cf(folder)
    before = hashes(folder)
    write_vae_cf(split, folder)
    assert hashes(folder) == before
    train = (folder / "train.csv").read_bytes()
    (folder / "train.csv").write_text("another's")
    with pytest.raises(InputError, match=r"train\.csv is of another split"):
        write_vae_cf(split, folder)
    assert (folder / "train.csv").read_text() == "another's"
    (folder / "train.csv").write_bytes(train)
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        write_vae_cf(split, folder)
    with pytest.raises(InputError, match="found a file"):
        write_vae_cf(split, folder / "train.csv")
    assert (folder / "thesis.tex").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pro_sg"]
    assert sorted(before) == sorted(FILES)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the authors' ML-20M files (ml-20m-golden) are not here")
@pytest.mark.parametrize(
    ("name", "digest", "sorted_digest", "first_uid", "rows", "uids", "sids", "distinct", "most", "head"),
    [
        (
            "validation_te",
            "bec3f6dfbe876ec2224e98458ffe2ff74c453ef1894644757c1e3ca747a26adf",
            "5398441d561cc2160c149b63dde6f763dd4550a2a30b2a318ddc502955a51888",
            *(116_677, 142_514, 17_343_909_141, 198_416_639, 7_915, 342),
            [(123737, 3), (123737, 135), (120983, 126), (120983, 272), (120983, 245)],
        ),
        (
            "test_te",
            "df4a9ddc77c79bab4a581adec7ff1487de146d47b42c35c393696842252435c2",
            "a9666cfc85633a21ee1cce9e26dc3b07924507b4168776094aaf059da17007db",
            *(126_677, 139_775, 18_402_004_826, 196_622_223, 7_999, 475),
            [(134677, 239), (134677, 504), (134677, 367), (128041, 125), (128041, 235)],
        ),
    ],
)
def test_the_authors_ml20m_targets(name, digest, sorted_digest, first_uid, rows, uids, sids, distinct, most, head):
    path = GOLDEN / f"{name}.csv.xz"
    assert hashlib.sha256(lzma.open(path).read()).hexdigest() == digest
    uid, sid = read_events(path, 20_108)
    assert (uid.size, uid.sum(), sid.sum()) == (rows, uids, sids)
    assert list(zip(uid[:5].tolist(), sid[:5].tolist(), strict=True)) == head
    assert np.unique(sid).size == distinct
    pairs = "\n".join(f"{u},{s}" for u, s in sorted(zip(uid.tolist(), sid.tolist(), strict=True)))
    assert hashlib.sha256(pairs.encode()).hexdigest() == sorted_digest
    per_user = np.bincount(uid - first_uid)
    assert (per_user.size, per_user.min(), per_user.max()) == (10_000, 1, most)

    # Users come in the order of their original ids, whose ranks the permutation of the split gives.
    ranks = np.random.RandomState(98765).permutation(136_677)[uid]
    assert (np.diff(ranks) >= 0).all()


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the authors' ML-20M files (ml-20m-golden) are not here")
def test_the_authors_ml20m_items():
    path = GOLDEN / "unique_sid.txt.xz"
    digest = "b9f95107e156c2feaf78439ae302001abf13bdb480aeedcb0e4d8382f2f8b76f"
    assert hashlib.sha256(lzma.open(path).read()).hexdigest() == digest
    ids = read_item_ids(path)
    assert (ids.size, ids.sum(), ids.max()) == (20_108, 926_891_711, 131_262)
    assert ids[:10].tolist() == [151, 223, 253, 260, 293, 296, 318, 541, 1036, 1079]
    assert ids[-5:].tolist() == [71458, 87392, 95615, 110167, 110510]
