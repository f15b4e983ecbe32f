"""What the page of a table on a data set is made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tfvae.experiments.definitions import Table
from tfvae.experiments.protocols import dataset_title
from tfvae.experiments.results_folder import folder_of
from tfvae.experiments.styles import Style, styles_of
from tfvae.experiments.summaries import Cells

__all__ = ["Page"]


@dataclass(frozen=True)
class Page:
    """The content of a table's page on a data set.

    Attributes:
        table: The table.
        dataset: The data set's name.
        results: The results folder.
        rows: The table's rows with their stored runs.
    """

    table: Table
    dataset: str
    results: Path
    rows: list[Cells]

    @property
    def run(self) -> list[Cells]:
        """The rows that have stored runs."""
        return [row for row in self.rows if row.runs]

    @property
    def folder(self) -> Path:
        """The folder of the page and its pictures."""
        return folder_of(self.table.name, self.dataset, self.results)

    @property
    def heading(self) -> str:
        """The heading of its pictures."""
        return f"{self.table.title}\n{dataset_title(self.dataset)}"

    @property
    def styles(self) -> dict[str, Style]:
        """The style of each row that has a model, by its printed name."""
        return styles_of({row.row.name: row.row.model for row in self.rows if row.row.model})
