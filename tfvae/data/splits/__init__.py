"""The four ways in which the papers divide interactions into training data and held-out data.

Strong generalisation (:mod:`.strong`) holds out users, the rating hold-out (:mod:`.ratings`) holds out
single ratings, leave-one-out (:mod:`.one_out`) holds out the last item of every user, and weak generalisation
(:mod:`.weak`) a share of every user's items. Each split is determined by its input and its settings, and is
saved with a digest of both.
"""

from __future__ import annotations

import os

from tfvae.data.splits.base import HeldOut, Split, read_split, restore
from tfvae.data.splits.continued import continued_generalization, places_in
from tfvae.data.splits.one_out import HeldOutItems, LeaveOneOut, LeaveOneOutSettings, leave_one_out
from tfvae.data.splits.ratings import HeldOutRatings, RatingHoldout, RatingHoldoutSettings, rating_holdout
from tfvae.data.splits.strong import (
    HeldOutUsers,
    StrongGeneralization,
    StrongGeneralizationSettings,
    strong_generalization,
)
from tfvae.data.splits.weak import (
    HeldOutShares,
    WeakGeneralization,
    WeakGeneralizationSettings,
    weak_generalization,
)
from tfvae.system.errors import unknown_name

__all__ = [
    "HeldOut",
    "HeldOutItems",
    "HeldOutRatings",
    "HeldOutShares",
    "HeldOutUsers",
    "LeaveOneOut",
    "LeaveOneOutSettings",
    "RatingHoldout",
    "RatingHoldoutSettings",
    "Split",
    "StrongGeneralization",
    "StrongGeneralizationSettings",
    "WeakGeneralization",
    "WeakGeneralizationSettings",
    "continued_generalization",
    "leave_one_out",
    "load_split",
    "places_in",
    "rating_holdout",
    "strong_generalization",
    "weak_generalization",
]

PROTOCOLS: dict[str, type[Split]] = {
    split.protocol: split for split in (StrongGeneralization, RatingHoldout, LeaveOneOut, WeakGeneralization)
}


def load_split(path: str | os.PathLike) -> Split:
    """Loads a saved split of whichever kind the file names.

    Args:
        path: The `.npz` file, or a folder with a `split.npz`.

    Returns:
        The split, equal in every array to the one that was saved.

    Raises:
        InputError: If there is no such file, it is not a split, or it is a split of an unknown kind.
    """
    arrays, note = read_split(path)
    if note["kind"] not in PROTOCOLS:
        raise unknown_name(f"kind of split in {path}:", note["kind"], PROTOCOLS)
    return restore(PROTOCOLS[note["kind"]], path, arrays, note)
