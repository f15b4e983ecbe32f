"""Runs: exact resume after a kill, finished and foreign folders, divergence, selection of epoch and β."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest

from tfvae.data.splits import StrongGeneralization
from tfvae.evaluation.evaluate import evaluate
from tfvae.system.errors import DivergedError, InputError
from tfvae.system.files import write_json
from tfvae.training.callbacks import ResumableCheckpoint, best_of
from tfvae.training.loop import load_run, prepare_to_fit, train
from tfvae.training.settings import settings_of

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
SMALL = {
    "hidden": [8],
    "latent_dim": 4,
    "epochs": 4,
    "batch_size": 40,
    "learning_rate": 0.01,
    "monitor": "ndcg@10",
    "anneal_updates": 20,
}


def vae(**changes):
    return settings_of("mult-vae", SMALL | changes)


def run(folder, split, *, progress=False, **changes):
    return train(vae(**changes), split, folder, progress=progress, log=[].append)


def without_seconds(history):
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in history]


def assert_same_run(one, other):
    assert without_seconds(one.history) == without_seconds(other.history)
    for first, second in zip(one.model.variables, other.model.variables, strict=True):
        np.testing.assert_array_equal(first.numpy(), second.numpy(), err_msg=first.path)


@pytest.fixture(scope="module")
def whole(tiny_split, tmp_path_factory):
    """An uninterrupted run and its folder."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return run(folder, tiny_split), folder


def test_history_has_every_epoch_with_losses_metrics_and_rates(whole):
    done, _ = whole
    assert done.epochs == 4 and not done.resumed
    assert [entry["epoch"] for entry in done.history] == [0, 1, 2, 3]
    assert done.history[0].keys() == {
        *("epoch", "loss", "nll", "kl", "beta", "learning_rate", "seconds"),
        *("val_ndcg@10", "val_ndcg@100", "val_recall@20", "val_recall@50"),
    }
    # three updates an epoch: the last one of epoch e is update 3e + 2
    assert [entry["beta"] for entry in done.history] == pytest.approx([0.1, 0.2, 0.2, 0.2])
    assert [entry["learning_rate"] for entry in done.history] == pytest.approx([0.01] * 4)
    assert done.history[-1]["loss"] < done.history[0]["loss"]
    assert done.seconds == pytest.approx(sum(entry["seconds"] for entry in done.history))


def test_the_model_has_the_weights_of_its_best_epoch(whole, tiny_split):
    done, folder = whole
    values = [entry["val_ndcg@10"] for entry in done.history]
    assert done.best_epoch == int(np.argmax(values))
    for model in (done.model, keras.models.load_model(folder / "model.keras")):
        found = evaluate(model, tiny_split.validation, ["ndcg@10"]).mean("ndcg@10")
        assert found == pytest.approx(max(values), rel=1e-12)


def test_an_early_best_epoch_is_restored(tiny_split, tmp_path):
    # With weights thrown far away after the first epoch, later ones are worse, and patience ends the run.
    class Worse(ResumableCheckpoint):
        def on_epoch_begin(self, epoch, logs=None):
            super().on_epoch_begin(epoch, logs)
            if epoch:
                kernel = self.model.decoder.last.kernel
                kernel.assign(-10 * kernel)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfvae.training.fitting.ResumableCheckpoint", Worse)
        done = run(tmp_path, tiny_split, epochs=9, patience=2, learning_rate=0.05, anneal_updates=0, beta_cap=0.0)
    values = [entry["val_ndcg@10"] for entry in done.history]
    assert done.best_epoch < done.epochs - 1 < 8
    assert done.epochs == done.best_epoch + 1 + 2
    assert evaluate(done.model, tiny_split.validation, ["ndcg@10"]).mean("ndcg@10") == max(values)


def test_a_finished_folder_is_read_back_without_training(whole, tiny_split):
    done, folder = whole
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfvae.training.loop.fit_epochs", lambda *given: pytest.fail("trained again"))
        again = run(folder, tiny_split)
    assert again.resumed
    assert_same_run(done, again)
    assert again.history == done.history and again.settings == done.settings
    assert files == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_finished_folder_has_no_leftovers(whole):
    _, folder = whole
    assert sorted(path.name for path in folder.iterdir()) == [
        *("items.npz", "model.keras", "run.json", "settings.json", "tensorboard")
    ]


def in_another_process(split, folder, settings, last_epoch=-1, moment="after"):
    return subprocess.Popen(
        [sys.executable, HERE / "training_script.py", split, folder, json.dumps(settings.flat())]
        + [str(last_epoch), moment],
        env=os.environ | {"PYTHONPATH": str(HERE.parent), "TF_CPP_MIN_LOG_LEVEL": "2"},
        stderr=subprocess.PIPE,
        text=True,
    )


def killed(split, folder, settings, last_epoch, moment):
    process = in_another_process(split, folder, settings, last_epoch, moment)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == -9, errors
    assert list(folder.glob("state-*.npz")) and not (folder / "run.json").exists()


def test_a_killed_run_goes_on_to_equal_bits_in_a_new_process(tiny_split, tmp_path, whole):
    split, folder = tiny_split.save(tmp_path / "split.npz"), tmp_path / "run"
    killed(split, folder, vae(), last_epoch=1, moment="after")
    (folder / ".state-2.npz.0a1b2c-4711-half_wri").mkdir()
    process = in_another_process(split, folder, vae())
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert_same_run(load_run(folder), whole[0])
    files = ["items.npz", "model.keras", "run.json", "settings.json", "tensorboard"]
    assert sorted(path.name for path in folder.iterdir()) == files


def test_a_run_that_died_between_its_last_epoch_and_its_result_only_writes_the_result(tiny_split, tmp_path, whole):
    def write(path, value):
        if path.name == "run.json":
            raise KeyboardInterrupt
        write_json(path, value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfvae.training.run_folder.write_json", write)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, tiny_split)
    again = run(tmp_path, tiny_split)
    assert_same_run(again, whole[0])


def test_a_folder_of_another_configuration_is_refused_and_named(whole, tiny_split):
    _, folder = whole
    with pytest.raises(InputError, match="latent_dim is 4 there, 5 here"):
        run(folder, tiny_split, latent_dim=5)
    with pytest.raises(InputError, match="epochs is 4 there, 9 here; seed is 98765 there, 1 here"):
        run(folder, tiny_split, epochs=9, seed=1)
    with pytest.raises(InputError, match="model is 'mult-vae' there, 'ease' here"):
        train(settings_of("ease", {}), tiny_split, folder)


@dataclass(frozen=True, eq=False)
class Guarded(StrongGeneralization):
    """A split whose test users must not be looked at."""

    def __getattribute__(self, name):
        if name == "test":
            raise AssertionError("the test users were read")
        return super().__getattribute__(name)


def guarded(split, **changes):
    """The same split behind the guard, made without the constructor, which may look."""
    copy = object.__new__(Guarded)
    vars(copy).update(vars(split) | changes)
    return copy


@pytest.mark.parametrize("name", ["mult-vae", "ease"])
def test_test_users_are_never_read(name, tiny_split, tmp_path):
    settings = vae(epochs=1) if name == "mult-vae" else settings_of("ease", {})
    split = guarded(tiny_split)
    with pytest.raises(AssertionError):
        split.test  # noqa: B018
    assert train(settings, split, tmp_path, progress=False, log=[].append).model.n_items == 40


def test_a_folder_of_other_data_is_refused(whole, tiny_split):
    with pytest.raises(InputError, match="the data are others"):
        train(vae(), guarded(tiny_split, digest="other"), whole[1])


def test_a_folder_without_a_finished_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no finished run: run\.json is missing"):
        load_run(tmp_path)


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if "tensorboard" not in path.parts)


def test_a_loss_that_is_no_number_ends_the_run_and_leaves_nothing_half_written(tiny_split, tmp_path):
    with pytest.raises(DivergedError, match=r"no longer a number after [12] updates; lower learning_rate \(now 1e\+30"):
        run(tmp_path, tiny_split, learning_rate=1e30)
    assert files_in(tmp_path) == ["settings.json"]


def test_the_last_good_epoch_is_kept_when_a_run_diverges(tiny_split, tmp_path):
    class Breaking(ResumableCheckpoint):
        def on_epoch_begin(self, epoch, logs=None):
            super().on_epoch_begin(epoch, logs)
            if epoch == 2:
                self.model.encoder.first.bias.assign(np.full(8, np.nan))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfvae.training.fitting.ResumableCheckpoint", Breaking)
        with pytest.raises(DivergedError, match="after [67] updates"):
            run(tmp_path, tiny_split)
    assert files_in(tmp_path) == ["best-0.npz", "best-1.npz", "settings.json", "state-0.npz", "state-1.npz"]
    with np.load(tmp_path / "state-1.npz", allow_pickle=False) as state:
        assert len(json.loads(str(state["history"]))) == 2
        assert all(np.isfinite(state[name]).all() for name in state if name.startswith("v"))


def test_scores_that_are_no_numbers_end_the_run_too(tiny_split, tmp_path):
    # One batch an epoch: the loss is still finite when the weights are no longer.
    with pytest.raises(DivergedError, match="lower learning.rate"):
        run(tmp_path, tiny_split, learning_rate=3e38, batch_size=90)
    assert files_in(tmp_path) == ["settings.json"]


def test_a_batch_larger_than_the_data_does_not_claim_the_folder(tiny_split, tmp_path):
    with pytest.raises(InputError, match="batch_size is 91, but there are 90 training users"):
        run(tmp_path / "run", tiny_split, batch_size=91)
    assert not (tmp_path / "run").exists()


def test_patience_ends_training(tiny_split, tmp_path):
    class Flat(ResumableCheckpoint):
        def on_epoch_end(self, epoch, logs=None):
            logs["val_ndcg@10"] = [0.1, 0.3, 0.2, 0.3, 0.1, 0.1][epoch]
            super().on_epoch_end(epoch, logs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfvae.training.fitting.ResumableCheckpoint", Flat)
        done = run(tmp_path, tiny_split, epochs=6, patience=3)
    assert (done.epochs, done.best_epoch) == (5, 1)  # an equal value is not a better one


def test_patience_counts_across_an_interruption(tiny_split, tmp_path):
    keeper = ResumableCheckpoint(tmp_path, "value", patience=2)
    keeper.history = [{"value": value} for value in (0.1, 0.5, 0.4)]
    assert not keeper.out_of_patience
    keeper.history.append({"value": 0.3})
    assert keeper.out_of_patience
    assert not ResumableCheckpoint(tmp_path, "value", patience=2).out_of_patience
    assert best_of([], "value") is None


def scripted(values):
    """A keeper that reports given validation values."""

    class Scripted(ResumableCheckpoint):
        def on_epoch_end(self, epoch, logs=None):
            logs["val_ndcg@10"] = values[epoch]
            super().on_epoch_end(epoch, logs)

    return Scripted


def test_peak_anneals_to_one_and_trains_again_with_the_beta_of_the_peak(tiny_split, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfvae.training.fitting.ResumableCheckpoint", scripted([0.1, 0.2, 0.9, 0.3]))
        done = run(tmp_path, tiny_split, beta_selection="peak", beta_cap=0.3)
    assert done.selected_beta == pytest.approx(8 / 20)  # update 8 is the last of the third epoch
    assert [entry["beta"] for entry in done.history] == pytest.approx([2 / 20, 5 / 20, 8 / 20, 8 / 20])
    assert done.settings.model["beta_cap"] == 0.3
    assert not (tmp_path / "pilot").exists()
    assert load_run(tmp_path).selected_beta == done.selected_beta


def test_progress_shows_the_epochs_and_the_metric(tiny_split, tmp_path, capsys):
    run(tmp_path, tiny_split, epochs=2, progress=True)
    shown = capsys.readouterr().err
    assert "2/2" in shown and "val_ndcg@10" in shown and "best=" in shown


def test_a_closed_form_has_no_epochs(tiny_split, tmp_path):
    lines = []
    done = train(settings_of("ease", {"regularization": 5.0}), tiny_split, tmp_path, log=lines.append)
    assert (done.epochs, done.best_epoch, done.resumed) == (0, None, False)
    assert lines
    again = load_run(tmp_path)
    np.testing.assert_array_equal(again.model.item_weights.numpy(), done.model.item_weights.numpy())
    assert again.settings == done.settings


def test_a_run_learns_what_popularity_cannot(tiny_split, tmp_path):
    popularity = train(settings_of("popularity", {}), tiny_split, tmp_path / "popularity", log=[].append)
    baseline = evaluate(popularity.model, tiny_split.validation, ["ndcg@10"]).mean("ndcg@10")
    values = {}
    for precision in ("float32", "mixed_bfloat16"):
        done = run(tmp_path / precision, tiny_split, epochs=40, precision=precision)
        values[precision] = max(entry["val_ndcg@10"] for entry in done.history)
    assert values["float32"] > baseline + 0.1
    assert values["mixed_bfloat16"] == pytest.approx(values["float32"], abs=0.03)


def test_deterministic_asks_tensorflow_for_equal_bits(tiny_split, tmp_path):
    from tensorflow.python.framework import config

    try:
        one, other = (run(tmp_path / name, tiny_split, epochs=2, deterministic=True) for name in ("a", "b"))
        assert config.is_op_determinism_enabled()
    finally:
        config.disable_op_determinism()
    assert_same_run(one, other)


def test_xla_is_asked_to_stay_off(tiny_split, monkeypatch):
    # Keras's "auto" is off on a CPU and on with a GPU, where the sparse kernels would not compile.
    model, asked = vae().build(40), {}
    compile_it = model.compile
    monkeypatch.setattr(model, "compile", lambda **given: asked.update(given) or compile_it(**given))
    prepare_to_fit(model, tiny_split, 0.01)
    assert asked["jit_compile"] is False and model.jit_compile is False
