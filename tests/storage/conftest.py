"""Databases that tests write to."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from nasplat.storage import Reader
from nasplat.study import Study
from tests.storage.studies import run_studies, write_table

_POSTGRES = Path("/usr/lib/postgresql")
_NOBODY = 65534


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL, without a database, of a throw-away PostgreSQL server on this machine."""
    pytest.importorskip("psycopg")
    installed = sorted(_POSTGRES.glob("*/bin/initdb"))
    if not installed:
        pytest.skip(f"needs a PostgreSQL server in {_POSTGRES}")
    bin_ = installed[-1].parent
    # The server refuses to run as root, and its user cannot look into pytest's own folders.
    as_user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="nasplat-pg-"))
    if as_user:
        shutil.chown(folder, "nobody", "nogroup")
    data, port = folder / "data", _free_port()

    def call(*command: str) -> None:
        done = subprocess.run([*as_user, *command], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.fail(f"{command[0]} failed: {done.stdout}{done.stderr}")

    call(str(bin_ / "initdb"), "-D", str(data), "-U", "nasplat", "--auth=trust", "--no-sync", "--encoding=UTF8")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    call(str(bin_ / "pg_ctl"), "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield f"postgresql://nasplat@127.0.0.1:{port}"
    finally:
        call(str(bin_ / "pg_ctl"), "-D", str(data), "-w", "-m", "immediate", "stop")
        shutil.rmtree(folder)


@contextmanager
def postgresql_database(server: str) -> Iterator[str]:
    """The URL of a new database that is dropped afterwards."""
    import psycopg

    name = f"test_{uuid4().hex}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        yield f"{server}/{name}"
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def postgresql_url(postgresql_server: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL database."""
    with postgresql_database(postgresql_server) as url:
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
            url = stack.enter_context(postgresql_database(request.getfixturevalue("postgresql_server")))
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
