"""What a run tells TensorBoard: its curves under names that all models share, and its codes every few epochs.

The step of a point is its epoch, counted from 0. A curve's name has a group before the stroke: `loss`, `kl`,
`schedule`, `validation`, `test`, `time` or `codes`; `best` has a single point, and is the first in the alphabet since
the HParams page shows only the first few metrics unasked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras
from scipy.sparse import csr_array
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.plugins.scalar.summary_v2 import scalar_pb

from tfvae.data.splits import HeldOut
from tfvae.models.base import HasPosterior, HasRatingPosterior
from tfvae.models.gradient import GradientRecommender
from tfvae.system.files import digest
from tfvae.training.callbacks import ResumableCheckpoint
from tfvae.training.event_log import EventLog, Point, settings_points
from tfvae.training.run_folder import RunFolder
from tfvae.training.settings import Detail, Settings

__all__ = ["TensorBoardLog", "best_point", "curve_name", "epoch_points", "logged", "run_points"]

MOST_LOOKS, FEWEST_EPOCHS = 20, 5
"""A run looks at its codes so often at most, and at least so many epochs apart: of a small model an epoch takes no more
than ten times as long as a look."""
CODES = "codes/"


def curve_name(entry: str) -> str:
    """The name of the curve of an entry of a run's history.

    Args:
        entry: The entry's name.

    Example:
        >>> from tfvae.training.tensorboard import curve_name
        >>> [curve_name(entry) for entry in ("loss", "nll", "kl", "kl_z1", "users_kl", "beta", "val_ndcg@100")]
        ['loss/total', 'loss/nll', 'kl/total', 'kl/z1', 'kl/users', 'schedule/beta', 'validation/ndcg@100']
    """
    match entry:
        case "loss" | "kl":
            return f"{entry}/total"
        case "beta" | "learning_rate":
            return f"schedule/{entry}"
        case "seconds":
            return "time/seconds_per_epoch"
    for prefix, group in (("val_", "validation"), ("test_", "test"), ("kl_", "kl")):
        if entry.startswith(prefix):
            return f"{group}/{entry.removeprefix(prefix)}"
    return f"kl/{entry.removesuffix('_kl')}" if entry.endswith("_kl") else f"loss/{entry}"


def epoch_points(history: list[dict[str, float]], first: int = 0) -> Iterator[Point]:
    """The points of the curves of epochs.

    Args:
        history: The history of all epochs so far.
        first: The first epoch of which the points are given.
    """
    seconds = sum(entry["seconds"] for entry in history[:first])
    for epoch, entry in enumerate(history[first:], first):
        seconds += entry["seconds"]
        for name, value in entry.items():
            if name != "epoch":
                yield epoch, scalar_pb(curve_name(name), value)
        yield epoch, scalar_pb("time/seconds_in_all", seconds)


def best_point(metric: str, value: float, epoch: int) -> Point:
    """The point of a run's best validation value, by which the HParams page can rank runs.

    Args:
        metric: The metric that has selected the epoch.
        value: Its value there.
        epoch: The epoch, counted from 0; 0 without epochs.
    """
    return epoch, scalar_pb(f"best/{metric}", value)


def run_points(run: RunFolder, settings: Settings) -> list[Point]:
    """The settings of a run; on the HParams page it has the name of its folder, and a few digits of their digest.

    Args:
        run: The folder of the run.
        settings: Its settings.
    """
    flat = settings.flat()
    return settings_points(flat, f"{run.path.resolve().name}, {digest(flat)[:6]}")


@contextmanager
def logged(
    run: RunFolder,
    settings: Settings,
    keeper: ResumableCheckpoint,
    model: GradientRecommender,
    validation: HeldOut | None,
    detail: Detail,
) -> Iterator[list[keras.callbacks.Callback]]:
    """Logs a run while it is trained, and its best value at the end; a resumed run has each epoch in its log once.

    Args:
        run: The folder of the run.
        settings: The settings of the run.
        keeper: Writes the checkpoints, and keeps the history of the epochs so far.
        model: The model, with the weights of the last of these epochs.
        validation: The users whose codes are logged, if the model has any; None for no codes.
        detail: How much is logged.

    Yields:
        The callbacks to train with, after `keeper`; none if nothing is logged.
    """
    if detail == "off":
        yield []
        return
    with EventLog(run.tensorboard) as events:
        histories = None if validation is None else validation.history
        board = TensorBoardLog(events, run, settings, keeper, model, histories)
        yield [board]
        board.end()


class TensorBoardLog(keras.callbacks.Callback):
    """Logs the epochs that the checkpoints' history has; it must come after the callback that writes these.

    Args:
        log: The log, which this callback begins anew.
        run: The folder of the run.
        settings: The run's settings.
        keeper: Writes the checkpoints and keeps the history.
        model: The model, with the weights of the last epoch in the history.
        histories: The users whose codes are logged, if the model has any, sparse [n_users, n_items]; None for no codes.
    """

    def __init__(
        self,
        log: EventLog,
        run: RunFolder,
        settings: Settings,
        keeper: ResumableCheckpoint,
        model: GradientRecommender,
        histories: csr_array | None,
    ):
        super().__init__()
        self._log, self._keeper, self._histories = log, keeper, histories
        self._monitor = settings.training.monitor
        self._every = max(FEWEST_EPOCHS, -(-settings.training.epochs // MOST_LOOKS))
        self._coder = model if isinstance(model, HasPosterior | HasRatingPosterior) else None
        done = len(keeper.history)
        points = [*run_points(run, settings), *epoch_points(keeper.history)]
        kept = log.begin(points, lambda name, step: name.startswith(CODES) and step < done)
        # The weights are those at the end of the last epoch, whose codes a killed process may not have logged.
        if done and f"{CODES}mean@{done - 1}" not in kept:
            log.add(self._codes(done - 1))

    def on_epoch_end(self, epoch, logs=None):
        """Logs the epoch."""
        self._log.add([*epoch_points(self._keeper.history, epoch), *self._codes(epoch)])

    def end(self) -> None:
        """Logs the best value of the metric that selects the epoch."""
        best = self._keeper.best_epoch
        if best is not None:
            value = self._keeper.history[best][f"val_{self._monitor}"]
            self._log.add([best_point(self._monitor, value, best)])

    def _codes(self, epoch: int) -> Iterator[Point]:
        if self._coder is None or self._histories is None or epoch % self._every:
            return
        # Loads TensorFlow Probability, which these models have loaded, and others do without.
        from tfvae.evaluation.codes import active_units, codes_of, has_codes

        if not has_codes(self._coder):
            return
        codes = codes_of(self._coder, self._histories)
        if not codes.are_finite:  # the validation or the next step says so
            return
        yield epoch, histogram_pb(f"{CODES}mean", codes.mean)
        yield epoch, histogram_pb(f"{CODES}standard_deviation", codes.sd)
        if codes.kl is not None:
            yield epoch, histogram_pb(f"{CODES}kl_per_dimension", codes.kl)
        yield epoch, scalar_pb(f"{CODES}active_units", active_units(codes.mean))
