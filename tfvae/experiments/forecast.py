"""What a table would cost: the updates and operations of its runs, computed from its definition without running any.

`tfvae.training.operations` says which operations are counted. Nothing is known here of the searches for a row's
settings, nor of what evaluation takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from tfvae.data.splits import HeldOutUsers, StrongGeneralization
from tfvae.experiments.definitions import RESULTS, WORK, Table, load_table, table_names
from tfvae.experiments.plan import Job, Log, plans_of_rows, rows_to_run
from tfvae.experiments.protocols import OwnData, Splits, data_name, splits_of
from tfvae.training.operations import Work, of_run, uncounted
from tfvae.training.settings import Settings, member_settings

__all__ = ["ASSUMED_TFLOPS", "Forecast", "forecast"]

ASSUMED_TFLOPS = 10.0
"""The assumed rate of a card of an A100's class, in 10¹² operations a second of a whole step: half of the 19.5 that its
maker gives for float32 without tensor cores. It is not measured."""


@dataclass(frozen=True)
class Forecast:
    """What all runs of one row have to do.

    Attributes:
        row: Name of the row.
        slug: Its slug.
        runs: Number of runs, one for each seed.
        updates: Number of training steps of all runs, which early stopping may shorten; 0 if nothing is counted.
        operations: Number of floating-point operations of all these steps that are counted.
        uncounted: What is not counted, in words; None if all steps are.
    """

    row: str
    slug: str
    runs: int
    updates: int
    operations: int
    uncounted: str | None

    def hours(self, tflops: float) -> float:
        """The hours that the operations take.

        Args:
            tflops: How many a device does, in 10¹² a second, as `tfvae doctor --device` measures them for a step.
        """
        return self.operations / (tflops * 1e12) / 3600


def forecast(
    name: str,
    dataset: str | None = None,
    seeds: Sequence[int] | None = None,
    rows: Sequence[str] | None = None,
    *,
    epochs: int | None = None,
    overrides: dict[str, Any] | None = None,
    source: str | Path | None = None,
    own: OwnData | None = None,
    results: Path = RESULTS,
    log: Log = print,
) -> list[Forecast]:
    """Computes what the runs of a table take, stored ones included.

    The data need not be on hand if a paper says how many training users and items their split has. A stored sweep of
    such data is left out, since it may be of other data.

    Args:
        name: See `run_table`, as for all arguments.
        dataset: The data set.
        seeds: The seeds.
        rows: Slugs of the rows.
        epochs: The largest number of epochs of each run.
        overrides: Settings that take precedence.
        source: Data fetched by hand; they are read then.
        own: A user's own data, instead of a named data set.
        results: The results folder.
        log: Called with one line at a time.

    Returns:
        One entry for each row that would be run.

    Raises:
        InputError: If a name, a setting or the data are not as they should be.
    """
    table = load_table(name, results)
    chosen = rows_to_run(table, rows)
    stored_under = data_name(dataset, own)
    size = None if own or source else _published_size(table, stored_under, results)
    splits = splits_of(table, dataset, source, own) if size is None else _of_size(*size)
    job = Job(table, stored_under, splits, results, WORK, progress=False, log=log, figure=table.figure)
    found = []
    for row in chosen:
        plans = plans_of_rows(job, [row], seeds, epochs, overrides or {})
        work, why = _work(plans[0].settings, plans[0].split.train)
        n = len(plans)
        found.append(Forecast(row.name, row.slug, n, n * work.updates, 2 * n * work.multiply_adds, why))
    return found


def _work(settings: Settings, train: csr_array) -> tuple[Work, str | None]:
    """The work of a run, of an ensemble that of its members; and what of it is not counted."""
    if settings.members:
        parts = [_work(member_settings(member), train) for member in settings.members]
        lacking = sorted({why for _, why in parts if why})
        total = Work(sum(work.updates for work, _ in parts), sum(work.multiply_adds for work, _ in parts))
        return total, f"members: {'; '.join(lacking)}" if lacking else None
    if why := uncounted(settings):
        return Work(0, 0), why
    return of_run(settings, train), None


def _published_size(table: Table, dataset: str, results: Path) -> tuple[int, int] | None:
    """The numbers of training users and items of a data set's split, by this table or another; None if no paper says.

    Where whole users are held out, they are enough for the number of updates.
    """
    if table.protocol != "strong-generalization":
        return None
    for other in (table, *(load_table(name, results) for name in table_names(results))):
        size = other.published.get(dataset)
        if other.protocol == table.protocol and size and size.train_users and size.n_items:
            return size.train_users, size.n_items
    return None


def _of_size(n_users: int, n_items: int) -> Splits:
    """A split of this size that stands for data that are not on hand; each training user has one item."""
    users, nobody = np.arange(n_users), csr_array((0, n_items), dtype=np.float32)
    split = StrongGeneralization(
        train=csr_array((np.ones(n_users, np.float32), (users, users % n_items)), shape=(n_users, n_items)),
        user_ids=users,
        validation=HeldOutUsers(nobody, nobody, users[:0]),
        test=None,
        item_ids=np.arange(n_items),
        titles=None,
        settings=None,
        counts={},
        digest="of a published size",
    )
    return lambda seed, by: split
