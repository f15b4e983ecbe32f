"""Recommendations in this process, by the ids of the items in the data.

A model of ratings takes the ratings of a history and returns predicted ratings. It serves new rows of the matrix on
which it was trained: new users, or, if it was trained on `split.by_items()`, new items, whose histories are users with
their ratings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from tfvae.data.row_shards import RowShards, in_memory, item_counts, rows_of
from tfvae.evaluation.scoring import history_store
from tfvae.nn.batches import SparseBatch, unpad
from tfvae.serving.ranker import Ranker, diverged_refused, plain_array, plain_ids
from tfvae.serving.ranking import Ranking
from tfvae.serving.reranking import training_vectors
from tfvae.serving.rules import Rules
from tfvae.system.errors import InputError

if TYPE_CHECKING:
    from tfvae.data.splits import Split
    from tfvae.models.base import Recommender

__all__ = ["DEFAULT_K", "Ranking", "Recommendations", "recommend", "recommend_to_users", "refuse_training_users_only"]

DEFAULT_K = 100
USERS_AT_ONCE = 500
KINDS = {tf.int64: "whole numbers", tf.string: "strings"}


class Recommendations(tf.Module):
    """A trained model together with the ids of its items.

    Items of the history are not recommended, unless the rules say so. A repeated id counts once, unknown ids are
    ignored and counted, and an empty history gets the model's recommendations for a user about whom nothing is known.
    Equal scores are ranked by the order of `item_ids`.

    A model of ratings is given a rating for each entry of a history; if an id is repeated, its last rating counts.
    Items are ranked by the predicted rating, which is clipped to the scale afterwards, so that items with the same
    highest rating are still in the order of the prediction. For an item without training ratings the prediction is
    whatever the model gives.

    Args:
        model: Any recommender that scores users on whom it was not trained.
        item_ids: The ids of the model's items, [n_items], whole numbers or strings; all different, and none the pad.
        titles: The items' titles, [n_items], to be returned as well; None returns none.
        scale: The lowest and the highest training rating, such as `split.scale`; for models of ratings only.
        rules: What may be recommended; None allows all items. Histories may have any item.
        graph: Whether to make a graph, which takes longer than a single answer does, and makes each of many quicker.
            A SavedModel needs it.

    Raises:
        InputError: If there are not `n_items` ids or titles; if an id is not valid; if the scale is missing, not valid,
            or given for a model that predicts no ratings; if the model only scores its training users; or if the rules
            do not suit the items.
    """

    def __init__(
        self,
        model: Recommender,
        item_ids: Sequence | np.ndarray,
        titles: Sequence[str] | np.ndarray | None = None,
        scale: tuple[float, float] | None = None,
        rules: Rules | None = None,
        graph: bool = True,
    ):
        super().__init__(name="recommendations")
        refuse_training_users_only(model)
        self._rank = Ranker(model, item_ids, titles, scale, rules)
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
        with_k = [*inputs, tf.TensorSpec([], tf.int32, "k")]
        self.items = tf.function(self._items, [], autograph=False)
        self.recommend = tf.function(self._recommend, with_k, autograph=False)
        self.recommend_default = tf.function(self._recommend_default, inputs, autograph=False)
        if self._rank.rules.reranks:
            self._list = tf.function(self._lists, with_k, autograph=False) if graph else self._lists
        else:  # a graph alone follows the rules
            mask = tf.TensorSpec([None, model.n_items], tf.bool, "allowed")
            self.recommend_allowed = tf.function(self._recommend_allowed, [*with_k, mask], autograph=False)
        self._answer = self.recommend if graph else self._recommend
        self._weights = list(self.recommend.get_concrete_function().graph.variables) if graph else []

    def __call__(
        self, histories: Sequence[Sequence], k: int = DEFAULT_K, ratings: Sequence[Sequence[float]] | None = None
    ) -> Ranking:
        """Recommends items to n users.

        Args:
            histories: The item ids of each user, of any length and in any order.
            k: Length of the rankings.
            ratings: The ratings of each user, one for each entry of the history; for models of ratings only.

        Returns:
            The rankings.

        Raises:
            DivergedError: If a score is NaN or infinite.
            InputError: If `k` is less than 1; if a history is not a list of ids of the model's type; if ratings are
                missing, too few, too many or off the scale; or if they are given to a model that predicts no ratings.
        """
        if k < 1:
            raise InputError(f"k is {k}; expected at least 1.")
        inputs = [self._padded(histories)]
        if self._rank.scale is not None:
            inputs.append(self._padded_ratings(histories, ratings))
        elif ratings is not None:
            raise InputError(f"{self._name} ranks by what is in a history, not by ratings; leave the ratings out.")
        with diverged_refused(self._name):
            rank = self._by_rules if self._rank.rules.reranks else self._answer
            found = rank(*inputs, tf.constant(k, tf.int32))
        return Ranking(**{name: plain_array(tensor) for name, tensor in found.items()})

    def _padded(self, histories: Sequence[Sequence]) -> tf.Tensor:
        """The histories as one tensor [n, length of the longest], padded at the end."""
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
        """The lowest and the highest rating; raises InputError if the model predicts no ratings."""
        if self._rank.scale is None:
            raise InputError(f"{self._name} ranks by what is in a history, not by ratings; leave them out.")
        return self._rank.scale

    def _padded_ratings(self, histories: Sequence[Sequence], ratings: Sequence[Sequence[float]] | None) -> tf.Tensor:
        """The ratings as one tensor [n, length of the longest history], padded at the end."""
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
        """The function of the signature `recommend`: padded ids [B, L], the ratings [B, L] of a model of ratings, k."""
        *told, k = inputs
        return self._ranking(k, *told)

    def _recommend_default(self, *told: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._ranking(tf.constant(DEFAULT_K), *told)

    def _items(self) -> dict[str, tf.Tensor]:
        return {"items": self._rank.ids[:-1]}

    def _recommend_allowed(self, *inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """The function of the signature `recommend_allowed`, which has `allowed` as a further input."""
        *told, k, allowed = inputs
        batch, unknown = self._read(*told)
        return self._rank(batch, k, allowed) | {"unknown": unknown}

    def _ranking(self, k: tf.Tensor, *told: tf.Tensor) -> dict[str, tf.Tensor]:
        """The fields of `Ranking`, in the graph."""
        batch, unknown = self._read(*told)
        return self._rank(batch, k) | {"unknown": unknown}

    def _lists(self, *inputs: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """What is re-ranked, and the number of unknown ids."""
        *told, k = inputs
        batch, unknown = self._read(*told)
        return self._rank.lists(batch, k), unknown

    def _by_rules(self, *inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """What `recommend` returns, by rules that re-rank."""
        *told, k = inputs
        n_unknown = np.zeros(len(told[0]), np.int32)

        def listed(rows: np.ndarray, length: int) -> dict[str, np.ndarray]:
            lists, unknown = self._list(*(tf.gather(padded, rows) for padded in told), tf.constant(length, tf.int32))
            n_unknown[rows] = unknown
            return {name: tensor.numpy() for name, tensor in lists.items()}

        ranking = self._rank.by_rules(listed, len(n_unknown), int(k))
        return self._rank.named(ranking) | {"unknown": tf.constant(n_unknown)}

    def _read(self, history: tf.Tensor, ratings: tf.Tensor | None = None) -> tuple[SparseBatch, tf.Tensor]:
        """The rows of padded histories, and how many of the ids of each are unknown, int32 [B]."""
        numbers = self._numbers.lookup(history)
        unknown = tf.not_equal(history, self.pad) & tf.less(numbers, 0)
        if ratings is not None:
            ratings = self._on_scale(history, ratings)
        batch = _distinct(unpad(numbers, values=ratings), self._n_items)
        return batch, tf.reduce_sum(tf.cast(unknown, tf.int32), axis=1)

    def _on_scale(self, history: tf.Tensor, ratings: tf.Tensor) -> tf.Tensor:
        """The same ratings, in the graph; one off the scale raises `InvalidArgumentError`.

        It is not clipped, since that would change what the user said.
        """
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


def refuse_training_users_only(model: Recommender) -> None:
    """Raises InputError if a model only scores its training users."""
    if not model.scores_new_users:
        raise InputError(
            f"{model.name} serves its training users only, and cannot answer for a new history; recommend to them "
            "by their ids, tfvae.recommend_to_users(model, split, users)."
        )


def recommend(
    model: Recommender,
    item_ids: Sequence | np.ndarray,
    histories: Sequence[Sequence],
    k: int = DEFAULT_K,
    titles: Sequence[str] | np.ndarray | None = None,
    ratings: Sequence[Sequence[float]] | None = None,
    scale: tuple[float, float] | None = None,
    rules: Rules | None = None,
    graph: bool = True,
) -> Ranking:
    """Recommends items to n users in this process; for more than one call, keep a `Recommendations`.

    Args:
        model: Any recommender that scores users on whom it was not trained.
        item_ids: The ids of the model's items, [n_items], such as `split.item_ids`.
        histories: The item ids of each user.
        k: Length of the rankings.
        titles: The items' titles, [n_items], to be returned as well; None returns none.
        ratings: For a model of ratings, one rating for each entry of the histories.
        scale: For a model of ratings, the lowest and the highest training rating, such as `split.scale`.
        rules: What may be recommended; None allows all items.
        graph: Whether to make a graph, as evaluation does. Without one a single answer comes about a second sooner; its
            scores differ by rounding.

    Returns:
        The rankings.

    Raises:
        DivergedError: If a score is NaN or infinite.
        InputError: For the reasons that are given at `Recommendations` and its call.
    """
    return Recommendations(model, item_ids, titles, scale, rules, graph)(histories, k, ratings)


def recommend_to_users(
    model: Recommender,
    split: Split,
    users: Sequence | np.ndarray,
    k: int = DEFAULT_K,
    rules: Rules | None = None,
) -> Ranking:
    """Recommends to training users, given by their ids, items that they do not have; every model can do so.

    Args:
        model: Any recommender.
        split: The split on which the model was trained.
        users: Ids of training users, such as some of `split.user_ids`; numbers may be given as text.
        k: Length of the rankings.
        rules: What may be recommended; None allows all items. If diversity is asked for without vectors, items are
            alike that the same training users have.

    Returns:
        The rankings; predicted ratings are within `split.scale`.

    Raises:
        DivergedError: If a score is NaN or infinite.
        InputError: If `k` is less than 1, a user is not a training user, the rules do not suit the items, or the split
            has other numbers of items or users than the model.
    """
    if k < 1:
        raise InputError(f"k is {k}; expected at least 1.")
    rows, train = _training_rows(split, users), split.train
    if isinstance(train, RowShards):  # of which only the rows of these users are read
        rows, train = np.arange(len(rows)), rows_of(train, rows)
    histories = history_store(model, train)
    scale = split.scale if model.predicts_ratings else None
    rank = Ranker(model, split.item_ids, split.titles, scale, rules_for(split, rules))
    with diverged_refused(model.name):
        found = rank.named(rank.of_rows(histories, k, USERS_AT_ONCE)(rows))
    whole = {name: plain_array(tensor) for name, tensor in found.items()}
    return Ranking(**whole, unknown=np.zeros(len(rows), np.int32))


def rules_for(split: Split, rules: Rules | None) -> Rules:
    """The rules with what a split knows of its items: how many training users each has, and who they are."""
    rules = rules or Rules()
    if rules.diversity and rules.vectors is None:
        rules = replace(rules, vectors=training_vectors(in_memory(split.train, "diversity")))
    counts = item_counts(split.train) if rules.min_users else None
    return rules.for_items(split.item_ids, counts)


def _training_rows(split: Split, users: Sequence | np.ndarray) -> np.ndarray:
    ids = split.user_ids
    row_of = {str(user): row for row, user in enumerate(ids.tolist())}
    for user in users:
        if str(user) not in row_of:
            raise InputError(f"{user} is none of the {len(ids):,} training users; their ids look like {ids[0]}.")
    return np.array([row_of[str(user)] for user in users], np.int64)


def _distinct(batch: SparseBatch, n_items: int) -> SparseBatch:
    """The same rows with each item once, with its last value, in ascending order as in a stored matrix."""
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
