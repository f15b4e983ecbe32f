"""How texts and numbers are printed: the templates, their filters and names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from tfvae.data.datasets import DATASETS
from tfvae.evaluation.metrics import FULL
from tfvae.experiments.protocols import dataset_title

__all__ = ["named", "printed_metric", "template"]


def named(dataset: str) -> dict[str, str]:
    """A data set as the templates print it; one's own is given to a command by its file, whose place is not stored."""
    option = f"--dataset {dataset}" if dataset in DATASETS else "--data FILE"
    return {"name": dataset, "title": dataset_title(dataset), "option": option}


def template(name: str) -> jinja2.Template:
    """A template of this package."""
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
        "p_value": lambda p: "< 0.001" if p < 0.001 else f"{p:.3f}",
        "settings": lambda settings: ", ".join(f"{key} = {_short(value)}" for key, value in settings.items()),
    }
    return environment.get_template(name)


def printed_metric(metric: str) -> str:
    """The metric as the papers print it: "NDCG@100", "Recall@20", "HR@10", "RMSE"; "full HR@10" of all items."""
    kind, at, k = metric.removeprefix(FULL).partition("@")
    printed = f"{kind.capitalize() if kind == 'recall' else kind.upper()}{at}{k}"
    return f"full {printed}" if metric.startswith(FULL) else printed


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
