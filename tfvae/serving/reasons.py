"""Reasons for a recommendation: the items of a history without which it would have a lower score.

Each item of the history is left out in turn, and the model is asked again. That is what the model itself would answer,
for any model, where similar items or large weights would only be a guess at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tensorflow as tf

from tfvae.evaluation.scoring import traced
from tfvae.nn.batches import SparseBatch
from tfvae.serving.ranker import diverged_refused, plain_ids
from tfvae.system.errors import InputError

if TYPE_CHECKING:
    from tfvae.models.base import Recommender

__all__ = ["CELLS_AT_ONCE", "Reason", "reasons", "strongest"]

CELLS_AT_ONCE = 2**24
"""How many scores, or entries of histories, a batch has at most; 64 MiB."""
ROUNDING = 2.0**-20
"""An effect that is a smaller share of the score may be that of float32's rounding alone, of 24 bits."""


class Reason(NamedTuple):
    """An item of a history that raises the score of a recommended item.

    Attributes:
        item: The id of the item of the history.
        effect: By how much the score, or the predicted rating, falls if that item is left out; positive.
    """

    item: int | str
    effect: float


def reasons(
    model: Recommender,
    item_ids: Sequence | np.ndarray,
    history: Sequence,
    recommended: Sequence,
    n: int = 3,
    ratings: Sequence[float] | None = None,
) -> list[list[Reason]]:
    """The items of a history that raise the scores of recommended items most.

    The effect of an item is the score with the whole history less the score without that item. Effects do not add up,
    since two items may make each other needless.

    Example:
        >>> import numpy as np, tfvae
        >>> from scipy.sparse import csr_array
        >>> model = tfvae.model_class("ease")(4, regularization=1.0)
        >>> model.fit_matrix(csr_array([[1, 1, 0, 0]] * 3 + [[0, 0, 1, 1]] * 3), log=lambda line: None)
        >>> foods = ["tea", "milk", "rye", "oil"]
        >>> [reason.item for reason in tfvae.reasons(model, foods, ["tea", "rye"], ["milk"])[0]]
        ['tea']

    Args:
        model: Any recommender that scores users on whom it was not trained.
        item_ids: The ids of the model's items, [n_items], such as `split.item_ids`.
        history: The ids of the items that the person has. Unknown ids are ignored; of an id that comes twice the last
            rating counts.
        recommended: Ids of the items whose scores are to be explained, usually of a ranking; all are items of the
            model.
        n: How many reasons to give for each, at most.
        ratings: For a model of ratings, a rating for each entry of the history.

    Returns:
        For each recommended item its reasons, the strongest first. An item that lowers the score is none, nor is one
        that changes it by less than rounding would, nor the recommended item itself.

    Raises:
        DivergedError: If a score is NaN or infinite.
        InputError: If the model only scores its training users, `n` is less than 1, there are not `n_items` ids, a
            recommended item is not one of them, or ratings are missing, too few, too many, or given to a model that
            ranks.
    """
    if not model.scores_new_users:
        raise InputError(
            f"{model.name} serves its training users by weights of their own, which no item of a history stands for; "
            "reasons need a model that answers for new histories."
        )
    if n < 1:
        raise InputError(f"n is {n}; expected at least 1.")
    ids = plain_ids(item_ids, "item ids")[1]
    if len(ids) != model.n_items:
        raise InputError(f"{model.name} has {model.n_items} items, but {len(ids)} item ids were given.")
    place_of = {item: place for place, item in enumerate(ids)}
    told = _told(model, place_of, history, ratings)
    if unknown := [item for item in recommended if item not in place_of]:
        raise InputError(f"{unknown[0]!r} is no item of {model.name}, so nothing raises its score.")
    wanted = np.array([place_of[item] for item in recommended], np.int32)
    items = np.fromiter(sorted(told), np.int32, len(told))
    values = np.array([told[item] for item in items.tolist()], np.float32) if model.predicts_ratings else None
    if not len(items) or not len(wanted):
        return [[] for _ in wanted]
    with diverged_refused(model.name):
        scores = _scores_without_each(model, items, values, wanted)
    return strongest(ids, items, wanted, scores, n)


def strongest(ids: Sequence, items: np.ndarray, wanted: np.ndarray, scores: np.ndarray, n: int) -> list[list[Reason]]:
    """The reasons that follow from the scores without each item of a history.

    Args:
        ids: The ids of all items.
        items: int [m], the places of the items of the history, ascending.
        wanted: int [p], the places of the recommended items.
        scores: float64 [m + 1, p], their scores without each item of the history; the last row is with all of them.
        n: How many reasons to give for each, at most.

    Returns:
        What `reasons` returns.
    """
    whole = scores[-1]
    effects = whole - scores[:-1]
    effects[np.abs(effects) <= ROUNDING * np.abs(whole)] = 0
    effects[items[:, None] == wanted] = 0
    best = np.argsort(-effects, axis=0, kind="stable")[:n]
    return [
        [Reason(ids[items[row]], float(effects[row, column])) for row in best[:, column] if effects[row, column] > 0]
        for column in range(len(wanted))
    ]


def _told(
    model: Recommender, place_of: dict, history: Sequence, ratings: Sequence[float] | None
) -> dict[int, float | None]:
    """The rating of each known item of the history, by its place; None for a model that ranks."""
    if model.predicts_ratings != (ratings is not None):
        raise InputError(
            f"{model.name} predicts ratings from ratings; give them too, as in ratings=[5, 3.5]."
            if model.predicts_ratings
            else f"{model.name} ranks by what is in a history, not by ratings; leave the ratings out."
        )
    given: Sequence[float | None] = [None] * len(history) if ratings is None else ratings
    if len(given) != len(history):
        raise InputError(f"expected {len(history)} ratings, one for each item of the history, found {len(given)}.")
    plain = np.asarray(history).tolist() if isinstance(history, np.ndarray) else history
    return {place_of[item]: rating for item, rating in zip(plain, given, strict=True) if item in place_of}


def _scores_without_each(
    model: Recommender, items: np.ndarray, values: np.ndarray | None, wanted: np.ndarray
) -> np.ndarray:
    """The scores of some items for a history without each of its items, and for the whole one.

    Args:
        model: The model.
        items: int32 [m], the items of the history, ascending.
        values: float32 [m], their ratings; None for a model that ranks.
        wanted: int32 [p], the items whose scores are asked for.

    Returns:
        float64 [m + 1, p]; the last row is that of the whole history.
    """
    rates = values is not None

    def score(kept: tf.Tensor) -> tf.Tensor:
        places = tf.where(kept)
        batch = SparseBatch(
            items=tf.gather(tf.constant(items), places[:, 1]),
            segment_ids=tf.cast(places[:, 0], tf.int32),
            lengths=tf.reduce_sum(tf.cast(kept, tf.float32), axis=1),
            values=tf.gather(tf.constant(values), places[:, 1]) if rates else None,
        )
        scores = tf.debugging.check_numerics(tf.cast(model.scores(batch), tf.float32), f"scores of {model.name}")
        return tf.gather(scores, tf.constant(wanted), axis=1)

    graph = traced(score, tf.TensorSpec([None, len(items)], tf.bool))
    at_once = max(1, CELLS_AT_ONCE // max(model.n_items, len(items)))
    found = []
    for start in range(0, len(items) + 1, at_once):
        left_out = np.arange(start, min(start + at_once, len(items) + 1))
        found.append(graph(tf.constant(left_out[:, None] != np.arange(len(items)))).numpy())
    return np.concatenate(found).astype(np.float64)
