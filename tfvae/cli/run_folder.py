"""Run folders as the commands write and read them, with the split that suits the model.

A model that ranks is trained on a split with held-out users, some of them for validation. A model of ratings is trained
on the part of a rating hold-out that a sweep would use, so that its epoch is chosen on some of the training ratings.
The folder keeps the whole split, whose test ratings are for `tfvae evaluate`. The same holds for leave-one-out, the
protocol of models that only score their training users, and for weak generalisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from tfvae.cli.options import command
from tfvae.data.catalogue import DATASETS
from tfvae.data.items import ITEMS_FILE, Items
from tfvae.data.open_split import open_split
from tfvae.data.splits import (
    HeldOut,
    LeaveOneOut,
    RatingHoldout,
    Split,
    StrongGeneralization,
    WeakGeneralization,
    load_split,
)
from tfvae.evaluation.evaluate import evaluate
from tfvae.evaluation.results import RatingEvaluation
from tfvae.models import model_class
from tfvae.models.base import Recommender
from tfvae.serving.run_files import items_of, training_split
from tfvae.system.errors import InputError
from tfvae.training.loop import TrainedModel, load_run
from tfvae.training.run_folder import SPLIT_FILE, RunFolder

__all__ = [
    "finished",
    "is_saved",
    "items_of",
    "keep_split",
    "learnt_from",
    "measure",
    "next_commands",
    "refuse_another_split",
    "refuse_other_items",
    "say_trained",
    "served",
    "split_for",
    "training_split",
    "tuned_on",
]


OF_ALL_USERS = (LeaveOneOut.protocol, WeakGeneralization.protocol)  # which hold items of all users out


def split_for(
    model: str,
    data: str,
    by: str = "users",
    protocol: str | None = None,
    former: Split | None = None,
    **given: Any,
) -> Split:
    """Opens data with the split that a model needs.

    Args:
        model: The model's name in the registry.
        data: The data, as for `open_split`.
        by: The rows of the matrix that a model of ratings learns from, "users" or "items".
        protocol: The kind of split; None takes that of the data if they are already split, or the model's own.
        former: The split of a run that is retrained, which is continued and whose protocol is taken; see `open_split`.
        **given: Other arguments of `open_split`.

    Returns:
        A rating hold-out for a model of ratings, and leave-one-out for a model that only scores its training users. Any
        other model gets held-out users. A model that ranks gets items held out of each user instead, if the data come
        split in this way or `protocol` says so.

    Raises:
        InputError: If `open_split` raises it, if the protocol or a split that the data come with does not suit the
            model, if there is no test part, or if a model that ranks is to take items as rows.
    """
    kind = model_class(model)
    rates = kind.predicts_ratings
    if by == "items" and not rates:
        raise InputError(f"{model} ranks the items of users; only a model of ratings can take items as rows.")
    needed = RatingHoldout.protocol if rates else None if kind.scores_new_users else LeaveOneOut.protocol
    suits = (RatingHoldout.protocol,) if rates else OF_ALL_USERS
    if not rates and kind.scores_new_users:
        suits = (StrongGeneralization.protocol, *suits)
    if protocol is not None and protocol not in suits:
        raise InputError(f"{model} cannot learn from a split of kind {protocol!r}, only from {' or '.join(suits)}.")
    if former is not None:
        needed = former.protocol
    elif protocol is None and needed == LeaveOneOut.protocol and is_saved(data):
        found = load_split(data).protocol
        needed = found if found in suits else needed
    split = open_split(data, protocol=protocol or needed, former=former, **given)
    if split.protocol == RatingHoldout.protocol and not rates:
        raise InputError(f"{data} holds ratings out, of which {model} has no use; expected held-out users or items.")
    if split.test is None:
        raise InputError(f"{data} has nothing for test; expected a whole split, not its part for tuning.")
    return split.by_items() if by == "items" else split


def is_saved(data: str) -> bool:
    """Whether data are named by a saved split or its folder."""
    return data not in DATASETS and (Path(data).suffix == ".npz" or Path(data, SPLIT_FILE).is_file())


def learnt_from(split: Split) -> Split:
    """The split on which a model is trained, which has a validation part; prints its sizes if it is cut here."""
    if split.protocol == StrongGeneralization.protocol:
        return split
    part = split.for_tuning()
    if split.protocol == LeaveOneOut.protocol:
        typer.echo(
            f"Learns from {part.train.nnz:,} events; one item of each of {len(part.user_ids):,} users is for "
            "validation, where the best epoch is chosen, and one for 'tfvae evaluate'."
        )
        return part
    if split.protocol == WeakGeneralization.protocol:
        typer.echo(
            f"Learns from {part.train.nnz:,} events; {part.validation_part.targets.nnz:,} are for validation, where "
            f"the best epoch is chosen, and {split.test_part.targets.nnz:,} for 'tfvae evaluate'."
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
    """Evaluates a model on held-out data.

    Args:
        model: The model.
        held_out: The held-out data.
        metrics: Names of metrics; if empty, `default_metrics` are measured.

    Returns:
        The summary of each metric by name, and the numbers of users or ratings by name.

    Raises:
        InputError: If `evaluate` raises it, such as for an unknown metric.
    """
    measured = evaluate(model, held_out, metrics or None)
    if isinstance(measured, RatingEvaluation):
        return measured.summary(), {"ratings": len(measured.ratings)}
    return measured.summary(), {"users": measured.n_users, "users_without_targets": measured.n_without_targets}


def refuse_another_split(folder: Path, split: Split) -> None:
    """Refuses a folder that has another split, whether it is that of a run or was written by `tfvae prepare`.

    Raises:
        InputError: If the folder has another split, or a `split.npz` that cannot be read.
    """
    file = folder / SPLIT_FILE
    if file.is_file() and (found := load_split(file)).digest != split.digest:
        raise InputError(
            f"{file} is another split (digest {found.digest[:12]}) than that of these data and options "
            f"({split.digest[:12]}). Give another folder, or train on that split: {command('tfvae', 'fit', file)}"
        )


def refuse_other_items(folder: Path, split: Split) -> None:
    """Refuses a finished run whose items have other titles or attributes than those of a split.

    Raises:
        InputError: If they have, or the run's items cannot be read.
    """
    if RunFolder(folder).is_finished and (folder / ITEMS_FILE).is_file():
        if Items.load(folder).description != Items.of(split).description:
            raise InputError(
                f"{folder} was finished with other titles or attributes of its items, and stays as it is. Leave "
                "--items out, or train into another folder."
            )


def finished(folder: Path) -> tuple[TrainedModel, Split]:
    """A finished run and its whole split.

    Raises:
        InputError: If there is no finished run, or a file is missing, damaged or another run's.
    """
    return load_run(folder), training_split(folder)


def served(folder: Path) -> tuple[TrainedModel, Items]:
    """A finished run and its items.

    Raises:
        InputError: As for `finished`.
    """
    return load_run(folder), items_of(folder)


def tuned_on(run: RunFolder, split: Split) -> Split:
    """The part of a whole split on which a run was trained: the split, or its part for tuning."""
    return split if run.claim().data_digest == split.digest else split.for_tuning()


def keep_split(folder: Path, split: Split) -> None:
    """Keeps the whole split in a run folder, unless it has one."""
    if not (folder / SPLIT_FILE).is_file():
        split.save(folder / SPLIT_FILE)


def say_trained(folder: Path, finished: bool, trained: TrainedModel) -> None:
    """Prints what a training came to.

    Args:
        folder: The run folder.
        finished: Whether the run had been finished before the command.
        trained: The run.
    """
    if finished:
        typer.echo(f"{folder} was trained before; there is nothing left to do.")
    elif trained.best_epoch is not None:
        typer.echo(f"Best epoch: {trained.best_epoch + 1} of {trained.epochs}; {trained.seconds:,.0f} s of training")


def next_commands(folder: Path, split: Split, model: Recommender) -> None:
    """Prints the commands that a finished run can be given to next.

    Args:
        folder: The run folder.
        split: The whole split.
        model: The trained model.
    """
    rating = f"={split.scale[1]:g}" if split.scale else ""
    whom = f"--history={split.item_ids[0]}{rating}" if model.scores_new_users else f"--user={split.user_ids[0]}"
    typer.echo(f"Next: {command('tfvae', 'evaluate', folder)}")
    typer.echo(f"      {command('tfvae', 'recommend', folder, whom)}")
    if RunFolder(folder).tensorboard.is_dir():
        typer.echo(f"      {command('tensorboard', '--logdir', folder)}")
