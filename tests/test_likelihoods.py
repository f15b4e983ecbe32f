"""The likelihoods against TFP's own, and the sparse door and its gradient against the dense one."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from dense_reference import random_rows, rows_of
from scipy.special import logsumexp

from tfvae.nn.likelihoods import LIKELIHOODS, Bernoulli, Gaussian, Logistic, Multinomial, likelihood
from tfvae.system.errors import InputError

tfd = tfp.distributions


def logits(seed=3, n_users=7, n_items=13, scale=2.0):
    return tf.constant(np.random.default_rng(seed).normal(0, scale, (n_users, n_items)), tf.float32)


ALL = {
    "multinomial": Multinomial,
    "gaussian": lambda f: Gaussian(f, c1=3.0, c0=0.5),
    "logistic": Logistic,
    "bernoulli": Bernoulli,
}


def test_every_likelihood_is_tested():
    assert ALL.keys() == LIKELIHOODS.keys()


@pytest.mark.parametrize("counts", ["binary", "repeated"])
def test_multinomial_is_tfps_less_exactly_its_coefficient(counts):
    x = random_rows() * (1 if counts == "binary" else np.random.default_rng(0).integers(1, 4, (7, 13)))
    x = tf.constant(x, tf.float32)
    n = tf.reduce_sum(x, axis=1)
    theirs = tfd.Multinomial(n, logits=logits()).log_prob(x)
    coefficient = tf.math.lgamma(n + 1) - tf.reduce_sum(tf.math.lgamma(x + 1), axis=1)
    np.testing.assert_allclose(theirs - Multinomial(logits()).log_prob(x), coefficient, rtol=1e-5, atol=1e-5)
    assert coefficient.numpy().max() > 1


def test_gaussian_is_tfps_less_a_constant_that_does_not_depend_on_f():
    x, c1, c0 = random_rows(), 3.0, 0.5
    confidence = np.where(x > 0, c1, c0).astype(np.float32)
    constant = 0.5 * np.log(confidence / (2 * np.pi)).sum(axis=1)
    for f in (logits(1), logits(2)):
        theirs = tf.reduce_sum(tfd.Normal(f, confidence**-0.5).log_prob(x), axis=1)
        np.testing.assert_allclose(theirs - Gaussian(f, c1, c0).log_prob(x), constant, rtol=1e-4, atol=1e-4)


def test_logistic_is_tfps():
    x = random_rows()
    theirs = tf.reduce_sum(tfd.Bernoulli(logits=logits()).log_prob(x), axis=1)
    np.testing.assert_allclose(Logistic(logits()).log_prob(x), theirs, rtol=1e-6)


def clamped(x, f):
    """EVCF's form, on float64: log-probabilities of clamped shares."""
    share = tf.clip_by_value(tf.sigmoid(tf.cast(f, tf.float64)), 1e-5, 1 - 1e-5)
    return tf.reduce_sum(x * tf.math.log(share) + (1 - x) * tf.math.log(1 - share), axis=1)


@pytest.mark.parametrize("scale", [2.0, 10.0, 100.0])
def test_bernoulli_equals_the_form_with_clamped_probabilities(scale):
    x, f = random_rows(), logits(scale=scale)
    assert (np.abs(f) > 11.5).any() == (scale > 2)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(f)
        ours, theirs = Bernoulli(f).log_prob_rows(rows_of(x)), clamped(x, f)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    np.testing.assert_allclose(Bernoulli(f).log_prob(x), theirs, rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(ours, f), tape.gradient(theirs, f), rtol=1e-4, atol=1e-6)


def test_bernoulli_is_logistic_between_its_bounds_and_flat_beyond():
    furthest = np.log((1 - 1e-5) / 1e-5)  # 11.51
    f = tf.constant([[-1e4, -11.6, -11.4, -3.0, 0.0, 3.0, 11.4, 11.6, 1e4]])
    within = np.abs(f) < furthest
    for ones in (0.0, 1.0):
        x = np.full((1, 9), ones, np.float32)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(f)
            ours, theirs = (kind(f).log_prob_rows(rows_of(x)) for kind in (Bernoulli, Logistic))
        expected = np.where(within, tape.gradient(theirs, f), 0.0)
        np.testing.assert_allclose(tape.gradient(ours, f), expected, rtol=1e-6)
        assert (np.asarray(tape.gradient(ours, f)) != 0).tolist() == within.tolist()
    worst = Bernoulli(tf.constant([[1e4, -1e4]])).log_prob([[0.0, 1.0]])
    assert float(worst[0]) == pytest.approx(2 * np.log(1e-5), rel=1e-5)
    np.testing.assert_allclose(Bernoulli(f).mean().numpy()[0, [0, 4, 8]], [1e-5, 0.5, 1 - 1e-5], rtol=1e-5)


def test_hand_worked_values():
    f, x = tf.constant([[0.0, np.log(3.0)]]), tf.constant([[0.0, 1.0]])
    np.testing.assert_allclose(Multinomial(f).log_prob(x), [np.log(3 / 4)], rtol=1e-6)
    np.testing.assert_allclose(Logistic(f).log_prob(x), [np.log(1 / 2) + np.log(3 / 4)], rtol=1e-6)
    np.testing.assert_allclose(Gaussian(tf.constant([[0.5, 0.0]]), 4.0, 2.0).log_prob(x), [-0.25 - 2], rtol=1e-6)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("empty", [(2, 5), range(7)], ids=["some empty", "all empty"])
def test_the_sparse_door_and_its_gradient_equal_the_dense_one(name, empty):
    x, f = random_rows(empty=empty), tf.Variable(logits())
    upstream = tf.constant(np.random.default_rng(5).normal(size=7), tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        distribution = ALL[name](tf.convert_to_tensor(f))
        dense, sparse = distribution.log_prob(x), distribution.log_prob_rows(rows_of(x))
        totals = [tf.reduce_sum(values * upstream) for values in (dense, sparse)]
    np.testing.assert_allclose(sparse, dense, rtol=2e-6, atol=2e-6)
    dense_gradient, sparse_gradient = (tape.gradient(total, f) for total in totals)
    assert np.abs(dense_gradient).max() > 0.1 or (name == "multinomial" and not x.any())
    np.testing.assert_allclose(sparse_gradient, dense_gradient, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", ALL)
def test_the_gradient_of_the_sparse_door_by_finite_differences(name):
    x, f = random_rows(), logits(scale=1.0)
    with tf.GradientTape() as tape:
        tape.watch(f)
        total = tf.reduce_sum(ALL[name](f).log_prob_rows(rows_of(x)))
    gradient, step = tape.gradient(total, f).numpy(), 0.01
    for user, item in [(0, 0), (0, int(np.flatnonzero(x[0])[0])), (2, 3)]:
        move = np.zeros((7, 13), np.float32)
        move[user, item] = step
        up, down = (ALL[name](f + sign * move).log_prob(x).numpy()[user] for sign in (1, -1))
        assert gradient[user, item] == pytest.approx((up - down) / (2 * step), abs=2e-3)


@pytest.mark.parametrize("name", ALL)
def test_the_gradient_is_the_same_on_a_graphics_card(name, monkeypatch):
    x, f = random_rows(empty=(2, 5)), logits()

    def gradient():
        with tf.GradientTape() as tape:
            tape.watch(f)
            total = tf.reduce_sum(ALL[name](f).log_prob_rows(rows_of(x)))
        return tape.gradient(total, f).numpy()

    here = gradient()
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda *_: ["a card"])
    np.testing.assert_array_equal(gradient(), here)


@pytest.mark.parametrize("empty", [(2, 5), range(7)], ids=["some empty", "all empty"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_a_fixed_last_layer_has_the_same_density_and_passes_the_same_gradient_on(dtype, tolerance, empty):
    x, rng = random_rows(empty=empty), np.random.default_rng(2)
    exact, kernel, bias = (tf.constant(rng.normal(size=shape), tf.float32) for shape in ((7, 4), (13, 4), (13,)))
    upstream = tf.constant(rng.normal(size=7), tf.float32)
    hidden = tf.cast(exact, dtype)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([exact, hidden, kernel, bias])
        plain = Multinomial(exact @ tf.transpose(kernel) + bias).log_prob_rows(rows_of(x))
        products = tf.cast(tf.stop_gradient(hidden) @ tf.cast(tf.transpose(kernel), dtype), tf.float32)
        fixed = tf.stop_gradient(products + bias)
        found = Multinomial(fixed).log_prob_rows_of(hidden, tf.stop_gradient(kernel), rows_of(x))
        wanting = tf.reduce_sum(Multinomial(products + bias).log_prob_rows_of(hidden, kernel, rows_of(x)))
        totals = [tf.reduce_sum(values * upstream) for values in (plain, found)]
    scale = 1 + x.sum()
    np.testing.assert_allclose(found, plain, rtol=tolerance, atol=tolerance * scale)
    expected, hidden_gradient = tape.gradient(totals[0], exact), tape.gradient(totals[1], hidden)
    assert hidden_gradient.dtype == dtype and (np.abs(expected).max() > 1) == x.any()
    np.testing.assert_allclose(
        tf.cast(hidden_gradient, tf.float32), expected, rtol=tolerance, atol=tolerance * scale / 10
    )
    for untrained in (kernel, bias):
        with pytest.raises(NotImplementedError, match="a gradient for `hidden` alone"):
            tape.gradient(wanting, untrained)


@pytest.mark.parametrize("scale", [100.0, 10_000.0])
def test_large_logits_stay_finite_and_right(scale):
    x, f = random_rows(), logits(scale=scale)
    exact = f.numpy().astype(float)
    by_hand = (x * (exact - logsumexp(exact, axis=1, keepdims=True))).sum(axis=1)
    with tf.GradientTape() as tape:
        tape.watch(f)
        values = Multinomial(f).log_prob_rows(rows_of(x))
    np.testing.assert_allclose(values, by_hand, rtol=1e-5, atol=scale * 1e-5)
    assert np.isfinite(tape.gradient(values, f)).all()
    with tf.GradientTape() as tape:
        tape.watch(f)
        values = Logistic(f).log_prob_rows(rows_of(x))
    by_hand = (x * exact - np.logaddexp(0, exact)).sum(axis=1)
    np.testing.assert_allclose(values, by_hand, rtol=1e-5, atol=scale * 1e-5)
    assert np.isfinite(tape.gradient(values, f)).all()


def test_equal_logits_cost_n_log_items_a_user():
    x = random_rows()
    values = Multinomial(tf.zeros([7, 13])).log_prob_rows(rows_of(x))
    np.testing.assert_allclose(values, -x.sum(axis=1) * np.log(13), rtol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_they_are_proper_tfp_distributions(name):
    distribution = ALL[name](logits())
    assert isinstance(distribution, tfd.Distribution)
    assert (distribution.batch_shape, distribution.event_shape) == ((7,), (13,))
    other = distribution.copy(logits=logits(seed=9))
    expected = ALL[name](logits(seed=9)).log_prob(random_rows())
    np.testing.assert_array_equal(other.log_prob(random_rows()), expected)


def test_mean_is_the_expected_row():
    f = logits()
    np.testing.assert_allclose(tf.reduce_sum(Multinomial(f).mean(), axis=1), np.ones(7), rtol=1e-5)
    np.testing.assert_allclose(Logistic(f).mean(), tfd.Bernoulli(logits=f).mean(), rtol=1e-5)
    np.testing.assert_array_equal(Gaussian(f).mean(), f)


def test_likelihoods_by_name():
    x, f = random_rows(), logits()
    for name in ALL:
        found = likelihood(name, f, c1=3.0, c0=0.5).log_prob(x)
        np.testing.assert_array_equal(found, ALL[name](f).log_prob(x))
    with pytest.raises(InputError, match="'multinomal'; did you mean 'multinomial'"):
        likelihood("multinomal", f)


def test_a_confidence_to_be_learnt_is_refused_where_it_would_have_no_gradient():
    x, confidence = random_rows(), tf.Variable(2.0)
    gaussian = Gaussian(tf.zeros(x.shape), c1=confidence)
    with pytest.raises(InputError, match="c1 is a .*Variable; expected a number"):
        gaussian.log_prob_rows(rows_of(x))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(gaussian.log_prob(x))
    assert float(tape.gradient(total, confidence)) == pytest.approx(-0.5 * x.sum())
