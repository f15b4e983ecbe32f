"""`tfvae datasets`: the named data sets."""

from __future__ import annotations

from typing import Any

import typer

from tfvae.cli.display import show_table
from tfvae.cli.json_output import AsJson, answer

__all__ = ["datasets"]


def datasets(as_json: AsJson = False) -> None:
    """List the named data sets: what is on hand, their licences, how to get the others."""
    from tfvae.data.datasets import DATASETS
    from tfvae.data.open_split import whereabouts

    found = [
        {
            "name": name,
            "licence": entry.licence,
            "on_hand": whereabouts(name) or None,
            "downloads": bool(entry.urls),
            "how_to_get": entry.how_to_get,
        }
        for name, entry in DATASETS.items()
    ]
    answer({"datasets": found}, lambda: _show(found))


def _show(found: list[dict[str, Any]]) -> None:
    rows = ((entry["name"], entry["licence"], entry["on_hand"] or "no") for entry in found)
    show_table(("name", "licence", "on hand"), rows)
    typer.echo("\nTo get the others (files fetched by hand go to $TFVAE_DATA/NAME, or are given by --source):")
    for entry in found:
        if not entry["on_hand"]:
            download = "downloaded when first used; or " if entry["downloads"] else ""
            typer.echo(f"  {entry['name']}: {download}{entry['how_to_get']}")
