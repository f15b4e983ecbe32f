"""Which models learn from training rows in shards (`tfvae prepare --shards`)."""

from __future__ import annotations

from tfvae.data.row_shards import RowShards
from tfvae.data.splits import Split
from tfvae.models import model_class
from tfvae.models.gradient import GradientRecommender
from tfvae.models.matrix import MatrixRecommender
from tfvae.system.errors import InputError
from tfvae.training.settings import Settings

__all__ = ["refuse_not_streamed"]


def refuse_not_streamed(settings: Settings, split: Split) -> None:
    """Refuses a split in shards for a model that cannot learn from it.

    Raises:
        InputError: If it cannot.
    """
    kind = model_class(settings.name)
    if not isinstance(split.train, RowShards) or not issubclass(kind, (GradientRecommender, MatrixRecommender)):
        return
    if why := kind.not_streamed(settings.model):
        raise InputError(
            f"{settings.name} cannot learn from training rows in shards: {why}. Take a model that can, such as "
            "mult-vae; or, if the data fit in memory, prepare them without --shards."
        )
