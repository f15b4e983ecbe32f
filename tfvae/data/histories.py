"""The histories of many people, for whom a trained model ranks: from a file of events, or the training rows."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.sparse import csr_array

from tfvae.data import events
from tfvae.data.column_names import guessed_events
from tfvae.data.event_files import local_file
from tfvae.data.interactions import Interactions, read_events
from tfvae.data.items import Items
from tfvae.data.row_shards import in_memory
from tfvae.data.splits import Split
from tfvae.system import files
from tfvae.system.errors import InputError

__all__ = ["Histories", "id_array"]


@dataclass(frozen=True, eq=False)
class Histories:
    """What each of n people has, by the columns of a model.

    Attributes:
        user_ids: Arrow array [n], in the type that the ids have in a Parquet file; of any other origin int64 or text.
        matrix: CSR [n, n_items] with sorted indices, float32: ratings, or ones for a model that ranks.
        scale: The lowest and the highest training rating, between which the ratings are; None if there are none.
        of_training_users: Whether the rows are those on which the model was trained.
        n_events: Number of events that were read.
        n_unknown: How many of them are with items that the model does not know; these are left out.
        unknown_items: The ids of these items, each once, in the order of the file: int64 or text.
    """

    user_ids: pa.Array
    matrix: csr_array
    scale: tuple[float, float] | None
    of_training_users: bool
    n_events: int
    n_unknown: int
    unknown_items: np.ndarray

    @property
    def n_users(self) -> int:
        """Number of people."""
        return len(self.user_ids)

    @property
    def n_empty(self) -> int:
        """Number of people who have no item that the model knows."""
        return int((np.diff(self.matrix.indptr) == 0).sum())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the ids and the matrix, in hexadecimal."""
        ids = [str(self.user_ids.type), self.user_ids.to_pylist()]
        parts = (self.matrix.indptr.astype(np.int64), self.matrix.indices.astype(np.int32), self.matrix.data)
        return files.digest(self.of_training_users, ids, *parts)

    @classmethod
    def of_training(cls, split: Split) -> Self:
        """The training rows of a split; for them every model can rank that was trained on it.

        Raises:
            InputError: If the rows are in shards; give their file to `from_file`, a part at a time.
        """
        train = in_memory(split.train, "ranking for all training users")
        return cls(id_array(split.user_ids), train, split.scale, True, train.nnz, 0, split.item_ids[:0])

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike,
        items: Items | Split,
        user: str | None = None,
        item: str | None = None,
        rating: str | None = None,
        *,
        min_rating: float | None = None,
        delimiter: str | None = None,
    ) -> Self:
        """Reads a file of events, in any order: CSV, JSON lines or Parquet, recognised by its content.

        People are in ascending order of their ids. All events of a person count, wherever they are in the file; of a
        person and an item that come together more than once the last event counts. Items are compared as text, so
        that 7 and "7" are the same item.

        Args:
            path: The file, or `-` for standard input; see `Interactions.from_file`.
            items: The items of the model, or the split on which it was trained.
            user: Name of the column of user ids; by default it is recognised, see `tfvae.data.column_names`.
            item: Name of the column of item ids; likewise.
            rating: Name of the column of ratings, which a model of ratings needs; for a model that ranks, only with
                `min_rating`. Where it is needed, it is recognised by default.
            min_rating: For a model that ranks, the lowest rating of an event that counts; whoever has no such event has
                an empty history.
            delimiter: For CSV, the character between fields; by default it is found from the first line.

        Raises:
            InputError: If the file is missing, empty or malformed, a column is missing, an id is refused by the rule of
                `tfvae.data.ids`, none of the items is known, ratings are needed and not named or named without use, or
                a rating is off the scale of the training ratings. The message names the file, and the line if it can.
        """
        scale = items.scale
        _refuse_useless(scale is not None, rating, min_rating)
        given = {"user": user, "item": item, "rating": rating}
        with local_file(Path(path)) as file:
            named = {purpose: name for purpose, name in given.items() if name is not None}
            needs_ratings = scale is not None or min_rating is not None
            wanted = {"user", "item"} | ({"rating"} if needs_ratings else set())
            ratings_for = "a model of ratings needs people's ratings"
            if min_rating is not None:
                ratings_for = f"min_rating={min_rating:g} needs ratings"
            named = guessed_events(file, named, wanted, delimiter, ratings_for=ratings_for)
            item, rating = named["item"], named.get("rating")
            found = read_events(file, named, delimiter)
            values = None
            if rating is not None:
                values = events.ratings(found.columns["rating"], file, found.place)
                if scale is not None:
                    _refuse_off_scale(values, scale, file, found.place)
            seen = Interactions.from_events(
                found.columns["user"], found.columns["item"], values, source=file, place=found.place
            )
            place_of = {str(known): place for place, known in enumerate(items.item_ids.tolist())}
            places = np.array([place_of.get(str(name), -1) for name in seen.item_ids.tolist()], np.int64)
            if (places < 0).all():
                raise InputError(
                    f"{file}: none of its {seen.n_items:,} items, such as {seen.item_ids[0]}, is one of the training "
                    f"data, whose ids look like {items.item_ids[0]}; is {item!r} the column of item ids?"
                )
        columns = places[seen.items]
        counts = np.ones(len(columns), bool) if min_rating is None else seen.values >= min_rating
        kept, unknown = counts & (columns >= 0), counts & (columns < 0)
        data = seen.values[kept] if scale is not None else np.ones(kept.sum(), np.float32)
        matrix = csr_array((data, (seen.users[kept], columns[kept])), shape=(seen.n_users, len(items.item_ids)))
        matrix.sort_indices()
        return cls(
            user_ids=_in_type(id_array(seen.user_ids), found.types.get("user")),
            matrix=matrix,
            scale=scale,
            of_training_users=False,
            n_events=len(columns),
            n_unknown=int(unknown.sum()),
            unknown_items=seen.item_ids[pd.unique(seen.items[unknown])],
        )


def id_array(ids: np.ndarray) -> pa.Array:
    """Ids as an Arrow array: int64 or text."""
    return pa.array(ids.tolist(), pa.int64() if ids.dtype.kind in "iu" else pa.string())


def _in_type(ids: pa.Array, kind: pa.DataType | None) -> pa.Array:
    """The ids in the type of their column in a typed file."""
    if kind is None:
        return ids
    # A dictionary and a view are ways to store a column; what its values are is plain text or bytes.
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        kind = pa.string() if pa.types.is_string_view(kind) else pa.binary()
    try:
        return ids.cast(kind)
    except pa.ArrowNotImplementedError:  # bytes of a fixed width; their text is the same
        return ids


def _refuse_useless(rates: bool, rating: str | None, min_rating: float | None) -> None:
    """Refuses arguments that would change nothing."""
    if rates and min_rating is not None:
        raise InputError("a model of ratings takes low ratings too, so min_rating would change nothing; leave it out.")
    if not rates and min_rating is None and rating is not None:
        raise InputError(
            f"this model ranks by what is in a history, not by ratings, so the column {rating!r} would change nothing; "
            "leave it out, or say which ratings count (--min-rating)."
        )


def _refuse_off_scale(
    ratings: np.ndarray, scale: tuple[float, float], source: object, place: Callable[[int], str]
) -> None:
    low, high = scale
    off = (ratings < np.float32(low)) | (ratings > np.float32(high))
    if off.any():
        first = int(off.argmax())
        raise InputError(
            f"{source}, {place(first)}: expected ratings from {low:g} to {high:g}, as in the training data, found "
            f"{ratings[first]:g} ({off.sum():,} such in all)."
        )
