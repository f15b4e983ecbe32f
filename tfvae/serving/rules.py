"""Rules of what may be recommended: which items, seen ones again, how many of a category, how unlike one another.

Rules are plain data, and are checked when they are made, before any model is loaded. `only`, `without`, `min_users` and
`again` are a mask in the graph that ranks; `at_most` and `diversity` re-rank its lists (`tfvae.serving.reranking`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from scipy.sparse import csr_array, issparse

from tfvae.system.errors import InputError
from tfvae.system.files import digest

__all__ = ["Rules"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Rules:
    """What may be recommended, for every function that recommends.

    Item ids are compared as text, so that 7 and "7" are the same item. Those that are no items of the model are left
    out of `only` and `without`, and counted in a warning. The three arrays at the end have one entry for each item of
    the model, in the order of its columns; functions that are given a split or the items of a run know `n_users`, and
    those that are given a split know `vectors` as well.

    Example:
        >>> import tfvae
        >>> from scipy.sparse import csr_array
        >>> from tfvae.models.popularity import Popularity
        >>> model = Popularity(4)
        >>> model.fit_matrix(csr_array([[1, 1, 1, 0], [1, 1, 0, 1], [1, 0, 1, 0]]), log=lambda line: None)
        >>> foods = ["tea", "rye", "oil", "nut"]
        >>> tfvae.recommend(model, foods, [["tea"]], k=2, rules=tfvae.Rules(without=["rye"])).items.tolist()
        [['oil', 'nut']]
        >>> kinds = tfvae.Rules(again=True, at_most=1, categories=["drink", "bread", ["fat", "drink"], "fat"])
        >>> tfvae.recommend(model, foods, [["tea"]], k=3, rules=kinds).items.tolist()
        [['tea', 'rye', 'nut']]

    Attributes:
        only: Ids of the items that may be recommended; None allows all.
        without: Ids of items that are not recommended.
        again: Whether items of a person's history may be recommended again.
        min_users: Recommend no item that fewer training users have; needs `n_users`.
        at_most: How many items of one category are recommended to a person; None for any number. Needs `categories`.
        diversity: δ in [0, 1]. Items are chosen one after the other, each time the one with the largest
            (1 − δ) · relevance − δ · similarity: Maximal Marginal Relevance, with λ = 1 − δ (Carbonell and Goldstein,
            "The use of MMR, diversity-based reranking for reordering documents and producing summaries", SIGIR 1998).
            The relevance is the score on the person's own scale, on which the best of their k best items has 1 and the
            last has 0; so the unit of the scores changes nothing. The similarity is the largest cosine of the item
            with those that are chosen already, and 0 where all cosines are negative. 0 leaves the ranking as it is.
            Needs `vectors`.
        categories: For each item its category, or a list of them; None, "" and an empty list for no category, of which
            any number may be recommended.
        vectors: The items as vectors, [n_items, d], an array or a SciPy sparse matrix; a row of zeros is like no item.
        n_users: int [n_items], how many training users have each item.

    Raises:
        InputError: If an item is in both `only` and `without`, `only` is empty, a number is out of its range, a rule
            has no categories or there are categories for no rule, or an array has another shape or values that are no
            numbers.
    """

    only: Sequence | np.ndarray | None = None
    without: Sequence | np.ndarray = ()
    again: bool = False
    min_users: int = 0
    at_most: int | None = None
    diversity: float = 0.0
    categories: Sequence | np.ndarray | None = None
    vectors: np.ndarray | csr_array | None = None
    n_users: Sequence[int] | np.ndarray | None = None

    def __post_init__(self) -> None:
        """Checks what can be checked without a model."""
        only = None if self.only is None else _ids(self.only, "only")
        without = _ids(self.without, "without")
        if only is not None and not only:
            raise InputError("only names no item, so that nothing could be recommended.")
        if only and (both := set(map(str, only)) & set(map(str, without))):
            those = "1 item is" if len(both) == 1 else f"{len(both):,} items are"
            raise InputError(f"{those} both in only and in without, {_some(sorted(both))}; which of the two holds?")
        _refuse_number("min_users", self.min_users, 0)
        if self.at_most is not None:
            _refuse_number("at_most", self.at_most, 1)
        if not isinstance(self.diversity, int | float | np.number) or not 0 <= self.diversity <= 1:
            raise InputError(f"diversity is {self.diversity!r}; expected a number from 0 to 1.")
        if self.at_most is not None and self.categories is None:
            raise InputError("at_most needs the categories of the items, one entry for each item of the model.")
        if self.at_most is None and self.categories is not None:
            raise InputError("categories change nothing without at_most; say how many of each may be recommended.")
        changes: dict[str, Any] = {"only": only, "without": without}
        if self.categories is not None:
            changes["categories"] = tuple(map(_labels, self.categories))
        if self.vectors is not None:
            changes["vectors"] = _matrix(self.vectors)
        if self.n_users is not None:
            changes["n_users"] = np.asarray(self.n_users)
        for name, value in changes.items():
            object.__setattr__(self, name, value)

    @property
    def reranks(self) -> bool:
        """Whether lists have to be re-ranked, which a mask cannot do."""
        return self.at_most is not None or self.diversity > 0

    def for_items(self, item_ids: Sequence | np.ndarray, n_users: np.ndarray | None = None) -> Self:
        """The same rules for the items of a model, without the ids that are none of them.

        Args:
            item_ids: The ids of the model's items, [n_items].
            n_users: int [n_items], how many training users have each item, if that is known and not given yet.

        Returns:
            The rules; a warning tells how many ids were left out.

        Raises:
            InputError: If none of the ids in `only`, or in `without`, is an item; if an array is not one entry for each
                item; if `n_users` is missing; or if the rules leave no item.
        """
        found = self if self.n_users is not None or n_users is None else replace(self, n_users=n_users)
        for name in ("categories", "vectors", "n_users"):
            given = getattr(found, name)
            if given is None:
                continue
            n_given = len(given) if name == "categories" else given.shape[0]  # a sparse matrix has no length
            if n_given != len(item_ids):
                raise InputError(
                    f"the rules have {n_given:,} {name} for {len(item_ids):,} items; expected one entry for each, in "
                    "the order of item_ids."
                )
        known = set(map(str, np.asarray(item_ids).tolist()))
        only = None if found.only is None else _known(found.only, known, "only")
        found = replace(found, only=only, without=_known(found.without, known, "without"))
        found.allowed(item_ids)
        return found

    def allowed(self, item_ids: Sequence | np.ndarray) -> np.ndarray | None:
        """Whether each item may be recommended.

        Args:
            item_ids: The ids of the model's items, [n_items].

        Returns:
            bool [n_items]; None if all may.

        Raises:
            InputError: If no item may, or `n_users` is missing.
        """
        if self.only is None and not len(self.without) and not self.min_users:
            return None
        names = [str(item) for item in np.asarray(item_ids).tolist()]
        mask = np.ones(len(names), bool)
        if self.only is not None:
            wanted = set(map(str, self.only))
            mask &= np.fromiter((name in wanted for name in names), bool, len(names))
        if len(self.without):
            unwanted = set(map(str, self.without))
            mask &= np.fromiter((name not in unwanted for name in names), bool, len(names))
        if self.min_users:
            mask &= self._common()
        if not mask.any():
            raise InputError("the rules leave no item that could be recommended; loosen one of them.")
        return mask

    def digest(self, item_ids: Sequence | np.ndarray) -> str:
        """SHA-256 of what the rules do to these items, in hexadecimal; rules that do the same have the same."""
        parts: list[Any] = [self.allowed(item_ids), self.again, self.at_most, float(self.diversity)]
        if self.at_most is not None:
            parts.append([list(labels) for labels in self.categories or ()])
        if self.diversity and self.vectors is not None:
            sparse = isinstance(self.vectors, csr_array)
            names = ("indptr", "indices", "data") if sparse else ()
            parts += [np.asarray(getattr(self.vectors, name)) for name in names] or [self.vectors]
        return digest(*parts)

    def _common(self) -> np.ndarray:
        """Whether each item has enough training users, bool [n_items]."""
        if self.n_users is None:
            raise InputError("min_users needs the number of training users of each item; give n_users as well.")
        most = np.max(self.n_users)
        if most < self.min_users:
            raise InputError(f"no item has {self.min_users:,} training users, the most common has {most:,}; lower it.")
        return np.asarray(self.n_users) >= self.min_users


def _ids(given: Sequence | np.ndarray, name: str) -> tuple:
    """Ids as plain Python values."""
    if isinstance(given, str) or np.ndim(given) != 1:
        raise InputError(f"expected a list of item ids as {name}, found {given!r}.")
    return tuple(given.tolist() if isinstance(given, np.ndarray) else given)


def _known(given: Sequence | np.ndarray, known: set[str], name: str) -> Sequence:
    """The ids that are items of the model; a warning tells of the others."""
    unknown = [item for item in given if str(item) not in known]
    if unknown and len(unknown) == len(given):
        raise InputError(
            f"none of the {len(given):,} ids in {name} is an item of the training data, {_some(unknown)}; ids there "
            f"look like {next(iter(known))}."
        )
    if unknown:
        examples = ", ".join(map(str, unknown[:3])) + ", …" * (len(unknown) > 3)
        counts = f"{len(unknown):,} of {len(given):,}"
        _log.warning("Not in the training data, left out of %s: %s ids (%s)", name, counts, examples)
    return tuple(item for item in given if str(item) in known)


def _some(ids: Sequence) -> str:
    return f"such as {', '.join(map(str, ids[:3]))}"


def _refuse_number(name: str, number: Any, least: int) -> None:
    if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < least:
        raise InputError(f"{name} is {number!r}; expected a whole number of at least {least}.")


def _labels(given: Any) -> tuple[str, ...]:
    """The categories of one item, each once."""
    if given is None or (isinstance(given, float) and np.isnan(given)):
        return ()
    several = isinstance(given, list | tuple | set | frozenset | np.ndarray)
    return tuple(dict.fromkeys(text for label in (given if several else [given]) if (text := str(label))))


def _matrix(given: Any) -> np.ndarray | csr_array:
    """Vectors as an array or as CSR, float32."""
    sparse = issparse(given)
    try:
        matrix = csr_array(given, dtype=np.float32) if sparse else np.asarray(given, np.float32)
    except (TypeError, ValueError):
        raise InputError(f"expected numbers as vectors, [n_items, d], found {type(given).__name__}.") from None
    if matrix.ndim != 2:
        raise InputError(f"expected vectors of shape [n_items, d], found {list(matrix.shape)}.")
    if not np.isfinite(matrix.data if sparse else matrix).all():
        raise InputError("the vectors have values that are NaN or infinite.")
    return matrix
