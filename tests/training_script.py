"""Trains in a process of its own, and is killed there at the end of an epoch when asked to.

Arguments: split file, run folder, settings as JSON, and the epoch, counted from 0, at which to die (or -1), and where
in it: "before" or "after" the epoch's state is saved.
"""

from __future__ import annotations

import json
import os
import signal
import sys

from graph_optimizer import without_optimizer

from tfvae.data.splits import load_split
from tfvae.training.callbacks import ResumableCheckpoint
from tfvae.training.loop import train
from tfvae.training.settings import settings_of


def main(split: str, folder: str, flat: str, last_epoch: int, moment: str) -> None:
    """Trains until it is done or dead."""
    save = ResumableCheckpoint.on_epoch_end

    def save_and_die(self, epoch, logs=None):
        if epoch != last_epoch or moment == "after":
            save(self, epoch, logs)
        if epoch == last_epoch:
            os.kill(os.getpid(), signal.SIGKILL)

    ResumableCheckpoint.on_epoch_end = save_and_die
    without_optimizer()  # as in the process that compares the bits
    settings = json.loads(flat)
    train(settings_of(settings.pop("model"), settings), load_split(split), folder, progress=False)


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]), sys.argv[5])
