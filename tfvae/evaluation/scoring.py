"""From histories to scores in compiled batches: the one place that calls a model for many users.

One compiled function takes a batch of user row numbers, gathers the rows, scores the items, and returns only what is
needed: the best unseen items, or the scores of chosen pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from scipy.sparse import csr_array

from tfvae.models.base import HasRatingSd, Recommender, ScoresPairs
from tfvae.models.blocks import best_of_model
from tfvae.nn.batches import RowStore, as_matrix
from tfvae.system.errors import DivergedError, InputError
from tfvae.system.memory import keep_freed_buffers

__all__ = ["history_store", "moments_at", "pair_scorer", "ranker", "scores_at", "top_k", "traced"]

TopK = tuple[np.ndarray, np.ndarray]


def top_k(
    model: Recommender,
    histories: Any,
    k: int = 100,
    batch_size: int = 500,
    users: Sequence[int] | np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The best unseen items of each user; equal scores are ranked by item number.

    Args:
        model: The model.
        histories: The items that each user has seen, a SciPy sparse matrix or a dense array [n, n_items]; none of these
            items is returned. For a model that only scores its training users, this must be the training matrix.
        k: Length of the rankings.
        batch_size: Users scored at once.
        users: Row numbers of the users to rank for, in any order; None takes all n users.

    Returns:
        Items, int32 [m, k], and their scores, float32 [m, k], with one row for each of the m `users`. If a user has
        fewer than `k` unseen items, the last ranks are empty: they have item −1 and score −∞.

    Raises:
        DivergedError: If a score is NaN or infinite.
        InputError: If the histories have impossible values or other numbers of items or users than the model, or a
            user is not a row of them.
    """
    histories = as_matrix(histories, model.n_items, ratings=model.predicts_ratings)
    return ranker(model, histories, k, batch_size, users)()


def scores_at(
    model: Recommender, histories: csr_array, users: np.ndarray, items: np.ndarray, batch_size: int = 500
) -> np.ndarray:
    """The scores of chosen (user, item) pairs, seen items included.

    Args:
        model: The model.
        histories: The input of each user, sparse [n, n_items].
        users: Row of each pair, int [p], in any order.
        items: Item of each pair, int [p].
        batch_size: Users scored at once.

    Returns:
        Scores, float32 [p], in the order of the pairs.

    Raises:
        DivergedError: If a score is NaN or infinite.
        InputError: If a pair lies outside the histories, or these have other numbers of items or users than the model.
    """
    return pair_scorer(model, histories, users, items, batch_size)()


def moments_at(
    model: HasRatingSd, histories: csr_array, users: np.ndarray, items: np.ndarray, batch_size: int = 200
) -> tuple[np.ndarray, np.ndarray]:
    """The predicted ratings of chosen (user, item) pairs, and the standard deviations of these.

    All items of a user are predicted, [batch_size, n_items] at once, for those users only who have a pair.

    Args:
        model: A model that knows the standard deviations of its ratings (`knows_rating_sd`).
        histories: The known ratings of each user, sparse [n, n_items].
        users: Row of each pair, int [p], in any order.
        items: Item of each pair, int [p].
        batch_size: Users predicted at once.

    Returns:
        Predicted ratings, not clipped to the scale, and standard deviations, float32 [p] each, in units of the ratings
        and in the order of the pairs.

    Raises:
        DivergedError: If one of these is NaN or infinite.
        InputError: If a pair lies outside the histories, or these have another number of items than the model.
    """
    keep_freed_buffers()
    users, items = _pairs_within(histories, users, items)
    _refuse_other_items(model, histories)
    store = RowStore(histories, with_values=True)

    def pick(batch: tf.Tensor, pairs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        rows = store.gather(batch)
        return tf.gather_nd(model.scores(rows), pairs), tf.gather_nd(model.rating_sd(rows), pairs)

    pick = traced(pick, tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, 2], tf.int64))
    asked, numbers = np.unique(users, return_inverse=True)
    moments = np.empty((2, len(users)), dtype=np.float32)
    for batch, chosen, pairs in _batches_of_pairs(numbers, items, len(asked), batch_size):
        moments[:, chosen] = pick(tf.constant(asked[batch]), tf.constant(pairs))
        _refuse_diverged(
            model, asked[batch], _finite_rows(moments[:, chosen].sum(axis=0, dtype=np.float64), pairs, len(batch))
        )
    return moments[0], moments[1]


def ranker(
    model: Recommender,
    histories: csr_array,
    k: int,
    batch_size: int,
    users: Sequence[int] | np.ndarray | None = None,
) -> Callable[[], TopK]:
    """A function that ranks as `top_k` does, and whose graph is traced once, here."""
    keep_freed_buffers()
    chosen = np.arange(histories.shape[0]) if users is None else np.asarray(users, np.int64)
    _refuse_outside(chosen, histories.shape[0], "user")
    store = history_store(model, histories)

    def rank(batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return best_of_model(model, store.gather(batch), k)

    rank = traced(rank, tf.TensorSpec([None], tf.int64))

    def all_chosen() -> TopK:
        items = np.empty((len(chosen), k), dtype=np.int32)
        scores = np.empty((len(chosen), k), dtype=np.float32)
        for batch in _batches(len(chosen), batch_size):
            items[batch], scores[batch], finite = rank(tf.constant(chosen[batch]))
            _refuse_diverged(model, chosen[batch], finite.numpy())
        return items, scores

    return all_chosen


def pair_scorer(
    model: Recommender, histories: csr_array, users: np.ndarray, items: np.ndarray, batch_size: int
) -> Callable[[], np.ndarray]:
    """A function that scores the pairs as `scores_at` does, and whose graph is traced once, here."""
    keep_freed_buffers()
    users, items = _pairs_within(histories, users, items)
    store = history_store(model, histories)

    def pick(batch: tf.Tensor, pairs: tf.Tensor) -> tf.Tensor:
        rows = store.gather(batch)
        if isinstance(model, ScoresPairs):
            return model.scores_at(rows, pairs)
        return tf.gather_nd(model.scores(rows), pairs)

    pick = traced(pick, tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, 2], tf.int64))
    batches = list(_batches_of_pairs(users, items, histories.shape[0], batch_size))

    def all_pairs() -> np.ndarray:
        result = np.empty(len(users), dtype=np.float32)
        for batch, chosen, pairs in batches:
            result[chosen] = pick(tf.constant(batch), tf.constant(pairs))
            _refuse_diverged(model, batch, _finite_rows(result[chosen], pairs, len(batch)))
        return result

    return all_pairs


def traced(function: Callable, *signature: tf.TensorSpec) -> Callable:
    """The function as one graph, traced now; a `tf.function` would warn if a process has many models."""
    return tf.function(function, signature, autograph=False).get_concrete_function()


def history_store(model: Recommender, histories: csr_array) -> RowStore:
    """The histories in the form that a model needs, to be gathered in a graph.

    Raises:
        InputError: If the histories have another number of items than the model, or the model only scores its training
            users and the histories have another number of users.
    """
    _refuse_other_items(model, histories)
    if not model.scores_new_users and histories.shape[0] != model.n_users:
        raise InputError(
            f"{type(model).__name__} was made for {model.n_users} users, the histories have {histories.shape[0]} rows; "
            "give it its training matrix, and say by users= whom to rank for."
        )
    return RowStore(histories, with_values=model.predicts_ratings)


def _batches(n_users: int, batch_size: int) -> Iterator[np.ndarray]:
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; expected at least 1.")
    users = np.arange(n_users, dtype=np.int64)
    return (users[start : start + batch_size] for start in range(0, n_users, batch_size))


def _batches_of_pairs(
    users: np.ndarray, items: np.ndarray, n_users: int, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each batch of users: their numbers, which pairs are theirs, and these as places in it and items [n, 2]."""
    order = np.argsort(users, kind="stable")
    for batch in _batches(n_users, batch_size):
        first, last = np.searchsorted(users, [batch[0], batch[-1] + 1], sorter=order)
        chosen = order[first:last]
        yield batch, chosen, np.column_stack([users[chosen] - batch[0], items[chosen]])


def _finite_rows(values: np.ndarray, pairs: np.ndarray, n_rows: int) -> np.ndarray:
    """Whether all values of a batch's users are finite, bool [n_rows]; those of users without a pair are."""
    return ~np.isin(np.arange(n_rows), pairs[~np.isfinite(values), 0])


def _pairs_within(histories: csr_array, users: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs as int64; raises InputError if one lies outside the histories."""
    users, items = np.asarray(users, np.int64), np.asarray(items, np.int64)
    _refuse_outside(users, histories.shape[0], "user")
    _refuse_outside(items, histories.shape[1], "item")
    return users, items


def _refuse_other_items(model: Recommender | HasRatingSd, histories: csr_array) -> None:
    if histories.shape[1] != model.n_items:
        raise InputError(
            f"{model.name} scores {model.n_items} items, but the histories have {histories.shape[1]} columns; "
            "use the split that the model was trained on."
        )


def _refuse_outside(numbers: np.ndarray, limit: int, kind: str) -> None:
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < limit:
        raise InputError(f"expected {kind} numbers from 0 to {limit - 1}, found {numbers.min()} to {numbers.max()}.")


def _refuse_diverged(model: Recommender | HasRatingSd, batch: np.ndarray, finite: np.ndarray) -> None:
    # TensorFlow's top_k ranks NaN first, so that a diverged model could look perfect.
    diverged = batch[~finite]
    if len(diverged):
        raise DivergedError(
            f"{model.name} gave NaN or infinite scores for {len(diverged)} of {len(batch)} users (first: row "
            f"{diverged[0]}), so they have no ranking; train again with a lower learning rate."
        )
