"""The pictures of models of ratings, by how many ratings are known of a user: intervals, and errors."""

from __future__ import annotations

import numpy as np

from tfvae.experiments import figure_plots
from tfvae.experiments.drawn import ERRORS, FIGURE, Drawn, Numbers, group_names
from tfvae.experiments.page import Page
from tfvae.experiments.records import StoredRun
from tfvae.experiments.styles import styles_of
from tfvae.experiments.summaries import means_over_splits

__all__ = ["by_ratings"]

KNOWN = "known ratings of a user"


def by_ratings(page: Page) -> Drawn | None:
    """Shares of ratings within their intervals, and errors, by the number of ratings that are known."""
    parts = [part for part in (_intervals(page), _errors(page)) if part]
    if not parts:
        return None
    pictures = {name: alt for part in parts for name, alt in part.pictures.items()}
    return Drawn(
        pictures,
        " ".join(part.finding for part in parts),
        [numbers for part in parts for numbers in part.numbers],
        [note for part in parts for note in part.notes],
    )


def _intervals(page: Page) -> Drawn | None:
    """Shares of ratings within their intervals, with codes of the encoder and of Hamiltonian Monte Carlo."""
    found = {
        (row.row.name, way): means_over_splits([run.predictive[way] for run in runs if run.predictive])
        for row in page.run
        if row.row.by == "users"  # of items, the groups would be of items
        for way in ("encoder", "hmc")
        if (runs := [run for run in row.runs if run.predictive and way in run.predictive])
    }
    counts = {len(described["groups"]) for described in found.values()}
    if len(counts) != 1:
        return None
    groups = next(iter(found.values()))["groups"]
    names = group_names([(group["from"], group["to"]) for group in groups])
    words = {"encoder": "encoder", "hmc": "HMC"}
    # Dashes tell the two ways apart here, so rows of one model need colours of their own.
    styles = styles_of({row.row.name: row.row.slug for row in page.run})
    parts = {}
    for level in (50, 90):
        parts[f"within {level} %"] = [
            figure_plots.Line(
                f"{name}, {words[way]}",
                styles[name]._replace(dashes="--" if way == "hmc" else "-"),
                [group[f"within_{level}"] for group in described["groups"]],
            )
            for (name, way), described in found.items()
        ]
    page.picture(
        figure_plots.lines_by_group,
        FIGURE,
        parts,
        groups=names,
        levels={"within 50 %": 0.5, "within 90 %": 0.9},
        title=page.heading,
        ylabel="share of held-out ratings in their interval",
        xlabel=KNOWN,
    )
    shares = {
        f"{name}, {words[way]}": [(group["within_50"], group["within_90"]) for group in described["groups"]]
        for (name, way), described in found.items()
    }
    lines = [[name, *(f"{half:.3f} / {most:.3f}" for half, most in groups)] for name, groups in shares.items()]
    said = ", ".join(f"{name} {groups[0][1]:.3f} to {groups[-1][1]:.3f}" for name, groups in shares.items())
    finding = f"In the interval that is to hold 0.9 of the ratings lie, from the fewest {KNOWN} to the most: {said}."
    notes = [
        "Within 50 / 90 % is the share of held-out ratings in the central interval that is to hold so many; the thin "
        "line is where a calibrated model lies. Means over the splits."
    ]
    return Drawn(
        {FIGURE: f"share of held-out ratings in their interval, by {KNOWN}"},
        finding,
        [Numbers([f"within 50 / 90 %, by {KNOWN}", *names], lines)],
        notes,
    )


def _errors(page: Page) -> Drawn | None:
    """RMSE by the number of ratings that are known of a user."""
    measured = {row.row.name: [run for run in row.runs if run.by_number] for row in page.run}
    measured = {name: runs for name, runs in measured.items() if runs}
    bounds = {
        name: [(group.at_least, group.to) for group in runs[0].by_number or []] for name, runs in measured.items()
    }
    if not measured or len({len(of_row) for of_row in bounds.values()}) != 1:
        return None
    names = group_names(next(iter(bounds.values())))
    means = {name: _mean_errors(runs) for name, runs in measured.items()}
    page.picture(
        figure_plots.lines_by_group,
        ERRORS,
        {"": [figure_plots.Line(name, page.styles[name], values) for name, values in means.items()]},
        groups=names,
        levels={},
        title=page.heading,
        ylabel="RMSE of held-out ratings",
        xlabel=KNOWN,
    )
    best = [min(means, key=lambda name: means[name][group]) for group in range(len(names))]
    said = ", ".join(f"{name} ({group})" for name, group in zip(best, names, strict=True))
    splits = sorted({run.seed for runs in measured.values() for run in runs})
    notes = [
        f"RMSE is of split{'s'[: len(splits) > 1]} {', '.join(map(str, splits))}; no test stands behind the order of "
        "two models. Item-based models are grouped by users, too."
    ]
    if lacking := [row.row.name for row in page.rows if row.row.name not in measured]:
        notes.append(f"Not measured by number of ratings: {', '.join(lacking)}.")
    lines = [[name, *(f"{value:.4f}" for value in values)] for name, values in means.items()]
    return Drawn(
        {ERRORS: f"RMSE by {KNOWN}"},
        f"The least RMSE by {KNOWN}: {said}.",
        [Numbers([f"RMSE, by {KNOWN}", *names], lines)],
        notes,
    )


def _mean_errors(runs: list[StoredRun]) -> list[float]:
    return np.mean([[group.rmse for group in run.by_number or []] for run in runs], axis=0).tolist()
