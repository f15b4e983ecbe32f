"""What is known of items beside their titles: named attributes, of which an item has none, one or several values.

An attribute is kept as flat arrays, so that it is written to an `.npz` file without pickle: the distinct values, the
numbers of those that the items have, one item after another, and where each item's end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from tfvae.data.stored_arrays import refuse_no_text
from tfvae.system.errors import InputError
from tfvae.system.text_arrays import TEXT_KINDS, text_array

__all__ = ["Attribute", "attribute_arrays", "read_attributes"]

SEPARATOR = "|"
"""What stands between several values where they are written as one text."""
_NAMES = "attribute_names"
_PARTS = ("categories", "codes", "ends")


@dataclass(frozen=True, eq=False)
class Attribute:
    """One attribute of n items, such as their genres or their price.

    Example:
        >>> genres = Attribute.of([["Drama", "War"], [], ["War"]])
        >>> genres.categories.tolist(), genres.values(0), genres.has("War").tolist()
        (['Drama', 'War'], ['Drama', 'War'], [True, False, True])

    Attributes:
        categories: [n_categories] the distinct values, ascending: text, int64 or float64.
        codes: int32 [n_values], the places in `categories` of what the items have, item by item.
        ends: int64 [n], where in `codes` each item's end.
    """

    categories: np.ndarray
    codes: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, values: Sequence[Sequence[Any]]) -> Self:
        """The attribute of n items that have these values, all of them text or all of them numbers.

        Args:
            values: [n] the values of each item; a value that comes twice counts once.
        """
        distinct = sorted({value for own in values for value in own})
        place = {value: number for number, value in enumerate(distinct)}
        own = [[place[value] for value in dict.fromkeys(row)] for row in values]
        if distinct and not isinstance(distinct[0], str):
            whole = all(isinstance(value, int) for value in distinct)
            categories = np.array(distinct, np.int64 if whole else np.float64)
        else:
            categories = text_array(distinct)
        codes = np.array([code for row in own for code in row], np.int32)
        return cls(categories, codes, np.cumsum([len(row) for row in own], dtype=np.int64))

    @property
    def n_items(self) -> int:
        """Number of items, n."""
        return len(self.ends)

    @property
    def counts(self) -> np.ndarray:
        """How many values each item has, int64 [n]."""
        return np.diff(self.ends, prepend=0)

    @property
    def rows(self) -> np.ndarray:
        """The item of each entry of `codes`, int64 [n_values]."""
        return np.repeat(np.arange(self.n_items), self.counts)

    @property
    def is_number(self) -> bool:
        """Whether the values are numbers, not text."""
        return self.categories.dtype.kind in "iuf"

    def values(self, item: int) -> list[Any]:
        """The values of the item with this number, as Python objects."""
        start = int(self.ends[item - 1]) if item else 0
        return self.categories[self.codes[start : self.ends[item]]].tolist()

    def has(self, *values: Any) -> np.ndarray:
        """Whether each item has at least one of these values, bool [n]; they are compared as text.

        Raises:
            InputError: If no item has one of the values.
        """
        found = np.zeros(self.n_items, bool)
        names = {str(category): code for code, category in enumerate(self.categories.tolist())}
        for value in values:
            if str(value) not in names:
                raise InputError(f"no item has the value {str(value)!r}; there are {', '.join(list(names)[:10])}.")
            found[self.rows[self.codes == names[str(value)]]] = True
        return found

    def taken(self, items: np.ndarray) -> Attribute:
        """The attribute of other items, by their numbers among these; −1 stands for one of which nothing is known.

        Args:
            items: int [m].
        """
        return Attribute.of([self.values(item) if item >= 0 else [] for item in items.tolist()])

    def feature(self) -> np.ndarray:
        """The attribute as one array [n], as `tfvae.models.metadata` takes it.

        Returns:
            Text, with a bar between several values; numbers, if each item has one; and if some items have none,
            floating-point numbers with NaN for these.
        """
        if self.is_number and self.counts.max(initial=0) <= 1:
            if self.counts.all():
                return self.categories[self.codes]
            found = np.full(self.n_items, np.nan)
            found[self.rows] = self.categories[self.codes]
            return found
        return text_array([SEPARATOR.join(map(str, self.values(item))) for item in range(self.n_items)])


def attribute_arrays(attributes: Mapping[str, Attribute]) -> dict[str, np.ndarray]:
    """Named attributes as named arrays for an `.npz` file; none for no attributes."""
    if not attributes:
        return {}
    arrays = {_NAMES: text_array(list(attributes))}
    for number, attribute in enumerate(attributes.values()):
        arrays |= {f"attribute{number}.{part}": getattr(attribute, part) for part in _PARTS}
    return arrays


def read_attributes(arrays: Mapping[str, np.ndarray], n_items: int) -> dict[str, Attribute]:
    """The attributes that `attribute_arrays` took apart, checked.

    Args:
        arrays: All arrays of a file.
        n_items: Number of items that each attribute must describe.

    Raises:
        KeyError: If an array is missing.
        InputError: If the arrays are no attributes of so many items.
    """
    if _NAMES not in arrays:
        return {}
    names = arrays[_NAMES]
    if names.ndim != 1 or names.dtype.kind not in TEXT_KINDS or len(set(names.tolist())) != names.size:
        raise InputError("expected different names of the items' attributes.")
    refuse_no_text(names, "names of the attributes")
    found = {}
    for number, name in enumerate(names.tolist()):
        found[name] = Attribute(*(arrays[f"attribute{number}.{part}"] for part in _PARTS))
        _refuse_malformed(name, found[name], n_items)
    return found


def _refuse_malformed(name: str, attribute: Attribute, n_items: int) -> None:
    categories, codes, ends = attribute.categories, attribute.codes, attribute.ends
    if (codes.dtype, codes.ndim) != (np.int32, 1) or (ends.dtype, ends.shape) != (np.int64, (n_items,)):
        raise InputError(
            f"expected the attribute {name!r} of {n_items:,} items, found {ends.dtype} {list(ends.shape)}."
        )
    if (np.diff(ends, prepend=0) < 0).any() or codes.size != (ends[-1] if n_items else 0):
        raise InputError(f"the values of the attribute {name!r} do not end where its last item's do.")
    if categories.ndim != 1 or categories.dtype.kind not in "if" + TEXT_KINDS:
        raise InputError(f"expected numbers or text as values of the attribute {name!r}, found {categories.dtype}.")
    if categories.dtype.kind == "f" and not np.isfinite(categories).all():
        raise InputError(f"a value of the attribute {name!r} is no finite number.")
    refuse_no_text(categories, f"values of the attribute {name!r}")
    if np.unique(categories).size != categories.size:
        raise InputError(f"expected each value of the attribute {name!r} once.")
    if codes.size and not 0 <= codes.min() <= codes.max() < categories.size:
        raise InputError(f"expected codes of the attribute {name!r} from 0 to {categories.size - 1:,}, found others.")
