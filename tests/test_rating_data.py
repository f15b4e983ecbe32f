"""Ratings that are not what they should be, and what a rating is predicted from when nothing is known."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from tfvae.data.catalogue import DATASETS
from tfvae.data.datasets import load_dataset
from tfvae.data.interactions import Interactions
from tfvae.data.open_split import open_split, whereabouts
from tfvae.data.splits import HeldOutRatings, RatingHoldoutSettings, load_split, rating_holdout
from tfvae.evaluation.evaluate import evaluate
from tfvae.evaluation.ratings import bounded
from tfvae.experiments.definitions import load_table
from tfvae.experiments.protocols import splits_of
from tfvae.models.pmf import BiasMF
from tfvae.system.errors import InputError

DATA = Path(os.environ.get("TFVAE_DATA") or Path(__file__).parents[2] / "shared" / "data")


def some_ratings(**changed) -> Interactions:
    """30 users with names, each with ratings 1 to 5 of 8 of 12 items; two of them changed, where asked."""
    generator = np.random.default_rng(0)
    users = np.repeat([f"u{number:02d}" for number in range(30)], 8)
    items = np.concatenate([generator.choice(12, 8, replace=False) for _ in range(30)]) + 100
    values = generator.integers(1, 6, 240).astype(float)
    values[[17, 200]] = changed.get("values", values[[17, 200]])
    order = generator.permutation(240)  # so that the file is not sorted by user
    return Interactions.from_events(users[order], items[order], values[order])


def test_a_rating_off_the_scale_is_named():
    interactions = some_ratings(values=[7.5, 0])
    with pytest.raises(InputError, match=r"from 1 to 5, found 7\.5 by user u02 for item 1\d\d \(2 such in all\)"):
        rating_holdout(interactions, RatingHoldoutSettings(scale=(1, 5)))
    with pytest.raises(InputError, match=r"from 1 to 7\.5, found 0 by user u25 for item 1\d\d \(1 such in all\)"):
        rating_holdout(interactions, RatingHoldoutSettings(scale=(1, 7.5)))
    split = rating_holdout(interactions, RatingHoldoutSettings(scale=(0, 7.5)))
    assert split.train.nnz + split.test.targets.nnz == 240


def test_the_scale_is_a_check_and_cuts_nothing(tmp_path):
    plain, checked = (rating_holdout(some_ratings(), RatingHoldoutSettings(scale=scale)) for scale in (None, (0, 9)))
    assert plain.digest == checked.digest and (plain.train != checked.train).nnz == 0
    assert (plain.scale, checked.scale) == ((1, 5), (0, 9))
    assert checked.by_items().scale == checked.for_tuning().scale == load_split(checked.save(tmp_path)).scale == (0, 9)


@pytest.mark.parametrize("scale", [(5, 1), (3, 3), (1,), "1-5"])
def test_a_scale_is_two_ascending_numbers(scale):
    with pytest.raises(ValueError, match="scale"):
        RatingHoldoutSettings(scale=scale)


@pytest.mark.parametrize("name", ["movietweetings", "synthetic", "ml-100k", "ml-1m"])
def test_the_scales_of_the_catalogue_are_those_of_the_data(name, monkeypatch):
    if DATA.is_dir():
        monkeypatch.setenv("TFVAE_DATA", str(DATA))
    if whereabouts(name) is None:
        pytest.skip(f"{name} is not on this machine")
    values = load_dataset(name).values
    assert (values.min(), values.max()) == DATASETS[name].scale


def test_every_data_set_of_ratings_has_a_scale():
    with_ratings = {name for name, entry in DATASETS.items() if "rating-holdout" in entry.protocols}
    assert with_ratings == {name for name, entry in DATASETS.items() if entry.scale}


def test_named_data_sets_are_checked_wherever_they_are_cut(tmp_path):
    lines = [f"{user}::{item}::{1 + (user + item) % 5}::0" for user in range(9) for item in range(9)]
    (tmp_path / "ratings.dat").write_text("\n".join([*lines, "9::4::6::0"]))
    message = "from 1 to 5, found 6 by user 9 for item 4"
    with pytest.raises(InputError, match=message):
        open_split("ml-1m", source=tmp_path, protocol="rating-holdout")
    splits = splits_of(load_table("pvae-table1"), "ml-1m", tmp_path)
    with pytest.raises(InputError, match=message):
        splits(1, "users")


def test_ratings_that_are_all_alike_are_refused(tmp_path):
    (tmp_path / "likes.csv").write_text("user,item,liked\n" + "".join(f"{n},{n % 3},1\n" for n in range(20)))
    with pytest.raises(InputError, match="likes.csv: expected ratings that differ, found 1 throughout"):
        open_split(tmp_path / "likes.csv", columns={"rating": "liked"}, protocol="rating-holdout")


def test_a_test_rating_that_is_told_is_refused():
    told = csr_array(np.float32([[1, 0, 2], [0, 3, 0]]))
    HeldOutRatings(told, csr_array(np.float32([[0, 4, 0], [0, 0, 5]])), np.arange(2))
    with pytest.raises(InputError, match="1 ratings are both told and to be predicted"):
        HeldOutRatings(told, csr_array(np.float32([[0, 4, 2], [0, 0, 5]])), np.arange(2))
    with pytest.raises(InputError, match="one shape"):
        HeldOutRatings(told, csr_array(np.float32([[0, 4, 0]])), np.arange(2))


def test_without_a_training_rating_the_middle_of_the_scale_is_predicted():
    told = csr_array(np.float32([[1, 0, 0], [0, 4, 0], [0, 0, 0]]))  # nobody rated column 2, row 2 rated nothing
    rows, columns = np.array([0, 0, 1, 2, 0, 1]), np.array([1, 2, 2, 0, 1, 0])
    found = bounded(np.array([3.2, 3.2, 9, -9, 9, -9]), told, rows, columns)
    assert found.tolist() == [3.2, 2.5, 2.5, 2.5, 4, 1]


def test_users_and_items_without_a_training_rating_are_evaluated():
    told = csr_array(np.float32([[1, 5, 0, 0], [5, 1, 0, 0], [0, 0, 0, 0]]))
    asked = csr_array(np.float32([[0, 0, 4, 0], [0, 0, 0, 2], [3, 0, 0, 0]]))
    model = BiasMF(4, factors=2)
    model.fit_matrix(told, lambda line: None)
    measured = evaluate(model, HeldOutRatings(told, asked, np.arange(3)))
    assert measured.predicted.tolist() == [3, 3, 3]  # the middle of 1 and 5
    assert measured.mean("mae") == pytest.approx(2 / 3)
