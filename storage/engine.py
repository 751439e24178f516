"""Opening a database: a SQLite file in WAL mode, any other URL as it is; the schema is checked at the door."""

import sqlite3
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, false, inspect, make_url, text, update
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.pool import StaticPool

from nasplat.errors import InvalidInputError, StoreError
from nasplat.storage.schema import HEAD, VERSION_TABLE, study

READ_ONLY = {"nasplat_read_only": True}
"""Execution options of a connection that only reads: on SQLite it takes no write lock."""

_BUSY_SECONDS = 60
"""How long to wait for another writer."""
_PRAGMAS = (
    # Each commit reaches the disk, not only the operating system: trials are committed in groups, so the flush
    # of a few milliseconds costs little, and a power cut loses no more than a kill.
    "synchronous=FULL",
    "foreign_keys=ON",
    # 64 MiB: the identities of a million measurements are looked up in random order.
    "cache_size=-65536",
    # Commits gather in the log for 40 MiB instead of 4 before they move to the file: in a store with a million
    # trials each group touches pages all over the indices, and those of several groups are then written once.
    "wal_autocheckpoint=10000",
)

_POSTGRESQL = {
    # A server that is gone without a word, a pulled cable say, is noticed within a minute instead of two hours.
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""Settings of libpq where the URL does not have its own."""


def store_url(store: str | Path) -> str:
    """A database URL from what a user gives: a URL, or the path of a SQLite file."""
    return str(store) if "://" in str(store) else f"sqlite:///{store}"


def open_engine(store: str | Path, *, create: bool) -> Engine:
    """An engine on a database whose schema is this code's.

    Args:
        store: URL, or path of a SQLite file.
        create: Whether the database will be written, and filled with the tables where it has none.

    Raises:
        InvalidInputError: If the URL is malformed or its driver is not installed.
        StoreError: If the database cannot be reached or written, is absent, or has another schema.
    """
    engine = connect(store, create=create)
    try:
        _check_schema(engine, create=create)
        if create:
            # What cannot be written is refused before anything is spent on a study.
            with engine.begin() as connection:
                connection.execute(update(study).where(false()).values(state=study.c.state))
    except DBAPIError as error:
        engine.dispose()
        raise StoreError(f"cannot open the store {shown(engine.url)}: {reason(error)}") from error
    except StoreError:
        engine.dispose()
        raise
    return engine


def connect(store: str | Path | URL, *, create: bool) -> Engine:
    """An engine, not yet connected; of SQLite paths it is known that they can be there."""
    url = store if isinstance(store, URL) else _parse(store_url(store))
    options: dict[str, Any] = {"hide_parameters": True}
    if url.get_backend_name() == "sqlite":
        if url.database in (None, "", ":memory:"):
            options["poolclass"] = StaticPool
        else:
            _check_path(Path(str(url.database)), create=create)
    elif url.drivername == "postgresql+psycopg":
        options["connect_args"] = {k: v for k, v in _POSTGRESQL.items() if k not in url.query}
    try:
        engine = create_engine(url, **options)
    except (ArgumentError, NoSuchModuleError) as error:
        raise InvalidInputError(f"not a database URL: {str(error).splitlines()[0]}") from error
    except ModuleNotFoundError as error:
        raise InvalidInputError(
            f"the driver of {url.drivername} is not installed ({error.name}); "
            "PostgreSQL: pip install 'nasplat[postgresql]'"
        ) from error
    if engine.dialect.name == "sqlite":
        _set_up_sqlite(engine)
    return engine


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # What was given may hold a password, so neither it nor the cause, which may quote it, is shown.
        raise InvalidInputError(
            "not a database URL: expected dialect://user:password@host:port/database, or the path of a SQLite file"
        ) from None
    if parsed.drivername == "postgresql" and find_spec("psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    return parsed


def _check_path(path: Path, *, create: bool) -> None:
    if path.is_dir():
        raise StoreError(f"the store {path} is a folder; give the path of a file in it")
    if not create and not path.exists():
        raise StoreError(f"there is no store at {path}; run a search first or give another --store")
    if not path.parent.is_dir():
        raise StoreError(f"the store {path} cannot be made: there is no folder {path.parent}; make it first")


def upgrade_store(store: str | Path) -> str:
    """Bring an existing store to this code's schema, and say what was done.

    Raises:
        InvalidInputError: If the URL is malformed.
        StoreError: If there is no store, it is newer than this code, or it cannot be written.
    """
    engine = connect(store, create=False)
    try:
        current = _revision_of(engine)
        if current == HEAD:
            return f"the store already has schema {HEAD}"
        if current is None:
            raise _no_store()
        _refuse_newer(current)
        _upgrade(engine)
    except DBAPIError as error:
        raise StoreError(f"cannot upgrade the store {shown(engine.url)}: {reason(error)}") from error
    finally:
        engine.dispose()
    return f"upgraded the store from schema {current} to {HEAD}"


def shown(url: URL) -> str:
    """A URL for people: without its password and settings, which may hold one; of SQLite only the path."""
    if url.get_backend_name() == "sqlite":
        return url.database or "in memory"
    return url.set(query={}).render_as_string(hide_password=True)


def reason(error: DBAPIError) -> str:
    """The first line of what the database said, and what may help."""
    message = (str(error.orig).strip().splitlines() or [type(error.orig).__name__])[0]
    if "readonly" in message or "unable to open" in message:
        return f"{message}; make the file and its folder writable or give another --store"
    if "not a database" in message:
        return f"{message}; give another --store"
    if message in ("database is locked", "database table is locked"):
        return (
            f"{message}: SQLite has one writer at a time, and another process has held it for {_BUSY_SECONDS} seconds; "
            "several drivers want PostgreSQL (--store postgresql://user@host/database)"
        )
    return message


def _set_up_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def connected(dbapi: sqlite3.Connection, record: object) -> None:
        # SQLAlchemy begins transactions itself (below): Python's driver would begin them without the write lock,
        # and two writers that both started as readers would fail instead of waiting for each other.
        dbapi.isolation_level = None
        for pragma in (f"busy_timeout={1000 * _BUSY_SECONDS}", *_PRAGMAS):
            dbapi.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if not connection.get_execution_options().get("nasplat_read_only"):
            connection.exec_driver_sql("BEGIN IMMEDIATE")


def revision(connection: Connection) -> str | None:
    """The schema's revision of a database, or None where there are no tables of nasplat."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()
    return None if found is None else str(found)


def _revision_of(engine: Engine) -> str | None:
    with engine.connect().execution_options(**READ_ONLY) as connection:
        return revision(connection)


def _check_schema(engine: Engine, *, create: bool) -> None:
    current = _revision_of(engine)
    if current == HEAD:
        return
    if current is not None:
        _refuse_newer(current)
        raise StoreError(f"the store has the older schema {current}; back it up and run: nasplat db upgrade")
    if not create:
        raise _no_store()
    if engine.dialect.name == "sqlite":
        _use_wal(engine)
    _upgrade(engine)


def _use_wal(engine: Engine) -> None:
    """Set the journal's mode, which stays with the file: once, and never where someone only looks."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            with engine.connect().execution_options(**READ_ONLY) as connection:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
                return
        except OperationalError as error:
            # SQLite does not wait here for another process that is doing the same.
            if "locked" not in str(error.orig) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _no_store() -> StoreError:
    return StoreError("the database holds no nasplat store; run a search with it first")


def _refuse_newer(current: str) -> None:
    from nasplat.storage.migrate import known_revisions

    if current not in known_revisions():
        raise StoreError(
            f"the store has schema {current}, which is newer than this nasplat's {HEAD}; update nasplat to open it"
        )


def _upgrade(engine: Engine) -> None:
    # Alembic takes as long to import as a store takes to open, and is needed once in a store's life.
    from nasplat.storage.migrate import upgrade

    upgrade(engine)
