"""What `tfvae recommend` does for many people at once: it checks all input before it loads the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tfvae.cli.json_output import answer
from tfvae.system.errors import InputError

if TYPE_CHECKING:
    from tfvae.cli.rules import RuleOptions
    from tfvae.data.histories import Histories

__all__ = ["to_everybody"]


def to_everybody(run: Path, users: str, columns: dict[str, Any], out: Path, k: int, given: RuleOptions) -> None:
    """Writes the rankings of everybody in a file, or of all training users.

    Args:
        run: The folder of a finished run.
        users: A file of events, "-" for standard input, or "" for the training users.
        columns: Arguments of `Histories.from_file`.
        out: The file to write.
        k: Length of the rankings.
        given: What may be recommended.

    Raises:
        InputError: If there is no finished run, or as for `Histories.from_file`, `Rules` and `recommend_to_all`.
    """
    from tfvae.data.event_files import file_kind
    from tfvae.serving.ranking_files import refuse_output

    # Before TensorFlow is loaded, which takes seconds.
    refuse_output(out)
    if users not in ("", "-"):
        file_kind(Path(users))
        if out.exists() and out.samefile(users):
            raise InputError(f"{out} is the file of histories; give --out another name.")

    from tfvae.cli.run_folder import items_of, training_split
    from tfvae.data.histories import Histories
    from tfvae.models import model_class
    from tfvae.serving.everybody import recommend_to_all
    from tfvae.training.loop import load_run
    from tfvae.training.run_folder import RunFolder
    from tfvae.training.settings import stored_settings

    folder = RunFolder(run)
    folder.refuse_unfinished()
    name = stored_settings(folder.claim().settings).name
    if users and not model_class(name).scores_new_users:
        raise InputError(
            f"{name} serves its training users only, and cannot answer for new histories; recommend to those, "
            "--all-users."
        )
    items = items_of(run)
    rules = given.rules(run, items)
    if users:
        histories = Histories.from_file(users, items, **columns)
        _tell(histories)
    else:
        histories = Histories.of_training(training_split(run))
    written = recommend_to_all(load_run(run).model, items, histories, out, k, rules)
    answer(
        {"out": out, "rows": written.n_rows, "users": written.n_users, "users_without": written.n_without},
        lambda: typer.echo(f"Written: {out}, {written.n_rows:,} rows for {written.n_users:,} users"),
    )
    if written.n_without:
        typer.echo(f"No row: {written.n_without:,} users, to whom nothing is left to recommend", err=True)


def _tell(histories: Histories) -> None:
    """Prints what of a file's events the model does not know, in a line each."""
    if histories.n_unknown:
        ids = histories.unknown_items.tolist()
        examples = ", ".join(map(str, ids[:3])) + (", …" if len(ids) > 3 else "")
        typer.echo(
            f"Not in the training data, left out: {histories.n_unknown:,} of {histories.n_events:,} events, with "
            f"{len(ids):,} different item{'s' * (len(ids) > 1)} ({examples})",
            err=True,
        )
    if histories.n_empty:
        typer.echo(
            f"Without any known item: {histories.n_empty:,} of {histories.n_users:,} users, who get what the model "
            "recommends to somebody of whom nothing is known",
            err=True,
        )
