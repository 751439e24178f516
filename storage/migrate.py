"""Alembic from within: no configuration file, a version table of our own name."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from nasplat.storage.views import create_views

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
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            # Two processes that start at once on an empty database: the second waits, then finds it done.
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7293041)")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        create_views(connection)
