"""What a table shall be: `tfvae/experiments/tables/<table>.toml`, read and checked.

The tables of the papers come with the package. A table of one's own is `<results>/<table>/table.toml`, with a name that
the package does not have.

A table has rows (a model and the settings that differ from its defaults), metrics, and per data set the
published cells. An unknown key is an error that names the nearest known one. A row may be another table's row
(`alias_of`): it is then run, tuned and stored there, once.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from tfvae.data.datasets import DATASETS
from tfvae.evaluation.metrics import check_metric
from tfvae.system.errors import InputError, unknown_name
from tfvae.system.validation import Strict, checked

__all__ = [
    "RESULTS",
    "Attribute",
    "Curve",
    "Ordering",
    "Published",
    "Row",
    "SearchSpace",
    "TABLES",
    "Table",
    "definition_path",
    "load_table",
    "own_table_names",
    "table_names",
]

RESULTS = Path("paper_results")
TABLES = Path(__file__).parent / "tables"
REFERENCE = r"^[a-z0-9-]+/[a-z0-9-]+$"  # table/row
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

    @property
    def interval(self) -> tuple[int | float, int | float] | None:
        """The least and the greatest value; None for choices."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.interval is None) == (self.choices is None):
            raise ValueError("expected either low and high, or choices")
        if self.interval and self.interval[0] >= self.interval[1]:
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


class Curve(Strict):
    """A published learning curve: the table's monitored metric on validation users.

    Attributes:
        source: Where it is from.
        rounds: After how many rounds, ascending.
        values: The metric then.
    """

    source: str
    rounds: list[int]
    values: list[float]

    @model_validator(mode="after")
    def _one_value_each(self) -> Self:
        if len(self.rounds) != len(self.values) or sorted(set(self.rounds)) != self.rounds or not self.rounds:
            raise ValueError("expected ascending rounds and one value for each")
        return self


class Row(Strict):
    """One row of a table.

    Attributes:
        name: Name as printed.
        slug: Name used in file names.
        model: Name in `tfvae.models.MODELS`; None for a published row whose model is not built yet.
        settings: Settings that differ from the model's defaults.
        refined: Whether ratings are predicted from codes refined by Hamiltonian Monte Carlo instead of the encoder's.
        by: What the model takes as rows: "users", or "items" for an item-based model of ratings.
        datasets: Further settings by data set.
        published: Published cells, by data set and metric.
        curves: Published learning curves, by data set.
        search: What the sweep may vary.
        tuning_from: "table/row" of the same model and settings, whose sweep also tunes this row; excludes `search`.
        alias_of: "table/row" in another table that is this very row: `load_table` takes model, settings, datasets,
            search and tuning_from from there, so that this row gives none of them, and its runs are stored there.
        note: Printed below the table.
    """

    name: str
    slug: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    model: str | None = None
    settings: dict[str, Value] = {}
    by: Literal["users", "items"] = "users"
    refined: bool = False
    datasets: dict[str, dict[str, Value]] = {}
    published: dict[str, dict[str, float]] = {}
    curves: dict[str, Curve] = {}
    search: dict[str, SearchSpace] = {}
    tuning_from: str | None = Field(None, pattern=REFERENCE)
    alias_of: str | None = Field(None, pattern=REFERENCE)
    note: str | None = None

    @model_validator(mode="after")
    def _one_sweep(self) -> Self:
        if self.search and self.tuning_from:
            raise ValueError("expected either a search space or tuning_from, found both")
        return self

    @model_validator(mode="after")
    def _stored_once(self) -> Self:
        if self.alias_of and (own := [key for key in SHARED if key in self.model_fields_set]):
            raise ValueError(f"alias_of takes {', '.join(own)} from {self.alias_of}; leave out one or the other")
        return self

    def stored_in(self, table: str) -> tuple[str, str]:
        """Where this row of a table is stored: the table and the slug, its own or those of `alias_of`."""
        if self.alias_of is None:
            return table, self.slug
        home, slug = self.alias_of.split("/")
        return home, slug

    @property
    def built_model(self) -> str:
        """The model's name.

        Raises:
            InputError: If the row has published values only.
        """
        if self.model is None:
            raise InputError(f"row {self.slug!r} has published values only; its model is not built yet.")
        return self.model


SHARED = ("model", "settings", "by", "refined", "datasets", "search", "tuning_from")


class Ordering(Strict):
    """A claim of the paper: one row is better than another.

    Attributes:
        above: Slug of the better row.
        below: Slug of the other.
        source: Where the paper says so, such as ``"section 5.2"``.
    """

    above: str
    below: str
    source: str


class Attribute(Strict):
    """One line of a table of data attributes.

    Attributes:
        name: Name as printed.
        key: Name of the count in `Attributes.counts`.
        style: How the number is printed, and so how closely it is compared.
        published: The paper's number, by data set.
    """

    name: str
    key: str
    style: Literal["count", "millions", "percent"] = "count"
    published: dict[str, float] = {}


class Table(Strict):
    """The definition of a table. A table has rows of runs, or (`kind = "data-attributes"`) lines of counts.

    Attributes:
        name: The name of its file, or of its folder among the results.
        title: Heading.
        paper: The paper it is from, or None for a table of our own.
        caption: What is measured, in a sentence or two.
        kind: What its cells are.
        protocol: How the data are split.
        metrics: In printed order.
        monitor: The metric that selects the epoch and the settings, on validation users.
        seeds: Seeds that are run when none are asked for; of ratings the numbers of the splits.
        rows: The rows, in printed order.
        orderings: What the paper claims of them; judged by the monitored metric on the test part.
        watch_test: Whether the test part is measured after each epoch, to report its best epoch as a paper did.
        generative: Whether runs of models with latent codes are also described as generative models.
        attributes: The lines of a table of data attributes.
        published: What the paper says about its cells, by data set.
        command: What makes it, if not `tfvae table`.
    """

    name: str
    title: str
    paper: str | None = None
    caption: str
    kind: Literal["ranking", "data-attributes"] = "ranking"
    protocol: Literal["strong-generalization", "rating-holdout", "leave-one-out"] = "strong-generalization"
    metrics: list[str] = []
    monitor: str = "ndcg@100"
    seeds: list[int] = [1]
    rows: list[Row] = []
    orderings: list[Ordering] = []
    watch_test: bool = False
    generative: bool = False
    attributes: list[Attribute] = []
    published: dict[str, Published] = {}
    command: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for metric in [*self.metrics, self.monitor]:
            check_metric(metric)
        slugs = [row.slug for row in self.rows]
        if len(set(slugs)) < len(slugs):
            raise ValueError(f"two rows have the same slug: {', '.join(slugs)}")
        parts: list[Table | Row | Attribute] = [self, *self.rows, *self.attributes]
        for part in parts:
            for dataset in [*part.published, *getattr(part, "datasets", {}), *getattr(part, "curves", {})]:
                if dataset not in DATASETS:
                    raise unknown_name("data set", dataset, DATASETS)
        for metric in {metric for row in self.rows for cells in row.published.values() for metric in cells}:
            if metric not in self.metrics:
                raise unknown_name("metric of the table", metric, self.metrics)
        for ordering in self.orderings:
            for slug in (ordering.above, ordering.below):
                if slug not in slugs:
                    raise unknown_name("row in an ordering", slug, slugs)
            if ordering.above == ordering.below:
                raise ValueError(f"an ordering needs two rows, found {ordering.above!r} twice")
        if self.orderings and self.monitor not in self.metrics:
            raise ValueError(f"orderings are judged by {self.monitor}, which is not among the metrics")
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


def own_table_names(results: Path = RESULTS) -> list[str]:
    """The names of the tables that a results folder defines itself, sorted."""
    return sorted(path.parent.name for path in Path(results).glob("*/table.toml"))


def table_names(results: Path = RESULTS) -> list[str]:
    """The names of the package's tables and of a results folder's own, sorted."""
    return sorted({path.stem for path in TABLES.glob("*.toml")} | set(own_table_names(results)))


def definition_path(name: str, results: Path = RESULTS) -> Path:
    """The file that defines a table: the package's, or `<results>/<name>/table.toml`.

    Raises:
        InputError: If there is none, or both are there: neither shall silently stand for the other.
    """
    shipped, own = TABLES / f"{name}.toml", Path(results) / name / "table.toml"
    if name not in table_names(results):
        raise unknown_name(f"table in tfvae or {Path(results)}", name, table_names(results))
    if shipped.is_file() and own.is_file():
        raise InputError(f"{own} defines {name!r}, which is a table of tfvae; rename the folder of yours.")
    return shipped if shipped.is_file() else own


def load_table(name: str, results: Path = RESULTS) -> Table:
    """Reads and checks a table's definition (`definition_path`); what an `alias_of` shares is filled in.

    Args:
        name: The table's name.
        results: The results folder, which may define tables of its own.

    Returns:
        The table.

    Raises:
        InputError: If there is no such table, its file is not as it should be, or a row is `alias_of` one that does
            not exist, lies in the same table or is itself `alias_of` another.
    """
    table = _read(name, results)
    return table.model_copy(update={"rows": [_resolved(table, row, results) for row in table.rows]})


def _resolved(table: Table, row: Row, results: Path) -> Row:
    """The row with all that it shares."""
    if row.alias_of is None:
        return row
    place = f"{definition_path(table.name, results)}: row {row.slug!r} is alias_of {row.alias_of!r}"
    home, slug = row.stored_in(table.name)
    if home == table.name:
        raise InputError(f"{place}, a row of its own table; name a row of another, or write the row out.")
    try:
        other = _read(home, results).row(slug)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
    if other.alias_of:
        raise InputError(f"{place}, which is itself alias_of {other.alias_of!r}; name that row.")
    return row.model_copy(update={key: getattr(other, key) for key in SHARED})


def _read(name: str, results: Path) -> Table:
    """The table as its file has it."""
    path = definition_path(name, results)
    try:
        definition = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not valid TOML: {error}.") from error
    return checked(Table, definition | {"name": name}, path)
