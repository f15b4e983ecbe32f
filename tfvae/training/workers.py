"""Training on several machines: each holds its own users, and one step of all is one step of a single machine.

TensorFlow's `MultiWorkerMirroredStrategy` runs the same program on each machine, which finds the others by the
environment variable TF_CONFIG. Every worker has all weights and the same order of all users. Of a batch it meets the
users of its own, takes gradients of their losses, and the sum over the workers updates the weights of each. A batch,
a step and an epoch are therefore the same as on one machine, whatever the number of workers; only the sum is rounded
differently, and dropout and samples are drawn for each worker by itself.

The first worker, the chief, keeps the run folder, as on one machine. Every other one keeps a folder of its own while it
runs, and begins with the files of the chief's. So all resume at the same epoch after an interruption: when one worker
has stopped, the others stop too, and all are started again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
import tensorflow as tf
from pydantic import BaseModel, Field, ValidationError

from tfvae.data.splits import Split
from tfvae.models import model_class
from tfvae.models.gradient import GradientRecommender
from tfvae.nn.batches import RowStore, TrainingRows
from tfvae.system.errors import InputError, WorkerError
from tfvae.system.files import finite_json
from tfvae.system.validation import Strict, explained
from tfvae.training.loop import TrainedModel, train
from tfvae.training.run_folder import RunFolder
from tfvae.training.settings import Settings

__all__ = ["VARIABLE", "Workers", "join", "refuse_one_machine"]

VARIABLE = "TF_CONFIG"
EXAMPLE = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'


class _Addresses(Strict):
    worker: list[str] = Field(min_length=1)


class _Task(Strict):
    type: Literal["worker"]
    index: int = Field(ge=0)


class _Config(BaseModel):  # not strict: platforms add keys of their own, such as "environment"
    cluster: _Addresses
    task: _Task


@dataclass(frozen=True, eq=False)
class Workers:
    """The workers that train a model together, as one of them sees them.

    Attributes:
        strategy: TensorFlow's strategy, in whose scope the model is made.
        index: The number of this worker, counted from 0.
        n: How many workers there are.
    """

    strategy: tf.distribute.Strategy
    index: int
    n: int

    @property
    def is_chief(self) -> bool:
        """Whether this worker keeps the run folder."""
        return self.index == 0

    def keep_own_rows(self, model: GradientRecommender, train: sp.csr_array) -> None:
        """Replaces the training rows of a model by those of this worker's users; the others' are empty.

        Where a batch is of pairs, each worker keeps all of them, since an item is drawn that a user does not have.

        Args:
            model: A model with training rows.
            train: These rows, CSR [n_users, n_items].
        """
        if isinstance(model.histories, RowStore):
            own = np.arange(train.shape[0]) % self.n == self.index
            lengths = np.where(own, np.diff(train.indptr), 0)
            starts = np.concatenate([[0], np.cumsum(lengths)])
            kept = np.repeat(own, np.diff(train.indptr))
            matrix = sp.csr_array((train.data[kept], train.indices[kept], starts), shape=train.shape)
            model.stream(RowStore(matrix, with_values=model.predicts_ratings))

    def batches(self, rows: TrainingRows, numbers: tf.data.Dataset) -> Any:
        """This worker's shares of batches, as Keras `fit` takes them in the strategy's scope.

        Args:
            rows: The training rows.
            numbers: Batches of row numbers of all workers together, as `row_numbers` makes them.
        """

        def own(numbers: tf.Tensor) -> tf.Tensor:
            return tf.boolean_mask(numbers, numbers % self.n == self.index)

        shares = rows.ahead(numbers.map(own))
        return self.strategy.distribute_datasets_from_function(lambda _: shares)

    def train(self, settings: Settings, split: Split, folder: Path | str, **following: Any) -> TrainedModel | None:
        """Trains as `tfvae.train` does, together with the other workers, who call this with the same arguments.

        Args:
            settings: The model and how it is trained.
            split: The data.
            folder: The run folder, which all workers can read; the chief alone writes there.
            **following: Further arguments of `tfvae.train`.

        Returns:
            The finished run, on the chief; None on the others.

        Raises:
            InputError: As `tfvae.train` does, or if the model is not trained by gradient.
            WorkerError: If another worker has stopped.
        """
        refuse_one_machine(settings.name)
        try:
            return self._trained(settings, split, folder, following)
        except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
            raise WorkerError(
                f"another worker has stopped or cannot be reached; start all of them again, and the run in {folder} "
                f"goes on. TensorFlow says: {error.message.splitlines()[0]}"
            ) from None

    def _trained(
        self, settings: Settings, split: Split, folder: Path | str, following: dict[str, Any]
    ) -> TrainedModel | None:
        if self.is_chief:
            return train(settings, split, folder, workers=self, **following)
        if RunFolder(folder).is_finished:
            return None
        quiet: dict[str, Any] = {"progress": False, "tensorboard": "off", "log": lambda line: None}
        with tempfile.TemporaryDirectory(prefix="tfvae-worker-") as own:
            copy = Path(own, "run")
            if Path(folder).is_dir():
                shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(".*", "tensorboard"))
            train(settings, split, copy, workers=self, **quiet)
        return None


def refuse_one_machine(name: str) -> None:
    """Refuses a model that one machine fits; to be called before the workers are joined, who would wait for each other.

    Raises:
        InputError: If the model is not trained by gradient.
    """
    if not issubclass(model_class(name), GradientRecommender):
        raise InputError(
            f"{name} is not trained by gradient, and so by one machine only; unset {VARIABLE}, or choose another model."
        )


def join() -> Workers | None:
    """Joins the workers that TF_CONFIG names; to be called before TensorFlow computes anything.

    Returns:
        The workers; None if there is no TF_CONFIG, or it names one worker only.

    Raises:
        InputError: If TF_CONFIG cannot be read, names other tasks than workers, or comes too late.
    """
    text = os.environ.get(VARIABLE)
    if not text:
        return None
    expected = f"{VARIABLE}: expected the workers and which of them this is, such as {EXAMPLE}"
    try:
        config = _Config.model_validate(finite_json(text))
    except ValidationError as problem:
        raise InputError(f"{expected}; found {explained(problem)}.") from None
    except ValueError as problem:
        raise InputError(f"{expected}; {problem}.") from None
    n, index = len(config.cluster.worker), config.task.index
    if index >= n:
        raise InputError(f"{expected}; this is worker {index}, but there are {n}, counted from 0.")
    if n == 1:
        return None
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as problem:
        raise InputError(f"the workers must be joined before TensorFlow computes anything: {problem}") from None
    return Workers(strategy, index, n)
