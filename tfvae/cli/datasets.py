"""`tfvae datasets`: the named data sets."""

from __future__ import annotations

import typer

from tfvae.cli.display import show_table

__all__ = ["datasets"]


def datasets() -> None:
    """List the named data sets: what is on hand, their licences, how to get the others."""
    from tfvae.data.datasets import DATASETS
    from tfvae.data.open_split import whereabouts

    places = {name: whereabouts(name) for name in DATASETS}
    rows = ((name, DATASETS[name].licence, where or "no") for name, where in places.items())
    show_table(("name", "licence", "on hand"), rows)
    typer.echo("\nTo get the others (files fetched by hand go to $TFVAE_DATA/NAME, or are given by --source):")
    for name in (name for name, where in places.items() if not where):
        download = "downloaded when first used; or " if DATASETS[name].urls else ""
        typer.echo(f"  {name}: {download}{DATASETS[name].how_to_get}")
