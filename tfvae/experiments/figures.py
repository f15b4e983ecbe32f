"""The pictures of figures: what each shows of its table's runs, its numbers in a table, and what can be said of them.

A finding is made of stored numbers by a fixed rule; where a test stands behind it, it says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfvae.evaluation.metrics import lower_is_better
from tfvae.evaluation.stats import holm, mean_and_se, paired_test
from tfvae.experiments import figure_plots, plots
from tfvae.experiments.definitions import Picture
from tfvae.experiments.drawn import FIGURE, Drawn, Numbers, group_names
from tfvae.experiments.page import Page
from tfvae.experiments.rating_figures import by_ratings
from tfvae.experiments.rendering import printed_metric, printed_p_value
from tfvae.experiments.results_folder import stored_activity, stored_latents
from tfvae.experiments.summaries import SIGNIFICANT, compared

__all__ = ["FIGURES"]

LOWEST_SHARE = 0.75
"""A row below this share of the best quality is left out of the picture, where it would press the others together."""
SHORTEST = 0.05
"""Seconds; shorter runs are stored as 0, which has no place on a logarithmic axis."""
STARS = {0.001: "***", 0.01: "**", 0.05: "*"}


def _curves(page: Page) -> Drawn | None:
    """Validation values by epoch."""
    rows = [row for row in page.run if row.validation is not None and row.runs[0].history]
    if not rows:
        return None
    metric = printed_metric(page.table.monitor)
    curves = {row.row.name: [run.curve for run in row.runs] for row in rows}
    page.picture(plots.learning_curves, FIGURE, curves, {}, styles=page.styles, title=page.heading, metric=metric)
    lines = []
    for row in rows:
        first = row.runs[0]
        cap = first.selected_beta if first.selected_beta is not None else first.settings.get("beta_cap")
        last = float(np.mean([run.history[-1] for run in row.runs]))
        epochs = ", ".join(str(run.best_epoch) for run in row.runs)
        lines.append(
            [
                row.row.name,
                _plain(cap),
                f"{row.average('validation'):.4f}",
                epochs,
                f"{last:.4f}",
                str(first.epochs - 1),
            ]
        )
    finding = "Best value, and value after the last epoch: " + "; ".join(
        f"{name}: {best} and {last}" for name, _, best, _, last, _ in lines
    )
    header = ["", "largest β", f"best {metric}", "at epoch", f"{metric} at the end", "last epoch"]
    notes = ["Epochs are counted from 0; values are of validation users, and means over the seeds."]
    return Drawn({FIGURE: f"{metric} on validation users, by epoch"}, f"{finding}.", [Numbers(header, lines)], notes)


def _activity(page: Page) -> Drawn | None:
    """A metric by fifths of the test users, of the first row beside the others."""
    metric = page.table.monitor
    activity = stored_activity(page.table.name, page.dataset, page.results)
    rows = [row for row in page.run if metric in row.per_user]
    if activity is None or len(rows) < 2 or any(row.runs[-1].data_digest != activity.data_digest for row in rows):
        return None
    number = np.array([int(digit) for digit in activity.groups])
    names = group_names(activity.bounds)
    inside = [number == group for group in range(len(names))]
    moments = {row.row.name: [mean_and_se(row.per_user[metric][chosen]) for chosen in inside] for row in rows}
    one, other = rows[0], rows[1]
    tests = [paired_test(*(row.per_user[metric][chosen] for row in (one, other))) for chosen in inside]
    p_values = holm([test.p_value for test in tests])
    printed = printed_metric(metric)
    xlabel = "items told of a user"
    better = [test.difference > 0 if p < SIGNIFICANT else None for test, p in zip(tests, p_values, strict=True)]
    tested = f"paired t-tests, p < {SIGNIFICANT} after Holm's correction"
    finding = (
        f"{one.row.name} ranks better in {better.count(True)} of {len(names)} groups, {other.row.name} in "
        f"{better.count(False)}; in the others no difference is shown ({tested})."
    )
    if better.count(None) == len(names):
        finding = f"In none of {len(names)} groups a difference is shown between the two ({tested})."
    page.picture(
        figure_plots.bars_by_group,
        FIGURE,
        {name: [mean for mean, _ in found] for name, found in moments.items()},
        {name: [se for _, se in found] for name, found in moments.items()},
        groups=names,
        stars=[_stars(p) for p in p_values],
        styles=page.styles,
        title=page.heading,
        ylabel=f"{printed}, test users",
        xlabel=xlabel,
    )
    lines = [
        [
            names[group],
            f"{np.count_nonzero(chosen):,}",
            *(f"{found[group][0]:.4f} ± {found[group][1]:.4f}" for found in moments.values()),
            f"{tests[group].difference:+.4f} ± {tests[group].se:.4f}",
            f"{printed_p_value(p_values[group])} {_stars(p_values[group])}".strip(),
        ]
        for group, chosen in enumerate(inside)
    ]
    header = [xlabel, "users", *moments, f"{one.row.name} − {other.row.name}", "p"]
    notes = [
        "Error bars are one standard error over users, each with the mean over the seeds. p is of the two-sided paired "
        f"t-test of the same users, corrected for the {len(names)} tests by Holm's method; the paper's are not. \\* is "
        "p < 0.05, \\*\\* p < 0.01, \\*\\*\\* p < 0.001."
    ]
    return Drawn({FIGURE: f"{printed} by {xlabel}"}, finding, [Numbers(header, lines)], notes)


def _speed(page: Page) -> Drawn | None:
    """Seconds of training and the monitored metric."""
    metric = page.table.monitor
    lower = lower_is_better(metric)
    rows = {row.row.name: row for row in page.run if metric in row.per_user}
    if len(rows) < 2:
        return None
    points = {name: (max(SHORTEST, row.average("seconds")), row.mean(metric)) for name, row in rows.items()}
    best = (min if lower else max)(value for _, value in points.values())
    front = _front(points, lower)
    drawn = {name: point for name, point in points.items() if lower or point[1] >= LOWEST_SHARE * best}
    printed = printed_metric(metric)
    page.picture(
        figure_plots.speed_and_quality,
        FIGURE,
        drawn,
        front=[name for name in front if name in drawn],
        styles=page.styles,
        title=page.heading,
        xlabel="seconds of training",
        ylabel=printed,
    )
    lines = [
        [
            name,
            f"{row.average('seconds'):,.1f}",
            f"{row.seconds_per_epoch:.2f}" if row.seconds_per_epoch is not None else "–",
            row.ours(metric),
            "yes" if name in front else "",
        ]
        for name, row in sorted(rows.items(), key=lambda pair: points[pair[0]])
    ]
    finding = "No faster model ranks as well as these: " + ", ".join(
        f"{name} ({points[name][1]:.4f} in {_seconds(points[name][0])})" for name in front
    )
    notes = [
        "Seconds are of training, validation included, as a mean over the seeds; the search for settings is not in "
        "them. The line runs along the models that no faster one equals."
    ]
    if left_out := [name for name in points if name not in drawn]:
        notes.append(f"Too low to be drawn: {', '.join(left_out)}.")
    header = ["", "seconds", "s/epoch", printed, "on the line"]
    return Drawn({FIGURE: f"{printed} by seconds of training"}, f"{finding}.", [Numbers(header, lines)], notes)


def _beta(page: Page) -> Drawn | None:
    """The monitored metric by the weight of the divergence."""
    metric = page.table.monitor
    rows = {
        float(row.runs[0].settings["beta_cap"]): row
        for row in page.run
        if metric in row.per_user and "beta_cap" in row.runs[0].settings and row.validation is not None
    }
    if len(rows) < 2:
        return None
    rows = dict(sorted(rows.items()))
    validation = {beta: row.average("validation") for beta, row in rows.items()}
    best = (min if lower_is_better(metric) else max)(validation, key=lambda beta: validation[beta])
    others = {beta: compared(rows[best], row, metric) for beta, row in rows.items() if beta != best}
    tests = {beta: test for beta, test in others.items() if test}
    p_values = dict(zip(tests, holm([test.p_value for test in tests.values()]), strict=True))
    printed = printed_metric(metric)
    page.picture(
        figure_plots.values_at,
        FIGURE,
        list(rows),
        [row.mean(metric) for row in rows.values()],
        [row.se(metric) for row in rows.values()],
        title=page.heading,
        xlabel="β, the weight of the divergence, from the first update on",
        ylabel=f"{printed}, test users",
    )
    significant = [beta for beta in tests if p_values[beta] < SIGNIFICANT]
    worse = [f"{beta:g}" for beta in significant if _is_better(tests[beta].difference, metric)]
    tested = f"paired t-tests, p < {SIGNIFICANT} after Holm's correction"
    shown = f"it is better than β = {', '.join(worse)}, and no difference is shown to the rest"
    if not worse:
        shown = "it is not shown to be better than any other"
    finding = f"β = {best:g} is best on validation users. On the test users {shown} ({tested})."
    lines = []
    for beta, row in rows.items():
        test = tests.get(beta)
        lines.append(
            [
                f"{beta:g}",
                f"{validation[beta]:.4f}",
                ", ".join(str(run.best_epoch) for run in row.runs),
                row.ours(metric),
                f"{test.difference:+.4f} ± {test.se:.4f}" if test else "–",
                printed_p_value(p_values[beta]) if test else "–",
            ]
        )
    header = ["β", "validation", "best epoch", f"{printed}, test users", f"β = {best:g} less this", "p"]
    notes = [
        "Error bars are one standard error over users; the tests are of the same users, and tell smaller differences."
    ]
    return Drawn({FIGURE: f"{printed} by β"}, finding, [Numbers(header, lines)], notes)


def _prior(page: Page) -> Drawn | None:
    """Codes of users beside samples of the prior."""
    stored = {row.row.name: (row, stored_latents(row.runs[0], page.results)) for row in page.run}
    found = {name: (row, points) for name, (row, points) in stored.items() if points}
    if not found:
        return None
    divergences = {name: row.figure("marginal_kl") for name, (row, _) in found.items()}
    known = {name: value for name, value in divergences.items() if value is not None}
    labels = {name: f"{name}: {known[name]:.1f} nats apart" if name in known else name for name in found}
    planes = {labels[name]: (points["posterior"], points["prior"]) for name, (_, points) in found.items()}
    styles = {labels[name]: page.styles[name] for name in found}
    page.picture(plots.latent_planes, FIGURE, planes, styles=styles, title=page.heading, size=2.4)
    lines = [
        [name, _digits(row.figure("marginal_kl"), 2), row.active_units, row.bound("elbo"), row.bound("iwae")]
        for name, (row, _) in found.items()
    ]
    finding = "How far the codes are from the prior, KL(q(z) ‖ p(z)) in nats: " + ", ".join(
        f"{name} {value:.2f}" for name, value in sorted(known.items(), key=lambda pair: pair[1])
    )
    header = ["", "KL(q(z) ‖ p(z))", "active units", "ELBO", "IWAE"]
    notes = [
        "Dots are samples of the aggregated posterior q(z), a test user each, in the plane of their two principal "
        "components; grey is the density of samples of the prior p(z) in the same plane. Each panel has a scale of "
        "its own. KL(q(z) ‖ p(z)) is for all dimensions; all numbers are means over the seeds. How they are estimated "
        "stands on the page of the table that has the runs."
    ]
    return Drawn(
        {FIGURE: "samples of the aggregated posterior over the prior"}, f"{finding}.", [Numbers(header, lines)], notes
    )


def _front(points: dict[str, tuple[float, float]], lower: bool) -> list[str]:
    """The names of the points that no faster one equals, by their seconds."""
    front: list[str] = []
    for name, (_, value) in sorted(points.items(), key=lambda pair: (pair[1][0], pair[1][1] if lower else -pair[1][1])):
        if not front or (value < points[front[-1]][1] if lower else value > points[front[-1]][1]):
            front.append(name)
    return front


def _is_better(difference: float, metric: str) -> bool:
    return (difference < 0) == lower_is_better(metric)


def _stars(p_value: float) -> str:
    return next((stars for level, stars in STARS.items() if p_value < level), "")


def _seconds(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def _digits(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _plain(value: Any) -> str:
    return "–" if value is None else f"{value:.3g}"


FIGURES: dict[Picture, Callable[[Page], Drawn | None]] = {
    "curves": _curves,
    "activity": _activity,
    "speed": _speed,
    "beta": _beta,
    "prior": _prior,
    "ratings": by_ratings,
}
"""What draws each picture; None where what it shows is not stored."""
