"""Whole runs of RaCT: the borders of its phases, selection, resuming, and what is stored."""

from __future__ import annotations

import zipfile

import h5py
import numpy as np
import pytest

from tfvae.training.callbacks import ResumableCheckpoint
from tfvae.training.loop import train
from tfvae.training.settings import settings_of

pytestmark = pytest.mark.slow

RUN = {
    **{"hidden": [8], "latent_dim": 4, "batch_size": 45, "learning_rate": 0.02, "monitor": "ndcg@10", "epochs": 6},
    **{"anneal_updates": 20, "actor_epochs": 2, "critic_epochs": 2, "critic_hidden": [6], "cutoff": 10},
    **{"critic_learning_rate": 0.01, "fine_tuning_rate": 0.003, "normalize_features": True},
}


def run(folder, split, **changes):
    return train(settings_of("ract", RUN | changes), split, folder, progress=False, log=[].append)


class Worse(ResumableCheckpoint):
    """Throws the actor far away before its last epoch, so that its best one is the first."""

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        if epoch == 1:
            kernel = self.model.decoder.last.kernel
            kernel.assign(-10 * kernel)


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def whole(tiny_split, tmp_path_factory):
    """An uninterrupted run of three phases whose second actor epoch is worse, and its folder."""
    folder = tmp_path_factory.mktemp("ract") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfvae.training.fitting.ResumableCheckpoint", Worse)
        return run(folder, tiny_split), folder


def test_each_phase_reports_its_own_parts_loss_and_rate(whole):
    done, _ = whole
    always = {"epoch", "loss", "nll", "kl", "beta", "learning_rate", "seconds"}
    always |= {f"val_{metric}" for metric in ("ndcg@10", "ndcg@100", "recall@20", "recall@50")}
    critics = {"ndcg", "predicted_ndcg", "critic_error"}
    assert [set(entry) for entry in done.history] == [always] * 2 + [always | critics] * 4
    assert [entry["learning_rate"] for entry in done.history] == pytest.approx([0.02] * 2 + [0.01] * 2 + [0.003] * 2)
    decay = 1e-4 / 500
    for entry in done.history[2:4]:
        assert entry["loss"] == pytest.approx(entry["critic_error"], rel=0.01)
        assert 0 < entry["loss"] - entry["critic_error"] < 1000 * decay
    for entry in done.history[4:]:
        assert entry["loss"] == pytest.approx(1 - entry["predicted_ndcg"], abs=1000 * decay)


def test_the_critic_starts_from_the_actors_best_epoch(whole):
    values = [entry["val_ndcg@10"] for entry in whole[0].history]
    assert values[1] < values[0]
    assert values[2] == values[3] == values[0]  # the critic changes no score
    assert values[5] != values[0]  # but teaches the actor
    assert whole[0].best_epoch == int(np.argmax(values))


@pytest.mark.long
def test_a_run_killed_at_the_border_of_each_phase_and_within_one_goes_on_to_equal_bits(whole, tiny_split, tmp_path):
    for last in (2, 3, 4):

        def stop(self, epoch, logs=None, last=last):
            if epoch == last:
                raise Killed

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tfvae.training.fitting.ResumableCheckpoint", Worse)
            patch.setattr("tfvae.training.callbacks.Validation.on_epoch_begin", stop)
            with pytest.raises(Killed):
                run(tmp_path, tiny_split)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfvae.training.fitting.ResumableCheckpoint", Worse)
        again = run(tmp_path, tiny_split)
    assert again.resumed and again.best_epoch == whole[0].best_epoch
    for one, other in zip(again.history, whole[0].history, strict=True):
        assert one | {"seconds": 0} == other | {"seconds": 0}
    for one, other in zip(again.model.variables, whole[0].model.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy(), err_msg=other.path)


def test_patience_does_not_end_a_run_before_the_third_phase(tiny_split, tmp_path):
    class Falling(ResumableCheckpoint):
        def on_epoch_end(self, epoch, logs=None):
            logs["val_ndcg@10"] = 0.9 - epoch / 10
            super().on_epoch_end(epoch, logs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfvae.training.fitting.ResumableCheckpoint", Falling)
        done = run(tmp_path, tiny_split, epochs=9, batch_size=90, actor_epochs=2, critic_epochs=1, patience=1)
    assert (done.epochs, done.best_epoch) == (4, 0)  # one epoch of the third phase


def test_the_file_of_a_finished_run_holds_no_moments_of_an_optimiser(whole):
    done, folder = whole
    stored = []
    with zipfile.ZipFile(folder / "model.keras") as archive, archive.open("model.weights.h5") as file:
        with h5py.File(file) as weights:
            weights.visititems(lambda name, item: stored.append((name, getattr(item, "size", 0))))
    assert not [name for name, size in stored if "optimizer" in name and size]
    assert sum(size for _, size in stored) == sum(int(np.prod(v.shape)) for v in done.model.weights)
