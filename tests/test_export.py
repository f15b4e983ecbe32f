"""Recommendations by external ids: equal to in-process ranking, in this process and in one without tfvae."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from scipy.sparse import csr_array

from tfvae.data.interactions import Interactions
from tfvae.data.splits import LeaveOneOutSettings, leave_one_out
from tfvae.evaluation.scoring import top_k
from tfvae.models import MODELS, model_class
from tfvae.serving.recommendations import Recommendations, recommend, recommend_to_users
from tfvae.serving.rules import Rules
from tfvae.serving.saved_model import export
from tfvae.system.errors import DivergedError, InputError
from tfvae.training.settings import settings_of

pytestmark = pytest.mark.slow

N_ITEMS, N_USERS, K = 40, 11, 12
NUMBERS = np.random.default_rng(1).permutation(1000)[:N_ITEMS] - 200  # in no order; some are negative
STRINGS = np.array([f"tt{number:04d}é" for number in range(N_ITEMS)])
SMALL = {"mult-vae": {"hidden": [8], "latent_dim": 4}, "mult-dae": {"latent_dim": 4}, "ease": {}}
SMALL["ensemble"] = {"members": [{"model": "ease"}, {"model": "wmf", "settings": {"factors": 4}}]}
RANKERS = [name for name in MODELS if model_class(name).scores_new_users and not model_class(name).predicts_ratings]
CASES = [*((name, NUMBERS) for name in RANKERS), ("mult-dae", STRINGS)]
OF_EACH_KIND = [("mult-vae", NUMBERS), ("ease", NUMBERS), ("ensemble", NUMBERS), ("mult-dae", STRINGS)]

CLIENT = """
import sys
sys.modules["tfvae"] = None
import numpy as np
import tensorflow as tf
for folder in sys.argv[1:]:
    model = tf.saved_model.load(folder)
    with np.load(folder + ".npz") as asked:
        history = tf.constant(asked["history"])
        found = model.signatures["recommend"](history=history, k=tf.constant(int(asked["k"])))
        default = model.signatures["serving_default"](history=history)
        found = {**found, "default": default["items"]}
        if "allowed" in asked:
            mask = {"allowed": tf.constant(asked["allowed"])}
            masked = model.signatures["recommend_allowed"](history=history, k=tf.constant(int(asked["k"])), **mask)
            found |= {"allowed_" + name: tensor for name, tensor in masked.items()}
            found["catalogue"] = model.signatures["items"]()["items"]
    answers = {name: tensor.numpy() for name, tensor in found.items()}
    plain = {name: a.astype(bytes) if a.dtype == object else a for name, a in answers.items()}
    np.savez(folder + ".answers.npz", **plain)
"""


def histories_of(n_users=N_USERS, seed=0):
    """Random histories as a matrix; user 3 has none, user 4 has all items but two."""
    kept = np.random.default_rng(seed).random((n_users, N_ITEMS)) < 0.2
    kept[3], kept[4] = False, True
    kept[4, [7, 30]] = False
    return csr_array(kept.astype(np.float32))


def built(name):
    """A model of the registry, fitted where it is a closed form, else with its random weights."""
    model = settings_of(name, SMALL.get(name, {})).build(N_ITEMS, n_users=60)
    if hasattr(model, "fit_matrix"):
        model.fit_matrix(histories_of(60, seed=5), log=lambda line: None)
    return model


@pytest.fixture(scope="module")
def models():
    return {name: built(name) for name in RANKERS}


@pytest.fixture(scope="module")
def servings(models):
    return {name: Recommendations(model, NUMBERS) for name, model in models.items()}


def case_name(value):
    """The model's name or the ids' type, for pytest's listing."""
    return value if isinstance(value, str) else str(value.dtype)


def as_ids(matrix, item_ids):
    """Each row's item ids, in an order that is not the matrix's."""
    return [item_ids[matrix[[row]].indices[::-1]].tolist() for row in range(matrix.shape[0])]


def expected_of(model, matrix, item_ids, k):
    """Ids and scores by `evaluation.top_k`."""
    items, scores = top_k(model, matrix, k)
    pad = "" if item_ids.dtype.kind == "U" else -1
    return np.append(item_ids, pad)[items], scores


@pytest.mark.parametrize(("name", "item_ids"), CASES, ids=case_name)
def test_in_process_it_ranks_as_evaluation_does(models, name, item_ids):
    matrix = histories_of()
    items, scores = expected_of(models[name], matrix, item_ids, K)
    found = recommend(models[name], item_ids, as_ids(matrix, item_ids), K)
    np.testing.assert_array_equal(found.items, items)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-5)
    np.testing.assert_array_equal(found.unknown, 0)
    assert found.scores.dtype == np.float32
    assert found.titles is None


@pytest.mark.parametrize("cases", [OF_EACH_KIND, pytest.param(CASES, marks=pytest.mark.long)], ids=["kinds", "all"])
def test_an_export_answers_the_same_in_a_process_without_tfvae(cases, models, tmp_path):
    matrix, asked = histories_of(), {}
    for name, item_ids in cases:
        kind, pad = ("strings", "") if item_ids is STRINGS else ("numbers", -1)
        folder = tmp_path / f"{name}-{kind}"
        export(models[name], item_ids, folder)
        histories = as_ids(matrix, item_ids)
        padded = np.full((N_USERS, N_ITEMS), pad, item_ids.dtype)
        for row, history in enumerate(histories):
            padded[row, N_ITEMS - len(history) :] = history
        np.savez(f"{folder}.npz", history=padded, k=K)
        asked[folder] = expected_of(models[name], matrix, item_ids, K)
    client = [sys.executable, "-c", CLIENT, *map(str, asked)]
    subprocess.run(client, check=True, cwd=tmp_path, timeout=120, capture_output=True)
    for folder, (items, scores) in asked.items():
        with np.load(f"{folder}.answers.npz") as answers:
            decode = "S" in answers["items"].dtype.str
            found = np.char.decode(answers["items"], "utf-8") if decode else answers["items"]
            np.testing.assert_array_equal(found, items)
            np.testing.assert_allclose(answers["scores"], scores, rtol=1e-5, atol=1e-7)  # one without oneDNN
            np.testing.assert_array_equal(answers["unknown"], 0)
            assert answers["default"].shape == (N_USERS, 100)
            np.testing.assert_array_equal(answers["default"][:, :K], answers["items"])


@pytest.mark.long
def test_a_mask_of_the_moment_is_an_input_of_an_export_in_a_process_without_tfvae(models, tmp_path):
    matrix, draw = histories_of(), np.random.default_rng(2)
    histories, asked = as_ids(matrix, NUMBERS), {}
    padded = np.full((N_USERS, N_ITEMS), -1)
    for row, history in enumerate(histories):
        padded[row, : len(history)] = history
    cases = (("ease", N_USERS, 0, None), ("mult-vae", 1, 5, Rules(again=True, without=NUMBERS[:5])))
    for name, n_masks, first, rules in cases:
        folder, allowed = tmp_path / name, draw.random((n_masks, N_ITEMS)) < 0.4
        export(models[name], NUMBERS, folder, rules=rules)
        np.savez(f"{folder}.npz", history=padded, k=K, allowed=allowed)
        expected = [
            recommend(
                models[name],
                NUMBERS,
                [history],
                K,
                rules=Rules(only=NUMBERS[mask & (np.arange(N_ITEMS) >= first)], again=first > 0),
            )
            for history, mask in zip(histories, np.broadcast_to(allowed, (N_USERS, N_ITEMS)), strict=True)
        ]
        asked[folder] = [np.concatenate([getattr(one, field) for one in expected]) for field in ("items", "scores")]
    client = [sys.executable, "-c", CLIENT, *map(str, asked)]
    subprocess.run(client, check=True, cwd=tmp_path, timeout=120, capture_output=True)
    for folder, (items, scores) in asked.items():
        with np.load(f"{folder}.answers.npz") as answers:
            np.testing.assert_array_equal(answers["allowed_items"], items)
            np.testing.assert_allclose(answers["allowed_scores"], scores, rtol=1e-5, atol=1e-7)
            np.testing.assert_array_equal(answers["catalogue"], NUMBERS)
            assert (answers["items"] != items).any()  # the signature without a mask is as it was
    with pytest.raises(InputError, match="re-rank lists outside the graph"):
        export(models["ease"], NUMBERS, tmp_path / "no", rules=Rules(at_most=1, categories=["a"] * N_ITEMS))
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("name", RANKERS)
def test_unknown_and_repeated_ids_change_nothing_but_the_count(servings, name):
    serving = servings[name]
    known = NUMBERS[[4, 9, 30]].tolist()
    plain = serving([known], K)
    noisy = serving([[77777, *known, known[0], 88888, known[0], 77777]], K)
    np.testing.assert_array_equal(noisy.items, plain.items)
    np.testing.assert_array_equal(noisy.scores, plain.scores)
    assert noisy.unknown.tolist() == [3]
    only_unknown = serving([[77777], []], K)
    np.testing.assert_array_equal(*only_unknown.items)
    assert only_unknown.unknown.tolist() == [1, 0]


def test_pads_may_stand_anywhere(servings):
    serving, (a, b) = servings["mult-vae"], NUMBERS[[3, 8]]
    first, second = (serving.recommend(tf.constant([row], tf.int64), 5) for row in ([a, b], [-1, a, -1, -1, b]))
    np.testing.assert_array_equal(first["scores"], second["scores"])
    np.testing.assert_array_equal(second["unknown"], [0])


@pytest.mark.parametrize("name", RANKERS)
def test_ranks_beyond_the_unseen_items_are_empty(models, name):
    all_but_two = np.delete(STRINGS, [7, 30]).tolist()
    found = recommend(models[name], STRINGS, [all_but_two, []], k=N_ITEMS + 3, titles=np.char.upper(STRINGS))
    assert found.items.shape == found.scores.shape == found.titles.shape == (2, N_ITEMS + 3)
    assert set(found.items[0, :2]) == set(STRINGS[[7, 30]])
    empty = np.arange(N_ITEMS + 3) >= np.array([[2], [N_ITEMS]])
    np.testing.assert_array_equal(found.items == "", empty)
    np.testing.assert_array_equal(found.titles == "", empty)
    np.testing.assert_array_equal(np.isneginf(found.scores), empty)
    assert sorted(found.items[1, :N_ITEMS]) == sorted(STRINGS)


def test_an_empty_history_gets_the_popular_in_their_order(models):
    train = histories_of(60, seed=5)
    counts = np.bincount(train.indices, minlength=N_ITEMS)
    found = recommend(models["popularity"], NUMBERS, [[]], k=N_ITEMS)
    np.testing.assert_array_equal(found.items[0], NUMBERS[np.argsort(-counts, kind="stable")])
    np.testing.assert_array_equal(found.scores[0], np.sort(counts)[::-1])


@pytest.mark.parametrize("n_users", [0, 1, 7, 8, 9])
def test_the_number_of_users_in_a_call_changes_no_ranking(servings, n_users):
    matrix, serving = histories_of(), servings["mult-vae"]
    together = serving(as_ids(matrix, NUMBERS), K)
    some = serving(as_ids(matrix[:n_users], NUMBERS) if n_users else [], K)
    np.testing.assert_array_equal(some.items, together.items[:n_users])
    np.testing.assert_allclose(some.scores, together.scores[:n_users], rtol=1e-5)


def test_titles_go_with_their_items_into_the_export(models, tmp_path):
    titles = [f"Title of {number}" for number in NUMBERS]
    export(models["ease"], NUMBERS, tmp_path / "new" / "ease", titles)
    loaded = tf.saved_model.load(tmp_path / "new" / "ease")
    found = loaded.signatures["recommend"](history=tf.constant(NUMBERS[None, :3]), k=tf.constant(4))
    assert sorted(found) == ["items", "scores", "titles", "unknown"]
    for item, title in zip(found["items"][0].numpy(), found["titles"][0].numpy(), strict=True):
        assert title.decode() == f"Title of {item}"


def test_only_wanted_items_are_recommended_and_others_count_in_histories(models):
    wanted = np.isin(np.arange(N_ITEMS), [3, 8, 21, 30])
    matrix = histories_of()
    items, scores = expected_of(models["ease"], matrix, NUMBERS, N_ITEMS)
    found = recommend(models["ease"], NUMBERS, as_ids(matrix, NUMBERS), N_ITEMS, rules=Rules(only=NUMBERS[wanted]))
    for row in range(N_USERS):
        kept = np.isin(items[row], NUMBERS[wanted]) & np.isfinite(scores[row])
        assert found.items[row, : kept.sum()].tolist() == items[row][kept].tolist()
        assert (found.items[row, kept.sum() :] == -1).all()
        np.testing.assert_allclose(found.scores[row, : kept.sum()], scores[row][kept], rtol=1e-5)


def test_weights_are_stored_once_and_only_those_that_scoring_needs(models, tmp_path):
    export(models["mult-vae"], NUMBERS, tmp_path / "model")
    stored = tf.train.list_variables(str(tmp_path / "model" / "variables" / "variables"))
    shapes = sorted(tuple(shape) for name, shape in stored if "VARIABLE_VALUE" in name)
    trained = sorted(tuple(v.shape) for v in models["mult-vae"].trainable_variables)
    assert shapes == trained


def test_an_export_replaces_an_export_and_nothing_else(models, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    export(models["popularity"], NUMBERS, folder)
    (folder / "saved_model.pb").write_bytes(b"damaged")
    export(models["popularity"], NUMBERS, folder)
    assert len(tf.saved_model.load(folder).signatures) == 4
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    for occupied in ("mine", "mine/letter.txt"):
        with pytest.raises(InputError, match="not an exported model"):
            export(models["popularity"], NUMBERS, tmp_path / occupied)
    (folder / "notes.txt").write_text("my own, in an export of ours")
    with pytest.raises(InputError, match="not an exported model of tfvae with nothing else in it"):
        export(models["popularity"], NUMBERS, folder)
    another = tmp_path / "another"  # a SavedModel, but not ours
    tf.saved_model.save(tf.Module(), another)
    before = {path.name for path in another.rglob("*")}
    with pytest.raises(InputError, match="not an exported model of tfvae"):
        export(models["popularity"], NUMBERS, another)
    assert before == {path.name for path in another.rglob("*")} and (folder / "notes.txt").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["another", "mine", "model"]
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_a_model_that_knows_its_training_users_only_is_not_exported(models, tmp_path, monkeypatch):
    monkeypatch.setattr(type(models["ease"]), "scores_new_users", False)
    with pytest.raises(InputError, match="serves its training users only"):
        export(models["ease"], NUMBERS, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_scores_that_are_no_numbers_are_refused(tmp_path):
    model = built("popularity")
    model.item_counts.assign(np.full(N_ITEMS, np.nan, np.float32))
    with pytest.raises(DivergedError, match="NaN or infinite"):
        recommend(model, NUMBERS, [[]], K)
    export(model, NUMBERS, tmp_path / "model")
    loaded = tf.saved_model.load(tmp_path / "model")
    with pytest.raises(tf.errors.InvalidArgumentError, match="scores of popularity"):
        loaded.signatures["serving_default"](history=tf.constant([[-1]], tf.int64))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"item_ids": NUMBERS[1:]}, "has 40 items, but 39 item ids"),
        ({"titles": ["one"]}, "has 40 items, but 1 titles"),
        ({"rules": Rules(only=["x"])}, "none of the 1 ids in only is an item of the training data, such as x"),
        ({"item_ids": np.append(NUMBERS[1:], -1)}, "-1, which marks empty places"),
        ({"item_ids": [*STRINGS[1:], ""]}, "'', which marks empty places"),
        ({"item_ids": np.append(NUMBERS[1:], NUMBERS[1])}, "1 item ids come twice"),
        ({"item_ids": NUMBERS / 2}, "whole numbers or strings as item ids, found floating"),
        ({"item_ids": [*NUMBERS[1:], "a"]}, "as item ids, found mixed-integer"),
        (
            {"histories": [[], ["tt0001"]]},
            "have whole numbers as ids, but history 1 .* has strings, such as 'tt0001'",
        ),
        (
            {"item_ids": STRINGS, "histories": [[1]]},
            "have strings as ids, but history 0 .* has whole numbers",
        ),
        ({"histories": [[1, "a"]]}, "as ids in a history, found mixed-integer"),
        ({"histories": [1, 2]}, "one list of item ids for each user"),
        ({"histories": ["tt0001"]}, "one list of item ids for each user"),
        ({"k": 0}, "k is 0; expected at least 1"),
        ({"ratings": [[5]]}, "ranks by what is in a history, not by ratings"),
        ({"scale": (1, 5)}, "predicts no ratings"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(models, changes, message):
    arguments = {"item_ids": NUMBERS, "histories": [[1]], "k": 3} | changes
    with pytest.raises(InputError, match=message):
        recommend(models["popularity"], **arguments)


# ---- training users ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [NUMBERS, STRINGS], ids=case_name)
@pytest.mark.parametrize("name", ["ease", "mult-dae", "cdae", "gmf"])
def test_training_users_are_ranked_for_by_their_ids(name, ids):
    users, items = histories_of(60, seed=5).nonzero()
    events = Interactions.from_events(users * 7 + 3, ids[items])
    split = leave_one_out(events, LeaveOneOutSettings(n_negatives=1))
    model = settings_of(name, SMALL.get(name, {})).build_for(split)
    if hasattr(model, "fit_matrix"):
        model.fit_matrix(split.train, log=lambda line: None)
    rows = [5, 2, 40]
    found = recommend_to_users(model, split, split.user_ids[rows], k=6)
    expected, scores = top_k(model, split.train, k=6, users=rows)
    np.testing.assert_array_equal(found.items, split.item_ids[expected])
    np.testing.assert_allclose(found.scores, scores, rtol=1e-5)
    assert found.unknown.tolist() == [0, 0, 0] and found.titles is None and found.sd is None
    as_text = recommend_to_users(model, split, [str(split.user_ids[2])], k=6)
    np.testing.assert_array_equal(as_text.items[0], found.items[1])
    few = recommend_to_users(model, split, split.user_ids[:1], k=6, rules=Rules(only=split.item_ids[:8]))
    assert set(few.items[0]) <= {*split.item_ids[:8].tolist(), found.items.dtype.type(-1 if ids is NUMBERS else "")}
    with pytest.raises(InputError, match="nobody is none of the .* training users"):
        recommend_to_users(model, split, ["nobody"])
    with pytest.raises(InputError, match="k is 0"):
        recommend_to_users(model, split, split.user_ids[:1], k=0)
    assert len(recommend_to_users(model, split, [], k=6).items) == 0
