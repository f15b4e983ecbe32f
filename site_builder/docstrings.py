"""Lets griffe, which reads the docstrings for the API's pages, take "Example:" for its section "Examples:"."""

from __future__ import annotations

import re
from typing import Any

import griffe

__all__ = ["ExampleSections", "with_examples"]


def with_examples(docstring: str) -> str:
    """The docstring with its sections "Example:" called "Examples:"."""
    return re.sub(r"^Example:$", "Examples:", docstring, flags=re.MULTILINE)


class ExampleSections(griffe.Extension):
    """Renames the sections of each docstring that is read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called by griffe with each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = with_examples(obj.docstring.value)
