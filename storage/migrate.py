"""Alembic from within: no configuration file, a version table of our own name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from nasplat.errors import StoreError
from nasplat.storage.views import create_views, drop_views

_SCRIPTS = Path(__file__).parent / "migrations"


def configuration() -> Config:
    """Alembic's settings."""
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.set_main_option("path_separator", "os")
    return config


def known_revisions() -> set[str]:
    """All revisions up to this code's."""
    return {script.revision for script in ScriptDirectory.from_config(configuration()).walk_revisions()}


def upgrade(engine: Engine) -> None:
    """Bring a database to this code's schema in one transaction, and make its views anew."""
    config = configuration()
    with engine.connect() as connection, _foreign_keys_off(connection), connection.begin():
        if connection.dialect.name == "postgresql":
            # Two processes that start at once on an empty database: the second waits, then finds it done.
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7293041)")
        config.attributes["connection"] = connection
        # Neither database changes a table that a view looks at.
        drop_views(connection)
        command.upgrade(config, "head")
        create_views(connection)
        if connection.dialect.name == "sqlite":
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
            if broken is not None:
                raise StoreError(f"rows of {broken[0]} would lose what they refer to, so nothing was upgraded")


@contextmanager
def _foreign_keys_off(connection: Connection) -> Iterator[None]:
    """SQLite changes a table by making it anew: rows that refer to it must not mind while it is gone."""
    if connection.dialect.name != "sqlite":
        yield
        return
    # Past SQLAlchemy, which would begin a transaction, in which the setting has no effect.
    driver: Any = connection.connection.driver_connection
    driver.execute("PRAGMA foreign_keys=OFF").close()
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys=ON").close()
