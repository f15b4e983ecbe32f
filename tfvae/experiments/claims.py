"""The claims that one row of a table is better than another, judged by paired tests, on one data set and on all."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tfvae.evaluation.stats import PairedTest, holm
from tfvae.experiments.definitions import RESULTS, Table
from tfvae.experiments.protocols import dataset_title
from tfvae.experiments.results_folder import datasets_of
from tfvae.experiments.summaries import Cells, cells_of, compared, ordering_verdict

__all__ = ["Judged", "claims_by_dataset", "judged_claims"]


class Judged(NamedTuple):
    """A claim with its test and a verdict.

    Attributes:
        a: Name of the row that is to be better.
        b: Name of the other row.
        source: Where the claim is made.
        test: The paired test of A - B; None if it cannot be made.
        verdict: That of `ordering_verdict` with the marks of both rows, or the reason why there is none.
    """

    a: str
    b: str
    source: str
    test: PairedTest | None
    verdict: str


def judged_claims(table: Table, rows: list[Cells]) -> list[Judged]:
    """The claims that one row is better than another, with tests and verdicts.

    The marks of both rows are repeated beside the verdict.
    """
    measured = {row.row.slug: row for row in rows if table.monitor in row.per_user}
    pairs = [[measured[slug] for slug in (claim.above, claim.below) if slug in measured] for claim in table.orderings]
    tests = [compared(pair[0], pair[1], table.monitor) if len(pair) == 2 else None for pair in pairs]
    if table.correction == "holm":
        corrected = iter(holm([test.p_value for test in tests if test]))
        tests = [test and test._replace(p_value=next(corrected)) for test in tests]
    judged = []
    for claim, pair, test in zip(table.orderings, pairs, tests, strict=True):
        said = _said_of(test, table, ran=len(pair) == 2)
        marks = "".join(sorted({mark for row in pair for mark in row.marks})) if test else ""
        said = f"{said} {marks}" if marks else said
        a, b = table.row(claim.above).name, table.row(claim.below).name
        judged.append(Judged(a, b, claim.source, test, said))
    return judged


def _said_of(test: PairedTest | None, table: Table, ran: bool) -> str:
    """The verdict on a claim, or the reason why there is none."""
    if test:
        return ordering_verdict(test, table.monitor)
    if not ran:
        return "not run"
    return "too few splits" if table.protocol == "rating-holdout" else "other data"


def claims_by_dataset(table: Table, results: Path = RESULTS) -> dict[str, list[Judged]]:
    """The claims of a table on all data sets on which it has stored runs.

    Returns:
        The judged claims, in the table's order, by the title of the data set.

    Raises:
        InputError: If a stored file is damaged.
    """
    datasets = datasets_of(table, results)
    return {dataset_title(name): judged_claims(table, cells_of(table, name, results)) for name in datasets}
