"""Strong generalisation of data that have grown: users who were held out before are held out again."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tfvae.data.interactions import Interactions
from tfvae.data.splits.filters import filtered
from tfvae.data.splits.strong import StrongGeneralization, StrongGeneralizationSettings, of_groups
from tfvae.system.errors import InputError
from tfvae.system.files import digest

__all__ = ["continued_generalization", "places_in"]


def continued_generalization(
    interactions: Interactions, former: StrongGeneralization, settings: StrongGeneralizationSettings
) -> StrongGeneralization:
    """Cuts data anew so that a model of their former split can be trained further and still be evaluated.

    Users who were held out for validation or test are held out for the same again, if they are still in the data after
    the filters; so no model has learnt from them. All others are for training, also those who are new. So the number of
    held-out users does not grow with the data. The targets are drawn anew from what the held-out users have now.

    Rows and columns keep their former order, and new ones come last: the same data give the same matrices, and it does
    not matter in which order the items appear in the file.

    Args:
        interactions: The data as they are now, before any filter: those of the former split and all that came since.
        former: The former split, with its test part.
        settings: Filters, and the share and seed of the targets; `held_out_users` has no effect.

    Returns:
        The split.

    Raises:
        InputError: If no event passes the filters, if no user would be left to train on, or if none of those who were
            held out for validation or for test is still there with an item to hold out.

    Example:
        >>> import tfvae
        >>> from tfvae.data.synthetic import synthetic
        >>> cut = tfvae.StrongGeneralizationSettings(held_out_users=20)
        >>> former = tfvae.strong_generalization(synthetic(150, 40), cut)
        >>> now = tfvae.continued_generalization(synthetic(200, 50), former, cut)
        >>> set(now.validation.user_ids) == set(former.validation.user_ids), len(now.user_ids)
        (True, 160)
    """
    kept = filtered(interactions, settings)
    survivors = np.flatnonzero(np.bincount(kept[0], minlength=interactions.n_users))
    groups = []
    for name, part in (("validation", former.validation), ("test", former.test_part)):
        places = places_in(interactions.user_ids, part.user_ids)
        group = places[np.isin(places, survivors)]
        if not group.size:
            raise InputError(
                f"none of the {len(part.user_ids):,} users who were held out for {name} is among the "
                f"{survivors.size:,} of these data after the filters; expected the data as they are now, those of the "
                "former run and all that came since, with the same ids."
            )
        groups.append(group)
    places = places_in(interactions.user_ids, former.user_ids)
    known = places[np.isin(places, survivors)]
    held_out = np.concatenate(groups)
    new = np.setdiff1d(survivors, np.concatenate([known, held_out]))
    train = np.concatenate([known, new])
    if not train.size:
        raise InputError("all users of these data were held out by the former run; none is left to train on.")
    key = digest(
        StrongGeneralization.protocol,
        "continued",
        interactions.digest,
        settings.model_dump(),
        *(interactions.user_ids[group] for group in groups),
        former.item_ids,
        former.user_ids,
    )
    first_items = places_in(interactions.item_ids, former.item_ids)
    return of_groups(interactions, settings, [train, *groups], kept, key, first_items[first_items >= 0])


def places_in(ids: np.ndarray, sought: np.ndarray) -> np.ndarray:
    """Where ids are among others; numbers are found among texts by their digits.

    Args:
        ids: The ids that are searched, [n], each once.
        sought: The ids that are looked for, [m].

    Returns:
        int64 [m], the place of each in `ids`; −1 for those that are not there.

    Example:
        >>> places_in(np.array(["7", "a", "8"]), np.array([8, 9])).tolist()
        [2, -1]
    """
    if ids.dtype.kind in "iu" and sought.dtype.kind in "iu":
        return pd.Index(ids).get_indexer(pd.Index(sought))
    return pd.Index(ids.astype(str)).get_indexer(pd.Index(sought.astype(str)))
