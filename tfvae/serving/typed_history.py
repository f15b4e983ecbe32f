"""A history as a user types it: item ids as text, or parts of titles."""

from __future__ import annotations

from collections.abc import Sequence

from tfvae.data.items import Items
from tfvae.system.errors import InputError

__all__ = ["find_titles", "known_ids", "typed_item"]


def known_ids(items: Items, typed: Sequence[str]) -> tuple[list[int | str], list[str]]:
    """Separates typed ids into those of the model's items and unknown ones.

    Args:
        items: The model's items.
        typed: Ids as text.

    Returns:
        The known ids, in the type of the items' ids, and the unknown ones as text.

    Raises:
        InputError: If ids were typed and none is known.
    """
    ids = {str(item): item for item in items.item_ids.tolist()}
    known = [ids[text] for text in typed if text in ids]
    unknown = [text for text in typed if text not in ids]
    if unknown and not known:
        raise InputError(
            f"none of these ids is an item of the training data: {', '.join(unknown)}. "
            f"Ids look like {items.item_ids[0]}."
        )
    return known, unknown


def find_titles(items: Items, part: str) -> list[tuple[int | str, str]]:
    """Finds the items whose title contains a text, ignoring case.

    Args:
        items: The model's items.
        part: The text.

    Returns:
        Ids and titles; items with more training users come first.

    Raises:
        InputError: If the data have no titles, or no title contains the text.
    """
    if items.titles is None:
        raise InputError("these data have no titles; name the items by their ids.")
    found = [column for column, title in enumerate(items.titles) if part.casefold() in title.casefold()]
    if not found:
        raise InputError(f"no title contains {part!r}; try a shorter part of it.")
    found.sort(key=lambda column: -items.n_users[column])
    return [(items.item_ids[[column]].tolist()[0], str(items.titles[column])) for column in found]


def typed_item(items: Items, typed: str) -> tuple[int | str, list[tuple[int | str, str]]]:
    """The item that a text stands for: its id, or else a part of its title.

    Args:
        items: The model's items.
        typed: The text.

    Returns:
        The item's id; and if it was found by its title, the ids and titles of all items that the text fits, the best
        known first.

    Raises:
        InputError: If it is no id, and no title contains it.
    """
    ids = {str(item): item for item in items.item_ids.tolist()}
    if typed in ids:
        return ids[typed], []
    if items.titles is None or not typed:
        raise InputError(f"{typed!r} is none of the {items.n_items:,} items, whose ids look like {items.item_ids[0]}.")
    found = find_titles(items, typed)
    return found[0][0], found
