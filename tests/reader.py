"""What a reader of files is to the tests of damaged files, and what a fault of one is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutations import Mutator

__all__ = ["Check", "Fault", "Reader"]

Check = Callable[[Any, Mapping[str, bytes]], None]


class Fault(AssertionError):
    """A reader that did neither what it shall nor refuse; the message has the reader, the seed and the reason."""


@dataclass(frozen=True)
class Reader:
    """One reader.

    Attributes:
        files: Makes the whole files, by name.
        damaged: Names of those that are damaged, one at a time; none for all.
        damage: Damages the bytes of one.
        read: Reads them from a folder.
        check: Raises AssertionError unless what was read is valid and is what the files say.
        cost: About how many times as long as another's its reading takes; the soak gives it as many times fewer files.
    """

    files: Callable[[Path], dict[str, bytes]]
    damage: Mutator
    read: Callable[[Path], Any]
    check: Check
    damaged: tuple[str, ...] = ()
    cost: int = 1
