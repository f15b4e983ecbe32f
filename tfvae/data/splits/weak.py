"""Weak generalisation: the users are trained on, and a share of each user's items is held out.

The name is that of Marlin, Collaborative Filtering: A Machine Learning Perspective (2004): weak generalisation is to
other items of the training users, strong generalisation to other users. It is the protocol of NGCF (Wang et al., SIGIR
2019) and LightGCN (He et al., SIGIR 2020), who hold out a fifth of each user's items. Their code trains on all the
rest and compares epochs on the held-out items; here the epoch is chosen on a part of the training items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field
from scipy.sparse import csr_array

from tfvae.data.attributes import Attribute
from tfvae.data.interactions import Interactions
from tfvae.data.splits.base import Split, binary_rows, pack, unpack
from tfvae.data.splits.filters import FilterSettings, filtered, table_counts
from tfvae.system.errors import InputError
from tfvae.system.files import digest

__all__ = ["HeldOutShares", "WeakGeneralization", "WeakGeneralizationSettings", "weak_generalization"]


class WeakGeneralizationSettings(FilterSettings):
    """How to filter, and how much of each user's items to hold out.

    Attributes:
        min_rating: Events rated below this are dropped first; None keeps all.
        min_users_per_item: Items with fewer users are dropped next.
        min_items_per_user: Users with fewer items are dropped last.
        holdout_fraction: Share of each user's items that is for test; their number is rounded down, but is at least
            one for a user with two items or more.
        validation_fraction: Share of each user's training items that `for_tuning` holds out, rounded likewise, unless
            the data come with a validation part.
        seed: Seed of NumPy's legacy generator.
    """

    holdout_fraction: float = Field(0.2, gt=0, lt=1)
    validation_fraction: float = Field(0.1, gt=0, lt=1)
    seed: int = Field(0, ge=0, lt=2**32)


@dataclass(frozen=True, eq=False)
class HeldOutShares:
    """Some items of each training user, to be found among all that the user has not met.

    Attributes:
        history: `[n_users, n_items]` ones: the training items, which are shown to the model.
        targets: `[n_users, n_items]` ones: the held-out items. A row is empty where nothing could be held out.
        user_ids: `[n_users]` ids of the rows.
    """

    history: csr_array
    targets: csr_array
    user_ids: np.ndarray

    def __post_init__(self) -> None:
        """Refuses matrices that do not fit together, and targets that are also in the history."""
        if self.history.shape != self.targets.shape or self.history.shape[0] != len(self.user_ids):
            raise InputError(
                "expected training items and held-out items of one shape and an id for each row, found "
                f"{self.history.shape}, {self.targets.shape} and {len(self.user_ids)} ids."
            )
        if shared := self.history.multiply(self.targets).nnz:
            raise InputError(f"{shared} events are both trained on and held out; each must be one or the other.")


@dataclass(frozen=True, eq=False)
class WeakGeneralization(Split):
    """All users train on most of their items; the others are to be found among all items that they have not met.

    A model that is reported on the test part learns from `train`, which includes the items that choose its settings
    and its number of epochs: these are chosen beforehand, on the split that `for_tuning` returns.

    Attributes:
        train: `[n_users, n_items]` ones (float32, sorted indices): all that is not for test.
        test: The items to report results on; None in a split for tuning.
        user_ids: `[n_users]` ids of the rows, ascending.
        item_ids: `[n_items]` ids of the columns, ascending; items that are only held out are among them.
        titles: `[n_items]` titles, or None.
        settings: The settings it was cut with.
        counts: What each filter dropped; `events`, `users`, `items` and `density` after the filters; the events and
            items of the training part, and the users without one; the events and users of the test part, the users
            without one, and its events on items that nobody trains on.
        digest: SHA-256 over the interactions, the settings and the given parts.
        validation: Items to choose settings and epochs by; only in a split for tuning.
        given_validation: `[n_users, n_items]` ones: the training events that the data name as their validation part;
            None if `for_tuning` draws it.
        attributes: What an items file tells of the items, by name; see `tfvae.data.items_file`.

    Example:
        >>> from tfvae.data.interactions import Interactions
        >>> from tfvae.data.splits import WeakGeneralizationSettings, weak_generalization
        >>> events = Interactions.from_events([1] * 5 + [2] * 5, [1, 2, 3, 4, 5, 3, 4, 5, 6, 7])
        >>> split = weak_generalization(events, WeakGeneralizationSettings(holdout_fraction=0.4))
        >>> split.train.nnz, split.test.targets.nnz, split.for_tuning().train.nnz
        (6, 4, 4)
    """

    protocol: ClassVar[str] = "weak-generalization"

    train: csr_array
    test: HeldOutShares | None
    user_ids: np.ndarray
    item_ids: np.ndarray
    titles: np.ndarray | None
    settings: WeakGeneralizationSettings
    counts: dict[str, int | float]
    digest: str
    validation: HeldOutShares | None = None
    given_validation: csr_array | None = None
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses a given validation part that is not one of the training events."""
        part = self.given_validation
        if part is None:
            return
        if part.shape != self.train.shape or self.train.multiply(part).nnz != part.nnz or not part.nnz:
            raise InputError("expected a validation part of training events, at least one, and of no others.")

    @property
    def tuning_digest(self) -> str:
        """See :class:`Split`."""
        return digest(self.digest, "for tuning")

    def for_tuning(self) -> WeakGeneralization:
        """The split that a search is given: the validation part is taken out of training; the test items are not in it.

        The validation part is the given one; otherwise it is drawn from the training items of each user.

        Raises:
            InputError: If no user has two training items, so that none could be held out.
        """
        if self.given_validation is None:
            # Another seed than that of the test part, so that the two draws have nothing to do with each other.
            seed = (self.settings.seed + 1) % 2**32
            held_out = _shares(self.train, self.settings.validation_fraction, seed)
            targets = _entries(self.train, held_out)
        else:
            targets = self.given_validation
            held_out = _in(self.train, targets)
        if not targets.nnz:
            raise InputError("no user has two training items, so that none can be held out to choose settings by.")
        train = _entries(self.train, ~held_out)
        return replace(
            self,
            train=train,
            validation=HeldOutShares(train, targets, self.user_ids),
            test=None,
            given_validation=None,
            digest=self.tuning_digest,
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """See :class:`Split`."""
        arrays = {"user_ids": self.user_ids, "item_ids": self.item_ids} | pack("train", self.train)
        for name, part in (("validation", self.validation), ("test", self.test)):
            if part is not None:
                arrays |= pack(name, part.targets)
        if self.given_validation is not None:
            arrays |= pack("given_validation", self.given_validation)
        return arrays if self.titles is None else arrays | {"titles": self.titles}

    @classmethod
    def restored(cls, arrays: dict[str, np.ndarray], note: dict[str, Any]) -> Self:
        """See :class:`Split`."""
        train = unpack("train", arrays)

        def matrix(name: str) -> csr_array | None:
            return unpack(name, arrays) if any(key.startswith(f"{name}.") for key in arrays) else None

        def part(name: str) -> HeldOutShares | None:
            targets = matrix(name)
            return None if targets is None else HeldOutShares(train, targets, arrays["user_ids"])

        return cls(
            train=train,
            validation=part("validation"),
            test=part("test"),
            given_validation=matrix("given_validation"),
            user_ids=arrays["user_ids"],
            item_ids=arrays["item_ids"],
            titles=arrays.get("titles"),
            settings=WeakGeneralizationSettings(**note["settings"]),
            counts=note["report"],
            digest=note["digest"],
        )


def weak_generalization(
    interactions: Interactions,
    settings: WeakGeneralizationSettings | None = None,
    test: np.ndarray | None = None,
    validation: np.ndarray | None = None,
) -> WeakGeneralization:
    """Holds out a share of each user's items, or the events that the data name as their test part.

    The draw depends on the seed and on which items each user has, not on the order of the file.

    Args:
        interactions: The events; values matter only to `min_rating`.
        settings: Filters, shares and seed; the defaults of `WeakGeneralizationSettings` if None.
        test: bool `[n_events]`, the events that are for test; nothing is then filtered or drawn for test.
        validation: bool `[n_events]`, training events that are for validation; allowed only with `test`.

    Returns:
        The split.

    Raises:
        InputError: If no event passes the filters, no user has an item to hold out, or the given parts have the wrong
            size, overlap, or leave nothing to train on.
    """
    settings = settings or WeakGeneralizationSettings()
    given = {name: part for name, part in (("test", test), ("validation", validation)) if part is not None}
    _refuse_parts(given, interactions.n_events)
    if test is None:
        users, items, counts = filtered(interactions, settings)
    else:
        users, items = interactions.users, interactions.items
        counts = {"events_read": users.size}
        counts |= table_counts(users.size, interactions.n_users, interactions.n_items)
    kept_users, rows = np.unique(users, return_inverse=True)
    kept_items, columns = np.unique(items, return_inverse=True)
    whole, event_of = binary_rows(rows, columns, (kept_users.size, kept_items.size))
    held_out = _shares(whole, settings.holdout_fraction, settings.seed) if test is None else test[event_of]
    if not held_out.any() or held_out.all():
        raise InputError(
            f"none of the {kept_users.size:,} users has an item to {'train on' if held_out.any() else 'hold out'}; "
            "weak generalisation needs users with at least two items each."
        )
    train, targets = _entries(whole, ~held_out), _entries(whole, held_out)
    user_ids = interactions.user_ids[kept_users]
    return WeakGeneralization(
        train=train,
        test=HeldOutShares(train, targets, user_ids),
        given_validation=None if validation is None else _entries(whole, validation[event_of]),
        user_ids=user_ids,
        item_ids=interactions.item_ids[kept_items],
        titles=None if interactions.titles is None else interactions.titles[kept_items],
        settings=settings,
        counts=counts | _counts(train, targets),
        digest=digest(WeakGeneralization.protocol, interactions.digest, settings.model_dump(), *given.values()),
    )


def _refuse_parts(given: dict[str, np.ndarray], n_events: int) -> None:
    """Refuses given parts that do not say of each event whether it belongs to them, or that overlap."""
    for name, part in given.items():
        if part.shape != (n_events,) or part.dtype != bool:
            raise InputError(f"expected for {name} a truth value for each of {n_events:,} events, found {part.shape}.")
    if "validation" in given:
        if "test" not in given:
            raise InputError("expected a validation part only together with a test part; give both, or neither.")
        if shared := int((given["test"] & given["validation"]).sum()):
            raise InputError(f"{shared} events are both for validation and for test; each must be one or the other.")


def _shares(matrix: csr_array, fraction: float, seed: int) -> np.ndarray:
    """Draws a share of each row's entries, bool [nnz]: rounded down, but at least one of two or more."""
    sizes = np.diff(matrix.indptr)
    n_drawn = np.where(sizes > 1, np.maximum(1, (fraction * sizes).astype(np.int64)), 0)
    keys = np.random.RandomState(seed).random_sample(matrix.nnz)
    order = np.lexsort((keys, _rows(matrix)))
    place = np.arange(matrix.nnz) - np.repeat(matrix.indptr[:-1], sizes)
    drawn = np.zeros(matrix.nnz, dtype=bool)
    drawn[order] = place < np.repeat(n_drawn, sizes)
    return drawn


def _entries(matrix: csr_array, chosen: np.ndarray) -> csr_array:
    """The matrix of the chosen entries, bool [nnz], of a binary matrix."""
    return binary_rows(_rows(matrix)[chosen], matrix.indices[chosen], matrix.shape)[0]


def _in(matrix: csr_array, part: csr_array) -> np.ndarray:
    """Whether each entry of a matrix is also one of another matrix of the same shape, bool [nnz]."""
    places, others = (_rows(m).astype(np.int64) * m.shape[1] + m.indices for m in (matrix, part))
    return np.isin(places, others, assume_unique=True)


def _rows(matrix: csr_array) -> np.ndarray:
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def _counts(train: csr_array, targets: csr_array) -> dict[str, int | float]:
    trained, asked = (np.diff(matrix.indptr) > 0 for matrix in (train, targets))
    known = np.bincount(train.indices, minlength=train.shape[1]) > 0
    return {
        "train_events": train.nnz,
        "train_items": int(known.sum()),
        "users_without_training": int((~trained).sum()),
        "test_events": targets.nnz,
        "test_users": int(asked.sum()),
        "users_without_test": int((~asked).sum()),
        "test_events_on_other_items": int((~known[targets.indices]).sum()),
    }
