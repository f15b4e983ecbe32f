"""How EVCF's models are trained: β epoch by epoch, patience after the warm-up, the optimiser, the class's defaults."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tfvae.models import model_class
from tfvae.nn.batches import row_numbers, steps_per_epoch
from tfvae.nn.optimizers import FusedAdam, NormalizedAdam
from tfvae.training.callbacks import ResumableCheckpoint
from tfvae.training.loop import prepare_to_fit, train
from tfvae.training.settings import TrainingSettings, settings_of

pytestmark = pytest.mark.slow

SMALL = {
    "hidden": [8],
    "latent_dim": 4,
    "n_pseudo_inputs": 5,
    "epochs": 6,
    "batch_size": 40,  # of 90 users: batches of 40, 40 and 10
    "learning_rate": 0.01,
    "monitor": "ndcg@10",
    "warmup_epochs": 4,
    "beta_cap": 0.6,
}
BETAS = [0.15, 0.3, 0.45, 0.6, 0.6, 0.6]


def vamp(**changes):
    return settings_of("vamp", SMALL | changes)


def run(folder, split, **changes):
    return train(vamp(**changes), split, folder, progress=False, log=[].append)


def test_beta_is_constant_within_an_epoch_and_right_in_each(tiny_split):
    seen = {}

    class Watch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            seen[epoch] = []

        def on_train_batch_end(self, batch, logs=None):
            seen[len(seen) - 1].append(float(self.model.beta.numpy()))

    model = vamp().build(40)
    prepare_to_fit(model, tiny_split, 0.01)
    history = model.fit(
        row_numbers(90, 40, 1),
        epochs=6,
        steps_per_epoch=steps_per_epoch(90, 40),
        shuffle=False,
        verbose=0,
        callbacks=[Watch()],
    ).history
    assert [len(betas) for betas in seen.values()] == [3] * 6
    assert [betas == betas[:1] * 3 for betas in seen.values()] == [True] * 6
    assert [betas[0] for betas in seen.values()] == pytest.approx(BETAS)
    assert history["beta"] == pytest.approx(BETAS)


@pytest.mark.long
def test_a_run_interrupted_in_its_warm_up_goes_on_with_the_beta_of_its_epoch_to_equal_bits(tiny_split, tmp_path):
    class Interrupted(ResumableCheckpoint):
        def on_epoch_begin(self, epoch, logs=None):
            super().on_epoch_begin(epoch, logs)
            if epoch == 2:
                raise KeyboardInterrupt

    whole = run(tmp_path / "whole", tiny_split, epochs=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfvae.training.fitting.ResumableCheckpoint", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run", tiny_split, epochs=4)
    resumed = run(tmp_path / "run", tiny_split, epochs=4)
    assert resumed.resumed and resumed.epochs == 4
    for done in (whole, resumed):
        assert [entry["beta"] for entry in done.history] == pytest.approx(BETAS[:4])
    for one, other in zip(whole.model.variables, resumed.model.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy(), err_msg=one.path)


@pytest.mark.parametrize(
    ("best", "patient_from", "last"),
    # Counted from 0, as in a history. The warm-up's epochs are 0, 1, 2 and 3 where patience begins at 4.
    [(0, 0, 2), (0, 4, 5), (3, 4, 5), (4, 4, 6), (5, 4, 7), (5, 0, 7), (0, 1, 2)],
)
def test_patience_does_not_count_in_the_warm_up(best, patient_from, last, tmp_path):
    keeper = ResumableCheckpoint(tmp_path, "value", patience=2, patient_from=patient_from)
    for epoch in range(20):
        keeper.history.append({"value": -abs(epoch - best)})
        if keeper.out_of_patience:
            break
    assert epoch == last
    assert not ResumableCheckpoint(tmp_path, "value", patience=None, patient_from=patient_from).out_of_patience


@pytest.mark.parametrize(("warmup_epochs", "epochs"), [(4, 5), (0, 2)])
def test_a_warm_up_puts_patience_off_until_its_end(warmup_epochs, epochs, tiny_split, tmp_path):
    class Worsening(ResumableCheckpoint):
        def on_epoch_end(self, epoch, logs=None):
            logs["val_ndcg@10"] = 1 / (epoch + 1)
            super().on_epoch_end(epoch, logs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfvae.training.fitting.ResumableCheckpoint", Worsening)
        done = run(tmp_path, tiny_split, warmup_epochs=warmup_epochs, patience=1)
    assert (done.epochs, done.best_epoch) == (epochs, 0)


@pytest.mark.parametrize(("name", "kind"), [("adam", FusedAdam), ("normalized-adam", NormalizedAdam)])
def test_the_optimizer_of_the_settings_is_the_one_that_trains(name, kind, tiny_split, tmp_path):
    used = []

    class Watch(ResumableCheckpoint):
        def on_train_begin(self, logs=None):
            used.append((type(self.model.optimizer), float(self.model.optimizer.learning_rate.numpy())))
            raise KeyboardInterrupt  # that is all there is to see

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfvae.training.fitting.ResumableCheckpoint", Watch)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, tiny_split, optimizer=name)
    assert used == [(kind, pytest.approx(0.01))]


@pytest.mark.parametrize("name", ["vamp", "h-vamp"])
def test_a_class_has_training_defaults_of_its_own_which_yield_to_what_is_given(name):
    own = {"epochs": 400, "batch_size": 200, "optimizer": "normalized-adam", "learning_rate": 5e-4, "patience": 50}
    assert model_class(name).training_defaults == own
    plain = TrainingSettings().model_dump()
    assert settings_of(name, {}).training.model_dump() == plain | own
    given = {"epochs": 3, "optimizer": "adam", "seed": 5, "patience": None}
    changed = settings_of(name, given)
    assert changed.training.model_dump() == plain | own | given
    # What was given stays given in what is made of it.
    assert changed.with_changes(batch_size=7).training.model_dump() == plain | own | given | {"batch_size": 7}
    assert settings_of("mult-vae", {}).training.model_dump() == plain
    assert all(plain[setting] != value for setting, value in own.items())


@pytest.mark.parametrize("name", ["vamp", "h-vamp"])
def test_the_models_own_defaults_are_those_of_the_authors_code(name):
    model = settings_of(name, {}).model
    theirs = {
        "hidden": [600],
        "latent_dim": 200,
        "n_pseudo_inputs": 1000,
        "activation": "tanh",
        "gated": False,
        "initializer": "he",
        "separate_heads": True,
        "log_variance_range": [-12.0, 4.0],
        "divergence": "sampled",
        "dropout": 0.5,
        "beta_cap": 1.0,
        "warmup_epochs": 100,
        "weight_decay": 0.0,
    }
    assert {setting: model[setting] for setting in theirs} == theirs
