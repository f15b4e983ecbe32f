"""From settings and a split to a trained model in a run folder, through Keras `fit` or in one fit.

A run folder holds `settings.json` from the start, `state.npz` and `best-<epoch>.npz` while training, and `model.keras`
`items.npz` and `run.json` when done; `tensorboard/` all along. A finished folder is read back, an interrupted one is
continued.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import keras
import tensorflow as tf

from tfvae.data.items import ITEMS_FILE, Items
from tfvae.data.splits import HeldOut, Split
from tfvae.evaluation.evaluate import default_metrics, evaluator, refuse_unknown_users
from tfvae.models import model_class
from tfvae.models.base import Recommender
from tfvae.models.gradient import GradientRecommender
from tfvae.nn.batches import check_batch_size, row_numbers, steps_per_epoch
from tfvae.nn.optimizers import OPTIMIZERS
from tfvae.system.errors import DivergedError, InputError
from tfvae.system.files import replacing, write_json
from tfvae.system.memory import keep_freed_buffers
from tfvae.training.callbacks import (
    LearningRateDecay,
    Progress,
    ResumableCheckpoint,
    TensorBoardLog,
    Validation,
    best_of,
)
from tfvae.training.settings import PILOT_CAP, Settings, stored_settings, todays_flat

__all__ = ["WATCHED", "TrainedModel", "load_run", "prepare_to_fit", "train"]

WATCHED = "test_"  # before a metric of what is only watched

SETTINGS_FILE = "settings.json"
PARTS = "parts"
OUTCOME = ("history", "best_epoch", "seconds", "selected_beta")  # kept in run.json


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A finished run.

    Attributes:
        model: With the weights of its best epoch.
        settings: The settings that were asked for.
        history: One entry per epoch: losses, β, learning rate, `val_…` metrics, seconds; [] where there are none.
        best_epoch: Counted from 0; None without epochs.
        seconds: Wall time of training, interruptions left out.
        selected_beta: The cap found by the pilot run of `beta_selection="peak"`.
        resumed: Whether this call found earlier work in the folder.
    """

    model: Recommender
    settings: Settings
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int | None = None
    seconds: float = 0.0
    selected_beta: float | None = None
    resumed: bool = False

    @property
    def best(self) -> dict[str, float]:
        """The entry of the best epoch.

        Raises:
            InputError: Where there are no epochs.
        """
        if self.best_epoch is None:
            raise InputError(f"{self.model.name} is not trained by epochs; there is no best one.")
        return self.history[self.best_epoch]

    @property
    def epochs(self) -> int:
        """Epochs trained."""
        return len(self.history)


def train(
    settings: Settings,
    split: Split,
    folder: Path | str,
    *,
    watched: HeldOut | None = None,
    progress: bool = True,
    log: Callable[[str], None] = print,
) -> TrainedModel:
    """Trains a model on a split's training part, selecting its epoch on the validation part; the test part is not read.

    A split without a validation part trains all epochs, and keeps the last one's weights.

    Args:
        settings: What to train and how.
        split: The data.
        folder: The run folder; made when missing.
        watched: What is measured after each epoch beside the validation part, as `test_…`; nothing is chosen by it.
        progress: Whether to show a bar.
        log: Called with one line of progress, such as the memory a fit will need.

    Returns:
        The finished run.

    Raises:
        InputError: When the folder holds a run of other settings or data, a batch is larger than the data, the KL
            weight is to be selected where there is no validation part, or a model of training users is to be validated
            on others.
        DivergedError: When the loss is no longer a number; the folder keeps the last good epoch.
    """
    folder = Path(folder)
    kind = model_class(settings.name)
    if issubclass(kind, GradientRecommender):
        refuse_unknown_users(kind, split.validation)
        check_batch_size(kind.n_rows(split.train), settings.training.batch_size, kind.rows_are)
    if split.validation is None and (selection := settings.training.beta_selection) != "fixed":
        raise InputError(
            f'beta_selection="{selection}" needs a validation part, which this split lacks; set '
            f"{settings.kl_weight_cap} by hand."
        )
    started_before = _belongs(folder, settings, split.digest)
    if (folder / "run.json").exists():
        return load_run(folder)
    if settings.training.deterministic:
        tf.config.experimental.enable_op_determinism()
    keep_freed_buffers()

    effective, selected_beta = settings, None
    cap = settings.kl_weight_cap
    if cap and settings.training.beta_selection == "peak":
        pilot_settings = settings.with_changes(beta_selection="fixed", **{cap: PILOT_CAP})
        pilot = train(pilot_settings, split, folder / "pilot", progress=progress, log=log)
        selected_beta = pilot.best["beta"]
        effective = settings.with_changes(beta_selection="fixed", **{cap: selected_beta})

    model = effective.build_for(split)
    write_json(folder / SETTINGS_FILE, _claim(settings, split.digest))
    begun = time.perf_counter()
    if isinstance(model, GradientRecommender):
        history = _fit(model, effective, split, folder, watched, progress)
        seconds = sum(entry["seconds"] for entry in history)
        model.detach()
    else:
        model.fit_matrix(split.train, log, folder / PARTS if model.resumes_fit else None)
        history, seconds = [], time.perf_counter() - begun
    best_epoch = best_of(history, f"val_{settings.training.monitor}")

    with replacing(folder / "model.keras") as draft:
        model.save(draft)
    if not (folder / ITEMS_FILE).exists():
        Items.of(split).save(folder)
    trained = TrainedModel(model, settings, history, best_epoch, seconds, selected_beta, started_before)
    write_json(folder / "run.json", {name: getattr(trained, name) for name in OUTCOME})
    for leftover in [*folder.glob("state.npz"), *folder.glob("best-*.npz")]:
        leftover.unlink()
    for finished in ("pilot", PARTS):
        shutil.rmtree(folder / finished, ignore_errors=True)
    return trained


def load_run(folder: Path | str) -> TrainedModel:
    """Reads a finished run back.

    Raises:
        InputError: When the folder holds none.
    """
    folder = Path(folder)
    if not (folder / "run.json").exists():
        raise InputError(f"{folder} holds no finished run: run.json is missing. Train it to the end first.")
    outcome = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    settings = stored_settings(json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))["settings"])
    return TrainedModel(keras.models.load_model(folder / "model.keras"), settings, resumed=True, **outcome)


def prepare_to_fit(model: GradientRecommender, split: Split, learning_rate: float, optimizer: str = "adam") -> None:
    """Attaches the training rows and compiles, after which Keras `fit` on `row_numbers` trains the model.

    Args:
        model: To be trained.
        split: The data; the model learns from its training users.
        learning_rate: The optimiser's learning rate.
        optimizer: A key of `OPTIMIZERS`.
    """
    model.attach(split.train)
    # XLA loses on a CPU at these sizes, and cannot compile the sparse kernels where it would be the default.
    model.compile(optimizer=OPTIMIZERS[optimizer](learning_rate), jit_compile=False)


def _fit(
    model: GradientRecommender,
    settings: Settings,
    split: Split,
    folder: Path,
    watched: HeldOut | None,
    progress: bool,
) -> list[dict[str, float]]:
    training = settings.training
    prepare_to_fit(model, split, training.learning_rate, training.optimizer)
    monitor = f"val_{training.monitor}"
    keeper = ResumableCheckpoint(folder, monitor, training.patience, patient_from=model.patient_from)
    keeper.set_model(model)
    keeper.resume()
    done = len(keeper.history)
    callbacks = []
    if split.validation is not None:
        metrics = dict.fromkeys([training.monitor, *default_metrics(split.validation)])
        callbacks.append(Validation(evaluator(model, split.validation, list(metrics))))
    if watched is not None:
        callbacks.append(Validation(evaluator(model, watched), WATCHED))
    callbacks.append(keeper)
    if training.final_learning_rate_factor < 1:
        callbacks.append(LearningRateDecay(training.learning_rate, training.final_learning_rate_factor))
    callbacks.append(TensorBoardLog(folder / "tensorboard", settings.flat()))
    if progress and not keeper.out_of_patience:
        callbacks.append(Progress(settings.name, training.epochs, done, monitor))
    n_rows = model.histories.n_rows
    batches = row_numbers(n_rows, training.batch_size, training.seed, first_epoch=done)
    if not keeper.out_of_patience:
        try:
            model.fit(
                batches,
                initial_epoch=done,
                epochs=training.epochs,
                steps_per_epoch=steps_per_epoch(n_rows, training.batch_size),
                callbacks=callbacks,
                shuffle=False,
                verbose=0,
            )
        except tf.errors.InvalidArgumentError as error:
            if "the loss : Tensor had" not in error.message:
                raise
            raise DivergedError(
                f"the loss of {settings.name} is no longer a number after {int(model.step.numpy())} updates; "
                f"lower learning_rate (now {training.learning_rate:g}). {folder} keeps the last good epoch."
            ) from None
    keeper.restore_best()
    return keeper.history


def _claim(settings: Settings, data_digest: str) -> dict:
    """What a run folder says of whose it is."""
    return {"settings": settings.flat(), "data_digest": data_digest}


def _belongs(folder: Path, settings: Settings, data_digest: str) -> bool:
    """Whether the folder is this run's already; False when it is nobody's, an error when it is another's."""
    marker = folder / SETTINGS_FILE
    if not marker.exists():
        return False
    stored, claim = json.loads(marker.read_text(encoding="utf-8")), _claim(settings, data_digest)
    if stored | {"settings": todays_flat(stored["settings"])} == claim:
        return True
    there, here = todays_flat(stored["settings"]), claim["settings"]
    differing = [
        f"{name} is {there.get(name)!r} there, {here.get(name)!r} here"
        for name in {**there, **here}
        if there.get(name) != here.get(name)
    ]
    if stored["data_digest"] != data_digest:
        differing.append("the data are others")
    raise InputError(
        f"{folder} holds a run of another configuration: {'; '.join(differing)}. Choose another folder or remove it."
    )
