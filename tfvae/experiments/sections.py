"""The sections of a table's page: the content of each, and which of them a table has on a data set."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from tfvae.evaluation.metrics import lower_is_better
from tfvae.experiments import plots
from tfvae.experiments.claims import judged_claims
from tfvae.experiments.definitions import Table
from tfvae.experiments.drawn import ERRORS, FIGURE
from tfvae.experiments.figures import FIGURES
from tfvae.experiments.page import Page
from tfvae.experiments.protocols import dataset_title
from tfvae.experiments.rendering import named, printed_metric, template
from tfvae.experiments.results_folder import stored_latents, sweep_of
from tfvae.experiments.summaries import ROUNDING, SIGNIFICANT, Cells, compared, means_over_splits

__all__ = ["PICTURES", "notes", "written"]

OVER = {  # by protocol: what paired tests are over, and what validation values are measured on
    "strong-generalization": ("test users", "validation users"),
    "leave-one-out": ("users", "other items of the users"),
    "rating-holdout": ("splits", "a part of the training ratings"),
    "weak-generalization": ("users", "a part of the users' training items"),
}
PICTURE = "learning-curves.png"
PICTURE_OF_LATENTS = "latents.png"
PICTURE_OF_SHAPES = "learning-curves-by-round.png"
PICTURES = (PICTURE, PICTURE_OF_SHAPES, PICTURE_OF_LATENTS, FIGURE, ERRORS)
"""The names of the files that a page may show."""


def written(page: Page) -> dict[str, str]:
    """Renders the sections of a page that have content, by name, in their order.

    A figure's page has fewer sections, since those of its rows are on the pages of the tables that they come from.
    """
    shared = _shared(page)
    chosen = OF_FIGURES if page.table.figure else tuple(name for name in SECTIONS if name != "figure")
    found = [(name, SECTIONS[name](page)) for name in chosen]
    return {name: template(f"sections/{name}.md.j2").render(**shared, **own) for name, own in found if own is not None}


def notes(page: Page) -> str:
    """Renders what stands below the table of a page's results: what is measured, and the notes on its rows."""
    return template("notes.md.j2").render(**_shared(page))


def _shared(page: Page) -> dict[str, Any]:
    """What all sections are rendered with."""
    return {
        "table": page.table,
        "dataset": named(page.dataset),
        "rows": page.rows,
        "run": page.run,
        "over": OVER[page.table.protocol],
    }


def _always(page: Page) -> dict[str, Any]:
    return {}


def _figure(page: Page) -> dict[str, Any] | None:
    """The picture of a figure and its numbers."""
    return {"drawn": FIGURES[page.table.figure](page)} if page.table.figure else None


def _best_on_test(page: Page) -> dict[str, Any] | None:
    """The table's metrics that were watched on the test part."""
    watched = [name for name in page.table.metrics if any(row.best_on_test(name) != "–" for row in page.rows)]
    return {"watched": watched} if watched else None


def _published(page: Page) -> dict[str, Any] | None:
    """What the paper says about this data set."""
    published = page.table.published.get(page.dataset)
    return {"published": published, "rounding": ROUNDING} if published else None


def _ordered(page: Page) -> dict[str, Any] | None:
    """The claims, with a verdict on each."""
    claims = judged_claims(page.table, page.rows)
    better = "below" if lower_is_better(page.table.monitor) else "above"
    return {"orderings": claims, "better": better, "significant": SIGNIFICANT} if claims else None


def _curves(page: Page) -> dict[str, Any] | None:
    """The figure of the learning curves."""
    picture = _picture(page)
    return {"picture": picture} if picture else None


def _shaped(page: Page) -> dict[str, Any] | None:
    """The learning curves beside the published ones."""
    shapes = _shapes(page)
    return {"shapes": shapes} if shapes else None


def _generative(page: Page) -> dict[str, Any] | None:
    """The diagnostics of the generative models, and the figure of their codes."""
    latents = _latents(page)
    described = _described(page.rows)
    return {"described": described, "latents": latents} if described else None


def _predicted(page: Page) -> dict[str, Any] | None:
    """The calibration of the predictive distributions."""
    lines = _predictive(page.rows)
    return {"predictive": lines} if lines else None


def _paired(page: Page) -> dict[str, Any] | None:
    """The paired tests of all pairs of rows, which on a leaderboard would be hundreds."""
    pairs = [] if page.table.budget else _pairs(page.table, page.rows)
    return {"pairs": pairs} if pairs else None


def _runs(page: Page) -> dict[str, Any] | None:
    """The cost of the runs, and how their epochs were chosen."""
    seeds = "splits" if page.table.protocol == "rating-holdout" else "seeds"
    rounds = any(row.seconds_per_round for row in page.rows)
    return {"seeds": seeds, "rounds": rounds} if page.run else None


def _lists(page: Page) -> dict[str, Any] | None:
    """What the recommended lists are like, and how fast they were made."""
    listed = [row for row in page.run if row.lists("k") is not None]
    lengths = sorted({run.lists["k"] for row in listed for run in row.runs if run.lists})
    return {"listed": listed, "k": " or ".join(f"{k:g}" for k in lengths)} if listed else None


def _intervals(page: Page) -> dict[str, Any] | None:
    """What the predicted distributions of held-out ratings are worth."""
    measured = [row for row in page.run if row.intervals("crps") is not None]
    return {"measured": measured} if measured else None


def _tuned(page: Page) -> dict[str, Any] | None:
    """The sweeps that found the rows' settings."""
    sweeps = _sweeps(page.table, page.dataset, page.results)
    return {"sweeps": sweeps} if sweeps else None


def _provenance(page: Page) -> dict[str, Any] | None:
    """The machines and commits of the runs."""
    return {"machines": _machines(page.rows)} if page.run else None


def _pairs(table: Table, rows: list[Cells]) -> list[dict[str, Any]]:
    """Paired t-tests of all pairs of rows on the monitored metric, where both have the same users or splits."""
    pairs = ((a, b, compared(a, b, table.monitor)) for a, b in combinations(rows, 2))
    return [{"a": a.row.name, "b": b.row.name} | test._asdict() for a, b, test in pairs if test]


def _sweeps(table: Table, dataset: str, results: Path) -> list[dict[str, Any]]:
    """The stored sweeps with at least one completed trial, and their rows."""
    sweeps = [(row, sweep_of(table.name, dataset, row, results)) for row in table.rows]
    return [{"row": row, "sweep": sweep} for row, sweep in sweeps if sweep and sweep.best]


def _machines(rows: list[Cells]) -> list[dict[str, Any]]:
    """The distinct environments and commits of the runs."""
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


def _picture(page: Page) -> str | None:
    """Draws the learning curves and returns the file's name; None if no row was validated by epochs."""
    ran = [row for row in page.run if row.validation is not None]
    curves = {row.row.name: [run.curve for run in row.runs] for row in ran if row.runs[0].history}
    if not curves:
        return None
    levels = {row.row.name: row.average("validation") for row in ran if not row.runs[0].history}
    title = f"{page.table.name} on {dataset_title(page.dataset)}"
    metric = printed_metric(page.table.monitor)
    page.picture(plots.learning_curves, PICTURE, curves, levels, styles=page.styles, title=title, metric=metric)
    return PICTURE


def _shapes(page: Page) -> dict[str, Any] | None:
    """Draws the learning curves, by round, of rows that have published ones; None if no such row was run."""
    curves = _curves_by_round(page.dataset, page.rows)
    if not curves:
        return None
    shares = {
        name: {at: value / max(curve.values()) for at, value in curve.items()} for name, (curve, _) in curves.items()
    }
    title, metric = f"{page.table.name}: the shape of learning", printed_metric(page.table.monitor)
    page.picture(plots.learning_shapes, PICTURE_OF_SHAPES, shares, title=title, metric=metric)
    every = {at for curve in shares.values() for at in curve}
    # The rounds for which every curve that is long enough has a value.
    rounds = sorted(at for at in every if all(at in curve or at > max(curve) for curve in shares.values()))
    lines = [
        {"name": name, "shares": [shares[name].get(at) for at in rounds], "best": max(curve.values()), "source": source}
        for name, (curve, source) in curves.items()
    ]
    return {"picture": PICTURE_OF_SHAPES, "rounds": rounds, "curves": lines}


def _curves_by_round(dataset: str, rows: list[Cells]) -> dict[str, tuple[dict[int, float], str]]:
    """Learning curves by name: the metric by round, counted from 1, and the source; a row's own curve comes first."""
    curves = {}
    for row in (row for row in rows if row.runs and row.row.curves):
        n_rounds = min(len(run.history) for run in row.runs)
        means = np.mean([run.history[:n_rounds] for run in row.runs], axis=0).tolist()
        curves[f"{row.row.name} on {dataset_title(dataset)}"] = dict(enumerate(means, start=1)), "ours"
        for of, curve in row.row.curves.items():
            by_round = dict(zip(curve.rounds, curve.values, strict=True))
            curves[f"{row.row.name} on {dataset_title(of)}, published"] = by_round, curve.source
    return curves


def _described(rows: list[Cells]) -> dict[str, str] | None:
    """The numbers of samples and users behind the diagnostics of generative models, as text; None if no row has any."""
    names = ("samples", "marginal_users")
    counts = {name: {int(number) for row in rows if (number := row.figure(name))} for name in names}
    if not counts["samples"]:
        return None
    return {name: " or ".join(f"{number:,}" for number in sorted(found)) for name, found in counts.items()}


def _predictive(rows: list[Cells]) -> list[dict[str, Any]]:
    """The calibration of the predictive distributions, by row and by how codes are sampled: means over the splits."""
    lines = []
    for row in rows:
        for way in ("encoder", "hmc"):
            found = [run.predictive[way] for run in row.runs if run.predictive and way in run.predictive]
            if not found:
                continue
            lines.append({"name": row.row.name, "way": way} | means_over_splits(found))
    return lines


def _latents(page: Page) -> str | None:
    """Draws the aggregated posteriors over their priors and returns the file's name; None if none are stored."""
    stored = {row.row.name: stored_latents(row.runs[0], page.results) for row in page.run}
    planes = {name: (points["posterior"], points["prior"]) for name, points in stored.items() if points}
    if not planes:
        return None
    title = f"{page.table.name} on {dataset_title(page.dataset)}"
    page.picture(plots.latent_planes, PICTURE_OF_LATENTS, planes, styles=page.styles, title=title)
    return PICTURE_OF_LATENTS


SECTIONS: dict[str, Callable[[Page], dict[str, Any] | None]] = {
    "heading": _always,
    "figure": _figure,
    "results": _always,
    "best_on_test": _best_on_test,
    "published": _published,
    "orderings": _ordered,
    "learning_curves": _curves,
    "learning_shapes": _shaped,
    "generative": _generative,
    "predictive": _predicted,
    "paired_tests": _paired,
    "runs": _runs,
    "lists": _lists,
    "intervals": _intervals,
    "tuning": _tuned,
    "provenance": _provenance,
    "command": _always,
}
OF_FIGURES = ("heading", "figure", "results", "orderings", "runs", "tuning", "provenance", "command")
