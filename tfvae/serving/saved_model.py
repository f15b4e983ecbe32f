"""Recommendations as a SavedModel, for servers that have TensorFlow but not tfvae.

It holds the weights, the item ids and the graph from a history to a ranking:

    recommend = tf.saved_model.load(folder).signatures["recommend"]
    recommend(history=tf.constant([[628, 1223, -1]], tf.int64), k=tf.constant(10))

The outputs of the signatures are tensors, in which strings are UTF-8 bytes; in a `Ranking` they are `str`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfvae.models.base import Recommender
from tfvae.serving.export_folder import exporting, refuse_export
from tfvae.serving.recommendations import Recommendations
from tfvae.serving.rules import Rules

__all__ = ["export"]


def export(
    model: Recommender,
    item_ids: Sequence | np.ndarray,
    folder: Path | str,
    titles: Sequence[str] | np.ndarray | None = None,
    scale: tuple[float, float] | None = None,
    rules: Rules | None = None,
) -> None:
    """Writes a SavedModel that recommends by the ids of the items, and only needs TensorFlow.

    It has four signatures, of which three rank as `Recommendations` does:

    - `recommend` takes `history` [B, L], ids with pads, −1 (int64) or "" (string), at any place, and `k`, an int32
      scalar. It returns `items` and `scores` [B, k], `unknown` [B] and, if titles are given, `titles` [B, k].
    - `serving_default` takes `history` without `k`, which is 100, since servers that batch requests expect every input
      to have the users as its first axis.
    - `recommend_allowed` is `recommend` with a further input `allowed`, bool [B, n_items], whether each item may be
      recommended to each user now; one row, [1, n_items], is for all of them. It comes on top of the rules.
    - `items` takes nothing, and returns `items` [n_items], the ids in the order of the columns of `allowed`.

    For a model of ratings, the three also take `ratings`, float32 [B, L], with any value at pads. Their `scores` are
    predicted ratings, and they also return `sd` [B, k] if the model has a posterior.

    NaN or infinite scores, a negative `k` and a rating off the scale raise `InvalidArgumentError`.

    Args:
        model: Any recommender that scores users on whom it was not trained.
        item_ids: The ids of the model's items, [n_items], such as `split.item_ids`.
        folder: The folder to write, in one step; an earlier export is replaced if nothing was added to it.
        titles: The items' titles, [n_items], to be returned as well; None returns none.
        scale: For a model of ratings, the lowest and the highest training rating, such as `split.scale`.
        rules: What may always be recommended; None allows all items. They are part of the graph, and so can neither
            have `at_most` nor `diversity`.

    Raises:
        InputError: For the reasons that are given at `Recommendations`, if the rules re-rank, and if the folder holds
            anything but an export.
    """
    folder = Path(folder)
    refuse_export(folder, rules)
    serving = Recommendations(model, item_ids, titles, scale, rules)
    signatures = {
        "recommend": serving.recommend,
        "serving_default": serving.recommend_default,
        "recommend_allowed": serving.recommend_allowed,
        "items": serving.items,
    }
    with exporting(folder) as draft:
        tf.saved_model.save(serving, draft, signatures)
