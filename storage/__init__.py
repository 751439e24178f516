"""The SQL store: tables, migrations, documented views, queries. All that speaks SQL lives here."""

from nasplat.storage.queries import Query, Reader
from nasplat.storage.sql_store import SqlStore

__all__ = ["Query", "Reader", "SqlStore"]
