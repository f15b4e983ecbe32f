"""Recommenders that learn by gradient: the training step, its objectives and the phases of training."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import keras
import scipy.sparse as sp
import tensorflow as tf

from tfvae.data.row_shards import RowShards
from tfvae.models.base import Recommender
from tfvae.nn.batches import RowStore, SparseBatch, TrainingRows
from tfvae.nn.keras_private import BuiltByConstructor, forget_step, logs_of_step, use_step
from tfvae.nn.noise import Noise
from tfvae.nn.sharded_rows import ShardedRows
from tfvae.nn.xla import compiled
from tfvae.system.errors import InputError

__all__ = ["GradientRecommender", "Objective", "Plan"]


@dataclass(frozen=True)
class Objective:
    """The variables that one optimiser changes, and the loss that it lowers.

    Attributes:
        variables: The variables.
        loss: The name of the loss among the results of `GradientRecommender.objective`.
        learning_rate: The optimiser's learning rate; None for the one that the model is compiled with.
    """

    variables: Sequence[keras.Variable]
    loss: str = "loss"
    learning_rate: float | None = None


@dataclass(frozen=True)
class Plan:
    """The plan of a training run, to which a model may adapt the settings that were not given explicitly.

    Attributes:
        n_users: Number of training users.
        n_interactions: Number of their interactions.
        epochs: The largest number of passes over the training rows.
        steps: Number of updates in all these epochs together.
        given: Names of the settings that were given explicitly; these are not adapted.
    """

    n_users: int
    n_interactions: int
    epochs: int
    steps: int
    given: frozenset[str] = frozenset()


class GradientRecommender(BuiltByConstructor, Recommender):
    """A recommender trained by Keras `fit` on batches of user row numbers.

    A subclass defines the `objective` and the names of its `loss_terms`. This class does the rest of a training step:
    it gathers the users' rows in the graph, draws the noise, divides by the number of users on *all* replicas, adds the
    regularisers, updates the weights and counts.

    A model that is trained in phases has several `objectives`, each with an optimiser of its own that is built once;
    `phase_of` names the objectives that each epoch trains. Each phase has a compiled step of its own, which takes
    gradients with respect to the variables of its objectives only. The number of the epoch follows from `rows_seen`, so
    that a resumed run continues in the phase in which it was interrupted.

    Attributes:
        step: int64 weight, the number of updates done so far; noise and schedules depend on it.
        rows_seen: int64 weight, the number of rows met so far; a row counts each time that it is met.
        phase: Names of the objectives that the present epoch trains; `objective` may read it.
        optimizers: The optimiser of each objective, by name, once the model is compiled; the first one is also Keras's
            `optimizer`.
        by_xla: Whether XLA compiles the losses and gradients of a step.
    """

    rows_are: ClassVar[str] = "training users"
    """The name of the rows that a batch consists of, for messages."""
    loss_terms: tuple[str, ...] = ()
    """Names of the per-user means that `objective` returns beside the loss; they are logged."""
    logged_weights: tuple[str, ...] = ()
    """Names of scalar weights that are logged as they are."""

    def __init__(self, n_items: int, n_users: int | None = None, **kwargs):
        super().__init__(n_items, n_users, **kwargs)
        self.step = self.add_state("step", "int64")
        self.rows_seen = self.add_state("rows_seen", "int64")
        self._histories: TrainingRows | None = None
        self.by_xla = False
        self.phase: tuple[str, ...] = ()
        # The dictionary is behind a proxy, since Keras would save the optimisers of a plain one with the model.
        self.optimizers: Mapping[str, Any] = MappingProxyType({})
        self._steps: dict[tuple[str, ...], Any] = {}
        self._means = {name: keras.metrics.Mean(name=name) for name in ("loss", *self.loss_terms)}

    def add_state(self, name: str, dtype: str = "float32", value: float = 0, shape: Sequence[int] = ()):
        """A `keras.Variable` that is saved and restored with the model, but not trained; its entries start equal.

        Args:
            name: Name of the weight.
            dtype: Type of the weight.
            value: Initial value.
            shape: Shape of the weight; () for a scalar.
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
        """Adapts settings whose values from the paper do not suit the size of the data.

        Args:
            settings: All settings of the model.
            plan: The plan of the training run.

        Yields:
            The name of a setting, its new value, and the reason, as a text that continues "name: new instead of old".
        """
        yield from ()

    @classmethod
    def not_warm_started(cls, settings: Mapping[str, Any]) -> str | None:
        """Why a model with these settings cannot go on from its weights when the data change; None if it can."""
        return None

    @classmethod
    def updates_rows(cls, settings: Mapping[str, Any]) -> bool:
        """Whether a step with these settings has gradients for those rows of the item tables only that it needs."""
        return False

    @classmethod
    def not_by_xla(cls, settings: Mapping[str, Any]) -> str | None:
        """Why XLA cannot compile the losses and gradients of a model with these settings; None if it can."""
        return "its step has operations that XLA lacks"

    def drawn(self, batch: SparseBatch, noise: Noise) -> dict[str, tf.Tensor]:
        """All random numbers that `objective` asks for, by name; only a model that XLA can compile has this.

        Args:
            batch: The batch.
            noise: The random numbers of this step.
        """
        raise NotImplementedError

    @property
    def found_by_attach(self) -> Sequence[keras.Variable]:
        """Weights that each call of `attach` finds in the training rows; a warm start leaves them as they are."""
        return ()

    @classmethod
    def n_rows(cls, train: sp.csr_array | RowShards) -> int:
        """Number of rows that an epoch streams: one for each user."""
        return train.shape[0]

    @classmethod
    def not_streamed(cls, settings: Mapping[str, Any]) -> str | None:
        """Why a model with these settings cannot learn from training rows in shards; None if it can."""
        return "shards hold no ratings" if cls.predicts_ratings else None

    def attach(self, train: sp.csr_array | RowShards) -> None:
        """Gives the model the matrix whose row numbers `fit` will stream.

        Args:
            train: CSR [n_users, n_items], or the same rows in shards.

        Raises:
            InputError: If a shard is missing or damaged.
        """
        rows = ShardedRows(train) if isinstance(train, RowShards) else RowStore(train, self.predicts_ratings)
        self.stream(rows)

    def stream(self, rows: TrainingRows) -> None:
        """Gives the model the rows whose numbers `fit` will stream, and nothing else that `attach` finds in them."""
        self._histories = rows
        self._forget_steps()  # a compiled step would continue to read the former rows

    def detach(self) -> None:
        """Drops the training rows, the optimisers and the compiled steps, so that only the model itself remains.

        Otherwise Keras would store the optimiser in a `.keras` file, whatever arguments it is given.
        """
        self._histories = None
        self.optimizer, self.optimizers = None, MappingProxyType({})
        self.compiled = False
        self._forget_steps()

    @property
    def histories(self) -> TrainingRows:
        """The training rows; an epoch meets each of them once.

        Raises:
            InputError: If no training rows are attached.
        """
        if self._histories is None:
            raise InputError(f"{self.name} has no training rows; tfvae.training.loop.prepare_to_fit attaches them.")
        return self._histories

    @property
    def objectives(self) -> dict[str, Objective]:
        """The objectives that the model is trained for, by name."""
        return {"model": Objective(self.trainable_variables)}

    def phase_of(self, epoch: int) -> tuple[str, ...]:
        """The names of the objectives that an epoch, counted from 0, trains."""
        return tuple(self.objectives)

    def round_ends(self, epoch: int) -> bool:
        """Whether a round of phases ends with this epoch, counted from 0; only then the model is validated."""
        return True

    def starts_from_best(self, epoch: int) -> bool:
        """Whether this epoch, counted from 0, starts from the weights of the best epoch before it."""
        return False

    @property
    def patient_from(self) -> int:
        """The epoch, counted from 0, before which early stopping does not count."""
        return 0

    def begin_epoch(self, epoch: int) -> None:
        """Enters the phase of an epoch, counted from 0; `fit` calls it, outside the graph."""
        self.phase = self.phase_of(epoch)
        self._steps[self.phase] = use_step(self, self._steps.get(self.phase))

    def end_epoch(self) -> None:
        """Recomputes state that depends on the weights; `fit` calls it before the model is validated and saved."""

    def before_step(self) -> None:
        """Sets the weights that follow a schedule; called in the graph before each update."""

    @abc.abstractmethod
    def objective(self, batch: SparseBatch, noise: Noise) -> dict[str, tf.Tensor]:
        """The losses that are minimised, and the means over users that are reported.

        Args:
            batch: The batch, which is both the input and the target.
            noise: The random numbers of this step.

        Returns:
            Scalars by name: the losses of the phase's objectives, and the `loss_terms` that the phase computes.
        """

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "adam",
        jit_compile: bool | Literal["auto"] = "auto",
        **kwargs,
    ) -> None:
        """Keras's `compile`; each further objective gets an optimiser of the same kind and settings.

        Args:
            optimizer: An optimiser or its name, as in Keras.
            jit_compile: Whether XLA compiles the losses and gradients of a step; "auto" does not.
            **kwargs: Arguments of `keras.Model.compile`.

        Raises:
            InputError: If XLA cannot compile the model, or several devices train it.
        """
        self.by_xla = jit_compile is True
        if self.by_xla:
            if why := self.not_by_xla(self.get_config()):
                raise InputError(f"{self.name} cannot be compiled by XLA: {why}. Train it without xla.")
            if tf.distribute.has_strategy():
                raise InputError("XLA compiles a step on one device only; found several. Train without xla.")
        # Keras would let XLA compile the whole step, of which the sparse kernels have no implementation in XLA.
        super().compile(optimizer=optimizer, jit_compile=False, **kwargs)
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
        """Compiles a loaded model as before; Keras does not do so itself where a class overrides `compile`."""
        self.compile(**keras.saving.deserialize_keras_object(config))

    def fit(self, *args, callbacks=None, **kwargs) -> keras.callbacks.History:
        """Keras's `fit` on a dataset of user row numbers; `begin_epoch` and `end_epoch` run before other callbacks.

        Raises:
            InputError: If no training rows are attached.
        """
        self._epochs_done()  # raises if there are no training rows
        phases = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda *_: self.begin_epoch(self._epochs_done()),
            on_epoch_end=lambda *_: self.end_epoch(),
        )
        return super().fit(*args, callbacks=[phases, *keras.tree.flatten(callbacks or [])], **kwargs)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Means over an epoch's users; Keras resets them at the start of each epoch."""
        return list(self._means.values())

    def _epochs_done(self) -> int:
        return int(self.rows_seen.numpy()) // self.histories.n_rows

    def _forget_steps(self) -> None:
        self._steps = {}
        forget_step(self)

    @tf.autograph.experimental.do_not_convert  # there is no Python control flow to convert, and trying takes time
    def train_step(self, users: tf.Tensor) -> dict[str, tf.Tensor]:
        """One update of the present phase on the users with these row numbers, int64 [B]."""
        context = tf.distribute.get_replica_context()
        batch = self.histories.gather(users)
        n_users = tf.cast(tf.shape(users)[0], tf.float32)
        # Replicas may hold batches of unequal size. Their gradients are summed, so each is weighted by its users.
        n_all = context.all_reduce(tf.distribute.ReduceOp.SUM, n_users)
        share = n_users / n_all
        objectives = self._pursued()
        self.before_step()
        noise = Noise(self.seed, self.step.value)
        if self.by_xla:
            means, losses, gradients = compiled(self._descent, batch, self.drawn(batch, noise), share)
            # XLA checks no numbers, and no weight may be changed before they are checked.
            losses = {name: tf.debugging.check_numerics(loss, "the loss") for name, loss in losses.items()}
            with tf.control_dependencies(losses.values()):
                gradients = tf.nest.map_structure(tf.identity, gradients)
        else:
            means, losses, gradients = self._descent(batch, noise, share)
        for name, objective in objectives.items():
            self.optimizers[name].apply(gradients[name], list(objective.variables))
        self.step.assign_add(1)
        self.rows_seen.assign_add(tf.cast(n_all, tf.int64))
        # Keras would average the replicas' own means, regardless of their numbers of users.
        shares = {name: tf.math.multiply_no_nan(means[name], share) for name in self.loss_terms if name in means}
        shares["loss"] = losses[objectives[self.phase[0]].loss]
        for name, value in context.all_reduce(tf.distribute.ReduceOp.SUM, shares).items():
            self._means[name].update_state(value, sample_weight=n_all)
        logs = {name: self._means[name].result() for name in ("loss", *self.loss_terms) if name in shares}
        logs |= {name: tf.convert_to_tensor(getattr(self, name).value) for name in self.logged_weights}
        return logs_of_step(logs, context.strategy)

    def _pursued(self) -> dict[str, Objective]:
        """The objectives of the present phase, by name."""
        return {name: objective for name, objective in self.objectives.items() if name in self.phase}

    def _descent(self, batch: SparseBatch, noise: Noise, share: tf.Tensor) -> tuple[dict, dict, dict]:
        """The means over users and the losses of a step, by name, and the gradients of each objective of the phase.

        Args:
            batch: The batch.
            noise: The random numbers of this step.
            share: The share of this replica's users among all replicas'.
        """
        objectives, context = self._pursued(), tf.distribute.get_replica_context()
        losses = dict.fromkeys(objective.loss for objective in objectives.values())
        with tf.GradientTape(persistent=len(losses) > 1, watch_accessed_variables=False) as tape:
            tape.watch([variable.value for objective in objectives.values() for variable in objective.variables])
            means = self.objective(batch, noise)
            regulariser = sum(self.losses) / context.num_replicas_in_sync
            for name in losses:
                # On a replica without users the mean is NaN, and the share is 0.
                loss = tf.math.multiply_no_nan(means[name], share) + regulariser
                losses[name] = tf.debugging.check_numerics(loss, "the loss")
        gradients: dict[str, list[tf.Tensor]] = {}
        for name, loss in losses.items():
            lowering = {objective: list(of.variables) for objective, of in objectives.items() if of.loss == name}
            gradients |= tape.gradient(loss, lowering)  # one backward pass for all optimisers of this loss
        return means, losses, gradients
