"""What searches and tables tell TensorBoard: a run for each trial, with its hyperparameters, and a table's pictures."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
from tensorboard.plugins.hparams.summary import session_end_pb
from tensorboard.plugins.image.metadata import create_summary_metadata
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.util.tensor_util import make_tensor_proto

from tfvae.experiments.records import Sweep, Trial
from tfvae.training.event_log import PATTERN, EventLog, Point, settings_points
from tfvae.training.tensorboard import best_point, epoch_points

__all__ = ["log_pictures", "log_stored_trials", "log_trial"]


def log_trial(folder: Path, sweep: Sweep, trial: Trial, history: list[dict[str, float]]) -> None:
    """Logs a trial: the settings that were tried, its curves and its value, which the HParams page compares.

    Args:
        folder: The log folder of the sweep.
        sweep: The sweep.
        trial: The trial.
        history: The history of its epochs; [] where it is not known, or there were none.
    """
    session = f"trial {trial.number} of {sweep.row}, {sweep.table} on {sweep.dataset}"
    points = [*settings_points({"model": sweep.settings["model"], **trial.params}, session), *epoch_points(history)]
    if trial.value is not None:
        points.append(best_point(sweep.monitor, trial.value, trial.best_epoch or 0))
    if trial.reason is not None:
        points.append((0, text_pb("reason", trial.reason)))
    points.append((0, scalar_pb("time/seconds_of_trial", trial.seconds)))
    ended = session_end_pb(STATUS_SUCCESS if trial.reason is None else STATUS_FAILURE)
    points.append((0, Summary.FromString(ended.SerializeToString())))  # it is a TensorFlow summary, not TensorBoard's
    with EventLog(_folder_of(folder, trial.number)) as events:
        events.begin(points)


def log_stored_trials(folder: Path, sweep: Sweep) -> None:
    """Brings the log of a sweep to the state of its record.

    Trials that are not logged, as where only the record was kept, are logged without curves. The logs of trials that
    the record does not have, as after a kill, are removed.

    Args:
        folder: The log folder of the sweep.
        sweep: The sweep as stored.
    """
    for trial in sweep.trials:
        if not any(_folder_of(folder, trial.number).glob(PATTERN)):
            log_trial(folder, sweep, trial, [])
    known = {_folder_of(folder, trial.number) for trial in sweep.trials}
    for logged in folder.glob("trial-*"):
        if logged not in known:
            for file in logged.glob(PATTERN):
                file.unlink()


def _folder_of(folder: Path, number: int) -> Path:
    return folder / f"trial-{number:03d}"


def log_pictures(folder: Path, pictures: Iterable[Path]) -> None:
    """Logs the pictures of a table's page, under their names; the former ones are replaced.

    Args:
        folder: The log folder.
        pictures: The PNG files; those that do not exist are left out.
    """
    found = [path for path in pictures if path.is_file()]
    if found:
        with EventLog(folder) as events:
            events.begin([_picture(path) for path in found])


def _picture(path: Path) -> Point:
    from matplotlib.image import imread  # which whoever drew the picture has loaded, and a sweep does without

    height, width = imread(path).shape[:2]
    content = make_tensor_proto([str(width).encode(), str(height).encode(), path.read_bytes()])
    metadata = create_summary_metadata(display_name=None, description=None)
    value = Summary.Value(tag=f"pictures/{path.stem}", tensor=content, metadata=metadata)
    return 0, Summary(value=[value])
