"""The pages of the stored runs: one for each row of a table on a data set, with the record of each of its seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from site_builder.places import ROOT
from site_builder.rendering import render
from tfvae.experiments.definitions import RESULTS, Row, Table, load_table
from tfvae.experiments.records import StoredRun, Sweep
from tfvae.experiments.rendering import named
from tfvae.experiments.results_folder import folder_of, runs_of, sweep_of

__all__ = ["page_of_row", "row_pages"]


def page_of_row(table: Table, dataset: str, row: Row) -> str:
    """The page of a row's stored runs, which for an alias is that of the row it stands for."""
    home, slug = row.stored_in(table.name)
    return f"results/{home}/{dataset}/{slug}.md"


def row_pages(table: Table, dataset: str, results: Path = ROOT / RESULTS) -> dict[str, str | Path]:
    """The pages of those rows of a table that are stored in it, and their files to be downloaded.

    Args:
        table: The table.
        dataset: The data set's name.
        results: The results folder.

    Returns:
        For each path in the site's sources, the text of a page or the file to be copied there.

    Raises:
        InputError: If a stored file cannot be read; the message names it.
    """
    made: dict[str, str | Path] = {}
    for row in table.rows:
        runs = [] if row.alias_of else runs_of(table.name, dataset, row, results)
        if not runs:
            continue
        sweep = sweep_of(table.name, dataset, row, results)
        page = page_of_row(table, dataset, row)
        files = [f"{row.slug}.seed{run.seed}.json" for run in runs]
        made[page] = render(
            "row.md.j2",
            page,
            table=table,
            dataset=named(dataset),
            row=row,
            runs=list(zip(runs, files, strict=True)),
            settings=_settings(runs),
            machines=_machines(runs),
            sweep=_shown_sweep(sweep),
            tuned_in=_tuned_in(table, row),
        )
        folder = folder_of(table.name, dataset, results)
        searched = [f"{row.slug}.sweep.json"] if (folder / f"{row.slug}.sweep.json").is_file() else []
        made |= {f"results/{table.name}/{dataset}/{name}": folder / name for name in [*files, *searched]}
    return made


def _settings(runs: list[StoredRun]) -> list[dict[str, Any]]:
    """The settings that all runs share with one value each, and those that differ with all their values."""
    names = dict.fromkeys(name for run in runs for name in run.settings if name not in ("model", "seed"))
    lines = []
    for name in names:
        values = list(dict.fromkeys(str(run.settings.get(name, "–")) for run in runs))
        lines.append({"name": name, "value": ", ".join(values), "by_hand": any(name in run.overrides for run in runs)})
    return lines


def _machines(runs: list[StoredRun]) -> list[dict[str, Any]]:
    """The machines and versions, each once, with the seeds that ran there."""
    seeds: dict[str, list[int]] = {}
    for run in runs:
        environment = run.environment
        versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
        where = f"{environment['device']}, {environment['cores']} cores, {environment['platform']}"
        seeds.setdefault(f"{where}; Python {environment['python']}, {versions}", []).append(run.seed)
    return [{"machine": machine, "seeds": found} for machine, found in seeds.items()]


def _shown_sweep(sweep: Sweep | None) -> dict[str, Any] | None:
    """A search as its table shows it: a column for each setting, a line for each trial."""
    if sweep is None or sweep.best is None:
        return None
    return {
        "monitor": sweep.monitor,
        "names": list(sweep.space),
        "trials": sweep.trials,
        "best": sweep.best.number,
        "seconds": sweep.seconds,
        "epochs": sweep.epochs,
    }


def _tuned_in(table: Table, row: Row) -> str | None:
    """Where the search lies that tuned a row, if it is another row's: "table/row"."""
    if row.tuning_from is None:
        return None
    home, slug = row.tuning_from.split("/")
    return f"{load_table(home).row(slug).name} (`{home}`)" if home != table.name else table.row(slug).name
