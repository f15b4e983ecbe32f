"""Runs whose numbers can be worked out by hand, stored for the tests of what is rendered of them."""

from __future__ import annotations

import numpy as np

from tfvae.experiments.definitions import load_table
from tfvae.experiments.records import StoredRun, Tuned
from tfvae.experiments.report import render
from tfvae.experiments.results_folder import store_run

USERS = 400
ENVIRONMENT = {
    "versions": {"tensorflow": "2.21.0"},
    "python": "3.11.0",
    "platform": "Linux x86_64",
    "device": "A processor",
    "cores": 2,
}
COUNTS = {
    "users": 2000,
    "train_items": 50,
    "test_users": 403,
    "events": 12345,
    "percent_of_interactions": 12.345,
}


def values(mean, half):
    """Values of the users whose mean is `mean` and whose standard error is `half`/20, half of them above."""
    return mean + half * np.where(np.arange(USERS) % 2, 1.0, -1.0)


def store(results, slug, seed, per_user, dataset="ml-20m", points=None, **changes):
    """Stores a run of the table `table`, with the values of `USERS` users by metric."""
    row = load_table("table", results).row(slug)
    run = StoredRun(
        table="table",
        row=row.name,
        slug=slug,
        dataset=dataset,
        model=row.model,
        seed=seed,
        metrics={
            m: {"mean": v.mean(), "se": v.std() / np.sqrt(USERS), "low": 0, "high": 1} for m, v in per_user.items()
        },
        validation=0.4,
        users=USERS,
        users_without_targets=3,
        settings={"model": row.model, "epochs": 2, "seed": seed} | changes.pop("settings", {}),
        overrides=changes.pop("overrides", {}),
        tuned=Tuned(trials=25, failed=1, epochs=None, value=0.41),
        shortened="shortened_why" in changes,
        shortened_why=changes.pop("shortened_why", None),
        environment=ENVIRONMENT,
        seconds=10.0 * seed,
        peak_memory_gb=changes.pop("peak_memory_gb", None),
        epochs=changes.pop("epochs", 2) * (row.model != "ease"),
        best_epoch=1 if row.model != "ease" else None,
        selected_beta=None,
        parameters=1234567,
        history=changes.pop("history", [0.3, 0.4]) if row.model != "ease" else [],
        work="unused",
        commit="0123456789abcdef+changes",
        data=changes.pop("data", COUNTS),
        data_digest="d" * 64,
        **changes,
    )
    store_run(run, per_user, results, points)


def page(results, dataset="ml-20m", table="table"):
    """The text of a rendered page."""
    return render(table, dataset, results).read_text(encoding="utf-8")


def section(text, heading):
    """The lines of a page below a heading."""
    return text.split(f"## {heading}\n")[1].split("\n## ")[0]
