"""A finished run in memory, with compiled functions for rankings, chosen scores and predicted ratings.

Items are told by their places among the model's items, and ids and titles are put in at the end, so that no text goes
through TensorFlow. Numbers of rows are rounded up to a power of two: TensorFlow prepares some of its products
for each shape it meets, and all of these few shapes are met before the first request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import tensorflow as tf
from scipy.sparse import csr_array

from tfvae.data.row_shards import RowShards
from tfvae.evaluation.scoring import history_store, traced
from tfvae.models.base import HasItemMap, HasItemVectors, knows_rating_sd
from tfvae.nn.batches import SparseBatch, unpad
from tfvae.nn.ranking import EMPTY_RANK
from tfvae.serving.ranker import Ranker, diverged_refused
from tfvae.serving.reasons import CELLS_AT_ONCE, Reason, strongest
from tfvae.serving.reranking import Reranker, Similarity, training_vectors
from tfvae.serving.rules import Rules
from tfvae.serving.run_files import items_of, training_split
from tfvae.system.errors import InputError
from tfvae.training.loop import load_run
from tfvae.training.run_folder import SPLIT_FILE

__all__ = ["Asked", "LoadedRun", "Ranked"]

RERANKERS_KEPT = 32
PAD = -1


@dataclass(frozen=True, eq=False)
class Asked:
    """A person, and what may be recommended to them.

    Attributes:
        places: int32 [m], the items of the history, ascending.
        ratings: float32 [m], their ratings; None for a model that ranks.
        row: The row of a training user, for a model that only scores these.
        k: How many items to return.
        allowed: bool [n_items], which items may be returned; None for all.
        again: Whether items of the history may be returned.
    """

    places: np.ndarray
    ratings: np.ndarray | None = None
    row: int = 0
    k: int = 1
    allowed: np.ndarray | None = None
    again: bool = False


@dataclass(frozen=True, eq=False)
class Ranked:
    """The best items of a person, the best first; there may be fewer than k.

    Attributes:
        places: int32 [m].
        scores: float32 [m]; predicted ratings are within the scale.
        sd: float32 [m], the standard deviation of each predicted rating; None if the model has none.
    """

    places: np.ndarray
    scores: np.ndarray
    sd: np.ndarray | None


class LoadedRun:
    """A finished run that answers questions, from any thread.

    Args:
        folder: The run's folder.

    Attributes:
        model: The model.
        kind: Its name in the registry.
        items: Its items.
        ids: Their ids, as plain values.
        place_of: The place of each item by its id as text.
        titles: Their titles, or None.
        rates: Whether the model predicts ratings.
        row_of: The row of each training user by their id as text; None if the run has no split.
        train: The training users' items, CSR [n_users, n_items], or None likewise.

    Raises:
        InputError: If there is no finished run, a file is missing or damaged, or a model of its training users has no
            split.
    """

    def __init__(self, folder: Path):
        trained = load_run(folder)
        self.model, self.kind = trained.model, trained.settings.name
        self.items = items = items_of(folder)
        self.ids = items.item_ids.tolist()
        self.place_of = {str(item): place for place, item in enumerate(self.ids)}
        self.titles = None if items.titles is None else items.titles.tolist()
        self.rates, self.n_items = self.model.predicts_ratings, self.model.n_items
        self.row_of: dict[str, int] | None = None
        self.train: csr_array | None = None
        if (folder / SPLIT_FILE).is_file():
            split = training_split(folder)
            if not isinstance(split.train, RowShards):  # which are too large to be kept by a service
                self.train = split.train
                self.row_of = {str(user): row for row, user in enumerate(split.user_ids.tolist())}
        elif not self.model.scores_new_users:
            raise InputError(
                f"{folder}: {self.kind} serves its training users only, and the run has no {SPLIT_FILE}, which says "
                "who they are; put it back."
            )
        self._ranker = Ranker(self.model, items.item_ids, None, items.scale if self.rates else None)
        self._folded = [text.casefold() for text in self.titles or ()]
        self._all_allowed = tf.ones([1, self.n_items], tf.bool)
        self._trace()
        self.reranker = lru_cache(RERANKERS_KEPT)(self._reranker)

    @property
    def has_sd(self) -> bool:
        """Whether predicted ratings have a standard deviation."""
        return self.rates and knows_rating_sd(self.model)

    @property
    def has_similar(self) -> bool:
        """Whether the model has something to compare items by."""
        return isinstance(self.model, HasItemMap | HasItemVectors)

    def title(self, place: int) -> str | None:
        """The title of an item; None if it has none."""
        return (self.titles[place] or None) if self.titles else None

    def warm_up(self, rows: int) -> None:
        """Answers made-up questions, so that no first request is slow.

        Args:
            rows: Largest number of questions in a batch.
        """
        ratings = np.full(1, self.items.scale[0], np.float32) if self.rates and self.items.scale else None
        one = Asked(np.zeros(1, np.int32), ratings, k=min(10, self.n_items))
        size = 1
        while size <= _rounded(rows):
            self.rank([one] * size)
            size *= 2
        self.scores(one, np.zeros(1, np.int32))
        if self.rates:
            self.predicted(one, np.zeros(1, np.int32))

    def rank(self, asked: Sequence[Asked]) -> list[Ranked]:
        """Ranks for several people at once.

        Raises:
            DivergedError: If a score is NaN or infinite.
        """
        found = self._lists(asked, max(one.k for one in asked))
        return [self._ranked({name: rows[row] for name, rows in found.items()}, one.k) for row, one in enumerate(asked)]

    def rerank(self, one: Asked, reranker: Reranker) -> Ranked:
        """Ranks for one person by rules that a mask cannot follow.

        Raises:
            DivergedError: If a score is NaN or infinite.
        """
        found = reranker(lambda rows, length: self._lists([one] * len(rows), length), 1, one.k)
        return self._ranked({name: rows[0] for name, rows in found.items()}, one.k)

    def scores(self, one: Asked, places: np.ndarray) -> np.ndarray:
        """The scores of chosen items for one person, float32 [p]; predicted ratings are not clipped."""
        with diverged_refused(self.model.name):
            return self._score(*self._inputs([one], 1), tf.constant(places, tf.int32)).numpy()[0]

    def predicted(self, one: Asked, places: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The predicted ratings of chosen items, not clipped, and their standard deviations, float32 [p] each."""
        with diverged_refused(self.model.name):
            found = self._predict(*self._inputs([one], 1), tf.constant(places, tf.int32))
        return found["scores"].numpy()[0], found["sd"].numpy()[0] if "sd" in found else None

    def reasons(self, one: Asked, places: np.ndarray, n: int) -> list[list[Reason]]:
        """The items of a history that speak for chosen items, as `tfvae.serving.reasons.reasons` gives them."""
        m = len(one.places)
        if not m or not len(places):
            return [[] for _ in places]
        at_once = max(1, CELLS_AT_ONCE // max(self.n_items, m))
        scores = []
        for start in range(0, m + 1, at_once):
            left_out = np.arange(start, min(start + at_once, m + 1))
            padded = np.where(left_out[:, None] == np.arange(m), PAD, one.places).astype(np.int32)
            told = [tf.constant(padded)]
            if one.ratings is not None:
                told.append(tf.constant(np.broadcast_to(one.ratings, padded.shape)))
            with diverged_refused(self.model.name):
                scores.append(self._score(*told, tf.constant(places, tf.int32)).numpy())
        return strongest(self.ids, one.places, places, np.concatenate(scores).astype(np.float64), n)

    def found(self, search: str, limit: int) -> list[int]:
        """The places of items with a text in their id or title; see `tfvae.serving.http.bodies.Found` for the order."""
        if not search:
            return np.argsort(-self.items.n_users, kind="stable")[:limit].tolist()
        folded = search.casefold()
        exact = self.place_of.get(search)
        titled = [place for place, title in enumerate(self._folded) if folded in title]
        named = [place for name, place in self.place_of.items() if folded in name.casefold()]
        several = sorted({*titled, *named} - {exact}, key=lambda place: (-self.items.n_users[place], place))
        return ([] if exact is None else [exact])[:limit] + several[: limit - (exact is not None)]

    def _trace(self) -> None:
        """Compiles the functions, whose inputs are padded histories, or rows of training users."""
        batch_of: Callable[..., SparseBatch] = _batch_of
        if self.model.scores_new_users:
            signature = [tf.TensorSpec([None, None], tf.int32)]
            if self.rates:
                signature.append(tf.TensorSpec([None, None], tf.float32))
        else:
            assert self.train is not None
            signature, batch_of = [tf.TensorSpec([None], tf.int64)], history_store(self.model, self.train).gather

        def rank(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            *told, k, allowed, again = inputs
            return self._ranker.lists(batch_of(*told), k, allowed, again)

        def score(*inputs: tf.Tensor) -> tf.Tensor:
            *told, places = inputs
            scores = tf.cast(self.model.scores(batch_of(*told)), tf.float32)
            return tf.gather(tf.debugging.check_numerics(scores, f"scores of {self.model.name}"), places, axis=1)

        def predict(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            *told, places = inputs
            found = {"scores": score(*inputs)}
            if knows_rating_sd(self.model):
                sd = self.model.rating_sd(batch_of(*told), tf.broadcast_to(places, tf.shape(found["scores"])))
                found["sd"] = tf.debugging.check_numerics(sd, f"uncertainty of {self.model.name}")
            return found

        mask, flags = tf.TensorSpec([None, self.n_items], tf.bool), tf.TensorSpec([None], tf.bool)
        self._rank = traced(rank, *signature, tf.TensorSpec([], tf.int32), mask, flags)
        self._score = traced(score, *signature, tf.TensorSpec([None], tf.int32))
        if self.rates:
            self._predict = traced(predict, *signature, tf.TensorSpec([None], tf.int32))

    def _lists(self, asked: Sequence[Asked], k: int) -> dict[str, np.ndarray]:
        """The k best items of each person by score alone, as `Ranker.lists` gives them."""
        n_rows = _rounded(len(asked))
        allowed, again = self._all_allowed, np.zeros(n_rows, bool)
        if any(one.allowed is not None for one in asked):
            masks = np.ones((n_rows, self.n_items), bool)
            for row, one in enumerate(asked):
                if one.allowed is not None:
                    masks[row] = one.allowed
            allowed = tf.constant(masks)
        again[: len(asked)] = [one.again for one in asked]
        with diverged_refused(self.model.name):
            found = self._rank(*self._inputs(asked, n_rows), tf.constant(k), allowed, tf.constant(again))
        return {name: tensor.numpy()[: len(asked)] for name, tensor in found.items()}

    def _inputs(self, asked: Sequence[Asked], n_rows: int) -> list[tf.Tensor]:
        """What the compiled functions are told of people, with rows of nobody at the end."""
        if not self.model.scores_new_users:
            rows = np.zeros(n_rows, np.int64)
            rows[: len(asked)] = [one.row for one in asked]
            return [tf.constant(rows)]
        longest = max(1, *(len(one.places) for one in asked))
        places = np.full((n_rows, longest), PAD, np.int32)
        for row, one in enumerate(asked):
            places[row, : len(one.places)] = one.places
        if not self.rates:
            return [tf.constant(places)]
        ratings = np.zeros((n_rows, longest), np.float32)
        for row, one in enumerate(asked):
            ratings[row, : len(one.places)] = one.ratings
        return [tf.constant(places), tf.constant(ratings)]

    def _ranked(self, row: dict[str, np.ndarray], k: int) -> Ranked:
        """One person's ranking without empty ranks."""
        filled = np.flatnonzero(row["items"][:k] != EMPTY_RANK)
        scores = row["scores"][filled]
        scores = scores if self._ranker.scale is None else np.clip(scores, *self._ranker.scale)
        return Ranked(row["items"][filled], scores, row["sd"][filled] if "sd" in row else None)

    def _reranker(self, at_most: int | None, categories: str | None, diversity: float) -> Reranker:
        """The re-ranker of some rules; `self.reranker` keeps the latest ones.

        Raises:
            InputError: If the rules do not suit each other, the items have no such attribute, or the run has no split
                to tell by which users have them how alike items are.
        """
        labels = None
        if categories is not None:
            attributes = self.items.attributes
            if categories not in attributes:
                known = f"it has {', '.join(attributes)}" if attributes else "it was trained without an items file"
                raise InputError(f"categories: the items of the model have no attribute {categories!r}; {known}.")
            labels = [attributes[categories].values(item) for item in range(self.n_items)]
        rules = Rules(at_most=at_most, categories=labels, diversity=diversity)
        return Reranker(rules, self.n_items, self._similarity if diversity else None)

    @cached_property
    def _similarity(self) -> Similarity:
        if self.train is None:
            raise InputError(
                f"diversity needs the training data in memory; the run has no {SPLIT_FILE}, or its rows are in shards."
            )
        return Similarity(training_vectors(self.train))


def _batch_of(places: tf.Tensor, ratings: tf.Tensor | None = None) -> SparseBatch:
    return unpad(places, values=ratings)


def _rounded(rows: int) -> int:
    """The next power of two."""
    return 1 << (rows - 1).bit_length()
