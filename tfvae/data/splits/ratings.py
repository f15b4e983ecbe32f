"""The rating hold-out: a random tenth of all ratings is for test, as rating models are compared.

The protocol of AutoRec, NNMF and p-VAE on MovieLens-1M. Runs of it differ by some .002 in RMSE from split
to split, so models are to be compared on the same seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field
from scipy.sparse import csr_array

from tfvae.data.interactions import Interactions
from tfvae.data.splits.saved import SavedSplit, pack, unpack
from tfvae.errors import InputError
from tfvae.files import digest
from tfvae.strict import Strict

__all__ = ["RatingHoldout", "RatingHoldoutSettings", "rating_holdout"]


class RatingHoldoutSettings(Strict):
    """How many ratings to hold out.

    Attributes:
        test_fraction: Part of the ratings that is for test.
        seed: Seed of NumPy's legacy generator; other seeds give the other splits of a study.
    """

    test_fraction: float = Field(0.1, gt=0, lt=1)
    seed: int = Field(0, ge=0, lt=2**32)


@dataclass(frozen=True, eq=False)
class RatingHoldout(SavedSplit):
    """Ratings to learn from and ratings to predict, of the same users and items.

    Attributes:
        train: `[n_users, n_items]` ratings (float32, sorted indices); a stored zero is a rating of zero.
        test: `[n_users, n_items]` ratings, at none of the places of `train`.
        user_ids: `[n_users]` ids of the rows.
        item_ids: `[n_items]` ids of the columns.
        titles: `[n_items]` titles, or None.
        settings: How it was cut.
        report: Counts of ratings, users and items, and how many users, items and ratings of the test
            part are cold: nothing about them is in the training part.
        digest: SHA-256 over the interactions and the settings.
    """

    kind: ClassVar[str] = "rating-holdout"

    train: csr_array
    test: csr_array
    user_ids: np.ndarray
    item_ids: np.ndarray
    titles: np.ndarray | None
    settings: RatingHoldoutSettings
    report: dict[str, int | float]
    digest: str

    @property
    def n_items(self) -> int:
        """Number of columns."""
        return len(self.item_ids)

    def test_triples(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows, columns and ratings of the test part, each `[n_test]`."""
        triples = self.test.tocoo()
        return triples.row, triples.col, triples.data

    def arrays(self) -> dict[str, np.ndarray]:
        """See :class:`SavedSplit`."""
        arrays = {"user_ids": self.user_ids, "item_ids": self.item_ids}
        arrays |= pack("train", self.train, binary=False) | pack("test", self.test, binary=False)
        return arrays if self.titles is None else arrays | {"titles": self.titles}

    @classmethod
    def restored(cls, arrays: dict[str, np.ndarray], note: dict[str, Any]) -> Self:
        """See :class:`SavedSplit`."""
        return cls(
            train=unpack("train", arrays),
            test=unpack("test", arrays),
            user_ids=arrays["user_ids"],
            item_ids=arrays["item_ids"],
            titles=arrays.get("titles"),
            settings=RatingHoldoutSettings(**note["settings"]),
            report=note["report"],
            digest=note["digest"],
        )


def rating_holdout(interactions: Interactions, settings: RatingHoldoutSettings | None = None) -> RatingHoldout:
    """Divides the ratings at random, whoever gave them.

    The ratings, in file order, are permuted by `RandomState(seed)`; the last of them, a `test_fraction`
    rounded up, are for test.

    Args:
        interactions: The ratings.
        settings: Fraction and seed; the usual 90/10 by default.

    Returns:
        The split.

    Raises:
        InputError: If there are too few ratings to have some on both sides.
    """
    settings = settings or RatingHoldoutSettings()
    users, items, values = interactions.in_file_order()
    n_train = int((1 - settings.test_fraction) * values.size)
    if not 0 < n_train < values.size:
        raise InputError(
            f"expected enough ratings for a training and a test part, found {values.size} for "
            f"test_fraction={settings.test_fraction}; give more ratings or another fraction."
        )
    shuffled = np.random.RandomState(settings.seed).permutation(values.size)
    shape = (interactions.n_users, interactions.n_items)
    train, test = (
        csr_array((values[part], (users[part], items[part])), shape=shape, dtype=np.float32)
        for part in (shuffled[:n_train], shuffled[n_train:])
    )
    return RatingHoldout(
        train=train,
        test=test,
        user_ids=interactions.user_ids,
        item_ids=interactions.item_ids,
        titles=interactions.titles,
        settings=settings,
        report=_report(train, test),
        digest=digest(RatingHoldout.kind, interactions.digest, settings.model_dump()),
    )


def _report(train: csr_array, test: csr_array) -> dict[str, int | float]:
    n_users, n_items = train.shape
    ratings_of_item, tests_of_item = (np.bincount(part.indices, minlength=n_items) for part in (train, test))
    ratings_of_user, tests_of_user = (np.diff(part.indptr) for part in (train, test))
    return {
        "ratings": train.nnz + test.nnz,
        "users": n_users,
        "items": n_items,
        "density": (train.nnz + test.nnz) / (n_users * n_items),
        "train_ratings": train.nnz,
        "test_ratings": test.nnz,
        "cold_users": int(((ratings_of_user == 0) & (tests_of_user > 0)).sum()),
        "cold_items": int(((ratings_of_item == 0) & (tests_of_item > 0)).sum()),
        "test_ratings_of_cold_items": int(tests_of_item[ratings_of_item == 0].sum()),
    }
