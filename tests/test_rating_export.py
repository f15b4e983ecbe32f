"""Predicted ratings by external ids: against the matrix's own door, in this process and in one without tfvae."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from rating_rows import dense, random_ratings, ratings_at, ready

from tfvae.evaluation.predictive import Predictions
from tfvae.models import MODELS, model_class
from tfvae.models.base import knows_rating_sd
from tfvae.models.pvae import PVAE
from tfvae.nn.batches import RowStore
from tfvae.nn.noise import Noise
from tfvae.serving.recommendations import Recommendations, recommend
from tfvae.serving.saved_model import export
from tfvae.system.errors import DivergedError, InputError
from tfvae.training.settings import settings_of

pytestmark = pytest.mark.slow

N_USERS, N_ITEMS, K, SCALE = 24, 15, 10, (1, 5)
RATINGS = random_ratings(N_USERS, N_ITEMS)
STRANGERS = random_ratings(9, N_ITEMS, seed=3, empty=(4,))
NUMBERS = np.random.default_rng(1).permutation(1000)[:N_ITEMS] - 200  # in no order; some are negative
STRINGS = np.array([f"tt{number:04d}é" for number in range(N_ITEMS)])
SMALL = {
    "p-vae": {"embedding_dim": 6, "latent_dim": 3, "decoder_hidden": [5], "variance": 0.8},
    "two-sided-p-vae": {"hidden": [4, 4], "latent_dim": [3, 3], "ridge": 1.0},
    "autorec": {"units": 6},
    "rbm": {"units": 6},
    "pmf": {"factors": 2, "regularization": 0.05},
    "bias-mf": {"factors": 2, "regularization": 0.05},
    "rating-ensemble": {
        "members": [
            {"model": "bias-mf", "settings": {"factors": 2, "regularization": 0.05}},
            {"model": "pmf", "settings": {"factors": 2, "regularization": 0.05}},
        ]
    },
}
NAMES = [name for name in MODELS if model_class(name).predicts_ratings and model_class(name).scores_new_users]
every_model = pytest.mark.parametrize("name", NAMES)

CLIENT = """
import sys
sys.modules["tfvae"] = None
import numpy as np
import tensorflow as tf
for folder in sys.argv[1:]:
    model = tf.saved_model.load(folder)
    with np.load(folder + ".npz") as asked:
        told = {name: tf.constant(asked[name]) for name in ("history", "ratings")}
    found = model.signatures["recommend"](**told, k=tf.constant(10))
    default = model.signatures["serving_default"](**told)
    np.savez(folder + ".answers.npz", **found, **{"default_" + name: tensor for name, tensor in default.items()})
"""


def randomized(model, scale=0.5):
    """The model with weights that are large enough to tell rows apart, and samples of a code too."""
    generator = np.random.default_rng(1)
    for variable in model.trainable_variables:
        if "bias" not in variable.name:
            variable.assign(generator.normal(scale=scale, size=variable.shape))
    return model


def built(name, **changes):
    model = settings_of(name, SMALL[name] | changes).build(N_ITEMS, N_USERS)
    if hasattr(model, "fit_matrix"):
        model.fit_matrix(RATINGS, log=lambda line: None)
        return model
    return randomized(ready(model, RATINGS))


@pytest.fixture(scope="module")
def models():
    return {name: built(name) for name in NAMES}


@pytest.fixture(scope="module")
def servings(models):
    return {name: Recommendations(model, NUMBERS, scale=SCALE) for name, model in models.items()}


def told(matrix, item_ids=NUMBERS):
    """Each row's item ids and ratings, in an order that is not the matrix's."""
    rows = [matrix[[row]] for row in range(matrix.shape[0])]
    return [item_ids[row.indices[::-1]].tolist() for row in rows], [row.data[::-1].tolist() for row in rows]


def rows_of(matrix):
    return RowStore(matrix, with_values=True).gather(tf.range(matrix.shape[0], dtype=tf.int64))


def expected_of(model, matrix, item_ids, k=K):
    """Ids, bounded predictions and sds of the best unseen items, by a dense sort."""
    scores = model.scores(rows_of(matrix)).numpy()
    spread = model.rating_sd(rows_of(matrix)).numpy() if knows_rating_sd(model) else None
    unseen = np.where(dense(matrix)[1], -np.inf, scores)
    best = np.argsort(-unseen, axis=1, kind="stable")[:, :k]
    empty = np.isneginf(np.take_along_axis(unseen, best, axis=1))
    items = np.where(empty, "" if item_ids.dtype.kind == "U" else -1, item_ids[best])
    bounded = np.where(empty, -np.inf, np.clip(np.take_along_axis(scores, best, axis=1), *SCALE))
    return items, bounded, None if spread is None else np.where(empty, np.nan, np.take_along_axis(spread, best, axis=1))


def assert_found(found, expected):
    items, scores, spread = expected
    np.testing.assert_array_equal(found["items"], items)
    np.testing.assert_allclose(found["scores"], scores, rtol=1e-4)
    assert ("sd" in found) == (spread is not None)
    if spread is not None:
        np.testing.assert_allclose(found["sd"], spread, rtol=1e-4)
    np.testing.assert_array_equal(found["unknown"], 0)


def fields(ranking):
    return {name: value for name, value in ranking._asdict().items() if value is not None}


@pytest.mark.parametrize("item_ids", [NUMBERS, STRINGS], ids=["numbers", "strings"])
@every_model
def test_in_process_it_predicts_as_the_model_does(models, name, item_ids):
    matrix = STRANGERS.copy()
    histories, ratings = told(matrix, item_ids)
    found = recommend(models[name], item_ids, histories, K, ratings=ratings, scale=SCALE)
    assert_found(fields(found), expected_of(models[name], matrix, item_ids))
    assert (found.sd is not None) == (name == "p-vae")


@pytest.mark.long
@pytest.mark.parametrize("names", [["p-vae", "bias-mf"], NAMES], ids=len)
def test_an_export_answers_the_same_in_a_process_without_tfvae(names, models, tmp_path):
    for name in names:
        export(models[name], NUMBERS, tmp_path / name, scale=SCALE)
        history, ratings = np.full((9, N_ITEMS), -1), np.full((9, N_ITEMS), 77, np.float32)  # 77 at pads
        for row, (ids, given) in enumerate(zip(*told(STRANGERS), strict=True)):
            places = np.random.default_rng(row).permutation(N_ITEMS)[: len(ids)]
            history[row, places], ratings[row, places] = ids, given
        np.savez(tmp_path / f"{name}.npz", history=history, ratings=ratings)
    client = [sys.executable, "-c", CLIENT, *(str(tmp_path / name) for name in names)]
    subprocess.run(client, check=True, cwd=tmp_path, timeout=600, capture_output=True)
    for name in names:
        with np.load(tmp_path / f"{name}.answers.npz") as answers:
            found = {key: answers[key] for key in answers.files if not key.startswith("default")}
            assert_found(found, expected_of(models[name], STRANGERS, NUMBERS))
            assert answers["default_scores"].shape == (9, 100)
            np.testing.assert_array_equal(answers["default_items"][:, :K], found["items"])


@every_model
def test_of_a_repeated_id_the_last_rating_counts(servings, name):
    a, b, c = NUMBERS[[4, 9, 2]].tolist()
    plain = servings[name]([[a, b]], K, [[2, 5]])
    for history, ratings in [([a, b, a], [4, 5, 2]), ([a, a, b], [5, 2, 5]), ([b, a, b, b], [1, 2, 3, 5])]:
        again = servings[name]([history], K, [ratings])
        np.testing.assert_array_equal(again.items, plain.items)
        np.testing.assert_allclose(again.scores, plain.scores, rtol=1e-5)
    first = servings[name]([[a, b, a]], K, [[2, 5, 4]])
    assert np.abs(np.sort(first.scores) - np.sort(plain.scores)).max() > 1e-4


@every_model
def test_order_and_company_do_not_matter(servings, name):
    histories, ratings = told(STRANGERS)
    together = servings[name](histories, K, ratings)
    alone = servings[name]([histories[6][::-1]], K, [ratings[6][::-1]])
    np.testing.assert_array_equal(alone.items[0], together.items[6])
    np.testing.assert_allclose(alone.scores[0], together.scores[6], rtol=1e-5)
    if name == "p-vae":
        np.testing.assert_allclose(alone.sd[0], together.sd[6], rtol=1e-5)


def test_unknown_ids_are_counted_and_their_ratings_ignored(servings):
    known, unknown = NUMBERS[[4, 9]].tolist(), 77777
    plain = servings["p-vae"]([known, []], K, [[2, 5], []])
    noisy = servings["p-vae"]([[unknown, *known, unknown], [unknown]], K, [[1, 2, 5, 3], [4]])
    for one, other in ((plain.items, noisy.items), (plain.scores, noisy.scores), (plain.sd, noisy.sd)):
        np.testing.assert_array_equal(one, other)
    assert noisy.unknown.tolist() == [2, 1]


def test_predictions_beyond_the_scale_are_ranked_before_they_are_bounded():
    model = PVAE(N_ITEMS, **SMALL["p-vae"])
    model.decoder.kernel.assign(tf.zeros_like(model.decoder.kernel))
    beyond = np.linspace(4.5, 6, N_ITEMS)
    model.decoder.bias.assign(beyond)
    found = recommend(model, NUMBERS, [[]], N_ITEMS + 2, ratings=[[]], scale=SCALE)
    np.testing.assert_array_equal(found.items[0], [*NUMBERS[::-1], -1, -1])
    np.testing.assert_allclose(found.scores[0], [*np.minimum(beyond, 5)[::-1], -np.inf, -np.inf], rtol=1e-6)
    np.testing.assert_allclose(found.sd[0], [*[0.8**0.5] * N_ITEMS, np.nan, np.nan], rtol=1e-6)


def test_a_rating_of_zero_is_a_rating(models):
    histories = [NUMBERS[[0]].tolist(), []]
    zero, nothing = recommend(models["bias-mf"], NUMBERS, histories, N_ITEMS, ratings=[[0], []], scale=(0, 5)).scores
    assert np.isneginf(zero[-1]) and not np.isneginf(nothing[-1])
    assert np.abs(zero - nothing)[:-1].max() > 0.1


def test_the_sd_is_that_of_the_mixture_over_fixed_samples():
    model = built("p-vae", variance=0.3)
    rows = rows_of(STRANGERS)
    posterior = model.posterior(rows)
    epsilons = Noise(model.seed, tf.constant(0, tf.int64)).normal([10, 3], "rating_sd").numpy()
    codes = posterior.mean().numpy() + posterior.stddev().numpy() * epsilons[:, None]
    means = np.stack([model.decoder(model.hidden(tf.constant(z))).numpy() for z in codes])
    by_hand = np.sqrt(0.3 + ((means - means.mean(axis=0)) ** 2).mean(axis=0))
    np.testing.assert_allclose(model.rating_sd(rows), by_hand, rtol=1e-4)
    np.testing.assert_allclose(model.rating_sd(rows), Predictions(means, 0.3).sd, rtol=1e-4)
    assert np.ptp(by_hand) > 0.05  # the code's part is not nothing
    chosen = np.random.default_rng(0).integers(0, N_ITEMS, (len(by_hand), 5))
    of_chosen = model.rating_sd(rows, tf.constant(chosen, tf.int32))
    np.testing.assert_allclose(of_chosen, np.take_along_axis(by_hand, chosen, axis=1), rtol=1e-4)
    np.testing.assert_array_equal(*(tf.function(model.rating_sd, autograph=False)(rows) for _ in range(2)))


@pytest.mark.parametrize("log_variance", [1.0, -1.0, -4.0])
def test_the_sd_of_a_linear_decoder_is_the_closed_form(log_variance):
    # r = z + noise with z ~ N(0, s²): the variance is σ² + s². The encoder's last layer is set to give that posterior.
    model = PVAE(1, latent_dim=1, decoder_hidden=(), variance=1.0)
    model.decoder.kernel.assign([[1.0]])
    last = model.encoder.rest[-1]
    last.kernel.assign(tf.zeros_like(last.kernel))
    last.bias.assign([0.0, log_variance])
    sd = model.rating_sd(rows_of(ratings_at(np.array([[True]]), np.ones((1, 1)))), n_samples=400)
    np.testing.assert_allclose(sd, [[np.sqrt(1 + np.exp(log_variance))]], rtol=0.05)


def test_without_a_posterior_there_is_no_sd():
    model = built("p-vae", stochastic=False)
    assert recommend(model, NUMBERS, [[]], K, ratings=[[]], scale=SCALE).sd is None
    with pytest.raises(InputError, match="no posterior"):
        model.rating_sd(rows_of(STRANGERS))


@every_model
def test_an_empty_history_gets_what_the_model_expects_of_anybody(servings, models, name):
    nothing = ratings_at(np.zeros((1, N_ITEMS), bool), np.zeros((1, N_ITEMS)))
    found = servings[name]([[]], K, [[]])
    assert_found(fields(found), expected_of(models[name], nothing, NUMBERS))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ratings": None}, "predicts ratings from ratings; give them too"),
        ({"ratings": [[5]]}, "expected ratings for 2 histories, found them for 1"),
        ({"ratings": [[5], [1]]}, r"history 1 \(counted from 0\): expected 2 ratings, one for each item, found 1"),
        ({"ratings": [5, 1]}, r"history 0 \(counted from 0\): expected 1 ratings"),
        ({"ratings": [["good"], [1, 2]]}, r"history 0 .*list of numbers as its ratings, found \['good'\]"),
        ({"ratings": [[5], [1, 5.5]]}, r"history 1 .* from 1 to 5, .* found 5\.5 for item 2"),
        ({"ratings": [[0], [1, 5]]}, r"history 0 .* from 1 to 5, .* found 0 for item 1"),
        ({"ratings": [[float("nan")], [1, 5]]}, "found nan for item 1"),
        ({"scale": None}, r"predicts ratings; give the scale .* scale=split\.scale"),
        ({"scale": (5, 1)}, r"the lowest rating and a higher one as scale, found \(5, 1\)"),
    ],
)
def test_ratings_that_do_not_fit_are_refused(models, changes, message):
    arguments = {"histories": [[1], [1, 2]], "ratings": [[5], [1, 2]], "scale": SCALE} | changes
    with pytest.raises(InputError, match=message):
        recommend(models["bias-mf"], NUMBERS, **arguments)


def test_an_export_refuses_what_does_not_fit_too(models, tmp_path):
    export(models["bias-mf"], NUMBERS, tmp_path / "model", titles=[f"t{n}" for n in NUMBERS], scale=SCALE)
    served = tf.saved_model.load(tmp_path / "model").signatures["recommend"]

    def ask(*ratings):
        return served(history=tf.constant([[4, 5, -1]], tf.int64), ratings=tf.constant([ratings]), k=tf.constant(3))

    assert sorted(ask(1.0, 5.0, 77.0)) == ["items", "scores", "titles", "unknown"]
    for off in (5.5, 0.0, np.nan):
        with pytest.raises(tf.errors.InvalidArgumentError, match="expected ratings from 1 to 5, found"):
            ask(1.0, off, 0.0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="history and ratings of one shape"):
        ask(1.0)


def test_an_uncertainty_that_is_no_number_is_refused():
    model = built("p-vae")
    model.encoder.rest[-1].bias.assign([0.0] * 3 + [np.inf] * 3)
    with pytest.raises(DivergedError, match="NaN or infinite"):
        recommend(model, NUMBERS, [[]], K, ratings=[[]], scale=SCALE)
