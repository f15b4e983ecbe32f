"""What a run folder holds beside the model: its items, and the split that it was trained on."""

from __future__ import annotations

from pathlib import Path

from tfvae.data.items import ITEMS_FILE, Items
from tfvae.data.splits import Split, load_split
from tfvae.training.run_folder import SPLIT_FILE, RunFolder

__all__ = ["items_of", "training_split"]


def items_of(folder: Path) -> Items:
    """The items of a run; the split is only read for an older run that has no `items.npz`.

    Raises:
        InputError: If the file with the items is missing or damaged.
    """
    if (folder / ITEMS_FILE).is_file():
        return Items.load(folder)
    return Items.of(training_split(folder))


def training_split(folder: Path) -> Split:
    """The split of a run; raises InputError if there is none, or if the run was not trained on it."""
    split = load_split(folder / SPLIT_FILE)
    RunFolder(folder).refuse_another_split([split.digest, split.tuning_digest])
    return split
