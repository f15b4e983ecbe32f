"""Groups of users (or of their ratings) by how many items they have, each about as large as the others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tfvae.system.errors import InputError

__all__ = ["GROUPS", "Groups", "groups_by_size"]

GROUPS = 5
"""The number of groups, which are fifths, as in Mult-VAE's Figure 3."""


class Groups(NamedTuple):
    """Groups by size, from the smallest sizes to the largest.

    Attributes:
        number: The group of each, counted from 0, int [n].
        bounds: For each group the smallest size in it, and the size from which the next one begins; of the last group
            the largest size, which is in it.
    """

    number: np.ndarray
    bounds: list[tuple[int, int]]


def groups_by_size(sizes: np.ndarray, n_groups: int = GROUPS) -> Groups:
    """Divides by size into groups that are about equally large; equal sizes are in one group, and no group is empty.

    Args:
        sizes: Whole numbers, int [n].
        n_groups: Number of groups; there are fewer where few sizes differ.

    Returns:
        The groups.

    Raises:
        InputError: If there are no sizes.

    Example:
        >>> groups_by_size(np.array([30, 10, 20, 21, 11, 31, 12]), 3)
        Groups(number=array([2, 0, 1, 2, 0, 2, 1]), bounds=[(10, 12), (12, 21), (21, 31)])
    """
    if not len(sizes):
        raise InputError("expected sizes to divide into groups, found none.")
    # Each lower bound is one of the sizes, so that no group is empty.
    shares = np.arange(n_groups) / n_groups
    lowest = np.unique(np.quantile(sizes, shares, method="inverted_cdf"))
    bounds = zip(lowest, [*lowest[1:], sizes.max()], strict=True)
    number = np.searchsorted(lowest, sizes, side="right") - 1
    return Groups(number, [(int(low), int(high)) for low, high in bounds])
