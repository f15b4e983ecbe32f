"""Recommendations by the items' own ids, in this process.

A rating model is told the ratings of a history, and answers with predicted ones. What it serves is new rows of the
matrix it was trained on: new users, or, trained on `split.by_items()`, new items, whose history is who rated them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf

from tfvae.evaluation.predictive import has_rating_posterior
from tfvae.nn.batches import SparseBatch, unpad
from tfvae.nn.ranking import EMPTY_RANK, best_unseen
from tfvae.system.errors import DivergedError, InputError

if TYPE_CHECKING:
    from tfvae.models.base import Recommender

__all__ = ["DEFAULT_K", "Ranking", "Recommendations", "recommend"]

DEFAULT_K = 100
PADS: dict[tf.DType, Any] = {tf.int64: -1, tf.string: ""}
KINDS = {tf.int64: "whole numbers", tf.string: "strings"}


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


class Recommendations(tf.Module):
    """A trained model together with the ids of its items.

    Items of the history are never recommended. An id counts once however often the history has it, unknown
    ids are ignored and counted, and an empty history gets what the model offers to a user it knows nothing
    of. Equal scores are ranked by the item's place in `item_ids`.

    A model of ratings is given a rating for each entry of a history; of an id that comes twice the last rating counts.
    Items are ranked by the model's prediction, which is then brought within the scale: several may have the highest
    rating, and the first of them is still the best. An item without a training rating has what the model makes of it.

    Args:
        model: Any recommender that serves users it was not trained on.
        item_ids: Its columns' ids, [n_items], whole numbers or strings; no two equal, none of them the pad.
        titles: Their titles, [n_items], to be returned as well.
        scale: The lowest and the highest training rating, such as `split.scale`; of models of ratings only.
        candidates: bool [n_items], which items may be recommended; all of them if None. Histories may have the others.

    Raises:
        InputError: If the ids, titles or candidates are not `n_items` many, or the ids are not what they should be;
            if the scale is missing or has no use; and if the model serves its training users only.
    """

    def __init__(
        self,
        model: Recommender,
        item_ids: Sequence | np.ndarray,
        titles: Sequence[str] | np.ndarray | None = None,
        scale: tuple[float, float] | None = None,
        candidates: Sequence[bool] | np.ndarray | None = None,
    ):
        super().__init__(name="recommendations")
        _refuse_unfit(model, scale)
        dtype, ids = _ids(item_ids, "item ids")
        columns: dict[str, Sequence | np.ndarray | None] = {"item ids": ids, "titles": titles, "candidates": candidates}
        for what, given in columns.items():
            if given is not None and len(given) != model.n_items:
                raise InputError(
                    f"{model.name} has {model.n_items} items, but {len(given)} {what} were given; "
                    "take those of the split that the model was trained on."
                )
        _refuse_ambiguous(ids, PADS[dtype])
        self.pad = PADS[dtype]
        self._dtype = dtype
        self._name = model.name
        self._n_items = model.n_items
        self._scale = scale and (float(scale[0]), float(scale[1]))
        # The model itself is no attribute: the SavedModel would then hold its variables a second time.
        self._scores = model.scores
        self._sd = model.rating_sd if has_rating_posterior(model) else None
        self._ids = tf.constant([*ids, self.pad], dtype)
        self._titles = None if titles is None else tf.constant([*map(str, titles), ""])
        self._candidates = None if candidates is None else tf.constant(np.asarray(candidates, bool))
        numbers = tf.range(model.n_items)
        self._numbers = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(self._ids[:-1], numbers), default_value=-1
        )
        inputs = [tf.TensorSpec([None, None], dtype, "history")]
        if self._scale is not None:
            inputs.append(tf.TensorSpec([None, None], tf.float32, "ratings"))
        self.recommend = tf.function(self._recommend, [*inputs, tf.TensorSpec([], tf.int32, "k")])
        self.recommend_default = tf.function(self._recommend_default, inputs)
        self._weights = list(self.recommend.get_concrete_function().graph.variables)

    def __call__(
        self, histories: Sequence[Sequence], k: int = DEFAULT_K, ratings: Sequence[Sequence[float]] | None = None
    ) -> Ranking:
        """Recommends to n users.

        Args:
            histories: The item ids of each user, of any length and order.
            k: Length of the rankings.
            ratings: One for each entry of the histories; given to a model of ratings, and to no other.

        Returns:
            The rankings.

        Raises:
            DivergedError: If a score is NaN or infinite.
            InputError: If `k` is less than 1, ids are of another type than the model's, or ratings are missing, too
                many, or off the scale.
        """
        if k < 1:
            raise InputError(f"k is {k}; expected at least 1.")
        inputs = [self._padded(histories)]
        if self._scale is not None:
            inputs.append(self._padded_ratings(histories, ratings))
        elif ratings is not None:
            raise InputError(f"{self._name} ranks by what is in a history, not by ratings; leave the ratings out.")
        try:
            found = self.recommend(*inputs, tf.constant(k, tf.int32))
        except tf.errors.InvalidArgumentError as error:
            if "Tensor had" not in error.message:
                raise
            raise DivergedError(
                f"{self._name} gave NaN or infinite scores, so there is no ranking; "
                "train again with a lower learning rate."
            ) from None
        return Ranking(**{name: _array(tensor) for name, tensor in found.items()})

    def _padded(self, histories: Sequence[Sequence]) -> tf.Tensor:
        """The histories as a tensor [n, longest]."""
        plain = []
        for user, history in enumerate(histories):
            if isinstance(history, str) or np.ndim(history) != 1:
                raise InputError("expected one list of item ids for each user, as in [[628, 1223], [4936]].")
            dtype, ids = _ids(history, "ids in a history") if len(history) else (self._dtype, [])
            if dtype != self._dtype:
                raise InputError(
                    f"the items of {self._name} have {KINDS[self._dtype]} as ids, but history {user} "
                    f"(counted from 0) has {KINDS[dtype]}, such as {ids[0]!r}."
                )
            plain.append(ids)
        return tf.ragged.constant(plain, self._dtype, ragged_rank=1).to_tensor(self.pad)

    @property
    def _limits(self) -> tuple[float, float]:
        """The lowest and the highest rating."""
        if self._scale is None:
            raise InputError(f"{self._name} ranks by what is in a history, not by ratings; leave them out.")
        return self._scale

    def _padded_ratings(self, histories: Sequence[Sequence], ratings: Sequence[Sequence[float]] | None) -> tf.Tensor:
        """The ratings as a tensor [n, longest]."""
        if ratings is None:
            raise InputError(f"{self._name} predicts ratings from ratings; give them too, as in ratings=[[5, 3.5]].")
        if len(ratings) != len(histories):
            raise InputError(f"expected ratings for {len(histories)} histories, found them for {len(ratings)}.")
        low, high = self._limits
        plain = []
        for user, (history, given) in enumerate(zip(histories, ratings, strict=True)):
            where = f"history {user} (counted from 0)"
            try:
                numbers = np.asarray(given, np.float32)
            except (TypeError, ValueError):
                raise InputError(f"{where}: expected a list of numbers as its ratings, found {given!r}.") from None
            if numbers.shape != (len(history),):
                raise InputError(f"{where}: expected {len(history)} ratings, one for each item, found {numbers.size}.")
            for item, rating in zip(history, numbers, strict=True):
                if not np.float32(low) <= rating <= np.float32(high):
                    raise InputError(
                        f"{where}: expected ratings from {low:g} to {high:g}, which {self._name} was trained on, "
                        f"found {rating:g} for item {item}."
                    )
            plain.append(numbers.tolist())
        return tf.ragged.constant(plain, tf.float32, ragged_rank=1).to_tensor()

    def _recommend(self, *inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """In the graph: padded ids [B, L], their ratings [B, L] where the model takes them, and k."""
        *told, k = inputs
        return self._ranking(k, *told)

    def _recommend_default(self, *told: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._ranking(tf.constant(DEFAULT_K), *told)

    def _ranking(self, k: tf.Tensor, history: tf.Tensor, ratings: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        """In the graph: the fields of `Ranking`."""
        numbers = self._numbers.lookup(history)
        unknown = tf.not_equal(history, self.pad) & tf.less(numbers, 0)
        if ratings is not None:
            ratings = self._on_scale(history, ratings)
        batch = _distinct(unpad(numbers, values=ratings), self._n_items)
        scores = tf.cast(self._scores(batch), tf.float32)
        scores = tf.debugging.check_numerics(scores, f"scores of {self._name}")
        if self._candidates is not None:
            scores = tf.where(self._candidates, scores, -np.inf)
        found, best = best_unseen(scores, batch, k)
        empty = found == EMPTY_RANK
        places = tf.where(empty, self._n_items, found)
        if self._scale is not None:
            best = tf.where(empty, best, tf.clip_by_value(best, *self._scale))
        ranking = {
            "items": tf.gather(self._ids, places),
            "scores": best,
            "unknown": tf.reduce_sum(tf.cast(unknown, tf.int32), axis=1),
        }
        if self._titles is not None:
            ranking["titles"] = tf.gather(self._titles, places)
        if self._sd is not None:
            sd = tf.debugging.check_numerics(self._sd(batch), f"uncertainty of {self._name}")
            sd = tf.pad(sd, [[0, 0], [0, 1]], constant_values=np.nan)
            ranking["sd"] = tf.gather(sd, places, batch_dims=1)
        return ranking

    def _on_scale(self, history: tf.Tensor, ratings: tf.Tensor) -> tf.Tensor:
        """In the graph: the same ratings, or an `InvalidArgumentError`; a clipped rating would be another opinion."""
        low, high = self._limits
        shapes = [tf.shape(history), tf.shape(ratings)]
        alike = tf.debugging.Assert(
            tf.reduce_all(shapes[0] == shapes[1]), ["expected history and ratings of one shape, found", *shapes]
        )
        with tf.control_dependencies([alike]):
            off = tf.not_equal(history, self.pad) & ~((ratings >= low) & (ratings <= high))
        on_scale = tf.debugging.Assert(
            ~tf.reduce_any(off), [f"expected ratings from {low:g} to {high:g}, found", tf.boolean_mask(ratings, off)]
        )
        with tf.control_dependencies([on_scale]):
            return tf.identity(ratings)


def recommend(
    model: Recommender,
    item_ids: Sequence | np.ndarray,
    histories: Sequence[Sequence],
    k: int = DEFAULT_K,
    titles: Sequence[str] | np.ndarray | None = None,
    ratings: Sequence[Sequence[float]] | None = None,
    scale: tuple[float, float] | None = None,
    candidates: Sequence[bool] | np.ndarray | None = None,
) -> Ranking:
    """Recommends to n users in this process; for more than one call, keep a `Recommendations`.

    Args:
        model: Any recommender.
        item_ids: Its columns' ids, [n_items], such as `split.item_ids`.
        histories: The item ids of each user.
        k: Length of the rankings.
        titles: The items' titles, [n_items].
        ratings: For a rating model, one rating for each entry of the histories.
        scale: For a rating model, the lowest and the highest training rating, such as `split.scale`.
        candidates: bool [n_items], which items may be recommended; all of them if None.

    Returns:
        The rankings.

    Raises:
        DivergedError: If a score is NaN or infinite.
        InputError: As `Recommendations` raises it.
    """
    return Recommendations(model, item_ids, titles, scale, candidates)(histories, k, ratings)


def _refuse_unfit(model: Recommender, scale: tuple[float, float] | None) -> None:
    if not model.scores_new_users:
        raise InputError(f"{model.name} serves its training users only, and cannot answer for a new history.")
    if not model.predicts_ratings:
        if scale is not None:
            raise InputError(f"{model.name} predicts no ratings, so the scale would change nothing; leave it out.")
    elif scale is None:
        raise InputError(
            f"{model.name} predicts ratings; give the scale of its training ratings, as scale=split.scale."
        )
    elif len(scale) != 2 or not scale[0] < scale[1]:
        raise InputError(f"expected the lowest rating and a higher one as scale, found {scale}.")


def _ids(given: Sequence | np.ndarray, what: str) -> tuple[tf.DType, list[int] | list[str]]:
    """The ids as plain Python values, with the type they have in TensorFlow."""
    # NumPy would turn a list of both numbers and strings into strings.
    kind = pd.api.types.infer_dtype(given, skipna=False)
    if kind not in ("integer", "string"):
        raise InputError(f"expected whole numbers or strings as {what}, found {kind}.")
    return tf.int64 if kind == "integer" else tf.string, np.asarray(given).tolist()


def _refuse_ambiguous(ids: list, pad: int | str) -> None:
    if len(set(ids)) < len(ids):
        raise InputError(f"{len(ids) - len(set(ids))} item ids come twice; each must name one item.")
    if pad in ids:
        raise InputError(f"an item has the id {pad!r}, which marks empty places; give it another.")


def _distinct(batch: SparseBatch, n_items: int) -> SparseBatch:
    """The same rows with each item once, with its last value, ascending, as in a stored matrix."""
    cells = tf.cast(batch.segment_ids, tf.int64) * n_items + tf.cast(batch.items, tf.int64)
    distinct, places = tf.unique(cells)
    ascending = tf.argsort(distinct)
    cells = tf.gather(distinct, ascending)
    segment_ids = tf.cast(cells // n_items, tf.int32)
    ones = tf.ones_like(cells, tf.float32)
    values = batch.values
    if values is not None:
        last = tf.math.unsorted_segment_max(tf.range(tf.size(places)), places, tf.size(distinct))
        values = tf.gather(values, tf.gather(last, ascending))
    return SparseBatch(
        items=tf.cast(cells % n_items, tf.int32),
        segment_ids=segment_ids,
        lengths=tf.math.unsorted_segment_sum(ones, segment_ids, tf.shape(batch.lengths)[0]),
        values=values,
    )


def _array(tensor: tf.Tensor) -> np.ndarray:
    if tensor.dtype != tf.string:
        return tensor.numpy()
    return np.char.decode(tensor.numpy().astype(bytes), "utf-8")
