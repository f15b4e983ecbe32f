"""From settings and a split to a trained model in a run folder, by Keras `fit` or by a fit of the whole matrix.

A finished run is read back, and an interrupted one is resumed; `tfvae.training.run_folder` describes the folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import tensorflow as tf

from tfvae.data.items import Items
from tfvae.data.splits import HeldOut, Split
from tfvae.evaluation.calibration import LEVEL, calibration
from tfvae.evaluation.evaluate import refuse_unknown_users
from tfvae.models import model_class
from tfvae.models.base import HasItemVectors, Recommender
from tfvae.models.gradient import GradientRecommender
from tfvae.models.rating_model import RatingModel
from tfvae.models.saved import load_model, save_model
from tfvae.nn.batches import check_batch_size
from tfvae.nn.optimizers import OPTIMIZERS
from tfvae.system.errors import InputError, unknown_name
from tfvae.system.memory import keep_freed_buffers
from tfvae.training.adapt import members_for
from tfvae.training.assembly import assembled
from tfvae.training.callbacks import best_of
from tfvae.training.fitting import Following, fit_epochs
from tfvae.training.run_folder import RunFolder, part_files
from tfvae.training.settings import PILOT_CAP, Detail, Settings, as_member
from tfvae.training.streaming import refuse_not_streamed
from tfvae.training.warm_start import WarmStart

if TYPE_CHECKING:
    from tfvae.training.workers import Workers

__all__ = ["TrainedModel", "in_folder", "keep", "load_run", "prepare_to_fit", "train"]

OUTCOME = ("history", "best_epoch", "seconds", "selected_beta")  # kept in run.json


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A finished run.

    Attributes:
        model: The model with the weights of the best epoch, or with the last ones if there is no best epoch.
        settings: The settings that were asked for.
        history: One entry per epoch: losses, β, learning rate, `val_…` metrics, seconds; [] without epochs.
        best_epoch: The best epoch on the validation part, counted from 0; None without epochs or without such a part.
        seconds: Wall time of training, validation included, without a pilot run. Interruptions do not count, nor does
            what an interrupted fit of the whole matrix had done before.
        selected_beta: The cap found by the pilot run of `beta_selection="peak"`, else None.
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
        """The entry of the best epoch in the history.

        Raises:
            InputError: If there is no best epoch.
        """
        if self.best_epoch is None:
            raise InputError(f"{self.model.name} is not trained by epochs; there is no best one.")
        return self.history[self.best_epoch]

    @property
    def epochs(self) -> int:
        """Number of epochs trained."""
        return len(self.history)


def train(
    settings: Settings,
    split: Split,
    folder: Path | str,
    *,
    items: Items | None = None,
    watched: HeldOut | None = None,
    stop: Callable[[], bool] | None = None,
    follow: Callable[[list[dict[str, float]]], None] | None = None,
    progress: bool = True,
    tensorboard: Detail = "all",
    log: Callable[[str], None] = print,
    start: WarmStart | None = None,
    workers: Workers | None = None,
) -> TrainedModel:
    """Trains a model on a split's training part and selects its epoch on the validation part; test data are not read.

    Without a validation part, all epochs are trained and the last weights are kept. A finished run is read back, and
    an interrupted one is resumed.

    Each member of an ensemble is trained in the same way, in a run folder of its own within this one. Then its weights
    are copied into the ensemble, the weight of each member is chosen on the validation part, and the members' folders
    are removed. Their seconds are added up.

    Args:
        settings: The model and how it is trained.
        split: The data.
        folder: The run folder; it is created if it is missing.
        items: The items that are stored beside the model; None takes those of the split.
        watched: Data on which the model is also measured when it is validated, under `test_…`; nothing is selected by
            these metrics. The members of an ensemble are not measured on them.
        stop: Asked after each epoch whether training shall end with it, as where time is limited; the run is finished
            then. The members of an ensemble do not ask.
        follow: Called with the history so far before the first epoch and after each, as by `in_mlflow`. The members of
            an ensemble are not followed.
        progress: Whether to show a progress bar.
        tensorboard: What is logged for TensorBoard: "all"; "curves", without the item vectors for the projector; or
            "off". It changes nothing about the model, and is no setting of the run.
        log: Called with one line at a time, such as the memory that a fit will need.
        start: The weights that the model starts from, of a run with settings that give weights of the same shapes; None
            for its own initial weights. `tfvae.retrain` prepares it, and only a `GradientRecommender` can have one.
        workers: The workers that train together, each in a folder of its own; `Workers.train` prepares the call.

    Returns:
        The finished run.

    Raises:
        InputError: If `tensorboard` is no such word; if the folder holds anything but this run, or another process uses
            it; if a batch is larger than the data; if the KL weight is to be selected without a validation part; or if
            a model that only scores its training users is to be validated on other users.
        DivergedError: If the loss is NaN or infinite; the folder keeps the last good epoch.
    """
    if tensorboard not in get_args(Detail):
        raise unknown_name("detail of TensorBoard's log", tensorboard, get_args(Detail))
    _refuse_unfit(settings, split)
    following = Following(watched, stop, follow, progress, tensorboard, log, workers)
    return in_folder(
        settings,
        split,
        folder,
        lambda run: _trained(settings, split, run, items or Items.of(split), following, start),
        None if start is None else start.digest,
    )


def _refuse_unfit(settings: Settings, split: Split) -> None:
    """Refuses settings with which a model, or a member of an ensemble, cannot be trained on a split."""
    kind = model_class(settings.name)
    refuse_not_streamed(settings, split)
    for member in members_for(settings, split, lambda line: None):
        _refuse_unfit(member, split)
    if settings.training.xla and (why := _not_by_xla(settings)):
        raise InputError(f"{settings.name} cannot be compiled by XLA: {why}. Leave xla out.")
    if issubclass(kind, GradientRecommender):
        refuse_unknown_users(kind, split.validation)
        check_batch_size(kind.n_rows(split.train), settings.training.batch_size, kind.rows_are)
    if split.validation is None and (selection := settings.training.beta_selection) != "fixed":
        raise InputError(
            f'beta_selection="{selection}" needs a validation part, which this split lacks; set '
            f"{settings.kl_weight_cap} by hand."
        )


def _not_by_xla(settings: Settings) -> str | None:
    """Why XLA cannot compile the steps of a model; None if it can."""
    kind = model_class(settings.name)
    return kind.not_by_xla(settings.model) if issubclass(kind, GradientRecommender) else "it has no training steps"


def in_folder(
    settings: Settings,
    split: Split,
    folder: Path | str,
    made: Callable[[RunFolder], TrainedModel],
    started_from: str | None = None,
) -> TrainedModel:
    """A run in its folder: a finished one is read back, any other one is made while the folder is held.

    Args:
        settings: The settings of the run.
        split: Its data.
        folder: The run folder; it is created if it is missing.
        made: Called with the folder; makes the run, and writes its model and items.
        started_from: As in `Claim`.

    Returns:
        The finished run.

    Raises:
        InputError: If the folder holds anything but this run, or another process uses it.
    """
    run = RunFolder(folder)
    run.refuse_others(settings, split.digest, started_from)
    if run.is_finished and not run.has_training_files:
        return load_run(folder)  # without a lock, since the folder may be read-only
    with run.taken(settings, split.digest, started_from) as resumed:
        if run.is_finished:
            trained = load_run(folder)
        else:
            trained = made(run)
            run.finish({name: getattr(trained, name) for name in OUTCOME})
        run.remove_training_files()
    return replace(trained, resumed=resumed)


def load_run(folder: Path | str) -> TrainedModel:
    """Loads a finished run from its folder.

    Raises:
        InputError: If the folder holds no finished run, or a file is missing, damaged or another run's.
    """
    run = RunFolder(folder)
    settings, outcome = run.finished()
    return TrainedModel(load_model(run.model_file), settings, resumed=True, **outcome)


def prepare_to_fit(
    model: GradientRecommender, split: Split, learning_rate: float, optimizer: str = "adam", xla: bool = False
) -> None:
    """Attaches the training rows and compiles the model, so that Keras `fit` on `row_numbers` trains it.

    A model of ratings that has not been trained yet is also told the scale of the ratings.

    Args:
        model: The model.
        split: The data, of which the model learns from the training part.
        learning_rate: The optimiser's learning rate.
        optimizer: A key of `OPTIMIZERS`.
        xla: Whether XLA compiles the losses and gradients of a step; on a CPU it is slower.

    Raises:
        InputError: If XLA cannot compile the model.
    """
    if isinstance(model, RatingModel) and model.step.numpy() == 0:
        model.rate_as(split.scale)
    model.attach(split.train)
    model.compile(optimizer=OPTIMIZERS[optimizer](learning_rate), jit_compile=xla)


def _trained(
    settings: Settings,
    split: Split,
    run: RunFolder,
    items: Items,
    following: Following,
    start: WarmStart | None,
) -> TrainedModel:
    """Trains the model and writes it with its items into the folder, which must be held."""
    if settings.training.deterministic:
        tf.config.experimental.enable_op_determinism()
    keep_freed_buffers()
    progress, tensorboard, log = following.progress, following.tensorboard, following.log
    parts: Detail = "off" if tensorboard == "off" else "curves"
    if settings.members:
        members = members_for(settings, split, log)
        run.mark(settings, split.digest)
        folders = run.member_folders(settings)
        for member, folder in zip(members, folders, strict=True):
            log(f"Member {folder.name}:")
            train(member, split, folder, items=items, progress=progress, tensorboard=parts, log=log)
        # They are read back one at a time, so that memory holds the ensemble and one of its members, not all twice.
        whole = settings.with_changes(members=[as_member(member) for member in members])
        ensemble, seconds = assembled(whole, split, map(load_run, folders), log)
        return keep(TrainedModel(ensemble, settings, seconds=seconds), split, run, items, log)

    effective, selected_beta = settings, None
    cap = settings.kl_weight_cap
    if cap and settings.training.beta_selection == "peak":
        if start is not None:
            selected_beta = start.selected_beta  # the weights that it starts from were trained with this cap
        else:
            run.mark(settings, split.digest)
            pilot_settings = settings.with_changes(beta_selection="fixed", **{cap: PILOT_CAP})
            pilot = train(
                pilot_settings,
                split,
                run.pilot,
                progress=progress,
                tensorboard=parts,
                log=log,
                workers=following.workers,
            )
            selected_beta = pilot.best["beta"]
        effective = settings.with_changes(beta_selection="fixed", **{cap: selected_beta})

    workers = following.workers
    with nullcontext() if workers is None else workers.strategy.scope():
        model = effective.build_for(split)
        if isinstance(model, GradientRecommender):
            training = settings.training
            prepare_to_fit(model, split, training.learning_rate, training.optimizer, training.xla)
    if isinstance(model, GradientRecommender):
        if start is not None:
            start.give_to(model, effective, split)
        if workers is not None:
            workers.keep_own_rows(model, split.train)
    run.mark(settings, split.digest, None if start is None else start.digest)
    begun = time.perf_counter()
    if isinstance(model, GradientRecommender):
        history = fit_epochs(model, effective, split, run, following)
        seconds = sum(entry["seconds"] for entry in history)
        model.detach()
    else:
        model.fit_matrix(split.train, log, run.parts if part_files(settings) else None)
        history, seconds = [], time.perf_counter() - begun
        if tensorboard != "off":
            from tfvae.training.event_log import EventLog
            from tfvae.training.tensorboard import run_points

            with EventLog(run.tensorboard) as events:
                events.begin(run_points(run, settings))
    best_epoch = best_of(history, f"val_{settings.training.monitor}")
    trained = TrainedModel(model, settings, history, best_epoch, seconds, selected_beta)
    keep(trained, split, run, items, log)
    if tensorboard == "all" and isinstance(model, HasItemVectors):
        from tfvae.training.projector import write_projector

        shown = write_projector(run.tensorboard, model, items)
        if 0 < shown < items.n_items:
            log(f"TensorBoard's projector has the {shown:,} items that most users have, of {items.n_items:,}.")
    return trained


def keep(trained: TrainedModel, split: Split, run: RunFolder, items: Items, log: Callable[[str], None]) -> TrainedModel:
    """Calibrates a model of ratings, and writes the model and its items into the run folder, which must be held."""
    model = trained.model
    if isinstance(model, RatingModel) and split.validation is not None:
        _calibrate(model, trained.settings.name, split.validation, log)
    save_model(model, run.model_file)
    items.save(run.path)
    return trained


def _calibrate(model: RatingModel, name: str, validation: HeldOut, log: Callable[[str], None]) -> None:
    """Calibrates the predicted standard deviations on the validation ratings, and logs their coverage."""
    found = calibration(model, validation)
    if found is None:
        return
    log(f"{LEVEL:.0%} intervals of {name} hold {found.coverage:.1%} of the validation ratings.")
    if found.factor != 1:
        log(f"So its standard deviations are multiplied by {found.factor:.3g}.")
        model.sd_factor = found.factor
