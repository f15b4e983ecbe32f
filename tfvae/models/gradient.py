"""Recommenders that learn by gradient: one training step, its objectives and the phases of a training."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import keras
import scipy.sparse as sp
import tensorflow as tf

from tfvae.models.base import Recommender
from tfvae.nn.batches import RowStore, SparseBatch, TrainingRows
from tfvae.nn.keras_private import BuiltByConstructor, forget_step, use_step
from tfvae.nn.noise import Noise
from tfvae.system.errors import InputError

__all__ = ["GradientRecommender", "Objective", "Plan"]


@dataclass(frozen=True)
class Objective:
    """What one optimiser is for.

    Attributes:
        variables: What it changes.
        loss: The entry of `GradientRecommender.objective` that it lowers.
        learning_rate: Its own; None for the one the model is compiled with.
    """

    variables: Sequence[keras.Variable]
    loss: str = "loss"
    learning_rate: float | None = None


@dataclass(frozen=True)
class Plan:
    """What is planned for a training, to which a model may fit the settings that nobody gave.

    Attributes:
        n_users: Number of training users.
        epochs: Passes over the training rows, at most.
        steps: Updates in all of them.
        given: Names of the settings that were given; they stay as they are.
    """

    n_users: int
    epochs: int
    steps: int
    given: frozenset[str] = frozenset()


class GradientRecommender(BuiltByConstructor, Recommender):
    """A recommender trained by Keras `fit` on batches of user row numbers.

    A subclass gives the `objective` with the names of its `loss_terms`; this class does the rest of a training step:
    gathers the users' rows in the graph, draws the noise, divides by the users of *all* replicas, adds the
    regularisers, updates, counts.

    A model that is trained in phases has several `objectives`, each with an optimiser of its own that is built once,
    and says which of them each epoch pursues. A phase has a compiled step of its own, in which gradients are taken of
    its objectives' variables only. The epoch is counted in visits, so that a resumed run is in the phase it was
    interrupted in.

    Attributes:
        step: int64 weight, updates done so far; it drives noise and schedules.
        rows_seen: int64 weight, users met so far, each as often as it was met.
        phase: Names of the objectives that the present epoch pursues; `objective` may read it.
        optimizers: By objective, once compiled; that of the first is also Keras's `optimizer`.
    """

    rows_are: ClassVar[str] = "training users"
    """What a batch is made of, for messages."""
    loss_terms: tuple[str, ...] = ()
    """Names of the per-user means that `objective` gives beside the loss, to be logged."""
    logged_weights: tuple[str, ...] = ()
    """Names of scalar weights that are logged as they are."""

    def __init__(self, n_items: int, n_users: int | None = None, **kwargs):
        super().__init__(n_items, n_users, **kwargs)
        self.step = self.add_state("step", "int64")
        self.rows_seen = self.add_state("rows_seen", "int64")
        self._histories: TrainingRows | None = None
        self.phase: tuple[str, ...] = ()
        # Behind a proxy, since Keras would save a dictionary's optimisers with the model.
        self.optimizers: Mapping[str, Any] = MappingProxyType({})
        self._steps: dict[tuple[str, ...], Any] = {}
        self._means = {name: keras.metrics.Mean(name=name) for name in ("loss", *self.loss_terms)}

    def add_state(self, name: str, dtype: str = "float32", value: float = 0, shape: Sequence[int] = ()):
        """Numbers that are saved and restored with the model but not trained, a `keras.Variable`; at first all equal.

        Args:
            name: Name of the weight.
            dtype: Type of the weight.
            value: Initial value.
            shape: () for a scalar.
        """
        return self.add_weight(
            name=name,
            shape=shape,
            dtype=dtype,
            initializer=keras.initializers.Constant(value),
            trainable=False,
            autocast=False,
            # Each replica assigns the same value; without an aggregation tf.distribute refuses.
            aggregation="only_first_replica",
        )

    @classmethod
    def adapted(cls, settings: Mapping[str, Any], plan: Plan) -> Iterator[tuple[str, Any, str]]:
        """The settings that the data's size asks to be others than the paper's.

        Args:
            settings: All settings of the model.
            plan: What is planned.

        Yields:
            Name, new value, and why, as it continues "name: new instead of old".
        """
        yield from ()

    @classmethod
    def n_rows(cls, train: sp.csr_array) -> int:
        """The rows that an epoch streams: one for each user."""
        return train.shape[0]

    def attach(self, train: sp.csr_array) -> None:
        """Gives the model the matrix whose row numbers `fit` will stream.

        Args:
            train: CSR [n_users, n_items].
        """
        self._histories = RowStore(train, with_values=self.predicts_ratings)
        self._forget_steps()  # a compiled step would go on reading the former matrix

    def detach(self) -> None:
        """Lets go of training rows, optimisers and compiled steps; what remains is the model.

        Keras would store an optimiser in a `.keras` file whatever it is told.
        """
        self._histories = None
        self.optimizer, self.optimizers = None, MappingProxyType({})
        self.compiled = False
        self._forget_steps()

    @property
    def histories(self) -> TrainingRows:
        """The training rows, each of which an epoch meets once.

        Raises:
            InputError: When none are attached.
        """
        if self._histories is None:
            raise InputError(f"{self.name} has no training rows; tfvae.training.loop.prepare_to_fit attaches them.")
        return self._histories

    @property
    def objectives(self) -> dict[str, Objective]:
        """What the model is trained for, by name."""
        return {"model": Objective(self.trainable_variables)}

    def phase_of(self, epoch: int) -> tuple[str, ...]:
        """The names of the objectives that an epoch, counted from 0, pursues."""
        return tuple(self.objectives)

    def round_ends(self, epoch: int) -> bool:
        """Whether a round of phases ends with this epoch, counted from 0; then the model is validated."""
        return True

    def starts_from_best(self, epoch: int) -> bool:
        """Whether this epoch, counted from 0, starts from the weights of the best epoch before it."""
        return False

    @property
    def patient_from(self) -> int:
        """The epoch, counted from 0, before which early stopping counts no epoch as one without a better value."""
        return 0

    def begin_epoch(self, epoch: int) -> None:
        """Enters the phase of an epoch, counted from 0; called by `fit`, outside the graph."""
        self.phase = self.phase_of(epoch)
        self._steps[self.phase] = use_step(self, self._steps.get(self.phase))

    def end_epoch(self) -> None:
        """Renews what follows from an epoch's weights; called by `fit` before the model is validated and saved."""

    def before_step(self) -> None:
        """Sets what a schedule drives; called in the graph before each update."""

    @abc.abstractmethod
    def objective(self, batch: SparseBatch, noise: Noise) -> dict[str, tf.Tensor]:
        """Per-user means to report, and those to be lowered.

        Args:
            batch: The batch; both the input and the target.
            noise: The random numbers of this step.

        Returns:
            Scalars by name: the losses of the phase's objectives, and those of `loss_terms` that the phase computes.
        """

    def compile(self, optimizer: str | keras.optimizers.Optimizer = "adam", **kwargs) -> None:
        """Keras's `compile`; objectives beyond the first have optimisers of the same kind and settings.

        Args:
            optimizer: An optimiser or its name, as Keras takes it.
            **kwargs: Arguments of `keras.Model.compile`.
        """
        super().compile(optimizer=optimizer, **kwargs)
        first: keras.optimizers.Optimizer = self.optimizer
        optimizers: dict[str, Any] = {}
        for name, objective in self.objectives.items():
            config = first.get_config()
            own = {} if objective.learning_rate is None else {"learning_rate": objective.learning_rate}
            optimizers[name] = type(first).from_config(config | own) if optimizers else first
            optimizers[name].build(objective.variables)
        self.optimizers = MappingProxyType(optimizers)
        self.phase = self.phase_of(0)
        self._forget_steps()

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model as it was; Keras leaves that out where `compile` is a class's own."""
        self.compile(**keras.saving.deserialize_keras_object(config))

    def fit(self, *args, callbacks=None, **kwargs) -> keras.callbacks.History:
        """Keras's `fit` on a dataset of user row numbers; enters and ends each epoch before other callbacks.

        Raises:
            InputError: When no training rows are attached.
        """
        self._epochs_done()  # needs training rows
        phases = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda *_: self.begin_epoch(self._epochs_done()),
            on_epoch_end=lambda *_: self.end_epoch(),
        )
        return super().fit(*args, callbacks=[phases, *keras.tree.flatten(callbacks or [])], **kwargs)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Means over an epoch's users, reset by Keras after each epoch."""
        return list(self._means.values())

    def _epochs_done(self) -> int:
        return int(self.rows_seen.numpy()) // self.histories.n_rows

    def _forget_steps(self) -> None:
        self._steps = {}
        forget_step(self)

    @tf.autograph.experimental.do_not_convert  # there is no Python control flow to convert, only time to lose
    def train_step(self, users: tf.Tensor) -> dict[str, tf.Tensor]:
        """One update of the present phase on the users of these row numbers, int64 [B]."""
        context = tf.distribute.get_replica_context()
        batch = self.histories.gather(users)
        n_users = tf.cast(tf.shape(users)[0], tf.float32)
        # Replicas may hold batches of unequal size; their gradients are summed, so each counts by its users.
        n_all = context.all_reduce(tf.distribute.ReduceOp.SUM, n_users)
        share = n_users / n_all
        objectives = {name: objective for name, objective in self.objectives.items() if name in self.phase}
        losses = dict.fromkeys(objective.loss for objective in objectives.values())
        self.before_step()
        with tf.GradientTape(persistent=len(losses) > 1, watch_accessed_variables=False) as tape:
            tape.watch([variable.value for objective in objectives.values() for variable in objective.variables])
            means = self.objective(batch, Noise(self.seed, self.step.value))
            regulariser = sum(self.losses) / context.num_replicas_in_sync
            for name in losses:
                # A replica without users has a mean of nothing, which is NaN, and a share of 0.
                loss = tf.math.multiply_no_nan(means[name], share) + regulariser
                losses[name] = tf.debugging.check_numerics(loss, "the loss")
        for name, loss in losses.items():
            lowering = {objective: list(of.variables) for objective, of in objectives.items() if of.loss == name}
            gradients = tape.gradient(loss, lowering)  # one backward pass, however many optimisers share it
            for objective, variables in lowering.items():
                self.optimizers[objective].apply(gradients[objective], variables)
        self.step.assign_add(1)
        self.rows_seen.assign_add(tf.cast(n_all, tf.int64))
        # Keras would average the replicas' own means, however many users each had.
        shares = {name: tf.math.multiply_no_nan(means[name], share) for name in self.loss_terms if name in means}
        shares["loss"] = losses[objectives[self.phase[0]].loss]
        for name, value in context.all_reduce(tf.distribute.ReduceOp.SUM, shares).items():
            self._means[name].update_state(value, sample_weight=n_all)
        return {name: self._means[name].result() for name in ("loss", *self.loss_terms) if name in shares} | {
            name: tf.convert_to_tensor(getattr(self, name).value) for name in self.logged_weights
        }
