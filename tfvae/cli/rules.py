"""The rules of `tfvae recommend`: what the options say, checked as far as possible before TensorFlow is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from tfvae.system.errors import InputError

if TYPE_CHECKING:
    from tfvae.data.items import Items
    from tfvae.serving.rules import Rules

__all__ = ["RuleOptions"]


class RuleOptions(NamedTuple):
    """The options, as they were typed.

    Attributes:
        only: FILE or FILE:COLUMN, or "".
        without: Likewise.
        again: Whether items of the history are recommended again.
        min_users: Recommend no item that fewer training users have.
        categories: FILE:COLUMN, or "".
        at_most: How many items of a category; None for any number.
        diversity: From 0 to 1.
        item_col: The column of item ids in these files, where none is named beside the file; None for "item".
    """

    only: str
    without: str
    again: bool
    min_users: int
    categories: str
    at_most: int | None
    diversity: float
    item_col: str | None

    @property
    def reads_files(self) -> bool:
        """Whether a file is named, in which there are item ids."""
        return bool(self.only or self.without or self.categories)

    def refuse_unfit(self) -> None:
        """Refuses options that say nothing together, and files that are not there.

        Raises:
            InputError: If there are.
        """
        from tfvae.data.event_files import file_kind
        from tfvae.data.item_lists import split_column

        if bool(self.categories) != (self.at_most is not None):
            raise InputError(
                "--at-most and --categories go together: how many items of one category, and the file with the "
                "categories, such as --at-most 2 --categories items.csv:genre."
            )
        for name in ("only", "without", "categories"):
            if text := getattr(self, name):
                path, column = split_column(text)
                file_kind(path)
                if name == "categories" and column is None:
                    raise InputError(f"--categories {text}: expected FILE:COLUMN, such as items.csv:genre.")

    def rules(self, run: Path, items: Items) -> Rules:
        """Reads the files, and makes rules for the items of a run.

        Args:
            run: The folder of the run, whose split is read if diversity is asked for.
            items: Its items.

        Raises:
            InputError: If a file is malformed, or as for `Rules`.
        """
        from tfvae.cli.run_folder import training_split
        from tfvae.data.item_lists import ID_COLUMN, categories_of, item_list, split_column
        from tfvae.serving.reranking import training_vectors
        from tfvae.serving.rules import Rules

        categories = None
        if self.categories:
            path, column = split_column(self.categories)
            categories, n_without = categories_of(path, column or "", items.item_ids, self.item_col or ID_COLUMN)
            if n_without:
                typer.echo(
                    f"Without a category: {n_without:,} of {items.n_items:,} items, of which any number may be "
                    "recommended",
                    err=True,
                )

        def listed(text: str) -> list[int | str]:
            path, column = split_column(text)
            return item_list(path, column or self.item_col or ID_COLUMN)

        rules = Rules(
            only=listed(self.only) if self.only else None,
            without=listed(self.without) if self.without else (),
            again=self.again,
            min_users=self.min_users,
            at_most=self.at_most,
            diversity=self.diversity,
            categories=categories,
            vectors=training_vectors(training_split(run).train) if self.diversity else None,
        )
        return rules.for_items(items.item_ids, items.n_users)
