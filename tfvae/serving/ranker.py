"""The ranker for new and for training users: from a batch of rows to ids, scores and titles, in the graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf

from tfvae.models.base import knows_rating_sd
from tfvae.nn.batches import SparseBatch
from tfvae.nn.ranking import EMPTY_RANK, best_unseen
from tfvae.system.errors import DivergedError, InputError
from tfvae.system.text_arrays import text_array

if TYPE_CHECKING:
    from tfvae.models.base import Recommender

__all__ = ["Ranker", "Ranking", "diverged_refused", "plain_array", "plain_ids"]

PADS: dict[tf.DType, Any] = {tf.int64: -1, tf.string: ""}


class Ranking(NamedTuple):
    """The best unseen items of n users, best first.

    If fewer than k items can be recommended to a user, the last ranks are empty: their id is the pad (−1 or ""), their
    score −∞, their title "" and their sd NaN.

    Attributes:
        items: Item ids, int64 or str [n, k].
        scores: float32 [n, k]; for a model of ratings the predicted ratings, within the scale.
        unknown: int32 [n], the number of entries of each history that are no ids of the model's items; these were
            ignored.
        titles: str [n, k]; None if the titles are not known.
        sd: float32 [n, k], the standard deviation of each predicted rating; None if the model has none.
    """

    items: np.ndarray
    scores: np.ndarray
    unknown: np.ndarray
    titles: np.ndarray | None = None
    sd: np.ndarray | None = None


class Ranker:
    """Ranks the items for a batch of rows, in a graph; it stores nothing about users.

    Args:
        model: Any recommender.
        item_ids: The ids of the model's items, [n_items], whole numbers or strings; all different, and none the pad.
        titles: The items' titles, [n_items], to be returned as well; None returns none.
        scale: The lowest and the highest training rating; for models of ratings only.
        candidates: bool [n_items], whether each item may be recommended; None allows all.

    Attributes:
        pad: The id in empty ranks.
        dtype: Type of the ids in TensorFlow.
        ids: [n_items + 1], the ids followed by the pad.
        scale: The scale as two floats, or None.

    Raises:
        InputError: If there are not `n_items` ids, titles or candidates, if an id is not valid, or if the scale is
            missing, not valid, or given for a model that predicts no ratings.
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
        self._sd = model.rating_sd if knows_rating_sd(model) else None
        self._titles = None if titles is None else tf.constant([*map(str, titles), ""])
        self._candidates = None if candidates is None else tf.constant(np.asarray(candidates, bool))

    def __call__(self, batch: SparseBatch, k: tf.Tensor) -> dict[str, tf.Tensor]:
        """Ranks the items that are not in the rows.

        Args:
            batch: B rows, each with no item twice.
            k: Length of the rankings, an int32 scalar.

        Returns:
            The fields of `Ranking`, without `unknown`. A NaN or infinite score raises `InvalidArgumentError` when the
            graph runs.
        """
        ranking = self.places(batch, k)
        named = tf.where(ranking["items"] == EMPTY_RANK, self._n_items, ranking["items"])
        ranking["items"] = tf.gather(self.ids, named)
        if self._titles is not None:
            ranking["titles"] = tf.gather(self._titles, named)
        return ranking

    def places(self, batch: SparseBatch, k: tf.Tensor) -> dict[str, tf.Tensor]:
        """Ranks as a call does, with the places of the items among `item_ids` instead of their ids and titles.

        Args:
            batch: B rows, each with no item twice.
            k: Length of the rankings, an int32 scalar.

        Returns:
            `items`, int32 [B, k], −1 in empty ranks; and `scores` and `sd` as in `Ranking`.
        """
        scores = tf.cast(self._scores(batch), tf.float32)
        scores = tf.debugging.check_numerics(scores, f"scores of {self._name}")
        if self._candidates is not None:
            scores = tf.where(self._candidates, scores, -np.inf)
        found, best = best_unseen(scores, batch, k)
        empty = found == EMPTY_RANK
        if self.scale is not None:
            best = tf.where(empty, best, tf.clip_by_value(best, *self.scale))
        ranking = {"items": found, "scores": best}
        if self._sd is not None:
            sd = tf.debugging.check_numerics(self._sd(batch), f"uncertainty of {self._name}")
            sd = tf.pad(sd, [[0, 0], [0, 1]], constant_values=np.nan)
            ranking["sd"] = tf.gather(sd, tf.where(empty, self._n_items, found), batch_dims=1)
        return ranking


@contextmanager
def diverged_refused(name: str) -> Iterator[None]:
    """Turns a graph's error about NaN or infinite scores into a `DivergedError`.

    Args:
        name: The model's name, for the message.
    """
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        if "Tensor had" not in error.message:
            raise
        raise DivergedError(
            f"{name} gave NaN or infinite scores, so there is no ranking; train again with a lower learning rate."
        ) from None


def plain_ids(given: Sequence | np.ndarray, what: str) -> tuple[tf.DType, list[int] | list[str]]:
    """The type of ids in TensorFlow, and the ids as plain Python values.

    Raises:
        InputError: If the ids are neither all whole numbers nor all strings.
    """
    # Inferred by pandas, since NumPy would turn a list of numbers and strings into strings.
    kind = pd.api.types.infer_dtype(given, skipna=False)
    if kind not in ("integer", "string"):
        raise InputError(f"expected whole numbers or strings as {what}, found {kind}.")
    return tf.int64 if kind == "integer" else tf.string, np.asarray(given).tolist()


def plain_array(tensor: tf.Tensor) -> np.ndarray:
    """A tensor as an array, whose strings are decoded from UTF-8."""
    if tensor.dtype != tf.string:
        return tensor.numpy()
    texts = [text.decode() for text in np.ravel(tensor.numpy())]
    return text_array(texts).reshape(tensor.shape)


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
