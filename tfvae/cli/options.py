"""The options that several commands share, and functions that parse their text."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tfvae.system.errors import InputError

if TYPE_CHECKING:
    from tfvae.data.items_file import ItemTable

__all__ = [
    "Again",
    "AtMost",
    "Categories",
    "Data",
    "DatasetName",
    "Delimiter",
    "Diversity",
    "Epochs",
    "HeldOut",
    "HoldoutFraction",
    "ItemCol",
    "Items",
    "ItemsIdCol",
    "ItemsTitleCol",
    "MinItems",
    "MinRating",
    "MinUsers",
    "Negatives",
    "Only",
    "OnlyCommon",
    "OwnFile",
    "Protocol",
    "RatingCol",
    "RunFolder",
    "Set",
    "Source",
    "SplitSeed",
    "TableName",
    "TimeCol",
    "UserCol",
    "Without",
    "command",
    "file_options",
    "item_table",
    "listed",
    "rated",
    "settings_from",
    "those_given",
    "whole_numbers",
]

_FILE = "A file of your own"
_ITEMS = "What the items are"
_RULES = "Rules: what may be recommended"
_CUT = "How the data are cut (a named data set as in its papers, if not given)"
Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        show_default=False,
        help="A data set's name (see 'tfvae datasets'), a file of one event per line (CSV, JSON lines or Parquet; - is "
        "standard input), a split saved by 'tfvae prepare', or a folder in the vae_cf layout.",
    ),
]
Source = Annotated[
    Path | None,
    typer.Option(help="The data set's zip, folder or ratings file, if you fetched it yourself."),
]
UserCol = Annotated[
    str | None, typer.Option(rich_help_panel=_FILE, help="Its column of user ids; found by its name if not given.")
]
ItemCol = Annotated[
    str | None, typer.Option(rich_help_panel=_FILE, help="Its column of item ids; found by its name if not given.")
]
RatingCol = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_FILE,
        help="Its column of ratings, for --min-rating and models of ratings; found by its name if not given.",
    ),
]
TimeCol = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_FILE,
        help="Its column of times (Unix seconds or dates), by which leave-one-out takes the latest event; found by its "
        "name if not given.",
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_FILE,
        help="What stands between its fields, such as ';' or tab; found in its first line if not given.",
    ),
]
Items = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=_ITEMS,
        help="A file with an item a line (CSV, JSON lines or Parquet): its id, and perhaps its title, categories and "
        "anything else. Titles are then shown wherever items are; the rest is kept with the run.",
    ),
]
ItemsIdCol = Annotated[
    str | None, typer.Option(rich_help_panel=_ITEMS, help="Its column of item ids; found by its name if not given.")
]
ItemsTitleCol = Annotated[
    str | None, typer.Option(rich_help_panel=_ITEMS, help="Its column of titles; found by its name if not given.")
]
MinRating = Annotated[
    float | None, typer.Option(rich_help_panel=_CUT, help="First drop events rated below; 0 keeps all.")
]
MinUsers = Annotated[
    int | None,
    typer.Option("--min-users-per-item", rich_help_panel=_CUT, min=0, help="Then drop rarer items."),
]
Negatives = Annotated[
    int | None,
    typer.Option(rich_help_panel=_CUT, min=1, help="Of leave-one-out, to rank each item among; 99 if not given."),
]
OnlyCommon = Annotated[
    int,
    typer.Option(
        "--min-users-per-item",
        min=0,
        rich_help_panel=_RULES,
        help="Recommend no item that fewer training users have, or have rated.",
    ),
]
Only = Annotated[
    str,
    typer.Option(
        metavar="FILE[:COLUMN]",
        rich_help_panel=_RULES,
        help="Recommend these items only: a file with their ids (CSV, JSON lines or Parquet), in the column that "
        "is named here or by --item-col, or has a usual name.",
    ),
]
Without = Annotated[
    str, typer.Option(metavar="FILE[:COLUMN]", rich_help_panel=_RULES, help="Recommend none of these, likewise.")
]
Again = Annotated[
    bool, typer.Option("--again", rich_help_panel=_RULES, help="Recommend items of the history again as well.")
]
AtMost = Annotated[
    int | None, typer.Option(min=1, rich_help_panel=_RULES, help="So many items of one category; with --categories.")
]
Categories = Annotated[
    str,
    typer.Option(
        metavar="NAME|FILE:COLUMN",
        rich_help_panel=_RULES,
        help="An attribute of the items that the run was trained with (--items), or a file with item ids and a column "
        "of categories, several of them with | between; with --at-most.",
    ),
]
Diversity = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        rich_help_panel=_RULES,
        help="From 0 to 1: how much being unlike the items before it (had by other users) counts beside the score, by "
        "Maximal Marginal Relevance; .3 is a mild dose.",
    ),
]
MinItems = Annotated[
    int | None,
    typer.Option(
        "--min-items-per-user",
        rich_help_panel=_CUT,
        min=0,
        help="Then drop users with fewer; 5 for a file of your own, if not given.",
    ),
]
HeldOut = Annotated[
    int | None,
    typer.Option(
        "--held-out-users",
        rich_help_panel=_CUT,
        min=1,
        help="Users for validation, and as many again for test. For a file of your own a tenth of its users, "
        "at most 10,000, if not given.",
    ),
]
HoldoutFraction = Annotated[
    float | None,
    typer.Option(
        rich_help_panel=_CUT,
        help="Share of a held-out user's items that are to be found, or of every user's in weak generalisation; 0.2 if "
        "not given.",
    ),
]
Protocol = Annotated[
    Literal["strong-generalization", "rating-holdout", "leave-one-out", "weak-generalization"] | None,
    typer.Option(
        rich_help_panel=_CUT,
        help="Whether to hold out users, for models that rank (if not given), ratings, for those that predict them, "
        "each user's latest item, as NCF does, or a fifth of each user's items, as LightGCN does.",
    ),
]
SplitSeed = Annotated[
    int | None,
    typer.Option(rich_help_panel=_CUT, min=0, max=2**32 - 1, help="Of the draw of users and targets."),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A setting of the model or of training, such as latent_dim=100, hidden=[600] or "
        "likelihood=gaussian; may be given again and again. To an unknown key the nearest is named.",
    ),
]
Epochs = Annotated[int | None, typer.Option(min=1, help="Passes over the training users, at most.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished 'tfvae fit'.")]
TableName = Annotated[
    str,
    typer.Argument(
        metavar="TABLE", help="A table of tfvae, or a folder of paper_results/ with a table.toml of your own."
    ),
]
DatasetName = Annotated[str | None, typer.Option(help="A data set's name (see 'tfvae datasets').")]
OwnFile = Annotated[
    Path | None,
    typer.Option(
        "--data",
        rich_help_panel=_FILE,
        help="Instead of --dataset: a file of one event per line (CSV, JSON lines or Parquet). It is cut by the "
        "table's protocol, and its runs are stored under its name.",
    ),
]


def settings_from(pairs: list[str] | None) -> dict[str, Any]:
    """Parses `key=value` pairs as settings.

    Args:
        pairs: The pairs. A value is TOML (a number, a list, true, "text") or null for None; all else is plain text.

    Returns:
        The values by key; the last one counts if a key is repeated.

    Raises:
        InputError: If a pair has no key or no equals sign.
    """
    settings = {}
    for pair in pairs or ():
        key, equals, text = (part.strip() for part in pair.partition("="))
        if not (key and equals):
            raise InputError(f"--set {pair}: expected KEY=VALUE, such as latent_dim=100.")
        try:
            settings[key] = None if text == "null" else tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            settings[key] = text
    return settings


def file_options(
    user: str | None, item: str | None, rating: str | None, time: str | None, delimiter: str | None
) -> dict[str, str]:
    """The argument `columns` of `open_split`, from the options for a user's own file; a tab may be given as "tab"."""
    delimiter = {"tab": "\t", r"\t": "\t"}.get(delimiter or "", delimiter)
    return those_given(user=user, item=item, rating=rating, timestamp=time, delimiter=delimiter)


def item_table(path: Path | None, id_col: str | None, title_col: str | None) -> ItemTable | None:
    """The content of an items file; None if there is none.

    Raises:
        InputError: If a column is named without a file, or as for `tfvae.data.items_file.read_items`.
    """
    if path is None:
        if id_col is not None or title_col is not None:
            raise InputError(
                "--items-id-col and --items-title-col name columns of an items file; give it too (--items)."
            )
        return None
    from tfvae.data.items_file import read_items

    return read_items(path, id_col, title_col)


def those_given(**options: Any) -> dict[str, Any]:
    """The options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def listed(text: str) -> list[str]:
    """The parts of a text between commas, without surrounding spaces; empty parts are left out."""
    return [part.strip() for part in text.split(",") if part.strip()]


def rated(parts: Sequence[str]) -> tuple[list[str], list[float]]:
    """Parses items with ratings, such as 318=5.

    Returns:
        The names of the items, and their ratings.

    Raises:
        InputError: If a part has no name or no rating.
    """
    names, ratings = [], []
    for part in parts:
        name, _, rating = (piece.strip() for piece in part.rpartition("="))
        try:
            ratings.append(float(rating))
        except ValueError:
            name = ""
        if not name:
            raise InputError(f"this model predicts ratings from ratings: expected ITEM=RATING, found {part!r}.")
        names.append(name)
    return names, ratings


def whole_numbers(text: str) -> list[int]:
    """The whole numbers between commas; raises InputError if a part is anything else."""
    for part in listed(text):
        if not part.isdecimal():
            raise InputError(f"expected whole numbers such as 1,2,3, found {part!r}.")
    return [int(part) for part in listed(text)]


def command(*words: object) -> str:
    """A command line of these words, quoted so that it can be pasted into a shell."""
    return shlex.join(map(str, words))
