"""Definitions of tables, read from `tfvae/experiments/tables/<table>.toml` and checked.

The papers' tables come with the package. Users may define their own tables in `<results>/<table>/table.toml`, under
names that the package does not use.

A table has rows (a model and the settings that differ from its defaults), metrics, and the published cells for each
data set. An unknown key is an error that names the nearest known key. A row may stand for a row of another table
(`alias_of`); it is then run, tuned and stored there, and only once.
"""

from __future__ import annotations

import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tfvae.data.datasets import DATASETS
from tfvae.evaluation.metrics import check_metric
from tfvae.experiments.search import Budget, SearchSpace, Value
from tfvae.system.errors import InputError, unknown_name
from tfvae.system.files import reading
from tfvae.system.validation import Strict, checked

__all__ = [
    "RESULTS",
    "Attribute",
    "Curve",
    "Ordering",
    "Picture",
    "Published",
    "Row",
    "TABLES",
    "WORK",
    "Table",
    "definition_path",
    "load_table",
    "own_table_names",
    "table_names",
]

RESULTS = Path("paper_results")
WORK = Path("runs/tables")
TABLES = Path(__file__).parent / "tables"
ENSEMBLES = ("ensemble", "rating-ensemble")
REFERENCE = r"^[a-z0-9-]+/[a-z0-9-]+$"  # table/row
Picture = Literal["curves", "activity", "speed", "beta", "prior", "ratings"]


class Published(Strict):
    """What a paper says about its cells for one data set.

    Attributes:
        source: Where the paper has them, such as ``"Table 2 (a)"``.
        standard_error: The standard error that the paper states for them.
        train_users: Number of training users in the paper's split.
        n_items: Number of items in the paper's split. Runs on a split of another size are marked as shortened.
    """

    source: str
    standard_error: float | None = None
    train_users: int | None = None
    n_items: int | None = None


class Curve(Strict):
    """A published learning curve: the table's monitored metric on validation users.

    Attributes:
        source: Where it was published.
        rounds: Numbers of rounds of training, ascending.
        values: The metric after each of these numbers of rounds.
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
        model: Name in `tfvae.models.MODELS`; None for a published row whose model is not implemented.
        settings: Settings that differ from the model's defaults.
        by: The rows of the matrix that the model learns from: "users", or "items" for an item-based model of ratings.
        refined: Whether ratings are predicted from codes refined by Hamiltonian Monte Carlo instead of the encoder's.
        datasets: Further settings by data set.
        published: Published cells, by data set and metric.
        curves: Published learning curves, by data set.
        search: The settings that the sweep may vary, with their values.
        tuning_from: "table/row" of the same model and settings, whose sweep also tunes this row; excludes `search`.
        alias_of: "table/row" in another table that this row stands for. `load_table` copies `SHARED` from there, so
            that this row gives none of these keys, and its runs are stored there.
        members: "table/row" of each member of an ensemble, with the settings of that row and its sweep; it is `by`
            the same as the ensemble.
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
    members: list[Annotated[str, Field(pattern=REFERENCE)]] = []
    note: str | None = None

    @model_validator(mode="after")
    def _one_sweep(self) -> Self:
        if self.search and self.tuning_from:
            raise ValueError("expected either a search space or tuning_from, found both")
        return self

    @model_validator(mode="after")
    def _members_of_an_ensemble(self) -> Self:
        if self.members and (self.model not in ENSEMBLES or "members" in self.settings):
            raise ValueError(f"members are rows for {' or '.join(ENSEMBLES)}, instead of the setting of this name")
        return self

    @model_validator(mode="after")
    def _stored_once(self) -> Self:
        if self.alias_of and (own := [key for key in SHARED if key in self.model_fields_set]):
            raise ValueError(f"alias_of takes {', '.join(own)} from {self.alias_of}; leave out one or the other")
        return self

    def stored_in(self, table: str) -> tuple[str, str]:
        """The table and the slug under which this row is stored: its own, or those of `alias_of`.

        Args:
            table: Name of the table that has this row.
        """
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
            raise InputError(f"row {self.slug!r} has published values only; tfvae does not run it.")
        return self.model


SHARED = ("model", "settings", "by", "refined", "datasets", "search", "tuning_from", "members")


class Ordering(Strict):
    """A claim that one row is better than another.

    Attributes:
        above: Slug of the better row.
        below: Slug of the other row.
        source: Where the claim is made, such as ``"section 5.2"`` of the paper.
    """

    above: str
    below: str
    source: str


class Attribute(Strict):
    """One line of a table of data attributes.

    Attributes:
        name: Name as printed.
        key: Name of the count in `Attributes.counts`.
        style: How the number is printed, and therefore how precisely it is compared.
        published: The paper's number, by data set.
    """

    name: str
    key: str
    style: Literal["count", "millions", "percent"] = "count"
    published: dict[str, float] = {}


class Table(Strict):
    """The definition of a table, which has rows of runs or (`kind = "data-attributes"`) lines of counts.

    Attributes:
        name: The name of its file, or of its folder among the results.
        title: Heading.
        paper: The paper that published the table; None for one that no paper has.
        caption: What is measured, in a sentence or two.
        kind: What the cells are: metrics of rankings or ratings, or counts of the data.
        figure: The picture that is drawn of the rows, None for a table proper.
        protocol: How the data are split.
        metrics: Names of the metrics, in printed order.
        monitor: The metric on the validation part that selects the epoch and the settings.
        seeds: Seeds to run if no others are asked for, also of rows that stand for another table's; with a rating
            hold-out, each seed also cuts a split of its own.
        rows: The rows, in printed order.
        orderings: Claims about the rows; the monitored metric on the test part decides whether they hold.
        budget: How much searching each row gets before it is run; None searches nothing.
        correction: Whether the p-values of the claims are corrected for their number, by Holm's method.
        watch_test: Whether the test part is measured after each round of training, to report the best epoch on the
            test part as a paper did.
        generative: Whether models with latent codes are also measured as generative models.
        attributes: The lines of a table of data attributes.
        published: What the paper says about its cells, by data set.
        command: The command that makes the table, if it is not `tfvae table`.
    """

    name: str
    title: str
    paper: str | None = None
    caption: str
    kind: Literal["ranking", "data-attributes"] = "ranking"
    figure: Picture | None = None
    protocol: Literal["strong-generalization", "rating-holdout", "leave-one-out", "weak-generalization"] = (
        "strong-generalization"
    )
    metrics: list[str] = []
    monitor: str = "ndcg@100"
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = [1]
    rows: list[Row] = []
    orderings: list[Ordering] = []
    budget: Budget | None = None
    correction: Literal["none", "holm"] = "none"
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
        """The row with this slug.

        Raises:
            InputError: If there is none.
        """
        rows = {row.slug: row for row in self.rows}
        if slug not in rows:
            raise unknown_name(f"row of {self.name}", slug, rows)
        return rows[slug]


def own_table_names(results: Path = RESULTS) -> list[str]:
    """The names of the tables that are defined in a results folder, sorted."""
    return sorted(path.parent.name for path in Path(results).glob("*/table.toml"))


def table_names(results: Path = RESULTS) -> list[str]:
    """The names of the package's tables and of those defined in a results folder, sorted."""
    return sorted({path.stem for path in TABLES.glob("*.toml")} | set(own_table_names(results)))


def definition_path(name: str, results: Path = RESULTS) -> Path:
    """The file that defines a table: the package's, or `<results>/<name>/table.toml`.

    Raises:
        InputError: If there is none, or if there are both, since neither may silently replace the other.
    """
    shipped, own = TABLES / f"{name}.toml", Path(results) / name / "table.toml"
    if name not in table_names(results):
        raise unknown_name(f"table in tfvae or {Path(results)}", name, table_names(results))
    if shipped.is_file() and own.is_file():
        raise InputError(f"{own} defines {name!r}, which is a table of tfvae; rename the folder of yours.")
    return shipped if shipped.is_file() else own


def load_table(name: str, results: Path = RESULTS) -> Table:
    """Reads and checks a table's definition, and copies into each `alias_of` row what it shares with the other row.

    Args:
        name: The table's name.
        results: The results folder, which may define further tables.

    Returns:
        The table.

    Raises:
        InputError: If there is no such table, if its file is not a valid definition, or if a row is an `alias_of` a row
            that does not exist, belongs to the same table or is itself an alias, or has a member that is no such row or
            has other rows of the matrix.
    """
    table = _read(name, results)
    for row in table.rows:
        for member in row.members:
            _refuse_no_member(table, row, member, results)
    return table.model_copy(update={"rows": [_resolved(table, row, results) for row in table.rows]})


def _resolved(table: Table, row: Row, results: Path) -> Row:
    """The row, with the keys in `SHARED` copied from the row that it is an `alias_of`."""
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


def _refuse_no_member(table: Table, row: Row, member: str, results: Path) -> None:
    place = f"{definition_path(table.name, results)}: row {row.slug!r} has the member {member!r}"
    home, slug = member.split("/")
    try:
        other = (table if home == table.name else _read(home, results)).row(slug)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
    if other.alias_of or other.members or other.model is None:
        raise InputError(f"{place}, which is no row with a model and settings of its own; name one that is.")
    if other.by != row.by:
        raise InputError(
            f"{place}, which learns from rows that are {other.by}, while the ensemble's are {row.by}; name one that "
            "learns from the same."
        )


def _read(name: str, results: Path) -> Table:
    """The table as its file defines it, before aliases are resolved."""
    path = definition_path(name, results)
    with reading(path, "TOML"):
        return _checked(name, path.read_text(encoding="utf-8"), path)


@lru_cache(maxsize=64)  # a table with aliases asks for the tables of these once for each row
def _checked(name: str, text: str, path: Path) -> Table:
    return checked(Table, tomllib.loads(text) | {"name": name}, path)
