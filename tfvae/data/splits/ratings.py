"""The rating hold-out: a random tenth of all ratings is for test, as papers compare rating models.

It is the protocol of AutoRec, NNMF and p-VAE on MovieLens-1M. The RMSE of a model differs by about .002 from split
to split, so models should be compared on the same seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field, field_validator
from scipy.sparse import csr_array

from tfvae.data.attributes import Attribute
from tfvae.data.interactions import Interactions
from tfvae.data.splits.base import Split, pack, unpack
from tfvae.system.errors import InputError
from tfvae.system.files import digest
from tfvae.system.validation import Strict

__all__ = ["HeldOutRatings", "RatingHoldout", "RatingHoldoutSettings", "rating_holdout"]


class RatingHoldoutSettings(Strict):
    """How many ratings to hold out.

    Attributes:
        test_fraction: Fraction of the ratings that is for test.
        seed: Seed of NumPy's legacy generator; other seeds give the other splits of a study.
        scale: The lowest and the highest possible rating; ratings outside are refused. None accepts all. The check
            does not change the split, so it is not part of its digest.
    """

    test_fraction: float = Field(0.1, gt=0, lt=1)
    seed: int = Field(0, ge=0, lt=2**32)
    scale: tuple[float, float] | None = None

    @field_validator("scale")
    @classmethod
    def _ascending(cls, scale: tuple[float, float] | None) -> tuple[float, float] | None:
        if scale is not None and not scale[0] < scale[1]:
            raise ValueError(f"expected the lowest rating and a higher one, found {scale}")
        return scale


@dataclass(frozen=True, eq=False)
class HeldOutRatings:
    """Ratings to be predicted, and the ratings that a model is shown beforehand.

    Attributes:
        history: `[n_rows, n_columns]` ratings shown to the model.
        targets: `[n_rows, n_columns]` ratings to be predicted; no entry is also one of `history`.
        user_ids: `[n_rows]` ids of the rows.
    """

    history: csr_array
    targets: csr_array
    user_ids: np.ndarray

    def __post_init__(self) -> None:
        """Refuses matrices that do not fit together, and targets that are also in the history."""
        if self.history.shape != self.targets.shape or self.history.shape[0] != len(self.user_ids):
            raise InputError(
                "expected histories and targets of one shape and an id for each row, found "
                f"{self.history.shape}, {self.targets.shape} and {len(self.user_ids)} ids."
            )
        told, asked = (_places(matrix) for matrix in (self.history, self.targets))
        if shared := np.intersect1d(told, asked, assume_unique=True).size:
            raise InputError(f"{shared} ratings are both told and to be predicted; each must be one or the other.")

    def triples(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows (int32), columns (int32) and ratings (float32) of the targets, each `[n_targets]`."""
        triples = self.targets.tocoo()
        return triples.row, triples.col, triples.data


@dataclass(frozen=True, eq=False)
class RatingHoldout(Split):
    """Ratings to learn from and ratings to predict, of the same users and items.

    Rows are users and columns are items, or the other way round (see `by_items`): an item-based model is a user-based
    model of the transposed matrix.

    Attributes:
        train: `[n_users, n_items]` ratings (float32, sorted indices); a stored zero is a rating of zero.
        test: Ratings to report results on; None in a split for tuning.
        user_ids: `[n_users]` ids of the rows.
        item_ids: `[n_items]` ids of the columns.
        titles: `[n_items]` titles, or None.
        settings: The settings it was cut with.
        counts: Counts of ratings, users and items, of cold users and items (in the test part, but without a
            training rating), and of the test ratings of cold items.
        digest: SHA-256 over the interactions and the settings.
        validation: Ratings to choose settings and the number of epochs by; only in a split for tuning.
        user_features: Features of the rows, named arrays `[n_users]`.
        item_features: Features of the columns, named arrays `[n_items]`.
        attributes: What an items file tells of the items, by name; see `tfvae.data.items_file`.
    """

    protocol: ClassVar[str] = "rating-holdout"

    train: csr_array
    test: HeldOutRatings | None
    user_ids: np.ndarray
    item_ids: np.ndarray
    titles: np.ndarray | None
    settings: RatingHoldoutSettings
    counts: dict[str, int | float]
    digest: str
    validation: HeldOutRatings | None = None
    user_features: Mapping[str, np.ndarray] = field(default_factory=dict)
    item_features: Mapping[str, np.ndarray] = field(default_factory=dict)
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    @property
    def scale(self) -> tuple[float, float]:
        """The lowest and the highest rating: those of the settings if given, else those of the training ratings."""
        return self.settings.scale or (float(self.train.data.min()), float(self.train.data.max()))

    def by_items(self) -> RatingHoldout:
        """The same split with items as rows and users as columns, the same counts, and no titles."""
        return replace(
            self,
            train=self.train.T.tocsr(),
            validation=self.validation and _transposed(self.validation, self.item_ids),
            test=self.test and _transposed(self.test, self.item_ids),
            user_ids=self.item_ids,
            item_ids=self.user_ids,
            titles=None,
            attributes={},
            user_features=self.item_features,
            item_features=self.user_features,
            digest=digest(self.digest, "by items"),
        )

    @property
    def tuning_digest(self) -> str:
        """See :class:`Split`."""
        return digest(self.digest, "for tuning")

    def for_tuning(self) -> RatingHoldout:
        """The split that a search is given: `test_fraction` of the training ratings are held out for validation.

        The test ratings are not in it.
        """
        rows, columns, values = (getattr(self.train.tocoo(), name) for name in ("row", "col", "data"))
        n_kept = int((1 - self.settings.test_fraction) * values.size)
        shuffled = np.random.RandomState(self.settings.seed).permutation(values.size)
        train, targets = (
            csr_array((values[part], (rows[part], columns[part])), shape=self.train.shape)
            for part in (np.sort(shuffled[:n_kept]), np.sort(shuffled[n_kept:]))
        )
        validation = HeldOutRatings(train, targets, self.user_ids)
        return replace(self, train=train, validation=validation, test=None, digest=self.tuning_digest)

    def arrays(self) -> dict[str, np.ndarray]:
        """See :class:`Split`."""
        arrays = {"user_ids": self.user_ids, "item_ids": self.item_ids} | pack("train", self.train, binary=False)
        for name in PARTS:
            if part := getattr(self, name):
                arrays |= pack(name, part.targets, binary=False)
        for side in FEATURES:
            arrays |= {f"{side}.{name}": array for name, array in getattr(self, side).items()}
        return arrays if self.titles is None else arrays | {"titles": self.titles}

    @classmethod
    def restored(cls, arrays: dict[str, np.ndarray], note: dict[str, Any]) -> Self:
        """See :class:`Split`."""
        train = unpack("train", arrays, binary=False)

        def part(name: str) -> HeldOutRatings | None:
            if f"{name}.indptr" not in arrays:
                return None
            return HeldOutRatings(train, unpack(name, arrays, binary=False), arrays["user_ids"])

        def features(side: str) -> dict[str, np.ndarray]:
            return {name.split(".", 1)[1]: array for name, array in arrays.items() if name.startswith(f"{side}.")}

        return cls(
            train=train,
            validation=part("validation"),
            test=part("test"),
            user_features=features("user_features"),
            item_features=features("item_features"),
            user_ids=arrays["user_ids"],
            item_ids=arrays["item_ids"],
            titles=arrays.get("titles"),
            settings=RatingHoldoutSettings(**note["settings"]),
            counts=note["report"],
            digest=note["digest"],
        )


PARTS = ("validation", "test")
FEATURES = ("user_features", "item_features")


def rating_holdout(interactions: Interactions, settings: RatingHoldoutSettings | None = None) -> RatingHoldout:
    """Divides the ratings at random, whichever users gave them.

    The ratings, in file order, are permuted by `RandomState(seed)`; the last `test_fraction` of them, rounded
    up, are for test.

    Args:
        interactions: The ratings.
        settings: Test fraction, seed and scale; by default the usual 90/10 division with seed 0.

    Returns:
        The split.

    Raises:
        InputError: If one part would have no ratings, or a rating is outside the settings' scale.
    """
    settings = settings or RatingHoldoutSettings()
    if settings.scale is not None:
        _refuse_off_scale(interactions, settings.scale)
    users, items, values = interactions.users, interactions.items, interactions.values
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
        test=HeldOutRatings(train, test, interactions.user_ids),
        user_ids=interactions.user_ids,
        item_ids=interactions.item_ids,
        titles=interactions.titles,
        settings=settings,
        counts=_counts(train, test),
        digest=digest(RatingHoldout.protocol, interactions.digest, settings.model_dump(exclude={"scale"})),
        user_features=dict(interactions.user_features),
        item_features=dict(interactions.item_features),
    )


def _refuse_off_scale(interactions: Interactions, scale: tuple[float, float]) -> None:
    low, high = scale
    off = np.flatnonzero((interactions.values < low) | (interactions.values > high))
    if off.size:
        first = off[0]
        user = interactions.user_ids[interactions.users[first]]
        raise InputError(
            f"expected ratings from {low:g} to {high:g}, found {interactions.values[first]:g} by user {user} for item "
            f"{interactions.item_ids[interactions.items[first]]} ({off.size:,} such in all); mend or drop these, or "
            "give the scale that the ratings have."
        )


def _places(matrix: csr_array) -> np.ndarray:
    """Row and column of each stored entry as one number, int64."""
    n_rows, n_columns = matrix.shape
    return np.repeat(np.arange(n_rows, dtype=np.int64) * n_columns, np.diff(matrix.indptr)) + matrix.indices


def _transposed(part: HeldOutRatings, item_ids: np.ndarray) -> HeldOutRatings:
    return HeldOutRatings(part.history.T.tocsr(), part.targets.T.tocsr(), item_ids)


def _counts(train: csr_array, test: csr_array) -> dict[str, int | float]:
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
