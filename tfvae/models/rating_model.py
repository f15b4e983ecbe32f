"""Models of ratings learn on a standard scale and answer on the user's: the unit of the ratings changes nothing.

A rating model's settings (the variance of a rating, penalties, learning rates, initial weights) are all relative to the
scale of the ratings. On MovieLens' it runs from 1 to 5. So a model divides its ratings by a unit for which the scale is
4 long, and multiplies what it predicts by it. On a scale from 1 to 5 the unit is 1. It is set when a model is made for
a split (`for_split`) or prepared to fit on one (`prepare_to_fit`); the constructor leaves it at 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import scipy.sparse as sp

from tfvae.models.base import Recommender
from tfvae.nn.batches import SparseBatch

if TYPE_CHECKING:
    from tfvae.data.splits import Split

__all__ = ["RatingModel"]

STANDARD_RANGE = 4.0


class RatingModel(Recommender):
    """A recommender that predicts ratings; its arguments are those of `Recommender`.

    All its methods take ratings on the user's scale.

    Attributes:
        rating_unit: What a rating of 1 on the standard scale is on the user's.
        sd_factor: What the predicted standard deviations are multiplied by, so that their intervals hold what they say
            on validation ratings (see `tfvae.evaluation.calibration`).
    """

    predicts_ratings = True
    rating_unit = 1.0
    sd_factor = 1.0

    @classmethod
    def for_split(cls, split: Split, **settings) -> Any:
        """An untrained model for the items and users of a split, with the unit that suits its scale."""
        model: Any = super().for_split(split, **settings)
        model.rate_as(split.scale)
        return model

    def rate_in(self, unit: float) -> None:
        """Sets the unit of the ratings."""
        self.rating_unit = float(unit)

    def rate_as(self, scale: tuple[float, float] | None) -> None:
        """Sets the unit for a scale, given by its lowest and highest rating; it is 1 where these are equal."""
        if scale is not None:
            self.rate_in((scale[1] - scale[0]) / STANDARD_RANGE or 1.0)

    def standard_matrix(self, train: sp.csr_array) -> sp.csr_array:
        """A matrix of ratings on the standard scale; the same one where the unit is 1."""
        if self.rating_unit == 1:
            return train
        return sp.csr_array((train.data / np.float32(self.rating_unit), train.indices, train.indptr), shape=train.shape)

    def standard(self, batch: SparseBatch) -> SparseBatch:
        """Rows of ratings on the standard scale."""
        return batch if self.rating_unit == 1 else batch._replace(values=batch.ratings / self.rating_unit)

    def get_config(self) -> dict:
        """The constructor's arguments, and what has been found from the ratings."""
        found = {"rating_unit": self.rating_unit, "sd_factor": self.sd_factor}
        return super().get_config() | {name: value for name, value in found.items() if value != 1}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        """See `Recommender.from_config`."""
        config = dict(config)
        unit, factor = config.pop("rating_unit", 1.0), config.pop("sd_factor", 1.0)
        model: Any = super().from_config(config, custom_objects)
        model.rate_in(unit)
        model.sd_factor = factor
        return model
