"""The errors that tfvae raises for its users; a message says what was expected, what was found and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["DivergedError", "InputError", "TfvaeError", "TooLargeError", "WorkerError", "unknown_name"]


class TfvaeError(Exception):
    """Base of all errors that are raised on purpose; the command line prints the message without a traceback."""


class InputError(TfvaeError, ValueError):
    """Data, settings or files that are not what they should be."""


class DivergedError(TfvaeError, ArithmeticError):
    """A loss or a score that is NaN or infinite."""


class TooLargeError(TfvaeError, MemoryError):
    """A computation that would need more memory than the machine has."""


class WorkerError(TfvaeError, RuntimeError):
    """Another of the workers that train together has stopped."""


def unknown_name(kind: str, given: str, known: Iterable[str]) -> InputError:
    """The error for a name that does not exist; it suggests the most similar name, or lists all if none is similar.

    Args:
        kind: What kind of name was expected, such as ``"setting"``.
        given: The name as the user wrote it.
        known: All names of that kind.

    Returns:
        The error, to be raised by the caller.
    """
    known = sorted(known)
    nearest = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    advice = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(known)}."
    return InputError(f"unknown {kind} {given!r}; {advice}")
