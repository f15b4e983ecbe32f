"""`tfvae prepare`: splits data and saves the split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tfvae.cli import options as opt
from tfvae.cli.display import show_counts
from tfvae.cli.json_output import AsJson, answer
from tfvae.system.errors import InputError

if TYPE_CHECKING:
    from tfvae.data.splits import Split

__all__ = ["EXAMPLES", "prepare"]

EXAMPLES = (
    "tfvae prepare ml-1m",
    "tfvae prepare ml-20m --source ~/Downloads/ml-20m.zip --format vae-cf --out data/pro_sg",
    "tfvae prepare ratings.csv --user-col uid --item-col sku --rating-col stars --min-rating 4",
    "tfvae prepare ml-1m --protocol rating-holdout",
    "tfvae prepare ratings.csv --user-col uid --item-col sku --time-col when --protocol leave-one-out",
    "tfvae prepare ratings.csv --user-col uid --item-col sku --protocol weak-generalization",
)


def prepare(
    data: opt.Data,
    source: opt.Source = None,
    out: Annotated[Path | None, typer.Option(help="Where to; data/NAME.npz or data/NAME if not given.")] = None,
    format: Annotated[  # noqa: A002, the option's name
        Literal["npz", "vae-cf"], typer.Option(help="One file of ours, or the folder of Mult-VAE's authors.")
    ] = "npz",
    user_col: opt.UserCol = None,
    item_col: opt.ItemCol = None,
    rating_col: opt.RatingCol = None,
    time_col: opt.TimeCol = None,
    delimiter: opt.Delimiter = None,
    items: opt.Items = None,
    items_id_col: opt.ItemsIdCol = None,
    items_title_col: opt.ItemsTitleCol = None,
    min_rating: opt.MinRating = None,
    min_users: opt.MinUsers = None,
    min_items: opt.MinItems = None,
    held_out: opt.HeldOut = None,
    holdout_fraction: opt.HoldoutFraction = None,
    negatives: opt.Negatives = None,
    split_seed: opt.SplitSeed = None,
    protocol: opt.Protocol = None,
    as_json: AsJson = False,
) -> None:
    """Split data into training, validation and test users as the papers did, or hold out ratings or items; save it."""
    from tfvae.data.open_split import open_split
    from tfvae.data.sources import stem
    from tfvae.data.splits import StrongGeneralization
    from tfvae.data.vae_cf import write_vae_cf

    changes = opt.those_given(
        min_rating=min_rating,
        min_users_per_item=min_users,
        min_items_per_user=min_items,
        held_out_users=held_out,
        holdout_fraction=holdout_fraction,
        n_negatives=negatives,
        seed=split_seed,
    )
    columns = opt.file_options(user_col, item_col, rating_col, time_col, delimiter)
    if format == "vae-cf":
        if items is not None:
            raise InputError("the vae-cf format holds no titles; leave --items or --format out.")
        if protocol == "rating-holdout":
            raise InputError("the vae-cf format holds no ratings; leave --format out.")
        if protocol in ("leave-one-out", "weak-generalization"):
            raise InputError("the vae-cf format is one of held-out users; leave --format out.")
        protocol = "strong-generalization"
    table = opt.item_table(items, items_id_col, items_title_col)
    split = open_split(data, source=source, columns=columns, changes=changes, protocol=protocol, items=table)
    out = out or Path("data", stem(data) + (".npz" if format == "npz" else ""))
    if isinstance(split, StrongGeneralization) and format == "vae-cf":
        write_vae_cf(split, out)
    else:
        _refuse_to_replace_a_runs(split, out if out.suffix != ".npz" else out.parent, out.name)
        out = split.save(out)
    counts = split.counts
    found = {"out": out, "protocol": split.protocol, "digest": split.digest, "counts": counts}
    answer(found, lambda: show_counts(counts))
    typer.echo(f"Written: {out}")
    suits = {"rating-holdout": ("--model", "p-vae"), "leave-one-out": ("--model", "neumf")}
    typer.echo(f"Next: {opt.command('tfvae', 'fit', out, *suits.get(split.protocol, ()))}")


def _refuse_to_replace_a_runs(split: Split, folder: Path, name: str) -> None:
    """Refuses to replace the split of a run that was trained on other data."""
    if name in (folder.name, "split.npz") and (folder / "settings.json").is_file():
        from tfvae.training.run_folder import RunFolder

        RunFolder(folder).refuse_another_split([split.digest, split.tuning_digest])
