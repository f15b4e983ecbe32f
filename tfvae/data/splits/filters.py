"""The filters before a split: by rating, by an item's number of users, by a user's number of items."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import Field

from tfvae.data.interactions import Interactions
from tfvae.system.errors import InputError
from tfvae.system.validation import Strict

__all__ = ["FilterSettings", "filtered", "nothing_left", "table_counts"]


class FilterSettings(Strict):
    """How to filter events. Each filter is applied once, in this order, even if a later one undoes an earlier one.

    Attributes:
        min_rating: Events rated below this are dropped first (4 on ML-20M and Netflix); None keeps all.
        min_users_per_item: Items with fewer users are dropped next (200 on MSD).
        min_items_per_user: Users with fewer items are dropped last (5; 20 on MSD).
    """

    min_rating: float | None = None
    min_users_per_item: int = Field(0, ge=0)
    min_items_per_user: int = Field(5, ge=0)


def filtered(
    interactions: Interactions, settings: FilterSettings
) -> tuple[np.ndarray, np.ndarray, dict[str, int | float]]:
    """The events that pass the filters, in file order.

    Args:
        interactions: The events.
        settings: The filters.

    Returns:
        User rows and item columns of the events that stay, both int32 [n_events], and counts of what was read, of what
        each filter dropped, and of what is left (see `table_counts`).

    Raises:
        InputError: If no event passes.
    """
    users, items, values = interactions.users, interactions.items, interactions.values
    counts: dict[str, int | float] = {"events_read": users.size}
    if settings.min_rating is not None:
        liked = values >= settings.min_rating
        users, items = users[liked], items[liked]
    counts["events_below_min_rating"] = counts["events_read"] - users.size

    before, popular = users.size, _frequent(items, settings.min_users_per_item)
    users, items = users[popular], items[popular]
    counts["events_of_dropped_items"] = before - users.size

    before, active = users.size, _frequent(users, settings.min_items_per_user)
    users, items = users[active], items[active]
    counts["events_of_dropped_users"] = before - users.size
    if not users.size:
        raise nothing_left(counts, settings)
    counts |= table_counts(users.size, *(int(np.count_nonzero(np.bincount(kept))) for kept in (users, items)))
    return users, items, counts


def nothing_left(counts: Mapping[str, int | float], settings: FilterSettings) -> InputError:
    """The error for filters that no event passes; `counts` says what each of them dropped."""
    return InputError(
        f"none of {counts['events_read']:,} events passes the filters: "
        f"{counts['events_below_min_rating']:,} rated below min_rating={settings.min_rating}, then "
        f"{counts['events_of_dropped_items']:,} on items with fewer than "
        f"min_users_per_item={settings.min_users_per_item} users, then "
        f"{counts['events_of_dropped_users']:,} of users with fewer than "
        f"min_items_per_user={settings.min_items_per_user} items; lower the one that drops too much."
    )


def table_counts(n_events: int, n_users: int, n_items: int) -> dict[str, int | float]:
    """Size and density of the interactions that were kept."""
    return {"events": n_events, "users": n_users, "items": n_items, "density": n_events / (n_users * n_items)}


def _frequent(numbers: np.ndarray, least: int) -> np.ndarray:
    return np.bincount(numbers)[numbers] >= least
