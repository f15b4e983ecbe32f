"""Ensembles as models: what they compute, how their weights are chosen, and whom they refuse as a member."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from rating_rows import random_ratings, ready

from tfvae.data.splits import StrongGeneralizationSettings, rating_holdout, strong_generalization
from tfvae.data.synthetic import synthetic
from tfvae.evaluation import mixing
from tfvae.evaluation.evaluate import evaluate, evaluator
from tfvae.evaluation.mixing import choose_weights
from tfvae.evaluation.results import Evaluation, RatingEvaluation
from tfvae.evaluation.scoring import top_k
from tfvae.models.base import knows_rating_sd
from tfvae.models.ease import EASE
from tfvae.models.ensemble import Ensemble, RatingEnsemble
from tfvae.models.pmf import BiasMF
from tfvae.nn.batches import RowStore, unpad
from tfvae.nn.ranking import standardized
from tfvae.serving.recommendations import recommend
from tfvae.system.errors import DivergedError, InputError
from tfvae.training.settings import settings_of

EASES = [{"model": "ease", "settings": {"regularization": strength}} for strength in (5.0, 50.0)]
WMF = {"model": "wmf", "settings": {"factors": 6, "regularization": 2.0}}
PVAE = {"model": "p-vae", "settings": {"embedding_dim": 6, "latent_dim": 3, "encoder_hidden": [5]}}
BIAS = {"model": "bias-mf", "settings": {"factors": 2}}


def silent(line):
    """Takes a line of the log."""


def fitted(train, *members, **given):
    model = Ensemble(train.shape[1], train.shape[0], members=members, **given)
    model.fit_matrix(train, log=silent)
    return model


def rows_of(split):
    return RowStore(split.validation.history).gather(tf.range(12, dtype=tf.int64))


# ---- what is computed --------------------------------------------------------------------------------


def test_a_row_is_standardised_over_the_catalogue():
    scores = standardized(tf.constant([[1.0, 2.0, 3.0, 6.0], [5.0, 5.0, 5.0, 5.0], [0.0, 0.0, 0.0, 0.0]]))
    # mean 3; sd √((4 + 1 + 0 + 9) / 4) = √3.5
    np.testing.assert_allclose(scores[0], np.array([-2, -1, 0, 3]) / np.sqrt(3.5), rtol=1e-6)
    np.testing.assert_array_equal(scores[1:], 0)


def test_a_row_whose_spread_is_that_of_rounding_has_none():
    row = np.full((1, 1001), 0.1, np.float32)
    row[0, 3] = np.nextafter(np.float32(0.1), np.float32(1))
    np.testing.assert_array_equal(standardized(tf.constant(row)), 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_diverged_member_is_not_taken_for_one_without_an_opinion(bad):
    assert np.isnan(standardized(tf.constant([[bad, 1.0, 2.0]]))).any()


def test_the_scores_are_the_weighted_mean_by_hand():
    model = Ensemble(3, 2, members=EASES)
    model.member_weights.assign([0.25, 0.75])
    model.recommenders[0].item_weights.assign([[0, 1, 3], [1, 0, 0], [0, 0, 0]])
    model.recommenders[1].item_weights.assign([[0, 100, 0], [0, 0, 0], [0, 0, 0]])
    # Of item 0 the first gives (0, 1, 3): mean 4/3, variance 14/9; the second (0, 100, 0): mean 100/3, sd 100 √2/3.
    one = (np.array([0, 1, 3]) - 4 / 3) / np.sqrt(14 / 9)
    other = np.array([-1, 2, -1]) / np.sqrt(2)
    np.testing.assert_allclose(model(np.array([[1, 0, 0]]))[0], 0.25 * one + 0.75 * other, rtol=1e-5)


def test_an_empty_history_has_finite_scores_of_zero():
    model = Ensemble(3, 2, members=EASES)
    np.testing.assert_array_equal(model.scores(unpad(tf.constant([[-1, -1]]))), np.zeros((1, 3)))


def test_neither_the_scale_nor_the_origin_of_a_member_changes_the_ranking(tiny_split, monkeypatch):
    model = fitted(tiny_split.train, *EASES, WMF)
    histories = tiny_split.validation.history
    items, scores = top_k(model, histories, k=10)
    original = model.recommenders[2].scores
    monkeypatch.setattr(type(model.recommenders[2]), "scores", lambda self, batch: 8 * original(batch) + 3)
    others, changed = top_k(model, histories, k=10)
    np.testing.assert_allclose(changed, scores, rtol=1e-3)
    assert (others == items).mean() > 0.99  # all but near ties


def test_its_weights_are_no_parameters_and_sum_to_one(tiny_split):
    model = fitted(tiny_split.train, *EASES, WMF)
    assert model.n_parameters == 2 * 40**2 + 40 * 6
    assert not model.trainable_variables
    np.testing.assert_allclose(model.member_weights, 1 / 3)


def test_a_member_without_a_seed_has_that_of_the_ensemble_plus_its_number():
    members = [{"model": "wmf"}, {"model": "wmf"}, {"model": "wmf", "training": {"seed": 7}}]
    model = Ensemble(5, 2, members=members, seed=2**32 - 1)
    assert [member.seed for member in model.recommenders] == [2**32 - 1, 0, 7]
    assert [member.name for member in model.recommenders] == ["0-wmf", "1-wmf", "2-wmf"]


# ---- whom it refuses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([{"model": "ease"}], "at least 2 items"),
        ([{"model": "ease"}, {"model": "eas"}], "did you mean 'ease'"),
        ([{"model": "ease"}, {"mode": "ease"}], "did you mean 'model'"),
        ([{"model": "ease"}, {}], "member: model: Field required"),
        ([{"model": "ease"}, "ease"], r"members\.1 = 'ease'"),
        ([{"model": "ease"}, {"model": "ensemble"}], "ensemble is an ensemble itself"),
        ([{"model": "ease"}, {"model": "neumf"}], "neumf only scores the users it was trained on"),
        ([{"model": "ease"}, {"model": "p-vae"}], "p-vae predicts ratings, other members do not"),
        ([{"model": "ease"}, {"model": "ease", "settings": {"regularisation": 3}}], "did you mean 'regularization'"),
        ([{"model": "ease"}, {"model": "ease", "settings": {"regularization": -3}}], "regularization = -3"),
        ([{"model": "ease"}, {"model": "ease", "settings": {"regularization": True}}], "expected no truth value"),
        ([{"model": "ease"}, {"model": "ease", "settings": {"seed": 3}}], "'training'"),
    ],
)
def test_what_cannot_be_a_member_is_refused(members, message):
    for build in (lambda: Ensemble(7, 3, members=members), lambda: settings_of("ensemble", {"members": members})):
        with pytest.raises(InputError, match=message):
            build()


def test_rankers_are_no_raters():
    with pytest.raises(InputError, match="ease ranks, other members do not"):
        RatingEnsemble(7, 3, members=[{"model": "bias-mf"}, {"model": "ease"}])
    with pytest.raises(InputError, match="metadata needs the items' own"):
        RatingEnsemble(7, 3, members=[{"model": "bias-mf"}, {"model": "p-vae", "settings": {"metadata": True}}])


@pytest.mark.parametrize(
    ("training", "message"),
    [({"epoch": 3}, "did you mean 'epochs'"), ({"epochs": 0}, "epochs = 0"), ({"latent_dim": 3}, "training setting")],
)
def test_training_settings_of_members_are_checked_with_those_of_the_run(training, message):
    members = [{"model": "ease"}, {"model": "mult-dae", "training": training}]
    with pytest.raises(InputError, match=message):
        settings_of("ensemble", {"members": members})


def test_fit_matrix_says_who_trains_members_by_gradient(tiny_split):
    model = Ensemble(40, 90, members=[*EASES, {"model": "mult-dae", "settings": {"latent_dim": 3}}])
    with pytest.raises(InputError, match=r"2-mult-dae is trained by gradient.*tfvae\.training\.loop\.train"):
        model.fit_matrix(tiny_split.train, log=silent)
    assert not model.recommenders[0].item_weights.numpy().any()


def test_only_a_model_with_the_members_settings_becomes_the_member():
    model = Ensemble(7, 3, members=[EASES[0], WMF])
    with pytest.raises(InputError, match="cannot be the member 1-wmf"):
        model.adopt(1, EASE(7))
    with pytest.raises(InputError, match="weights of other shapes"):
        model.adopt(0, EASE(8))


# ---- how the weights are chosen ----------------------------------------------------------------------


def choosing(monkeypatch, value, n_members=3, ratings=False):
    """The weights that are chosen where `value` maps weights to the metric of each user, and the number of trials."""
    kind, member = (RatingEnsemble, BIAS) if ratings else (Ensemble, EASES[0])
    model, tried = kind(7, 3, members=[member] * n_members), []

    def evaluator(of, held_out, metrics, batch_size):
        assert of is model and held_out == "validation"

        def measure():
            weights = model.member_weights.numpy().astype(float)
            tried.append(weights)
            np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)
            assert (weights >= 0).all()
            if ratings:
                return RatingEvaluation(np.full(4, value(weights)), np.zeros(4), np.arange(4))
            return Evaluation({metrics[0]: value(weights)}, np.arange(8))

        return measure

    monkeypatch.setattr(mixing, "evaluator", evaluator)
    found = choose_weights(model, "validation", "rmse" if ratings else "ndcg@10", silent)
    np.testing.assert_allclose(model.member_weights, found.weights, rtol=1e-6)
    return found, len(tried)


def test_weights_go_where_the_metric_is_better(monkeypatch):
    goal = np.array([4, 2, 1]) / 7
    found, _ = choosing(monkeypatch, lambda weights: np.full(8, 1 - np.abs(weights - goal).sum()))
    np.testing.assert_allclose(found.weights, goal, atol=1e-6)
    assert found.chosen == pytest.approx(1) and found.equal < 0.7


def test_a_gain_within_its_standard_error_changes_nothing(monkeypatch):
    signs = np.array([1, -1, 1, -1, 1, -1, 1, -1])
    for noise, moved in ((0.5, False), (0.01, True)):
        value = lambda weights, noise=noise: (0.1 + noise * signs) * weights[0]  # noqa: E731
        found, tried = choosing(monkeypatch, value)
        assert (found.weights[0] > 0.4) == moved
        assert moved or tried == 1 + 3 * 3  # equal weights, and one round


def test_of_the_last_member_the_weight_stays(monkeypatch):
    found, _ = choosing(monkeypatch, lambda weights: np.full(8, -weights[:2].sum()))
    np.testing.assert_array_equal(found.weights, [0, 0, 1])


def test_an_rmse_has_to_fall_by_more_than_a_ten_thousandth(monkeypatch):
    for slope, moved in ((1e-4, False), (1e-3, True)):
        found, _ = choosing(monkeypatch, lambda weights, slope=slope: 1 - slope * weights[0], ratings=True)
        assert (found.weights[0] > 0.4) == moved


def test_a_member_that_is_bad_gets_the_weight_zero_and_test_users_have_no_say(monkeypatch):
    events = synthetic(n_users=690, n_items=40, n_tastes=4, taste=0.9)  # of 30 users the noise is too large
    split = strong_generalization(events, StrongGeneralizationSettings(held_out_users=300))
    model = fitted(split.train, *EASES, WMF)
    model.recommenders[1].item_weights.assign(np.random.default_rng(0).normal(size=(40, 40)))
    seen, lines = [], []
    monkeypatch.setattr(mixing, "evaluator", lambda *given: seen.append(given[1]) or evaluator(*given))
    found = choose_weights(model, split.validation, "ndcg@10", lines.append)
    assert [part is split.validation for part in seen] == [True]
    assert found.weights[1] == 0 and found.weights[0] > 0 and found.chosen > found.equal
    assert evaluate(model, split.validation, ["ndcg@10"]).mean("ndcg@10") == found.chosen
    assert "1-ease 0.000" in lines[0] and f"{found.equal:.4f} with equal weights, {found.chosen:.4f}" in lines[0]


# ---- of ratings --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ratings():
    return rating_holdout(synthetic(n_users=90, n_items=40, n_tastes=4, taste=0.9)).for_tuning()


def test_predicted_ratings_are_averaged_as_they_are(ratings):
    model = RatingEnsemble.for_split(ratings, members=[BIAS, {"model": "pmf", "settings": {"factors": 2}}])
    model.fit_matrix(ratings.train, log=silent)
    model.member_weights.assign([0.2, 0.8])
    rows = RowStore(ratings.train, with_values=True).gather(tf.range(12, dtype=tf.int64))
    one, other = (member.scores(rows).numpy() for member in model.recommenders)
    np.testing.assert_allclose(model.scores(rows), 0.2 * one + 0.8 * other, rtol=1e-5)
    assert model.rating_unit == (ratings.scale[1] - ratings.scale[0]) / 4
    assert [member.rating_unit for member in model.recommenders] == [model.rating_unit] * 2
    alone = BiasMF.for_split(ratings, factors=2, seed=model.seed)
    alone.fit_matrix(ratings.train, log=silent)
    np.testing.assert_array_equal(alone.scores(rows), one)


def test_a_rating_members_badness_is_seen_on_validation(ratings):
    model = RatingEnsemble.for_split(ratings, members=[BIAS, BIAS, {"model": "pmf"}])
    model.fit_matrix(ratings.train, log=silent)
    model.recommenders[1].rating_mean.assign(50.0)
    found = choose_weights(model, ratings.validation, "rmse", silent)
    assert found.weights[1] == 0 and found.chosen < found.equal


def test_the_sd_is_that_of_the_mixture(ratings, tmp_path):
    model = RatingEnsemble(15, 24, members=[PVAE, BIAS, PVAE])
    matrix = random_ratings(24, 15)
    for member in (model.recommenders[0], model.recommenders[2]):
        ready(member, matrix)
        member.detach()
        member.sd_factor = 1.25
    model.recommenders[1].fit_matrix(matrix, log=silent)
    model.member_weights.assign([0.3, 0.5, 0.2])
    model.sd_factor = 1.5
    rows = RowStore(matrix, with_values=True).gather(tf.range(9, dtype=tf.int64))
    means = np.stack([member.scores(rows) for member in model.recommenders]).astype(float)
    one, other = (model.recommenders[number].rating_sd(rows).numpy().astype(float) for number in (0, 2))
    mean = np.tensordot([0.3, 0.5, 0.2], means, 1)
    between = np.tensordot([0.3, 0.5, 0.2], (means - mean) ** 2, 1)
    sd = 1.5 * np.sqrt(0.6 * one**2 + 0.4 * other**2 + between)
    assert knows_rating_sd(model)
    np.testing.assert_allclose(model.rating_sd(rows), sd, rtol=1e-4)
    chosen = np.tile([4, 0, 4], (len(sd), 1))
    of_chosen = model.rating_sd(rows, tf.constant(chosen, tf.int32))
    np.testing.assert_allclose(of_chosen, np.take_along_axis(np.asarray(sd), chosen, axis=1), rtol=1e-4)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.rating_sd(rows), model.rating_sd(rows))
    found = recommend(again, np.arange(15), [[3, 4]], k=3, ratings=[[5, 1]], scale=(1, 5))
    assert found.sd.shape == (1, 3) and (found.sd > 0).all()
    model.member_weights.assign([0, 1, 0])  # those that know an sd still give it
    np.testing.assert_allclose(model.rating_sd(rows), 1.5 * np.sqrt((one**2 + other**2) / 2), rtol=1e-4)


def test_without_a_member_that_knows_an_sd_there_is_none():
    model = RatingEnsemble(7, 7, members=[BIAS, BIAS])
    assert not knows_rating_sd(model)
    with pytest.raises(InputError, match="no member of this ensemble knows"):
        model.rating_sd(RowStore(random_ratings(7, 7), with_values=True).gather(tf.range(3, dtype=tf.int64)))


def test_a_diverged_member_ends_the_ranking(tiny_split):
    model = fitted(tiny_split.train, *EASES)
    model.recommenders[0].item_weights.assign(np.full((40, 40), np.nan, np.float32))
    with pytest.raises(DivergedError, match="ensemble gave NaN"):
        top_k(model, tiny_split.validation.history, k=3)
