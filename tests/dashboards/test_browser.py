"""The pages in a real browser: what they show, that they ask nobody else, and that nothing in them runs.

``NASPLAT_SCREENSHOTS=docs/images`` keeps the pictures that the documentation shows.
"""

import itertools
import os
import shutil
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from PIL import Image

from nasplat.cli.dashboard import Installed
from nasplat.config import Execution
from nasplat.dashboards.report import write_report
from nasplat.dashboards.server import Settings
from nasplat.storage import SqlStore
from nasplat.storage.browsing import Database
from nasplat.study import Study
from nasplat.trial import Trial
from tests.dashboards.conftest import Filled, served
from tests.dashboards.store import HOSTILE, small_config

pytest.importorskip("playwright", reason="needs playwright: pip install playwright")
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = os.environ.get("NASPLAT_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None
)
if CHROMIUM is None:
    pytest.skip("needs Debian's chromium: apt-get install chromium", allow_module_level=True)

# WebGL by software, as servers have no graphics card.
ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
TOKEN = "a token that is long enough"
PAGES = {
    "studies": "/",
    "study": "/study?study=evolution-0",
    "trials": "/trials?study=evolution-0&sort=val_accuracy&descending=true",
    "pareto": f"/pareto?study={quote('two goals')}&color=seconds",
    "choices": "/importance?study=evolution-0",
    "lineage": "/lineage?study=evolution-0",
    "audit": "/audit?study=evolution-0",
    "compare": "/compare?study=evolution-0&study=evolution-1&study=random-0&study=random-1",
    "query": f"/sql?q={quote('SELECT study, trials, failed, paid_seconds / 60 AS minutes FROM v_cost')}",
    "architecture": "/architecture?study=evolution-0&number=0",
    "chain": "/architecture?study=chains&number=0",
}
READY = {
    "studies": "tbody tr:nth-child(8) td:text-matches('ago|just now')",
    "study": "[data-points]",
    "trials": "tbody tr:nth-child(20)",
    "pareto": "[data-points]",
    "choices": ".bars li >> nth=5",
    "lineage": "svg.interval >> nth=8",
    "audit": ".verdict >> nth=3",
    "compare": "text=A against B",
    "query": "text=evolution-1",
    "architecture": "svg.layers",
    "chain": "ol.stack",
}


@dataclass
class Visit:
    """A page, what it asked for and what it complained about."""

    page: Page
    origin: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)

    def open(self, path: str, ready: str) -> Page:
        """Go to a page and wait until it shows what it is there for."""
        self.page.goto(self.origin + path)
        self.page.wait_for_selector(ready, timeout=60_000)
        return self.page

    def check(self) -> None:
        """Nothing left the machine, and nothing was amiss, the security policy included."""
        assert [url for url in self.requests if not url.startswith((self.origin, "data:"))] == []
        assert self.complaints == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; for one module, because its event loop stands in the way of others."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser, client: httpx.Client) -> Iterator[Visit]:
    """A fresh visitor with a large screen."""
    yield from visitor(browser, client)


def visitor(
    browser: Browser, client: httpx.Client, width: int = 1280, height: int = 800
) -> Generator[Visit, None, None]:
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme="light")
    yield Visit(context.new_page(), str(client.base_url).rstrip("/"))
    context.close()


def best_of(client: httpx.Client, study: str) -> int:
    return int(client.get("/api/study", params={"study": study}).json()["summary"]["best"]["number"])


def shoot(page: Page, name: str, folder: Path, *, whole: bool = True) -> Path:
    """A picture of a page once it stands still."""
    folder = Path(os.environ.get("NASPLAT_SCREENSHOTS", folder))
    path = folder / f"dashboard-{name}.png"
    page.evaluate("document.fonts.ready")
    page.wait_for_timeout(150)
    page.screenshot(path=path, full_page=whole)
    return path


def colours(page: Page, selector: str, path: Path) -> int:
    """How many colours a part of a page has."""
    page.locator(selector).first.screenshot(path=path)
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    return len(np.unique(pixels // 16, axis=0))


@pytest.mark.parametrize("name", PAGES)
def test_every_page_shows_what_it_is_there_for(visit: Visit, client: httpx.Client, name: str, tmp_path: Path) -> None:
    path = PAGES[name]
    if name == "architecture":
        path = path.replace("number=0", f"number={best_of(client, 'evolution-0')}")
    page = visit.open(path, READY[name])
    shoot(page, name, tmp_path, whole=name != "trials")
    if name in ("study", "pareto", "audit", "compare"):
        assert colours(page, ".plot > div", tmp_path / "plot.png") > 4
    assert page.locator(".problem").count() == 0
    visit.check()


def test_the_drawing_of_a_cell(visit: Visit, client: httpx.Client) -> None:
    number = best_of(client, "evolution-0")
    page = visit.open(f"/architecture?study=evolution-0&number={number}", "svg.layers")
    found = client.get("/api/architecture", params={"study": "evolution-0", "number": number}).json()
    assert page.locator("svg.layers .node text").all_text_contents() == found["graph"]["nodes"]
    labels = page.locator("svg.layers .edge-label text").all_text_contents()
    assert labels == [label for _, _, label in found["graph"]["edges"]]
    parent = found["trial"]["parents"][0]["number"]
    page.get_by_role("link", name=str(parent), exact=True).first.click()
    page.wait_for_selector(f".sub:has-text('Trial {parent}')")
    visit.check()


def test_the_drawing_of_a_chain_hides_no_layer(visit: Visit, client: httpx.Client) -> None:
    for number in range(2):
        page = visit.open(f"/architecture?study=chains&number={number}", "ol.stack")
        found = client.get("/api/architecture", params={"study": "chains", "number": number}).json()
        tops = page.locator("ol.stack li").evaluate_all("all => all.map(e => e.getBoundingClientRect().top)")
        assert len(tops) == len([n for n, _ in itertools.groupby(found["graph"]["nodes"])])
        steps = np.diff(tops)
        assert steps.min() == pytest.approx(steps.max(), abs=1)
    visit.check()


def test_a_search_is_seen_without_reloading(browser: Browser, filled: Filled, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/live.db"
    shown, seen = threading.Event(), threading.Event()

    def search() -> None:
        def look(study: Study, trial: Trial) -> None:
            if trial.number == 5:
                shown.set()
                seen.wait(60)

        with SqlStore(url) as store:
            Study(small_config("live", filled.table, trials=30), store, execution=Execution(threads=1)).run(look)

    SqlStore(url).close()
    searching = threading.Thread(target=search)
    searching.start()
    assert shown.wait(60)
    with served(url, Settings()) as client:
        for visit in visitor(browser, client):
            page = visit.open("/study?study=live", ".stats")
            page.evaluate("window.stayed = true")
            page.wait_for_selector(".badge.running")
            before = int(page.locator(".stat:has-text('Trials') dd").first.evaluate("e => e.firstChild.textContent"))
            assert before < 30
            seen.set()
            page.wait_for_selector(".stats .badge.completed", timeout=60_000)
            page.wait_for_function(
                "() => Number(document.querySelector('[data-points]').dataset.points) >= 20", timeout=60_000
            )
            assert page.evaluate("window.stayed") is True
            page.goto(visit.origin)
            page.wait_for_selector("tbody .badge.completed")
            visit.check()
    searching.join()


def test_a_server_that_is_gone_is_missed(browser: Browser, filled: Filled) -> None:
    with served(filled.url, Settings()) as client:
        visitors = visitor(browser, client)
        page = next(visitors).open("/study?study=evolution-0", "[data-points]")
        assert page.locator("main > .problem").count() == 0
    page.wait_for_selector("main > .problem:has-text('may be old')", timeout=60_000)
    visitors.close()


def test_filters_survive_a_reload(visit: Visit) -> None:
    page = visit.open("/trials?study=evolution-0", "tbody tr")
    page.get_by_label("Only trials where").fill("val_accuracy > 0.8")
    page.get_by_label("Only trials where").press("Enter")
    page.wait_for_selector(".pager:has-text('in all')")
    page.get_by_role("button", name="val_accuracy").click()
    page.wait_for_selector("th[aria-sort=descending]:has-text('val_accuracy')")
    page.get_by_text("Columns", exact=True).click()
    page.get_by_label("why").uncheck()
    page.wait_for_function("() => ![...document.querySelectorAll('th')].some(e => e.textContent === 'why')")
    before = page.locator("table").inner_text()
    page.reload()
    page.wait_for_selector("th[aria-sort=descending]:has-text('val_accuracy')")
    assert page.locator("table").inner_text() == before
    assert page.get_by_label("Only trials where").input_value() == "val_accuracy > 0.8"
    visit.check()


def test_a_condition_that_is_none_says_what_to_do(visit: Visit) -> None:
    page = visit.open("/trials?study=evolution-0&where=val_acuracy+%3E+0.8", ".problem")
    assert "did you mean 'val_accuracy'?" in page.locator(".problem").inner_text()


@pytest.mark.parametrize("path", ["/", "/study", "/trials", "/architecture", "/pareto", "/compare"])
def test_hostile_names_are_text(visit: Visit, path: str) -> None:
    where = "" if path == "/" else f"?study={quote(HOSTILE)}&number=3"
    page = visit.open(path + where, f"main :text({HOSTILE[:8]!r})")
    if path == "/study":
        page.locator(".failure summary").click(position={"x": 3, "y": 10})
        assert "<script>" in page.locator(".failure pre").inner_text()
    assert page.locator("#app img, #app script").count() == 0
    assert page.title() != "owned"
    assert visit.complaints == []


def test_the_token(browser: Browser, filled: Filled) -> None:
    with served(filled.url, Settings(token=TOKEN)) as client:
        for visit in visitor(browser, client):
            page = visit.open("/study?study=evolution-0", "input[type=password]")
            page.get_by_label("Token").fill("not the token at all")
            page.get_by_role("button", name="Enter").click()
            page.wait_for_selector("text=This is not the token")
            page.get_by_label("Token").fill(TOKEN)
            page.get_by_role("button", name="Enter").click()
            page.wait_for_selector("h1:has-text('evolution-0')")
        for visit in visitor(browser, client):
            page = visit.open(f"/login#token={quote(TOKEN)}", "text=evolution-0")
            assert TOKEN not in page.url
            assert page.evaluate("document.cookie") == ""
            assert page.evaluate("JSON.stringify([localStorage, sessionStorage])") == "[{},{}]"
            visit.check()


def test_a_link_leads_nowhere_else_after_the_token(browser: Browser, filled: Filled) -> None:
    with served(filled.url, Settings(token=TOKEN)) as client:
        for visit in visitor(browser, client):
            visit.open(f"/login?next=//evil.example/x#token={quote(TOKEN)}", "text=evolution-0")
            visit.check()


def test_keys_reach_everything(visit: Visit) -> None:
    page = visit.open("/study?study=evolution-0", "[data-points]")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the content"
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.tagName + ' ' + document.activeElement.textContent.slice(0, 20)")
        )
    assert {"A Trials", "A Proxy audit", "BUTTON paid seconds"} <= reached
    assert any(r.startswith("CANVAS") for r in reached)
    assert any(r.startswith("SUMMARY") for r in reached)
    canvas = page.locator(".plot canvas").nth(1)
    canvas.focus()
    before = int(canvas.get_attribute("data-frames") or 0)
    page.keyboard.press("+")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(f"() => Number(document.querySelectorAll('.plot canvas')[1].dataset.frames) > {before}")
    nameless = page.evaluate(
        "[...document.querySelectorAll('button, input, select, textarea, a')]"
        ".filter(e => !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).length"
    )
    assert nameless == 0


def test_dark_is_kept(visit: Visit, tmp_path: Path) -> None:
    page = visit.open("/study?study=evolution-0", "[data-points]")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    for _ in range(2):
        page.get_by_role("button", name="Colours").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark != light
    page.reload()
    page.wait_for_selector("[data-points]")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark
    shoot(page, "dark", tmp_path, whole=False)
    visit.check()


def test_a_phone_scrolls_in_one_direction(browser: Browser, client: httpx.Client, tmp_path: Path) -> None:
    for visit in visitor(browser, client, width=390, height=844):
        for name, path in PAGES.items():
            page = visit.open(path, READY[name] if name not in ("architecture",) else "h1")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
            if name == "study":
                shoot(page, "phone", tmp_path, whole=False)
        visit.check()


def test_a_point_leads_to_its_architecture(visit: Visit) -> None:
    page = visit.open("/pareto?study=two%20goals", "[data-points]")
    page.wait_for_timeout(200)
    box = page.locator(".plot canvas").nth(1).bounding_box()
    assert box is not None
    # Somewhere on the picture there is a point: look for the first one that answers.
    for x in np.linspace(box["x"] + 80, box["x"] + box["width"] - 20, 40):
        for y in np.linspace(box["y"] + 15, box["y"] + box["height"] - 50, 14):
            page.mouse.move(x, y)
            if page.locator(".tip").count():
                page.mouse.down()
                page.mouse.up()
                page.wait_for_selector("svg.layers")
                visit.check()
                return
    pytest.fail("no point answered")


def test_a_report_needs_no_server(browser: Browser, filled: Filled, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    with Database(filled.url) as database:
        write_report(database, Installed(trust_spaces=False), "evolution-0", path)
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    visit = Visit(page, path.as_uri())
    page.goto(path.as_uri())
    page.wait_for_selector("svg.layers")
    assert page.locator(".problem").count() == 0
    assert colours(page, ".plot > div", tmp_path / "plot.png") > 4
    titles = page.locator("main h2").all_inner_texts()
    assert {"Best so far", "Pareto front", "Which choices matter", "What each mutation gained", "Settings"} <= set(
        titles
    )
    visit.check()
    page.close()


def test_a_page_that_is_hidden_gives_its_connection_back(visit: Visit, client: httpx.Client) -> None:
    page = visit.open("/study?study=evolution-0", "[data-points]")
    page.evaluate(
        "Object.defineProperty(document, 'hidden', {value: true, configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    asked = len(visit.requests)
    time.sleep(0.7)
    assert len(visit.requests) == asked
    page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    with page.expect_request("**/api/live**"):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
