"""The ids, titles and attributes of a trained model's items, stored beside it so that serving reads no test data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np

from tfvae.data.attributes import Attribute, attribute_arrays, read_attributes
from tfvae.data.row_shards import item_counts
from tfvae.data.splits import Split
from tfvae.data.stored_arrays import refuse_no_ids, refuse_no_titles
from tfvae.system.errors import InputError
from tfvae.system.files import digest, read_npz, reading, write_npz

__all__ = ["ITEMS_FILE", "Items"]

ITEMS_FILE = "items.npz"


@dataclass(frozen=True, eq=False)
class Items:
    """The items of a model, in the order of its columns.

    Attributes:
        item_ids: [n_items] ids, whole numbers or strings.
        titles: [n_items] titles, empty where unknown; None if there are none.
        scale: The lowest and the highest rating, see `Split.scale`; None if there are no ratings.
        n_users: int64 [n_items], how many training users have each item.
        attributes: What else is known of the items, by name; empty if no items file was given.
    """

    item_ids: np.ndarray
    titles: np.ndarray | None
    scale: tuple[float, float] | None
    n_users: np.ndarray
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    @property
    def n_items(self) -> int:
        """Number of items."""
        return len(self.item_ids)

    @classmethod
    def of(cls, split: Split) -> Self:
        """The items of a split."""
        return cls(
            item_ids=np.asarray(split.item_ids),
            titles=None if split.titles is None else np.asarray(split.titles),
            scale=split.scale,
            n_users=item_counts(split.train),
            attributes=dict(split.attributes),
        )

    @property
    def description(self) -> str:
        """SHA-256 over what people read of the items, titles and attributes, in hexadecimal."""
        arrays = attribute_arrays(self.attributes)
        return digest(self.item_ids, self.titles, sorted(arrays), *(arrays[name] for name in sorted(arrays)))

    def save(self, folder: str | os.PathLike) -> None:
        """Writes `items.npz` in a run folder."""
        arrays = {"item_ids": self.item_ids, "n_users": self.n_users}
        if self.titles is not None:
            arrays["titles"] = self.titles
        if self.scale is not None:
            arrays["scale"] = np.array(self.scale, np.float64)
        write_npz(Path(folder) / ITEMS_FILE, arrays | attribute_arrays(self.attributes))

    @classmethod
    def load(cls, folder: str | os.PathLike) -> Self:
        """Reads the items of a run folder.

        Raises:
            InputError: If there is no such file, or it does not hold the items of a run.
        """
        path = Path(folder) / ITEMS_FILE
        if not path.is_file():
            raise InputError(f"{path} is missing; it is written when a run is finished.")
        with reading(path, "the items of a run"):
            arrays = read_npz(path)
            scale = tuple(map(float, arrays["scale"])) if "scale" in arrays else None
            if scale is not None and not (len(scale) == 2 and -np.inf < scale[0] <= scale[1] < np.inf):
                raise InputError(f"expected the lowest and the highest rating, found {scale}")
            found = cls(arrays["item_ids"], arrays.get("titles"), scale, arrays["n_users"])
            refuse_no_ids(found.item_ids, "item ids")
            refuse_no_titles(found.titles, found.n_items)
            found = replace(found, attributes=read_attributes(arrays, found.n_items))
            counts = found.n_users
            if counts.shape != (found.n_items,) or counts.dtype.kind not in "iu" or (counts < 0).any():
                raise InputError("expected a number of users for each item")
            return found
