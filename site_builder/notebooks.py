"""The notebooks as pages: executed copies where `make notebooks` has made them, else as they are committed."""

from __future__ import annotations

from site_builder.places import ROOT, rewritten

__all__ = ["notebook_pages"]

EXECUTED = ROOT / "build" / "notebooks"
NOT_EXECUTED = (
    '!!! note "Without its results"\n\n'
    "    This copy was not run. `make lab` opens it in JupyterLab, where it can be.\n\n"
)


def notebook_pages() -> dict[str, str | bytes]:
    """A page for each notebook, and the pictures in it.

    Returns:
        For each path in the site's sources, the text of a page or the bytes of a picture.
    """
    from nbconvert import MarkdownExporter

    made: dict[str, str | bytes] = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        copy = EXECUTED / path.name
        text, resources = MarkdownExporter().from_filename(str(copy if copy.is_file() else path))
        page = f"notebooks/{path.stem}.md"
        for name, content in resources["outputs"].items():
            text = text.replace(f"]({name})", f"]({path.stem}/{name})")
            made[f"notebooks/{path.stem}/{name}"] = content
        heading, _, rest = text.lstrip().partition("\n")
        note = "" if copy.is_file() else NOT_EXECUTED
        made[page] = rewritten(f"{heading}\n\n{note}{rest}", f"notebooks/{path.name}", page)
    return made
