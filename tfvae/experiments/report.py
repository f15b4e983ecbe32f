"""The pages of the tables, in Markdown with figures, from stored runs and the tables' definitions alone.

No number is typed by hand: every cell comes from stored runs of this code or from the published cells of a table's
definition, and rendering the same files twice gives the same bytes. A mark in a cell tells what a reader must know
about it, such as fewer epochs, settings given by hand, or seeds that were run with different settings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfvae.experiments.claims import claims_by_dataset
from tfvae.experiments.definitions import RESULTS, Attribute, Table, load_table, table_names
from tfvae.experiments.drawn import ERRORS, FIGURE
from tfvae.experiments.overview import Overview
from tfvae.experiments.page import Page
from tfvae.experiments.rendering import named, template
from tfvae.experiments.results_folder import folder_of, stored_attributes
from tfvae.experiments.sections import written
from tfvae.experiments.summaries import cells_of
from tfvae.system.errors import InputError
from tfvae.system.files import write_text

__all__ = ["attribute_lines", "render", "render_overview"]

ANY_DATA = "ml-1m"
"""The data set in the command of a table that nobody has published for one, and that was not run."""
GENERATED = b"<!-- Generated from the stored "  # how the templates begin


def render(name: str, dataset: str, results: Path = RESULTS) -> Path:
    """Writes the README.md of a table on a data set, and its figures; of a leaderboard also what holds on which data.

    Args:
        name: Name of the table.
        dataset: Name of the data set.
        results: The results folder.

    Returns:
        The path of the README.md.

    Raises:
        InputError: If there is no such table, if its definition or a stored file is damaged, or if the folder has a
            README.md that tfvae did not write.
    """
    table = load_table(name, results)
    folder = folder_of(name, dataset, results)
    if table.kind == "data-attributes":
        text = template("attributes.md.j2").render(
            table=table,
            dataset=named(dataset),
            published=table.published.get(dataset),
            stored=stored_attributes(name, dataset, results),
            lines=attribute_lines(table, dataset, results),
        )
    else:
        page = Page(table, dataset, results, cells_of(table, dataset, results))
        text = "".join(written(page).values())
        if table.budget:
            claims = template("claims.md.j2").render(table=table, judged=claims_by_dataset(table, results))
            _write_page(Path(results) / name / "claims.md", claims)
    return _write_page(folder / "README.md", text)


def render_overview(results: Path = RESULTS) -> Path:
    """Writes the results folder's README.md: what the runs say, and every table that has any, beside published values.

    A table that has none, or none on a data set that its paper has, is one line with the command that makes it.

    Args:
        results: The results folder.

    Returns:
        The path of the README.md.

    Raises:
        InputError: If a table's definition or a stored file is damaged, or if the folder has a README.md that tfvae did
            not write.
    """
    tables = [load_table(name, results) for name in table_names(results)]
    overview, sections = Overview(tables, results), []
    for table in tables:
        parts = []
        for dataset in overview.ran[table.name]:
            if table.kind == "data-attributes":
                body: dict[str, Any] = {"lines": attribute_lines(table, dataset, results)}
            else:
                body = {"rows": overview.cells[table.name, dataset]}
            drawn = [name for name in (FIGURE, ERRORS) if (folder_of(table.name, dataset, results) / name).is_file()]
            parts.append(body | {"dataset": named(dataset), "pictures": drawn})
        missing = [name for name in table.published if name not in overview.ran[table.name]]
        if not (parts or missing):
            missing = [ANY_DATA]
        sections.append({"table": table, "parts": parts, "missing": list(map(named, missing))})
    text = template("overview.md.j2").render(overview=overview, sections=sections)
    return _write_page(Path(results) / "README.md", text)


def _write_page(path: Path, text: str) -> Path:
    """Writes a page, which may replace an earlier one; raises InputError if the present one is not from tfvae."""
    if path.exists() and not path.read_bytes().startswith(GENERATED):
        raise InputError(
            f"{path} was not written by tfvae, so it is left as it is. Give another folder by --results, or move the "
            "file, and give the command again: what has been run is stored."
        )
    write_text(path, text)
    return path


# ---- data attributes --------------------------------------------------------------------------------


def attribute_lines(table: Table, dataset: str, results: Path) -> list[dict[str, str]]:
    """The lines of a table of data attributes; two numbers are the same if they are printed the same."""
    stored = stored_attributes(table.name, dataset, results)
    lines = []
    for attribute in table.attributes:
        counted = stored.counts.get(attribute.key) if stored else None
        ours, paper = (_in_style(attribute, value) for value in (counted, attribute.published.get(dataset)))
        same = "" if None in (ours, paper) else "same" if ours == paper else "differs"
        lines.append({"name": attribute.name, "ours": ours or "not run", "published": paper or "–", "verdict": same})
    return lines


def _in_style(attribute: Attribute, value: float | None) -> str | None:
    if value is None:
        return None
    match attribute.style:
        case "count":
            return f"{value:,.0f}"
        case "millions":
            return f"{value / 1e6:.1f} M"
        case "percent":
            return f"{value:.2f} %"
