"""What the dashboard costs with many trials: a store of so many rows, then its pages, its API and its drawings.

    python benchmarks/dashboard.py --trials 1000000 --folder /tmp/dashboard

The store is made once and kept in the folder. Pages are opened in a headless Chromium (``NASPLAT_CHROMIUM`` names
another one), which draws by software. Each figure is printed beside its target.
"""

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from nasplat.cli.dashboard import Installed
from nasplat.config import Budget, StudyConfig
from nasplat.dashboards.server import Settings
from nasplat.dashboards.serving import bind, make_server
from nasplat.search_spaces.nasbench201 import NasBench201
from nasplat.storage import SqlStore
from nasplat.storage import schema as s
from nasplat.storage.browsing import Database
from nasplat.storage.bulk import insert_many
from nasplat.storage.engine import connect
from nasplat.store import StudyRecord
from nasplat.testing import stored

STUDY = "large"
CHUNK = 50_000
ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]


def config(name: str, trials: int) -> StudyConfig:
    """Of the studies of the store."""
    return StudyConfig(
        "nasbench201",
        "digits",
        "regularized-evolution",
        name=name,
        objective=("val_accuracy", "min params"),
        epochs=12,
        budget=Budget(trials=trials),
    )


def make_store(path: Path, trials: int) -> None:
    """One large study and 50 small ones, each trial with its own measurement of three metrics, every 20th failed."""
    space = NasBench201()
    names = {STUDY: trials, **{f"small-{i}": 200 for i in range(50)}}
    with SqlStore(path) as store:
        for name, count in names.items():
            chosen = config(name, count)
            goals = tuple(chosen.objective)
            store.create_study(StudyRecord(name, chosen.to_json(), space.key, "digits", chosen.strategy, goals))
    engine = connect(path, create=True)
    rng = np.random.default_rng(0)
    with engine.begin() as c:
        c.execute(s.context.insert(), {"id": 1, "digest": "c", "content": "{}"})
        c.execute(s.provenance.insert(), {"id": 1, "digest": "p", "content": "{}"})
        cells = [space.at(i) for i in range(space.size)]
        first = {cell.fingerprint: i + 1 for i, cell in reversed(list(enumerate(cells)))}
        rows = [(i, space.key, f, cells[i - 1].text) for f, i in first.items()]
        insert_many(c, s.architecture, ("id", "space", "fingerprint", "text"), rows)
        start = 1
        for study_id, count in enumerate(names.values(), start=1):
            for low in range(0, count, CHUNK):
                high = min(low + CHUNK, count)
                _insert(c, rng, study_id, low, high, start + low, [(first[x.fingerprint], x.text) for x in cells])
            start += count
        c.execute(s.study.update().values(state="completed"))
    engine.dispose()


def _insert(c: Any, rng: np.random.Generator, study: int, low: int, high: int, id_: int, cells: list[Any]) -> None:
    n = high - low
    chosen = rng.integers(0, len(cells), n)
    progress = 1 - np.exp(-np.arange(low, high) / 200_000)
    accuracy = np.clip(0.55 + 0.3 * progress + rng.normal(0, 0.05, n), 0, 0.999).tolist()
    params = np.exp(rng.normal(13, 0.8, n)).round().tolist()
    seconds = rng.gamma(4.0, 15.0, n).tolist()
    ok = [number % 20 != 7 for number in range(low, high)]
    measured, metrics, trials, parents = [], [], [], []
    for i, number in enumerate(range(low, high)):
        key, (architecture, text) = id_ + i, cells[chosen[i]]
        asked, finished = 1.7e9 + number * 0.5, 1.7e9 + number * 0.5 + seconds[i]
        why = "sampled" if number < 100 else "mutated"
        shared = (architecture, 12, 1.0, None, number)
        if ok[i]:
            measured.append((key, f"{key:032x}", *shared[:1], 1, 1, *shared[1:], seconds[i], 0.0, 2**28, finished))
            named = (
                ("val_accuracy", "search", accuracy[i]),
                ("params", "none", params[i]),
                ("flops", "none", 40 * params[i]),
            )
            metrics += [(key, *one) for one in named]
        state = ("completed", None, None, None) if ok[i] else ("failed", "error", "it did not work", seconds[i])
        goals = (-accuracy[i], params[i]) if ok[i] else (None, None)
        trials.append(
            (
                *(key, study, number, architecture, text, *shared[1:], why, number, f"{key:032x}", state[0], number),
                *(False, None, 1, key if ok[i] else None, *state[1:], *goals, asked, finished),
            )
        )
        if number >= 100:
            parents.append((study, number, 0, number - 1 - int(chosen[i]) % 50))
    what = ("epochs", "data_fraction", "resolution", "seed")
    columns = ("id", "identity", "architecture_id", "context_id", "provenance_id", *what, "seconds", "gpu_seconds")
    insert_many(c, s.measurement, (*columns, "peak_memory_bytes", "created_at"), measured)
    insert_many(c, s.metric, ("measurement_id", "name", "role", "value"), metrics)
    columns = ("id", "study_id", "number", "architecture_id", "proposed", *what, "why", "asked_after", "identity")
    failure = ("failure_reason", "failure_message", "failure_seconds")
    columns += ("state", "told", "saved", "repeat_of", "attempts", "measurement_id", *failure)
    insert_many(c, s.trial, (*columns, "objective_0", "objective_1", "asked_at", "finished_at"), trials)
    insert_many(c, s.lineage, ("study_id", "number", "position", "parent"), parents)


@contextmanager
def serving(path: Path) -> Iterator[httpx.Client]:
    """A client of a dashboard over a store."""
    with Database(path) as database, bind("127.0.0.1", 0) as listening:
        settings = replace(Settings(), port=listening.getsockname()[1])
        server = make_server(database, Installed(trust_spaces=False), settings, settings.access())
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        with httpx.Client(base_url=f"http://127.0.0.1:{settings.port}", timeout=600) as client:
            while not server.started:
                time.sleep(0.01)
            yield client
        server.should_exit = True
        thread.join()


@contextmanager
def started(path: Path) -> Iterator[tuple[str, Callable[[], float]]]:
    """The address of a dashboard in a process of its own that has just begun, and its CPU seconds so far."""
    command = [sys.executable, "-c", "from nasplat.cli import main; main()", "dashboard", "--port", "0"]
    with subprocess.Popen([*command, "--store", path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        address = process.stdout.readline().split()[1]
        httpx.get(f"{address}icon.svg").raise_for_status()

        def spent() -> float:
            used = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
            return sum(map(int, used)) / os.sysconf("SC_CLK_TCK")

        yield address, spent
        process.send_signal(signal.SIGINT)


def show(what: str, value: str, target: str = "") -> None:
    """A line of the table."""
    print(f"| {what} | {value} | {target} |", flush=True)


def seconds_of(work: Callable[[], Any]) -> float:
    """How long work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure_api(client: httpx.Client, repeats: int) -> None:
    """Cold and warm answers, and their 95th percentile."""

    def ask(path: str, **params: Any) -> httpx.Response:
        response = client.get(path, params={"study": STUDY, **params})
        response.raise_for_status()
        return response

    show("first curve of the study (all its trials are read)", f"{seconds_of(lambda: ask('/api/curve')):.2f} s")
    show(
        "first 100,000 points of two metrics",
        f"{seconds_of(lambda: ask('/api/points', x='params', y='val_accuracy', most=100_000)):.2f} s",
    )
    first = seconds_of(lambda: ask("/api/front", x="min params", y="max val_accuracy"))
    show("first front of two metrics", f"{1000 * first:.0f} ms")
    first = seconds_of(lambda: ask("/api/trials", sort="val_accuracy", descending=True))
    show("first page sorted by a metric", f"{1000 * first:.0f} ms")
    first = seconds_of(lambda: ask("/api/trials", where="val_accuracy > 0.9 and params < 3e5"))
    show("first page with a condition", f"{1000 * first:.0f} ms")
    rng = np.random.default_rng(0)
    trials = ask("/api/trials").json()["total"]
    questions: dict[str, Callable[[], Any]] = {
        "list of studies": lambda: client.get("/api/studies").raise_for_status(),
        "study": lambda: ask("/api/study"),
        "page of 100 trials, anywhere": lambda: ask("/api/trials", offset=int(rng.integers(trials))),
        "page sorted by a metric, anywhere": lambda: ask(
            "/api/trials", sort="val_accuracy", descending=True, offset=int(rng.integers(trials))
        ),
        "front": lambda: ask("/api/front", x="min params", y="max val_accuracy"),
        "best so far": lambda: ask("/api/curve", x="cost"),
        "architecture": lambda: ask("/api/architecture", number=int(rng.integers(trials))),
    }
    for what, question in questions.items():
        question()
        times = sorted(1000 * seconds_of(question) for _ in range(repeats))
        p95 = times[min(len(times) - 1, int(0.95 * len(times)))]
        target = "100 ms" if what.startswith(("list", "page", "front")) else ""
        show(f"API: {what}, median and p95", f"{statistics.median(times):.0f} and {p95:.0f} ms", target)


def measure_first_look(path: Path, chromium: str, trials: int) -> None:
    """The study's page on servers that have just begun to listen: until its counts are there, and its points."""
    from playwright.sync_api import sync_playwright

    facts, points, cpu = [], [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        for _ in range(5):
            with started(path) as (address, spent):
                begun, before = time.perf_counter(), spent()
                page.goto(f"{address}study?study={STUDY}")
                page.wait_for_selector(f".stat:has-text('Trials') dd:has-text('{trials:,}')", timeout=120_000)
                facts.append(time.perf_counter() - begun)
                page.wait_for_selector("[data-points]", timeout=120_000)
                points.append(time.perf_counter() - begun)
                cpu.append(spent() - before)
        browser.close()
    show("study page, server just started: facts, median of 5", f"{statistics.median(facts):.2f} s", "1 s")
    show("study page, server just started: curve and points too", f"{statistics.median(points):.2f} s")
    show("the same, CPU time of the server", f"{statistics.median(cpu):.2f} s")


def measure_pages(client: httpx.Client, chromium: str, trials: int) -> None:
    """From the request to what a visitor waits for, and frames while a drawing is moved."""
    from playwright.sync_api import sync_playwright

    base = str(client.base_url).rstrip("/")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})

        def open_(path: str, ready: str) -> float:
            return seconds_of(lambda: (page.goto(base + path), page.wait_for_selector(ready, timeout=120_000)))

        def usual(path: str, ready: str) -> float:
            return statistics.median(open_(path, ready) for _ in range(5))

        counted = f".stat:has-text('Trials') dd:has-text('{trials:,}')"
        show("study page: facts, median of 5", f"{usual(f'/study?study={STUDY}', counted):.2f} s", "1 s")
        show("study page: curve and points too", f"{usual(f'/study?study={STUDY}', '[data-points]'):.2f} s")
        path = f"/trials?study={STUDY}&sort=val_accuracy&descending=true&offset=5000"
        show("page of trials, opened", f"{1000 * usual(path, 'tbody tr'):.0f} ms")
        turns = []
        for _ in range(10):
            first = page.locator("tbody tr td").first.inner_text()
            start = time.perf_counter()
            page.get_by_role("button", name="Next").click()
            page.wait_for_function("before => document.querySelector('tbody td').innerText !== before", arg=first)
            turns.append(1000 * (time.perf_counter() - start))
        show("page of trials, turned", f"{statistics.median(turns):.0f} ms", "200 ms")
        open_(f"/pareto?study={STUDY}&x=params&y=val_accuracy&where=number<53", "[data-points]")
        show("50 points dragged, frames a second: what the machine has to give", f"{frames_while_dragged(page):.0f}")
        for most in (100_000, 200_000):
            if trials > 1.1 * most:  # some have failed
                scatter(page, base, most)
        browser.close()


def scatter(page: Any, base: str, most: int) -> None:
    """Time to a drawing of so many points, and frames a second while it is dragged."""
    page.route("**/api/points**", lambda route: route.continue_(url=f"{route.request.url}&most={most}"))
    path = f"{base}/pareto?study={STUDY}&x=params&y=val_accuracy&color=flops&xlog=1"
    ready = f"() => Number(document.querySelector('[data-points]')?.dataset.points) === {most}"

    def draw() -> None:
        page.goto(path)
        page.wait_for_function(ready, timeout=120_000)
        page.wait_for_function("() => Number(document.querySelectorAll('.plot canvas')[1].dataset.frames) > 0")

    draw()
    show(
        f"{most:,} points drawn by software",
        f"{statistics.median(seconds_of(draw) for _ in range(3)):.2f} s",
        "2 s" if most == 100_000 else "",
    )
    show(
        f"{most:,} points dragged, frames a second",
        f"{frames_while_dragged(page):.0f}",
        "30" if most == 100_000 else "",
    )
    page.unroute("**/api/points**")


def frames_while_dragged(page: Any) -> float:
    """Frames a second of the plot on a page over three seconds of dragging."""
    return page.evaluate(
        """async () => {
            const canvas = document.querySelectorAll('.plot canvas')[1];
            const box = canvas.getBoundingClientRect();
            const at = (kind, x) => canvas.dispatchEvent(new PointerEvent(kind, {
                pointerId: 1, bubbles: true, clientX: box.left + x, clientY: box.top + 200}));
            canvas.setPointerCapture = () => {};
            at('pointerdown', 400);
            const before = Number(canvas.dataset.frames);
            const start = performance.now();
            for (let i = 0; performance.now() - start < 3000; i++) {
                at('pointermove', 400 + 200 * Math.sin(i / 15));
                await new Promise(requestAnimationFrame);
            }
            const rate = (Number(canvas.dataset.frames) - before) / ((performance.now() - start) / 1000);
            at('pointerup', 400);
            return rate;
        }"""
    )


def measure_live(folder: Path, chromium: str) -> None:
    """From a trial's commit to its point on a page that is open."""
    from playwright.sync_api import sync_playwright

    path = folder / "live.db"
    for left in folder.glob("live.db*"):
        left.unlink()
    with SqlStore(path) as store, serving(path) as client, sync_playwright() as playwright:
        store.create_study(stored.record("live"))
        first = stored.completed(0)
        store.write("live", [first], stored.contexts([first]))
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        page = browser.new_page()
        page.goto(f"{str(client.base_url).rstrip('/')}/study?study=live")
        page.wait_for_selector("[data-points='1']")
        times = []
        for number in range(1, 11):
            time.sleep(0.37)
            trial = stored.completed(number)
            store.write("live", [trial], stored.contexts([trial]))
            times.append(seconds_of(lambda n=number: page.wait_for_selector(f"[data-points='{n + 1}']")))
        browser.close()
    show(
        "a new trial on an open page, median and longest of 10",
        f"{statistics.median(times):.2f} and {max(times):.2f} s",
        "2 s",
    )


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path("dashboard-benchmark"))
    parser.add_argument("--repeats", type=int, default=100)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / f"{options.trials}.db"
    if not path.exists():
        making = path.with_suffix(".making.db")
        for left in options.folder.glob(f"{making.name}*"):
            left.unlink()
        print(f"made the store in {seconds_of(lambda: make_store(making, options.trials)):.0f} s")
        for part in options.folder.glob(f"{making.name}*"):
            part.rename(part.with_name(part.name.replace(".making", "")))
    print(f"{options.trials:,} trials, {path.stat().st_size / 2**20:,.0f} MiB, load {os.getloadavg()[0]:.1f}\n")
    print("| what | measured | target |\n|---|---|---|")
    chromium = os.environ.get("NASPLAT_CHROMIUM") or shutil.which("chromium")
    if chromium:
        measure_first_look(path, chromium, options.trials)
    with serving(path) as client:
        measure_api(client, options.repeats)
        if chromium:
            measure_pages(client, chromium, options.trials)
    if chromium:
        measure_live(options.folder, chromium)


if __name__ == "__main__":
    main()
