"""`tfvae ensemble`: one recommender of several finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tfvae.cli.display import show_counts_of, show_table
from tfvae.cli.json_output import AsJson, answer

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
    as_json: AsJson = False,
) -> None:
    """Make one recommender of several finished runs, by the weighted mean of their scores.

    The scores of models that rank are standardised for each user first; predicted ratings are averaged as they are. The
    result is a run folder like any other; the runs themselves are only read. To train an ensemble from the beginning:
    'tfvae fit DATA --model ensemble'.
    """
    typer.echo(f"Making an ensemble of {', '.join(map(str, runs))}, in {run}")

    # What follows takes seconds to load.
    from tfvae.cli.run_folder import keep_split, measure, next_commands, refuse_another_split, training_split, tuned_on
    from tfvae.data.items import Items
    from tfvae.models.ensemble import AnyEnsemble
    from tfvae.serving.quick import keep_quick_copy
    from tfvae.training.ensemble import ensemble as of_runs
    from tfvae.training.ensemble import refuse_other_data
    from tfvae.training.run_folder import RunFolder

    folders = [RunFolder(folder) for folder in runs]
    refuse_other_data(folders)
    split = training_split(runs[0])
    part = tuned_on(folders[0], split)
    refuse_another_split(run, split)
    finished = RunFolder(run).is_finished
    trained = of_runs(
        runs, part, run, weighting="equal" if equal else "validation", items=Items.of(split), log=typer.echo
    )
    keep_split(run, split)
    if finished:
        typer.echo(f"{run} was made before; there is nothing left to do.")
    model = trained.model
    assert isinstance(model, AnyEnsemble)
    keep_quick_copy(run, model)
    members: list[dict[str, Any]] = [
        {"run": str(member), "weight": weight}
        for member, weight in zip(runs, model.member_weights.numpy().tolist(), strict=True)
    ]
    told: dict[str, Any] = {"run": str(run), "made_before": finished, "members": members, "validation": None}
    counts: dict[str, int] = {}
    if part.validation is not None:
        for member, each in zip(members, model.recommenders, strict=True):
            member["metrics"], _ = measure(each, part.validation)
        summary, counts = measure(model, part.validation)
        told["validation"] = {"metrics": summary, **counts}
    answer(told, lambda: _show(told, counts))
    next_commands(run, split, model)


def _show(told: dict[str, Any], counts: dict[str, int]) -> None:
    if told["validation"] is None:
        return
    metrics = told["validation"]["metrics"]
    rows = [(member["run"], f"{member['weight']:.3f}", *_cells(member["metrics"])) for member in told["members"]]
    rows.append((told["run"], "", *_cells(metrics)))
    typer.echo("Validation:")
    show_table(("run", "weight", *metrics), rows, ("weight", *metrics))
    show_counts_of(counts)


def _cells(summary: dict[str, dict[str, float]]) -> list[str]:
    return [f"{value['mean']:.4f} ± {value['se']:.4f}" for value in summary.values()]
