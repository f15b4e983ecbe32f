"""One row of a table on one data set as it is printed: its stored runs put together, and what may be said of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.stats import sem

from tfvae.evaluation.metrics import lower_is_better
from tfvae.evaluation.stats import PairedTest, mean_and_se, paired_test
from tfvae.experiments.definitions import RESULTS, Row, Table
from tfvae.experiments.records import StoredRun, per_user_metrics, runs_of

__all__ = ["BOUNDS", "ROUNDING", "Cells", "SplitCells", "cells_of", "compared", "ordering_verdict", "verdict"]

ROUNDING = 0.0005  # published cells are printed to three digits
SIGNIFICANT = 0.05
BOUNDS = ("elbo", "iwae")


def verdict(difference: float, se: float) -> str:
    """What a cell says about a published one: the stated rule.

    Args:
        difference: Ours minus the published value.
        se: Standard error of ours over test users.

    Returns:
        "reproduced" within two standard errors and the rounding of a printed value; else "above" or "below".
    """
    if abs(difference) <= 2 * se + ROUNDING:
        return "reproduced"
    return "above" if difference > 0 else "below"


def ordering_verdict(test: PairedTest, metric: str) -> str:
    """What a paired test of A against B says of the claim that A is better: the stated rule.

    Args:
        test: The paired test of A - B.
        metric: The metric that is compared; of an error the lower value is the better one.

    Returns:
        "holds" where A is better than B and p < 0.05, "reversed" where B is and p < 0.05; else "no difference shown".
    """
    if not test.p_value < SIGNIFICANT:
        return "no difference shown"
    return "holds" if (test.difference < 0) == lower_is_better(metric) else "reversed"


@dataclass(frozen=True)
class Cells:
    """One row of a table on one data set, with what is stored of it.

    Attributes:
        row: The row's definition.
        runs: Its stored runs, by seed.
        per_user: By metric, each test user's mean over the seeds, float64 [users]; empty without runs.
        published: The published cells, by metric.
        monitor: The table's monitored metric.
    """

    row: Row
    runs: list[StoredRun]
    per_user: dict[str, np.ndarray]
    published: dict[str, float]
    monitor: str

    @cached_property
    def marks(self) -> dict[str, str]:
        """What must be known about these cells: sign -> explanation."""
        marks = {}
        if why := sorted({run.shortened_why for run in self.runs if run.shortened_why}):
            marks["†"] = f"shortened: {'; '.join(why)}"
        if changed := sorted({f"{key} = {value}" for run in self.runs for key, value in run.overrides.items()}):
            marks["‡"] = f"settings by hand: {', '.join(changed)}"
        if len({_kind_of(run) for run in self.runs}) > 1:
            marks["§"] = "its seeds were run with differing settings or data"
        return marks

    def mean(self, metric: str) -> float:
        """Mean over test users (and seeds)."""
        return mean_and_se(self.per_user[metric])[0]

    def se(self, metric: str) -> float:
        """Standard error of `mean` over test users."""
        return mean_and_se(self.per_user[metric])[1]

    def spread(self, metric: str) -> float | None:
        """Standard deviation of the seeds' means; None with fewer than two seeds."""
        means = [run.metrics[metric]["mean"] for run in self.runs if metric in run.metrics]
        return float(np.std(means, ddof=1)) if len(means) > 1 else None

    def ours(self, metric: str) -> str:
        """The cell as printed: mean ± standard error, marked; or why there is none."""
        if self.row.model is None:
            return "not built yet"
        if metric not in self.per_user:
            return "not run"
        return f"{self.mean(metric):.4f} ± {self.se(metric):.4f}{''.join(self.marks)}"

    def difference(self, metric: str) -> float | None:
        """Ours minus the published value; None where either is missing."""
        if metric not in self.per_user or metric not in self.published:
            return None
        return self.mean(metric) - self.published[metric]

    def verdict(self, metric: str) -> str:
        """`verdict` of the cell; marked runs get none, since they are not the published experiment."""
        difference = self.difference(metric)
        if difference is None:
            return ""
        if self.marks:
            return f"no verdict {''.join(self.marks)}"
        return verdict(difference, self.se(metric))

    def best_on_test(self, metric: str) -> str:
        """Mean over the seeds of the best epoch's value, chosen on the test part itself; a dash where not watched."""
        best = min if lower_is_better(metric) else max
        curves = [run.watched[metric] for run in self.runs if run.watched and metric in run.watched]
        return f"{np.mean([best(curve) for curve in curves]):.4f}{''.join(self.marks)}" if curves else "–"

    def average(self, field: str) -> float:
        """Mean of a run's number over the seeds."""
        return float(np.mean([getattr(run, field) for run in self.runs]))

    @property
    def validation(self) -> float | None:
        """Mean over the seeds of the best epoch's value; None of another table's runs that another metric selects."""
        same = all(
            run.validation is not None and run.settings.get("monitor", self.monitor) == self.monitor
            for run in self.runs
        )
        return self.average("validation") if self.runs and same else None

    @property
    def seconds_per_epoch(self) -> float | None:
        """Mean over the seeds; None for a model without epochs."""
        per_epoch = [run.seconds / run.epochs for run in self.runs if run.epochs]
        return float(np.mean(per_epoch)) if per_epoch else None

    @property
    def seconds_per_round(self) -> float | None:
        """Mean over the seeds; None where a round is an epoch, or there are none."""
        per_round = [run.seconds / len(run.history) for run in self.runs if run.validated]
        return float(np.mean(per_round)) if per_round else None

    @property
    def peak_memory_gb(self) -> float | None:
        """The largest of the seeds' peaks; None where none is known."""
        return max((run.peak_memory_gb for run in self.runs if run.peak_memory_gb is not None), default=None)

    def figure(self, name: str) -> float | None:
        """Mean over the seeds of one of `StoredRun.latents`; None where a seed has none."""
        values = [run.latents[name] for run in self.runs if run.latents]
        return float(np.mean(values)) if values and len(values) == len(self.runs) else None

    @property
    def active_units(self) -> str:
        """Mean over the seeds and how many there are, as printed; a dash where there is none."""
        active = self.figure("active_units")
        return "–" if active is None else f"{round(active, 1):g} of {self.figure('latent_dim'):g}"

    def bound(self, name: str) -> str:
        """A bound of log p(x) as printed: mean ± standard error in nats, marked; a dash where there is none."""
        if name not in self.per_user:
            return "–"
        return f"{self.mean(name):.2f} ± {self.se(name):.2f}{''.join(self.marks)}"


@dataclass(frozen=True)
class SplitCells(Cells):
    """A row whose every run is of a split of its own, so that what varies is the split and not the user.

    Here `per_user` holds one value for each run, float64 [runs], in the order of `runs`.

    Attributes:
        n_splits: How many splits the table has.
    """

    n_splits: int = 0

    @cached_property
    def marks(self) -> dict[str, str]:
        """As of `Cells`; and how many of the splits were run, if not all."""
        kinds = {tuple(sorted((k, str(v)) for k, v in run.settings.items() if k != "seed")) for run in self.runs}
        marks = {sign: why for sign, why in super().marks.items() if sign != "§"}
        if len(kinds) > 1:
            marks["§"] = "its splits were run with differing settings"
        if 0 < len(self.runs) < self.n_splits:
            marks["¶"] = f"{len(self.runs)} of {self.n_splits} splits"
        return marks

    def se(self, metric: str) -> float:
        """Standard error of `mean`: over splits (sample sd / √n), or over the ratings of a single one."""
        values = self.per_user[metric]
        return float(sem(values)) if len(values) > 1 else self.runs[0].metrics[metric]["se"]


def _kind_of(run: StoredRun) -> tuple:
    """What the seeds of one cell must share."""
    settings = {key: str(value) for key, value in run.settings.items() if key != "seed"}
    return run.model, run.data_digest, tuple(sorted(settings.items()))


def cells_of(table: Table, dataset: str, results: Path = RESULTS) -> list[Cells]:
    """All rows that have something to say about a data set: a model or published cells.

    Raises:
        InputError: If a stored file is damaged.
    """
    rows: list[Cells] = []
    for row in table.rows:
        runs = runs_of(table.name, dataset, row, results)
        published = row.published.get(dataset, {})
        if not (row.model or published):
            continue
        if table.protocol == "rating-holdout":
            shared = [metric for metric in table.metrics if runs and all(metric in run.metrics for run in runs)]
            values = {metric: np.array([run.metrics[metric]["mean"] for run in runs]) for metric in shared}
            rows.append(SplitCells(row, runs, values, published, table.monitor, len(table.seeds)))
        else:
            per_user = _mean_over_seeds(runs, [*table.metrics, *BOUNDS], results)
            rows.append(Cells(row, runs, per_user, published, table.monitor))
    return rows


def compared(a: Cells, b: Cells, metric: str) -> PairedTest | None:
    """Paired t-test of two rows on a metric, user by user, or split by split.

    None where one has no runs or the data are not the same; of splits, where fewer than two were run of both.
    """
    if metric not in a.per_user or metric not in b.per_user:
        return None
    if isinstance(a, SplitCells):
        # An item-based row has the same splits transposed, so that they are paired by their numbers.
        ours, theirs = (dict(zip((run.seed for run in c.runs), c.per_user[metric], strict=True)) for c in (a, b))
        both = sorted(ours.keys() & theirs.keys())
        pairs = [np.array([values[seed] for seed in both]) for values in (ours, theirs)]
        return paired_test(*pairs) if len(both) > 1 else None
    if a.runs[-1].data_digest != b.runs[-1].data_digest:
        return None
    return paired_test(a.per_user[metric], b.per_user[metric])


def _mean_over_seeds(runs: list[StoredRun], metrics: list[str], results: Path) -> dict[str, np.ndarray]:
    """Each user's mean over the seeds; only over seeds of the last run's data, so that users are the same."""
    runs = [run for run in runs if run.data_digest == runs[-1].data_digest]
    seeds = [per_user_metrics(run, results) for run in runs]
    shared = [metric for metric in metrics if all(metric in seed for seed in seeds)]
    return {metric: np.mean([seed[metric] for seed in seeds], axis=0) for metric in shared if seeds}
