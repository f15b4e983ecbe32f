"""`tfvae evaluate`: the metrics of a finished run."""

from __future__ import annotations

from typing import Annotated

import typer

from tfvae.cli import options as opt
from tfvae.cli.display import show_metrics
from tfvae.cli.json_output import AsJson, answer

__all__ = ["EXAMPLES", "evaluate"]

EXAMPLES = ("tfvae evaluate runs/ml-1m-mult-vae --metrics ndcg@10,recall@10",)


def evaluate(
    run: opt.RunFolder,
    metrics: Annotated[
        str,
        typer.Option(
            metavar="NAME@K,…",
            help="Of ndcg, recall, uncapped-recall (divided by all held-out items) and hr, each with its cut-off; "
            "ndcg@100,recall@20,recall@50 if not given. Of ratings rmse and mae.",
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Measure a finished run on the test users or ratings; the result is also written to evaluation.json."""
    from tfvae.cli.run_folder import finished, measure
    from tfvae.system.environment import commit, environment
    from tfvae.system.files import write_json

    trained, split = finished(run)
    summary, counts = measure(trained.model, split.test_part, opt.listed(metrics))
    outcome = {
        "metrics": summary,
        **counts,
        "data_digest": split.digest,
        "environment": environment(),
        "commit": commit(),
    }
    answer({"run": run, **outcome}, lambda: show_metrics(summary, counts))
    try:
        write_json(run / "evaluation.json", outcome)
    except OSError as problem:
        typer.echo(f"Not written to {run / 'evaluation.json'}: {problem}", err=True)
