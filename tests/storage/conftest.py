"""Databases that tests write to."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from nasplat.storage import Reader
from nasplat.study import Study
from tests.storage.postgresql import PostgresServer, find_programs
from tests.storage.studies import run_studies, write_table

_NOBODY = 65534


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresServer]:
    """A throw-away PostgreSQL server on this machine."""
    if find_programs() is None:
        pytest.skip("needs a PostgreSQL server")
    with PostgresServer() as server:
        yield server


@pytest.fixture
def postgresql_url(postgresql_server: PostgresServer) -> Iterator[str]:
    """The URL of an empty PostgreSQL database."""
    with postgresql_server.database() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    return str(request.getfixturevalue("postgresql_url"))


@dataclass(frozen=True)
class Searched:
    """A store with finished studies, and the studies as they were in memory."""

    url: str
    studies: dict[str, Study]


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table in CSV form."""
    path = tmp_path_factory.mktemp("table") / "table.csv"
    write_table(path)
    return path


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def searched(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, table: Path
) -> Iterator[Searched]:
    """Real studies over a table, in a database of each kind; nobody writes to it."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            url = f"sqlite:///{tmp_path_factory.mktemp('searched')}/store.db"
        else:
            url = stack.enter_context(request.getfixturevalue("postgresql_server").database())
        yield Searched(url, run_studies(url, table))


@pytest.fixture
def reader(searched: Searched) -> Iterator[Reader]:
    """Reads the finished studies."""
    with Reader(searched.url) as reader:
        yield reader


@pytest.fixture
def unprivileged() -> Iterator[Callable[[], Path]]:
    """Makes a folder; until the test ends this process is an ordinary user, whom permissions bind."""
    root = os.geteuid() == 0
    # Root's pytest folders are closed to others.
    folder = Path(tempfile.mkdtemp(prefix="nasplat-store-"))

    def drop() -> Path:
        if root:
            os.chown(folder, _NOBODY, _NOBODY)
            os.seteuid(_NOBODY)
        return folder

    yield drop
    if root:
        os.seteuid(0)
    folder.chmod(0o700)
    shutil.rmtree(folder)
