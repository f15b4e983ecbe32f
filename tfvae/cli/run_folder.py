"""Run folders as the commands make and read them: a split that suits the model, kept beside it, and its questions.

A model that ranks learns from a split by users, of which a part is for validation. A model of ratings learns from the
part of a rating hold-out that a search is given, so that its epoch is chosen on training ratings; the folder keeps the
whole split, whose test ratings are still to be asked. So it is with leave-one-out, which a model that knows nobody but
its training users needs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import typer

from tfvae.cli.options import command, listed, rated
from tfvae.data.items import ITEMS_FILE, Items
from tfvae.data.open_split import open_split
from tfvae.data.splits import HeldOut, LeaveOneOut, RatingHoldout, Split, StrongGeneralization, load_split
from tfvae.evaluation.evaluate import evaluate
from tfvae.evaluation.results import RatingEvaluation
from tfvae.models import model_class
from tfvae.models.base import Recommender
from tfvae.serving.typed_history import find_titles, known_ids
from tfvae.system.errors import InputError
from tfvae.system.files import reading
from tfvae.training.loop import TrainedModel, load_run
from tfvae.training.run_folder import SPLIT_FILE, RunFolder

__all__ = [
    "common_items",
    "finished",
    "history_parts",
    "learnt_from",
    "measure",
    "refuse_another_split",
    "served",
    "split_for",
    "training_split",
    "typed_history",
]


def split_for(model: str, data: str, by: str = "users", **given: Any) -> Split:
    """Opens data as a model needs them.

    Args:
        model: The model's name in the registry.
        data: What `open_split` takes.
        by: What a model of ratings takes as rows, "users" or "items".
        **given: Other arguments of `open_split`.

    Returns:
        Held-out ratings for a model of ratings; one held-out item of each user for a model of its training users, and
        for any that ranks where the data come so split; else held-out users.

    Raises:
        InputError: As `open_split` does, if what is held out is not to be had, or rows are to be items of a model that
            ranks.
    """
    kind = model_class(model)
    rates = kind.predicts_ratings
    if by == "items" and not rates:
        raise InputError(f"{model} ranks the items of users; only a model of ratings can take items as rows.")
    needed = RatingHoldout.protocol if rates else None if kind.scores_new_users else LeaveOneOut.protocol
    split = open_split(data, protocol=needed, **given)
    if split.protocol == RatingHoldout.protocol and not rates:
        raise InputError(f"{data} holds ratings out, of which {model} has no use; expected held-out users or items.")
    if split.test is None:
        raise InputError(f"{data} has nothing for test; expected a whole split, not its part for tuning.")
    return split.by_items() if by == "items" else split


def learnt_from(split: Split) -> Split:
    """The split that a model is trained on: it has a validation part; says so where that is cut here."""
    if split.protocol == StrongGeneralization.protocol:
        return split
    part = split.for_tuning()
    if split.protocol == LeaveOneOut.protocol:
        typer.echo(
            f"Learns from {part.train.nnz:,} events; one item of each of {len(part.user_ids):,} users is for "
            "validation, where the best epoch is chosen, and one for 'tfvae evaluate'."
        )
        return part
    typer.echo(
        f"Learns from {part.train.nnz:,} ratings; {part.validation_part.targets.nnz:,} are for validation, where the "
        f"best epoch is chosen, and {split.test_part.targets.nnz:,} for 'tfvae evaluate'."
    )
    return part


def measure(
    model: Recommender, held_out: HeldOut, metrics: Sequence[str] = ()
) -> tuple[dict[str, dict[str, float]], dict[str, int]]:
    """Evaluates a model.

    Args:
        model: The model.
        held_out: What it is asked.
        metrics: Names; the usual ones if there are none.

    Returns:
        The summary of each metric, and how many users or ratings it is of, by name.

    Raises:
        InputError: If a metric is unknown.
    """
    measured = evaluate(model, held_out, metrics or None)
    if isinstance(measured, RatingEvaluation):
        return measured.summary(), {"ratings": len(measured.ratings)}
    return measured.summary(), {"users": measured.n_users, "users_without_targets": measured.n_without_targets}


def refuse_another_split(folder: Path, split: Split) -> None:
    """Refuses a folder that another split lies in, be it a run's or one that `tfvae prepare` wrote.

    Raises:
        InputError: If there is one, or a `split.npz` that cannot be read.
    """
    file = folder / SPLIT_FILE
    if file.is_file() and (found := load_split(file)).digest != split.digest:
        raise InputError(
            f"{file} is another split (digest {found.digest[:12]}) than that of these data and options "
            f"({split.digest[:12]}). Give another folder, or train on that split: {command('tfvae', 'fit', file)}"
        )


def finished(folder: Path) -> tuple[TrainedModel, Split]:
    """A finished run and its whole split.

    Raises:
        InputError: If there is no finished run, or its files are not all its own.
    """
    return load_run(folder), training_split(folder)


def served(folder: Path) -> tuple[TrainedModel, Items]:
    """A finished run and its items, for which no split is read unless the run is older than `items.npz`.

    Raises:
        InputError: As `finished` does.
    """
    trained = load_run(folder)
    if (folder / ITEMS_FILE).is_file():
        return trained, Items.load(folder)
    return trained, Items.of(training_split(folder))


def training_split(folder: Path) -> Split:
    """The split of a run; raises InputError where there is none, or it is not the one that was trained on."""
    split = load_split(folder / SPLIT_FILE)
    RunFolder(folder).refuse_another_split([split.digest, split.tuning_digest])
    return split


def common_items(items: Items, min_users: int) -> np.ndarray | None:
    """Which items so many training users have at least, bool [n_items]; None for no minimum.

    Raises:
        InputError: If there is no such item.
    """
    if not min_users:
        return None
    most = items.n_users.max()
    if most < min_users:
        raise InputError(f"no item has {min_users:,} training users, the most common has {most:,}; lower it.")
    return items.n_users >= min_users


def history_parts(items: Items, given: Sequence[str], file: str) -> list[str]:
    """The items of a history, one each, from what was typed and from a file.

    Args:
        items: The model's items.
        given: Each an item, or several between commas; what is an item as a whole is one, commas and all.
        file: A file with an item a line, "-" for the standard input, or "" for none.

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
    """A person's history as it was typed; says which ids are left out and what titles are taken for.

    Args:
        items: The model's items.
        history: Item ids, each with "=RATING" for a model of ratings.
        like: Parts of titles, likewise.
        rates: Whether the model is one of ratings.

    Returns:
        Ids of items, and the rating of each; no ratings for a model that ranks.

    Raises:
        InputError: If a rating is missing or has no use, or nothing typed is known.
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
