"""From stored runs to Markdown and pictures: a pure function of the files in `paper_results/`.

No number is typed: every cell is a stored run of this code or a published cell of a table's definition, and rendering
the same files twice gives the same bytes. What a reader must know about a cell (fewer epochs, settings by
hand, seeds that do not belong together) is a mark in that cell.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from tfvae.data.datasets import DATASETS
from tfvae.evaluation.metrics import FULL
from tfvae.experiments import plots
from tfvae.experiments.definitions import RESULTS, Attribute, Table, load_table, own_table_names, table_names
from tfvae.experiments.protocols import dataset_title
from tfvae.experiments.records import StoredRun, datasets_of, folder_of, stored_attributes, stored_latents, sweep_of
from tfvae.experiments.summaries import ROUNDING, SIGNIFICANT, Cells, cells_of, compared, ordering_verdict
from tfvae.system.files import write_text

__all__ = ["render", "render_overview"]

OVER = {  # what is sampled in a protocol: what a test pairs, and what a validation value is of
    "strong-generalization": ("test users", "validation users"),
    "leave-one-out": ("users", "other items of the users"),
    "rating-holdout": ("splits", "a part of the training ratings"),
}
PICTURE = "learning-curves.png"
PICTURE_OF_LATENTS = "latents.png"
PICTURE_OF_SHAPES = "learning-curves-by-round.png"


def render(name: str, dataset: str, results: Path = RESULTS) -> Path:
    """Writes the README.md of a table on a data set, and its pictures.

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
            dataset=_named(dataset),
            published=table.published.get(dataset),
            stored=stored_attributes(name, dataset, results),
            lines=_attribute_lines(table, dataset, results),
        )
    else:
        cells = cells_of(table, dataset, results)
        text = _template("table.md.j2").render(
            table=table,
            dataset=_named(dataset),
            published=table.published.get(dataset),
            rows=cells,
            run=[row for row in cells if row.runs],
            orderings=_orderings(table, cells),
            pairs=_pairs(table, cells),
            described=_described(cells),
            latents=_latents(table, dataset, cells, folder, results),
            sweeps=_sweeps(table, dataset, results),
            machines=_machines(cells),
            rounds=any(row.seconds_per_round for row in cells),
            picture=_picture(table, dataset, cells, folder),
            shapes=_shapes(table, dataset, cells, folder),
            over=OVER[table.protocol],
            predictive=_predictive(cells),
            watched=[metric for metric in table.metrics if any(row.best_on_test(metric) != "–" for row in cells)],
            rounding=ROUNDING,
            significant=SIGNIFICANT,
        )
    write_text(folder / "README.md", text)
    return folder / "README.md"


def render_overview(results: Path = RESULTS) -> Path:
    """Writes the results folder's README.md: every table on every data set, ours beside the published.

    Tables of the package that have no run here are left out.

    Args:
        results: The results folder.

    Returns:
        The README.md.

    Raises:
        InputError: If a table's definition or a stored file is damaged.
    """
    sections, own = [], own_table_names(results)
    for table in (load_table(name, results) for name in table_names(results)):
        ran = datasets_of(table, results)
        if not ran and table.name not in own:
            continue
        parts = []
        for dataset in [*ran, *(name for name in table.published if name not in ran)]:
            if table.kind == "data-attributes":
                body = {"lines": _attribute_lines(table, dataset, results)}
            else:
                body = {"rows": cells_of(table, dataset, results)}
            parts.append(body | {"dataset": _named(dataset), "ran": dataset in ran})
        sections.append({"table": table, "parts": parts})
    path = Path(results) / "README.md"
    write_text(path, _template("overview.md.j2").render(sections=sections))
    return path


def _named(dataset: str) -> dict[str, str]:
    """A data set as the templates print it; one's own is given to a command by its file, whose place is not stored."""
    option = f"--dataset {dataset}" if dataset in DATASETS else "--data FILE"
    return {"name": dataset, "title": dataset_title(dataset), "option": option}


# ---- rows -------------------------------------------------------------------------------------------


def _pairs(table: Table, rows: list[Cells]) -> list[dict[str, Any]]:
    """Paired t-tests of all rows on the monitored metric, where they were measured on the same users."""
    pairs = ((a, b, compared(a, b, table.monitor)) for a, b in combinations(rows, 2))
    return [{"a": a.row.name, "b": b.row.name} | test._asdict() for a, b, test in pairs if test]


def _orderings(table: Table, rows: list[Cells]) -> list[dict[str, Any]]:
    """The paper's claims of one row above another, with their tests and verdicts; a marked cell marks the verdict."""
    by_slug = {row.row.slug: row for row in rows}
    judged = []
    for ordering in table.orderings:
        a, b = table.row(ordering.above), table.row(ordering.below)
        pair = [by_slug[row.slug] for row in (a, b) if row.slug in by_slug]
        ran = len(pair) == 2 and all(table.monitor in row.per_user for row in pair)
        test = compared(*pair, table.monitor) if ran else None
        marks = "".join(sorted({mark for row in pair for mark in row.marks}))
        said = (
            f"{ordering_verdict(test, table.monitor)}{marks and f' {marks}'}"
            if test
            else ("too few splits" if table.protocol == "rating-holdout" else "other data")
            if ran
            else "not run"
        )
        judged.append({"a": a.name, "b": b.name, "source": ordering.source, "test": test, "verdict": said})
    return judged


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
    ran = [row for row in rows if row.validation is not None]
    curves = {row.row.name: [_curve(run) for run in row.runs] for row in ran if row.runs[0].history}
    if not curves:
        return None
    levels = {row.row.name: row.validation for row in ran if not row.runs[0].history}
    title = f"{table.name} on {dataset_title(dataset)}"
    plots.learning_curves(curves, levels, folder / PICTURE, title=title, metric=_printed_metric(table.monitor))
    return PICTURE


def _curve(run: StoredRun) -> dict[int, float]:
    """The validation values of a run by epochs, counted from 0."""
    return dict(zip(run.validated or range(run.epochs), run.history, strict=True))


def _shapes(table: Table, dataset: str, rows: list[Cells], folder: Path) -> dict[str, Any] | None:
    """Draws the learning curves by rounds of rows that have published ones; None where no such row was run."""
    curves = {}  # by name: the metric by rounds, counted from 1, and its source
    for row in rows:
        if not (row.runs and row.row.curves):
            continue
        n_rounds = min(len(run.history) for run in row.runs)
        means = np.mean([run.history[:n_rounds] for run in row.runs], axis=0).tolist()
        curves[f"{row.row.name} on {dataset_title(dataset)}"] = dict(enumerate(means, start=1)), "ours"
        for of, curve in row.row.curves.items():
            by_round = dict(zip(curve.rounds, curve.values, strict=True))
            curves[f"{row.row.name} on {dataset_title(of)}, published"] = by_round, curve.source
    if not curves:
        return None
    shares = {
        name: {at: value / max(curve.values()) for at, value in curve.items()} for name, (curve, _) in curves.items()
    }
    title, metric = f"{table.name}: the shape of learning", _printed_metric(table.monitor)
    plots.learning_shapes(shares, folder / PICTURE_OF_SHAPES, title=title, metric=metric)
    every = {at for curve in shares.values() for at in curve}
    # Those of which each curve that has not ended before has a value.
    rounds = sorted(at for at in every if all(at in curve or at > max(curve) for curve in shares.values()))
    lines = [
        {"name": name, "shares": [shares[name].get(at) for at in rounds], "best": max(curve.values()), "source": source}
        for name, (curve, source) in curves.items()
    ]
    return {"picture": PICTURE_OF_SHAPES, "rounds": rounds, "curves": lines}


def _described(rows: list[Cells]) -> dict[str, str] | None:
    """How many draws and users the figures of the generative models are of; None where no row has any."""
    names = ("samples", "marginal_users")
    counts = {name: {int(row.figure(name)) for row in rows if row.figure(name)} for name in names}
    if not counts["samples"]:
        return None
    return {name: " or ".join(f"{number:,}" for number in sorted(found)) for name, found in counts.items()}


def _predictive(rows: list[Cells]) -> list[dict[str, Any]]:
    """How good the predictive distributions are, by row and way of sampling codes: means over the splits."""
    lines = []
    for row in rows:
        for way in ("encoder", "hmc"):
            found = [run.predictive[way] for run in row.runs if run.predictive and way in run.predictive]
            if not found:
                continue
            names = [name for name, value in found[0].items() if isinstance(value, int | float)]
            means = {name: float(np.mean([one[name] for one in found])) for name in names}
            groups = [
                {name: float(np.mean([group[name] for group in same])) for name in same[0]}
                for same in zip(*(one["groups"] for one in found), strict=False)
            ]
            lines.append({"name": row.row.name, "way": way, "groups": groups} | means)
    return lines


def _latents(table: Table, dataset: str, rows: list[Cells], folder: Path, results: Path) -> str | None:
    """Draws the aggregated posteriors beside their priors; None where none are stored."""
    stored = {row.row.name: stored_latents(row.runs[0], results) for row in rows if row.runs}
    panels = {name: (points["posterior"], points["prior"]) for name, points in stored.items() if points}
    if not panels:
        return None
    title = f"{table.name} on {dataset_title(dataset)}"
    plots.latent_planes(panels, folder / PICTURE_OF_LATENTS, title=title)
    return PICTURE_OF_LATENTS


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
    """The metric as the papers print it: "NDCG@100", "Recall@20", "HR@10", "RMSE"; "full HR@10" of all items."""
    kind, at, k = metric.removeprefix(FULL).partition("@")
    printed = f"{kind.capitalize() if kind == 'recall' else kind.upper()}{at}{k}"
    return f"full {printed}" if metric.startswith(FULL) else printed


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
