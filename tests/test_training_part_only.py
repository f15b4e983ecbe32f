"""What a model learns from is the training part of its split and nothing else, whatever the road to it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from model_kinds import of_each_kind

from tfvae.data.splits import LeaveOneOutSettings, leave_one_out, rating_holdout
from tfvae.data.synthetic import synthetic
from tfvae.models import MODELS, model_class
from tfvae.models.gradient import GradientRecommender
from tfvae.training import loop
from tfvae.training.settings import settings_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def splits(tiny_split):
    """A split with a validation part for each kind of model."""
    events = synthetic(n_users=90, n_items=40, n_tastes=4, taste=0.9)
    items = leave_one_out(events, LeaveOneOutSettings(n_negatives=10, min_items_per_user=3)).for_tuning()
    return {"users": tiny_split, "ratings": rating_holdout(events).for_tuning(), "items": items}


def suits(name):
    kind = model_class(name)
    return "ratings" if kind.predicts_ratings else "users" if kind.scores_new_users else "items"


def same(matrix, other):
    return matrix.shape == other.shape and (abs(matrix - other)).nnz == 0


def watching(method, given):
    """The same method, which also notes the matrices that it is given."""

    def watch(self, train, *arguments, **options):
        given.append(train.copy())
        return method(self, train, *arguments, **options)

    return watch


@pytest.mark.parametrize("name", of_each_kind(MODELS))
def test_what_is_given_to_a_model_is_the_training_part(name, splits, tmp_path, monkeypatch):
    split, given = splits[suits(name)], []
    kind = model_class(name)
    members = kind.example_settings["members"] if kind.has_members else [{"model": name}]
    for each in {model_class(member["model"]) for member in members}:
        method = "attach" if issubclass(each, GradientRecommender) else "fit_matrix"
        monkeypatch.setattr(each, method, watching(getattr(each, method), given))
    training = {"epochs": 1, "batch_size": 40, "monitor": "rmse" if kind.predicts_ratings else "ndcg@10"}
    example = {key: value for key, value in kind.example_settings.items() if key not in ("gmf_epochs", "mlp_epochs")}
    settings = settings_of(name, training | example)
    loop.train(settings, split, tmp_path, progress=False, log=[].append)
    assert given and all(same(train, split.train) for train in given)
    for part in (split.validation, split.test):
        if part is not None and suits(name) != "users":
            assert (split.train.toarray()[part.targets.toarray() != 0] == 0).all()


@pytest.mark.parametrize("name", ["mult-vae", "ease", "p-vae", "gmf"])
def test_no_weight_depends_on_what_is_held_out(name, splits, tmp_path):
    split = splits[suits(name)]
    kind = model_class(name)
    if suits(name) == "users":
        others = dataclasses.replace(split, validation=split.test, test=split.validation)
    else:
        others = dataclasses.replace(split, validation=None)
    # Of one epoch, since which of several is the best one does depend on it.
    training = {"epochs": 1, "batch_size": 40, "monitor": "rmse" if kind.predicts_ratings else "ndcg@10"}
    example = {key: value for key, value in kind.example_settings.items() if key != "epochs"}
    one, other = (
        loop.train(settings_of(name, training | example), part, tmp_path / folder, progress=False, log=[].append).model
        for part, folder in ((split, "one"), (others, "other"))
    )
    for first, second in zip(one.weights, other.weights, strict=True):
        np.testing.assert_array_equal(first.numpy(), second.numpy(), err_msg=first.path)
