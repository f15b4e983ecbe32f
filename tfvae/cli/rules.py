"""The rules of `tfvae recommend`: what the options say, checked as far as possible before TensorFlow is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from tfvae.system.errors import InputError, unknown_name

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
        categories: An attribute of the run's items, FILE:COLUMN, or "".
        at_most: How many items of a category; None for any number.
        diversity: From 0 to 1.
        item_col: The column of item ids in these files, where none is named beside the file; None for the one that
            has a usual name.
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
    def are_given(self) -> bool:
        """Whether there is any rule."""
        return bool(self.reads_files or self.again or self.min_users or self.at_most is not None or self.diversity)

    @property
    def reads_files(self) -> bool:
        """Whether a file is named, in which there are item ids."""
        return bool(self.only or self.without or (self.categories and not self._names_attribute))

    @property
    def _names_attribute(self) -> bool:
        """Whether the categories are an attribute of the run's items, not a file's."""
        return ":" not in self.categories and not Path(self.categories).exists()

    def refuse_unfit(self) -> None:
        """Refuses options that say nothing together, and files that are not there.

        Raises:
            InputError: If there are.
        """
        from tfvae.data.event_files import file_kind
        from tfvae.data.item_lists import split_column

        if bool(self.categories) != (self.at_most is not None):
            raise InputError(
                "--at-most and --categories go together: how many items of one category, and what the categories are, "
                "such as --at-most 2 --categories genre."
            )
        for name in ("only", "without", "categories"):
            text = getattr(self, name)
            if text and not (name == "categories" and self._names_attribute):
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
        from tfvae.data.item_lists import item_list, split_column
        from tfvae.data.row_shards import in_memory
        from tfvae.serving.reranking import training_vectors
        from tfvae.serving.rules import Rules

        def listed(text: str) -> list[int | str]:
            path, column = split_column(text)
            return item_list(path, column or self.item_col)

        rules = Rules(
            only=listed(self.only) if self.only else None,
            without=listed(self.without) if self.without else (),
            again=self.again,
            min_users=self.min_users,
            at_most=self.at_most,
            diversity=self.diversity,
            categories=self._categories_of(items) if self.categories else None,
            vectors=training_vectors(in_memory(training_split(run).train, "--diversity")) if self.diversity else None,
        )
        return rules.for_items(items.item_ids, items.n_users)

    def _categories_of(self, items: Items) -> list[list[str]]:
        """The categories of each item, by an attribute of the items or from a file."""
        from tfvae.data.item_lists import categories_of, split_column

        if self._names_attribute:
            if not items.attributes:
                raise InputError(
                    f"--categories {self.categories}: the run knows no attributes of its items; name FILE:COLUMN, or "
                    "train it with an items file (--items)."
                )
            if self.categories not in items.attributes:
                raise unknown_name("attribute of the items", self.categories, items.attributes)
            attribute = items.attributes[self.categories]
            found = [[str(value) for value in attribute.values(item)] for item in range(items.n_items)]
            n_without = sum(not labels for labels in found)
        else:
            path, column = split_column(self.categories)
            found, n_without = categories_of(path, column or "", items.item_ids, self.item_col)
        if n_without:
            typer.echo(
                f"Without a category: {n_without:,} of {items.n_items:,} items, of which any number may be recommended",
                err=True,
            )
        return found
