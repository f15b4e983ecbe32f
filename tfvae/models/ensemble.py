"""Ensembles: several models score together, by a weighted mean.

Scores of different models have different scales, some of which differ from user to user. So what each ranker
expects of the items (`Recommender.expected`) is standardised for each user over the catalogue before it is added up:

    s_ui = Σ_m w_m (e_m,ui − mean_j e_m,uj) / sd_j e_m,uj,   w_m ≥ 0, Σ_m w_m = 1.

Expected values are averaged, not logits, since a member that rules an item out would silence the others; `docs/meld.md`
has more on that.

Metasearch calls it the zero-mean, unit-variance normalisation (Montague and Aslam: Relevance score normalization for
metasearch, CIKM 2001). The weights are chosen on validation users (`tfvae.evaluation.mixing`), or equal. Predicted
ratings have a scale in common, and are averaged as they are.

The weights of the members are weights of the ensemble, so that it is saved, exported and served as one model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import keras
import numpy as np
import tensorflow as tf
from scipy.sparse import csr_array

from tfvae.models import model_class
from tfvae.models.base import HasRatingSd, Recommender, knows_rating_sd
from tfvae.models.matrix import MatrixRecommender
from tfvae.models.members import RANKERS, RATERS, RankingMembers, RatingMembers, member_names
from tfvae.models.rating_model import RatingModel
from tfvae.nn.batches import SparseBatch
from tfvae.nn.ranking import standardized
from tfvae.system.errors import InputError

__all__ = ["AnyEnsemble", "Ensemble", "RatingEnsemble", "Weighting"]

Weighting = Literal["validation", "equal"]


class AnyEnsemble(MatrixRecommender):
    """What ensembles of rankers and of models of ratings have in common: their members, and a weight for each.

    `tfvae.train` trains an ensemble, each member as it would be trained alone; `tfvae.ensemble` makes one of finished
    runs. `fit_matrix` does so only if no member is trained by gradient.

    Args:
        n_items: Width of the catalogue, I.
        n_users: Number of training users, for which some members have weights.
        members: The members, each a mapping with the keys "model", a name in the registry; "settings", those of its
            constructor that are not to be the defaults; and "training", likewise those of its training. A member
            without a seed of its own has that of the ensemble plus the member's number, counted from 0.
        weighting: Whether the weights are chosen on validation data in training, or stay equal.
        **kwargs: `seed`, and the arguments of `keras.Model`.

    Attributes:
        recommenders: The models of the members.
        member_weights: w, float32 weight [n_members], not negative, of sum 1; equal until they are chosen.

    Raises:
        InputError: If there are fewer than two members, or one of them is unknown, an ensemble itself, of the other
            kind, cannot score new users, or has a wrong setting.
    """

    has_members: ClassVar[bool] = True
    has_user_weights: ClassVar[bool] = True

    def __init__(
        self,
        n_items: int,
        n_users: int | None = None,
        *,
        members: Sequence[dict[str, Any]],
        weighting: Weighting = "validation",
        **kwargs,
    ):
        super().__init__(n_items, n_users, **kwargs)
        self.members = tuple(members)
        self.weighting = weighting
        self.recommenders = [self._built(number, name) for number, name in enumerate(self.member_names)]
        self.member_weights = self.add_weight(
            name="member_weights",
            shape=(len(self.members),),
            dtype="float32",
            initializer=keras.initializers.Constant(1 / len(self.members)),
            trainable=False,
            autocast=False,
        )
        self.build()

    def _built(self, number: int, name: str) -> Recommender:
        """The untrained model of a member."""
        member = self.members[number]
        kind, training = model_class(member["model"]), member["training"]
        size = (self.n_items, self.n_users) if kind.has_user_weights else (self.n_items,)
        return kind(
            *size,
            seed=training.get("seed", (self.seed + number) % 2**32),
            dtype=training.get("precision", self.dtype_policy),
            name=name,
            **member["settings"],
        )

    @property
    def member_names(self) -> tuple[str, ...]:
        """See `tfvae.models.members.member_names`."""
        return member_names(self.members)

    @property
    def n_parameters(self) -> int:
        """The sum of the members' numbers of parameters."""
        return sum(recommender.n_parameters for recommender in self.recommenders)

    @classmethod
    def not_streamed(cls, settings: Mapping[str, Any]) -> str | None:
        """See `MatrixRecommender`; each member is asked for itself."""
        return None

    def fit_matrix(self, train: csr_array, log: Callable[[str], None] = print, folder: Path | None = None) -> None:
        """Fits the members one after the other; their weights stay as they are.

        Args:
            train: Training rows, sparse [n_users, n_items], each item at most once per user.
            log: Called with one line of progress at a time.
            folder: The members keep their finished parts in folders within it, if they keep any.

        Raises:
            InputError: If a member is trained by gradient, or cannot use the matrix.
        """
        fitted: list[MatrixRecommender] = []
        for recommender in self.recommenders:
            if not isinstance(recommender, MatrixRecommender):
                raise InputError(
                    f"{recommender.name} is trained by gradient, in epochs; an ensemble that has such members is "
                    "trained by tfvae.training.loop.train."
                )
            fitted.append(recommender)
        for recommender in fitted:
            recommender.fit_matrix(train, log, folder and folder / recommender.name)

    def adopt(self, number: int, trained: Recommender) -> None:
        """Takes over the weights of a trained model as those of a member.

        Args:
            number: The member's number, counted from 0.
            trained: A model with the member's settings.

        Raises:
            InputError: If it is another kind of model, or has weights of other shapes.
        """
        member = self.recommenders[number]
        shapes = [tuple(variable.shape) for variable in member.variables]
        found = [tuple(variable.shape) for variable in trained.variables]
        if type(trained) is not type(member) or shapes != found:
            raise InputError(
                f"{trained.name} cannot be the member {member.name}: it is another model, or has weights of other "
                "shapes."
            )
        for variable, other in zip(member.variables, trained.variables, strict=True):
            variable.assign(other)

    def _weighted(self, of_members: Sequence[tf.Tensor]) -> tf.Tensor:
        """The weighted sum of one tensor for each member."""
        weights = tf.unstack(tf.convert_to_tensor(self.member_weights.value))
        return tf.add_n([weight * tensor for weight, tensor in zip(weights, of_members, strict=True)])


@keras.saving.register_keras_serializable(package="tfvae")
class Ensemble(AnyEnsemble):
    """An ensemble of rankers: the weighted mean of what they expect, each standardised over the catalogue.

    The default members err in different places: a linear item-item map, a denoising autoencoder with a logistic
    likelihood, a variational autoencoder and a weighted least-squares one.

    Example:
        >>> import tfvae
        >>> from scipy.sparse import csr_array
        >>> from tfvae.models.ensemble import Ensemble
        >>> train = csr_array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1]])
        >>> members = [{"model": "ease", "settings": {"regularization": 1.0}}, {"model": "popularity"}]
        >>> model = Ensemble(4, 3, members=members)
        >>> model.fit_matrix(train, log=lambda line: None)
        >>> items, scores = tfvae.top_k(model, train, k=1)
        >>> items.tolist()
        [[2], [3], [0]]

    Args:
        n_items: Width of the catalogue, I.
        n_users: Number of training users.
        members: See `AnyEnsemble`; models that rank.
        average_of: What is standardised and averaged, "expected" values or "scores".
        **kwargs: `weighting`, `seed`, and the arguments of `keras.Model`.

    Raises:
        InputError: As for `AnyEnsemble`.
    """

    example_settings: ClassVar[dict[str, Any]] = {
        "average_of": "scores",
        "members": [
            {"model": "ease", "settings": {"regularization": 5.0}, "training": {}},
            {"model": "wmf", "settings": {"factors": 6, "regularization": 2.0}, "training": {"seed": 5}},
            {"model": "ease", "settings": {"regularization": 50.0}, "training": {}},
        ],
        "weighting": "equal",
    }
    checkerboard_settings: ClassVar[dict[str, Any] | None] = {
        "members": [
            {"model": "ease", "settings": {"regularization": 1.0}},
            {"model": "wmf", "settings": {"factors": 2, "regularization": 1.0}},
        ],
    }

    def __init__(
        self,
        n_items: int,
        n_users: int | None = None,
        *,
        members: RankingMembers = RANKERS,
        average_of: Literal["expected", "scores"] = "expected",
        **kwargs,
    ):
        super().__init__(n_items, n_users, members=members, **kwargs)
        self.average_of = average_of

    def scores(self, batch: SparseBatch) -> tf.Tensor:
        """The weighted mean of what the members expect, standardised, float32 [B, n_items]."""
        of_member = [getattr(recommender, self.average_of)(batch) for recommender in self.recommenders]
        return self._weighted([standardized(scores) for scores in of_member])


@keras.saving.register_keras_serializable(package="tfvae")
class RatingEnsemble(RatingModel, AnyEnsemble):
    """An ensemble of models of ratings: the weighted mean of the ratings that they predict.

    Args:
        n_items: Width of the catalogue, I.
        n_users: Number of training users.
        members: See `AnyEnsemble`; models that predict ratings.
        **kwargs: `weighting`, `seed`, and the arguments of `keras.Model`.

    Raises:
        InputError: As for `AnyEnsemble`.
    """

    example_settings: ClassVar[dict[str, Any]] = {
        "members": [
            {"model": "bias-mf", "settings": {"factors": 3, "regularization": 0.5}, "training": {}},
            {"model": "pmf", "settings": {"factors": 2, "iterations": 10}, "training": {"seed": 5}},
        ],
        "weighting": "equal",
    }

    def __init__(
        self,
        n_items: int,
        n_users: int | None = None,
        *,
        members: RatingMembers = RATERS,
        **kwargs,
    ):
        super().__init__(n_items, n_users, members=members, **kwargs)

    def rate_in(self, unit: float) -> None:
        """Sets the unit of the ratings, for the members too."""
        super().rate_in(unit)
        for recommender in self._raters:
            recommender.rate_in(unit)

    @property
    def _raters(self) -> list[RatingModel]:
        return [recommender for recommender in self.recommenders if isinstance(recommender, RatingModel)]

    def adopt(self, number: int, trained: Recommender) -> None:
        """Takes over the weights of a trained model as those of a member, and the calibration of its sd."""
        super().adopt(number, trained)
        assert isinstance(trained, RatingModel)
        self._raters[number].sd_factor = trained.sd_factor

    def get_config(self) -> dict:
        """The constructor's arguments, and what has been found from the ratings, for the members too."""
        factors = [recommender.sd_factor for recommender in self._raters]
        return super().get_config() | ({} if set(factors) == {1.0} else {"member_sd_factors": factors})

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        """See `Recommender.from_config`."""
        config = dict(config)
        factors = config.pop("member_sd_factors", None)
        model = super().from_config(config, custom_objects)
        for recommender, factor in zip(model._raters, factors or (), strict=False):
            recommender.sd_factor = factor
        return model

    def scores(self, batch: SparseBatch) -> tf.Tensor:
        """The weighted mean of the ratings that the members predict, float32 [B, n_items], not clipped to the scale."""
        return self._weighted([recommender.scores(batch) for recommender in self.recommenders])

    @property
    def has_rating_sd(self) -> bool:
        """Whether a member knows the standard deviation of its ratings."""
        return any(map(knows_rating_sd, self.recommenders))

    def rating_sd(self, batch: SparseBatch, items: tf.Tensor | None = None) -> tf.Tensor:
        """The standard deviation of each predicted rating, that of the mixture of the members' distributions.

        The variance of a mixture is the mean of the variances plus the variance of the means, so that it is greater
        where the members disagree. A member that knows no variance is given the mean of those that do.

        Args:
            batch: The ratings of B rows.
            items: Numbers of the items, int32 [B, p]; None for all.

        Returns:
            float32 [B, n_items], or [B, p] for chosen items, in units of the ratings, times `sd_factor`.

        Raises:
            InputError: If no member knows the standard deviation of its ratings.
        """
        knowing: dict[int, HasRatingSd] = {
            number: recommender for number, recommender in enumerate(self.recommenders) if knows_rating_sd(recommender)
        }
        if not knowing:
            raise InputError("no member of this ensemble knows how uncertain its ratings are.")
        predicted = [recommender.scores(batch) for recommender in self.recommenders]
        if items is not None:
            predicted = [tf.gather(ratings, items, batch_dims=1) for ratings in predicted]
        mean = self._weighted(predicted)
        between = self._weighted([(ratings - mean) ** 2 for ratings in predicted])
        weights = tf.gather(tf.convert_to_tensor(self.member_weights.value), list(knowing))
        total = tf.reduce_sum(weights)
        # If those that know it all have the weight 0, they count alike.
        shares = tf.where(total > 0, tf.math.divide_no_nan(weights, total), np.float32(1 / len(knowing)))
        of_each = zip(tf.unstack(shares), knowing.values(), strict=True)
        within = tf.add_n([share * recommender.rating_sd(batch, items) ** 2 for share, recommender in of_each])
        return self.sd_factor * tf.sqrt(within + between)
