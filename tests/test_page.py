"""The page of the service, in a headless browser: what it shows is what the service answers."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import urllib.error
import urllib.request
from urllib.parse import urlencode

import pytest
from test_cli import COLUMNS, run
from test_serve import write_ratings

pytest.importorskip("fastapi")
pytest.importorskip("playwright", reason="Playwright is not installed")

import uvicorn
from playwright.sync_api import sync_playwright

from tfvae.serving.http.app import create_app
from tfvae.serving.http.limits import Limits
from tfvae.serving.http.versions import Models

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")]

MARKUP = '<img src=x onerror="document.title=1"><script>document.title=2</script>'
TITLES = [f"Title {item} of {'the sea' if item % 2 else 'a town'}" for item in range(30)]
TITLES[7] = MARKUP
HISTORY = {"i05": 5, "i01": 2, "i20": 4}
PATIENCE = 20_000
"""Milliseconds that a busy machine may take."""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The address of a service of ease, whose items have titles, of p-vae, whose items have none, and of gmf."""
    folder = tmp_path_factory.mktemp("page")
    write_ratings(folder / "ratings.csv")
    quoted = (title.replace('"', '""') for title in TITLES)
    titled = [f'i{item:02},"{title}",{"odd" if item % 2 else "even"}' for item, title in enumerate(quoted)]
    (folder / "items.csv").write_text("\n".join(["item,title,kind", *titled]) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run("fit", "ratings.csv", *COLUMNS, "--model", "ease", "--items", "items.csv", "--run", "ease")
        rater = ["--rating-col", "stars", "--model", "p-vae", "--set", "latent_dim=3", "--epochs", "1"]
        run("fit", "ratings.csv", *COLUMNS, *rater, "--run", "p-vae")
        run("prepare", "ratings.csv", *COLUMNS, "--protocol", "leave-one-out", "--negatives", "9", "--out", "one.npz")
        run("fit", "one.npz", "--model", "gmf", "--set", "factors=2", "--epochs", "1", "--run", "gmf")
        models = Models([folder / name for name in ("ease", "p-vae", "gmf")], Limits(batch=1, poll_seconds=60))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(models), log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def tab(browser):
    """A tab that notes the errors on its console and the addresses that it asks."""
    tab = browser.new_page(viewport={"width": 1200, "height": 800})
    tab.set_default_timeout(PATIENCE)
    tab.errors, tab.asked = [], []
    tab.on("console", lambda message: message.type == "error" and tab.errors.append(message.text))
    tab.on("pageerror", lambda error: tab.errors.append(str(error)))
    tab.on("request", lambda request: tab.asked.append(request.url))
    return tab


@pytest.fixture
def page(tab, address):
    """The page as it is at its address, with nothing wrong on the console before or after the test."""
    yield opened(tab, address)
    assert tab.errors == []
    assert tab.asked and all(url.startswith(address) for url in tab.asked)


def opened(tab, address, fragment=""):
    """The page, loaded anew."""
    tab.goto("about:blank")
    tab.errors.clear()
    tab.asked.clear()
    tab.goto(address + fragment)
    tab.wait_for_selector("#page")
    return tab


def fragment_of(history=HISTORY, **more):
    pairs = [pair for item, rating in history.items() for pair in (("item", item), ("rating", rating))]
    return "#" + urlencode([*pairs, *more.items()])


def answer(address, path, **body):
    request = urllib.request.Request(address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=60))


def rows(page, model):
    """The items of a model's list, once it stands."""
    column = f'[data-model="{model}"]'
    page.wait_for_selector(f"{column}:not([aria-busy]) ol > li")
    return page.eval_on_selector_all(f"{column} ol > li", "rows => rows.map(row => row.dataset.item)")


def ids_of(found):
    return [item["item"] for item in found["items"]]


def rated(history=HISTORY):
    return [{"item": item, "rating": rating} for item, rating in history.items()]


def find(page, text):
    """Types into the search box, and waits for what is found."""
    page.fill("#search", text)
    page.wait_for_selector("#found li")


def test_items_are_found_by_title_and_the_lists_are_those_of_the_service(page, address):
    assert page.locator("#hint").text_content().startswith("Add an item")
    find(page, "Title 2")
    options = page.locator("#found li")
    assert options.count() == 11 and all("Title 2" in text for text in options.all_text_contents())
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    second = options.nth(1).get_attribute("data-item")
    assert options.nth(1).get_attribute("aria-selected") == "true"
    page.keyboard.press("Enter")
    find(page, "i05")
    options.first.click()
    assert page.locator("#history li .label").all_text_contents() == [TITLES[int(second[1:])], TITLES[5]]
    assert rows(page, "ease") == ids_of(answer(address, "recommend", model="ease", history=[second, "i05"]))
    # What is added without a rating is rated four fifths up the scale.
    wanted = answer(address, "recommend", model="p-vae", history=rated({second: 4, "i05": 4}))
    assert rows(page, "p-vae") == ids_of(wanted)
    # The items of p-vae have no titles: those that ease knows are shown.
    first = page.locator('[data-model="p-vae"] .label').first
    assert first.text_content() == TITLES[int(ids_of(wanted)[0][1:])]
    find(page, "sea")
    page.fill("#search", "i09")
    page.keyboard.press("Enter")  # which means what was typed, not what the list still shows
    page.locator("#history li:nth-child(3)").wait_for()
    assert page.locator("#history .label").last.text_content() == TITLES[9]
    find(page, "sea")
    page.keyboard.press("Escape")
    assert page.locator("#found").is_hidden()


def test_a_rating_changes_what_models_of_ratings_answer(page, address):
    opened(page, address, fragment_of())
    rows(page, "p-vae")
    with page.expect_response("**/predict"):
        page.get_by_label(f"Rating of {TITLES[5]}").fill("1")
    wanted = answer(address, "recommend", model="p-vae", history=rated(HISTORY | {"i05": 1}))
    page.wait_for_function("wanted => document.querySelector('[data-model=p-vae] .value').textContent === wanted",
                           arg=f"{wanted['items'][0]['score']:.1f}")  # fmt: skip
    assert rows(page, "p-vae") == ids_of(wanted)
    assert "item=i05&rating=1&" in page.url


def test_intervals_are_bars_between_their_ends(page, address):
    opened(page, address, fragment_of())
    items = rows(page, "p-vae")
    told = answer(address, "predict", model="p-vae", history=rated(), items=items, level=0.9)["ratings"]
    assert {one["item"] for one in told} == set(items) and len(items) == 10
    for one in told:
        row = page.locator(f'[data-model="p-vae"] li[data-item="{one["item"]}"]')
        bar, track = row.locator(".interval"), row.locator(".track")
        assert float(bar.get_attribute("data-low")) == one["low"]
        assert float(bar.get_attribute("data-high")) == one["high"]
        ends = f"rating {one['rating']:.1f}, interval {one['low']:.1f} to {one['high']:.1f}"
        assert track.get_attribute("aria-label") == ends
        drawn, whole, dot = bar.bounding_box(), track.bounding_box(), row.locator(".dot").bounding_box()
        places = [drawn["x"], drawn["x"] + drawn["width"], dot["x"] + dot["width"] / 2]
        found = [1 + 4 * (place - whole["x"]) / whole["width"] for place in places]
        assert found == pytest.approx([one["low"], one["high"], one["rating"]], abs=0.03)


def test_reasons_and_similar_items_come_on_a_click(page, address):
    opened(page, address, fragment_of())
    for model, history in (("ease", list(HISTORY)), ("p-vae", rated())):
        wanted = answer(address, "recommend", model=model, history=history, because=3)["items"]
        found = next(item for item in wanted if item["because"])
        rows(page, model)
        row = page.locator(f'[data-model="{model}"] li[data-item="{found["item"]}"]')
        row.locator(".title").click()
        page.wait_for_function("() => !document.querySelector('.details [aria-busy]')")
        reasons, near = row.locator(".details ul").all()
        because = [label.get_attribute("data-title-of") for label in reasons.locator(".label").all()]
        assert because == [reason["item"] for reason in found["because"]]
        nearest = [label.get_attribute("data-title-of") for label in near.locator(".label").all()]
        assert nearest == ids_of(answer(address, "similar", model=model, item=found["item"], k=5))
        row.locator(".title").click()
        assert row.locator(".details").count() == 0
    similar = page.locator('[data-model="ease"] ol > li').first
    similar.get_by_role("button", name="Add").click()
    assert page.locator("#history li").count() == 4


def test_items_that_several_models_recommend_are_marked(page, address):
    opened(page, address, fragment_of(k=20))
    both = set(rows(page, "ease")) & set(rows(page, "p-vae"))
    marked = page.eval_on_selector_all(
        ".column li:has(.shared:not([hidden]))", "rows => rows.map(row => row.dataset.item)"
    )
    assert both and sorted(marked) == sorted([*both, *both])
    item = min(both)
    page.hover(f'[data-model="ease"] li[data-item="{item}"] .title')
    assert page.locator(f'li.same[data-item="{item}"]').count() == 2 and page.locator("li.same").count() == 2


def test_a_title_with_markup_stays_text(page, address):
    find(page, "onerror")
    assert page.locator("#found li span").all_text_contents() == [MARKUP]
    page.keyboard.press("Enter")
    assert page.locator("#history .label").all_text_contents() == [MARKUP]
    assert "i07" not in rows(page, "ease")
    opened(page, address, fragment_of({"i05": 5, "i01": 2}, k=28))
    assert "i07" in rows(page, "ease") and "i07" in rows(page, "p-vae")
    for model in ("ease", "p-vae"):
        assert page.locator(f'[data-model="{model}"] li[data-item="i07"] .label').text_content() == MARKUP
    assert page.locator("main img, main script").count() == 0
    assert page.title().startswith("Recommendations side by side")


def test_the_address_restores_what_was_on_the_page(page, address):
    opened(page, address, fragment_of(k=4, again=1, minUsers=15, diversity=0.4, atMost=1, categories="kind"))
    rules = {"k": 4, "again": True, "min_users_per_item": 15, "diversity": 0.4}
    wanted = answer(address, "recommend", model="ease", history=list(HISTORY), at_most=1, categories="kind", **rules)
    assert rows(page, "ease") == ids_of(wanted) and len(ids_of(wanted)) == 2
    assert rows(page, "p-vae") == ids_of(answer(address, "recommend", model="p-vae", history=rated(), **rules))
    assert "have no kind" in page.locator('[data-model="p-vae"] .note').first.text_content()
    page.get_by_role("checkbox", name="p-vae").uncheck()
    page.get_by_label("Items in a list").fill("5")
    page.get_by_label("Items of one category, at most").fill("2")
    assert page.locator('[data-model="p-vae"]').count() == 0
    page.wait_for_function("() => location.hash.includes('atMost=2')")
    there = page.url
    opened(page, "", there)
    assert page.get_by_role("checkbox", name="p-vae").is_checked() is False and page.locator(".column").count() == 1
    wanted = answer(
        address, "recommend", model="ease", history=list(HISTORY), at_most=2, categories="kind", **rules | {"k": 5}
    )
    assert rows(page, "ease") == ids_of(wanted)
    assert page.url == there


def test_what_a_model_cannot_do_and_what_goes_wrong_is_said_where_it_happens(page, address):
    gmf = page.locator(".model", has_text="gmf")
    assert gmf.locator("input").is_disabled() and "training users only" in gmf.text_content()
    opened(page, address, fragment_of({"i05": 9, "gone": 3}))
    problem = page.locator('[data-model="p-vae"] .problem')
    problem.get_by_role("button", name="Try again").wait_for()
    assert "expected ratings from 1 to 5" in problem.text_content()
    assert len(rows(page, "ease")) == 10
    assert page.locator('[data-model="ease"] .note').first.text_content() == "It does not know 1 item of the history."
    page.route("**/recommend", lambda route: route.abort())
    page.get_by_role("button", name="Remove gone").click()
    page.locator('[data-model="ease"] .problem button').wait_for()
    assert "does not answer" in page.locator('[data-model="ease"] .problem').text_content()
    page.unroute("**/recommend")
    page.locator('[data-model="ease"] .problem button').click()
    assert rows(page, "ease") == ids_of(answer(address, "recommend", model="ease", history=["i05"]))
    assert page.locator('[data-model="ease"] .problem').text_content() == ""
    assert page.errors and all("422" in error or "ERR_FAILED" in error for error in page.errors)
    page.errors.clear()


def test_a_narrow_window_has_one_column_and_scrolls_only_downwards(page, address):
    page.set_viewport_size({"width": 360, "height": 640})
    try:
        opened(page, address, fragment_of({"i07": 5, "i01": 2}))
        rows(page, "ease"), rows(page, "p-vae")
        page.locator("summary").click()
        page.locator('[data-model="ease"] .title').first.click()
        page.wait_for_function("() => !document.querySelector('.details [aria-busy]')")
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        boxes = [page.locator(f'[data-model="{model}"]').bounding_box() for model in ("ease", "p-vae")]
        assert boxes[0]["x"] == boxes[1]["x"] and boxes[0]["y"] + boxes[0]["height"] < boxes[1]["y"]
    finally:
        page.set_viewport_size({"width": 1200, "height": 800})


def test_it_works_behind_a_path_of_a_proxy(page, address):
    page.route(f"{address}shop/**", lambda route: route.continue_(url=route.request.url.replace("/shop/", "/")))
    opened(page, f"{address}shop/", fragment_of())
    assert rows(page, "ease") == ids_of(answer(address, "recommend", model="ease", history=list(HISTORY)))
    assert all(url.startswith(f"{address}shop/") for url in page.asked)
    page.unroute(f"{address}shop/**")


def test_the_description_of_the_requests_asks_no_other_server(page, address):
    opened_at = page.goto(address + "docs")
    assert opened_at.status == 200
    page.locator("#operations-default-recommend_recommend_post").wait_for()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("", "text/html"),
        ("static/page.js", "javascript"),
        ("static/page.css", "text/css"),
        ("static/icon.svg", "image/svg+xml"),
    ],
)
def test_files_come_with_their_type_and_a_strict_policy(path, kind, address):
    with urllib.request.urlopen(address + path, timeout=60) as found:
        headers = found.headers
    assert kind in headers["Content-Type"] and headers["Cache-Control"] == "no-cache"
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "http" not in policy
    with pytest.raises(urllib.error.HTTPError, match="304"):
        urllib.request.urlopen(urllib.request.Request(address + path, headers={"If-None-Match": headers["ETag"]}))
    schema = json.load(urllib.request.urlopen(address + "openapi.json"))
    assert "/" not in schema["paths"]
    with pytest.raises(urllib.error.HTTPError, match="404") as missing:
        urllib.request.urlopen(address + "static/../page_files.py")
    assert json.load(missing.value)["error"]["code"] == "not_found"
