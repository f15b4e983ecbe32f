"""Each raw format, as its makers write it, and what is said of a malformed line."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import pytest

from tfvae.data import formats
from tfvae.system.errors import InputError


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "file", encoding: str = "utf-8") -> Path:
        path = tmp_path / name
        content = text.encode(encoding)
        path.write_bytes(lzma.compress(content) if name.endswith(".xz") else content)
        return path

    return write


def columns(events: formats.RawEvents) -> list:
    return [None if column is None else np.asarray(column).tolist() for column in events]


@pytest.mark.parametrize("ending", ["\n", "\r\n", ""])
def test_double_colon(write, ending):
    path = write("1::1193::5::978300760\n10::0054890::4.5::978302109" + ending, "ratings.dat.xz")
    assert columns(formats.read_double_colon(path)) == [
        [1, 10],
        [1193, 54890],
        [5, 4.5],
        [978300760, 978302109],
    ]


def test_movielens_csv_with_and_without_times(write):
    head, rows = "userId,movieId,rating", ["1,2,3.5", "1,29,4.0"]
    without = write("\n".join([head, *rows]))
    assert columns(formats.read_movielens_csv(without)) == [[1, 1], [2, 29], [3.5, 4], None]
    with_times = write("\n".join([head + ",timestamp", rows[0] + ",1112486027", rows[1] + ",1112484676"]))
    assert columns(formats.read_movielens_csv(with_times))[3] == [1112486027, 1112484676]


def test_tabbed_with_and_without_times(write):
    assert columns(formats.read_tabbed(write("196\t242\t3\t881250949\n"))) == [[196], [242], [3], [881250949]]
    assert columns(formats.read_tabbed(write("0\t32\t4\n0\t34\t4\n"))) == [[0, 0], [32, 34], [4, 4], None]


def test_triplets(write):
    song, other = "SOAKIMP12A8C130995", "SOAPDEY12A81C210A9"
    path = write(f"b80344d0\t{song}\t1\nb80344d0\t{other}\t12\n00000a\t{song}\t2\n")
    users, songs, counts, _ = columns(formats.read_triplets(path))
    assert users == ["b80344d0", "b80344d0", "00000a"]
    assert songs == [song, other, song]
    assert counts == [1, 12, 2]


def test_netflix_combined_and_single_files_agree(write):
    blocks = ["1:\n1488844,3,2005-09-06\n822109,5,2005-05-13\n", "2:\n", "8:\n30878,4,1970-01-02\n"]
    expected = [[1488844, 822109, 30878], [1, 1, 8], [3, 5, 4], [1125964800, 1115942400, 86400]]
    one = write("".join(blocks), "combined_data_1.txt")
    assert columns(formats.read_netflix([one])) == expected
    many = [write(block, f"mv_{number}.txt") for number, block in enumerate(blocks) if "," in block]
    assert columns(formats.read_netflix(many)) == expected


def test_netflix_keeps_blocks_together_over_many_reads(write):
    rng = np.random.default_rng(0)
    movies = np.repeat(np.arange(1, 301), rng.integers(0, 900, 300))
    users = rng.integers(1, 2_649_429, movies.size)
    lines = []
    for movie in range(1, 301):
        lines += [f"{movie}:", *(f"{user},3,2005-09-06" for user in users[movies == movie])]
    path = write("\n".join(lines) + "\n")
    assert path.stat().st_size > 2 * 2**20  # more than one of Arrow's blocks
    found = formats.read_netflix([path])
    np.testing.assert_array_equal(found.items, movies)
    np.testing.assert_array_equal(found.users, users)


def test_ncf_negatives(write):
    users, items, negatives = formats.read_ncf_negatives(write("(0,25)\t1064\t174\n(1,133)\t1072\t3154\n"))
    assert (users.tolist(), items.tolist()) == ([0, 1], [25, 133])
    assert negatives.tolist() == [[1064, 174], [1072, 3154]]


def test_titles_keep_colons_commas_and_accents(write):
    movies = formats.read_movies_dat(write("11::Léon: The Pro (1994)::Crime|Drama\n", encoding="latin-1"), "latin-1")
    assert movies.loc[11].tolist() == ["Léon: The Pro (1994)", "Crime|Drama"]
    movies = formats.read_movies_csv(write('movieId,title,genres\n4,"Heat, and ""Dust""",(no genres listed)\n'))
    assert movies.loc[4].tolist() == ['Heat, and "Dust"', "(no genres listed)"]
    movies = formats.read_netflix_titles(
        write("1,2003,Dinosaur Planet\n72,NULL,At Home, Among Strängers\n", encoding="latin-1")
    )
    assert movies.title.tolist() == ["Dinosaur Planet", "At Home, Among Strängers"]
    np.testing.assert_array_equal(movies.year, [2003, np.nan])
    flags = "|".join("1" if genre in (1, 5) else "0" for genre in range(19))
    movies = formats.read_u_item(write(f"2|GoldenEye (1995)|01-Jan-1995||http://x|{flags}\n"))
    assert movies.loc[2].tolist() == ["GoldenEye (1995)", "Action|Comedy"]


def test_users(write):
    users = formats.read_users_dat(write("1::F::1::10::48067\n2::M::56::16::02460-1\n"))
    assert users.loc[2].tolist() == ["M", 56, 16, "02460-1"]
    users = formats.read_u_user(write("1|24|M|technician|85711\n"))
    assert users.loc[1].tolist() == [24, "M", "technician", "85711"]


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (formats.read_double_colon, "1::2::3::4\n\n1::2::3\n", "line 3: 7 fields expected, 5 found"),
        (formats.read_double_colon, "1::2::3::4\n1:9:2::3::4\n", "line 2: after user '9' is not empty"),
        (formats.read_double_colon, "1::2::3::4\n1::x::3::4\n", "line 2: item 'x' is not a whole number"),
        (formats.read_double_colon, "", "the file is empty"),
        (formats.read_movielens_csv, "userId,movieId\n1,2\n", "no column 'rating'"),
        (formats.read_movielens_csv, "userId,movieId,rating\n1,2,3\n1,2,three\n", "line 3: rating 'three'"),
        (formats.read_tabbed, "1\t2\t3\n1 2 3\n", "line 2: 3 fields expected, 1 found"),
        (formats.read_triplets, "u\ts\t1\nu\t\t1\n", "line 2: item is empty"),
        (
            lambda path: formats.read_netflix([path]),
            "1:\n5,3,2005-09-06\n2:\n5,3\n",
            "line 4: 3 fields expected",
        ),
        (
            lambda path: formats.read_netflix([path]),
            "1:\n5,3,2005-09-06\n2:\n5,3,2005-13-06\n",
            "line 4: date",
        ),
        (
            lambda path: formats.read_netflix([path]),
            "1:\n5,3,2005-09-06\n2:\n5,,2005-09-06\n",
            "line 4: rating is empty",
        ),
        (
            lambda path: formats.read_netflix([path]),
            "5,3,2005-09-06\n1:\n",
            "line 1: expected a movie's number",
        ),
        (formats.read_ncf_negatives, "(0,25)\t1\n(1;2)\t2\n", "line 2: expected a pair"),
        (
            lambda path: formats.read_movies_dat(path, "utf-8"),
            "1::A::B\n2::A\n",
            "line 2: expected a number and 2 more",
        ),
        (formats.read_users_dat, "x::F::1::10::48067\n", "line 1: expected a number"),
    ],
)
def test_a_malformed_line_is_named(read, text, message, write):
    path = write(text)
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_a_damaged_file_is_an_input_error(write, tmp_path):
    path = write("1\t2\t3\n" * 1_000, "u.data.xz")
    path.write_bytes(path.read_bytes()[:-20])
    for read in (formats.read_tabbed, formats.read_triplets):
        with pytest.raises(InputError, match="u.data.xz: cannot be read"):
            read(path)
