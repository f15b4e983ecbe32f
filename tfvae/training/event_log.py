"""A file of events for TensorBoard that a resumed run goes on with: each value once, and none that is missing.

A killed process may have written the events of an epoch whose checkpoint it did not write, or the other way round, and
half a record. Therefore a run begins by writing its events so far anew, from those that are there and from its history,
and appends to this file from then on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import tensorflow as tf
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.text.summary_v2 import text_pb

__all__ = ["PATTERN", "EventLog", "Point", "settings_points"]

Point = tuple[int, Summary]
"""A step, such as an epoch, and what is logged of it: one value with its name."""
PATTERN = "events.out.tfevents.*.tfvae"
"""The names of event files; TensorBoard reads those of a folder in alphabetical order."""


class EventLog:
    """The events of one run, in one file; used in a `with` statement, which opens and closes the file.

    Args:
        folder: The folder of the file.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._writer: tf.io.TFRecordWriter | None = None

    def begin(self, points: Iterable[Point], kept: Callable[[str, int], bool] = lambda name, step: False) -> set[str]:
        """Replaces the events of former processes, and opens the file for more.

        Args:
            points: All that the log should have so far; a point that former processes logged too keeps its time.
            kept: Whether a former event is kept although it is not among the points, by its name and step.

        Returns:
            The kept events, each as "name@step".
        """
        # Sorted by name is sorted by time, so that the new file comes last and TensorBoard, if it is open, reads on.
        former = sorted(self._folder.glob(PATTERN))
        events: dict[tuple[str, int], Event] = {}
        for file in former:
            for event in LegacyEventFileLoader(str(file)).Load():
                for value in event.summary.value:
                    events.setdefault((value.tag, event.step), event)
        found = {at: event for at, event in events.items() if kept(*at)}
        fresh = [_event(step, summary, events.get((summary.value[0].tag, step))) for step, summary in points]
        now = time.time_ns()
        file = self._folder / PATTERN.replace("*", f"{now // 10**9:010d}.{now % 10**9:09d}")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._writer = tf.io.TFRecordWriter(str(file))
        self._write([Event(wall_time=time.time(), file_version="brain.Event:2")])
        self._write(sorted([*found.values(), *fresh], key=lambda event: event.step))
        for file in former:
            file.unlink()
        return {f"{name}@{step}" for name, step in found}

    def add(self, points: Iterable[Point]) -> None:
        """Appends events; they are in the file when the call returns."""
        self._write([_event(*point) for point in points])

    def __enter__(self) -> Self:
        """The log itself, which has no file before it begins."""
        return self

    def __exit__(self, *problem: object) -> None:
        """Closes the file."""
        if self._writer is not None:
            self._writer.close()

    def _write(self, events: Iterable[Event]) -> None:
        assert self._writer is not None, "the log has not begun"
        for event in events:
            self._writer.write(event.SerializeToString())
        self._writer.flush()


def _event(step: int, summary: Summary, former: Event | None = None) -> Event:
    return Event(wall_time=time.time() if former is None else former.wall_time, step=step, summary=summary)


def settings_points(settings: Mapping[str, Any], session: str) -> list[Point]:
    """Settings as a text, and as the hyperparameters of a run on TensorBoard's HParams page.

    Args:
        settings: The settings by name, of any JSON types.
        session: The name of the run there, where runs of equal names count as one.
    """
    plain = {k: v if isinstance(v, bool | int | float | str) else json.dumps(v) for k, v in settings.items()}
    text = "\n".join(f"    {name} = {value}" for name, value in plain.items())
    return [(0, text_pb("settings", text)), (0, hparams_pb(plain, session))]
