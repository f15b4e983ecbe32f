"""Recommendations by the items' own ids, in this process.

A rating model is told the ratings of a history, and answers with predicted ones. What it serves is new rows of the
matrix it was trained on: new users, or, trained on `split.by_items()`, new items, whose history is who rated them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from tfvae.evaluation.scoring import history_store, traced
from tfvae.nn.batches import SparseBatch, unpad
from tfvae.serving.ranker import Ranker, Ranking, diverged_refused, plain_array, plain_ids
from tfvae.system.errors import InputError

if TYPE_CHECKING:
    from tfvae.data.splits import Split
    from tfvae.models.base import Recommender

__all__ = ["DEFAULT_K", "Ranking", "Recommendations", "recommend", "recommend_to_users"]

DEFAULT_K = 100
USERS_AT_ONCE = 500
KINDS = {tf.int64: "whole numbers", tf.string: "strings"}


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
        if not model.scores_new_users:
            raise InputError(
                f"{model.name} serves its training users only, and cannot answer for a new history; recommend to them "
                "by their ids, tfvae.recommend_to_users(model, split, users)."
            )
        self._rank = Ranker(model, item_ids, titles, scale, candidates)
        self.pad = self._rank.pad
        self._dtype = dtype = self._rank.dtype
        self._name = model.name
        self._n_items = model.n_items
        numbers = tf.range(model.n_items)
        self._numbers = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(self._rank.ids[:-1], numbers), default_value=-1
        )
        inputs = [tf.TensorSpec([None, None], dtype, "history")]
        if self._rank.scale is not None:
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
        if self._rank.scale is not None:
            inputs.append(self._padded_ratings(histories, ratings))
        elif ratings is not None:
            raise InputError(f"{self._name} ranks by what is in a history, not by ratings; leave the ratings out.")
        with diverged_refused(self._name):
            found = self.recommend(*inputs, tf.constant(k, tf.int32))
        return Ranking(**{name: plain_array(tensor) for name, tensor in found.items()})

    def _padded(self, histories: Sequence[Sequence]) -> tf.Tensor:
        """The histories as a tensor [n, longest]."""
        plain = []
        for user, history in enumerate(histories):
            if isinstance(history, str) or np.ndim(history) != 1:
                raise InputError("expected one list of item ids for each user, as in [[628, 1223], [4936]].")
            dtype, ids = plain_ids(history, "ids in a history") if len(history) else (self._dtype, [])
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
        if self._rank.scale is None:
            raise InputError(f"{self._name} ranks by what is in a history, not by ratings; leave them out.")
        return self._rank.scale

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
        return self._rank(batch, k) | {"unknown": tf.reduce_sum(tf.cast(unknown, tf.int32), axis=1)}

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


def recommend_to_users(
    model: Recommender,
    split: Split,
    users: Sequence | np.ndarray,
    k: int = DEFAULT_K,
    candidates: Sequence[bool] | np.ndarray | None = None,
) -> Ranking:
    """Recommends to training users, by their ids, what they do not have; any model can.

    Args:
        model: Any recommender.
        split: The split it was trained on.
        users: Ids of training users, such as some of `split.user_ids`; text will do for numbers.
        k: Length of the rankings.
        candidates: bool [n_items], which items may be recommended; all of them if None.

    Returns:
        The rankings; of a model of ratings within `split.scale`.

    Raises:
        DivergedError: If a score is NaN or infinite.
        InputError: If `k` is less than 1, somebody is no training user, or the split is not the model's.
    """
    if k < 1:
        raise InputError(f"k is {k}; expected at least 1.")
    rows = _training_rows(split, users)
    histories = history_store(model, split.train)
    rank = Ranker(model, split.item_ids, split.titles, split.scale if model.predicts_ratings else None, candidates)
    ranked = traced(lambda batch: rank(histories.gather(batch), tf.constant(k)), tf.TensorSpec([None], tf.int64))
    found = []
    with diverged_refused(model.name):
        for start in range(0, max(len(rows), 1), USERS_AT_ONCE):
            part = ranked(tf.constant(rows[start : start + USERS_AT_ONCE]))
            found.append({name: plain_array(tensor) for name, tensor in part.items()})
    whole = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    return Ranking(**whole, unknown=np.zeros(len(rows), np.int32))


def _training_rows(split: Split, users: Sequence | np.ndarray) -> np.ndarray:
    ids = split.user_ids
    row_of = {str(user): row for row, user in enumerate(ids.tolist())}
    for user in users:
        if str(user) not in row_of:
            raise InputError(f"{user} is none of the {len(ids):,} training users; their ids look like {ids[0]}.")
    return np.array([row_of[str(user)] for user in users], np.int64)


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
