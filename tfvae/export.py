"""Recommendations by the items' own ids: in this process, or as a SavedModel for others.

A SavedModel holds a finished computation, here weights, item ids and the graph from history to ranking. It is
served by TensorFlow alone:

    recommend = tf.saved_model.load(folder).signatures["recommend"]
    recommend(history=tf.constant([[628, 1223, -1]], tf.int64), k=tf.constant(10))

The signatures' outputs are TensorFlow's, so strings come as UTF-8 bytes there, and as `str` in a `Ranking`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf

from tfvae.data.rows import UserRows, unpad
from tfvae.errors import DivergedError, InputError
from tfvae.files import replacing
from tfvae.ranking import EMPTY_RANK, best_unseen

if TYPE_CHECKING:
    from tfvae.models.base import Recommender

__all__ = ["Ranking", "Recommendations", "export", "recommend"]

DEFAULT_K = 100
PADS = {tf.int64: -1, tf.string: ""}
KINDS = {tf.int64: "whole numbers", tf.string: "strings"}


class Ranking(NamedTuple):
    """The best unseen items of n users, best first.

    Where a user has fewer than k unseen items the last ranks are empty: the pad as id (−1 or ""), score −∞
    and title "".

    Attributes:
        items: Item ids, int64 or str [n, k].
        scores: float32 [n, k].
        unknown: int32 [n], entries of each history that name no item of the model; they were ignored.
        titles: str [n, k]; None where the titles are not known.
    """

    items: np.ndarray
    scores: np.ndarray
    unknown: np.ndarray
    titles: np.ndarray | None = None


class Recommendations(tf.Module):
    """A trained model together with the ids of its items.

    Items of the history are never recommended. An id counts once however often the history has it, unknown
    ids are ignored and counted, and an empty history gets what the model offers to a user it knows nothing
    of. Equal scores are ranked by the item's place in `item_ids`.

    Args:
        model: Any recommender.
        item_ids: Its columns' ids, [n_items], whole numbers or strings; no two equal, none of them the pad.
        titles: Their titles, [n_items], to be returned as well.

    Raises:
        InputError: If the ids or titles are not `n_items` many, the ids are not what they should be, or the model
            knows only the users it was trained on.
    """

    def __init__(self, model: Recommender, item_ids: Sequence, titles: Sequence[str] | None = None):
        super().__init__(name="recommendations")
        if not model.serves_strangers:
            raise InputError(
                f"{type(model).__name__} knows only the users it was trained on, not their histories, so that it has "
                "nothing to recommend for one; take a model that encodes histories, such as mult-dae."
            )
        dtype, ids = _ids(item_ids, "item ids")
        for given, what in ((ids, "item ids"), (titles, "titles")):
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
        # The model itself is no attribute: the SavedModel would then hold its variables a second time.
        self._scores = model.scores
        self._ids = tf.constant([*ids, self.pad], dtype)
        self._titles = None if titles is None else tf.constant([*map(str, titles), ""])
        numbers = tf.range(model.n_items)
        self._numbers = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(self._ids[:-1], numbers), default_value=-1
        )
        histories = tf.TensorSpec([None, None], dtype, "history")
        self.recommend = tf.function(self._recommend, [histories, tf.TensorSpec([], tf.int32, "k")])
        self.recommend_default = tf.function(self._recommend_default, [histories])
        self._weights = list(self.recommend.get_concrete_function().graph.variables)

    def __call__(self, histories: Sequence[Sequence], k: int = DEFAULT_K) -> Ranking:
        """Recommends to n users.

        Args:
            histories: The item ids of each user, of any length and order.
            k: Length of the rankings.

        Returns:
            The rankings.

        Raises:
            DivergedError: If a score is NaN or infinite.
            InputError: If `k` is less than 1, or ids are of another type than the model's.
        """
        if k < 1:
            raise InputError(f"k is {k}; expected at least 1.")
        try:
            found = self.recommend(self._padded(histories), tf.constant(k, tf.int32))
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

    def _recommend(self, history: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
        """In the graph: padded ids [B, L] and k to the fields of `Ranking`."""
        numbers = self._numbers.lookup(history)
        unknown = tf.not_equal(history, self.pad) & tf.less(numbers, 0)
        rows = _distinct(unpad(numbers), self._n_items)
        scores = tf.cast(self._scores(rows), tf.float32)
        scores = tf.debugging.check_numerics(scores, f"scores of {self._name}")
        found, best = best_unseen(scores, rows, k)
        places = tf.where(found == EMPTY_RANK, self._n_items, found)
        ranking = {
            "items": tf.gather(self._ids, places),
            "scores": best,
            "unknown": tf.reduce_sum(tf.cast(unknown, tf.int32), axis=1),
        }
        return ranking if self._titles is None else ranking | {"titles": tf.gather(self._titles, places)}

    def _recommend_default(self, history: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._recommend(history, tf.constant(DEFAULT_K))


def recommend(
    model: Recommender,
    item_ids: Sequence,
    histories: Sequence[Sequence],
    k: int = DEFAULT_K,
    titles: Sequence[str] | None = None,
) -> Ranking:
    """Recommends to n users in this process; for more than one call, keep a `Recommendations`.

    Args:
        model: Any recommender.
        item_ids: Its columns' ids, [n_items], such as `split.item_ids`.
        histories: The item ids of each user.
        k: Length of the rankings.
        titles: The items' titles, [n_items].

    Returns:
        The rankings.

    Raises:
        DivergedError: If a score is NaN or infinite.
        InputError: As for `Recommendations`.
    """
    return Recommendations(model, item_ids, titles)(histories, k)


def export(model: Recommender, item_ids: Sequence, folder: Path | str, titles: Sequence[str] | None = None) -> None:
    """Writes a SavedModel that recommends by external ids and needs TensorFlow alone.

    Its signatures, both with the semantics of `Recommendations`:

    - `recommend` takes `history` [B, L], ids padded anywhere by −1 (int64) or "" (string), and `k`, an int32
      scalar. It returns `items`, `scores` [B, k], `unknown` [B] and, when titles are given, `titles` [B, k].
    - `serving_default` takes `history` alone, since servers that batch requests want the users as first axis
      of every input; k is 100.

    NaN scores end in an `InvalidArgumentError`, and so does a negative `k`.

    Args:
        model: Any recommender.
        item_ids: Its columns' ids, [n_items], such as `split.item_ids`.
        folder: Written in one step; an earlier export there is replaced.
        titles: The items' titles, [n_items].

    Raises:
        InputError: As for `Recommendations`, and if something else than an export lies there.
    """
    folder = Path(folder)
    if folder.exists() and not _replaceable(folder):
        raise InputError(f"{folder} exists and is not an exported model; choose another folder, or remove it.")
    serving = Recommendations(model, item_ids, titles)
    signatures = {"recommend": serving.recommend, "serving_default": serving.recommend_default}
    with replacing(folder) as draft:
        tf.saved_model.save(serving, draft, signatures)


def _replaceable(folder: Path) -> bool:
    return (folder / "saved_model.pb").exists() or (folder.is_dir() and not any(folder.iterdir()))


def _ids(given: Sequence, what: str) -> tuple[tf.DType, list[int] | list[str]]:
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


def _distinct(rows: UserRows, n_items: int) -> UserRows:
    """The same rows with each item once, ascending, as in a stored matrix."""
    cells = tf.cast(rows.row_ids, tf.int64) * n_items + tf.cast(rows.items, tf.int64)
    cells = tf.sort(tf.unique(cells)[0])
    row_ids = tf.cast(cells // n_items, tf.int32)
    ones = tf.ones_like(cells, tf.float32)
    return UserRows(
        items=tf.cast(cells % n_items, tf.int32),
        row_ids=row_ids,
        counts=tf.math.unsorted_segment_sum(ones, row_ids, tf.shape(rows.counts)[0]),
    )


def _array(tensor: tf.Tensor) -> np.ndarray:
    if tensor.dtype != tf.string:
        return tensor.numpy()
    return np.char.decode(tensor.numpy().astype(bytes), "utf-8")
