"""What is known of items as numbers, and zeros for what is not known."""

from __future__ import annotations

import numpy as np

from tfvae.models.metadata import encode_metadata


def column(features, n, name, **given):
    table, names = encode_metadata(features, n, **given)
    return table[:, names.index(name)]


def test_listed_text_has_a_column_for_each_value():
    table, names = encode_metadata({"genres": np.array(["Comedy|Drama", "Drama", "Action"])}, 3)
    assert names == ["genres=Action", "genres=Comedy", "genres=Drama"]
    assert table.tolist() == [[0, 1, 1], [0, 0, 1], [1, 0, 0]] and table.dtype == np.float32


def test_whole_numbers_are_categories_and_broken_ones_are_standardised():
    table, names = encode_metadata({"age": np.array([18, 25, 18]), "price": np.array([1.0, 2.0, 3.0])}, 3)
    assert names == ["age=18", "age=25", "price"]
    np.testing.assert_allclose(table, [[1, 0, -(1.5**0.5)], [0, 1, 0], [1, 0, 1.5**0.5]], rtol=1e-6)


def test_what_is_missing_is_zero_throughout():
    features = {
        "genres": np.array(["Drama", "", "Comedy", ""]),
        "price": np.array([1.0, np.nan, 3.0, np.nan]),
        "weight": np.full(4, np.nan),
    }
    titles = np.array(["Heat (1995)", "", "Alien (1979)", "Untitled"])
    table, names = encode_metadata(features, 4, titles)
    assert names == ["genres=Comedy", "genres=Drama", "price", "weight", "year"]
    assert not table[[1, 3]].any() and np.isfinite(table).all()
    np.testing.assert_allclose(table[[0, 2]], [[0, 1, -1, 0, 1], [1, 0, 1, 0, -1]], rtol=1e-6)


def test_a_column_without_spread_says_nothing():
    assert not column({"price": np.array([2.5, 2.5, np.nan])}, 3, "price").any()


def test_the_year_ends_the_title():
    titles = np.array(["2001: A Space Odyssey (1968)", "1984 (1985) ", "Blade Runner 2049", "(1999) Day"])
    np.testing.assert_allclose(column({}, 4, "year", titles=titles), [-1, 1, 0, 0], rtol=1e-6)


def test_what_names_rather_than_describes_is_left_out():
    names_of = {"zip": np.array([f"z{n}" for n in range(101)]), "kind": np.array([f"k{n % 100}" for n in range(101)])}
    _, names = encode_metadata(names_of, 101)
    assert len(names) == 100 and all(name.startswith("kind=") for name in names)


def test_nothing_known_has_no_columns():
    table, names = encode_metadata({}, 4, np.array(["Heat", "Alien", "", "Up"]))
    assert table.shape == (4, 0) and names == []
