"""Runs of a model that is trained in phases: validation, selection, resuming, saving."""

from __future__ import annotations

import zipfile

import h5py
import keras
import numpy as np
import pytest
from tiny_phases import (
    N_USERS,
    RATE,
    Scripted,
    Watch,
    assert_equal_state,
    changed,
    fit,
    matrix,
    ready,
    state,
    weights,
)

from tfvae.nn.optimizers import FusedAdam
from tfvae.training.callbacks import ResumableCheckpoint, Validation, best_of

pytestmark = pytest.mark.slow

# ---- validation, selection, resuming ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("round_length", "epochs", "every", "expected"),
    [(2, 5, 1, [1, 3, 4]), (3, 6, 1, [2, 5]), (1, 2, 1, [0, 1]), (1, 7, 3, [2, 5, 6]), (2, 8, 2, [3, 7])],
)
def test_validation_follows_the_rounds_and_the_last_epoch(round_length, epochs, every, expected):
    model, evaluator, seen = ready("one loss", round_length=round_length), Scripted(*range(9)), []
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append("val_x" in logs))
    fit(model, epochs, callbacks=[Validation(evaluator, every=every), note])
    assert [epoch for epoch, validated in enumerate(seen) if validated] == expected
    assert evaluator.calls == len(expected)


def kept_fit(model, folder, epochs, values, extra=(), patience=None):
    """Fits with a keeper, as `train` does, going on where the folder's run was interrupted."""
    keeper = ResumableCheckpoint(folder, "val_x", patience, model.patient_from)
    keeper.set_model(model)
    keeper.resume()
    done = len(keeper.history)
    validated = [epoch for epoch in range(epochs) if model.round_ends(epoch) or epoch == epochs - 1]
    evaluator = Scripted(*(values[epoch] for epoch in validated if epoch >= done))
    fit(model, epochs, first_epoch=done, callbacks=[Validation(evaluator), keeper, *extra])
    return keeper


class Killed(Exception):
    pass


class Kill(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise Killed


def without_seconds(history):
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in history]


VALUES = [0.3, 0.9, 0.2, 0.4, 0.1, 0.5]


def test_an_epoch_that_starts_from_the_best_has_its_weights_but_goes_on_counting(tmp_path):
    model, watch = ready("three phases", fresh_start=4), Watch()
    keeper = kept_fit(model, tmp_path, 6, VALUES, [watch])
    assert keeper.best_epoch == 1
    for epoch in range(1, 6):
        ended, begun = watch.ended[epoch - 1], watch.begun[epoch]
        if epoch != 4:
            assert not changed(ended, begun)
            continue
        model_variables = [path for path in begun if ": " not in path]
        counters = [path for path in model_variables if path.rsplit("/", 1)[-1] in ("step", "rows_seen")]
        assert len(counters) == 2 and len(model_variables) == 5
        for path in model_variables:
            expected = ended if path in counters else watch.ended[1]
            np.testing.assert_array_equal(begun[path], expected[path], err_msg=path)
        assert changed(ended, begun) == set(model_variables) - set(counters) - {
            path for path in model_variables if path.endswith("shared")
        }
    assert watch.phases == [model.phase_of(epoch) for epoch in range(6)]
    rates = [entry["learning_rate"] for entry in keeper.history]  # of each phase's first objective
    assert rates == pytest.approx([RATE, 0.01, 0.01, RATE, 0.01, 0.01])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A model after six epochs, of which the fifth starts from the best, and its history."""
    model = ready("three phases", fresh_start=4)
    return model, kept_fit(model, tmp_path_factory.mktemp("whole"), 6, VALUES).history


@pytest.mark.long
@pytest.mark.parametrize("last", [1, 4, 5])
def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(last, tmp_path, uninterrupted):
    model, (whole, history) = ready("three phases", fresh_start=4), uninterrupted
    with pytest.raises(Killed):
        kept_fit(model, tmp_path, 6, VALUES, [Kill(last)])
    model = ready("three phases", fresh_start=4)
    keeper = kept_fit(model, tmp_path, 6, VALUES)
    assert without_seconds(keeper.history) == without_seconds(history)
    assert_equal_state(model, whole)


def test_a_run_killed_between_its_two_files_in_an_epoch_that_started_from_the_best_is_resumed_exactly(
    tmp_path, monkeypatch
):
    from tfvae.system.files import write_npz

    values = [0.3, 0.2, 0.9, 0.1]  # the epoch that starts from the best is the new best
    whole, first, second = (ready("three phases", fresh_start=2) for _ in range(3))
    expected = kept_fit(whole, tmp_path / "whole", 4, values).history
    (tmp_path / "parts").mkdir()

    def write(path, *given, **options):
        if path.name.startswith("state-") and int(first.rows_seen.numpy()) == 3 * N_USERS:
            raise Killed
        write_npz(path, *given, **options)

    with monkeypatch.context() as patch:
        patch.setattr("tfvae.training.callbacks.write_npz", write)
        with pytest.raises(Killed):
            kept_fit(first, tmp_path / "parts", 4, values)
    keeper = kept_fit(second, tmp_path / "parts", 4, values)
    assert without_seconds(keeper.history) == without_seconds(expected)
    assert_equal_state(second, whole)


def test_the_keeper_saves_and_restores_the_state_of_every_optimiser(tmp_path):
    model, fresh = ready("three phases"), ready("three phases")
    kept_fit(model, tmp_path, 2, VALUES)
    assert changed(state(fresh), state(model))
    keeper = ResumableCheckpoint(tmp_path, "val_x", None)
    keeper.set_model(fresh)
    assert keeper.resume() and len(keeper.history) == 2
    assert_equal_state(fresh, model)
    assert any(np.any(v.numpy()) for v in fresh.optimizers["b"].variables if "velocity" in v.path)


def test_the_best_epoch_is_the_first_highest_of_the_validated_ones():
    history = [{"loss": 9.0}, {"x": 0.3}, {"loss": 1.0}, {"x": 0.5}, {"x": 0.5}, {}]
    assert best_of(history, "x") == 3
    assert best_of(history[:2], "x") == 1
    assert best_of(history[:1], "x") is None
    assert best_of([], "x") is None


def test_patience_is_asked_at_validated_epochs_only(tmp_path):
    keeper = ResumableCheckpoint(tmp_path, "x", patience=3)
    keeper.history = [{"x": 0.5}, {}, {"x": 0.4}, {}]  # three epochs without a better value, the last without any
    assert not keeper.out_of_patience
    keeper.history.append({"x": 0.3})
    assert keeper.out_of_patience
    keeper.history[-1] = {"x": 0.6}
    assert not keeper.out_of_patience
    late = ResumableCheckpoint(tmp_path, "x", patience=3, patient_from=4)
    late.history = [{"x": 0.5}, *[{"x": 0.1}] * 5]  # two of them from epoch 4 on
    assert not late.out_of_patience
    late.history.append({"x": 0.1})
    assert late.out_of_patience


def test_patience_ends_a_run_only_after_a_round(tmp_path):
    model = ready("one loss", round_length=2)
    keeper = kept_fit(model, tmp_path, 12, [0, 0.9, *[0.1] * 10], patience=3)
    # The best is epoch 1; three epochs later is epoch 4, within a round; the round's end is 5.
    assert len(keeper.history) == 6 and keeper.best_epoch == 1


# ---- saving -----------------------------------------------------------------------------------------


def test_a_model_saved_with_its_optimiser_is_compiled_when_it_is_loaded(tmp_path):
    model = ready("three phases", FusedAdam(RATE, beta_1=0.7))
    fit(model, 4)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.compiled and type(loaded.optimizer) is FusedAdam and loaded.optimizer.beta_1 == 0.7
    assert list(loaded.optimizers) == ["a", "b"]
    assert float(loaded.optimizers["b"].learning_rate) == pytest.approx(0.01)
    assert not changed(weights(model), weights(loaded))
    for one, other in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy(), err_msg=one.path)
    assert int(loaded.optimizer.iterations) > 0
    loaded.attach(matrix())
    watch = Watch()
    fit(loaded, 5, first_epoch=4, callbacks=watch)
    assert watch.phases == [("b",)]
    vectors = {"tiny/left", "tiny/right", "tiny/shared"}
    assert changed(watch.begun[0], watch.ended[0]) & vectors == {"tiny/right"}


def test_a_file_has_the_moments_of_the_first_optimiser_beside_the_weights(tmp_path):
    model = ready("three phases")
    fit(model, 1)
    model.save(tmp_path / "model.keras")
    sizes = {"weights": 0, "optimizer": 0}
    with zipfile.ZipFile(tmp_path / "model.keras") as archive, archive.open("model.weights.h5") as file:
        with h5py.File(file) as stored:

            def note(name, item):
                sizes["optimizer" if name.startswith("optimizer") else "weights"] += getattr(item, "size", 0)

            stored.visititems(note)
    # Three vectors and two counters; two moments for each number of the one vector, the iterations and the rate.
    assert sizes == {"weights": 3 * 3 + 2, "optimizer": 2 * 3 + 2}
