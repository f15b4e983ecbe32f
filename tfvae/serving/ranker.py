"""The one ranker, for new users and training users alike: from rows in a graph to ids, scores and titles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf

from tfvae.evaluation.predictive import has_rating_posterior
from tfvae.nn.batches import SparseBatch
from tfvae.nn.ranking import EMPTY_RANK, best_unseen
from tfvae.system.errors import DivergedError, InputError

if TYPE_CHECKING:
    from tfvae.models.base import Recommender

__all__ = ["Ranker", "Ranking", "diverged_refused", "plain_array", "plain_ids"]

PADS: dict[tf.DType, Any] = {tf.int64: -1, tf.string: ""}


class Ranking(NamedTuple):
    """The best unseen items of n users, best first.

    Where there are fewer than k unseen items for a user the last ranks are empty: the pad as id (−1 or ""), score −∞,
    title "" and sd NaN.

    Attributes:
        items: Item ids, int64 or str [n, k].
        scores: float32 [n, k]; of a model of ratings the predicted ones, within the scale.
        unknown: int32 [n], entries of each history that name no item of the model; they were ignored.
        titles: str [n, k]; None where the titles are not known.
        sd: float32 [n, k], the standard deviation of each predicted rating; None where the model knows none.
    """

    items: np.ndarray
    scores: np.ndarray
    unknown: np.ndarray
    titles: np.ndarray | None = None
    sd: np.ndarray | None = None


class Ranker:
    """A model's ranking of a batch of rows, to be called in a graph; it holds no user.

    Args:
        model: Any recommender.
        item_ids: Its columns' ids, [n_items], whole numbers or strings; no two equal, none of them the pad.
        titles: Their titles, [n_items], to be given as well.
        scale: The lowest and the highest training rating; of models of ratings only.
        candidates: bool [n_items], which items may be recommended; all of them if None.

    Attributes:
        pad: The id in empty ranks.
        dtype: Type of the ids.
        ids: [n_items + 1], the ids and the pad.
        scale: As given.

    Raises:
        InputError: If the ids, titles or candidates are not `n_items` many, the ids are not what they should be, or the
            scale is missing or has no use.
    """

    def __init__(
        self,
        model: Recommender,
        item_ids: Sequence | np.ndarray,
        titles: Sequence[str] | np.ndarray | None,
        scale: tuple[float, float] | None,
        candidates: Sequence[bool] | np.ndarray | None,
    ):
        _refuse_scale(model, scale)
        self.dtype, ids = plain_ids(item_ids, "item ids")
        columns: dict[str, Sequence | np.ndarray | None] = {"item ids": ids, "titles": titles, "candidates": candidates}
        for what, given in columns.items():
            if given is not None and len(given) != model.n_items:
                raise InputError(
                    f"{model.name} has {model.n_items} items, but {len(given)} {what} were given; "
                    "take those of the split that the model was trained on."
                )
        self.pad = PADS[self.dtype]
        _refuse_ambiguous(ids, self.pad)
        self.ids = tf.constant([*ids, self.pad], self.dtype)
        self.scale = scale and (float(scale[0]), float(scale[1]))
        self._name = model.name
        self._n_items = model.n_items
        # The model itself is no attribute: a SavedModel would then hold its variables a second time.
        self._scores = model.scores
        self._sd = model.rating_sd if has_rating_posterior(model) else None
        self._titles = None if titles is None else tf.constant([*map(str, titles), ""])
        self._candidates = None if candidates is None else tf.constant(np.asarray(candidates, bool))

    def __call__(self, batch: SparseBatch, k: tf.Tensor) -> dict[str, tf.Tensor]:
        """The fields of `Ranking` but `unknown`.

        Args:
            batch: B rows, each item at most once in each.
            k: Length of the rankings, int32.
        """
        scores = tf.cast(self._scores(batch), tf.float32)
        scores = tf.debugging.check_numerics(scores, f"scores of {self._name}")
        if self._candidates is not None:
            scores = tf.where(self._candidates, scores, -np.inf)
        found, best = best_unseen(scores, batch, k)
        empty = found == EMPTY_RANK
        places = tf.where(empty, self._n_items, found)
        if self.scale is not None:
            best = tf.where(empty, best, tf.clip_by_value(best, *self.scale))
        ranking = {"items": tf.gather(self.ids, places), "scores": best}
        if self._titles is not None:
            ranking["titles"] = tf.gather(self._titles, places)
        if self._sd is not None:
            sd = tf.debugging.check_numerics(self._sd(batch), f"uncertainty of {self._name}")
            sd = tf.pad(sd, [[0, 0], [0, 1]], constant_values=np.nan)
            ranking["sd"] = tf.gather(sd, places, batch_dims=1)
        return ranking


@contextmanager
def diverged_refused(name: str) -> Iterator[None]:
    """Turns what a graph says of NaN and infinite scores into a `DivergedError`."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        if "Tensor had" not in error.message:
            raise
        raise DivergedError(
            f"{name} gave NaN or infinite scores, so there is no ranking; train again with a lower learning rate."
        ) from None


def plain_ids(given: Sequence | np.ndarray, what: str) -> tuple[tf.DType, list[int] | list[str]]:
    """The ids as plain Python values, with the type they have in TensorFlow."""
    # NumPy would turn a list of both numbers and strings into strings.
    kind = pd.api.types.infer_dtype(given, skipna=False)
    if kind not in ("integer", "string"):
        raise InputError(f"expected whole numbers or strings as {what}, found {kind}.")
    return tf.int64 if kind == "integer" else tf.string, np.asarray(given).tolist()


def plain_array(tensor: tf.Tensor) -> np.ndarray:
    """A tensor as an array; strings of TensorFlow are UTF-8 bytes."""
    if tensor.dtype != tf.string:
        return tensor.numpy()
    return np.char.decode(tensor.numpy().astype(bytes), "utf-8")


def _refuse_scale(model: Recommender, scale: tuple[float, float] | None) -> None:
    if not model.predicts_ratings:
        if scale is not None:
            raise InputError(f"{model.name} predicts no ratings, so the scale would change nothing; leave it out.")
    elif scale is None:
        raise InputError(
            f"{model.name} predicts ratings; give the scale of its training ratings, as scale=split.scale."
        )
    elif len(scale) != 2 or not scale[0] < scale[1]:
        raise InputError(f"expected the lowest rating and a higher one as scale, found {scale}.")


def _refuse_ambiguous(ids: list, pad: int | str) -> None:
    if len(set(ids)) < len(ids):
        raise InputError(f"{len(ids) - len(set(ids))} item ids come twice; each must name one item.")
    if pad in ids:
        raise InputError(f"an item has the id {pad!r}, which marks empty places; give it another.")
