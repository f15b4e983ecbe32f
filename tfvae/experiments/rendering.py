"""How text and numbers are printed: the templates and their filters, and the names of metrics and data sets."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from tfvae.data.datasets import DATASETS
from tfvae.evaluation.metrics import FULL
from tfvae.experiments.protocols import dataset_title

__all__ = ["named", "printed_metric", "printed_p_value", "template"]


def named(dataset: str) -> dict[str, str]:
    """The name, the title and the command-line option of a data set, for the templates.

    The path of a user's own file is not stored, so its option has a placeholder.
    """
    option = f"--dataset {dataset}" if dataset in DATASETS else "--data FILE"
    return {"name": dataset, "title": dataset_title(dataset), "option": option}


def template(name: str) -> jinja2.Template:
    """A template of this package, by its path in `templates/`."""
    return _environment().get_template(name)


@cache  # it keeps the templates that it has compiled
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "commit": lambda name: f"`{name[:10]}`{' with changes' * name.endswith('+changes')}" if name else "–",
        "metric": printed_metric,
        "p_value": printed_p_value,
        "settings": lambda settings: ", ".join(f"{key} = {_short(value)}" for key, value in settings.items()),
    }
    return environment


def printed_metric(metric: str) -> str:
    """The metric as the papers print it, such as "NDCG@100" or "RMSE".

    "full HR@10" ranks all items, and "uncapped Recall@20" is divided by all held-out items.
    """
    kind, at, k = metric.removeprefix(FULL).partition("@")
    *how, kind = kind.split("-")
    printed = " ".join([*how, f"{kind.capitalize() if kind == 'recall' else kind.upper()}{at}{k}"])
    return f"full {printed}" if metric.startswith(FULL) else printed


def printed_p_value(p_value: float) -> str:
    """A p-value to three digits after the point."""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
