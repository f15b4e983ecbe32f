"""Baselines on the papers' data: no chance is involved, so the published digits must come out.

The values for ML-20M, Netflix and MSD are the printed outputs of `benchmark_summary.ipynb` in
moritzp23/ModsemCollaborativeFiltering, on the official splits; those for NCF's files are from
MaurizioFD/RecSys2019_DeepLearning_Evaluation; that for Gowalla is from the log of reczoo/BARS, benchmark
EASE_gowalla_m1. If popularity is wrong, the split or the metric is; if only EASE is wrong, the solver is. The data are
looked for in `TFVAE_DATA`, then in `../shared/data`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tfvae.data.datasets import DATASETS, default_split, load_dataset, load_ncf, load_parts
from tfvae.data.sources import look_in
from tfvae.data.splits import strong_generalization
from tfvae.evaluation.evaluate import evaluate
from tfvae.models.ease import EASE
from tfvae.models.popularity import Popularity
from tfvae.system.errors import TooLargeError

pytestmark = pytest.mark.slow

FOLDER = Path(os.environ.get("TFVAE_DATA") or Path(__file__).parents[2] / "shared" / "data")
METRICS = ("recall@20", "recall@50", "ndcg@100")
SHAPES = {"ml-20m": (116_677, 20_108), "netflix": (383_435, 17_769), "msd": (471_355, 41_140)}
POPULARITY = {
    "ml-20m": (0.16179511, 0.23519126, 0.19055265),
    "netflix": (0.11618164, 0.17488988, 0.15873620),
    "msd": (0.04266630, 0.06805783, 0.05821317),
}
EASE_LAMBDA = {"ml-20m": 500.0, "netflix": 1000.0, "msd": 200.0}
EASE_EXPECTED = {
    "ml-20m": (0.39131993, 0.52106872, 0.42026324),
    "netflix": (0.36165655, 0.44509100, 0.39336181),
    "msd": (0.33316524, 0.42811850, 0.38934380),
}


def skip_if_absent(name):
    if look_in(FOLDER, DATASETS[name].folders, DATASETS[name].files) is None:
        pytest.skip(f"{name} is not in {FOLDER}; {DATASETS[name].how_to_get}")


@pytest.fixture(scope="module", params=sorted(SHAPES))
def official(request):
    """A data set's name and its official split."""
    name = request.param
    skip_if_absent(name)
    return name, strong_generalization(load_dataset(name, source=FOLDER), default_split(name))


def measured(model, split):
    model.fit_matrix(split.train)
    result = evaluate(model, split.test, METRICS)
    assert result.n_without_targets == 0
    return [result.mean(metric) for metric in METRICS]


def test_popularity(official):
    name, split = official
    assert split.train.shape == SHAPES[name]
    # Items of equal count may change places between implementations.
    assert measured(Popularity(split.n_items), split) == pytest.approx(POPULARITY[name], abs=1e-4)


def test_ease(official):
    name, split = official
    try:
        model = EASE(split.n_items, regularization=EASE_LAMBDA[name])
        found = measured(model, split)
    except TooLargeError as error:
        pytest.skip(str(error))
    assert found == pytest.approx(EASE_EXPECTED[name], abs=1e-5)


def test_popularity_on_the_files_of_ncf():
    skip_if_absent("ncf-ml-1m")
    split = load_ncf("ncf-ml-1m", source=FOLDER)
    model = Popularity(split.n_items)
    model.fit_matrix(split.train)
    result = evaluate(model, split.test)
    assert result.n_users == 6040
    # Three users in 6,040: the published code may rank items of equal count either way.
    assert result.mean("hr@10") == pytest.approx(0.4531, abs=5e-4)
    assert result.mean("ndcg@10") == pytest.approx(0.2542, abs=5e-4)


@pytest.mark.long
def test_ease_on_gowalla_as_graph_models_are_compared():
    """14 GB of memory for 40,981 items, and a quarter of an hour or more on two cores."""
    skip_if_absent("gowalla")
    split = load_parts("gowalla", source=FOLDER)
    assert split.train.shape == (29_858, 40_981)
    try:
        model = EASE(split.n_items, regularization=80.0)
        model.fit_matrix(split.train)
    except TooLargeError as error:
        pytest.skip(str(error))
    metrics = ("uncapped-recall@20", "ndcg@20", "uncapped-recall@50", "ndcg@50", "hr@20", "hr@50")
    found = evaluate(model, split.test, metrics)
    expected = (0.176493, 0.146657, 0.270126, 0.175974, 0.572677, 0.708051)
    assert [found.mean(name) for name in metrics] == pytest.approx(expected, abs=5e-6)
