"""The items that a trained model takes for the nearest to one of its items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from tfvae.models.base import HasItemMap, HasItemVectors
from tfvae.system.errors import DivergedError, InputError

if TYPE_CHECKING:
    from tfvae.models.base import Recommender

__all__ = ["SimilarItems", "similar_items"]

Measure = Literal["cosine", "weight"]


class SimilarItems(NamedTuple):
    """The items nearest to one item, the nearest first; there are fewer than k if the model knows fewer.

    Attributes:
        items: Item ids, int64 or text [m].
        similarities: float32 [m], what `measure` says.
        measure: "cosine", that of the items' vectors, from -1 to 1; or "weight", what having the item adds to another's
            score in a model whose scores are linear in the history.
        titles: Text [m]; None if the titles are not known.
    """

    items: np.ndarray
    similarities: np.ndarray
    measure: Measure
    titles: np.ndarray | None = None


def similar_items(
    model: Recommender,
    item_ids: Sequence | np.ndarray,
    item: int | str,
    k: int = 10,
    titles: Sequence[str] | np.ndarray | None = None,
    candidates: Sequence[bool] | np.ndarray | None = None,
) -> SimilarItems:
    """The items that a model takes for the nearest to one of its items.

    A model with vectors of items (`tfvae.models.base.HasItemVectors`) compares them by their cosine. A linear item-item
    map (`HasItemMap`) answers with the item's row, whose weights say how much the item speaks for each other one. The
    item itself is never among them, nor is one of which the model knows nothing: with a vector of zeros, or a weight of
    0. Equal ones are in the order of `item_ids`.

    Example:
        >>> import tfvae
        >>> from scipy.sparse import csr_array
        >>> from tfvae.models.rp3beta import RP3Beta
        >>> model = RP3Beta(4)
        >>> model.fit_matrix(csr_array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1]]), log=lambda line: None)
        >>> tfvae.similar_items(model, ["tea", "rye", "oil", "ink"], "tea").items.tolist()
        ['rye', 'oil']

    Args:
        model: A trained recommender.
        item_ids: The ids of its items, [n_items], such as `split.item_ids`.
        item: The id of one of them; numbers may be given as text.
        k: The largest number of items to return.
        titles: The items' titles, [n_items], to be returned as well; None returns none.
        candidates: bool [n_items], whether each item may be returned; None allows all.

    Returns:
        The items with their similarities.

    Raises:
        InputError: If the model has neither vectors of its items nor a map, or knows nothing of the item; if the item
            is none of the ids; if `k` is less than 1; or if there are not `n_items` ids, titles or candidates.
        DivergedError: If a vector or a weight is not finite.
    """
    ids = np.asarray(item_ids)
    for name, array in (("ids", ids), ("titles", titles), ("candidates", candidates)):
        if array is not None and np.shape(array) != (model.n_items,):
            raise InputError(f"expected {name} of {model.n_items:,} items, found shape {list(np.shape(array))}.")
    if k < 1:
        raise InputError(f"k is {k}; expected at least 1.")
    place = {str(name): number for number, name in enumerate(ids.tolist())}.get(str(item))
    if place is None:
        raise InputError(f"{item} is none of the model's {len(ids):,} items, whose ids look like {ids[0]}.")
    measure, similarities, known = _to(model, place)
    if not known.any():
        raise InputError(f"{model.name} knows nothing of {item} by which other items could be near it.")
    known[place] = False
    if candidates is not None:
        known &= np.asarray(candidates, bool)
    found = np.flatnonzero(known)
    nearest = found[np.argsort(-similarities[found], kind="stable")][:k]
    return SimilarItems(
        items=ids[nearest],
        similarities=similarities[nearest],
        measure=measure,
        titles=None if titles is None else np.asarray(titles)[nearest],
    )


def _to(model: Recommender, item: int) -> tuple[Measure, np.ndarray, np.ndarray]:
    """The measure, the similarity of each item to one item, and of which items it is known, [n_items] each."""
    measure: Measure
    if isinstance(model, HasItemMap):
        measure, similarities = "weight", np.asarray(model.map_row(item), np.float32)
        known = similarities != 0
    elif isinstance(model, HasItemVectors):
        vectors = np.asarray(model.item_vectors(), np.float32)
        lengths = np.linalg.norm(vectors, axis=1)
        known = (lengths > 0) & (lengths[item] > 0)
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is refused below
            products = vectors @ vectors[item]
            scale = np.where(known, lengths, 1) * (lengths[item] or 1)
            measure, similarities = "cosine", np.clip(products / scale, -1, 1).astype(np.float32)
    else:
        of_whom = "its members may, asked as runs of their own" if model.has_members else "ease or mult-vae has"
        raise InputError(f"{model.name} has no vectors of its own by which items could be near each other; {of_whom}.")
    if not np.isfinite(similarities).all():
        raise DivergedError(f"{model.name}: a vector of an item has a value that is NaN or infinite; train it anew.")
    return measure, similarities, known
