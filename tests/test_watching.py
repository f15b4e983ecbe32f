"""Runs without a validation part, and metrics that are watched on the test part: nothing is chosen by either."""

from __future__ import annotations

import numpy as np
import pytest

from tfvae.data.splits import LeaveOneOutSettings, leave_one_out, rating_holdout
from tfvae.data.synthetic import synthetic
from tfvae.evaluation.evaluate import evaluate
from tfvae.system.errors import InputError
from tfvae.training.callbacks import ResumableCheckpoint, best_of
from tfvae.training.loop import train
from tfvae.training.settings import settings_of

pytestmark = pytest.mark.slow

RATINGS = {"units": 6, "batch_size": 20, "learning_rate": 0.01, "monitor": "rmse", "epochs": 4, "dropout": 0.2}
ITEMS = {"hidden": [], "latent_dim": 6, "batch_size": 20, "learning_rate": 0.05, "monitor": "ndcg@10", "epochs": 4}


@pytest.fixture(scope="module")
def ratings():
    return rating_holdout(synthetic(60, 25, 600, n_tastes=3, seed=1))


@pytest.fixture(scope="module")
def items():
    return leave_one_out(synthetic(60, 25, 500, n_tastes=3, seed=1), LeaveOneOutSettings(n_negatives=12))


def autorec(**changes):
    return settings_of("autorec", RATINGS | changes)


def run(settings, split, folder, **options):
    return train(settings, split, folder, progress=False, log=[].append, **options)


def numbers(done, without=()):
    """A run's history without its seconds and what begins with one of these."""
    dropped = ("seconds", *without)
    return [{key: value for key, value in entry.items() if not key.startswith(dropped)} for entry in done.history]


def assert_same_weights(one, other):
    for first, second in zip(one.model.variables, other.model.variables, strict=True):
        np.testing.assert_array_equal(first.numpy(), second.numpy(), err_msg=first.path)


@pytest.mark.parametrize(
    ("metric", "values", "expected"),
    [
        ("rmse", [0.9, 0.7, 0.8], 1),
        ("mae", [0.5, 0.5, 0.6], 0),
        ("ndcg@10", [0.9, 0.7, 0.8], 0),
        ("full-hr@10", [0.1, 0.3, 0.2], 1),
    ],
)
def test_the_best_epoch_has_the_least_error_or_the_greatest_gain(metric, values, expected):
    history = [{f"val_{metric}": value} for value in values]
    assert best_of(history, f"val_{metric}") == expected
    assert best_of([{"loss": 1.0}, *history], f"val_{metric}") == expected + 1
    assert best_of([{"loss": 1.0}], f"val_{metric}") is None


def test_a_search_on_ratings_keeps_the_weights_of_the_least_error(ratings, tmp_path):
    class Worse(ResumableCheckpoint):
        def on_epoch_begin(self, epoch, logs=None):
            super().on_epoch_begin(epoch, logs)
            if epoch == 2:
                self.model.decoder.bias.assign(self.model.decoder.bias + 3)

    split = ratings.for_tuning()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfvae.training.fitting.ResumableCheckpoint", Worse)
        done = run(autorec(), split, tmp_path)
    errors = [entry["val_rmse"] for entry in done.history]
    assert len(errors) == 4 and done.best_epoch == np.argmin(errors) < 2
    assert max(errors) > min(errors) + 0.5
    assert evaluate(done.model, split.validation).mean("rmse") == min(errors)


def test_without_a_validation_part_all_epochs_are_trained_and_the_last_is_kept(ratings, tmp_path):
    done = run(autorec(patience=1), ratings, tmp_path / "whole")
    assert done.epochs == 4 and done.best_epoch is None
    assert not any(key.startswith(("val_", "test_")) for entry in done.history for key in entry)
    assert [path.name for path in (tmp_path / "whole").glob("*.npz")] == ["items.npz"]
    shorter = run(autorec(epochs=3, patience=1), ratings, tmp_path / "shorter")
    assert numbers(shorter) == numbers(done)[:3]
    assert float(done.model.step.numpy()) == 12 and float(shorter.model.step.numpy()) == 9
    again = run(autorec(patience=1), ratings, tmp_path / "whole")
    assert again.resumed and again.best_epoch is None
    assert_same_weights(again, done)


class Stopped(Exception):
    pass


def interrupted(settings, split, folder, after, monkeypatch, **options):
    """Trains until an epoch has been saved, and then stops as if the machine had."""

    class Stopping(ResumableCheckpoint):
        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, logs)
            if epoch == after:
                raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr("tfvae.training.fitting.ResumableCheckpoint", Stopping)
        with pytest.raises(Stopped):
            run(settings, split, folder, **options)


@pytest.mark.long
@pytest.mark.parametrize("changes", [{}, {"final_learning_rate_factor": 0.1}], ids=["constant rate", "cooled"])
def test_two_epochs_and_two_more_are_four(ratings, tmp_path, monkeypatch, changes):
    settings = autorec(**changes)
    whole = run(settings, ratings, tmp_path / "whole")
    interrupted(settings, ratings, tmp_path / "parts", 1, monkeypatch)
    parts = run(settings, ratings, tmp_path / "parts")
    assert parts.resumed and not whole.resumed
    assert numbers(parts) == numbers(whole)
    assert_same_weights(parts, whole)


def test_watching_the_test_part_changes_no_weight(ratings, items, tmp_path):
    for split, settings, metrics in (
        (ratings, autorec(), {"test_rmse", "test_mae"}),
        (items, settings_of("mult-vae", ITEMS), {"test_hr@10", "test_ndcg@10"}),
    ):
        folder = tmp_path / split.protocol
        plain, watched = run(settings, split, folder / "a"), run(settings, split, folder / "b", watched=split.test)
        assert_same_weights(watched, plain)
        assert numbers(watched, ["test_"]) == numbers(plain) and watched.best_epoch is None
        for entry in watched.history:
            assert {key for key in entry if key.startswith("test_")} == metrics
        last = evaluate(watched.model, split.test)
        for name in last.names:
            assert watched.history[-1][f"test_{name}"] == pytest.approx(last.mean(name), rel=1e-12)
            assert len({entry[f"test_{name}"] for entry in watched.history}) > 1


def test_what_is_watched_chooses_nothing_beside_a_validation_part(ratings, tmp_path):
    split = ratings.for_tuning()
    plain = run(autorec(), split, tmp_path / "a")
    watched = run(autorec(), split, tmp_path / "b", watched=ratings.test)
    assert watched.best_epoch == plain.best_epoch == best_of(plain.history, "val_rmse")
    assert_same_weights(watched, plain)


def test_a_watched_run_that_was_interrupted_has_been_watched_all_along(items, tmp_path, monkeypatch):
    settings, test = settings_of("mult-vae", ITEMS), items.test
    whole = run(settings, items, tmp_path / "whole", watched=test)
    interrupted(settings, items, tmp_path / "parts", 1, monkeypatch, watched=test)
    parts = run(settings, items, tmp_path / "parts", watched=test)
    assert numbers(parts) == numbers(whole)
    assert_same_weights(parts, whole)


def test_a_kl_weight_cannot_be_selected_without_a_validation_part(items, tmp_path):
    settings = settings_of("mult-vae", ITEMS | {"beta_selection": "peak"})
    with pytest.raises(InputError, match='beta_selection="peak" needs a validation part'):
        run(settings, items, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert run(settings, items.for_tuning(), tmp_path / "run").best_epoch is not None
