"""`tfvae prepare`: splits data and saves the split."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tfvae.cli import options as opt
from tfvae.cli.display import show_counts
from tfvae.cli.json_output import AsJson, answer
from tfvae.system.errors import InputError

if TYPE_CHECKING:
    from tfvae.data.splits import Split

__all__ = ["EXAMPLES", "in_bytes", "prepare"]

EXAMPLES = (
    "tfvae prepare ml-1m",
    "tfvae prepare ml-20m --source ~/Downloads/ml-20m.zip --format vae-cf --out data/pro_sg",
    "tfvae prepare ratings.csv --user-col uid --item-col sku --rating-col stars --min-rating 4",
    "tfvae prepare ml-1m --protocol rating-holdout",
    "tfvae prepare ratings.csv --user-col uid --item-col sku --time-col when --protocol leave-one-out",
    "tfvae prepare ratings.csv --user-col uid --item-col sku --protocol weak-generalization",
    "tfvae prepare log.parquet --shards --memory 4GB --out data/log",
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
    shards: Annotated[
        bool,
        typer.Option(
            "--shards",
            help="For data larger than memory: keep the training rows in a folder of files, from which 'tfvae fit' "
            "reads them; the split is the same. CSV and Parquet, with held-out users; needs tfvae[scale].",
        ),
    ] = False,
    memory: Annotated[
        str | None, typer.Option(help="With --shards, the memory to be used, such as 4GB, which it is if not given.")
    ] = None,
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
    if shards:
        if format == "vae-cf" or protocol not in (None, "strong-generalization"):
            raise InputError("--shards holds users out and writes files of its own; leave --format and --protocol out.")
    elif memory is not None:
        raise InputError("--memory is for --shards; other splits are made in memory, with what they need.")
    if format == "vae-cf":
        if items is not None:
            raise InputError("the vae-cf format holds no titles; leave --items or --format out.")
        if protocol == "rating-holdout":
            raise InputError("the vae-cf format holds no ratings; leave --format out.")
        if protocol in ("leave-one-out", "weak-generalization"):
            raise InputError("the vae-cf format is one of held-out users; leave --format out.")
        protocol = "strong-generalization"
    table = opt.item_table(items, items_id_col, items_title_col)
    if shards:
        from tfvae.data.prepare_shards import prepare_shards

        _refuse_useless_to_shards(source, changes)
        out = out or Path("data", stem(data))
        limit = in_bytes(memory or "4GB")
        typer.echo(f"Preparing {data} in {out}, within {limit / 1e9:g} GB of memory")
        split = prepare_shards(data, out, memory=limit, columns=columns, changes=changes, items=table, log=typer.echo)
        _show(split, out)
        return
    split = open_split(data, source=source, columns=columns, changes=changes, protocol=protocol, items=table)
    out = out or Path("data", stem(data) + (".npz" if format == "npz" else ""))
    if isinstance(split, StrongGeneralization) and format == "vae-cf":
        write_vae_cf(split, out)
    else:
        _refuse_to_replace_a_runs(split, out if out.suffix != ".npz" else out.parent, out.name)
        out = split.save(out)
    _show(split, out)


def _show(split: Split, out: Path) -> None:
    counts = split.counts
    found = {"out": out, "protocol": split.protocol, "digest": split.digest, "counts": counts}
    answer(found, lambda: show_counts(counts))
    typer.echo(f"Written: {out}")
    suits = {"rating-holdout": ("--model", "p-vae"), "leave-one-out": ("--model", "neumf")}
    typer.echo(f"Next: {opt.command('tfvae', 'fit', out, *suits.get(split.protocol, ()))}")


def _refuse_useless_to_shards(source: Path | None, changes: dict[str, Any]) -> None:
    """Refuses options that would change nothing with --shards."""
    given = {"--source": source is not None, "--negatives": "n_negatives" in changes}
    if useless := [name for name, is_given in given.items() if is_given]:
        raise InputError(f"--shards splits a file of events by held-out users; leave {useless[0]} out.")


def in_bytes(size: str) -> int:
    """A size such as 4GB in bytes; raises InputError if it is none, or too small to work with."""
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([MG])B?\s*", size, re.IGNORECASE)
    if found is None or (n_bytes := round(float(found[1]) * {"M": 10**6, "G": 10**9}[found[2].upper()])) < 2**28:
        raise InputError(f"--memory {size}: expected a size of at least 300MB, such as 800MB or 4GB.")
    return n_bytes


def _refuse_to_replace_a_runs(split: Split, folder: Path, name: str) -> None:
    """Refuses to replace the split of a run that was trained on other data."""
    if name in (folder.name, "split.npz") and (folder / "settings.json").is_file():
        from tfvae.training.run_folder import RunFolder

        RunFolder(folder).refuse_another_split([split.digest, split.tuning_digest])
