"""Opening a database: SQLite in WAL mode, any other URL as it is; the schema's revision is checked at the door."""

import sqlite3
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError
from sqlalchemy.pool import StaticPool

from nasplat.errors import InvalidInputError, StoreError
from nasplat.storage.schema import HEAD, VERSION_TABLE

READ_ONLY = {"nasplat_read_only": True}
"""Execution options of a connection that only reads: on SQLite it takes no write lock."""


def store_url(store: str | Path) -> str:
    """A database URL from what a user gives: a URL, or the path of a SQLite file."""
    return str(store) if "://" in str(store) else f"sqlite:///{store}"


def open_engine(store: str | Path, *, create: bool) -> Engine:
    """An engine on a database whose schema is this code's.

    Args:
        store: URL, or path of a SQLite file.
        create: Whether an empty or absent database is filled with the tables.

    Raises:
        InvalidInputError: If the URL is malformed or its driver is not installed.
        StoreError: If the database cannot be reached or written, is absent, or has another schema.
    """
    engine = _connect(store, create=create)
    try:
        _check_schema(engine, create=create)
    except OperationalError as error:
        shown = engine.url.render_as_string(hide_password=True)
        raise StoreError(f"cannot open the store {shown}: {_reason(error)}") from error
    return engine


def _connect(store: str | Path, *, create: bool) -> Engine:
    url = store_url(store)
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "postgresql" and parsed.drivername == "postgresql" and find_spec("psycopg"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        options: dict[str, Any] = {"hide_parameters": True}
        if parsed.get_backend_name() == "sqlite":
            path = parsed.database
            if path in (None, "", ":memory:"):
                options["poolclass"] = StaticPool
            elif not create and not Path(path or "").exists():
                raise StoreError(f"there is no store at {path}; run a search first or give another --store")
        engine = create_engine(parsed, **options)
    except (ArgumentError, NoSuchModuleError) as error:
        raise InvalidInputError(f"not a database URL: {error}") from error
    except ModuleNotFoundError as error:
        raise InvalidInputError(
            f"the driver of {url.partition(':')[0]} is not installed ({error.name}); "
            "PostgreSQL: pip install 'nasplat[postgresql]'"
        ) from error
    if engine.dialect.name == "sqlite":
        _set_up_sqlite(engine)
    return engine


def upgrade_store(store: str | Path) -> str:
    """Bring an existing store to this code's schema, and say what was done."""
    from nasplat.storage.migrate import upgrade

    engine = _connect(store, create=False)
    with engine.connect().execution_options(**READ_ONLY) as connection:
        current = revision(connection)
    if current == HEAD:
        return f"the store already has schema {HEAD}"
    upgrade(engine)
    return f"upgraded the store from schema {current} to {HEAD}"


def _reason(error: OperationalError) -> str:
    message = str(error.orig).strip().splitlines()[0]
    if "readonly" in message or "unable to open" in message:
        return f"{message}; is the path writable?"
    return message


def _set_up_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def connect(dbapi: sqlite3.Connection, record: object) -> None:
        # SQLAlchemy begins transactions itself (below): Python's driver would begin them without the write lock,
        # and two writers that both started as readers would fail instead of waiting for each other.
        dbapi.isolation_level = None
        for pragma in ("busy_timeout=60000", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            dbapi.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if not connection.get_execution_options().get("nasplat_read_only"):
            connection.exec_driver_sql("BEGIN IMMEDIATE")


def revision(connection: Connection) -> str | None:
    """The schema's revision of a database, or None where there are no tables of nasplat."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return str(connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar_one())


def _check_schema(engine: Engine, *, create: bool) -> None:
    from nasplat.storage.migrate import known_revisions, upgrade

    with engine.connect().execution_options(**READ_ONLY) as connection:
        current = revision(connection)
    if current == HEAD:
        return
    if current is None:
        if not create:
            raise StoreError("the database holds no nasplat store; run a search with it first")
        upgrade(engine)
    elif current in known_revisions():
        raise StoreError(f"the store has the older schema {current}; back it up and run: nasplat db upgrade")
    else:
        raise StoreError(
            f"the store has schema {current}, which is newer than this nasplat's {HEAD}; update nasplat to open it"
        )
