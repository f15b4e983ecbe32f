"""The epochs of a run by gradient: Keras `fit` with validation, checkpoints for an exact resume, what follows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import keras
import tensorflow as tf

from tfvae.data.splits import HeldOut, Split
from tfvae.evaluation.evaluate import default_metrics, evaluator
from tfvae.models.gradient import GradientRecommender
from tfvae.nn.batches import row_numbers, steps_per_epoch
from tfvae.system.errors import DivergedError
from tfvae.training.callbacks import LearningRateDecay, Progress, ResumableCheckpoint, StopWhen, Validation
from tfvae.training.run_folder import RunFolder
from tfvae.training.settings import Detail, Settings

if TYPE_CHECKING:
    from tfvae.training.workers import Workers

__all__ = ["WATCHED", "Following", "fit_epochs"]

WATCHED = "test_"  # the prefix of metrics on data that are only watched


@dataclass(frozen=True, eq=False)
class Following:
    """What `train` is given to follow a run and to end it."""

    watched: HeldOut | None
    stop: Callable[[], bool] | None
    follow: Callable[[list[dict[str, float]]], None] | None
    progress: bool
    tensorboard: Detail
    log: Callable[[str], None]
    workers: Workers | None = None


def fit_epochs(
    model: GradientRecommender,
    settings: Settings,
    split: Split,
    run: RunFolder,
    following: Following,
) -> list[dict[str, float]]:
    """Trains a model that is ready for it, from the last finished epoch on, and gives it its best weights.

    Args:
        model: The model, whose training rows are attached and which is compiled.
        settings: Its settings.
        split: The data, of which the validation part selects the epoch.
        run: The folder, which is held and marked.
        following: What follows the run.

    Returns:
        One entry per epoch, as in `TrainedModel.history`.

    Raises:
        DivergedError: If the loss is NaN or infinite.
    """
    training = settings.training
    monitor = f"val_{training.monitor}"
    keeper = ResumableCheckpoint(
        run.path, monitor, training.patience, model.patient_from, run.claim().digest, following.log
    )
    keeper.set_model(model)
    keeper.resume()
    done = len(keeper.history)
    callbacks = []
    if split.validation is not None:
        metrics = dict.fromkeys([training.monitor, *default_metrics(split.validation)])
        evaluate = evaluator(model, split.validation, list(metrics))
        callbacks.append(Validation(evaluate, every=training.validate_every))
    if following.watched is not None:
        callbacks.append(Validation(evaluator(model, following.watched), WATCHED, training.validate_every))
    callbacks.append(keeper)
    if following.stop is not None:
        callbacks.append(StopWhen(following.stop))
    if (follow := following.follow) is not None:  # after `keeper`, whose history then has the epoch
        told = dict.fromkeys(("on_train_begin", "on_epoch_end"), lambda *_: follow(keeper.history))
        callbacks.append(keras.callbacks.LambdaCallback(**told))
    if training.final_learning_rate_factor < 1:
        callbacks.append(LearningRateDecay(training.learning_rate, training.final_learning_rate_factor))
    if following.progress and not keeper.out_of_patience:
        callbacks.append(Progress(settings.name, training.epochs, done, monitor))
    n_rows = model.histories.n_rows
    numbers = row_numbers(n_rows, training.batch_size, training.seed, first_epoch=done)
    workers = following.workers
    batches = model.histories.ahead(numbers) if workers is None else workers.batches(model.histories, numbers)
    from tfvae.training.tensorboard import logged  # here, as above: reading a finished run needs no TensorBoard

    with logged(run, settings, keeper, model, split.validation, following.tensorboard) as boards:
        if not keeper.out_of_patience:
            try:
                model.fit(
                    batches,
                    initial_epoch=done,
                    epochs=training.epochs,
                    steps_per_epoch=steps_per_epoch(n_rows, training.batch_size),
                    callbacks=[*callbacks, *boards],
                    shuffle=False,
                    verbose=0,
                )
            except tf.errors.InvalidArgumentError as error:
                if "the loss : Tensor had" not in error.message:
                    raise
                raise DivergedError(
                    f"the loss of {settings.name} is no longer a number after {int(model.step.numpy())} updates; "
                    f"lower learning_rate (now {training.learning_rate:g}). {run.path} keeps the last good epoch."
                ) from None
    keeper.restore_best()
    return keeper.history
