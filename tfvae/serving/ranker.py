"""The ranker for new and for training users: from a batch of rows to ids, scores and titles, in the graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import tensorflow as tf

from tfvae.evaluation.scoring import traced
from tfvae.models.base import knows_rating_sd
from tfvae.models.blocks import best_of_model
from tfvae.nn.batches import RowStore, SparseBatch
from tfvae.nn.ranking import EMPTY_RANK
from tfvae.serving.reranking import Listed, Reranker
from tfvae.serving.rules import Rules
from tfvae.system.errors import DivergedError, InputError
from tfvae.system.text_arrays import text_array

if TYPE_CHECKING:
    from tfvae.models.base import Recommender

__all__ = ["Ranker", "diverged_refused", "plain_array", "plain_ids"]

PADS: dict[tf.DType, Any] = {tf.int64: -1, tf.string: ""}


class Ranker:
    """Ranks the items for a batch of rows, in a graph; it stores nothing about users.

    Args:
        model: Any recommender.
        item_ids: The ids of the model's items, [n_items], whole numbers or strings; all different, and none the pad.
        titles: The items' titles, [n_items], to be returned as well; None returns none.
        scale: The lowest and the highest training rating; for models of ratings only.
        rules: What may be recommended; None allows all items that are not in the history.
        with_sd: Whether rankings have the standard deviations of predicted ratings, if the model knows them.

    Attributes:
        pad: The id in empty ranks.
        dtype: Type of the ids in TensorFlow.
        ids: [n_items + 1], the ids followed by the pad.
        scale: The scale as two floats, or None.
        rules: The rules for these items.

    Raises:
        InputError: If there are not `n_items` ids or titles, if an id is not valid, if the scale is missing, not valid,
            or given for a model that predicts no ratings, or if the rules do not suit the items.
    """

    def __init__(
        self,
        model: Recommender,
        item_ids: Sequence | np.ndarray,
        titles: Sequence[str] | np.ndarray | None,
        scale: tuple[float, float] | None,
        rules: Rules | None = None,
        *,
        with_sd: bool = True,
    ):
        _refuse_scale(model, scale)
        self.dtype, ids = plain_ids(item_ids, "item ids")
        for what, given in (("item ids", ids), ("titles", titles)):
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
        self._best = partial(best_of_model, model)
        self._sd = model.rating_sd if with_sd and knows_rating_sd(model) else None
        self._titles = None if titles is None else tf.constant([*map(str, titles), ""])
        self.rules = (rules or Rules()).for_items(ids)
        allowed = self.rules.allowed(ids)
        self._allowed = None if allowed is None else tf.constant(allowed)
        self._again = self.rules.again
        self._rerank = Reranker(self.rules, model.n_items) if self.rules.reranks else None

    def __call__(self, batch: SparseBatch, k: tf.Tensor, allowed: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        """Ranks the items that may be recommended, in a graph; rules that re-rank have no effect here.

        Args:
            batch: B rows, each with no item twice.
            k: Length of the rankings, an int32 scalar.
            allowed: bool [B, n_items] or [1, n_items], whether each item may be recommended, beside the rules; None
                allows all.

        Returns:
            The fields of `Ranking`, without `unknown`. A NaN or infinite score raises `InvalidArgumentError` when the
            graph runs.
        """
        return self.named(self._listed(batch, k, allowed))

    def named(self, ranking: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """A ranking with ids and titles instead of places, and with predicted ratings within the scale.

        Args:
            ranking: `items`, int32 [n, k], places among `item_ids`, −1 in empty ranks; and `scores` and perhaps `sd`.

        Returns:
            The fields of `Ranking`, without `unknown`.
        """
        ranking = self._clipped(ranking)
        named = tf.where(ranking["items"] == EMPTY_RANK, self._n_items, ranking["items"])
        ranking["items"] = tf.gather(self.ids, named)
        if self._titles is not None:
            ranking["titles"] = tf.gather(self._titles, named)
        return ranking

    def places(self, batch: SparseBatch, k: tf.Tensor) -> dict[str, tf.Tensor]:
        """As the call, with `items` as places among `item_ids`, int32 [B, k], −1 in empty ranks, and no titles."""
        return self._clipped(self._listed(batch, k, None))

    def lists(
        self, batch: SparseBatch, k: tf.Tensor, allowed: tf.Tensor | None = None, again: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """What `by_rules` chooses from: places instead of ids and titles, and scores that are not clipped.

        Args:
            batch: B rows, each with no item twice.
            k: Length of the lists, an int32 scalar.
            allowed: bool [B, n_items] or [1, n_items], as when the ranker is called.
            again: bool [B], whether each row's own items are listed as well; None does what the rules say for all.
        """
        return self._listed(batch, k, allowed, again)

    def by_rules(self, listed: Listed, n_rows: int, k: int) -> dict[str, np.ndarray]:
        """Ranks for some rows, by all rules.

        Args:
            listed: A function that calls `lists` for some of the rows, of given numbers, and a given length.
            n_rows: Number of rows.
            k: Length of the rankings.

        Returns:
            `items`, `scores` and perhaps `sd`, which `named` takes.
        """
        return listed(np.arange(n_rows), k) if self._rerank is None else self._rerank(listed, n_rows, k)

    def of_rows(self, store: RowStore, k: int, batch_size: int) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
        """A function that ranks for rows of a store; its graph is traced once, here.

        Args:
            store: The histories.
            k: Length of the rankings.
            batch_size: Rows scored at once.

        Returns:
            A function from row numbers, int64 [n], to `items`, int32 [n, k], places among `item_ids`, −1 in empty
            ranks; and `scores` and `sd` as in `Ranking`.
        """
        signature = tf.TensorSpec([None], tf.int64), tf.TensorSpec([], tf.int32)
        graph = traced(lambda rows, length: self.lists(store.gather(rows), length), *signature)

        def ranked(rows: np.ndarray) -> dict[str, np.ndarray]:
            def listed(numbers: np.ndarray, length: int) -> dict[str, np.ndarray]:
                found = graph(tf.constant(rows[numbers]), tf.constant(length, tf.int32))
                return {name: tensor.numpy() for name, tensor in found.items()}

            clipped = self._clipped(self.by_rules(listed, len(rows), k))
            return {name: tensor.numpy() for name, tensor in clipped.items()}

        def in_batches(rows: np.ndarray) -> dict[str, np.ndarray]:
            starts = range(0, max(len(rows), 1), batch_size)
            found = [ranked(rows[start : start + batch_size]) for start in starts]
            return {name: np.concatenate([batch[name] for batch in found]) for name in found[0]}

        return in_batches

    def _checked(self, scores: tf.Tensor) -> tf.Tensor:
        return tf.debugging.check_numerics(scores, f"scores of {self._name}")

    def _clipped(self, ranking: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """The ranking with predicted ratings within the scale; they are ranked before, since clipping makes ties."""
        found = {name: tf.convert_to_tensor(values) for name, values in ranking.items()}
        if self.scale is not None:
            clipped = tf.clip_by_value(found["scores"], *self.scale)
            found["scores"] = tf.where(found["items"] == EMPTY_RANK, found["scores"], clipped)
        return found

    def _listed(
        self, batch: SparseBatch, k: tf.Tensor, allowed: tf.Tensor | None, again: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        masks = [mask for mask in (self._allowed, allowed) if mask is not None]
        unranked = batch
        if again is not None:
            kept = tf.logical_not(tf.gather(again, batch.segment_ids))
            kept_items, rows = (tf.boolean_mask(part, kept) for part in (batch.items, batch.segment_ids))
            unranked = batch._replace(items=kept_items, segment_ids=rows)
        all_again = again is None and self._again
        found, best, _ = self._best(batch, k, histories=unranked, again=all_again, allowed=masks, check=self._checked)
        empty = found == EMPTY_RANK
        ranking = {"items": found, "scores": best}
        if self._sd is not None:
            sd = self._sd(batch, tf.where(empty, 0, found))
            sd = tf.debugging.check_numerics(sd, f"uncertainty of {self._name}")
            ranking["sd"] = tf.where(empty, np.float32(np.nan), sd)
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
