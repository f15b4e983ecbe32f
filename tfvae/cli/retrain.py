"""`tfvae fit DATA --from RUN`: a finished run goes on with the data as they are now, in a run folder of its own."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tfvae.cli.display import show_table
from tfvae.cli.json_output import answer
from tfvae.system.errors import InputError

if TYPE_CHECKING:
    from tfvae.data.items_file import ItemTable
    from tfvae.data.splits import Split
    from tfvae.training.retraining import Planned, RetrainingReport
    from tfvae.training.settings import Detail

__all__ = ["retrain"]


def retrain(
    data: str,
    former_run: Path,
    *,
    model: str | None,
    run: Path | None,
    settings: Mapping[str, Any],
    by: str,
    protocol: str | None,
    table: ItemTable | None,
    tensorboard: Detail,
    log_to: str | None,
    **given: Any,
) -> None:
    """Trains the model of a finished run further, and prints what moved.

    Args:
        data: The data as they are now, as for `open_split`.
        former_run: The folder of the finished run.
        model: The name of the model that was asked for; None for that of the run.
        run: The run folder to write; None for a new one in `runs/`.
        settings: Settings that differ from the run's, by name.
        by: The rows of the matrix that were asked for, "users" or "items".
        protocol: The kind of split that was asked for; None for that of the run.
        table: What an items file tells of the items, or None.
        tensorboard: What is logged for TensorBoard, as by `--tensorboard`.
        log_to: "mlflow", or None, as of `--log`.
        **given: Other arguments of `open_split`.

    Raises:
        InputError: If the run is not finished or cannot be retrained, or whatever is given does not suit it.
    """
    from tfvae.cli.run_folder import (
        keep_split,
        learnt_from,
        next_commands,
        refuse_another_split,
        refuse_other_items,
        say_trained,
        split_for,
    )
    from tfvae.cli.run_folder import training_split as split_of
    from tfvae.data.items import Items
    from tfvae.data.sources import stem
    from tfvae.serving.quick import keep_quick_copy
    from tfvae.training.mlflow_log import in_mlflow
    from tfvae.training.retraining import planned
    from tfvae.training.retraining import retrain as of_run
    from tfvae.training.run_folder import RunFolder

    plan = planned(former_run, settings)
    name = plan.settings.name
    if model not in (None, name):
        raise InputError(f"{former_run} is a run of {name}, and stays one; leave --model {model} out, or --from.")
    if run is not None and run.resolve() == former_run.resolve():
        raise InputError(f"--from {former_run} is only read; give the new run another folder than that (--run).")
    former = split_of(former_run)
    rows = _rows_of(former)
    if by == "items" and rows != by:
        raise InputError(f"{former_run} has users as rows, not items; leave --by out.")
    split = split_for(name, data, rows, protocol, former=former, items=table, **given)
    part = learnt_from(split)
    usual = f"{stem(data)}-{name}" + ("-by-items" if rows == "items" else "")
    folder = run or _new_folder(usual, plan, part.digest, former_run)
    refuse_another_split(folder, split)
    if table is not None:
        refuse_other_items(folder, split)
    finished = RunFolder(folder).is_finished
    told: Any = {"former": former, "changes": settings, "items": Items.of(split), "log": typer.echo}
    with in_mlflow(folder, typer.echo) if log_to == "mlflow" else nullcontext() as follow:
        found = of_run(former_run, part, folder, follow=follow, tensorboard=tensorboard, **told)
    keep_split(folder, split)
    trained = found.trained
    keep_quick_copy(folder, trained.model)
    say_trained(folder, finished, trained)
    document = {"run": folder, "from": former_run, "model": name, "trained_before": finished, "epochs": trained.epochs}
    answer(document | {"retrained": found.report.model_dump()}, lambda: _show(found.report, split, rows))
    next_commands(folder, split, trained.model)


def _rows_of(split: Split) -> str:
    """The rows of a split, "users" or "items"; its counts do not change where they are exchanged."""
    from tfvae.data.splits import RatingHoldout

    by_items = isinstance(split, RatingHoldout) and split.counts.get("users") != len(split.user_ids)
    return "items" if by_items else "users"


def _new_folder(name: str, plan: Planned, data_digest: str, former_run: Path) -> Path:
    """The first of runs/NAME, runs/NAME-2 and so on that is free, or has the very run that is to be trained."""
    from tfvae.training.run_folder import RunFolder

    for number in count(1):
        folder = Path("runs", name if number == 1 else f"{name}-{number}")
        if folder.resolve() == former_run.resolve():
            continue
        with suppress(InputError):
            if not folder.exists() or RunFolder(folder).refuse_others(plan.settings, data_digest, plan.started_from):
                return folder
    raise AssertionError("there is always a free number")


def _show(report: RetrainingReport, split: Split, rows: str) -> None:
    """Prints what moved, and the metrics before and after."""
    from tfvae.data.splits import StrongGeneralization

    if rows == "items":
        moved = {"items": report.users, "users": report.items}
    elif report.held_out_users is None:
        moved = {"items": report.items, "users": report.users}
    else:
        moved = {"items": report.items, "training users": report.users, "held-out users": report.held_out_users}
    lines = [(name, *(f"{number:,}" for number in (one.kept, one.joined, one.left))) for name, one in moved.items()]
    show_table(("", "kept", "in", "out"), lines, ("kept", "in", "out"))
    if not report.metrics:
        typer.echo("The former model knows nothing of the validation part, so that there is no value to compare with.")
        return
    what = "ratings" if split.scale else "users"
    typer.echo(f"Validation, before and after on the same {report.measured:,} {what}:")
    numbers = ("before", "after", "difference", "s.e.")
    cells = [
        (
            name,
            f"{one.before:.4f}",
            f"{one.after:.4f}",
            f"{one.difference:+.4f}",
            "–" if one.se is None else f"± {one.se:.4f}",
        )
        for name, one in report.metrics.items()
    ]
    show_table(("metric", *numbers), cells, numbers)
    if not isinstance(split, StrongGeneralization):
        typer.echo(
            "The former model may have learnt from some of what is held out now, so that it looks too good here."
        )
    elif report.learnt_before:
        typer.echo(
            f"The former model had learnt from {report.learnt_before:,} of these users, so that it looks too good here."
        )
