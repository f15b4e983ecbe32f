"""A model that starts from the weights of a finished run on other data: known items keep theirs.

Which axes of a weight are items is not declared by the models. It is found by making a model three times: for a few
items and users, for one more item, and for one more user. An axis that grows by k entries for each item has k entries
of each item, one item after the other; what is left comes last and belongs to no item (`AxisLayout`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tfvae.data.splits import Split, places_in
from tfvae.models import model_class
from tfvae.models.gradient import GradientRecommender
from tfvae.models.rating_model import RatingModel
from tfvae.models.saved import load_model
from tfvae.system.errors import InputError
from tfvae.training.run_folder import RunFolder
from tfvae.training.settings import Settings

__all__ = ["WarmStart", "layouts", "refuse_other_shapes", "warm_started"]

FEW = {"n_items": 97, "n_users": 89}
"""The sizes of the models that are made to find the axes."""


@dataclass(frozen=True)
class AxisLayout:
    """How the entries of one axis of a weight belong to items or users.

    Attributes:
        of: Whose entries these are; None if the axis does not grow with either.
        each: Number of entries of each item or user; those of one follow those of the one before.
        others: Number of entries after all these, or of the whole axis if `of` is None.
    """

    of: Literal["items", "users"] | None
    each: int
    others: int

    def entries(self, rows: np.ndarray, size: int) -> np.ndarray:
        """The entries of some items or users, and all that belong to none.

        Args:
            rows: The numbers of the items or users, [n].
            size: Number of items or users in all.
        """
        own = (np.asarray(rows)[:, None] * self.each + np.arange(self.each)).ravel()
        return np.concatenate([own, np.arange(size * self.each, size * self.each + self.others)])


def warm_started(settings: Settings) -> bool:
    """Whether a model with these settings goes on from its weights; False if it is solved anew on the whole data.

    Raises:
        InputError: If it can do neither; the message says why.
    """
    kind = model_class(settings.name)
    if kind.has_members:
        raise InputError(
            f"{settings.name} is not retrained as a whole. Retrain each of its members, and join their runs again with "
            "'tfvae ensemble'."
        )
    if not issubclass(kind, GradientRecommender):
        return False
    if why := kind.not_warm_started(settings.model):
        raise InputError(f"{settings.name} cannot go on from its weights: {why}. Train it anew instead.")
    return True


def layouts(settings: Settings) -> list[tuple[AxisLayout, ...] | None]:
    """How the axes of each weight of a model belong to items and users.

    Args:
        settings: The settings of a model that is trained by gradient.

    Returns:
        For each of the model's `weights`, the layout of each of its axes; None for weights that `attach` finds.

    Raises:
        InputError: If an axis grows with items or users in another way than by the same number of entries for each.
    """
    few, one_item_more, one_user_more = (
        _shapes(settings, **{name: size + (name == grown) for name, size in FEW.items()})
        for grown in (None, "n_items", "n_users")
    )
    return [
        None
        if shape is None
        else tuple(_layout(path, *sizes) for sizes in zip(shape, with_item, with_user, strict=True))
        for (path, shape), (_, with_item), (_, with_user) in zip(few, one_item_more, one_user_more, strict=True)
    ]


def _shapes(settings: Settings, n_items: int, n_users: int) -> list[tuple[str, Any]]:
    """The path of each weight, which another may have too, and its shape; None for those that `attach` finds."""
    model = settings.build(n_items, n_users)
    assert isinstance(model, GradientRecommender)
    found = {id(weight) for weight in model.found_by_attach}
    return [(weight.path, None if id(weight) in found else tuple(weight.shape)) for weight in model.weights]


def _layout(path: str, size: int, with_item: int, with_user: int) -> AxisLayout:
    of_item, of_user = with_item - size, with_user - size
    if not (of_item or of_user):
        return AxisLayout(None, 0, size)  # its entries all count as others
    of: Literal["items", "users"] = "items" if of_item else "users"
    each = of_item or of_user
    others = size - each * FEW[f"n_{of}"]
    if (of_item and of_user) or each < 0 or others < 0:
        raise InputError(
            f"the weight {path!r} has no entries of its own for each item or user, so that none could be kept."
        )
    return AxisLayout(of, each, others)


def refuse_other_shapes(former: Settings, settings: Settings) -> None:
    """Refuses changed settings with which a model's weights have other shapes than before.

    Args:
        former: The settings of the run that is started from.
        settings: The settings of the new run, of the same model.

    Raises:
        InputError: If they have; the message names the settings of the model that were changed.
    """
    changed = [name for name, value in settings.model.items() if value != former.model[name]]
    if changed and _shapes(former, **FEW) != _shapes(settings, **FEW):
        now, before = (", ".join(f"{name}={of.model[name]}" for name in changed) for of in (settings, former))
        raise InputError(
            f"with {now} the weights of {settings.name} have other shapes than with the former run's {before}, so that "
            "they cannot be kept. Leave this out, or train the model anew."
        )


@dataclass(frozen=True, eq=False)
class WarmStart:
    """The weights of a finished run, from which a run on other data starts.

    The counter of updates goes on where it was, and with it an annealing of the KL weight that is counted in updates;
    so does the unit of ratings. Epochs are counted anew, and with them phases and warm-ups. The optimiser is a new one.

    Args:
        folder: The folder of the finished run.
        digest: SHA-256 of its `model.keras`.
        item_ids: [n_items] ids of its items, in the order of its columns.
        user_ids: [n_users] ids of its training users, in the order of its rows.
        selected_beta: The cap of the KL weight that its pilot run found, else None.
    """

    folder: Path
    digest: str
    item_ids: np.ndarray
    user_ids: np.ndarray
    selected_beta: float | None = None

    def load(self) -> GradientRecommender:
        """The former model.

        Raises:
            InputError: If its file is missing or damaged, or it has other items or users than it is said to have.
        """
        model = load_model(RunFolder(self.folder).model_file)
        assert isinstance(model, GradientRecommender)
        users = model.n_users if model.has_user_weights else len(self.user_ids)
        if (model.n_items, users) != (len(self.item_ids), len(self.user_ids)):
            raise InputError(
                f"{self.folder}: the model has {model.n_items:,} items and {users:,} users, its data "
                f"{len(self.item_ids):,} and {len(self.user_ids):,}; put the files of one run together."
            )
        return model

    def give_to(self, model: GradientRecommender, settings: Settings, split: Split) -> None:
        """Copies the weights of known items and users, and all that belong to neither, into an untrained model.

        Args:
            model: The model, with the training rows attached; its own initial weights are those of new items and users.
            settings: Its settings.
            split: Its data.

        Raises:
            InputError: If an axis of a weight can be divided into neither items nor users, or a model of ratings cannot
                go on with those of the split.
        """
        former = self.load()
        if isinstance(model, RatingModel) and isinstance(former, RatingModel):
            if model.rating_unit != former.rating_unit:
                model.rate_in(former.rating_unit)
                model.attach(split.train)  # which may take initial weights from the ratings in this unit
        sides = {
            "items": _Side.of(self.item_ids, np.asarray(split.item_ids)),
            "users": _Side.of(self.user_ids, np.asarray(split.user_ids)),
        }
        for weight, given, axes in zip(model.weights, former.weights, layouts(settings), strict=True):
            if axes is not None and weight is not model.rows_seen:
                weight.assign(_joined(weight.numpy(), given.numpy(), axes, sides))
        if isinstance(model, RatingModel):
            model.attach(split.train)  # now that it is a trained model, it may refuse ratings that it cannot go on with


@dataclass(frozen=True)
class _Side:
    """The items or users that are both in the former data and in the present ones.

    Attributes:
        there: Their numbers in the former data, [n].
        here: Their numbers in the present data, [n].
        n_there: Number of items or users in the former data.
        n_here: Number of items or users in the present data.
    """

    there: np.ndarray
    here: np.ndarray
    n_there: int
    n_here: int

    @classmethod
    def of(cls, former: np.ndarray, present: np.ndarray) -> _Side:
        places = places_in(former, present)
        here = np.flatnonzero(places >= 0)
        return cls(places[here], here, len(former), len(present))


def _joined(
    fresh: np.ndarray, former: np.ndarray, axes: tuple[AxisLayout, ...], sides: Mapping[str, _Side]
) -> np.ndarray:
    """The fresh values of a weight, with the former ones of all that is known."""
    if not axes:
        return former
    there: list[Any] = []
    here: list[Any] = []
    for axis in axes:
        side = sides[axis.of] if axis.of else _Side(np.arange(0), np.arange(0), 0, 0)
        there.append(axis.entries(side.there, side.n_there))
        here.append(axis.entries(side.here, side.n_here))
    joined = fresh.copy()
    joined[np.ix_(*here)] = former[np.ix_(*there)]
    return joined
