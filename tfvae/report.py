"""From stored runs to Markdown and pictures: a pure function of the files in `paper_results/`.

No number is typed: every cell is a stored run of this code or a published cell of `table.toml`, and rendering
the same files twice gives the same bytes. What a reader must know about a cell (fewer epochs, settings by
hand, seeds that do not belong together) is a mark in that cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from tfvae import plots
from tfvae.data.datasets import DATASETS
from tfvae.definitions import RESULTS, Attribute, Row, Table, load_table, table_names
from tfvae.files import write_text
from tfvae.records import (
    Run,
    datasets_of,
    folder_of,
    per_user_metrics,
    stored_attributes,
    stored_runs,
    sweep_of,
)
from tfvae.stats import mean_and_se, paired_test

__all__ = ["render", "render_overview", "verdict"]

ROUNDING = 0.0005  # published cells are printed to three digits
PICTURE = "learning-curves.png"


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


def render(name: str, dataset: str, results: Path = RESULTS) -> Path:
    """Writes the README.md of a table on a data set, and its picture.

    Args:
        name: The table.
        dataset: The data set.
        results: The results folder.

    Returns:
        The README.md.

    Raises:
        InputError: If the table's definition or a stored file is damaged.
    """
    table = load_table(name, results)
    folder = folder_of(name, dataset, results)
    if table.kind == "data-attributes":
        text = _template("attributes.md.j2").render(
            table=table,
            dataset=DATASETS[dataset],
            published=table.published.get(dataset),
            stored=stored_attributes(name, dataset, results),
            lines=_attribute_lines(table, dataset, results),
        )
    else:
        cells = _rows(table, dataset, results)
        text = _template("table.md.j2").render(
            table=table,
            dataset=DATASETS[dataset],
            published=table.published.get(dataset),
            rows=cells,
            run=[row for row in cells if row.runs],
            pairs=_pairs(table, cells),
            sweeps=_sweeps(table, dataset, results),
            machines=_machines(cells),
            picture=_picture(table, dataset, cells, folder),
            rounding=ROUNDING,
        )
    write_text(folder / "README.md", text)
    return folder / "README.md"


def render_overview(results: Path = RESULTS) -> Path:
    """Writes the results folder's README.md: every table on every data set, ours beside the published.

    Args:
        results: The results folder.

    Returns:
        The README.md.

    Raises:
        InputError: If a table's definition or a stored file is damaged.
    """
    sections = []
    for table in (load_table(name, results) for name in table_names(results)):
        ran = datasets_of(table.name, results)
        parts = []
        for dataset in [*ran, *(name for name in table.published if name not in ran)]:
            if table.kind == "data-attributes":
                body = {"lines": _attribute_lines(table, dataset, results)}
            else:
                body = {"rows": _rows(table, dataset, results)}
            parts.append(body | {"dataset": DATASETS[dataset], "ran": dataset in ran})
        sections.append({"table": table, "parts": parts})
    path = Path(results) / "README.md"
    write_text(path, _template("overview.md.j2").render(sections=sections))
    return path


# ---- rows -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cells:
    """One row of a table on one data set, with what is stored of it.

    Attributes:
        row: The row's definition.
        runs: Its stored runs, by seed.
        per_user: By metric, each test user's mean over the seeds, float64 [users]; empty without runs.
        published: The published cells, by metric.
    """

    row: Row
    runs: list[Run]
    per_user: dict[str, np.ndarray]
    published: dict[str, float]

    @cached_property
    def marks(self) -> dict[str, str]:
        """What must be known about these cells: sign -> explanation."""
        marks = {}
        if why := sorted({run.shortened_why for run in self.runs if run.shortened}):
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
        means = [run.metrics[metric]["mean"] for run in self.runs]
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
        if self.difference(metric) is None:
            return ""
        if self.marks:
            return f"no verdict {''.join(self.marks)}"
        return verdict(self.difference(metric), self.se(metric))

    def average(self, field: str) -> float:
        """Mean of a run's number over the seeds."""
        return float(np.mean([getattr(run, field) for run in self.runs]))


def _kind_of(run: Run) -> tuple:
    """What the seeds of one cell must share."""
    settings = {key: str(value) for key, value in run.settings.items() if key != "seed"}
    return run.model, run.data_digest, tuple(sorted(settings.items()))


def _rows(table: Table, dataset: str, results: Path) -> list[Cells]:
    """All rows that have something to say about a data set: a model or published cells."""
    rows = []
    for row in table.rows:
        runs = stored_runs(table.name, dataset, row.slug, results)
        published = row.published.get(dataset, {})
        if row.model or published:
            rows.append(Cells(row, runs, _mean_over_seeds(runs, table.metrics, results), published))
    return rows


def _mean_over_seeds(runs: list[Run], metrics: list[str], results: Path) -> dict[str, np.ndarray]:
    """Each user's mean over the seeds; only over seeds of the last run's data, so that users are the same."""
    runs = [run for run in runs if run.data_digest == runs[-1].data_digest]
    seeds = [per_user_metrics(run, results) for run in runs]
    shared = [metric for metric in metrics if all(metric in seed for seed in seeds)]
    return {metric: np.mean([seed[metric] for seed in seeds], axis=0) for metric in shared if seeds}


def _pairs(table: Table, rows: list[Cells]) -> list[dict[str, Any]]:
    """Paired t-tests of all rows on the monitored metric, where they were measured on the same users."""
    ready = [row for row in rows if table.monitor in row.per_user]
    return [
        {"a": a.row.name, "b": b.row.name} | paired_test(a.per_user[table.monitor], b.per_user[table.monitor])._asdict()
        for a, b in combinations(ready, 2)
        if a.runs[-1].data_digest == b.runs[-1].data_digest
    ]


def _sweeps(table: Table, dataset: str, results: Path) -> list[dict[str, Any]]:
    """The stored sweeps that found something, with their rows."""
    sweeps = [(row, sweep_of(table.name, dataset, row, results)) for row in table.rows]
    return [{"row": row, "sweep": sweep} for row, sweep in sweeps if sweep and sweep.best]


def _machines(rows: list[Cells]) -> list[dict[str, Any]]:
    """The different environments and commits the runs were made in."""
    made = {
        (
            run.environment["device"],
            run.environment["cores"],
            run.environment["platform"],
            ", ".join(f"{package} {version}" for package, version in run.environment["versions"].items()),
            f"Python {run.environment['python']}",
            run.commit,
        )
        for row in rows
        for run in row.runs
    }
    keys = ("device", "cores", "platform", "versions", "python", "commit")
    return [dict(zip(keys, line, strict=True)) for line in sorted(made, key=str)]


def _picture(table: Table, dataset: str, rows: list[Cells], folder: Path) -> str | None:
    """Draws the learning curves; None where nothing was trained by epochs."""
    ran = [row for row in rows if row.runs]
    curves = {row.row.name: [run.history for run in row.runs] for row in ran if row.runs[0].history}
    if not curves:
        return None
    levels = {row.row.name: row.average("validation") for row in ran if not row.runs[0].history}
    title = f"{table.name} on {DATASETS[dataset].title}"
    plots.learning_curves(curves, levels, folder / PICTURE, title=title, metric=_printed_metric(table.monitor))
    return PICTURE


# ---- data attributes --------------------------------------------------------------------------------


def _attribute_lines(table: Table, dataset: str, results: Path) -> list[dict[str, str]]:
    """The lines of a table of data attributes: equal when both print the same in the paper's style."""
    stored = stored_attributes(table.name, dataset, results)
    lines = []
    for attribute in table.attributes:
        ours = stored and stored.counts.get(attribute.key)
        paper = attribute.published.get(dataset)
        ours, paper = (_in_style(attribute, value) for value in (ours, paper))
        same = "" if None in (ours, paper) else "same" if ours == paper else "differs"
        lines.append({"name": attribute.name, "ours": ours or "not run", "published": paper or "–", "verdict": same})
    return lines


def _in_style(attribute: Attribute, value: float | None) -> str | None:
    if value is None:
        return None
    match attribute.style:
        case "count":
            return f"{value:,.0f}"
        case "millions":
            return f"{value / 1e6:.1f} M"
        case "percent":
            return f"{value:.2f} %"


# ---- text -------------------------------------------------------------------------------------------


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "commit": lambda name: f"`{name[:10]}`{' with changes' * name.endswith('+changes')}" if name else "–",
        "metric": _printed_metric,
        "p_value": lambda p: "< 0.001" if p < 0.001 else f"{p:.3f}",
        "settings": lambda settings: ", ".join(f"{key} = {_short(value)}" for key, value in settings.items()),
    }
    return environment.get_template(name)


def _printed_metric(metric: str) -> str:
    """The metric as the papers print it: "NDCG@100", "Recall@20", "HR@10"."""
    kind, k = metric.split("@")
    return f"{kind.capitalize() if kind == 'recall' else kind.upper()}@{k}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
