"""A history as the options of a command have it: ids, a file of ids, parts of titles, and ratings."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from tfvae.cli.options import listed, rated
from tfvae.data.items import Items
from tfvae.serving.typed_history import find_titles, known_ids
from tfvae.system.errors import InputError
from tfvae.system.files import reading

__all__ = ["history_parts", "typed_history"]


def history_parts(items: Items, given: Sequence[str], file: str) -> list[str]:
    """The single items of a history that was typed or is in a file.

    Args:
        items: The model's items.
        given: Texts with one item each, or several between commas. A text that is an item's id as a whole is one item,
            even if it has commas.
        file: A file with one item per line, "-" for the standard input, or "" for none.

    Returns:
        The items as text, with their ratings if these were given.

    Raises:
        InputError: If the file cannot be read.
    """
    known = set(map(str, items.item_ids.tolist()))
    parts = []
    for text in given:
        whole = text in known or text.rpartition("=")[0] in known
        parts += [text] if whole else listed(text)
    if file:
        with reading(file, "a list of items in UTF-8, one a line"):
            content = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8-sig")
        parts += [line for line in content.split("\n") if line.strip()]
    return parts


def typed_history(
    items: Items, history: Sequence[str], like: Sequence[str], rates: bool
) -> tuple[list[int | str], list[float]]:
    """Looks up the items of a typed history; prints the ids that are left out and the title that each text stands for.

    Args:
        items: The model's items.
        history: Item ids, each with "=RATING" for a model of ratings.
        like: Parts of titles, likewise with "=RATING".
        rates: Whether the model predicts ratings.

    Returns:
        The ids of the items, and a rating for each; no ratings for a model that ranks.

    Raises:
        InputError: If a rating is missing or is given to a model that ranks, if none of the ids is known, or if no
            title contains a text.
    """
    ratings: list[float] = []
    liked: list[float] = []
    if rates:
        (history, ratings), (like, liked) = rated(history), rated(like)
    else:
        _refuse_ratings(items, history)
    ids, unknown = known_ids(items, history)
    ratings = [rating for name, rating in zip(history, ratings, strict=False) if name not in unknown]
    if unknown:
        typer.echo(f"Not in the training data, left out: {', '.join(unknown)}", err=True)
    for part in like:
        (item, title), *others = find_titles(items, part)
        more = ", ".join(f"{name} ({other})" for other, name in others[:3])
        typer.echo(f"'{part}' is taken for {title} ({item})" + (f"; there are also: {more}" if more else ""))
        ids.append(item)
    return ids, ratings + liked


def _refuse_ratings(known: Items, history: Sequence[str]) -> None:
    items = set(map(str, known.item_ids.tolist()))
    for part in history:
        name = part.rpartition("=")[0].strip()
        if part not in items and name in items:
            raise InputError(
                f"this model ranks by what is in a history, not by ratings; give {name} instead of {part}."
            )
