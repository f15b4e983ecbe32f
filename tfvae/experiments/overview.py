"""What the overview page says before its tables: what was run, what holds of the papers' claims, where ours is best.

Every number and every name in it comes from stored runs and the tables' definitions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tfvae.data.datasets import DATASETS
from tfvae.evaluation.metrics import lower_is_better
from tfvae.experiments.claims import Judged, judged_claims
from tfvae.experiments.definitions import Table
from tfvae.experiments.protocols import dataset_title
from tfvae.experiments.records import StoredRun
from tfvae.experiments.rendering import printed_metric
from tfvae.experiments.results_folder import datasets_of, runs_of
from tfvae.experiments.summaries import Cells, cells_of

__all__ = ["Best", "Claims", "Met", "Overview"]

OURS = "our"
"""How the source of a claim begins that is ours, and in no paper."""
VERDICTS = ("holds", "reversed", "no difference shown")


@dataclass(frozen=True)
class Claims:
    """The papers' claims on one data set, each once, by verdict.

    Attributes:
        dataset: The data set's title.
        found: The names of both rows of each claim, the one that is to be better first, by verdict.
    """

    dataset: str
    found: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: {verdict: [] for verdict in VERDICTS})

    @property
    def count(self) -> int:
        """The number of claims with a verdict."""
        return sum(map(len, self.found.values()))

    def said(self, verdict: str) -> str:
        """The claims with a verdict, in words."""
        others: dict[str, list[str]] = {}
        for above, below in self.found[verdict]:
            others.setdefault(_in_list(above), []).append(_in_list(below))
        return "; ".join(f"{above} better than {', '.join(below)}" for above, below in others.items())


@dataclass(frozen=True)
class Best:
    """The best row of a leaderboard on one data set, and what our own models are shown to be better than.

    Attributes:
        table: The leaderboard.
        dataset: Name of the data set.
        rows: Its rows with runs, the best first.
        claims: The claims that are ours.
    """

    table: Table
    dataset: str
    rows: list[Cells]
    claims: list[Judged]

    @property
    def title(self) -> str:
        """The data set's title."""
        return dataset_title(self.dataset)

    @property
    def metric(self) -> str:
        """The metric, as printed."""
        return printed_metric(self.table.monitor)

    def cell(self, row: Cells) -> str:
        """A row's value as printed."""
        return row.ours(self.table.monitor)

    @property
    def said(self) -> list[str]:
        """What each of our models is shown to be better than, in words; without rows that lack a run."""
        models: dict[str, dict[str, list[str]]] = {}
        for claim in self.claims:
            if claim.test:
                verdict = next(name for name in VERDICTS if claim.verdict.startswith(name))
                models.setdefault(claim.a, {name: [] for name in VERDICTS})[verdict].append(_in_list(claim.b))
        return [f"{name} is {_shown(*found.values())}." for name, found in models.items()]


@dataclass(frozen=True)
class Met:
    """How a table's cells compare with the published ones on a data set that the paper has.

    Attributes:
        table: The table.
        dataset: Name of the data set.
        reproduced: Number of published cells that were met within the error.
        better: Number of cells that are better than published.
        worse: Number of cells that are worse than published.
    """

    table: Table
    dataset: str
    reproduced: int
    better: int
    worse: int

    @property
    def title(self) -> str:
        """The data set's title."""
        return dataset_title(self.dataset)


@dataclass(frozen=True)
class Overview:
    """All tables of a results folder with what is stored of them.

    Attributes:
        tables: The tables.
        results: The results folder.
    """

    tables: Sequence[Table]
    results: Path

    @cached_property
    def ran(self) -> dict[str, list[str]]:
        """The data sets on which each table has something stored, by the table's name."""
        return {table.name: datasets_of(table, self.results) for table in self.tables}

    @cached_property
    def cells(self) -> dict[tuple[str, str], list[Cells]]:
        """The rows of each table of runs on each data set on which it was run."""
        return {
            (table.name, dataset): cells_of(table, dataset, self.results)
            for table in self.tables
            if table.kind == "ranking"
            for dataset in self.ran[table.name]
        }

    @cached_property
    def runs(self) -> list[StoredRun]:
        """All stored runs, each once."""
        return [
            run
            for table in self.tables
            for dataset in self.ran[table.name]
            for row in table.rows
            if row.model and not row.alias_of
            for run in runs_of(table.name, dataset, row, self.results)
        ]

    @property
    def runs_on(self) -> list[tuple[str, int]]:
        """Titles of the data sets with the number of runs on each, the most first."""
        return [(dataset_title(name), count) for name, count in Counter(run.dataset for run in self.runs).most_common()]

    @property
    def hours(self) -> float:
        """Hours of training of all stored runs."""
        return sum(run.seconds for run in self.runs) / 3600

    @property
    def not_run(self) -> list[str]:
        """Titles of the data sets that a paper has and that nothing is stored of."""
        of_papers = {name for table in self.tables for name in table.published}
        ran = {name for names in self.ran.values() for name in names}
        return [dataset_title(name) for name in DATASETS if name in of_papers - ran]

    @property
    def met(self) -> list[Met]:
        """The comparisons with published cells, for tables that were run on the paper's data."""
        found = []
        for table in self.tables:
            for dataset in self.ran[table.name]:
                verdicts: Counter[str] = Counter()
                for cells in self.cells.get((table.name, dataset), []):
                    for metric in cells.published:
                        verdicts[_against_paper(cells, metric)] += 1
                counts = {name: verdicts[name] for name in ("reproduced", "better", "worse")}
                if any(counts.values()):
                    found.append(Met(table, dataset, **counts))
        return found

    @property
    def claims(self) -> list[Claims]:
        """The papers' claims, by data set; of one that several tables judge, the verdict is a leaderboard's."""
        by_dataset: dict[str, Claims] = {}
        seen = set()
        for table, dataset, judged in self._judged():
            for ordering, claim in zip(table.orderings, judged, strict=True):
                pair = tuple(table.row(slug).stored_in(table.name) for slug in (ordering.above, ordering.below))
                of_paper = (table.paper or table.budget) and not claim.source.startswith(OURS)
                if claim.test and of_paper and (dataset, pair) not in seen:
                    seen.add((dataset, pair))
                    of_dataset = by_dataset.setdefault(dataset, Claims(dataset_title(dataset)))
                    verdict = next(name for name in VERDICTS if claim.verdict.startswith(name))
                    of_dataset.found[verdict].append((claim.a, claim.b))
        return sorted(by_dataset.values(), key=lambda of_dataset: -of_dataset.count)

    @property
    def best(self) -> list[Best]:
        """The best rows of the leaderboards."""
        found = []
        for table, dataset, judged in self._judged():
            rows = [row for row in self.cells[table.name, dataset] if row.runs]
            if table.budget and rows:
                found.append(Best(table, dataset, rows, [claim for claim in judged if claim.source.startswith(OURS)]))
        return found

    def _judged(self) -> Iterator[tuple[Table, str, list[Judged]]]:
        """The judged claims of all tables that compare rows by what is published or searched; leaderboards first."""
        for table in sorted(self.tables, key=lambda table: table.budget is None):
            for dataset in self.ran[table.name] if table.orderings and not table.figure else []:
                yield table, dataset, judged_claims(table, self.cells[table.name, dataset])


def _in_list(name: str) -> str:
    """A row's name without commas, for a list that has them."""
    return name.replace(",", "")


def _shown(better_than: list[str], worse_than: list[str], as_good_as: list[str]) -> str:
    """What a model is, beside those it was compared with; there is at least one."""
    if not (worse_than or as_good_as):
        which = better_than[0] if len(better_than) == 1 else f"all {len(better_than)} that it was compared with"
        return f"shown to be better than {which}"
    parts = {
        "shown to be better than": better_than,
        "not told apart from": as_good_as,
        "shown to be worse than": worse_than,
    }
    return "; ".join(f"{words} {', '.join(names)}" for words, names in parts.items() if names)


def _against_paper(cells: Cells, metric: str) -> str:
    verdict = cells.verdict(metric)
    if verdict not in ("above", "below"):
        return verdict
    return "better" if (verdict == "below") == lower_is_better(metric) else "worse"
