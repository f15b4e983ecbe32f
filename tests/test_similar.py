"""Nearest items: vectors and maps of hand-made weights, every registered model, and the command."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf
from scipy.sparse import csr_array
from test_cli import run

import tfvae
from tfvae.data.items import Items
from tfvae.models import MODELS, model_class
from tfvae.models.base import HasItemMap, HasItemVectors, Recommender
from tfvae.nn.batches import unpad
from tfvae.serving.similar import similar_items
from tfvae.serving.typed_history import typed_item
from tfvae.system.errors import DivergedError, InputError
from tfvae.training.settings import settings_of

N_ITEMS, N_USERS = 6, 5
IDS = np.array([10, 11, 12, 13, 14, 15])
VECTORS = np.array([[1, 0], [2, 0], [3, 3], [0, -4], [-1, 0], [0, 0]], np.float32)
COSINES = [1, 1, 0.5**0.5, 0, -1]  # of the first item with the first five; of the last nothing is known
NONE = {"popularity", "rbm", "nnmf", "llorma", "ensemble", "rating-ensemble"}
EXPERTS = ["linear", "logistic", "square", "variational"]
MAPS = {"ease", "edlae", "slim", "rp3beta"}


def built(name, **settings) -> Recommender:
    return settings_of(name, model_class(name).example_settings | settings).build(N_ITEMS, N_USERS)


def given_vectors(name) -> Recommender:
    """A model of linear decoder or factors whose vectors are `VECTORS`."""
    if name in ("mult-vae", "mult-dae", "evcf-mult-vae", "ract", "vamp"):
        model = built(name, hidden=[2] if name != "mult-dae" else [], latent_dim=2)
        model.decoder.last.kernel.assign(VECTORS)
    elif name == "h-vamp":
        model = built(name, hidden=[2])
        model.decoder.joint.last.kernel.assign(VECTORS)
    elif name == "recvae":
        model = built(name, decoder_hidden=[], latent_dim=2)
        model.decoder.last.kernel.assign(VECTORS)
    elif name in ("cdae", "autorec", "p-vae"):
        model = built(
            name,
            **{"autorec": {"units": 2}, "p-vae": {"decoder_hidden": [2], "metadata": False}}.get(
                name, {"latent_dim": 2}
            ),
        )
        model.decoder.kernel.assign(VECTORS)
        model.decoder.bias.assign(np.arange(6.0))
    elif name in ("wmf", "bpr"):
        model = built(name, factors=2)
        model.item_factors.assign(VECTORS)
    elif name in ("pmf", "bias-mf"):
        model = built(name, factors=2)
        biases = np.arange(6.0)[:, None] if name == "bias-mf" else np.zeros([6, 0])
        model.item_coefficients.assign(np.hstack([biases, VECTORS]))
    elif name == "two-sided-p-vae":
        model = built(name, latent_dim=[3, 2])
        model.item_codes.assign(np.hstack([VECTORS, np.ones([6, 2])]))
    elif name == "gmf":
        model = built(name, factors=2)
        model.networks[0].items.assign(VECTORS)
    else:
        raise AssertionError(f"{name} has no vectors here; give it some.")
    return model


@pytest.mark.parametrize("name", [n for n in MODELS if n not in NONE | MAPS | {"mlp", "neumf", "meld"}])
def test_the_nearest_have_the_largest_cosine_whatever_the_lengths(name):
    model = given_vectors(name)
    np.testing.assert_array_equal(model.item_vectors(), VECTORS)
    found = similar_items(model, IDS, 10)
    assert found.items.tolist() == [11, 12, 13, 14] and found.measure == "cosine" and found.titles is None
    np.testing.assert_allclose(found.similarities, COSINES[1:], atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_vectors_or_a_map_or_says_that_it_has_none(name):
    model = built(name)
    if name in NONE:
        assert not isinstance(model, HasItemVectors | HasItemMap)
        with pytest.raises(InputError, match="has no vectors of its own by which items could be near each other; "):
            similar_items(model, IDS, 10)
        return
    assert isinstance(model, HasItemMap) == (name in MAPS)
    assert isinstance(model, HasItemVectors) != isinstance(model, HasItemMap)
    if name in MAPS:
        assert model.map_row(2).shape == (N_ITEMS,) and model.map_row(2).dtype == tf.float32
        return
    vectors = model.item_vectors()
    assert vectors.dtype == tf.float32 and vectors.shape[0] == N_ITEMS and len(vectors.shape) == 2
    if vectors.numpy().any():  # what is fitted in closed form is 0 before
        found = similar_items(model, IDS, 12, k=3)
        assert len(found.items) <= 3 and 12 not in found.items and (np.diff(found.similarities) <= 0).all()


@pytest.mark.parametrize("name", sorted(MAPS))
def test_the_row_of_a_map_is_what_the_item_adds_to_all_scores(name):
    draw = np.random.default_rng(0)
    train = csr_array((draw.random((40, N_ITEMS)) < 0.5).astype(np.float32))
    model = built(name) if name != "rp3beta" else built(name, neighbors=3)
    model.fit_matrix(train, log=lambda line: None)
    for item in range(N_ITEMS):
        row = model.map_row(item).numpy()
        np.testing.assert_allclose(row, model.scores(unpad(tf.constant([[item]])))[0], rtol=1e-5, atol=1e-7)
        assert row[item] == 0
        if row.any():
            found = similar_items(model, IDS, IDS[item])
            expected = [place for place in np.argsort(-row, kind="stable") if row[place] != 0]
            assert found.measure == "weight" and found.items.tolist() == IDS[expected].tolist()
            np.testing.assert_array_equal(found.similarities, row[expected])


def test_the_cosine_of_meld_is_the_mean_of_its_experts():
    model, draw = built("meld", experts=EXPERTS, rank=4, latent_dim=3), np.random.default_rng(1)
    parts = [
        model.linear_map.factors,
        model.logistic_decoder.last.kernel,
        model.square_decoder.kernel,
        model.variational_decoder.last.kernel,
    ]
    cosines = []
    for scale, part in enumerate(parts, start=1):
        vectors = draw.normal(size=part.shape).astype(np.float32) * 10**scale
        part.assign(vectors)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        cosines.append(unit @ unit[2])
    mean = np.mean(cosines, axis=0)
    found = similar_items(model, IDS, 12)
    np.testing.assert_allclose(found.similarities, np.sort(np.delete(mean, 2))[::-1], atol=1e-6)
    alone = built("meld", experts=["linear"], rank=4)
    alone.linear_map.factors.assign(parts[0])
    np.testing.assert_allclose(
        similar_items(alone, IDS, 12).similarities, np.sort(np.delete(cosines[0], 2))[::-1], atol=1e-6
    )


def test_the_networks_of_ncf_give_what_they_know_of_an_item():
    model = built("neumf", factors=2)
    gmf, mlp = model.networks
    tower = mlp.items.numpy() @ np.split(mlp.kernel.numpy(), 2)[1]
    np.testing.assert_allclose(model.item_vectors(), np.hstack([gmf.items.numpy(), tower]), rtol=1e-5, atol=1e-7)
    assert built("mlp", factors=2).item_vectors().shape == (N_ITEMS, 8)


def test_titles_candidates_and_ids_as_text():
    titles = [f"T{item}" for item in IDS]
    found = tfvae.similar_items(given_vectors("wmf"), IDS, "10", 2, titles, IDS != 11)
    assert found.items.tolist() == [12, 13] and found.titles.tolist() == ["T12", "T13"]
    assert not tfvae.similar_items(given_vectors("wmf"), IDS, 10, candidates=IDS == 10).items.size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"item": 99}, "99 is none of the model's 6 items, whose ids look like 10"),
        ({"item": 15}, "wmf knows nothing of 15"),
        ({"item": 10, "k": 0}, "k is 0"),
        ({"item": 10, "item_ids": IDS[:3]}, "expected ids of 6 items"),
        ({"item": 10, "titles": ["a"]}, "expected titles of 6 items"),
        ({"item": 10, "candidates": [True]}, "expected candidates of 6 items"),
    ],
)
def test_what_cannot_be_answered_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        similar_items(given_vectors("wmf"), **{"item_ids": IDS} | arguments)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_refused(value):
    model = given_vectors("wmf")
    model.item_factors.assign(np.where(VECTORS == 3, np.float32(value), VECTORS))
    with pytest.raises(DivergedError, match="NaN or infinite"):
        similar_items(model, IDS, 10)


def test_an_item_is_typed_by_its_id_or_by_a_part_of_its_title():
    items = Items(np.array([7, 9, 12]), np.array(["Heat", "White Heat", "9"]), None, np.array([1, 2, 3]))
    assert typed_item(items, "9") == (9, [])
    assert typed_item(items, "heat") == (9, [(9, "White Heat"), (7, "Heat")])
    for text, message in (("x", "no title contains 'x'"), ("", "is none of the 3 items, whose ids look like 7")):
        with pytest.raises(InputError, match=message):
            typed_item(items, text)
    with pytest.raises(InputError, match="'heat' is none of the 3 items"):
        typed_item(Items(items.item_ids, None, None, items.n_users), "heat")


@pytest.mark.slow
def test_the_command_shows_what_python_gives(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("fit", "movietweetings", "--model", "ease", "--run", "ease")
    told = run("similar", "ease", "gravity", "-k", "3", "--min-users-per-item", "50", "--json")
    assert "'gravity' is taken for Gravity (2013) (1454468)" in told.stderr
    found = json.loads(told.stdout)
    assert (found["item"], found["title"], found["measure"]) == (1454468, "Gravity (2013)", "weight")
    items, model = Items.load("ease"), tfvae.load_run("ease").model
    expected = similar_items(model, items.item_ids, 1454468, 3, items.titles, items.n_users >= 50)
    assert [one["item"] for one in found["similar"]] == expected.items.tolist()
    assert [one["title"] for one in found["similar"]] == expected.titles.tolist()
    assert [one["rank"] for one in found["similar"]] == [1, 2, 3]
    lines = run("similar", "ease", "1454468", "-k", "2").stdout.splitlines()
    assert lines[0].split() == ["id", "title", "weight"] and len(lines) == 3
    run("fit", "movietweetings", "--model", "popularity", "--run", "popular")
    assert "popularity has no vectors of its own" in run("similar", "popular", "gravity", code=2).stderr
    assert "no title contains" in run("similar", "ease", "xyzzy", code=2).stderr
    assert "no finished run" in run("similar", "none", "1", code=2).stderr
