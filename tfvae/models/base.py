"""The contract of every recommender: it scores all items for a batch of histories, and its settings are checked.

An ability that only some models have is a named protocol here; callers ask for it by `isinstance`.
"""

from __future__ import annotations

import abc
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeGuard, runtime_checkable

import keras
import numpy as np
import tensorflow as tf
from pydantic import BaseModel, create_model

from tfvae.models import MODELS, model_class
from tfvae.models.fields import Count, Seed
from tfvae.models.former_settings import todays_settings
from tfvae.nn.batches import RowStore, SparseBatch, as_batch, as_matrix
from tfvae.nn.item_layers import ItemLogits
from tfvae.nn.noise import Noise
from tfvae.system.errors import InputError, unknown_name
from tfvae.system.validation import FINITE, checked_call

if TYPE_CHECKING:  # EASE and other models without a distribution do not load TensorFlow Probability
    from tensorflow_probability import distributions as tfd

    from tfvae.data.splits import Split

__all__ = [
    "HasItemMap",
    "HasItemVectors",
    "HasPosterior",
    "HasRatingPosterior",
    "HasRatingSd",
    "Recommender",
    "ScoresPairs",
    "knows_rating_sd",
]

KERAS_ARGUMENTS = ("name", "dtype", "trainable")


class Recommender(keras.Model, abc.ABC):
    """A model that scores all items for a batch of histories.

    The constructor builds the model completely, for which it needs only the number of items. The model's settings are
    the keyword arguments of the constructor. They are checked against their annotations, and each setting becomes an
    attribute of the same name.

    Args:
        n_items: Number of items.
        n_users: Number of training users, for a model that has weights for each of them (`has_user_weights`); other
            models ignore it.
        seed: Seed of the initialisers and of the noise in training.
        **kwargs: Arguments of `keras.Model`: `name`, `dtype` and `trainable`.

    Raises:
        InputError: If a setting is unknown or has a wrong value, or if a model with weights for each user is not given
            the number of users.
    """

    training_defaults: ClassVar[dict[str, Any]] = {}
    """The defaults of this model's training settings, where they differ from those of `TrainingSettings`."""
    example_settings: ClassVar[dict[str, Any]] = {}
    """Small settings of model and training for the contract tests; none of them equals the default."""
    checkerboard_settings: ClassVar[dict[str, Any] | None] = {}
    """Settings with which a ranker learns a checkerboard of 8 users; None if all users get the same ranking."""
    is_deterministic: ClassVar[bool] = False
    """Whether nothing about the model is random, so that every run gives the same result."""
    predicts_ratings: ClassVar[bool] = False
    """Whether the scores are ratings; batches then come with their values."""
    has_user_weights: ClassVar[bool] = False
    """Whether the model has weights for each training user, and needs `n_users`."""
    scores_new_users: ClassVar[bool] = True
    """Whether the model scores users it was not trained on; otherwise `batch.users` names the users to score."""
    has_members: ClassVar[bool] = False
    """Whether the model consists of others, which its setting `members` names."""

    def __init__(self, n_items: Count, n_users: int | None = None, *, seed: Seed = 98765, **kwargs):
        # Keras would number the models of a process, so that the file of a resumed run would differ from another's.
        kwargs.setdefault("name", _snake_case(type(self).__name__))
        super().__init__(autocast=False, **kwargs)
        if self.has_user_weights and n_users is None:
            raise InputError(f"{type(self).__name__} has weights for each training user; give it n_users.")
        self.n_items = n_items
        self.n_users = n_users
        self.seed = seed

    def __init_subclass__(cls, **kwargs):
        """Makes the constructor check its arguments; each subclass checks those of its own constructor."""
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            _check_arguments(cls)

    @classmethod
    def _refuse_unknown_settings(cls, names: Iterable[str]) -> None:
        known = (*cls.settings(), *KERAS_ARGUMENTS, "n_items", "n_users")
        for name in names:
            if name not in known:
                raise unknown_name(f"setting of {cls.__name__}", name, known)

    @classmethod
    def for_split(cls, split: Split, **settings) -> Self:
        """An untrained model for the items and users of a split.

        Args:
            split: The split.
            **settings: Settings of the constructor.
        """
        size = (split.n_items, split.train.shape[0]) if cls.has_user_weights else (split.n_items,)
        return cls(*size, **settings)

    @abc.abstractmethod
    def scores(self, batch: SparseBatch) -> tf.Tensor:
        """Scores of all items for B histories.

        Args:
            batch: The histories.

        Returns:
            float32 [B, n_items]: logits of a ranker, predicted ratings of a rating model. They are deterministic, and
            `tf.function` can trace them.
        """

    def expected(self, batch: SparseBatch) -> tf.Tensor:
        """What the model expects of each item: the mean of its likelihood, which ranks a user's items as scores do.

        Unlike logits, the expected values of models with different likelihoods can be averaged.

        Args:
            batch: B histories.

        Returns:
            float32 [B, n_items]: the scores themselves, unless a model has a likelihood with another mean.
        """
        return self.scores(batch)

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> tf.Tensor:
        """The scores of histories, given as a sparse matrix, a dense array or a `SparseBatch`.

        Args:
            x: The histories, [B, n_items]; see `tfvae.nn.batches.as_batch`.
            *args: Passed on to `keras.Model`.
            **kwargs: Passed on to `keras.Model`.

        Returns:
            The result of `scores`, float32 [B, n_items].

        Raises:
            InputError: If `x` is of another type, has another number of items or has impossible values, or if the model
                only scores its training users and `x` is not a batch of them.
        """
        batch = as_batch(x, self.n_items, ratings=self.predicts_ratings)
        if batch.users is None:
            self._refuse_histories()
        return super().__call__(batch, *args, **kwargs)

    def _refuse_histories(self) -> None:
        """Refuses histories without user numbers if the model only scores its training users."""
        if not self.scores_new_users:
            raise InputError(
                f"{type(self).__name__} only scores the users it was trained on; rank for them by their rows in the "
                "training matrix, tfvae.top_k(model, train, users=[...]), or by their ids, tfvae recommend --user."
            )

    def call(self, batch: SparseBatch) -> tf.Tensor:
        """Keras's name for `scores`."""
        return self.scores(batch)

    def predict(self, x: Any, batch_size: int = 500, **kwargs: Any) -> np.ndarray:
        """The scores of histories, in batches.

        Args:
            x: A SciPy sparse matrix, a dense array [n, n_items] or a `SparseBatch`; see `tfvae.nn.batches.as_matrix`.
            batch_size: Rows scored at once.
            **kwargs: Keras's `verbose`, which has no effect here.

        Returns:
            The scores, float32 [n, n_items]. `tfvae.top_k` gives the best items of each row with less memory.

        Raises:
            InputError: If `x` is of another type, has another number of items or has impossible values, if the model
                only scores its training users, if `batch_size` is less than 1, or if an argument is unknown.
        """
        if kwargs.keys() - {"verbose"}:
            raise unknown_name("argument of predict", min(kwargs.keys() - {"verbose"}), ("batch_size", "verbose"))
        self._refuse_histories()
        if not isinstance(batch_size, int | np.integer) or batch_size < 1:
            raise InputError(f"batch_size is {batch_size!r}; expected a whole number of at least 1.")
        matrix = as_matrix(x, self.n_items, ratings=self.predicts_ratings)
        store = RowStore(matrix, with_values=self.predicts_ratings)
        score = tf.function(lambda users: self.scores(store.gather(users)._replace(users=None)), autograph=False)
        # Traced now, since TensorFlow warns when each call makes a new function.
        score = score.get_concrete_function(tf.TensorSpec([None], tf.int64))
        found = np.empty(matrix.shape, np.float32)
        for start in range(0, len(found), batch_size):
            users = np.arange(start, min(start + batch_size, len(found)))
            found[users] = score(tf.constant(users, tf.int64))
        return found

    @property
    def n_parameters(self) -> int:
        """Number of learned parameters; for a model that is fitted without gradients, the size of all its weights."""
        return sum(math.prod(variable.shape) for variable in self.trainable_variables or self.variables)

    def build(self, input_shape=None) -> None:
        """Does nothing, since the constructor has built everything."""
        self.built = True

    @classmethod
    @cache
    def settings(cls) -> Mapping[str, inspect.Parameter]:
        """The keyword settings of the constructor and of the parent constructors that get its `**kwargs`, by name."""
        found: dict[str, inspect.Parameter] = {}
        for base in reversed(cls.__mro__[: cls.__mro__.index(Recommender) + 1]):
            if "__init__" in vars(base):
                for parameter in inspect.signature(vars(base)["__init__"], eval_str=True).parameters.values():
                    if parameter.kind is parameter.KEYWORD_ONLY:
                        found[parameter.name] = parameter
        return found

    @classmethod
    @cache
    def settings_record(cls) -> type[BaseModel]:
        """A pydantic model of all settings but the seed, which checks them and fills in defaults."""
        parameters = {name: parameter for name, parameter in cls.settings().items() if name != "seed"}
        fields: Any = {name: (parameter.annotation, parameter.default) for name, parameter in parameters.items()}
        return create_model(f"{cls.__name__} settings", __config__=FINITE, **fields)

    @classmethod
    def kl_weight_cap(cls, settings: Mapping[str, Any]) -> str | None:
        """The name of the setting that caps an annealed KL weight; None if no KL weight is annealed."""
        return None

    @classmethod
    def has_rating_posterior(cls, settings: Mapping[str, Any]) -> bool:
        """Whether a model with these settings is a `HasRatingPosterior` whose codes have a distribution."""
        return False

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Recommender:
        """The model of a configuration, which may have been saved when settings had other names."""
        name = next((name for name, place in MODELS.items() if place.endswith(f":{cls.__name__}")), None)
        if name is None:
            return cls(**config)
        name, settings = todays_settings(name, config)
        return model_class(name)(**settings)

    def get_config(self) -> dict:
        """The constructor's arguments, by name."""
        settings = {name: getattr(self, name) for name in self.settings()}
        size = {"n_items": self.n_items} | ({"n_users": self.n_users} if self.has_user_weights else {})
        return {**super().get_config(), **size, **settings}


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _check_arguments(cls: Any) -> None:
    cls.__init__ = checked_call(vars(cls)["__init__"], cls._refuse_unknown_settings)


_check_arguments(Recommender)


@runtime_checkable
class HasPosterior(Protocol):
    """A model with latent codes: a posterior for each user, and a prior."""

    name: str
    n_items: int

    @property
    def has_one_prior(self) -> bool:
        """Whether p(z) is the same for all users."""

    def posterior(self, batch: SparseBatch, noise: Noise | None = None) -> tfd.Distribution:
        """The posterior q(z | x) of B users, with mean and standard deviation; the top code's if there are several."""

    def prior(self, batch: SparseBatch | None = None, noise: Noise | None = None) -> tfd.Distribution:
        """The prior p(z) of the same code."""

    def importance(self, batch: SparseBatch) -> Callable[[Noise], tf.Tensor]:
        """A function that draws one z ~ q(z | x) per user and returns log p(x, z) - log q(z | x), float32 [B]."""


@runtime_checkable
class HasItemVectors(Protocol):
    """A model with one vector for each item, whose angles tell which items it treats alike."""

    name: str
    n_items: int

    def item_vectors(self) -> tf.Tensor:
        """The vectors, float32 [n_items, d], of whatever length; a row of zeros is an item of which nothing is known.

        They are the weights by which the model tells its items apart: rows of a decoder, factors, codes. What a model
        adds to all of an item's scores alike, such as its bias, is no part of them.
        """


@runtime_checkable
class HasItemMap(Protocol):
    """A model whose scores are linear in the history: each item has a weight for each other."""

    name: str
    n_items: int

    def map_row(self, item: int) -> tf.Tensor:
        """What an item of a history adds to the scores of all items, float32 [n_items]; 0 for itself.

        A map that is kept sparse becomes dense in this one row only.

        Args:
            item: The item's number.
        """


@runtime_checkable
class HasRatingSd(Protocol):
    """A rating model that may know the standard deviation of each rating that it predicts."""

    name: str
    n_items: int
    sd_factor: float
    """What the predicted standard deviations are multiplied by."""

    @property
    def has_rating_sd(self) -> bool:
        """Whether it does; a setting of the model may switch it off."""

    def scores(self, batch: SparseBatch) -> tf.Tensor:
        """The predicted ratings, float32 [B, n_items]."""

    def rating_sd(self, batch: SparseBatch, items: tf.Tensor | None = None) -> tf.Tensor:
        """The standard deviation of each predicted rating, float32 [B, n_items], or of those of chosen items, [B, p].

        Args:
            batch: The ratings of B rows.
            items: Numbers of the items, int32 [B, p]; None for all. A few cost much less than all.
        """


def knows_rating_sd(model: Recommender) -> TypeGuard[HasRatingSd]:
    """Whether a model gives each rating that it predicts a standard deviation."""
    return isinstance(model, HasRatingSd) and model.has_rating_sd


@runtime_checkable
class HasRatingPosterior(Protocol):
    """A rating model with a posterior over codes, which gives each predicted rating a standard deviation."""

    stochastic: bool
    """Whether the code has a distribution; a setting of the model may switch it off."""
    variance: float
    """σ², the variance of a rating given the code, on the standard scale."""
    rating_unit: float
    """What a rating of 1 on the standard scale is on the user's."""
    sd_factor: float
    """What the predicted standard deviations are multiplied by."""
    decoder: ItemLogits
    """The linear layer from the decoder's last hidden layer to the ratings."""

    def posterior(self, batch: SparseBatch, noise: Noise | None = None) -> tfd.Distribution:
        """The posterior q(z | r_O) of B rows."""

    def prior(self) -> tfd.Distribution:
        """The prior p(z)."""

    def standard(self, batch: SparseBatch) -> SparseBatch:
        """Rows of ratings on the standard scale, on which the decoder's ratings are."""

    def hidden(self, z: tf.Tensor) -> tf.Tensor:
        """The decoder's last hidden layer for codes z."""

    def rating_sd(self, batch: SparseBatch) -> tf.Tensor:
        """The standard deviation of each predicted rating, float32 [B, n_items]."""


@runtime_checkable
class ScoresPairs(Protocol):
    """A model that can score chosen pairs of users and items at less cost than all items for these users."""

    def scores_at(self, batch: SparseBatch, places: tf.Tensor) -> tf.Tensor:
        """The scores of chosen pairs.

        Args:
            batch: B users.
            places: int64 [n, 2]; for each pair, the user's row in the batch, and the item.

        Returns:
            The scores, float32 [n].
        """
