"""What every registered model owes: one suite over the registry; a new model is tested by its line there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import get_args

import keras
import numpy as np
import pytest
import tensorflow as tf
from model_kinds import of_each_kind
from plain_fit import fit
from rating_rows import random_ratings, ready
from scipy.sparse import csr_array

from tfvae.data.splits import rating_holdout
from tfvae.data.synthetic import synthetic
from tfvae.evaluation.scoring import top_k
from tfvae.models import MODELS, model_class
from tfvae.models.gradient import GradientRecommender
from tfvae.models.saved import load_model
from tfvae.nn.batches import RowStore, unpad
from tfvae.serving.saved_model import export
from tfvae.system.errors import InputError
from tfvae.training.loop import prepare_to_fit, train
from tfvae.training.settings import settings_of

pytestmark = pytest.mark.slow

README = Path(__file__).parents[1] / "README.md"

N_USERS, N_ITEMS = 90, 40
RATING = {name for name in MODELS if model_class(name).predicts_ratings}
BY_GRADIENT = [name for name in MODELS if issubclass(model_class(name), GradientRecommender)]
SCORING_NEW_USERS = [name for name in MODELS if model_class(name).scores_new_users]
every_model = pytest.mark.parametrize("name", MODELS)
every_rating_model = pytest.mark.parametrize("name", [name for name in MODELS if name in RATING])
every_model_of_new_users = pytest.mark.parametrize("name", SCORING_NEW_USERS)
each_kind_by_gradient = pytest.mark.parametrize("name", of_each_kind(BY_GRADIENT))


def settings(name, **changes):
    training = {"epochs": 4, "batch_size": 40, "monitor": "rmse" if name in RATING else "ndcg@10"}
    return settings_of(name, training | model_class(name).example_settings | changes)


def built(name, n_users=N_USERS, **changes):
    return settings(name, **changes).build(N_ITEMS, n_users)


def prepare(model, name, split):
    prepare_to_fit(model, split, 0.02, settings(name).training.optimizer)


@pytest.fixture(scope="session")
def tiny_ratings():
    """Ratings of 90 users of 40 items, of which a part is for validation."""
    return rating_holdout(synthetic(n_users=N_USERS, n_items=N_ITEMS, n_tastes=4, taste=0.9)).for_tuning()


@pytest.fixture(scope="module")
def split_of(tiny_split, tiny_items, tiny_ratings):
    """The split that suits a model."""

    def split(name):
        if name in RATING:
            return tiny_ratings
        return tiny_split if name in SCORING_NEW_USERS else tiny_items

    return split


@pytest.fixture(scope="module")
def store_of(split_of):
    """The users to score: those of the validation part, who are the training users where no users are held out."""
    return lambda name: RowStore(split_of(name).validation.history, with_values=name in RATING)


@pytest.fixture(scope="module")
def rows(store_of):
    """Twelve users."""
    return lambda name: store_of(name).gather(tf.range(12, dtype=tf.int64))


@pytest.fixture(scope="module")
def fitted(split_of):
    """Every model, fitted on its tiny split; made when first asked for."""
    made = {}

    def model(name):
        if name not in made:
            split = split_of(name)
            made[name] = built(name)
            if name in BY_GRADIENT:
                prepare(made[name], name, split)
                fit(made[name], made[name].histories.n_rows, 40, epochs=2)
            else:
                made[name].fit_matrix(split.train, log=[].append)
        return made[name]

    return model


def typed(name, histories):
    """Padded item columns in the wire format; a rating follows from its item."""
    padded = tf.constant(histories, tf.int32)
    return unpad(padded, values=tf.cast(1 + padded % 5, tf.float32)) if name in RATING else unpad(padded)


def assert_equal_weights(one, other):
    assert [v.shape for v in one.variables] == [v.shape for v in other.variables]
    for first, second in zip(one.variables, other.variables, strict=True):
        np.testing.assert_array_equal(first.numpy(), second.numpy(), err_msg=first.path)


def test_every_model_has_its_settings_here():
    for name in MODELS:
        assert "example_settings" in vars(model_class(name)), name


@every_model
def test_no_setting_here_is_a_default(name):
    defaults, known = settings_of(name, {}).flat(), model_class(name).settings()
    for key, value in settings(name).model.items():
        if len(get_args(known[key].annotation)) == 1:  # there is no other value
            continue
        assert value != defaults[key], f"{key} should not be tested at its default"


@every_model
def test_builds_and_scores(name, fitted, rows):
    model = fitted(name)
    assert model.built and model.n_items == N_ITEMS
    scores = model.scores(rows(name))
    assert scores.dtype == tf.float32 and scores.shape == (12, N_ITEMS)
    assert np.isfinite(scores).all() and np.ptp(scores) > 0
    np.testing.assert_array_equal(model(rows(name)), scores)  # without noise
    expected = np.take_along_axis(model.expected(rows(name)).numpy(), np.argsort(scores, axis=1), axis=1)
    assert (np.diff(expected, axis=1) >= 0).all()  # they rank as scores do


@every_model
def test_every_setting_is_an_attribute_and_in_the_config(name):
    given = settings(name, seed=3)
    model = given.build(N_ITEMS, N_USERS)
    config = model.get_config()
    assert {"n_items", "seed", "dtype", *given.model} <= config.keys()
    for key, value in {**given.model, "seed": 3, "n_items": N_ITEMS}.items():
        expected = tuple(value) if isinstance(value, list) else value
        assert getattr(model, key) == expected and config[key] == expected


@every_model
def test_config_round_trip(name, fitted):
    config = fitted(name).get_config()
    again = type(fitted(name)).from_config(json.loads(json.dumps(fitted(name).get_config())))
    assert again.get_config() == config
    assert [(v.path, v.shape, v.dtype) for v in again.variables] == [
        (v.path, v.shape, v.dtype) for v in fitted(name).variables
    ]


@every_model
def test_the_same_seed_builds_the_same_model(name):
    one, same, other = (built(name, seed=seed) for seed in (1, 1, 2))
    assert_equal_weights(one, same)
    for first, second in zip(one.trainable_variables, other.trainable_variables, strict=True):
        constant = np.ptp(first.numpy()) == 0  # biases, and what is set from the data
        assert constant or not np.array_equal(first.numpy(), second.numpy()), first.path


@every_model
def test_keras_file_round_trip_is_bit_equal(name, fitted, rows, tmp_path):
    fitted(name).save(tmp_path / "model.keras")
    for load in (keras.models.load_model, load_model):
        loaded = load(tmp_path / "model.keras")
        assert type(loaded) is type(fitted(name))
        assert_equal_weights(loaded, fitted(name))
        np.testing.assert_array_equal(loaded.scores(rows(name)), fitted(name).scores(rows(name)))


@every_model
def test_every_tf_variable_is_a_weight(name, fitted):
    # A tf.Variable that is a plain attribute would be neither trained nor saved.
    for layer in fitted(name)._flatten_layers():
        raw = [attribute for attribute, value in vars(layer).items() if isinstance(value, tf.Variable)]
        assert not raw, f"{layer.name}: {raw}"


@every_model
def test_compiled_equals_eager(name, fitted, rows):
    compiled = tf.function(fitted(name).scores, autograph=False)
    np.testing.assert_allclose(compiled(rows(name)), fitted(name).scores(rows(name)), rtol=1e-6, atol=1e-6)


@every_model
def test_one_trace_serves_batches_of_any_size(name, fitted, store_of):
    store = store_of(name)
    scores = tf.function(
        lambda users: fitted(name).scores(store.gather(users)),
        input_signature=[tf.TensorSpec([None], tf.int64)],
        autograph=False,
    )
    whole = fitted(name).scores(store.gather(tf.range(12, dtype=tf.int64)))
    for size in (1, 5, 12):
        np.testing.assert_allclose(scores(tf.range(size, dtype=tf.int64)), whole[:size], rtol=1e-5, atol=1e-6)


@every_model_of_new_users
def test_an_empty_history_has_finite_scores(name, fitted):
    scores = fitted(name).scores(typed(name, [[-1, -1], [0, 1], [-1, -1]]))
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(scores[0], scores[2], rtol=1e-5, atol=1e-6)


@every_model_of_new_users
def test_no_histories_have_no_scores(name, fitted):
    assert fitted(name).scores(typed(name, np.zeros([0, 3]))).shape == (0, N_ITEMS)


@pytest.mark.parametrize("name", sorted(set(MODELS) - set(SCORING_NEW_USERS)))
def test_histories_of_nobody_in_training_are_refused(name, fitted, split_of, tmp_path):
    other = "pmf" if name in RATING else "mult-dae"
    knows = f"{model_class(name).__name__} knows only the .*users it was trained on.* such as {other}"
    with pytest.raises(InputError, match=knows):
        fitted(name).scores(typed(name, [[3, 17]]))
    with pytest.raises(InputError, match="serves its training users only"):
        export(fitted(name), split_of(name).item_ids, tmp_path / "exported", scale=split_of(name).scale)
    assert not list(tmp_path.iterdir())


@every_model
def test_permuting_users_permutes_outputs(name, fitted, store_of, rows):
    order = np.random.default_rng(0).permutation(12)
    permuted = store_of(name).gather(tf.constant(order))
    expected = fitted(name).scores(rows(name)).numpy()[order]
    np.testing.assert_allclose(fitted(name).scores(permuted), expected, rtol=1e-5, atol=1e-6)


@every_model_of_new_users
def test_order_and_padding_of_a_history_do_not_matter(name, fitted):
    histories = [[3, 17, 8, -1, -1], [-1, 8, -1, 3, 17], [17, 3, 8, -1, -1]]
    scores = fitted(name).scores(typed(name, histories)).numpy()
    np.testing.assert_allclose(scores[1:], scores[[0, 0]], rtol=1e-5, atol=1e-6)
    other = fitted(name).scores(typed(name, [[3, 17, 9]])).numpy()
    assert name == "popularity" or np.abs(other - scores[0]).max() > 1e-4


@every_model
def test_mixed_precision_scores_are_float32_and_near(name, fitted, rows):
    model = fitted(name)
    half = type(model).from_config(model.get_config() | {"dtype": "mixed_bfloat16"})
    half.set_weights(model.get_weights())
    scores, exact = half.scores(rows(name)), model.scores(rows(name))
    assert scores.dtype == tf.float32
    np.testing.assert_allclose(scores, exact, atol=0.1 * max(np.std(exact), name in RATING))


@every_model
def test_seen_items_are_never_returned(name, fitted, split_of):
    histories = split_of(name).validation.history
    items, scores = top_k(fitted(name), histories, k=N_ITEMS)
    for user, ranked in enumerate(items):
        seen = histories[[user]].indices
        unseen = ranked[ranked >= 0]
        assert sorted(unseen) == sorted(set(range(N_ITEMS)) - set(seen))
        assert np.isneginf(scores[user][len(unseen) :]).all()


@pytest.mark.parametrize("name", of_each_kind(name for name in MODELS if name not in RATING))
def test_the_checkerboard_is_recovered(name, checkerboard):
    own = model_class(name).checkerboard_settings
    if own is None:
        pytest.skip(f"{name} ranks alike for all users")
    n_users, n_items = checkerboard.shape
    given = settings_of(name, {"batch_size": 8} | own)
    model = given.build(n_items, n_users)
    if name in BY_GRADIENT:
        split = type("Rows", (), {"train": checkerboard})
        prepare_to_fit(model, split, given.training.learning_rate, given.training.optimizer)
        fit(model, model.histories.n_rows, 8, given.training.epochs)
    else:
        model.fit_matrix(checkerboard, log=[].append)
    items, _ = top_k(model, checkerboard, k=1)
    np.testing.assert_array_equal(items[:, 0], np.arange(n_users))


@pytest.mark.parametrize("name", of_each_kind(BY_GRADIENT, elsewhere=("h-vamp", "ract", "recvae")))
def test_two_epochs_and_two_more_are_four(name, split_of, tmp_path):
    def run(folder, epochs):
        return train(settings(name, epochs=epochs), split_of(name), folder, progress=False)

    def keep(self, epoch, logs=None):
        if epoch == 2:  # what a run would leave that is killed here
            shutil.copytree(tmp_path / "whole", tmp_path / "halves")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfvae.training.callbacks.Validation.on_epoch_begin", keep)
        whole = run(tmp_path / "whole", 4)
    halves = run(tmp_path / "halves", 4)
    assert halves.resumed and len(halves.history) == 4
    assert_equal_weights(halves.model, whole.model)
    for one, other in zip(halves.history, whole.history, strict=True):
        assert one | {"seconds": 0} == other | {"seconds": 0}


@each_kind_by_gradient
def test_one_step_on_two_replicas_equals_one_on_one(name, split_of, silent_noise, two_replicas):
    # β is not 0 in the first step, so that what only the divergence trains moves too.
    at_once = {key: 0 for key in ("anneal_updates", "dropout") if key in model_class(name).settings()}
    if isinstance(model_class(name).example_settings.get("dropout"), list):
        at_once["dropout"] = [0, 0]
    if model_class(name).updates_rows(settings(name).model):
        at_once["weight_decay"] = 0  # each replica decays the rows that it needs itself (DEVIATIONS.md)

    def build():
        model = built(name, **at_once)
        prepare(model, name, split_of(name))
        return model

    alone = build()
    with two_replicas.scope():
        together = build()
    for model in (alone, together):
        fit(model, 7, 7, epochs=1)  # of which one replica gets four, the other three
    start = build()
    assert alone.phase == alone.phase_of(0)
    learning = {variable.path for objective in alone.phase for variable in alone.objectives[objective].variables}
    for variable, *others in zip(alone.variables, together.variables, start.variables, strict=True):
        one, two, first = (v.numpy() for v in (variable, *others))
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=5e-6, err_msg=variable.path)
        if variable.path in learning:
            assert not np.array_equal(one, first), variable.path


@each_kind_by_gradient
def test_a_user_without_items_can_be_trained_on(name):
    model = built(name, n_users=6)
    items = np.zeros((6, N_ITEMS), np.float32)
    # Of six users one has any, so that a whole batch has none.
    items[4, [3, 17, 8, 21, 30]] = [4, 2, 5, 1, 3] if name in RATING else 1
    prepare_to_fit(model, type("Rows", (), {"train": csr_array(items), "scale": None}), 0.02)
    fit(model, model.histories.n_rows, min(3, model.histories.n_rows), epochs=1)
    assert all(np.isfinite(v.numpy()).all() for v in model.variables)


@every_model
def test_the_readme_lists_it(name):
    if not README.exists():
        pytest.skip("there is no README yet")
    assert f"`{name}`" in README.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", of_each_kind(SCORING_NEW_USERS))
def test_export_equals_in_process(name, fitted, split_of, tmp_path):
    split = split_of(name)
    export(fitted(name), split.item_ids, tmp_path / "exported", scale=split.scale)
    recommend = tf.saved_model.load(tmp_path / "exported").signatures["recommend"]
    histories = split.validation.history[:6]
    longest = int(np.diff(histories.indptr).max())
    padded = np.full((6, longest), -1, dtype=np.asarray(split.item_ids).dtype)
    ratings = np.zeros((6, longest), np.float32)
    for user in range(6):
        row = histories[[user]]
        padded[user, : row.nnz], ratings[user, : row.nnz] = split.item_ids[row.indices], row.data
    told = {"history": tf.constant(padded)} | ({"ratings": tf.constant(ratings)} if name in RATING else {})
    found = recommend(**told, k=tf.constant(5))
    items, scores = top_k(fitted(name), histories, k=5)
    if name in RATING:
        scores = np.clip(scores, *split.scale)
    np.testing.assert_array_equal(found["items"], split.item_ids[items])
    np.testing.assert_allclose(found["scores"], scores, rtol=1e-5, atol=1e-6)


# ---- of ratings -------------------------------------------------------------------------------------


@every_rating_model
def test_values_matter(name, fitted, rows):
    others = rows(name)._replace(values=6.0 - rows(name).values)
    scores = fitted(name).scores(rows(name))
    if name in SCORING_NEW_USERS:
        assert np.abs(fitted(name).scores(others) - scores).max() > 1e-3
    else:  # it knows its users by their numbers
        np.testing.assert_array_equal(fitted(name).scores(others), scores)


@every_rating_model
def test_columns_without_ratings_are_scored(name):
    ratings = random_ratings(24, N_ITEMS)  # nobody has rated the last item
    model = built(name, n_users=24)
    if name in BY_GRADIENT:
        fit(ready(model, ratings), 24, 10, epochs=2)
    else:
        model.fit_matrix(ratings, log=[].append)
    scores = model.scores(RowStore(ratings, with_values=True).gather(tf.range(24, dtype=tf.int64)))
    assert np.isfinite(scores).all() and 1 < scores.numpy()[:, -1].mean() < 5
