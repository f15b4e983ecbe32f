"""The cells of a table's row on one data set: summaries of the stored runs, and verdicts on published values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import sem

from tfvae.evaluation.metrics import lower_is_better
from tfvae.evaluation.stats import PairedTest, mean_and_se, paired_test
from tfvae.experiments.definitions import RESULTS, Row, Table
from tfvae.experiments.records import StoredRun
from tfvae.experiments.results_folder import per_user_metrics, runs_of, sweep_of
from tfvae.models import model_class
from tfvae.system.errors import InputError
from tfvae.training.settings import stored_settings

__all__ = [
    "BOUNDS",
    "ROUNDING",
    "SIGNIFICANT",
    "Cells",
    "SplitCells",
    "cells_of",
    "compared",
    "means_over_splits",
    "ordering_verdict",
    "verdict",
]

ROUNDING = 0.0005  # published cells are printed to three digits
SIGNIFICANT = 0.05
BOUNDS = ("elbo", "iwae")


def verdict(difference: float, se: float) -> str:
    """Compares a cell with the published one by a fixed rule.

    Args:
        difference: Our value minus the published one.
        se: Standard error of our value.

    Returns:
        "reproduced" if the difference is within two standard errors plus the rounding of a printed value; otherwise
        "above" or "below".
    """
    if abs(difference) <= 2 * se + ROUNDING:
        return "reproduced"
    return "above" if difference > 0 else "below"


def ordering_verdict(test: PairedTest, metric: str) -> str:
    """Judges the claim that A is better than B by a fixed rule.

    Args:
        test: The paired test of A - B.
        metric: The metric that is compared; the lower of two errors is the better one.

    Returns:
        "holds" if A is better and p < 0.05, "reversed" if B is better and p < 0.05; otherwise "no difference shown".
    """
    if not test.p_value < SIGNIFICANT:
        return "no difference shown"
    return "holds" if (test.difference < 0) == lower_is_better(metric) else "reversed"


@dataclass(frozen=True)
class Cells:
    """One row of a table on one data set, with its stored runs.

    Attributes:
        row: The row's definition.
        runs: Its stored runs, in the order of their seeds.
        per_user: For each metric by name, each test user's mean over the seeds, float64 [users]; empty without runs.
        published: The published cells, by metric.
        monitor: The table's monitored metric.
        lacking: What the row lacks to the terms of a leaderboard, in words; None if it lacks nothing.
    """

    row: Row
    runs: list[StoredRun]
    per_user: dict[str, np.ndarray]
    published: dict[str, float]
    monitor: str
    lacking: str | None = None

    @cached_property
    def marks(self) -> dict[str, str]:
        """What a reader must know about these cells: the marks, with an explanation of each."""
        marks = {}
        if why := sorted({run.shortened_why for run in self.runs if run.shortened_why}):
            marks["†"] = f"shortened: {'; '.join(why)}"
        if changed := sorted({f"{key} = {value}" for run in self.runs for key, value in run.overrides.items()}):
            marks["‡"] = f"settings by hand: {', '.join(changed)}"
        data = {(run.model, run.data_digest) for run in self.runs}
        if len(data) > 1 or _differing(self.runs):
            marks["§"] = "its seeds were run with differing settings or data"
        if self.lacking:
            marks["¶"] = self.lacking
        return marks

    def mean(self, metric: str) -> float:
        """Mean over test users, each with the mean over the seeds."""
        return mean_and_se(self.per_user[metric])[0]

    def se(self, metric: str) -> float:
        """Standard error of `mean` over test users."""
        return mean_and_se(self.per_user[metric])[1]

    def spread(self, metric: str) -> float | None:
        """Sample standard deviation of the seeds' means; None with fewer than two seeds."""
        means = [run.metrics[metric]["mean"] for run in self.runs if metric in run.metrics]
        return float(np.std(means, ddof=1)) if len(means) > 1 else None

    def ours(self, metric: str) -> str:
        """The cell as printed: mean ± standard error with the marks, or the reason why there is none."""
        if self.row.model is None:
            return "published only"
        if metric not in self.per_user:
            return "not run"
        return f"{self.mean(metric):.4f} ± {self.se(metric):.4f}{''.join(self.marks)}"

    def difference(self, metric: str) -> float | None:
        """Our value minus the published one; None if either is missing."""
        if metric not in self.per_user or metric not in self.published:
            return None
        return self.mean(metric) - self.published[metric]

    def verdict(self, metric: str) -> str:
        """The `verdict` on the cell; marked cells get none, since their runs are not the published experiment."""
        difference = self.difference(metric)
        if difference is None:
            return ""
        if self.marks:
            return f"no verdict {''.join(self.marks)}"
        return verdict(difference, self.se(metric))

    def best_on_test(self, metric: str) -> str:
        """Mean over the seeds of the best value on the test part, which selects it itself; a dash if not watched."""
        best = min if lower_is_better(metric) else max
        curves = [run.watched[metric] for run in self.runs if run.watched and metric in run.watched]
        return f"{np.mean([best(curve) for curve in curves]):.4f}{''.join(self.marks)}" if curves else "–"

    def average(self, field: str) -> float:
        """Mean over the seeds of a number in `StoredRun`."""
        return float(np.mean([getattr(run, field) for run in self.runs]))

    @property
    def validation(self) -> float | None:
        """Mean over the seeds of the validation value.

        None without runs, if a run has no such value, or if another metric selected a run, as in another table.
        """
        same = all(
            run.validation is not None and run.settings.get("monitor", self.monitor) == self.monitor
            for run in self.runs
        )
        return self.average("validation") if self.runs and same else None

    @property
    def seconds_per_epoch(self) -> float | None:
        """Mean over the seeds of the seconds per epoch; None for a model without epochs."""
        per_epoch = [run.seconds / run.epochs for run in self.runs if run.epochs]
        return float(np.mean(per_epoch)) if per_epoch else None

    @property
    def seconds_per_round(self) -> float | None:
        """Mean over the seeds of the seconds per round; None if each epoch is a round, or there are none."""
        per_round = [run.seconds / len(run.history) for run in self.runs if run.validated]
        return float(np.mean(per_round)) if per_round else None

    @property
    def peak_memory_gb(self) -> float | None:
        """The largest of the seeds' peaks; None if none is known."""
        return max((run.peak_memory_gb for run in self.runs if run.peak_memory_gb is not None), default=None)

    def figure(self, name: str) -> float | None:
        """Mean over the seeds of a value in `StoredRun.latents`; None if a seed has none."""
        values = [run.latents[name] for run in self.runs if run.latents]
        return float(np.mean(values)) if values and len(values) == len(self.runs) else None

    def lists(self, name: str) -> float | None:
        """Mean of a value in `StoredRun.lists` over those seeds that have it; None if no seed has it."""
        values = [run.lists[name] for run in self.runs if run.lists and name in run.lists]
        return float(np.mean(values)) if values else None

    def intervals(self, name: str) -> float | None:
        """Mean of a value in `StoredRun.intervals` over those seeds that have it; None if no seed has it."""
        values = [run.intervals[name] for run in self.runs if run.intervals and name in run.intervals]
        return float(np.mean(values)) if values else None

    @property
    def active_units(self) -> str:
        """Mean number of active units over the seeds, of how many latent dimensions, as printed; a dash if unknown."""
        active = self.figure("active_units")
        return "–" if active is None else f"{round(active, 1):g} of {self.figure('latent_dim'):g}"

    def bound(self, name: str) -> str:
        """A bound on log p(x) as printed: mean ± standard error in nats, with the marks; a dash if there is none."""
        if name not in self.per_user:
            return "–"
        return f"{self.mean(name):.2f} ± {self.se(name):.2f}{''.join(self.marks)}"


@dataclass(frozen=True)
class SplitCells(Cells):
    """A row whose runs are on different splits, so that means and tests are over splits instead of users.

    Here `per_user` holds one value for each run, float64 [runs], in the order of `runs`.

    Attributes:
        n_splits: Number of splits of the table.
    """

    n_splits: int = 0

    @cached_property
    def marks(self) -> dict[str, str]:
        """As in `Cells`, but the data may differ between runs; a further mark tells how many splits were run."""
        marks = {sign: why for sign, why in super().marks.items() if sign != "§"}
        if _differing(self.runs):
            marks["§"] = "its splits were run with differing settings"
        if 0 < len(self.runs) < self.n_splits:
            marks["¶"] = "; ".join(filter(None, [f"{len(self.runs)} of {self.n_splits} splits", self.lacking]))
        return marks

    def se(self, metric: str) -> float:
        """Standard error of `mean`: over splits (sample sd / √n), or over the ratings of a single split."""
        values = self.per_user[metric]
        return float(sem(values)) if len(values) > 1 else self.runs[0].metrics[metric]["se"]


def _differing(runs: list[StoredRun]) -> bool:
    """Whether runs differ in more than their seeds; a setting that did not exist yet had its present default."""
    stored = [{key: value for key, value in run.settings.items() if key != "seed"} for run in runs]
    if all(settings == stored[0] for settings in stored):
        return False
    try:
        today = [stored_settings(run.settings).with_changes(seed=0) for run in runs]
    except InputError:  # a setting that no longer exists
        return True
    return any(settings != today[0] for settings in today)


def cells_of(table: Table, dataset: str, results: Path = RESULTS) -> list[Cells]:
    """The cells of all rows that have a model or published cells for a data set.

    They are in the order of the table; on equal terms, where every row has the same budget, the best comes first.

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
            lacking = _lacking(table, row, runs, dataset, results)
            rows.append(SplitCells(row, runs, values, published, table.monitor, lacking, len(table.seeds)))
        else:
            per_user = _mean_over_seeds(runs, [*table.metrics, *BOUNDS], results)
            lacking = _lacking(table, row, runs, dataset, results)
            rows.append(Cells(row, runs, per_user, published, table.monitor, lacking))
    return sorted(rows, key=_rank) if table.budget else rows


def _lacking(table: Table, row: Row, runs: list[StoredRun], dataset: str, results: Path) -> str | None:
    """What a row that has runs lacks to a leaderboard's terms, in words; None of a table without a budget."""
    budget = table.budget
    if budget is None or not runs or row.model is None:
        return None
    lacking = []
    if row.search or row.tuning_from:
        sweep = sweep_of(table.name, dataset, row, results)
        if sweep is None:
            lacking.append("not searched")
        elif len(sweep.trials) < budget.trials and sweep.seconds < budget.seconds:
            lacking.append(f"searched in {len(sweep.trials)} trials of {sweep.seconds:,.0f} s")
    of_splits = table.protocol == "rating-holdout"  # whose cells tell how many of them were run
    if len(runs) < len(table.seeds) and not (of_splits or model_class(row.model).is_deterministic):
        lacking.append(f"{len(runs)} of {len(table.seeds)} seeds")
    return "; ".join(lacking) or None


def _rank(cells: Cells) -> tuple[bool, float]:
    """The place of a row among others, by the monitored metric; rows without runs come last."""
    if cells.monitor not in cells.per_user:
        return True, 0.0
    mean = cells.mean(cells.monitor)
    return False, mean if lower_is_better(cells.monitor) else -mean


def compared(a: Cells, b: Cells, metric: str) -> PairedTest | None:
    """Paired t-test of two rows on a metric, by user or by split.

    Returns:
        The test; None if a row lacks the metric, if the data differ, or if fewer than two splits were run of both rows.
    """
    if metric not in a.per_user or metric not in b.per_user:
        return None
    if isinstance(a, SplitCells):
        # An item-based row has the same splits transposed, with other digests, so they are paired by their seeds.
        ours, theirs = (dict(zip((run.seed for run in c.runs), c.per_user[metric], strict=True)) for c in (a, b))
        both = sorted(ours.keys() & theirs.keys())
        pairs = [np.array([values[seed] for seed in both]) for values in (ours, theirs)]
        return paired_test(*pairs) if len(both) > 1 else None
    if a.runs[-1].data_digest != b.runs[-1].data_digest:
        return None
    return paired_test(a.per_user[metric], b.per_user[metric])


def means_over_splits(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The means over splits of each number in `StoredRun.predictive`, for all rows and for each group of rows.

    Args:
        found: The values of "encoder" or of "hmc", of each split.
    """
    names = [name for name, value in found[0].items() if isinstance(value, int | float)]
    groups = [
        {name: float(np.mean([group[name] for group in same])) for name in same[0]}
        for same in zip(*(one["groups"] for one in found), strict=False)
    ]
    return {"groups": groups} | {name: float(np.mean([one[name] for one in found])) for name in names}


def _mean_over_seeds(runs: list[StoredRun], metrics: list[str], results: Path) -> dict[str, np.ndarray]:
    """Each user's mean over those seeds whose data are the last run's, so that the users are the same."""
    runs = [run for run in runs if run.data_digest == runs[-1].data_digest]
    seeds = [per_user_metrics(run, results) for run in runs]
    shared = [metric for metric in metrics if all(metric in seed for seed in seeds)]
    return {metric: np.mean([seed[metric] for seed in seeds], axis=0) for metric in shared if seeds}
