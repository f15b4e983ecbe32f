"""Strong generalisation: whole users are held out, exactly as the papers cut their data.

The protocol is that of Liang et al., Variational Autoencoders for Collaborative Filtering (WWW 2018), section 4.1,
and of the authors' preprocessing; Mult-VAE, EVCF and RecVAE share the split. With the settings of a data set
(10,000 held-out users and seed 98765 on ML-20M) the result is theirs to the byte, see :mod:`tfvae.data.vae_cf`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from pydantic import Field
from scipy.sparse import csr_array

from tfvae.data.attributes import Attribute
from tfvae.data.interactions import Interactions
from tfvae.data.row_shards import RowShards
from tfvae.data.splits.base import Split, binary_rows, pack, unpack
from tfvae.data.splits.filters import FilterSettings, filtered
from tfvae.system.errors import InputError
from tfvae.system.files import digest

__all__ = [
    "HeldOutUsers",
    "StrongGeneralization",
    "StrongGeneralizationSettings",
    "drawn_groups",
    "folded",
    "group_counts",
    "of_groups",
    "split_digest",
    "strong_generalization",
]

FEWEST_TO_SPLIT = 5  # the authors hold nothing out of shorter histories


class StrongGeneralizationSettings(FilterSettings):
    """How to filter, and how many users to hold out.

    Each filter is applied once, in this order, even if a later one undoes what an earlier one ensured.

    Attributes:
        min_rating: Events rated below this are dropped first (4 on ML-20M and Netflix); None keeps all.
        min_users_per_item: Items with fewer users are dropped next (200 on MSD).
        min_items_per_user: Users with fewer items are dropped last (5; 20 on MSD).
        held_out_users: Number of users held out for validation, and again for test.
        holdout_fraction: Fraction of a held-out user's items that become targets; their number is rounded down.
        seed: Seed of NumPy's legacy generator.
    """

    held_out_users: int = Field(ge=1)
    holdout_fraction: float = Field(0.2, gt=0, lt=1)
    seed: int = Field(98765, ge=0, lt=2**32)


@dataclass(frozen=True, eq=False)
class HeldOutUsers:
    """Users that a model is not trained on: what it is shown of them, and what it must find.

    Attributes:
        history: `[n, n_items]` ones (float32, sorted indices): the history shown to the model.
        targets: `[n, n_items]` ones: the held-out items. A row is empty where nothing could be held out.
        user_ids: `[n]` ids of the users.
    """

    history: csr_array
    targets: csr_array
    user_ids: np.ndarray

    def __post_init__(self) -> None:
        """Refuses matrices that do not fit together, and targets that are also in the history."""
        if self.history.shape != self.targets.shape or self.history.shape[0] != len(self.user_ids):
            raise InputError(
                "expected fold-in and targets of one shape and an id for each row, found "
                f"{self.history.shape}, {self.targets.shape} and {len(self.user_ids)} ids."
            )
        if shared := self.history.multiply(self.targets).nnz:
            raise InputError(f"{shared} events are both fold-in and target; each must be one or the other.")


@dataclass(frozen=True, eq=False)
class StrongGeneralization(Split):
    """Training users with all their events; validation and test users with fold-in and targets.

    Of four users, Bob is drawn for test and Dan for validation; the other two are for training::

          interactions         train            fold-in          targets
              a b c d e f          a b c d e        a b c d e        a b c d e
        Ann   x x x . . .    Ann   x x x . .
        Bob   x x x x x .                     Bob   x . x x x  Bob   . x . . .
        Cat   . x . x x .    Cat   . x . x x
        Dan   x x x x x x                     Dan   x x x . x  Dan   . . . x .

    No training user met item f, so it has no column, and Dan's event on it is dropped before a fifth of
    their other events is drawn.

    Attributes:
        train: `[n_train, n_items]` ones (float32, sorted indices), or the same rows in shards.
        user_ids: `[n_train]` ids, in the order of the rows.
        validation: Users to choose epochs and settings by.
        test: Users to report results on; None in a split for tuning.
        item_ids: `[n_items]` ids of the columns: the items of training users, in the order of their first
            appearance in the file.
        titles: `[n_items]` titles, or None.
        settings: The settings it was cut with; None for a split read from a vae_cf folder.
        counts: What each filter dropped; `events`, `users`, `items` and `density` after the filters (Mult-VAE's
            Table 1 divides by `train_items` instead of `items`); and for training, validation and test, the
            number of users, of events on each side, and of users left without targets or fold-in.
        digest: SHA-256 over the interactions and the settings, or over the files of a vae_cf folder.
        attributes: What an items file tells of the items, by name; see `tfvae.data.items_file`.
        lines: For each csv file of the authors' layout (by name, without suffix), the line of each entry of
            its matrix, counted from 0; empty if the order of the file is not known. Only `write_vae_cf` needs it.
    """

    protocol: ClassVar[str] = "strong-generalization"

    train: csr_array | RowShards
    user_ids: np.ndarray
    validation: HeldOutUsers
    test: HeldOutUsers | None
    item_ids: np.ndarray
    titles: np.ndarray | None
    settings: StrongGeneralizationSettings | None
    counts: dict[str, int | float]
    digest: str
    lines: Mapping[str, np.ndarray] = field(default_factory=dict)
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses parts of different widths, and users who are in two groups."""
        groups = [self.validation] if self.test is None else [self.validation, self.test]
        widths = [matrix.shape[1] for matrix in (self.train, *(group.history for group in groups))]
        if set(widths) != {self.n_items}:
            raise InputError(f"expected {self.n_items} columns, one per item id, found {widths}.")
        ids = np.concatenate([self.user_ids, *(group.user_ids for group in groups)])
        if self.train.shape[0] != len(self.user_ids) or np.unique(ids).size != ids.size:
            raise InputError("expected a user id for each training row, and no user in two groups.")

    def for_tuning(self) -> StrongGeneralization:
        """The split that a search is given: the same one without the test users."""
        return replace(self, test=None)

    def arrays(self) -> dict[str, np.ndarray]:
        """See :class:`Split`."""
        arrays = {
            "item_ids": self.item_ids,
            "train_user_ids": self.user_ids,
            **(self.train.arrays() if isinstance(self.train, RowShards) else pack("train", self.train)),
        }
        for name, group in (("validation", self.validation), ("test", self.test)):
            if group is None:
                continue
            arrays[f"{name}.user_ids"] = group.user_ids
            arrays |= pack(f"{name}.fold_in", group.history) | pack(f"{name}.targets", group.targets)
        if self.titles is not None:
            arrays["titles"] = self.titles
        return arrays | {f"lines.{name}": lines for name, lines in self.lines.items()}

    @classmethod
    def restored(cls, arrays: dict[str, np.ndarray], note: dict[str, Any]) -> Self:
        """See :class:`Split`."""
        settings = note["settings"]

        def group(name: str) -> HeldOutUsers:
            history, targets = unpack(f"{name}.fold_in", arrays), unpack(f"{name}.targets", arrays)
            return HeldOutUsers(history, targets, arrays[f"{name}.user_ids"])

        train: csr_array | RowShards = RowShards.of_arrays(arrays) or unpack("train", arrays)
        validation = group("validation")
        test = group("test") if "test.user_ids" in arrays else None
        lines = {name.removeprefix("lines."): a for name, a in arrays.items() if name.startswith("lines.")}
        matrices = {"train": train}
        for name, part in (("validation", validation), ("test", test)):
            if part is not None:
                matrices |= {f"{name}_tr": part.history, f"{name}_te": part.targets}
        for name, places in lines.items():
            if name not in matrices:
                continue
            whole = places.dtype.kind in "iu" and np.array_equal(np.sort(places), np.arange(matrices[name].nnz))
            if not whole:
                raise InputError(f"expected a line for each event of {name!r}, from 0 to {matrices[name].nnz - 1:,}.")
        return cls(
            train=train,
            user_ids=arrays["train_user_ids"],
            validation=validation,
            test=test,
            item_ids=arrays["item_ids"],
            titles=arrays.get("titles"),
            settings=None if settings is None else StrongGeneralizationSettings(**settings),
            counts=note["report"],
            digest=note["digest"],
            lines=lines,
        )


def strong_generalization(interactions: Interactions, settings: StrongGeneralizationSettings) -> StrongGeneralization:
    """Cuts interactions into training, validation and test users, exactly as the papers did.

    The users that pass the filters, ascending by id, are shuffled with the seed: the last `held_out_users`
    are for test, as many before them for validation, and the rest for training. The columns are the items of
    training users, in the order of their first appearance in the file; events of held-out users on other
    items are dropped. Then, for validation and for test, the generator is seeded anew, and
    `holdout_fraction` of the events of each user with five or more left (ascending by id) is drawn as
    targets, rounded down. The draws depend on the order of a user's events in the file: another order gives
    another split.

    Args:
        interactions: The raw data, before any filter; values matter only to `min_rating`.
        settings: Filters, counts and seed.

    Returns:
        The split, with counts of each step in `counts`.

    Raises:
        InputError: If no event passes the filters, no user would be left to train on, or no user in validation
            or in test has a target.
    """
    users, items, counts = filtered(interactions, settings)
    groups = drawn_groups(np.flatnonzero(np.bincount(users)), settings)
    key = split_digest(interactions.digest, settings)
    return of_groups(interactions, settings, groups, (users, items, counts), key)


def split_digest(events_digest: str, settings: StrongGeneralizationSettings) -> str:
    """The digest of the split of events with this digest."""
    return digest(StrongGeneralization.protocol, events_digest, settings.model_dump())


def drawn_groups(survivors: np.ndarray, settings: StrongGeneralizationSettings) -> list[np.ndarray]:
    """Draws the users of training, validation and test, in the order of their rows, from all that pass the filters.

    Raises:
        InputError: If no user would be left to train on.
    """
    n_train = survivors.size - 2 * settings.held_out_users
    if n_train < 1:
        raise InputError(
            f"expected more than {2 * settings.held_out_users:,} users (held_out_users="
            f"{settings.held_out_users:,} for validation, as many for test, the others train), found "
            f"{survivors.size:,} after filtering; hold out fewer than half of them, or filter less."
        )
    shuffled = survivors[np.random.RandomState(settings.seed).permutation(survivors.size)]
    return np.split(shuffled, [n_train, n_train + settings.held_out_users])


def of_groups(
    interactions: Interactions,
    settings: StrongGeneralizationSettings,
    groups: Sequence[np.ndarray],
    kept: tuple[np.ndarray, np.ndarray, dict[str, int | float]],
    key: str,
    first_items: np.ndarray | None = None,
) -> StrongGeneralization:
    """The split of given groups of users.

    Args:
        interactions: The raw data, before any filter.
        settings: Fraction and seed of the draw of targets, and what the split was filtered by.
        groups: The users of training, validation and test, in the order of their rows, as numbers in `interactions`.
        kept: What `filtered` returned.
        key: The digest of the split.
        first_items: [n_first] numbers in `interactions` of items whose columns come before the others', in this order;
            those that no training user has are left out. None leaves all in the order of their first appearance.

    Returns:
        The split.

    Raises:
        InputError: If no user in validation or in test has a target.
    """
    users, items, counts = kept
    sizes = [group.size for group in groups]
    uid_of = np.full(interactions.n_users, -1, dtype=np.int32)
    uid_of[np.concatenate(groups)] = np.arange(sum(sizes), dtype=np.int32)
    uids = uid_of[users]

    n_train = sizes[0]
    in_train = uids < n_train
    train_items = pd.unique(items[in_train])
    if first_items is not None:
        first = first_items[np.isin(first_items, train_items)]
        train_items = np.concatenate([first, train_items[~np.isin(train_items, first)]])
    column_of = np.full(interactions.n_items, -1, dtype=np.int32)
    column_of[train_items] = np.arange(train_items.size, dtype=np.int32)
    columns = column_of[items]
    train, train_lines = binary_rows(uids[in_train], columns[in_train], (n_train, train_items.size))

    lines, held_out, start = {"train": train_lines}, {}, n_train
    for name, members in zip(("validation", "test"), groups[1:], strict=True):
        own = (uids >= start) & (uids < start + members.size)
        known = own & (columns >= 0)
        counts[f"{name}_events_on_other_items"] = int(own.sum() - known.sum())
        shape = (members.size, train_items.size)
        (history, lines[f"{name}_tr"]), (targets, lines[f"{name}_te"]) = folded(
            users[known], uids[known] - start, columns[known], shape, settings
        )
        held_out[name] = HeldOutUsers(history, targets, interactions.user_ids[members])
        start += members.size

    return StrongGeneralization(
        train=train,
        user_ids=interactions.user_ids[groups[0]],
        validation=held_out["validation"],
        test=held_out["test"],
        item_ids=interactions.item_ids[train_items],
        titles=None if interactions.titles is None else interactions.titles[train_items],
        settings=settings,
        counts=counts | group_counts(train, **held_out),
        digest=key,
        lines=lines,
    )


def group_counts(train: csr_array | RowShards, validation: HeldOutUsers, test: HeldOutUsers) -> dict[str, int]:
    """Counts what each part of a split holds, and the users left without targets or fold-in.

    Raises:
        InputError: If no user in validation or in test has a target.
    """
    found = {"train_users": train.shape[0], "train_items": train.shape[1], "train_events": train.nnz}
    for name, group in (("validation", validation), ("test", test)):
        if not group.targets.nnz:
            raise InputError(
                f"none of the {len(group.user_ids):,} {name} users has an item to hold out; hold out more "
                f"users, or ones with at least {FEWEST_TO_SPLIT} items that training users have, too."
            )
        found[f"{name}_users"] = len(group.user_ids)
        for side, matrix in (("fold_in", group.history), ("targets", group.targets)):
            found[f"{name}_{side}"] = matrix.nnz
            found[f"{name}_users_without_{side}"] = int((np.diff(matrix.indptr) == 0).sum())
    return found


def folded(
    users: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    shape: tuple[int, int],
    settings: StrongGeneralizationSettings,
) -> list[tuple[csr_array, np.ndarray]]:
    """Fold-in and targets of one group, each as a matrix and the line of each entry.

    Args:
        users: `[n_events]` user rows, which ascend with the original ids, in file order.
        rows: `[n_events]` rows of the matrices.
        columns: `[n_events]` columns of the matrices.
        shape: Shape of both matrices.
        settings: Fraction and seed.
    """
    by_user = np.argsort(users, kind="stable")
    starts = np.flatnonzero(np.diff(users[by_user], prepend=-1))
    sizes = np.diff(starts, append=users.size)
    random = np.random.RandomState(settings.seed)
    target = np.zeros(users.size, dtype=bool)
    for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
        if size >= FEWEST_TO_SPLIT:
            target[start + random.choice(size, int(settings.holdout_fraction * size), replace=False)] = True
    sides = by_user[~target], by_user[target]
    return [binary_rows(rows[side], columns[side], shape) for side in sides]
