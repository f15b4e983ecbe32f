"""A tour in minutes: four recommenders on embedded data, through the same path as a paper's table.

Trains what is not trained yet, prints and writes the table with its learning curves, exports the model that is best
on the validation users, and recommends films to a newcomer.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

import tfvae
from tfvae.experiments.definitions import load_table
from tfvae.experiments.protocols import splits_of
from tfvae.experiments.runner import run_folder, run_table
from tfvae.serving.saved_model import export
from tfvae.system.files import write_text

DEFINITION = Path(__file__).with_suffix(".toml")
RESULTS = Path("runs/quickstart")
WORK = RESULTS / "work"
EXPORT = Path("exports/quickstart")
NEWCOMER_LIKES = ("Gravity (2013)", "The Dark Knight Rises (2012)", "Inception (2010)")


def main() -> None:
    """Runs the tour."""
    console = Console()
    write_text(RESULTS / "quickstart" / "table.toml", DEFINITION.read_text(encoding="utf-8"))
    runs = run_table("quickstart", "movietweetings", results=RESULTS, work=WORK)

    table = Table("model", *runs[0].metrics, title="Users never seen in training (mean ± standard error)")
    for run in runs:
        table.add_row(run.row, *(f"{cell['mean']:.3f} ± {cell['se']:.3f}" for cell in run.metrics.values()))
    console.print(table)

    best = max(runs, key=lambda run: run.validation)
    split = splits_of(load_table("quickstart", RESULTS), "movietweetings")(1, "users")
    model = tfvae.load_run(run_folder(best, WORK)).model
    export(model, split.item_ids, EXPORT, split.titles)
    console.print(f"{best.row} is best on the validation users; exported to {EXPORT}.")

    history = [item for item, title in zip(split.item_ids, split.titles, strict=True) if title in NEWCOMER_LIKES]
    ranking = tfvae.recommend(model, split.item_ids, [history], k=10, titles=split.titles)
    console.print(f"\nA newcomer likes {', '.join(NEWCOMER_LIKES)}. {best.row} recommends:")
    for rank, title in enumerate(ranking.titles[0], start=1):
        console.print(f"  {rank:2}. {title}", highlight=False)


if __name__ == "__main__":
    main()
