"""What MkDocs calls while it builds the site: the generated pages, the navigation among them, and links to files."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from site_builder.api import FOLDERS, api_pages
from site_builder.models import model_pages, titles
from site_builder.notebooks import notebook_pages
from site_builder.places import ROOT, TEXTS, rewritten, source_page, source_text, sources_shown
from site_builder.results import Tables, result_pages
from site_builder.start import start_page
from tfvae.experiments.protocols import dataset_title
from tfvae.models import model_class
from tfvae.system.errors import InputError

__all__ = ["on_files", "on_page_markdown", "pages"]

ASSETS = Path(__file__).parent / "assets"
DRAWN = ROOT / "build" / "site-pictures"
Content = str | bytes | Path

logging.getLogger("matplotlib").setLevel(logging.ERROR)


def pages(tables: Tables, drawn: Path = DRAWN) -> dict[str, Content]:
    """All that is made for the site: for each path in its sources, a page's text, a file's bytes or the file to copy.

    Args:
        tables: The tables with their stored runs.
        drawn: The folder into which pictures are drawn.

    Raises:
        InputError: If a stored file cannot be read, or a link of a text leads nowhere; the message names the file.
    """
    made: dict[str, Content] = {}
    made |= start_page(tables, drawn)
    made |= result_pages(tables)
    made |= model_pages(tables)
    made |= api_pages()
    made |= notebook_pages()
    made |= {page: rewritten((ROOT / path).read_text(encoding="utf-8"), path, page) for path, page in TEXTS.items()}
    made |= {f"assets/{path.name}": path for path in ASSETS.iterdir()}
    texts = {page: text for page, text in made.items() if isinstance(text, str)}
    guide = {path.relative_to(ROOT / "docs").as_posix(): path for path in (ROOT / "docs").rglob("*.md")}
    texts |= {page: _of_guide(path.read_text(encoding="utf-8"), page) for page, path in guide.items()}
    shown = {path for page, text in texts.items() for path in sources_shown(text, page)}
    return made | {source_page(path): source_text(path) for path in sorted(shown)}


def _of_guide(text: str, page: str) -> str:
    return rewritten(text, f"docs/{page}", page)


# ---- called by MkDocs -------------------------------------------------------------------------------


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds the generated pages and files, and the pages among them to the navigation of mkdocs.yml."""
    try:
        tables = Tables()
        made = pages(tables)
    except InputError as error:
        raise PluginError(str(error)) from error
    for place, content in made.items():
        if isinstance(content, Path):
            files.append(File.generated(config, place, abs_src_path=str(content)))
        else:
            files.append(File.generated(config, place, content=content))
    _extend(config.nav or [], _navigation(tables))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lets the links of the hand-written pages lead to the site's pages."""
    if page.file.generated_by is not None:
        return markdown
    try:
        return _of_guide(markdown, page.file.src_uri)
    except InputError as error:
        raise PluginError(str(error)) from error


def _navigation(tables: Tables) -> dict[str, list[Any]]:
    """The generated entries of the navigation, by the section that they belong to."""
    of_results: list[Any] = [
        {table.title: [f"results/{table.name}/index.md", *_datasets(tables, table.name)]}
        for table in tables.tables.values()
        if tables.datasets(table) or table.published
    ]
    named = [(about.title, name) for name, about in titles().items()]
    rankers = [{title: f"models/{name}.md"} for title, name in named if not model_class(name).predicts_ratings]
    raters = [{title: f"models/{name}.md"} for title, name in named if model_class(name).predicts_ratings]
    return {
        "Results": of_results,
        "Models": [{"Rankers": rankers}, {"Models of ratings": raters}],
        "API": [{title: f"api/{folder}.md"} for folder, (title, _) in FOLDERS.items()],
        "Notebooks": [f"notebooks/{path.stem}.md" for path in sorted((ROOT / "notebooks").glob("*.ipynb"))],
    }


def _datasets(tables: Tables, name: str) -> list[dict[str, str]]:
    found = tables.datasets(tables.tables[name])
    return [{dataset_title(dataset): f"results/{name}/{dataset}/index.md"} for dataset in found]


def _extend(nav: list[Any], more: dict[str, list[Any]]) -> None:
    """Adds entries to the sections of these titles, at whatever depth they are."""
    for entry in nav:
        for title, inside in entry.items() if isinstance(entry, dict) else ():
            if isinstance(inside, list):
                inside.extend(more.get(title, []))
                _extend(inside, more)
