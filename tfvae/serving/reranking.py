"""Re-ranking by rules that depend on what was chosen before: at most n of a category, and diversity.

The rule is greedy over all items that may be recommended to a person, and one need not see them all to follow it. In a
list of the best m by score, every item outside has at most the relevance of the last one in it, and no similarity makes
a value larger. So a choice within the list whose value is at least what that relevance alone would give is the choice
over the whole catalogue as well: of equal values the one with the better score comes first. Whoever has a choice of
which that cannot be said gets a list that is four times as long, in the end one of all items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from scipy.sparse import csr_array

from tfvae.serving.rules import Rules
from tfvae.system.errors import InputError

__all__ = ["Listed", "Reranker", "Similarity", "training_vectors"]

SHORTEST = 100
LISTS_PER_RANKING = 4
"""How much longer than the ranking the first list is, and each list than the one before."""
RANKS_AT_ONCE = 2**24
BYTES_OF_SIMILARITIES = 2**28

Listed = Callable[[np.ndarray, int], dict[str, np.ndarray]]
"""Lists the best items of some rows: from row numbers, int [m], and a length l to `items` and others, [m, l] each."""


class Reranker:
    """Chooses from long lists by the rules.

    Args:
        rules: Rules that re-rank.
        n_items: Number of items of the model.
        similarity: That of the items, which several re-rankers can share; None makes it of the rules' vectors.

    Raises:
        InputError: If there is diversity with neither vectors nor a similarity.
    """

    def __init__(self, rules: Rules, n_items: int, similarity: Similarity | None = None):
        self._n_items, self._diversity = n_items, float(rules.diversity)
        self._at_most = n_items if rules.at_most is None else rules.at_most
        self._similarity = similarity if self._diversity else None
        if self._diversity and similarity is None:
            if rules.vectors is None:
                raise InputError(
                    "diversity needs the items as vectors, [n_items, d]; give the rules vectors, such as "
                    "tfvae.serving.reranking.training_vectors(split.train)."
                )
            self._similarity = Similarity(rules.vectors)
        self._categories = rules.categories
        self._flat = None if rules.categories is None else _flat(rules.categories)

    def __call__(self, listed: Listed, n_rows: int, k: int) -> dict[str, np.ndarray]:
        """Ranks by the rules.

        Args:
            listed: Lists the best items of some rows by score alone, with `items` (places among all items, −1 in empty
                ranks), `scores` (−∞ there) and perhaps `sd` (NaN there).
            n_rows: Number of rows.
            k: Length of the rankings, at least 1.

        Returns:
            The same fields, [n_rows, k].
        """
        length = min(self._n_items, max(k, SHORTEST, LISTS_PER_RANKING * k))
        rows, found = np.arange(n_rows), dict[str, np.ndarray]()
        empty = {"items": -1, "scores": -np.inf, "sd": np.nan}
        while True:
            uncertain = []
            at_once = max(1, RANKS_AT_ONCE // length)
            for start in range(0, max(len(rows), 1), at_once):
                some = rows[start : start + at_once]
                lists = listed(some, length)
                if not found:
                    found = {name: np.full((n_rows, k), empty[name], array.dtype) for name, array in lists.items()}
                for place, row in enumerate(some):
                    chosen, certain = self.choose(lists["items"][place], lists["scores"][place], k)
                    if not certain:
                        uncertain.append(row)
                        continue
                    for name, array in lists.items():
                        found[name][row, : len(chosen)] = array[place, chosen]
            if not uncertain:
                return found
            rows, length = np.array(uncertain), min(self._n_items, LISTS_PER_RANKING * length)

    def choose(self, items: np.ndarray, scores: np.ndarray, k: int) -> tuple[list[int], bool]:
        """Chooses k items from one person's list.

        Args:
            items: int [m], the best items, best first; −1 in empty ranks at the end.
            scores: float [m], their scores.
            k: How many to choose; m is at least that, or the number of all items.

        Returns:
            The ranks of the chosen items in the list, counted from 0, in the order of the choice; and whether these are
            the choices over the whole catalogue.
        """
        n = int((items >= 0).sum())
        is_all = n < len(items) or n == self._n_items
        if self._similarity is None:
            chosen = self._in_order(items[:n], k)
            return chosen, is_all or len(chosen) == k
        items, relevance = items[:n], self._relevance(scores[:n].astype(np.float64), k)
        free, nearest = np.ones(n, bool), np.zeros(n)
        similarity = self._similarity.among(items)
        count: Counter[int] = Counter()
        ranks, labels = self._labels_of(items)
        chosen = []
        while len(chosen) < k and free.any():
            value = np.where(free, relevance - self._diversity * nearest, -np.inf)
            best = int(value.argmax())
            if not is_all and value[best] < relevance[-1]:
                return chosen, False
            chosen.append(best)
            free[best] = False
            nearest = np.maximum(nearest, similarity(best))
            for label in labels[ranks == best].tolist() if len(labels) else ():
                count[label] += 1
                if count[label] == self._at_most:
                    free[ranks[labels == label]] = False
        return chosen, is_all or len(chosen) == k

    def _in_order(self, items: np.ndarray, k: int) -> list[int]:
        """The ranks of the chosen items where the score alone says which is the best of those that are free."""
        if self._categories is None:
            return list(range(min(k, len(items))))
        count: Counter[str] = Counter()
        chosen: list[int] = []
        for rank, item in enumerate(items.tolist()):
            labels = self._categories[item]
            if all(count[label] < self._at_most for label in labels):
                chosen.append(rank)
                count.update(labels)
                if len(chosen) == k:
                    break
        return chosen

    def _relevance(self, scores: np.ndarray, k: int) -> np.ndarray:
        """(1 − δ) times the scores in units in which the best has 1 and the k-th, or the last, has 0."""
        if not len(scores):
            return scores
        last = scores[min(k, len(scores)) - 1]
        # If the k best have equal scores, there is no unit to count in, and differences are taken as they are.
        return (1 - self._diversity) * ((scores - last) / (scores[0] - last or 1.0))

    def _labels_of(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each pair of an item of the list and a category of it: the item's rank, and the category's number."""
        if self._flat is None:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        starts, labels = self._flat
        first, lengths = starts[items], starts[items + 1] - starts[items]
        ranks = np.repeat(np.arange(len(items)), lengths)
        within = np.arange(len(ranks)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return ranks, labels[np.repeat(first, lengths) + within]


def training_vectors(train: csr_array) -> csr_array:
    """The items as vectors of those who have them, so that a cosine is that of two columns of the training matrix.

    Args:
        train: The training matrix, CSR [n_rows, n_items]; its values do not matter.

    Returns:
        CSR [n_items, n_rows], float32, of ones.
    """
    ones = np.ones(train.nnz, np.float32)
    return csr_array((ones, train.indices, train.indptr), shape=train.shape).T.tocsr()


class Similarity:
    """Cosines of item vectors; negative ones are 0.

    Args:
        vectors: [n_items, d], an array or CSR.
    """

    def __init__(self, vectors: np.ndarray | csr_array):
        self._dense = None
        if isinstance(vectors, csr_array):
            lengths = np.sqrt((vectors * vectors).sum(axis=1, dtype=np.float64))
            of_entry = np.repeat(lengths, np.diff(vectors.indptr))
            scaled = vectors.data / np.where(of_entry > 0, of_entry, 1)
            self._rows = csr_array((scaled, vectors.indices, vectors.indptr), shape=vectors.shape)
            self._columns = self._rows.T.tocsr()
            # A row of the cosines of all items takes as many numbers as there are items, so not every one is kept.
            self._to_all = lru_cache(max(1, BYTES_OF_SIMILARITIES // (8 * vectors.shape[0])))(self._cosines)
        else:
            lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
            self._dense = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)

    def among(self, items: np.ndarray) -> Callable[[int], np.ndarray]:
        """A function from the place of one of m items to its similarity with all of them, float64 [m] in [0, 1]."""
        if self._dense is None:
            return lambda place: np.clip(self._to_all(int(items[place]))[items], 0, 1)
        rows = self._dense[items].astype(np.float64)
        return lambda place: np.clip(rows @ rows[place], 0, 1)

    def _cosines(self, item: int) -> np.ndarray:
        """Those of a sparse row with all rows, [n_items]."""
        found, product = np.zeros(self._rows.shape[0]), self._rows[[item]] @ self._columns
        found[product.indices] = product.data
        return found


def _flat(categories: Sequence | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each item's categories begin, int [n_items + 1], and the numbers of all categories, item by item."""
    numbers: dict[str, int] = {}
    labels = [numbers.setdefault(label, len(numbers)) for given in categories for label in given]
    return np.cumsum([0, *map(len, categories)]), np.array(labels, np.int64)
