"""Every model of the registry on data with other items and users: it keeps what it knows, is solved anew or refused."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from scipy.sparse import csr_array

from tfvae.models import MODELS, model_class
from tfvae.models.gradient import GradientRecommender
from tfvae.nn.batches import RowStore
from tfvae.system.errors import InputError
from tfvae.training.loop import prepare_to_fit
from tfvae.training.settings import settings_of
from tfvae.training.warm_start import WarmStart, layouts, refuse_other_shapes, warm_started

REFUSED = {
    "llorma": "drawn from the training data",
    "ensemble": "Retrain each of its members",
    "rating-ensemble": "Retrain each of its members",
}
BY_GRADIENT = [name for name in MODELS if issubclass(model_class(name), GradientRecommender) and name not in REFUSED]
# Others in the test have all of their parts.
LIKE_OTHERS = {"mult-dae", "evcf-mult-vae", "vamp", "h-vamp", "ract", "autorec", "p-vae", "gmf", "mlp", "meld"}
OTHERS = {
    "p-vae": {"metadata": False},
    "cdae": {"user_node": "mean"},
    "meld": {"experts": ["logistic", "square", "variational"]},
}
WHOLE_CATALOGUE = ("meld",)  # whose scores depend on which other items there are
ALL_USERS = ("cdae", "two-sided-p-vae")  # whose scores depend on who else is there
FORMER_ITEMS, PRESENT_ITEMS = np.arange(12) * 10, np.array([110, 7, 30, 0, 50, 8, 20, 100, 40, 60, 70, 90])
FORMER_USERS, PRESENT_USERS = np.arange(8), np.array([5, 99, 3, 1, 0, 7, 2, 4, 6])
SHORTER = "the weights of mult-vae have other shapes than with the former run's latent_dim=200"


def example(name, **changes):
    return settings_of(name, model_class(name).example_settings | OTHERS.get(name, {}) | changes)


def prepared(settings, events, item_ids, user_ids):
    """An untrained model with training rows, and the part of a split that it needs."""
    matrix = csr_array(events)
    split = SimpleNamespace(train=matrix, item_ids=item_ids, user_ids=user_ids, scale=(1.0, 5.0))
    model = settings.build(len(item_ids), len(user_ids))
    prepare_to_fit(model, split, 0.01, settings.training.optimizer)
    return model, split


def events_of(users, items, rates):
    """A rating of each pair whose ids say so, or a one."""
    users, items = np.meshgrid(users, items, indexing="ij")
    values = 1.0 + (users + items // 10) % 5 if rates else np.ones(users.shape)
    return np.where((3 * users + items // 10) % 4 < 2, values, 0).astype(np.float32)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_keeps_its_weights_is_solved_anew_or_is_refused_with_a_reason(name):
    if name in REFUSED:
        with pytest.raises(InputError, match=REFUSED[name]):
            warm_started(example(name))
    else:
        assert warm_started(example(name)) == (name in BY_GRADIENT)


def test_metadata_are_a_reason_to_refuse():
    with pytest.raises(InputError, match="numbered by the categories"):
        warm_started(settings_of("p-vae", {"metadata": True}))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        *(pytest.param(name, {}, marks=[pytest.mark.long] if name in LIKE_OTHERS else []) for name in BY_GRADIENT),
        ("h-vamp", {"hidden": [6]}),  # whose first layer has rows that belong to no item
    ],
)
def test_what_is_known_is_scored_as_before(name, changes, tmp_path):
    kind = model_class(name)
    settings, rates = example(name, **changes), kind.predicts_ratings
    items = FORMER_ITEMS[::-1] if name in WHOLE_CATALOGUE else PRESENT_ITEMS
    users = FORMER_USERS[::-1] if name in ALL_USERS else PRESENT_USERS
    former, _ = prepared(settings, events_of(FORMER_USERS, FORMER_ITEMS, rates), FORMER_ITEMS, FORMER_USERS)
    random = np.random.default_rng(0)
    unlearnt = {id(weight) for weight in former.found_by_attach}
    for weight in former.weights:
        if weight.dtype == "float32" and id(weight) not in unlearnt and "levels" not in weight.path:
            weight.assign(weight.numpy() + 0.1 * random.standard_normal(weight.shape).astype(np.float32))
    former.step.assign(7)
    former.rows_seen.assign(80)
    former.detach()
    former.save(tmp_path / "model.keras")

    model, split = prepared(settings, events_of(users, items, rates), items, users)
    WarmStart(tmp_path, "", FORMER_ITEMS, FORMER_USERS).give_to(model, settings, split)
    assert (int(model.step.numpy()), int(model.rows_seen.numpy())) == (7, 0)

    known = np.intersect1d(FORMER_ITEMS, items)  # the histories have these only
    common = np.intersect1d(FORMER_USERS, users)
    if name == "nnmf":  # whose mean rating is that of the present data
        former.rating_mean.assign(model.rating_mean)

    def scores(one, of_items, of_users):
        there = np.searchsorted(of_items, known, sorter=np.argsort(of_items))
        columns = np.argsort(of_items)[there]
        rows = [of_users.tolist().index(user) for user in common]
        histories = np.zeros((len(of_users), len(of_items)), np.float32)
        histories[np.ix_(rows, columns)] = events_of(common, known, rates)
        batch = RowStore(csr_array(histories), with_values=rates).gather(tf.constant(rows, tf.int64))
        return one.scores(batch).numpy()[:, columns]

    before = scores(former, FORMER_ITEMS, FORMER_USERS)
    assert np.ptp(before) > 0.01
    np.testing.assert_allclose(scores(model, items, users), before, rtol=1e-4, atol=1e-5)


def test_what_attach_finds_is_that_of_the_present_data(tmp_path):
    settings = example("meld", experts=["linear"])
    former, _ = prepared(settings, events_of(FORMER_USERS, FORMER_ITEMS, False), FORMER_ITEMS, FORMER_USERS)
    former.detach()
    former.save(tmp_path / "model.keras")
    model, split = prepared(settings, events_of(PRESENT_USERS, PRESENT_ITEMS, False), PRESENT_ITEMS, PRESENT_USERS)
    solved = model.linear_map.factors.numpy()
    WarmStart(tmp_path, "", FORMER_ITEMS, FORMER_USERS).give_to(model, settings, split)
    np.testing.assert_array_equal(model.linear_map.factors.numpy(), solved)


def test_ratings_that_a_trained_model_does_not_know_are_refused(tmp_path):
    settings = example("rbm")
    ratings = events_of(FORMER_USERS, FORMER_ITEMS, True)
    former, _ = prepared(settings, ratings, FORMER_ITEMS, FORMER_USERS)
    former.step.assign(1)
    former.detach()
    former.save(tmp_path / "model.keras")
    model, split = prepared(settings, np.where(ratings == 5, 4.5, ratings), FORMER_ITEMS, FORMER_USERS)
    with pytest.raises(InputError, match="was trained on the ratings"):
        WarmStart(tmp_path, "", FORMER_ITEMS, FORMER_USERS).give_to(model, settings, split)


def test_the_unit_of_ratings_stays(tmp_path):
    settings = example("autorec")
    ratings = events_of(FORMER_USERS, FORMER_ITEMS, True)
    former, _ = prepared(settings, ratings, FORMER_ITEMS, FORMER_USERS)
    former.rate_in(2.0)
    former.detach()
    former.save(tmp_path / "model.keras")
    model, split = prepared(settings, ratings, FORMER_ITEMS, FORMER_USERS)
    assert model.rating_unit == 1.0
    WarmStart(tmp_path, "", FORMER_ITEMS, FORMER_USERS).give_to(model, settings, split)
    assert model.rating_unit == 2.0


def test_a_model_of_other_data_than_it_is_said_to_be_of_is_refused(tmp_path):
    former, _ = prepared(example("cdae"), events_of(FORMER_USERS, FORMER_ITEMS, False), FORMER_ITEMS, FORMER_USERS)
    former.detach()
    former.save(tmp_path / "model.keras")
    for items, users in ((FORMER_ITEMS[1:], FORMER_USERS), (FORMER_ITEMS, FORMER_USERS[1:])):
        with pytest.raises(InputError, match="put the files of one run together"):
            WarmStart(tmp_path, "", items, users).load()


def test_settings_that_shape_the_weights_stay():
    former = settings_of("mult-vae", {"hidden": [6]})
    refuse_other_shapes(former, former.with_changes(dropout=0.1, learning_rate=0.1, seed=3))
    with pytest.raises(InputError, match=SHORTER):
        refuse_other_shapes(former, former.with_changes(latent_dim=3, dropout=0.1))


def test_a_weight_that_grows_with_pairs_of_items_is_refused(monkeypatch):
    class Pairs(model_class("mult-vae")):
        def __init__(self, n_items, **kwargs):
            super().__init__(n_items, **kwargs)
            self.pairs = self.add_state("pairs", shape=(n_items * (n_items - 1) // 2,))

    monkeypatch.setattr("tfvae.training.settings.model_class", lambda name: Pairs)
    with pytest.raises(InputError, match="pairs' has no entries of its own"):
        layouts(settings_of("mult-vae", {"hidden": [6], "latent_dim": 3}))
