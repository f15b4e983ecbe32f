"""The two-sided p-VAE: that it is two p-VAEs, that neither disturbs the other, and its closed form against NumPy."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from plain_fit import fit
from rating_rows import dense, random_ratings, ready

from tfvae.data.interactions import Interactions
from tfvae.data.splits import RatingHoldoutSettings, rating_holdout
from tfvae.models.pvae import PVAE
from tfvae.models.two_sided import ITEMS, USERS, TwoSidedPVAE
from tfvae.nn.batches import RowStore, SparseBatch
from tfvae.nn.noise import Noise
from tfvae.system.errors import InputError
from tfvae.training.loop import train
from tfvae.training.settings import settings_of

RATINGS = random_ratings(12, 9)
N_USERS, N_ITEMS = RATINGS.shape
SMALL = {"hidden": (5, 6), "latent_dim": (3, 4), "ridge": 2.0}


def rows_of(ratings) -> SparseBatch:
    return RowStore(ratings, with_values=True).gather(tf.range(ratings.shape[0], dtype=tf.int64))


def attached(**changes) -> TwoSidedPVAE:
    """The model with ratings, and with weights that are large enough to tell formulas apart."""
    model = ready(TwoSidedPVAE(N_ITEMS, N_USERS, **SMALL | changes), RATINGS)
    generator = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(generator.normal(scale=0.5, size=variable.shape))
    model.end_epoch()
    return model


def objective(model: TwoSidedPVAE) -> dict[str, tf.Tensor]:
    return model.objective(rows_of(RATINGS), Noise(3, tf.constant(0, tf.int64)))


def copy_of(side: PVAE, **changes) -> PVAE:
    """A p-VAE by itself with the weights of one side."""
    alone = PVAE.from_config(side.get_config() | changes)
    alone.set_weights(side.get_weights())
    return alone


def test_without_the_item_side_it_is_the_p_vae_of_users():
    model = attached(weight=0.0)
    rows = rows_of(RATINGS)
    np.testing.assert_array_equal(model.scores(rows), copy_of(model.user_side).scores(rows))


def test_without_the_user_side_it_is_the_p_vae_of_items_with_the_users_vectors_in_closed_form():
    model = attached(weight=1.0)
    rows = rows_of(RATINGS)
    items = copy_of(model.item_side)
    vectors = model.user_vectors(rows).numpy()
    items.decoder.bias.assign(vectors[:, 0])
    items.decoder.kernel.assign(vectors[:, 1:])
    predicted = items.scores(rows_of(RATINGS.T.tocsr())).numpy().T
    np.testing.assert_allclose(model.scores(rows), predicted, rtol=1e-4, atol=1e-5)


def test_between_them_it_is_the_weighted_mean():
    rows = rows_of(RATINGS)
    of_users, of_items, mixed = (attached(weight=weight).scores(rows).numpy() for weight in (0.0, 1.0, 0.3))
    np.testing.assert_allclose(mixed, 0.7 * of_users + 0.3 * of_items, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("trained_on", [True, False])
def test_a_user_vector_has_the_least_expected_squared_error(trained_on):
    model = attached()
    ratings = RATINGS if trained_on else random_ratings(4, N_ITEMS, seed=7, empty=(1,))
    codes = model.item_codes.numpy().astype(np.float64)
    means, sds = codes[:, :4], np.exp(codes[:, 4:] / 2)
    average = np.append(model.item_side.decoder.bias.numpy().mean(), model.item_side.decoder.kernel.numpy().mean(0))
    found = model.user_vectors(rows_of(ratings)).numpy()
    values, observed = dense(ratings)
    for user, (row, seen) in enumerate(zip(values, observed, strict=True)):
        # As one least-squares problem: the ratings, then what is expected of the codes' noise, then the penalties.
        of_ratings = np.c_[np.ones(seen.sum()), means[seen]]
        of_noise = np.c_[np.zeros(4), np.diag(np.sqrt((sds[seen] ** 2).sum(axis=0)))]
        of_penalties = np.diag(np.sqrt([1.0, 2.0, 2.0, 2.0, 2.0]))
        system = np.vstack([of_ratings, of_noise, of_penalties])
        target = np.concatenate([row[seen], np.zeros(4), of_penalties @ average])
        expected = np.linalg.lstsq(system, target, rcond=None)[0]
        np.testing.assert_allclose(found[user], expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found[1 if not trained_on else 2], average, rtol=1e-4, atol=1e-5)


def test_each_loss_is_the_bound_of_its_side():
    model = attached(dropout=(0.3, 0.3))
    means = objective(model)
    of_users = copy_of(model.user_side).objective(rows_of(RATINGS), Noise(3, tf.constant(0, tf.int64)))
    by_items = RATINGS.T.tocsr()[model.items_of_update(tf.constant(N_USERS, tf.int64)).numpy()]
    of_items = copy_of(model.item_side).objective(
        rows_of(by_items), Noise(model.item_side.seed, tf.constant(0, tf.int64))
    )
    for side, alone in ((USERS, of_users), (ITEMS, of_items)):
        for name, part in (("", "loss"), ("_nll", "nll"), ("_kl", "kl")):
            np.testing.assert_allclose(means[side + name], alone[part], rtol=1e-5)


def test_each_side_learns_from_its_own_bound_alone():
    model = attached()
    sides = {USERS: model.user_side.trainable_variables, ITEMS: model.item_side.trainable_variables}
    assert {name: objective.loss for name, objective in model.objectives.items()} == {USERS: USERS, ITEMS: ITEMS}
    ours = [{id(variable) for variable in objective.variables} for objective in model.objectives.values()]
    assert not ours[0] & ours[1] and ours[0] | ours[1] == {id(v) for v in model.trainable_variables}
    with tf.GradientTape(persistent=True) as tape:
        means = objective(model)
    for loss in sides:
        for of, variables in sides.items():
            gradients = tape.gradient(means[loss], [variable.value for variable in variables])
            assert all((gradient is None) != (loss == of) for gradient in gradients)


def test_what_is_not_observed_has_no_gradient():
    model = attached()
    with tf.GradientTape(persistent=True) as tape:
        means = objective(model)
    _, observed = dense(RATINGS)
    for side, part, columns in ((USERS, model.user_side, observed.any(0)), (ITEMS, model.item_side, observed.any(1))):
        assert columns.any() and not columns.all()
        for weight in (part.decoder.kernel, part.decoder.bias, part.encoder.embedding):
            gradient = tf.convert_to_tensor(tape.gradient(means[side], weight.value)).numpy()
            moved = np.abs(gradient.reshape(len(columns), -1)).sum(axis=1) > 0
            np.testing.assert_array_equal(moved, columns)


@pytest.mark.parametrize("batch_size", [1, 5, 12])
def test_an_epoch_meets_every_item_once(batch_size):
    model = attached()
    orders = []
    for epoch in range(2):
        met = []
        for first in range(0, N_USERS, batch_size):
            model.rows_seen.assign(epoch * N_USERS + first)
            share = model.items_of_update(tf.constant(min(batch_size, N_USERS - first), tf.int64)).numpy()
            assert len(share) > 0
            met.extend(share)
        if batch_size > 1:  # 12 updates of 9 items: none goes without
            np.testing.assert_array_equal(np.sort(met), np.arange(N_ITEMS))
        assert set(met) == set(range(N_ITEMS))
        orders.append(met)
    assert orders[0] != orders[1]


@pytest.mark.slow
def test_items_have_the_codes_of_the_encoder_after_each_epoch():
    model = attached()
    kept, expected = [model.item_codes.numpy()], []

    def look(*_):  # as validation and saving do
        kept.append(model.item_codes.numpy())
        expected.append(model.item_side.code(rows_of(RATINGS.T.tocsr())))

    fit(model, N_USERS, 5, epochs=2, callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=look)])
    np.testing.assert_allclose(kept[1:], expected, rtol=1e-5, atol=1e-6)
    assert min(np.abs(np.diff(kept, axis=0)).max(axis=(1, 2))) > 1e-3


@pytest.mark.slow
def test_it_learns_both_kinds_of_taste():
    generator = np.random.default_rng(0)
    users, items = generator.normal(size=(60, 1)), generator.normal(size=(1, 40))
    values = 3 + users * items
    observed = generator.random(values.shape) < 0.6
    split = rating_holdout(Interactions.from_events(*np.nonzero(observed), values[observed]), RatingHoldoutSettings())
    model = TwoSidedPVAE(40, 60, hidden=(10, 10), latent_dim=(4, 4), variance=(0.2, 0.2), weight_decay=(0.01, 0.01))
    fit(ready(model, split.train, 0.05), 60, 60, epochs=50)
    rows, columns, ratings = split.test.triples()
    predicted = model.scores(rows_of(split.train)).numpy()[rows, columns]
    assert np.sqrt(np.mean((predicted - ratings) ** 2)) < 0.6 * ratings.std()


@pytest.mark.long
@pytest.mark.slow
def test_no_test_rating_enters(tmp_path):
    interactions = Interactions.from_events(*RATINGS.nonzero(), RATINGS.data.astype(float))
    split = rating_holdout(interactions, RatingHoldoutSettings())
    blind = dataclasses.replace(split, test=None)
    settings = settings_of("two-sided-p-vae", SMALL | {"epochs": 2, "batch_size": 5})
    one, other = (
        train(settings, given, tmp_path / name, progress=False).model
        for given, name in ((split, "one"), (blind, "other"))
    )
    for first, second in zip(one.variables, other.variables, strict=True):
        np.testing.assert_array_equal(first, second, err_msg=first.path)


@pytest.mark.slow
def test_going_on_does_not_start_again_from_the_ratings():
    model = attached()
    fit(model, N_USERS, 5, epochs=1)
    before = [variable.numpy() for variable in model.variables]
    model.attach(RATINGS)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_ratings_of_other_users_are_refused():
    with pytest.raises(InputError, match="give it n_users"):
        TwoSidedPVAE(N_ITEMS)
    with pytest.raises(InputError, match="made for 11 users, the training matrix has 12"):
        TwoSidedPVAE(N_ITEMS, 11, **SMALL).attach(RATINGS)
