"""What the page of a table on a data set is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        draw: Whether its pictures are drawn; otherwise those that were drawn last are shown.
    """

    table: Table
    dataset: str
    results: Path
    rows: list[Cells]
    draw: bool = True

    @property
    def run(self) -> list[Cells]:
        """The rows that have stored runs."""
        return [row for row in self.rows if row.runs]

    @property
    def folder(self) -> Path:
        """The folder of the page and its pictures."""
        return folder_of(self.table.name, self.dataset, self.results)

    def picture(self, plot: Callable[..., Any], name: str, *what: Any, **how: Any) -> None:
        """Draws a picture into the page's folder, if pictures are drawn.

        Args:
            plot: Draws it; its last argument without a name is the file.
            name: The file's name.
            *what: What is drawn.
            **how: The further arguments of `plot`.
        """
        if self.draw:
            plot(*what, self.folder / name, **how)

    @property
    def heading(self) -> str:
        """The heading of its pictures."""
        return f"{self.table.title}\n{dataset_title(self.dataset)}"

    @property
    def styles(self) -> dict[str, Style]:
        """The style of each row that has a model, by its printed name."""
        return styles_of({row.row.name: row.row.model for row in self.rows if row.row.model})
