"""The readers of items files, and what holds of the attributes that they or a stored run have."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mutations import Mutator, bytes_damaged, parquet_damaged
from reader import Reader

from tfvae.data.attributes import Attribute
from tfvae.data.items_file import ItemTable, read_items

__all__ = ["ITEM_READERS", "check_attributes", "described"]

CSV = 'sku,name,genres,price,year\n7,Heat,Crime|Drama,2.5,1995\n9,Up,,1,\n12,"Go, Lé",Drama,0.25,1999\n'


def described(split: Any) -> Any:
    """A split with attributes of text, of several values and of numbers."""
    n = split.n_items
    values = {"genres": [["a", "é"][: i % 3] for i in range(n)], "price": [[i / 4] for i in range(n)]}
    return replace(split, attributes={name: Attribute.of(cells) for name, cells in values.items()})


def check_attributes(attributes: Mapping[str, Attribute], n_items: int) -> None:
    """Every item has its values, all of them text or finite numbers."""
    "".join(attributes).encode()
    for attribute in attributes.values():
        assert attribute.n_items == n_items and attribute.categories.dtype.kind in "ifU"
        values = [value for item in range(n_items) for value in attribute.values(item)]
        assert len(values) == len(attribute.codes)
        assert len(set(attribute.categories.tolist())) == len(attribute.categories)
        "".join(map(str, values)).encode()
        assert all(math.isfinite(value) for value in values if isinstance(value, float))
        assert attribute.feature().shape == (n_items,) and attribute.taken(np.arange(n_items)).n_items == n_items


def check_table(table: ItemTable) -> None:
    """Different ids in ascending order, a text as title of each, and attributes."""
    assert table.ids.ndim == 1 and table.ids.dtype.kind in "iU" and (np.unique(table.ids) == table.ids).all()
    assert table.titles is None or (table.titles.shape, table.titles.dtype.kind) == (table.ids.shape, "U")
    "".join([] if table.titles is None else table.titles.tolist()).encode()
    check_attributes(table.attributes, len(table.ids))


def _items(name: str, content: bytes, damage: Mutator) -> Reader:
    def read(folder: Path) -> ItemTable:
        return read_items(folder / name)

    return Reader(lambda folder: {name: content}, damage, read, lambda table, _: check_table(table))


def _json() -> bytes:
    lines = [{"id": "a", "title": "Heat", "tags": ["x", "y"], "price": 2.5}, {"id": "b", "tags": []}, {"id": "c"}]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


ITEM_READERS: dict[str, Reader] = {
    "items csv": _items("items.csv", CSV.encode(), bytes_damaged),
    "items json lines": _items("items.jsonl", _json(), bytes_damaged),
    "items parquet": _items("items.parquet", pd.read_csv(io.StringIO(CSV)).to_parquet(), parquet_damaged),
}
