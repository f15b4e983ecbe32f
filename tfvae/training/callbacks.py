"""Callbacks between epochs: validation, selection, checkpoints for an exact resume, progress."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tqdm import tqdm
from tqdm.keras import TqdmCallback

from tfvae.evaluation.metrics import lower_is_better
from tfvae.evaluation.results import Evaluation, RatingEvaluation
from tfvae.system.errors import InputError
from tfvae.system.files import reading, write_npz
from tfvae.training.history import checked_history
from tfvae.training.run_folder import CHECKPOINT

__all__ = [
    "LearningRateDecay",
    "ResumableCheckpoint",
    "Progress",
    "StopWhen",
    "Validation",
    "best_of",
]


class AnotherRunError(InputError):
    """A checkpoint of other settings or data."""


def best_of(history: list[dict[str, float]], monitor: str) -> int | None:
    """The first epoch, counted from 0, with the best value of a metric; None if no epoch has a value."""
    validated = [epoch for epoch, entry in enumerate(history) if monitor in entry]
    best = min if lower_is_better(monitor.removeprefix("val_")) else max
    return best(validated, key=lambda epoch: history[epoch][monitor], default=None)


class Validation(keras.callbacks.Callback):
    """Adds the metrics on held-out data to an epoch's logs.

    It does so after every so many rounds of a model's phases and after the last epoch; for most models, each epoch is a
    round.

    Args:
        evaluator: Evaluates the model that is trained.
        prefix: Put before the names of the metrics.
        every: Number of rounds from one validation to the next.
    """

    def __init__(self, evaluator: Callable[[], Evaluation | RatingEvaluation], prefix: str = "val_", every: int = 1):
        super().__init__()
        self._evaluator, self._prefix, self._every = evaluator, prefix, every

    def on_epoch_end(self, epoch, logs=None):
        """Evaluates the model if it is due after this epoch, or if this is the last one."""
        if not (self._is_due(epoch) or epoch == self.params["epochs"] - 1):
            return
        evaluation = self._evaluator()
        logs |= {f"{self._prefix}{name}": evaluation.mean(name) for name in evaluation.names}

    def _is_due(self, epoch: int) -> bool:
        # A function of the epoch's number alone, so that a run that is resumed is validated at the same epochs.
        rounds = sum(self.model.round_ends(earlier) for earlier in range(epoch + 1))
        return self.model.round_ends(epoch) and rounds % self._every == 0


class ResumableCheckpoint(keras.callbacks.Callback):
    """Saves what a run needs to resume after `kill -9` as if it had not been interrupted, and its best weights.

    After each epoch one file, which is renamed into place, holds all weights, the states of the optimisers and the
    history of all epochs so far. The order of users, the phase and the noise are functions of the seed, the epoch and
    the step, so nothing else is needed. The previous epoch's file and its best weights are kept too, in case the newest
    file cannot be read.

    Args:
        folder: The folder of the files.
        monitor: The entry of the logs that selects the best epoch; if no epoch has it, there is no best epoch.
        patience: Number of epochs without a better value after which training ends; None for never.
        patient_from: The first epoch, counted from 0, that counts towards `patience`.
        run: Digest of the run's settings and data; a checkpoint of another run is refused.
        log: Called with one line if a checkpoint cannot be read.

    Attributes:
        history: One entry for each epoch: its number, the logs, the learning rate and the seconds.
    """

    def __init__(
        self,
        folder: Path,
        monitor: str,
        patience: int | None,
        patient_from: int = 0,
        run: str = "",
        log: Callable[[str], None] = print,
    ):
        super().__init__()
        self._folder = folder
        self._monitor = monitor
        self._patience = patience
        self._patient_from = patient_from
        self._run = run
        self._log = log
        self.history: list[dict[str, float]] = []
        self._started = 0.0

    @property
    def best_epoch(self) -> int | None:
        """The first epoch, counted from 0, with the best monitored value; None if there is no value yet."""
        return best_of(self.history, self._monitor)

    @property
    def out_of_patience(self) -> bool:
        """Whether the value has not improved for `patience` epochs."""
        best = self.best_epoch
        if self._patience is None or best is None or self._monitor not in self.history[-1]:
            return False
        since = max(best, self._patient_from - 1)
        return len(self.history) - 1 - since >= self._patience

    def resume(self) -> bool:
        """Restores the model, its optimisers and the history from an interrupted run.

        Returns:
            Whether there was a checkpoint that could be read.

        Raises:
            InputError: If a checkpoint belongs to another run.
            PermissionError: If a checkpoint may not be read.
        """
        found = (CHECKPOINT.fullmatch(path.name) for path in self._folder.glob("state-*.npz"))
        epochs = [int(match[2]) for match in found if match]
        for epoch in sorted(epochs, reverse=True):
            path = self._folder / f"state-{epoch}.npz"
            try:
                self.history = self._checked(path, epoch)
            except AnotherRunError:
                raise
            except InputError as problem:
                if isinstance(problem.__cause__, PermissionError):
                    raise problem.__cause__ from None
                self._log(f"{self._folder}: going back by an epoch, since {problem}")
            else:
                _restore(self._all_variables(), path)
                return True
        if epochs:
            self._log(f"{self._folder} has no checkpoint that can be read; training begins anew")
        self.history = []
        return False

    def _checked(self, path: Path, epoch: int) -> list[dict[str, float]]:
        """The history in a checkpoint, all of which is read and checked before anything is restored.

        Raises:
            InputError: If the checkpoint or its best weights are missing, damaged or those of another epoch.
            AnotherRunError: If the checkpoint is another run's.
        """
        with _opened(path) as stored:
            if str(stored["run"]) != self._run:
                raise AnotherRunError(
                    f"{path} is a checkpoint of other settings or data than those of this run. Give another folder, or "
                    "remove the file to begin anew."
                )
            history = checked_history(str(stored["history"]), epoch)
            for variable, value in _checked_values(self._all_variables(), stored):
                if variable is self.model.rows_seen and value // self.model.histories.n_rows != epoch + 1:
                    raise InputError(f"after {epoch + 1} epochs, the model has met {value} rows.")
        best = best_of(history, self._monitor)
        if best is not None:
            with _opened(self._weights_of(best)) as stored:
                self._refuse_other_best(stored, best)
                for _ in _checked_values(self.model.variables, stored):
                    pass
        return history

    def _refuse_other_best(self, stored: Any, epoch: int) -> None:
        """Refuses best weights of another run or epoch; files of former versions do not tell."""
        if "run" in stored and (str(stored["run"]), int(stored["epoch"])) != (self._run, epoch):
            raise InputError("these are the best weights of another run or epoch.")

    def restore_best(self) -> None:
        """Gives the model the weights of the best epoch; without a best epoch, it keeps the last weights.

        Raises:
            InputError: If the file of these weights is missing or damaged.
        """
        if self.best_epoch is not None:
            _restore(self.model.variables, self._weights_of(self.best_epoch))

    def on_train_begin(self, logs=None):
        """Starts the clock."""
        self._started = time.perf_counter()

    def on_epoch_begin(self, epoch, logs=None):
        """Restores the best weights if the model asks for it; its counters of updates and rows are not reset."""
        if self.model.starts_from_best(epoch):
            counters = [(counter, counter.numpy()) for counter in (self.model.step, self.model.rows_seen)]
            self.restore_best()
            for counter, value in counters:
                counter.assign(value)

    def on_epoch_end(self, epoch, logs=None):
        """Adds the epoch to the history, saves a checkpoint, and stops training when `patience` is exhausted."""
        numbers = {name: float(value) for name, value in logs.items()}
        logs["seconds"] = time.perf_counter() - self._started
        rate = float(keras.ops.convert_to_numpy(self.model.optimizers[self.model.phase[0]].learning_rate))
        self.history.append({"epoch": epoch, **numbers, "learning_rate": rate, "seconds": logs["seconds"]})
        if self.best_epoch == epoch:
            notes = {"epoch": np.array(epoch), "run": np.array(self._run)}
            write_npz(self._weights_of(epoch), _numbered(self.model.variables) | notes, compressed=False)
        notes = {"history": np.array(json.dumps(self.history)), "run": np.array(self._run)}
        write_npz(self._folder / f"state-{epoch}.npz", _numbered(self._all_variables()) | notes, compressed=False)
        self._remove_older()
        if self.out_of_patience:
            self.model.stop_training = True
        self._started = time.perf_counter()

    def _remove_older(self) -> None:
        """Removes all but the last two checkpoints and their best weights."""
        lasting = {f"state-{entry['epoch']}.npz" for entry in self.history[-2:]}
        for history in (self.history, self.history[:-1]):
            lasting.add(self._weights_of(best_of(history, self._monitor)).name)
        for path in self._folder.iterdir():
            if CHECKPOINT.fullmatch(path.name) and path.name not in lasting:
                path.unlink()

    def _weights_of(self, epoch: int | None) -> Path:
        return self._folder / f"best-{epoch}.npz"

    def _all_variables(self) -> list[keras.Variable]:
        states = (optimizer.variables for optimizer in self.model.optimizers.values())
        return [*self.model.variables, *chain.from_iterable(states)]


def _numbered(variables: list[keras.Variable]) -> dict[str, np.ndarray]:
    return {f"v{number}": variable.numpy() for number, variable in enumerate(variables)}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The arrays of a checkpoint or of best weights by name, each read when it is asked for."""
    with reading(path, "a checkpoint"), np.load(path, allow_pickle=False) as stored:
        yield stored


def _checked_values(variables: list[keras.Variable], stored: Any) -> Iterator[tuple[keras.Variable, np.ndarray]]:
    """Variables with their stored values, one at a time, since all of them may be large."""
    for number, variable in enumerate(variables):
        value = stored[f"v{number}"]
        expected, found = (f"{array.dtype}{list(array.shape)}" for array in (variable, value))
        if expected != found:
            raise InputError(f"{variable.path} is {expected}; found {found}.")
        if not np.isfinite(value).all():
            raise InputError(f"{variable.path} is not all finite numbers.")
        yield variable, value


def _restore(variables: list[keras.Variable], path: Path) -> None:
    with _opened(path) as stored:
        for variable, value in _checked_values(variables, stored):
            variable.assign(value)


class StopWhen(keras.callbacks.Callback):
    """Ends training after the first epoch at whose end a function returns True.

    Args:
        stop: The function.
    """

    def __init__(self, stop: Callable[[], bool]):
        super().__init__()
        self._stop = stop

    def on_epoch_end(self, epoch, logs=None):
        """Asks the function, and stops training if it says so."""
        if self._stop():
            self.model.stop_training = True


class LearningRateDecay(keras.callbacks.Callback):
    """Lowers the learning rates geometrically, epoch by epoch, over the second half of the epochs.

    Args:
        learning_rate: The initial learning rate of objectives that have none of their own.
        factor: The ratio of the last epoch's learning rate to the initial one.
    """

    def __init__(self, learning_rate: float, factor: float):
        super().__init__()
        self._learning_rate, self._factor = learning_rate, factor

    def on_epoch_begin(self, epoch, logs=None):
        """Sets the learning rates of this epoch, which depend on its number alone."""
        last = self.params["epochs"] - 1
        done = max(0.0, 2 * epoch / last - 1) if last else 0.0
        for name, optimizer in self.model.optimizers.items():
            optimizer.learning_rate = (
                self.model.objectives[name].learning_rate or self._learning_rate
            ) * self._factor**done


class Progress(TqdmCallback):
    """A progress bar of epochs with the remaining time, the loss, and the latest and the best validation value.

    Args:
        name: Name of the model, shown before the bar.
        epochs: Number of epochs in all.
        done: Number of epochs that were done before a run was resumed.
        monitor: The entry of the logs to show.
    """

    def __init__(self, name: str, epochs: int, done: int, monitor: str):
        pause = 0.2 if sys.stderr.isatty() else 15.0  # seconds; a log file keeps every state of the bar
        kind = partial(_EpochBar, monitor=monitor)
        super().__init__(epochs, verbose=0, tqdm_class=kind, desc=name, initial=done, mininterval=pause)


class _EpochBar(tqdm):
    """The bar of `TqdmCallback`, with a few of an epoch's logs instead of all of them."""

    def __init__(self, *args, monitor: str, **kwargs):
        self._monitor, self._latest, self._best = monitor, None, None
        self._better = min if lower_is_better(monitor.removeprefix("val_")) else max
        super().__init__(*args, **kwargs)

    def set_postfix(self, ordered_dict=None, refresh=True, **kwargs):
        """Shows the loss, and the latest and the best monitored value."""
        shown = {"loss": f"{ordered_dict['loss']:.4g}"}
        if self._monitor in ordered_dict:
            self._latest = ordered_dict[self._monitor]
            self._best = self._latest if self._best is None else self._better(self._best, self._latest)
        if self._latest is not None:
            shown |= {self._monitor: f"{self._latest:.4f}", "best": f"{self._best:.4f}"}
        super().set_postfix(shown, refresh=refresh)
