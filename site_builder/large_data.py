"""The page on data that are not at hand: the command of each table, the hours to expect, and what is proven instead."""

from __future__ import annotations

import re
from functools import cache

from site_builder.places import ROOT
from site_builder.rendering import render
from tfvae.experiments.definitions import Table
from tfvae.experiments.rendering import named
from tfvae.system.errors import InputError

__all__ = ["LARGE", "expected_times", "large_data_page"]

LARGE = {"ml-20m": "ml20m", "netflix": "netflix", "msd": "msd"}
"""The data sets of the papers that may not be passed on, and what make calls them."""
TARGET = re.compile(r"^([a-z0-9-]+):[^#]*## .*?; (.*)$", flags=re.MULTILINE)
TIME = r"\b{name}(?: ((?:\d+ )(?:min|h|days|weeks|months)))?\b"


@cache
def expected_times() -> dict[tuple[str, str], str]:
    """How long a table takes on a large data set, as `make help` says it, by the names of table and data set.

    Raises:
        InputError: If the Makefile says nothing of any table.
    """
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    times = {}
    for table, said in TARGET.findall(text):
        for dataset, short in LARGE.items():
            if found := re.search(TIME.format(name=short), said):
                times[table, dataset] = found[1] or "minutes"
    if not times:
        raise InputError("Makefile: expected the times of the tables in the texts of their targets, found none.")
    return times


def large_data_page(tables: list[Table]) -> str:
    """The page, from the tables' definitions and the Makefile."""
    lines = [
        {"table": table, "dataset": named(dataset), "target": f"{table.name}-{LARGE[dataset]}", "time": time}
        for table in tables
        for (name, dataset), time in expected_times().items()
        if name == table.name
    ]
    return render("large_data.md.j2", "results/large-data.md", lines=lines)
