"""`tfvae similar`: the items that a finished run takes for the nearest to one of its items."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tfvae.cli import options as opt
from tfvae.cli.display import show_table
from tfvae.cli.json_output import AsJson, answer

if TYPE_CHECKING:
    from tfvae.serving.similar import SimilarItems

__all__ = ["EXAMPLES", "similar"]

EXAMPLES = (
    "tfvae similar runs/ml-1m-mult-vae 318",
    "tfvae similar runs/movietweetings-ease gravity -k 5",
    "tfvae similar runs/shop-wmf B00CH9QWOU --min-users-per-item 20 --json",
)


def similar(
    run: opt.RunFolder,
    item: Annotated[str, typer.Argument(metavar="ITEM", help="An item, by its id or by a part of its title.")],
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="How many to show.")] = 10,
    min_users: Annotated[
        int, typer.Option("--min-users-per-item", min=0, help="Show no item that fewer training users have.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Show the items that are nearest to an item, as the model sees them.

    Models with a vector for each item compare these by their cosine: the rows of an autoencoder's decoder, the factors
    of BPR, WMF or PMF. For EASE, EDLAE, SLIM and RP3β it is the weight by which having the item raises another one.
    Popularity, RBM, NNMF, LLORMA and ensembles have nothing to compare items by, and say so.
    """
    from tfvae.cli.run_folder import served
    from tfvae.serving.rules import Rules
    from tfvae.serving.similar import similar_items
    from tfvae.serving.typed_history import typed_item

    trained, items = served(run)
    known, fitting = typed_item(items, item)
    title = None if items.titles is None else str(items.titles[items.item_ids.tolist().index(known)])
    if fitting:
        more = ", ".join(f"{name} ({other})" for other, name in fitting[1:4])
        told = f"'{item}' is taken for {title} ({known})" + (f"; there are also: {more}" if more else "")
        typer.echo(told, err=True)
    candidates = Rules(min_users=min_users, n_users=items.n_users).allowed(items.item_ids)
    found = similar_items(trained.model, items.item_ids, known, k, items.titles, candidates)
    asked = {"item": known} | ({} if title is None else {"title": title})
    answer(asked | {"measure": found.measure, "similar": _records(found)}, lambda: _show(found))


def _show(found: SimilarItems) -> None:
    headings = ["id", *(["title"] if found.titles is not None else []), found.measure]
    rows = [[_shown(value) for name, value in record.items() if name != "rank"] for record in _records(found)]
    show_table(headings, rows, [found.measure])


def _records(found: SimilarItems) -> list[dict[str, Any]]:
    """What is known of each item, by name, the nearest first."""
    columns: dict[str, list] = {"rank": list(range(1, len(found.items) + 1)), "item": found.items.tolist()}
    if found.titles is not None:
        columns["title"] = found.titles.tolist()
    columns["similarity"] = found.similarities.tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _shown(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
