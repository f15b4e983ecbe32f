"""The site: pages for all models and tables, links that lead somewhere, and what a browser shows."""

from __future__ import annotations

import functools
import http.server
import os
import posixpath
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import tensorflow as tf

pytest.importorskip("griffe", reason="the extra `site` is not installed")
pytest.importorskip("mkdocstrings", reason="the extra `site` is not installed")

import tfvae
from site_builder.large_data import LARGE, expected_times
from site_builder.models import example_of, in_words, model_pages, titles, type_in_words
from site_builder.places import ROOT, place_of, rewritten
from site_builder.results import Tables, result_pages
from tfvae.data.synthetic import synthetic
from tfvae.experiments.definitions import load_table, table_names
from tfvae.models import MODELS, model_class
from tfvae.system.errors import InputError

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
STORED = ("lightgcn-gowalla", "gowalla")  # the smallest table that has runs


def stored(folder: Path) -> Path:
    """A results folder with the runs of one table."""
    shutil.copytree(ROOT / "paper_results" / Path(*STORED), folder / Path(*STORED))
    return folder


def links(text: str, page: str) -> set[str]:
    """The pages and files of the site that a page links to."""
    found = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    return {posixpath.normpath(posixpath.join(posixpath.dirname(page), to)) for to in found if "://" not in to}


# ---- what it is made of -----------------------------------------------------------------------------


def test_links_lead_to_the_pages_that_stand_for_files():
    text = "[a](../paper_results/meld/ml-1m/README.md) [b](../tfvae/models/meld.py#x) `[c](gone.md)` [d](https://x.org)"
    assert rewritten(text, "docs/meld.md", "meld.md") == (
        "[a](results/meld/ml-1m/index.md) [b](source/tfvae/models/meld.py.md#x) `[c](gone.md)` [d](https://x.org)"
    )
    assert place_of("docs/serving.md") == "serving.md" and place_of("CONTRIBUTING.md") == "contributing.md"


def test_a_dead_link_is_named_with_its_text():
    with pytest.raises(InputError, match=r"docs/meld\.md: docs/gone\.md is linked to"):
        rewritten("[a](gone.md)", "docs/meld.md", "meld.md")


def test_every_value_leads_to_its_stored_runs(tmp_path):
    made = result_pages(Tables(stored(tmp_path)))
    page = "results/lightgcn-gowalla/gowalla/index.md"
    runs = links(made[page], page)
    assert "results/lightgcn-gowalla/gowalla/rp3beta.md" in runs
    assert {to for to in runs if to.startswith("results/")} <= made.keys()
    record = made["results/lightgcn-gowalla/gowalla/rp3beta.md"]
    assert all(word in record for word in ("seed", "commit", "data digest", "`neighbors`", "rp3beta.seed1.json"))
    assert "not run" not in made[page].lower().replace("not run on these data", "")
    assert "| LightGCN" in made[page], "what is published stands there, whether or not tfvae has the model"


@pytest.mark.parametrize("name", ["rp3beta.seed1.json", "rp3beta.sweep.json", "rp3beta.seed1.npz"])
def test_a_stored_run_that_cannot_be_read_is_named(name, tmp_path):
    file = stored(tmp_path) / Path(*STORED) / name
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match=re.escape(name)):
        result_pages(Tables(tmp_path))


def test_large_data_have_times():
    tables = [load_table(name) for name in table_names()]
    published = {(table.name, dataset) for table in tables for dataset in table.published if dataset in LARGE}
    assert published <= expected_times().keys() and len(published) > 8
    assert expected_times()["multvae-table2", "netflix"] == "20 h"


def test_readme_names_every_model():
    assert list(titles()) == list(MODELS) and all(about.title and about.source for about in titles().values())


def test_types_are_in_words():
    assert type_in_words({"type": "integer", "exclusiveMinimum": 0, "maximum": 10**9}) == "whole number > 0"
    assert type_in_words({"type": "number", "minimum": 0, "exclusiveMaximum": 1}) == "number ≥ 0, < 1"
    assert type_in_words({"anyOf": [{"enum": ["a", "b"]}, {"type": "null"}]}) == "one of 'a', 'b' or none"
    assert type_in_words({"type": "array", "items": {"type": "integer"}}) == "several, each whole number"
    assert in_words((600,)) == "(600,)"


@pytest.mark.slow
def test_every_model_has_a_page(tmp_path):
    made = model_pages(Tables(stored(tmp_path)))
    assert made.keys() == {"models/index.md"} | {f"models/{name}.md" for name in MODELS}
    for name in MODELS:
        page = made[f"models/{name}.md"]
        settings = set(model_class(name).settings()) - {"seed"}
        assert settings <= set(re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE)), name
        assert all(
            f"## {part}" in page for part in ("An example", "Settings", "What differs", "Its rows", "Model card")
        )
    assert "../results/lightgcn-gowalla/gowalla/rp3beta.md" in made["models/rp3beta.md"]
    assert "cap of β" in made["models/mult-vae.md"] and "hits by all held-out items" not in made["models/mult-vae.md"]


@pytest.mark.slow
def test_the_model_of_the_guide_trains(tmp_path):
    text = (ROOT / "docs" / "adding-a-model.md").read_text(encoding="utf-8")
    written: dict = {}
    exec(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)[0], written)
    cut = tfvae.StrongGeneralizationSettings(held_out_users=30)
    model = written["Linear"](40, **{"latent_dim": 6})
    tfvae.prepare_to_fit(model, tfvae.strong_generalization(synthetic(150, 40), cut), 0.02)
    model.begin_epoch(0)
    assert model.train_step(tf.range(20, dtype=tf.int64))["loss"] > 0


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_an_example_runs(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(example_of(name), {})
    assert ("rmse" if model_class(name).predicts_ratings else "@") in capsys.readouterr().out.lower()


# ---- the whole --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The whole site, built as `make site` does."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def address(site):
    """The address under which the site is served."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.long
@pytest.mark.slow
def test_nothing_is_asked_of_another_server(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 150
    for page in pages:
        tags = re.findall(r"<(?:link|script|img|iframe|source)\b[^>]*>", page.read_text(encoding="utf-8"))
        assert not [tag for tag in tags if re.search(r"(?:src|href)=[\"']?(?:https?:)?//", tag)], page


@pytest.mark.long
@pytest.mark.slow
def test_pages_load_in_a_browser_without_an_error(site, address, browser):
    pages = [
        "",
        "results/",
        "results/leaderboard/ml-1m/",
        "results/holds/",
        "models/",
        "models/p-vae/",
        "own-data/",
        "api/",
    ]
    pages += [f"notebooks/{path.stem}/" for path in (ROOT / "notebooks").glob("*.ipynb")]
    for width, scheme in ((390, "dark"), (1300, "light")):
        view = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
        said: list[str] = []
        view.on("console", lambda message, said=said: said.append(message.text) if message.type == "error" else None)
        view.on("pageerror", lambda error, said=said: said.append(str(error)))
        asked: list[str] = []
        view.on("request", lambda request, asked=asked: asked.append(request.url))
        for page in pages:
            view.goto(address + page)
            view.wait_for_function("[...document.images].every(image => image.complete)")
            shown = "image => image.checkVisibility() && !image.naturalWidth"
            assert view.evaluate(f"[...document.images].filter({shown}).map(image => image.src)") == [], page
            assert view.evaluate("document.documentElement.scrollWidth") <= width, f"{page} is wider than {width}"
        assert said == []
        assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
        view.context.close()


@pytest.mark.long
@pytest.mark.slow
def test_tables_sort(address, browser):
    view = browser.new_page()
    view.goto(address + "results/leaderboard/ml-1m/")
    head = view.locator("table").first.locator("th").nth(2)
    column = view.locator("table").first.locator("td:nth-child(3)")

    def values() -> list[float]:
        return [float(text.split()[0]) for text in column.all_inner_texts()]

    before = values()
    head.get_by_role("button").focus()
    view.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending" and values() == sorted(before, reverse=True)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending" and values() == sorted(before)
    names = view.locator("table").first.locator("th").first
    names.get_by_role("button").click()
    assert names.get_attribute("aria-sort") == "ascending" and head.get_attribute("aria-sort") is None
    view.close()
