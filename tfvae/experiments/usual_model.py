"""The model that `tfvae fit` takes if none is named: what stored results, or else published ones, say of such data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tfvae.data.row_shards import RowShards
from tfvae.data.splits import Split

__all__ = ["LARGEST_COMPARED", "UsualModel", "usual_model"]

LARGEST_COMPARED = 1_000_000
"""Training interactions up to which MELD has been compared, rounded up from ML-1M's."""


@dataclass(frozen=True)
class UsualModel:
    """A model and why it is taken.

    Attributes:
        name: Its name in the registry.
        why: The reason, which follows upon a colon.
        settings: Settings that differ from the model's own.
    """

    name: str
    why: str
    settings: dict[str, Any] = field(default_factory=dict)


def usual_model(split: Split) -> UsualModel:
    """The model for a split that nothing more is known of than its protocol and its size.

    Example:
        >>> import tfvae
        >>> from tfvae.data.synthetic import synthetic
        >>> from tfvae.experiments.usual_model import usual_model
        >>> cut = tfvae.StrongGeneralizationSettings(held_out_users=30)
        >>> usual_model(tfvae.strong_generalization(synthetic(200, 30), cut)).name
        'meld'

    Args:
        split: The data.
    """
    if split.protocol == "rating-holdout":
        return UsualModel("two-sided-p-vae", "of all models of ratings it has the lowest error on ML-1M")
    if split.protocol == "weak-generalization":
        return UsualModel("rp3beta", "on Gowalla its recall is above what is published of graph models")
    if split.protocol == "leave-one-out":
        why = "with a logistic likelihood it ranks best among 99 negatives on NCF's ML-1M"
        return UsualModel("mult-vae", why, {"likelihood": "logistic"})
    if isinstance(split.train, RowShards):
        return UsualModel("mult-vae", "it learns from shards, and its memory does not grow with the number of users")
    if split.train.nnz > LARGEST_COMPARED:
        # H+Vamp's with gates has 0.445 there, RecVAE's 0.442; a step of Vamp takes several times as long (benchmarks).
        why = "models were not compared on data of this size; of those published on ML-20M, one slower one is above it"
        return UsualModel("recvae", why)
    return UsualModel(
        "meld", "on ML-1M it is above every other single model, and on MovieTweetings no model was shown to be better"
    )
