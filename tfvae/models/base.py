"""What all recommenders share: one door, `scores(rows)`, and one training step for those that learn by gradient."""

from __future__ import annotations

import abc
import inspect
from typing import Any, ClassVar

import keras
import scipy.sparse as sp
import tensorflow as tf

from tfvae.data.rows import RowStore, UserRows
from tfvae.randomness import Noise

__all__ = ["GradientRecommender", "Recommender"]


class Recommender(keras.Model, abc.ABC):
    """A model that scores all items for users it may never have seen.

    Evaluation, export, tables and notebooks know `scores` and nothing else. A constructor leaves
    the model built: the catalogue's width is all it needs to be whole. `self.built = True` does that where a subclass
    shall add layers, which `self.build()` would refuse.

    Args:
        n_items: Width of the catalogue.
        seed: Seed of the initialisers and of the noise in training.
        **kwargs: Of `keras.Model`, such as `dtype`.
    """

    training_defaults: ClassVar[dict[str, Any]] = {}  # of `TrainingSettings`, where the model's paper has others

    def __init__(self, n_items: int, *, seed: int = 98765, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.n_items = n_items
        self.seed = seed

    @abc.abstractmethod
    def scores(self, rows: UserRows) -> tf.Tensor:
        """Scores of all items for B histories, float32 [B, n_items]; deterministic, traceable by tf.function."""

    def call(self, rows: UserRows) -> tf.Tensor:
        """The Keras door: the same as `scores`."""
        return self.scores(rows)

    def build(self, input_shape=None) -> None:
        """Nothing is left to build after the constructor."""
        self.built = True

    @classmethod
    def settings(cls) -> dict[str, inspect.Parameter]:
        """The keyword settings of the constructor and of those it passes `**kwargs` on to, by name."""
        found: dict[str, inspect.Parameter] = {}
        for base in reversed(cls.__mro__[: cls.__mro__.index(Recommender) + 1]):
            for parameter in inspect.signature(base.__init__, eval_str=True).parameters.values():
                if parameter.kind is parameter.KEYWORD_ONLY:
                    found[parameter.name] = parameter
        return found

    def get_config(self) -> dict:
        """The constructor's arguments; each is kept as the attribute of its name."""
        settings = {name: getattr(self, name) for name in self.settings()}
        return {**super().get_config(), "n_items": self.n_items, **settings}


class GradientRecommender(Recommender):
    """A recommender trained by Keras `fit` on batches of user row numbers.

    A subclass gives the `objective` with the names of its `parts`; this class does the rest of a training step:
    gathers the users' rows in the graph, draws the noise, divides by the users of *all* replicas, adds the
    regularisers, updates, counts.

    Attributes:
        updates: int64 weight, updates done so far; it drives noise and schedules.
        visits: int64 weight, users met so far, each as often as it was met.
        histories: The training rows; set by `attach`.
    """

    parts: tuple[str, ...] = ()
    watched: tuple[str, ...] = ()  # scalar weights to report beside the parts, as they are

    def __init__(self, n_items: int, **kwargs):
        super().__init__(n_items, **kwargs)
        self.updates = self.add_state("updates", "int64")
        self.visits = self.add_state("visits", "int64")
        self.histories: RowStore | None = None
        self._means = {name: keras.metrics.Mean(name=name) for name in ("loss", *self.parts)}

    def add_state(self, name: str, dtype: str = "float32", value: float = 0) -> keras.Variable:
        """A scalar that is saved and restored with the model but not trained."""
        return self.add_weight(
            name=name,
            shape=(),
            dtype=dtype,
            initializer=keras.initializers.Constant(value),
            trainable=False,
            autocast=False,
            # Each replica assigns the same value; without an aggregation tf.distribute refuses.
            aggregation="only_first_replica",
        )

    def attach(self, train: sp.csr_array) -> None:
        """Gives the model the matrix whose row numbers `fit` will stream.

        Args:
            train: CSR [n_users, n_items].
        """
        self.histories = RowStore(train)
        self.train_function = None  # a compiled step would go on reading the former matrix

    @abc.abstractmethod
    def objective(self, rows: UserRows, noise: Noise) -> dict[str, tf.Tensor]:
        """Per-user means to report, of which `"loss"` is minimised.

        Args:
            rows: The batch; both the input and the target.
            noise: The random numbers of this step.

        Returns:
            Scalars by name: `"loss"` and each of `parts`.
        """

    @property
    def patient_from(self) -> int:
        """The epoch, counted from 0, before which early stopping counts no epoch as one without a better value."""
        return 0

    def before_update(self) -> None:
        """Sets what a schedule drives; called in the graph before each update."""

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Means over an epoch's users, reset by Keras after each epoch."""
        return list(self._means.values())

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Nothing is left to build. Under tf.distribute Keras would average the row numbers of the replicas for it,
        # and fail where these hold batches of unequal size.
        return

    @tf.autograph.experimental.do_not_convert  # there is no Python control flow to convert, only time to lose
    def train_step(self, users: tf.Tensor) -> dict[str, tf.Tensor]:
        """One update on the users of these row numbers, int64 [B]."""
        context = tf.distribute.get_replica_context()
        rows = self.histories.gather(users)
        n_users = tf.cast(tf.shape(users)[0], tf.float32)
        # Replicas may hold batches of unequal size; their gradients are summed, so each counts by its users.
        n_all = context.all_reduce(tf.distribute.ReduceOp.SUM, n_users)
        share = n_users / n_all
        self.before_update()
        with tf.GradientTape() as tape:
            means = self.objective(rows, Noise(self.seed, self.updates.value))
            regulariser = sum(self.losses) / context.num_replicas_in_sync
            # A replica without users has a mean of nothing, which is NaN, and a share of 0.
            loss = tf.math.multiply_no_nan(means["loss"], share) + regulariser
            loss = tf.debugging.check_numerics(loss, "the loss")
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        self.updates.assign_add(1)
        self.visits.assign_add(tf.cast(n_all, tf.int64))
        # Keras would average the replicas' own means, however many users each had.
        parts = {name: tf.math.multiply_no_nan(means[name], share) for name in self.parts} | {"loss": loss}
        for name, value in context.all_reduce(tf.distribute.ReduceOp.SUM, parts).items():
            self._means[name].update_state(value, sample_weight=n_all)
        return {name: mean.result() for name, mean in self._means.items()} | {
            name: tf.convert_to_tensor(getattr(self, name).value) for name in self.watched
        }
