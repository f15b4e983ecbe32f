"""Learning rates that fall over the second half of the epochs, and follow the number of the epoch alone."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from tiny_phases import RATE, fit, ready

from tfvae.system.errors import InputError
from tfvae.training.callbacks import LearningRateDecay
from tfvae.training.settings import settings_of

pytestmark = pytest.mark.slow


def rates(epochs, factor, plan="one loss", start=RATE, asked=None):
    """Each objective's learning rates by epoch, of all epochs or of those asked for, in their order."""
    model, decay = ready(plan), LearningRateDecay(start, factor)
    decay.set_model(model)
    decay.set_params({"epochs": epochs})
    found = {name: {} for name in model.optimizers}
    for epoch in range(epochs) if asked is None else asked:
        decay.on_epoch_begin(epoch)
        for name, optimizer in model.optimizers.items():
            found[name][epoch] = float(optimizer.learning_rate)
    return found


@pytest.mark.parametrize("epochs", [2, 3, 8, 11])
def test_rates_are_constant_in_the_first_half_and_then_fall_to_the_factor(epochs):
    found = np.array(list(rates(epochs, 0.1)["a"].values()))
    half = (epochs - 1) // 2 + 1  # the epochs whose number is at most half of the last one's
    np.testing.assert_allclose(found[:half], RATE, rtol=1e-6)
    assert found[-1] == pytest.approx(0.1 * RATE, rel=1e-6)
    assert len(found) == epochs and np.all(np.diff(found[half - 1 :]) < 0)
    if epochs == 11:  # five steps by the fifth root of the factor
        np.testing.assert_allclose(found[6:] / found[5:-1], 0.1**0.2, rtol=1e-5)


def test_a_single_epoch_has_the_rate_itself():
    assert rates(1, 0.1)["a"] == {0: pytest.approx(RATE)}


def test_an_epochs_rate_follows_from_its_number_alone():
    whole = rates(8, 0.25)["a"]
    for asked in ([4, 5, 6, 7], [7], [6, 0, 5]):
        assert rates(8, 0.25, asked=asked)["a"] == {epoch: whole[epoch] for epoch in asked}


def test_an_aim_that_has_a_rate_of_its_own_keeps_it_and_cools_alike():
    found = rates(6, 0.1, "two losses", start=0.3)
    assert found["a"][0] == pytest.approx(0.3) and found["b"][0] == pytest.approx(0.01)
    shares = {name: np.array(list(of.values())) / of[0] for name, of in found.items()}
    np.testing.assert_allclose(shares["a"], shares["b"], rtol=1e-6)
    assert shares["b"][-1] == pytest.approx(0.1)


def test_updates_are_made_at_the_cooled_rate():
    # Adam's steps are as long as its rate: with almost none left, the last epoch hardly moves.
    moved = []
    for factor in (1.0, 1e-6):
        model, before = ready("one loss"), {}

        class Note(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                before[epoch] = self.model.left.numpy()  # noqa: B023

        fit(model, 4, callbacks=[LearningRateDecay(RATE, factor), Note()])
        moved.append([np.abs(after - before[e]).max() for e, after in [(0, before[1]), (3, model.left.numpy())]])
    assert moved[0][0] == moved[1][0] > 0.01
    assert moved[1][1] < 1e-3 * moved[0][1]


@pytest.mark.parametrize("final_learning_rate_factor", [0.0, 1.5, -1])
def test_a_factor_lies_between_zero_and_one(final_learning_rate_factor):
    with pytest.raises(InputError, match="final_learning_rate_factor"):
        settings_of("autorec", {"final_learning_rate_factor": final_learning_rate_factor})
