"""Renders the templates of the site's pages, with the filters of the tables' own pages."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import jinja2

from site_builder.places import link, source_page
from tfvae.experiments.rendering import template

__all__ = ["cell", "marks", "render"]

TEMPLATES = Path(__file__).parent / "templates"


def render(name: str, page: str, /, **content: Any) -> str:
    """A page of the site, from its template.

    Args:
        name: The template's file name.
        page: The page's path in the site's sources, from which its links lead.
        **content: What the template shows.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= template("overview.md.j2").environment.filters | {"cell": cell, "marks": marks}
    environment.globals |= {"to": partial(link, page), "source": lambda path: link(page, source_page(path))}
    return environment.get_template(name).render(**content)


def cell(text: str) -> str:
    """A text as the cell of a table: on one line, without the stroke that would end the cell."""
    return " ".join(text.split()).replace("|", "\\|")


def marks(signs: Iterable[str]) -> str:
    """The marks of a cell, which hang out of its column; nothing where there are none."""
    return f'<span class="mark">{"".join(signs)}</span>' if signs else ""
