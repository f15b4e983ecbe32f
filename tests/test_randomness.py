"""Seeds and noise: every draw has its own stream, and the same one each time."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfvae.nn.noise import Noise, derive_seed


def test_derived_seeds_are_a_function_of_seed_and_name():
    names = ["encoder_0/kernel", "encoder_0/bias", "encoder_1/kernel", "decoder_1/kernel", ""]
    seeds = [derive_seed(seed, name) for seed in (0, 1, 98765) for name in names]
    assert len(set(seeds)) == len(seeds)
    assert seeds == [derive_seed(seed, name) for seed in (0, 1, 98765) for name in names]
    assert all(isinstance(seed, int) and 0 <= seed < 2**31 for seed in seeds)


def test_a_derived_seed_is_the_same_on_every_machine():
    # A changed value would silently change every model that anyone trained with a given seed.
    assert derive_seed(98765, "encoder_0/kernel") == 1243390089


def draws(seed=1, update=0, name="z"):
    return Noise(seed, tf.constant(update, tf.int64)).normal([1000], name).numpy()


def test_each_seed_update_and_name_has_its_own_stream():
    streams = [draws(), draws(seed=2), draws(update=1), draws(update=2), draws(name="other"), draws(seed=0)]
    correlations = np.corrcoef(streams) - np.eye(len(streams))
    assert np.abs(correlations).max() < 0.16  # five standard errors of 1,000 draws
    np.testing.assert_array_equal(draws(), streams[0])
    uniform = Noise(1, tf.constant(0, tf.int64)).uniform([1000], "z").numpy()
    assert not np.array_equal(uniform, streams[0])


def test_normal_draws_have_mean_0_and_sd_1():
    z = Noise(3, tf.constant(7, tf.int64)).normal([200, 500], "z").numpy()
    assert z.mean() == pytest.approx(0, abs=5 / np.sqrt(z.size))
    assert z.std() == pytest.approx(1, abs=5 / np.sqrt(2 * z.size))


def test_uniform_draws_fill_the_unit_interval():
    u = Noise(3, tf.constant(7, tf.int64)).uniform([100_000], "dropout").numpy()
    assert 0 <= u.min() < 0.001 and 0.999 < u.max() < 1
    assert np.histogram(u, 10, (0, 1))[0] == pytest.approx(10_000, abs=5 * 95)


def test_the_update_is_not_frozen_into_a_graph():
    update = tf.Variable(0, dtype=tf.int64)
    draw = tf.function(lambda: Noise(1, update).normal([1000], "z"))
    found = []
    for _ in range(3):
        found.append(draw().numpy())
        update.assign_add(1)
    np.testing.assert_array_equal(found, [draws(update=u) for u in range(3)])


def test_replicas_draw_different_noise(two_replicas):
    update = tf.constant(0, tf.int64)
    drawn = tf.function(lambda: two_replicas.run(lambda: Noise(1, update).normal([1000], "z")))()
    one, other = (values.numpy() for values in two_replicas.experimental_local_results(drawn))
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.16
    np.testing.assert_array_equal(one, draws())


@pytest.mark.parametrize("share", [0.5, 0.25, 0.7], ids=["bytes", "bytes too", "floats"])
def test_what_is_kept_is_kept_independently_with_its_share(share):
    shape, noise = (400, 501), Noise(1, tf.constant(0))
    kept = noise.kept(tf.constant(shape), share, "x").numpy()
    assert kept.shape == shape and kept.dtype == bool
    assert kept.mean() == pytest.approx(share, abs=5 * np.sqrt(share * (1 - share) / kept.size))
    for one, other in ((kept[:, :-1], kept[:, 1:]), (kept[:-1], kept[1:]), (kept[:, :-4], kept[:, 4:])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 5 / np.sqrt(one.size)
    np.testing.assert_array_equal(noise.kept(tf.constant(shape), share, "x"), kept)
    assert not np.array_equal(noise.kept(tf.constant(shape), share, "y"), kept)
    assert not np.array_equal(Noise(1, tf.constant(1)).kept(tf.constant(shape), share, "x"), kept)
