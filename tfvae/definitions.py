"""What a table shall be: `paper_results/<table>/table.toml`, read and checked.

A table has rows (a model and the settings that differ from its defaults), metrics, and per data set the
published cells. An unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from tfvae.data.datasets import DATASETS
from tfvae.errors import InputError, unknown_name
from tfvae.metrics import parse_metric
from tfvae.strict import Strict, checked

__all__ = [
    "RESULTS",
    "Attribute",
    "Published",
    "Row",
    "SearchSpace",
    "Table",
    "load_table",
    "table_names",
]

RESULTS = Path("paper_results")
Value = int | float | str | bool | list | None


class SearchSpace(Strict):
    """Where the sweep may look for one setting: an interval or a list of choices.

    Attributes:
        low: Least value, included.
        high: Greatest value, included. Two whole numbers make a search over whole numbers.
        log: Whether to search on a logarithmic scale.
        step: Distance of the values, or None for all of the interval.
        choices: The values, of any JSON type; excludes the other four.
    """

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = None
    choices: list[Value] | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        interval = self.low is not None and self.high is not None
        if interval == (self.choices is not None):
            raise ValueError("expected either low and high, or choices")
        if interval and self.low >= self.high:
            raise ValueError(f"low must be below high, found {self.low} and {self.high}")
        return self


class Published(Strict):
    """What a paper says about its cells for one data set.

    Attributes:
        source: Where they stand, such as ``"Table 2 (a)"``.
        standard_error: The standard error the paper states for them.
        train_users: Training users of the paper's split.
        n_items: Items of the paper's split. A split of another size is a subset, and its runs say so.
    """

    source: str
    standard_error: float | None = None
    train_users: int | None = None
    n_items: int | None = None


class Row(Strict):
    """One row of a table.

    Attributes:
        name: As printed.
        slug: As used in file names.
        model: Name in `tfvae.models.MODELS`; None for a published row whose model is not built yet.
        settings: Settings that differ from the model's defaults.
        datasets: Further settings by data set.
        published: Published cells, by data set and metric.
        search: What the sweep may vary.
        tuned_as: "table/row" of the same model and settings, whose sweep also tunes this row; excludes `search`.
        note: Printed below the table.
    """

    name: str
    slug: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    model: str | None = None
    settings: dict[str, Value] = {}
    datasets: dict[str, dict[str, Value]] = {}
    published: dict[str, dict[str, float]] = {}
    search: dict[str, SearchSpace] = {}
    tuned_as: str | None = Field(None, pattern=r"^[a-z0-9-]+/[a-z0-9-]+$")
    note: str | None = None

    @model_validator(mode="after")
    def _one_sweep(self) -> Self:
        if self.search and self.tuned_as:
            raise ValueError("expected either a search space or tuned_as, found both")
        return self


class Attribute(Strict):
    """One line of a table of data attributes.

    Attributes:
        name: As printed.
        key: Name of the count in `Attributes.counts`.
        style: How the number is printed, and so how closely it is compared.
        published: The paper's number, by data set.
    """

    name: str
    key: str
    style: Literal["count", "millions", "percent"] = "count"
    published: dict[str, float] = {}


class Table(Strict):
    """A `table.toml`. A table has rows of runs, or (`kind = "data-attributes"`) lines of counts.

    Attributes:
        name: The folder's name.
        title: Heading.
        paper: The paper it is from, or None for a table of our own.
        caption: What is measured, in a sentence or two.
        kind: What its cells are.
        protocol: How the data are split.
        metrics: In printed order.
        monitor: The metric that selects the epoch and the settings, on validation users.
        seeds: Seeds that are run when none are asked for.
        rows: The rows, in printed order.
        attributes: The lines of a table of data attributes.
        published: What the paper says about its cells, by data set.
        command: What makes it, if not `tfvae table`.
    """

    name: str
    title: str
    paper: str | None = None
    caption: str
    kind: Literal["ranking", "data-attributes"] = "ranking"
    protocol: Literal["strong-generalization"] = "strong-generalization"
    metrics: list[str] = []
    monitor: str = "ndcg@100"
    seeds: list[int] = [1]
    rows: list[Row] = []
    attributes: list[Attribute] = []
    published: dict[str, Published] = {}
    command: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for metric in [*self.metrics, self.monitor]:
            parse_metric(metric)
        slugs = [row.slug for row in self.rows]
        if len(set(slugs)) < len(slugs):
            raise ValueError(f"two rows have the same slug: {', '.join(slugs)}")
        for part in [self, *self.rows, *self.attributes]:
            for dataset in [*part.published, *getattr(part, "datasets", {})]:
                if dataset not in DATASETS:
                    raise unknown_name("data set", dataset, DATASETS)
        for metric in {metric for row in self.rows for cells in row.published.values() for metric in cells}:
            if metric not in self.metrics:
                raise unknown_name("metric of the table", metric, self.metrics)
        return self

    def row(self, slug: str) -> Row:
        """The row of this slug.

        Raises:
            InputError: If there is none.
        """
        rows = {row.slug: row for row in self.rows}
        if slug not in rows:
            raise unknown_name(f"row of {self.name}", slug, rows)
        return rows[slug]


def table_names(results: Path = RESULTS) -> list[str]:
    """The names of all tables in a results folder, sorted."""
    return sorted(path.parent.name for path in Path(results).glob("*/table.toml"))


def load_table(name: str, results: Path = RESULTS) -> Table:
    """Reads and checks `<results>/<name>/table.toml`.

    Raises:
        InputError: If there is no such table, or its file is not as it should be.
    """
    path = Path(results) / name / "table.toml"
    if not path.is_file():
        raise unknown_name(f"table in {Path(results)}", name, table_names(results))
    try:
        definition = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not valid TOML: {error}.") from error
    return checked(Table, definition | {"name": name}, path)
