"""Where a file of the repository stands on the site, and links that lead there.

A text of the repository links to other files of it. On the site such a link leads to the page that stands for the file:
a README.md of stored results to the page of that table, a module to a page of its source.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path, PurePosixPath

from tfvae.system.errors import InputError

__all__ = ["ROOT", "TEXTS", "link", "place_of", "rewritten", "source_page", "source_text", "sources_shown"]

ROOT = Path(__file__).parents[1]

TEXTS = {
    "CONTRIBUTING.md": "contributing.md",
    "DEVIATIONS.md": "deviations.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks/index.md",
    "benchmarks/results/README.md": "benchmarks/results.md",
    "examples/own_log/README.md": "own-log.md",
    "paper_results/leaderboard/README.md": "results/leaderboard/story.md",
}
"""Texts outside `docs/` that are pages of the site, as they are."""

GENERATED = {
    "README.md": "index.md",
    "paper_results/README.md": "results/index.md",
    "paper_results/leaderboard/claims.md": "results/holds.md",
    "paper_results/leaderboard-ratings/claims.md": "results/holds.md",
}
"""Texts whose content is on a page that is made from the same stored runs."""

LINK = re.compile(r"(?<=\]\()([^)#\s]+)(#[^)\s]*)?(?=\))")
OUTSIDE = re.compile(r"^[a-z]+:|^/")
CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", flags=re.MULTILINE | re.DOTALL)


def link(page: str, to: str) -> str:
    """The relative link from one page of the site to another, both by their paths in the site's sources."""
    path, mark, anchor = to.partition("#")
    return posixpath.relpath(path, posixpath.dirname(page) or ".") + mark + anchor


def source_page(path: str) -> str:
    """The page that shows a file of the repository, such as ``source/tfvae/models/ease.py.md``."""
    return f"source/{path}.md"


def place_of(path: str) -> str:
    """The page or file of the site that stands for a file of the repository.

    Args:
        path: Its path in the repository, or a folder's, which its README.md stands for.

    Returns:
        The path in the site's sources.

    Raises:
        InputError: If the repository has no such file, so that a link to it is dead.
    """
    if (ROOT / path).is_dir():
        path = posixpath.join(path, "README.md")
    parts = PurePosixPath(path).parts
    if not (ROOT / path).is_file():
        raise InputError(f"{path} is linked to, and is not in the repository.")
    if path in TEXTS or path in GENERATED:
        return {**TEXTS, **GENERATED}[path]
    if parts[0] == "docs":
        return posixpath.join(*parts[1:])
    if parts[0] == "notebooks":
        return f"notebooks/{PurePosixPath(path).stem}.md"
    if parts[0] == "paper_results":
        page = posixpath.join("results", *parts[1:])
        return page.replace("README.md", "index.md")
    return source_page(path)


def rewritten(text: str, origin: str, page: str) -> str:
    """A text of the repository with its links as they are on the site.

    Args:
        text: The text, in Markdown.
        origin: Its path in the repository.
        page: The page on which it stands, by its path in the site's sources.

    Raises:
        InputError: If a link leads nowhere; the message names the text.
    """

    def changed(found: re.Match[str]) -> str:
        target, anchor = found[1], found[2] or ""
        if OUTSIDE.match(target):
            return found[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
        try:
            place = place_of(path)
        except InputError as error:
            raise InputError(f"{origin}: {error}") from None
        return link(page, place) + anchor

    pieces = CODE.split(text)
    pieces[::2] = [LINK.sub(changed, piece) for piece in pieces[::2]]
    return "".join(pieces)


def sources_shown(text: str, page: str) -> set[str]:
    """The files of the repository to whose source a page of the site leads.

    Args:
        text: The page, with links as they are on the site.
        page: Its path in the site's sources.
    """
    targets = (posixpath.normpath(posixpath.join(posixpath.dirname(page), found[1])) for found in LINK.finditer(text))
    return {target.removeprefix("source/").removesuffix(".md") for target in targets if target.startswith("source/")}


def source_text(path: str) -> str:
    """The page of a file's source."""
    kind = {".py": "python", ".sh": "sh", ".toml": "toml", ".json": "json", ".yml": "yaml"}
    text = (ROOT / path).read_text(encoding="utf-8").rstrip()
    fence = "````" if "```" in text else "```"
    language = kind.get(PurePosixPath(path).suffix, "text")
    numbered = ' linenums="1"' if language != "text" else ""
    return f"---\nsearch:\n  exclude: true\n---\n# {path}\n\n{fence}{{.{language}{numbered}}}\n{text}\n{fence}\n"
