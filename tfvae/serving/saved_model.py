"""Recommendations as a SavedModel: a finished computation for servers that have TensorFlow and no tfvae.

It holds weights, item ids and the graph from history to ranking, and is served by TensorFlow alone:

    recommend = tf.saved_model.load(folder).signatures["recommend"]
    recommend(history=tf.constant([[628, 1223, -1]], tf.int64), k=tf.constant(10))

The signatures' outputs are TensorFlow's, so strings come as UTF-8 bytes there, and as `str` in a `Ranking`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfvae.models.base import Recommender
from tfvae.serving.recommendations import Recommendations
from tfvae.system.errors import InputError
from tfvae.system.files import replacing, write_json

__all__ = ["export"]

MARK = "tfvae-export.json"  # names the files of an export, so that no others are ever replaced


def export(
    model: Recommender,
    item_ids: Sequence | np.ndarray,
    folder: Path | str,
    titles: Sequence[str] | np.ndarray | None = None,
    scale: tuple[float, float] | None = None,
    candidates: Sequence[bool] | np.ndarray | None = None,
) -> None:
    """Writes a SavedModel that recommends by external ids and needs TensorFlow alone.

    Its signatures, both with the semantics of `Recommendations`:

    - `recommend` takes `history` [B, L], ids padded anywhere by −1 (int64) or "" (string), and `k`, an int32
      scalar. It returns `items`, `scores` [B, k], `unknown` [B] and, when titles are given, `titles` [B, k].
    - `serving_default` takes `history` alone, since servers that batch requests want the users as first axis
      of every input; k is 100.

    Those of a model of ratings also take `ratings`, float32 [B, L], anything at pads; their `scores` are predicted
    ratings, and there is `sd` [B, k] where the model has a posterior.

    NaN scores end in an `InvalidArgumentError`, and so do a negative `k` and a rating off the scale.

    Args:
        model: Any recommender.
        item_ids: Its columns' ids, [n_items], such as `split.item_ids`.
        folder: Written in one step; an earlier export by this function is replaced if nothing was added to it.
        titles: The items' titles, [n_items].
        scale: For a rating model, the lowest and the highest training rating, such as `split.scale`.
        candidates: bool [n_items], which items may be recommended; all of them if None.

    Raises:
        InputError: As `Recommendations` raises it, and if something else than an export lies there.
    """
    folder = Path(folder)
    if folder.exists() and not _replaceable(folder):
        raise InputError(
            f"{folder} exists, and is not an exported model of tfvae with nothing else in it; choose another folder, "
            "or remove it."
        )
    serving = Recommendations(model, item_ids, titles, scale, candidates)
    signatures = {"recommend": serving.recommend, "serving_default": serving.recommend_default}
    with replacing(folder) as draft:
        tf.saved_model.save(serving, draft, signatures)
        files = sorted(str(path.relative_to(draft)) for path in draft.rglob("*") if path.is_file())
        write_json(draft / MARK, {"format": "tfvae export", "version": 1, "files": [*files, MARK]})


def _replaceable(folder: Path) -> bool:
    """Whether the folder is empty, or an export that holds what was written then and nothing else."""
    if not folder.is_dir():
        return False
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
    if not there:
        return not any(folder.iterdir())
    try:
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
        return mark["format"] == "tfvae export" and there <= set(mark["files"])
    except (OSError, ValueError, TypeError, KeyError):
        return False
