"""The option `--json`: standard output is one JSON document then, and everything else goes to standard error.

`docs/commands.md` lists the keys of each command's document.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from typing import Annotated, Any, TextIO

import typer

__all__ = ["AsJson", "answer"]

_DOCUMENTS: ContextVar[TextIO | None] = ContextVar("where a command's document goes", default=None)


def answer(document: Mapping[str, Any], show: Callable[[], object]) -> None:
    """Prints what a command has found, once: as JSON if it was given `--json`, else as people read it.

    Args:
        document: What was found, by key; numbers are not rounded. NaN and infinite numbers become null.
        show: Prints the same as text.
    """
    stream = _DOCUMENTS.get()
    if stream is None:
        show()
        return
    from pydantic_core import to_json

    text = to_json(document, inf_nan_mode="null", fallback=_of_numpy).decode()
    print(text, file=stream, flush=True)


def _of_numpy(value: Any) -> Any:
    """A NumPy number or array as Python has it; NumPy is not loaded for it."""
    return value.tolist()


@contextmanager
def _only_the_document() -> Iterator[None]:
    """Sends what is printed to standard error, but for what `answer` prints."""
    token = _DOCUMENTS.set(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _DOCUMENTS.reset(token)


def _begin(context: typer.Context, wanted: bool) -> bool:
    if wanted and not context.resilient_parsing:
        context.with_resource(_only_the_document())
    return wanted


AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        callback=_begin,
        help="Print one JSON document with unrounded numbers; all else goes to standard error.",
    ),
]
