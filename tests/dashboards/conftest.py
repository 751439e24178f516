"""A filled store, and a server over it that listens on a port of its own."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from nasplat.cli.dashboard import Installed
from nasplat.dashboards.server import Settings
from nasplat.dashboards.serving import bind, make_server
from nasplat.storage.browsing import Database
from tests.dashboards.store import fill


@dataclass(frozen=True)
class Filled:
    """A store with finished studies, and the table that they looked up."""

    url: str
    table: Path


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    """Searches over a table; nobody writes to it afterwards."""
    folder = tmp_path_factory.mktemp("dashboard")
    url = f"sqlite:///{folder}/store.db"
    fill(url, folder)
    return Filled(url, folder / "table.csv")


@contextmanager
def served(url: str, settings: Settings, *, patience: float = 10.0) -> Iterator[httpx.Client]:
    """A client of a dashboard that serves a store for the time of the block."""
    with Database(url, patience=patience) as database, bind(settings.host, 0) as listening:
        settings = replace(settings, port=listening.getsockname()[1])
        server = make_server(database, Installed(trust_spaces=False), settings, settings.access())
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{settings.port}", timeout=60) as client:
                wait_for(lambda: server.started)
                yield client
        finally:
            server.should_exit = True
            thread.join()


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("it did not come true")
        time.sleep(0.02)


@pytest.fixture(scope="session")
def client(filled: Filled) -> Iterator[httpx.Client]:
    """A client of a dashboard over the filled store."""
    with served(filled.url, Settings(sql=True)) as client:
        yield client
