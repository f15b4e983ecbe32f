"""Recommendations from an exported LiteRT file, in which TensorFlow has no part: an answer comes in half a second.

The interpreter is that of the package `ai-edge-litert` (extra `litert`), or else TensorFlow's own, which gives the same
answer and takes as long to load as TensorFlow does.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfvae.data.items import ITEMS_FILE, Items
from tfvae.serving.export_folder import MODEL_FILE, refuse_changed
from tfvae.serving.ranking import Ranking
from tfvae.system.errors import DivergedError, InputError
from tfvae.system.files import reading

__all__ = ["LiteRTFile"]


class LiteRTFile:
    """The folder of `export_litert`, from which one person at a time is answered.

    Args:
        folder: The folder.

    Attributes:
        items: The model's items; their numbers of training users are 0 if the export was not told them.
        predicts_ratings: Whether the model predicts ratings, and histories need them.

    Raises:
        InputError: If a file is missing or not as it was exported.

    Example:
        >>> from tfvae.serving.litert_file import LiteRTFile
        >>> LiteRTFile("exports/phone").recommend([318, 527], k=5).titles        # doctest: +SKIP
    """

    def __init__(self, folder: Path | str):
        self._path = Path(folder) / MODEL_FILE
        refuse_changed(Path(folder), [MODEL_FILE, ITEMS_FILE])
        self.items = Items.load(folder)
        with reading(self._path, "a LiteRT file"):
            self._recommend = _interpreter(self._path).get_signature_runner("recommend")
        self.predicts_ratings = "ratings" in self._recommend.get_input_details()

    def recommend(self, history: Sequence, k: int, ratings: Sequence[float] | None = None) -> Ranking:
        """Recommends items to one person, as `tfvae.recommend` does, but for the standard deviations of ratings.

        Args:
            history: The ids of their items; those that are none of the model's are counted and left out.
            k: Length of the ranking; it is no longer than the catalogue.
            ratings: A rating for each entry of the history; for models of ratings only.

        Raises:
            DivergedError: If a score is NaN or infinite.
            InputError: If `k` is less than 1, or ratings are missing, too few or many, off the scale, or not wanted.
        """
        if k < 1:
            raise InputError(f"k is {k}; expected at least 1.")
        if (ratings is not None) != self.predicts_ratings:
            raise InputError("a model of ratings needs a rating for each item of a history, and any other model none.")
        numbers = {item: number for number, item in enumerate(self.items.item_ids.tolist())}
        told = {"history": np.array([[numbers.get(item, -2) for item in history] or [-1]], np.int32)}
        if ratings is not None:
            told["ratings"] = np.array([self._on_scale(history, ratings) or [0.0]], np.float32)
        found = self._recommend(**told, k=np.int32(min(k, self.items.n_items)))
        empty = found["items"] == -1
        if not np.isfinite(found["scores"]).all():
            raise DivergedError(f"{self._path} gave NaN or infinite scores, so there is no ranking.")
        return Ranking(
            items=_named(self.items.item_ids, found["items"], empty),
            scores=np.where(empty, np.float32(-np.inf), found["scores"]),
            unknown=found["unknown"],
            titles=None if self.items.titles is None else _named(self.items.titles, found["items"], empty),
        )

    def _on_scale(self, history: Sequence, ratings: Sequence[float]) -> list[float]:
        if len(ratings) != len(history):
            raise InputError(f"expected {len(history)} ratings, one for each item, found {len(ratings)}.")
        low, high = self.items.scale or (-np.inf, np.inf)
        for item, rating in zip(history, ratings, strict=True):
            if not low <= rating <= high:
                raise InputError(f"expected ratings from {low:g} to {high:g}, found {rating:g} for item {item}.")
        return list(ratings)


def _interpreter(path: Path) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ModuleNotFoundError:
        import tensorflow as tf

        Interpreter, OpResolverType = tf.lite.Interpreter, tf.lite.experimental.OpResolverType  # noqa: N806
    with warnings.catch_warnings():  # of TensorFlow's, that the other one will take its place
        warnings.simplefilter("ignore")
        # With the default delegate it says on the standard error that there is one.
        return Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)


def _named(names: np.ndarray, places: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """What stands at places, [1, k]; −1 or "" in empty ranks."""
    pad = -1 if names.dtype.kind in "iu" else ""
    return np.where(empty, pad, names[np.where(empty, 0, places)])
