"""`tfvae ensemble`: one recommender of several finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfvae.cli.display import show_counts_of, show_table

__all__ = ["EXAMPLES", "ensemble"]

EXAMPLES = (
    "tfvae ensemble runs/ml-1m-edlae runs/ml-1m-recvae runs/ml-1m-cdae --run runs/ml-1m-three",
    "tfvae ensemble runs/ml-1m-p-vae runs/ml-1m-bias-mf --run runs/ml-1m-ratings --equal",
)


def ensemble(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="The folders of two or more finished runs, trained on the same split."),
    ],
    run: Annotated[Path, typer.Option(help="The run folder to write.")],
    equal: Annotated[
        bool, typer.Option("--equal", help="Give all the same weight, instead of choosing weights on validation data.")
    ] = False,
) -> None:
    """Make one recommender of several finished runs, by the weighted mean of their scores.

    The scores of models that rank are standardised for each user first; predicted ratings are averaged as they are. The
    result is a run folder like any other; the runs themselves are only read. To train an ensemble from the beginning:
    'tfvae fit DATA --model ensemble'.
    """
    from tfvae.cli.run_folder import measure, next_commands, refuse_another_split, training_split, tuned_on
    from tfvae.data.items import Items
    from tfvae.models.ensemble import AnyEnsemble
    from tfvae.training.ensemble import ensemble as of_runs
    from tfvae.training.ensemble import refuse_other_data
    from tfvae.training.run_folder import SPLIT_FILE, RunFolder

    folders = [RunFolder(folder) for folder in runs]
    refuse_other_data(folders)
    split = training_split(runs[0])
    part = tuned_on(folders[0], split)
    refuse_another_split(run, split)
    finished = RunFolder(run).is_finished
    trained = of_runs(
        runs, part, run, weighting="equal" if equal else "validation", items=Items.of(split), log=typer.echo
    )
    if not (run / SPLIT_FILE).is_file():
        split.save(run / SPLIT_FILE)
    if finished:
        typer.echo(f"{run} was made before; there is nothing left to do.")
    model = trained.model
    assert isinstance(model, AnyEnsemble)
    if part.validation is not None:
        rows, counts = [], dict[str, int]()
        measured = [*zip(map(str, runs), model.recommenders, strict=True), (str(run), model)]
        weights = [*(f"{weight:.3f}" for weight in model.member_weights.numpy()), ""]
        for (name, each), weight in zip(measured, weights, strict=True):
            summary, counts = measure(each, part.validation)
            rows.append((name, weight, *(f"{value['mean']:.4f} ± {value['se']:.4f}" for value in summary.values())))
        typer.echo("Validation:")
        show_table(("run", "weight", *summary), rows, ("weight", *summary))
        show_counts_of(counts)
    next_commands(run, split, model)
