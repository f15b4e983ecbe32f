"""The pages of the results: every table on every data set it was run on, from the same summaries as the tables' own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from site_builder.large_data import expected_times, large_data_page
from site_builder.places import ROOT, link
from site_builder.rendering import render
from site_builder.runs import page_of_row, row_pages
from tfvae.evaluation.metrics import lower_is_better
from tfvae.experiments.claims import Judged, claims_by_dataset
from tfvae.experiments.definitions import RESULTS, Table, load_table, table_names
from tfvae.experiments.page import Page
from tfvae.experiments.rendering import named
from tfvae.experiments.report import attribute_lines
from tfvae.experiments.results_folder import datasets_of, stored_attributes
from tfvae.experiments.sections import PICTURES, notes, written
from tfvae.experiments.summaries import Cells, cells_of
from tfvae.system.errors import InputError

__all__ = ["Tables", "result_pages"]

OWN = "On equal terms"
SHOWN_APART = ("results", "command")
"""Sections of a table's own page that the site writes itself."""


class Tables:
    """All tables with their stored runs, read once.

    Args:
        results: The results folder.

    Attributes:
        tables: The tables, by name; leaderboards first, then tfvae's own, then the papers'.
        cells: The rows of each table, by the names of table and data set.

    Raises:
        InputError: If a stored file cannot be read; the message names it.
    """

    def __init__(self, results: Path = ROOT / RESULTS):
        self.results = results
        found = [load_table(name, results) for name in table_names(results)]
        ordered = sorted(found, key=lambda table: (table.budget is None, table.paper or "", table.name))
        self.tables = {table.name: table for table in ordered}
        self.cells: dict[tuple[str, str], list[Cells]] = {}
        for table in ordered:
            for dataset in datasets_of(table, results):
                self.cells[table.name, dataset] = cells_of(table, dataset, results) if table.kind == "ranking" else []

    def datasets(self, table: Table) -> list[str]:
        """The data sets on which a table has results."""
        return [dataset for name, dataset in self.cells if name == table.name]

    def rows_of(self, model: str) -> Iterator[tuple[Table, str, Cells]]:
        """The rows of a model that have runs, each once: with the table in which it is stored, and the data set."""
        for (name, dataset), rows in self.cells.items():
            for cells in rows:
                if cells.row.model == model and cells.runs and not cells.row.alias_of:
                    yield self.tables[name], dataset, cells


def result_pages(tables: Tables) -> dict[str, str | Path]:
    """All pages of the results and the files beside them.

    Args:
        tables: The tables with their stored runs.

    Returns:
        For each path in the site's sources, the text of a page or the file to be copied there.

    Raises:
        InputError: If a stored file cannot be read; the message names it.
    """
    made: dict[str, str | Path] = {}
    for table in tables.tables.values():
        if tables.datasets(table) or table.published:
            made[f"results/{table.name}/index.md"] = _table_page(tables, table)
        for dataset in tables.datasets(table):
            if table.kind == "data-attributes":
                made |= _attributes_page(tables, table, dataset)
                continue
            made |= _dataset_page(tables, table, dataset)
            made |= row_pages(table, dataset, tables.results)
    made["results/index.md"] = render("results.md.j2", "results/index.md", groups=_groups(tables))
    made["results/holds.md"] = render("holds.md.j2", "results/holds.md", boards=_boards(tables))
    made["results/large-data.md"] = large_data_page(list(tables.tables.values()))
    return made


def _dataset_page(tables: Tables, table: Table, dataset: str) -> dict[str, str | Path]:
    """A table on a data set, with the pictures that it shows."""
    page = f"results/{table.name}/{dataset}/index.md"
    rows = tables.cells[table.name, dataset]
    content = Page(_of_runs(table, rows), dataset, tables.results, [cells for cells in rows if cells.runs], draw=False)
    sections = {name: text for name, text in written(content).items() if name not in SHOWN_APART}
    text = render(
        "dataset.md.j2",
        page,
        table=table,
        dataset=named(dataset),
        rows=[_with_links(cells, table, dataset, page) for cells in rows if cells.runs or cells.published],
        missing=[cells.row.name for cells in rows if cells.row.model and not cells.runs],
        compared=[metric for metric in table.metrics if any(metric in cells.published for cells in rows)],
        lower=[metric for metric in table.metrics if lower_is_better(metric)],
        notes=notes(content),
        sections=list(sections.values()),
    )
    shown = [name for name in PICTURES if f"]({name})" in text]
    return {page: text} | {f"results/{table.name}/{dataset}/{name}": _picture(content.folder / name) for name in shown}


def _picture(path: Path) -> Path:
    """The file of a picture; raises InputError if it is missing."""
    if not path.is_file():
        raise InputError(f"{path} is missing. Run its table again, which draws it: nothing else is run that is stored.")
    return path


def _of_runs(table: Table, rows: list[Cells]) -> Table:
    """The table with only those of its claims whose rows were both run."""
    ran = {cells.row.slug for cells in rows if cells.runs}
    claims = [claim for claim in table.orderings if {claim.above, claim.below} <= ran]
    return table.model_copy(update={"orderings": claims})


def _with_links(cells: Cells, table: Table, dataset: str, page: str) -> dict[str, Any]:
    """A row with the links that its cells have."""
    model = link(page, f"models/{cells.row.model}.md") if cells.row.model else None
    return {"cells": cells, "runs": link(page, page_of_row(table, dataset, cells.row)), "model": model}


def _attributes_page(tables: Tables, table: Table, dataset: str) -> dict[str, str | Path]:
    """A table of counts on a data set."""
    page = f"results/{table.name}/{dataset}/index.md"
    text = render(
        "counts.md.j2",
        page,
        table=table,
        dataset=named(dataset),
        published=table.published.get(dataset),
        stored=stored_attributes(table.name, dataset, tables.results),
        lines=attribute_lines(table, dataset, tables.results),
    )
    file = tables.results / table.name / dataset / "attributes.json"
    return {page: text, f"results/{table.name}/{dataset}/attributes.json": file}


def _table_page(tables: Tables, table: Table) -> str:
    """What a table is, on which data it was run, and what its paper has on other data."""
    page = f"results/{table.name}/index.md"
    elsewhere = []
    for dataset in table.published:
        if dataset in tables.datasets(table):
            continue
        rows = [row for row in table.rows if dataset in row.published]
        metrics = [metric for metric in table.metrics if any(metric in row.published[dataset] for row in rows)]
        lines = [attribute for attribute in table.attributes if dataset in attribute.published]
        elsewhere.append(
            {
                "dataset": named(dataset),
                "published": table.published[dataset],
                "rows": rows,
                "metrics": metrics,
                "attributes": lines,
                "time": expected_times().get((table.name, dataset)),
            }
        )
    return render("table.md.j2", page, table=table, ran=_ran(tables, table), elsewhere=elsewhere)


def _ran(tables: Tables, table: Table) -> list[dict[str, Any]]:
    """The data sets on which a table was run, each with its best row by the monitored metric."""
    ran = []
    for dataset in tables.datasets(table):
        measured = [cells for cells in tables.cells[table.name, dataset] if table.monitor in cells.per_user]
        choose = min if lower_is_better(table.monitor) else max
        best = choose(measured, key=lambda cells: cells.mean(table.monitor)) if measured else None
        ran.append({"dataset": named(dataset), "best": best, "n_rows": len(measured)})
    return ran


def _groups(tables: Tables) -> list[dict[str, Any]]:
    """The tables by the paper that has them, tfvae's own first."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for table in tables.tables.values():
        if tables.datasets(table) or table.published:
            groups.setdefault(table.paper or OWN, []).append({"table": table, "ran": _ran(tables, table)})
    return [_heading(paper) | {"tables": found} for paper, found in groups.items()]


def _heading(paper: str) -> dict[str, str]:
    """A short heading of a paper, "Kim and Suh, RecSys 2019", and its title; a paper is "authors: title, venue"."""
    if paper == OWN:
        return {"short": OWN, "title": ""}
    authors, _, rest = paper.partition(": ")
    title, _, venue = rest.rpartition(", ")
    names = authors.split(", ")
    who = " and ".join(names) if len(names) < 3 else f"{names[0]} et al."
    return {"short": f"{who}, {venue}", "title": title}


def _boards(tables: Tables) -> list[dict[str, Any]]:
    """The claims of each leaderboard with their verdicts, by data set."""
    boards = []
    for table in tables.tables.values():
        if table.budget:
            judged = claims_by_dataset(table, tables.results)
            boards.append({"table": table, "judged": judged, "sorted": {of: _sorted(js) for of, js in judged.items()}})
    return boards


def _sorted(judged: list[Judged]) -> dict[str, list[Judged]]:
    """Claims by their verdict, without its marks; those that could not be judged are left out."""
    verdicts = ("holds", "reversed", "no difference shown")
    return {verdict: [claim for claim in judged if claim.verdict.startswith(verdict)] for verdict in verdicts}
