"""Training in phases: who is changed when, by which gradient and which optimiser, and what survives an interruption."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.sparse import csr_array
from tiny_phases import (
    N_USERS,
    PLANS,
    RATE,
    Tiny,
    Watch,
    all_users,
    assert_equal_state,
    changed,
    fit,
    gradients,
    matrix,
    ready,
    state,
    traced_phases,
    users_of,
    weights,
)

from tfvae.nn.noise import Noise
from tfvae.nn.optimizers import FusedAdam
from tfvae.system.errors import InputError

# ---- who is changed, by which gradient --------------------------------------------------------------


@pytest.mark.slow
def test_an_epoch_changes_its_phases_variables_and_optimisers_and_nothing_else():
    model, watch = ready("three phases"), Watch()
    fit(model, 5, callbacks=[watch])
    assert watch.phases == [("a",), ("b",), ("b", "a"), ("a",), ("b",)]
    variables = {"a": "left", "b": "right"}
    for phase, before, after in zip(watch.phases, watch.begun, watch.ended, strict=True):
        found = changed(before, after)
        counted = {path for path in found if path.rsplit("/", 1)[-1] in ("step", "rows_seen")}
        assert len(counted) == 2
        expected = set()
        for objective in phase:
            expected |= {name for name in before if name.startswith(f"{objective}: ") and "learning_rate" not in name}
            expected |= {
                path for path in before if path.rsplit("/", 1)[-1] == variables[objective] and ": " not in path
            }
        assert found - counted == expected and len(expected) == 4 * len(phase)
    for ended, begun in zip(watch.ended[:-1], watch.begun[1:], strict=True):
        assert not changed(ended, begun)  # nothing happens between epochs


@pytest.mark.parametrize("plan", ["one loss", "two losses"])
def test_aims_pursued_together_each_follow_the_gradient_of_their_own_loss(plan):
    model = ready(plan, keras.optimizers.SGD(RATE))
    before, expected = weights(model), {}
    for names, loss, rate in PLANS[plan][0].values():
        # Objectives with one loss: those of one joint tape over the variables of both.
        joint = names if plan == "two losses" else ["left", "right", "shared"]
        slopes = gradients(model, loss, joint)
        expected |= {name: before[name] - (rate or RATE) * slopes[name] for name in names}
    other = gradients(model, "first", ["right"])["right"]
    model.train_step(tf.range(N_USERS, dtype=tf.int64))
    after = weights(model)
    for name in before:
        np.testing.assert_allclose(after[name], expected.get(name, before[name]), rtol=1e-6, err_msg=name)
        assert (name in expected) == (not np.array_equal(after[name], before[name]))
    if plan == "two losses":  # the gradient of the other objective's loss would have been seen
        assert np.abs(before["right"] - 0.01 * other - after["right"]).max() > 1e-3


@pytest.mark.slow
def test_a_variable_of_two_aims_has_moments_in_each_of_their_optimisers():
    model, expected = ready("shared"), {}
    watch = Watch()

    class Slopes(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            expected[epoch] = gradients(model, ["first", "second"][epoch], ["shared"])["shared"]
            expected[epoch, "before"] = model.shared.numpy()

        def on_epoch_end(self, epoch, logs=None):
            expected[epoch, "after"] = model.shared.numpy()

    model.fit(all_users(), epochs=2, steps_per_epoch=1, shuffle=False, verbose=0, callbacks=[watch, Slopes()])

    def moments(epoch, objective):
        found = {n: v for n, v in watch.ended[epoch].items() if n.startswith(f"{objective}: ") and "shared" in n}
        (m,) = (v for n, v in found.items() if "momentum" in n)
        (v,) = (v for n, v in found.items() if "velocity" in n)
        return m, v

    for objective, epoch in (("a", 0), ("b", 1)):
        m, v = moments(epoch, objective)
        np.testing.assert_allclose(m, 0.1 * expected[epoch], rtol=1e-5)
        np.testing.assert_allclose(v, 0.001 * expected[epoch] ** 2, rtol=1e-4)
        # The first step of either has the length of its own rate, whatever the other has done before.
        step = expected[epoch, "before"] - expected[epoch, "after"]
        np.testing.assert_allclose(step, {"a": RATE, "b": 0.02}[objective] * np.sign(expected[epoch]), rtol=1e-4)
    np.testing.assert_array_equal(moments(0, "a"), moments(1, "a"))
    assert not np.any(moments(0, "b"))
    assert not np.allclose(expected[0], expected[1])


def test_each_aim_has_its_own_rate_and_the_settings_of_the_compiled_optimiser():
    model = ready("three phases", FusedAdam(0.3, beta_1=0.5, epsilon=1e-3))
    assert list(model.optimizers) == ["a", "b"]
    assert model.optimizers["a"] is model.optimizer
    rates = {name: float(optimizer.learning_rate) for name, optimizer in model.optimizers.items()}
    assert rates == pytest.approx({"a": 0.3, "b": 0.01})
    for optimizer in model.optimizers.values():
        assert type(optimizer) is FusedAdam and (optimizer.beta_1, optimizer.epsilon) == (0.5, 1e-3)
    with pytest.raises(TypeError):
        model.optimizers["a"] = None


def test_regularisers_are_in_each_aims_loss():
    plain, decayed = (ready("two losses", keras.optimizers.SGD(RATE), decay=decay) for decay in (0.0, 0.3))
    before = weights(plain)
    logs = [model.train_step(tf.range(N_USERS, dtype=tf.int64)) for model in (plain, decayed)]
    for name, rate in (("left", RATE), ("right", 0.01)):
        pulled = weights(plain)[name] - rate * 2 * 0.3 * before[name]
        np.testing.assert_allclose(weights(decayed)[name], pulled, rtol=1e-5)
    penalty = 0.3 * sum(np.sum(value**2) for value in before.values())
    assert float(logs[1]["loss"] - logs[0]["loss"]) == pytest.approx(penalty, rel=1e-5)
    assert float(logs[1]["error"]) == pytest.approx(float(logs[0]["error"]))


def test_the_reported_loss_is_that_of_the_phases_first_aim():
    model = ready("three phases", keras.optimizers.SGD(0.0))
    for optimizer in model.optimizers.values():
        optimizer.learning_rate.assign(0.0)
    watched = {}

    class Losses(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            noise = Noise(model.seed, tf.constant(model.step.numpy()))
            watched[epoch] = model.objective(model.histories.gather(tf.range(N_USERS)), noise)

    history = model.fit(all_users(), epochs=3, steps_per_epoch=1, shuffle=False, verbose=0, callbacks=Losses()).history
    expected = [float(watched[epoch][loss]) for epoch, loss in enumerate(("first", "second", "second"))]
    assert history["loss"] == pytest.approx(expected, rel=1e-5)
    assert abs(expected[0] - expected[1]) > 0.1


def test_a_loss_that_is_no_number_is_named():
    model = ready("three phases")
    model.right.assign([1, np.nan, 1])  # which only phase b would change, but which is in both losses
    with pytest.raises(tf.errors.InvalidArgumentError, match="the loss : Tensor had NaN"):
        fit(model, 1)


@pytest.mark.slow
def test_two_replicas_pursue_two_aims_like_one(silent_noise, two_replicas):
    n_users = 7  # of which one replica gets four, the other three

    def build():
        model = Tiny(9, plan="two losses", decay=0.1)
        model.attach(matrix(n_users))
        model.compile(optimizer=FusedAdam(RATE), jit_compile=False)
        return model

    alone = build()
    with two_replicas.scope():
        together = build()
    start = state(alone)
    histories = [fit(model, 2, batch_size=n_users, n_users=n_users) for model in (alone, together)]
    for name, values in histories[0].items():
        assert histories[1][name] == pytest.approx(values, rel=1e-5), name
    one, other = state(alone), state(together)
    assert len(changed(start, one)) >= 10
    for name in one:
        np.testing.assert_allclose(other[name], one[name], rtol=1e-4, atol=1e-6, err_msg=name)


# ---- entering phases --------------------------------------------------------------------------------


@pytest.mark.slow
def test_optimisers_are_built_once_and_are_the_same_after_a_phase_is_left_and_entered_again():
    model, watch = ready("three phases"), Watch()
    at_first = dict(model.optimizers)
    assert all(optimizer.built for optimizer in at_first.values())
    variables = {name: [id(v) for v in optimizer.variables] for name, optimizer in at_first.items()}
    fit(model, 6, callbacks=[watch])
    for met in watch.optimizers:
        assert all(met[name] is at_first[name] for name in at_first)
    assert variables == {name: [id(v) for v in optimizer.variables] for name, optimizer in at_first.items()}
    # two updates an epoch; a is in the phases 0, 2, 3, 5 and b in 1, 2, 4, 5
    assert {name: int(optimizer.iterations) for name, optimizer in at_first.items()} == {"a": 8, "b": 8}


@pytest.mark.slow
def test_a_phases_step_is_traced_once_though_it_is_entered_often(monkeypatch):
    model = ready("three phases")
    traces = traced_phases(model, monkeypatch)
    fit(model, 7)
    fit(model, 10, first_epoch=7)
    assert sorted(traces) == [("a",), ("b",), ("b", "a")]


@pytest.mark.slow
def test_new_rows_forget_the_compiled_steps(monkeypatch, silent_noise):
    model = ready("three phases", keras.optimizers.SGD(0.0))
    model.optimizers["b"].learning_rate.assign(0.0)
    traces = traced_phases(model, monkeypatch)
    before = fit(model, 2)["error"]
    model.attach(csr_array(np.ones((N_USERS, 9), np.float32)))
    after = fit(model, 5, first_epoch=2)["error"]  # of which only the first phase is new
    inputs = np.array([1, 9 / 4, (9 / 4) ** 2])
    value = inputs @ (model.left.numpy() + model.right.numpy() * model.shared.numpy()) - 1
    assert after == pytest.approx([value] * 3, rel=1e-5)
    assert max(before) < value / 2
    assert sorted(traces) == sorted([("a",), ("b",), ("b", "a"), ("a",), ("b",)])


@pytest.mark.slow
def test_compiling_again_forgets_the_steps_and_the_optimisers(monkeypatch):
    model = ready("three phases", keras.optimizers.SGD(0.0))
    traces, former, before = traced_phases(model, monkeypatch), dict(model.optimizers), weights(model)
    fit(model, 2)
    assert model.phase == ("b",)
    model.compile(optimizer=keras.optimizers.SGD(0.7), jit_compile=False)
    assert model.phase == ("a",)
    np.testing.assert_array_equal(model.left, before["left"])
    fit(model, 4, first_epoch=2)
    assert np.abs(weights(model)["left"] - before["left"]).max() > 1e-3
    assert [int(optimizer.iterations) for optimizer in model.optimizers.values()] == [4, 2]
    assert [int(optimizer.iterations) for optimizer in former.values()] == [2, 2]
    assert traces == [("a",), ("b",), ("b", "a"), ("a",)]


@pytest.mark.slow
def test_fit_enters_the_phases_by_itself_and_the_next_fit_goes_on_with_the_next():
    whole, parts = ready("three phases"), ready("three phases")
    fit(whole, 4)
    watch = Watch()
    for epoch in range(4):
        batches = users_of([epoch])
        parts.fit(batches, epochs=1, steps_per_epoch=2, shuffle=False, verbose=0, callbacks=watch)  # Keras's epoch 0
    assert watch.phases == [("a",), ("b",), ("b", "a"), ("a",)]
    assert_equal_state(whole, parts)


@pytest.mark.slow
def test_the_epoch_is_counted_in_visits():
    model, watch = ready("three phases"), Watch()
    batches = tf.data.Dataset.from_tensors(tf.range(3, dtype=tf.int64)).repeat()
    # Keras's epochs here have three of the eight users: visits at their beginnings are 0, 3, 6, 9, 12, 15, 18.
    options = {"steps_per_epoch": 1, "shuffle": False, "verbose": 0, "callbacks": watch}
    model.fit(batches, epochs=7, **options)
    assert watch.phases == [("a",)] * 3 + [("b",)] * 3 + [("b", "a")]
    model.rows_seen.assign(N_USERS * 300 + 7)
    model.fit(batches, initial_epoch=901, epochs=902, **options)
    assert watch.phases[-1] == ("a",)


def test_without_training_rows_there_is_no_fit():
    model = ready("one loss")
    model.detach()
    for compiled in (False, True):
        if compiled:
            model.compile()
        with pytest.raises(InputError, match="no training rows"):
            fit(model, 1)


@pytest.mark.slow
def test_callbacks_are_taken_as_keras_takes_them():
    model, watch = ready("three phases"), Watch()
    given = [{"callbacks": watch}, {"callbacks": [watch]}, {"callbacks": (watch,)}, {"callbacks": None}, {}]
    for epoch, options in enumerate(given):
        batches = users_of([epoch])
        history = model.fit(batches, epochs=1, steps_per_epoch=2, shuffle=False, verbose=0, **options).history
        assert len(history["loss"]) == 1 and model.phase == model.phase_of(epoch)
    assert watch.phases == [("a",), ("b",), ("b", "a")]  # the phase is entered before other callbacks are asked
