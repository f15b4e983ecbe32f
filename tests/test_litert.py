"""LiteRT files: the scores of every model that can be one to float32 rounding, and a clear no for the others."""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tensorflow as tf
from rating_rows import random_ratings
from scipy.sparse import csr_array
from typer.testing import CliRunner

from tfvae.cli.app import app
from tfvae.models import MODELS, model_class
from tfvae.models.ensemble import AnyEnsemble
from tfvae.models.gradient import GradientRecommender
from tfvae.nn.batches import unpad
from tfvae.nn.sparse_ops import add_at, binary_matmul, portable_ops, sparse_matmul
from tfvae.serving.litert import export_litert
from tfvae.serving.recommendations import recommend
from tfvae.serving.rules import Rules
from tfvae.system.errors import InputError
from tfvae.training.loop import train
from tfvae.training.settings import settings_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")]

N_USERS, N_ITEMS, SCALE = 60, 30, (1.0, 5.0)
DOCS = (Path(__file__).parents[1] / "docs" / "deploying.md").read_text(encoding="utf-8")
OF_NEW_USERS = [name for name in MODELS if model_class(name).scores_new_users]
SOLVE = {"wmf", "pmf", "bias-mf", "two-sided-p-vae"}
RUN_THROUGH_BY_OTHERS = {
    *("mult-dae", "evcf-mult-vae", "vamp", "h-vamp", "ract", "cdae", "recvae", "bpr"),  # mostly by mult-vae
    *("autorec", "rbm", "rating-ensemble"),  # by p-vae
    *("popularity", "ease", "edlae", "slim", "meld", "ensemble"),  # by mult-vae and the tests of ease below
}
MEMBERS = {
    "ensemble": [{"model": "ease"}, {"model": "mult-dae", "settings": {"latent_dim": 4}}],
    "rating-ensemble": [
        {"model": "autorec", "settings": {"units": 4}},
        {"model": "rbm", "settings": {"units": 4}},
    ],
}
AMPLIFY = {"meld": 1e-3, "ensemble": 1e-3}  # they standardise scores, which are nearly equal where nothing is learnt
HISTORIES = [[7], [3, -1, 20, 3, 29, -1], [-1, -1], [99, 4, -5, 11], list(range(28))]


def built(name, **changes):
    """A model of the registry, fitted where it is a closed form, else with random weights."""
    kind = model_class(name)
    given = kind.example_settings | ({"members": MEMBERS[name]} if name in MEMBERS else {}) | changes
    model = settings_of(name, given).build(N_ITEMS, N_USERS)
    for part in model.recommenders if isinstance(model, AnyEnsemble) else [model]:
        rows = training_rows(part.predicts_ratings)
        if isinstance(part, GradientRecommender):  # which begins with the means of the items, or a closed form
            part.attach(rows)
            part.detach()
        else:
            part.fit_matrix(rows, log=[].append)
    draw = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(draw.normal(scale=0.3, size=variable.shape))
    return model


def training_rows(ratings):
    if ratings:
        return random_ratings(N_USERS, N_ITEMS, seed=5)
    return csr_array((np.random.default_rng(5).random((N_USERS, N_ITEMS)) < 0.2).astype(np.float32))


def told(model, history):
    """The inputs of a signature; a rating follows from its place."""
    found = {"history": np.array([history], np.int32)}
    if model.predicts_ratings:
        found["ratings"] = np.float32([[1 + place % 5 for place in range(len(history))]])
    return found


def exported(model, folder, **given):
    """The two signatures of a model's file."""
    scale = SCALE if model.predicts_ratings else None
    export_litert(model, np.arange(model.n_items), folder, scale=scale, **given)
    interpreter = tf.lite.Interpreter(str(folder / "model.tflite"))
    return interpreter.get_signature_runner("recommend"), interpreter.get_signature_runner("scores")


def as_parameter(name):
    return pytest.param(name, marks=pytest.mark.long) if name in RUN_THROUGH_BY_OTHERS else name


@pytest.mark.parametrize("name", [*map(as_parameter, sorted(set(OF_NEW_USERS) - SOLVE))])
def test_it_is_the_model_to_rounding(name, tmp_path):
    model = built(name)
    rank, scores = exported(model, tmp_path / "file")
    tolerance = AMPLIFY.get(name, 2e-6)
    for history in HISTORIES:
        inputs = told(model, history)
        known = {item: place for place, item in enumerate(history) if 0 <= item < N_ITEMS}  # the last of equal ones
        values = [[inputs["ratings"][0, place] for place in known.values()]] if model.predicts_ratings else None
        batch = unpad(tf.constant([[*known]], tf.int32, [1, len(known)]), values=values and tf.constant(values))
        expected = np.asarray(model.scores(batch))
        found = scores(**inputs)["scores"]
        assert found.dtype == np.float32 and (np.ptp(expected) > 0 or not known)
        atol = tolerance * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=atol)
        given = None if values is None else [inputs["ratings"][0].tolist()]
        plain = recommend(
            model, np.arange(N_ITEMS), [[item if item >= 0 else -1 for item in history]], 6,
            ratings=given, scale=SCALE if model.predicts_ratings else None,
        )  # fmt: skip
        ranked = rank(**inputs, k=np.int32(6))
        assert sorted(ranked) == ["items", "scores", "unknown"]
        empty = ranked["items"] == -1
        np.testing.assert_array_equal(ranked["scores"][empty], np.finfo(np.float32).min)
        np.testing.assert_allclose(ranked["scores"][~empty], plain.scores[~empty], rtol=0, atol=atol)
        np.testing.assert_array_equal(empty, plain.items == -1)
        assert not set(ranked["items"][~empty].tolist()) & set(known)
        assert ranked["unknown"].tolist() == [sum(item != -1 and not 0 <= item < N_ITEMS for item in history)]


@pytest.mark.parametrize("name", sorted(SOLVE))
def test_what_solves_equations_is_refused_with_the_reason(name, tmp_path):
    with pytest.raises(
        InputError, match=r"solves a system of equations for each user \(by Cholesky and Matrix.*SavedM"
    ):
        exported(built(name), tmp_path / "no")
    assert not any(tmp_path.iterdir())


@pytest.mark.long
def test_what_the_converter_refuses_is_refused_with_its_operations(tmp_path, monkeypatch):
    monkeypatch.setattr("tfvae.serving.litert.SOLVERS", frozenset())
    with pytest.raises(InputError, match=r"bias_mf cannot be converted: LiteRT has no kernels for Cholesky, Matrix"):
        exported(built("bias-mf"), tmp_path / "no")
    assert not any(tmp_path.iterdir())


@pytest.fixture(scope="module")
def ease():
    return built("ease")


def test_other_reasons_are_told_as_well(ease, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"mult_vae computes in bfloat16 \(precision\), for which LiteRT"):
        exported(built("mult-vae", precision="mixed_bfloat16"), tmp_path / "no")
    with pytest.raises(InputError, match="gmf serves its training users only"):
        export_litert(settings_of("gmf", {}).build(N_ITEMS, N_USERS), np.arange(N_ITEMS), tmp_path / "no")
    with pytest.raises(InputError, match="re-rank lists outside the graph"):
        exported(ease, tmp_path / "no", rules=Rules(at_most=1, categories=["a"] * N_ITEMS))
    with (
        monkeypatch.context() as patch,
        pytest.raises(InputError, match="the weights of ease are 0.0 GB, and a LiteRT"),
    ):
        patch.setattr("tfvae.serving.litert.LARGEST", 4 * N_ITEMS**2 - 1)
        exported(ease, tmp_path / "no")
    with (
        monkeypatch.context() as patch,
        pytest.raises(InputError, match="the converted scores of ease differ by up to"),
    ):
        patch.setattr(type(ease), "scores", _once_more_each_time(type(ease).scores))
        exported(ease, tmp_path / "no")
    assert not any(tmp_path.iterdir())


def _once_more_each_time(scores):
    """A method whose result grows, so that a graph traced before differs from what is computed afterwards."""
    calls = []

    def method(self, batch):
        calls.append(batch)
        return scores(self, batch) * len(calls)

    return method


def test_rules_and_titles_go_into_the_folder_which_replaces_an_export_only(ease, tmp_path):
    folder = tmp_path / "file"
    n_users = np.arange(N_ITEMS)
    ids, titles = [f"sku-{n}" for n in range(N_ITEMS)], [f"Title, {n} “é”" for n in range(N_ITEMS)]
    for _ in range(2):
        export_litert(ease, ids, folder, titles, rules=Rules(min_users=10, n_users=n_users))
    rank = tf.lite.Interpreter(str(folder / "model.tflite")).get_signature_runner("recommend")
    items = rank(history=np.array([[12]], np.int32), k=np.int32(N_ITEMS))["items"][0]
    assert sorted(items[items >= 0]) == [item for item in range(10, N_ITEMS) if item != 12]
    with open(folder / "items.csv", encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"number": str(n), "id": ids[n], "title": titles[n]} for n in range(N_ITEMS)
        ]
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not an exported model of tfvae with nothing else in it"):
        export_litert(ease, ids, folder)


def test_the_command_and_the_programs_that_it_and_the_page_show(tiny_split, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fake = ModuleType("ai_edge_litert.interpreter")
    fake.Interpreter = tf.lite.Interpreter
    monkeypatch.setitem(sys.modules, "ai_edge_litert", ModuleType("ai_edge_litert"))
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", fake)
    train(settings_of("popularity", {}), tiny_split, "run", log=[].append)
    done = CliRunner().invoke(app, ["export", "run", "exports/phone", "--format", "litert"])
    assert done.exit_code == 0, done.output
    shown = "\n".join(line.strip() for line in done.output.splitlines()[1:]).replace("recommend(", "found = recommend(")
    (of_page,) = re.findall(r"```python\n(import numpy.*?)```", DOCS, flags=re.DOTALL)
    popular = np.argsort(-np.bincount(tiny_split.train.indices, minlength=40), kind="stable")
    for program, history in ((shown, [0, 1]), (of_page, [0, 3])):
        names: dict = {}
        exec(program, names)  # what a user would paste
        assert names["found"]["items"].tolist() == [popular[~np.isin(popular, history)][:10].tolist()]
    refused = CliRunner().invoke(app, ["export", "run", "exports/phone", "--format", "litert", "--versioned"])
    assert refused.exit_code == 2 and "--versioned numbers SavedModels" in refused.stderr


def test_portable_products_are_the_sparse_ones():
    draw = np.random.default_rng(0)
    kernel, values = tf.constant(draw.normal(size=(9, 4)), tf.float32), tf.constant(draw.normal(size=6), tf.float32)
    items, rows = tf.constant([0, 3, 8, 3, 1, 2]), tf.constant([0, 0, 0, 2, 2, 3])

    def products():
        dense = tf.constant(np.arange(45.0).reshape(5, 9), tf.float32)
        found = binary_matmul(kernel, items, rows, 5), sparse_matmul(kernel, values, items, rows, 5)
        return [*found, add_at(dense, tf.stack([rows, items], axis=1), values)]

    def operations():
        graph = tf.function(products).get_concrete_function().graph
        return {operation.type for operation in graph.get_operations()}

    plain, with_kernels = products(), operations()
    with portable_ops():
        portable, without = products(), operations()
    for one, other in zip(plain, portable, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)
    assert {"SparseSegmentSumWithNumSegments", "SparseMatrixMatMul"} <= with_kernels
    assert not {name for name in without if "Sparse" in name}
    np.testing.assert_array_equal(products()[0], plain[0])
    assert operations() == with_kernels


def test_the_page_says_which_models_can_be_one():
    table = DOCS[DOCS.index("| models | |") :]
    yes, no = (" ".join(re.findall(rf"^\| (.*?) \| {word}", table, flags=re.MULTILINE)) for word in ("yes", "no"))
    for name in MODELS:
        assert f"`{name}`" in (no if name in SOLVE or name not in OF_NEW_USERS else yes), name
