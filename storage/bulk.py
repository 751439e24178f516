"""Statements that run for every trial of a search, handed to the driver as they are.

Taking each row's parameters through SQLAlchemy would take longer than SQLite takes to insert or to find it.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, TypeAlias, final

from sqlalchemy import Column, ColumnElement, Connection, Dialect, Row, Select, Table, UniqueConstraint, select
from sqlalchemy.dialects import postgresql

Values: TypeAlias = tuple[Any, ...]

CHUNK = 500
"""Keys in one ``IN`` list; SQLite allows 32,766 parameters, older ones 999."""


@final
class Lookup:
    """A query with one parameter, compiled once."""

    def __init__(self, query: Select[Any], dialect: Dialect) -> None:
        compiled = query.compile(dialect=dialect)
        self._text = str(compiled)
        (self._name,) = compiled.params
        self._positional = dialect.positional

    def rows(self, c: Connection, value: Any) -> Sequence[Row[Any]]:
        """All rows for a value of the parameter, with the database's own types."""
        return c.exec_driver_sql(self._text, (value,) if self._positional else {self._name: value}).all()


def insert_many(c: Connection, table: Table, columns: Sequence[str], rows: list[Values]) -> None:
    """Insert rows, each a value a column in the order of ``columns``."""
    if rows:
        c.exec_driver_sql(_insert(c.dialect, table, tuple(columns)), rows)


def insert_new(
    c: Connection, key: Column[str], columns: Sequence[str], rows: list[Values], *conditions: ColumnElement[bool]
) -> dict[str, int]:
    """Insert rows whose keys were not there, and return the id by key of those that nobody else has inserted since.

    Args:
        c: Connection with an open transaction.
        key: A column that is unique where the conditions hold.
        columns: Of the rows.
        rows: Each a value a column.
        conditions: Which the rows satisfy.
    """
    table = key.table
    if c.dialect.name != "postgresql":
        # A writer of SQLite is alone; any other database says that a row is there, and the transaction starts again.
        insert_many(c, table, columns, rows)
        position = columns.index(key.name)
        return ids_by(c, key, [row[position] for row in rows], *conditions)
    (unique,) = (u for u in table.constraints if isinstance(u, UniqueConstraint) and key.name in u.columns)
    statement = postgresql.insert(table).on_conflict_do_nothing(constraint=unique).returning(key, table.c.id)
    return {k: i for k, i in c.execute(statement, [dict(zip(columns, row, strict=True)) for row in rows])}


def update_many(c: Connection, table: Table, columns: Sequence[str], keys: Sequence[str], rows: list[Values]) -> None:
    """Update rows, each a value a column and then a value a key."""
    if rows:
        c.exec_driver_sql(_update(c.dialect, table, tuple(columns), tuple(keys)), rows)


def select_in(c: Connection, query: Select[Any], key: ColumnElement[Any], values: Sequence[Any]) -> list[Any]:
    """The rows of a query whose key is one of the values."""
    found: list[Any] = []
    for start in range(0, len(values), CHUNK):
        found += c.execute(query.where(key.in_(values[start : start + CHUNK]))).all()
    return found


def ids_by(c: Connection, key: Column[str], values: Sequence[str], *conditions: ColumnElement[bool]) -> dict[str, int]:
    """The ids of the rows whose key is one of the values, by key."""
    query = select(key, key.table.c.id).where(*conditions)
    return {k: i for k, i in select_in(c, query, key, values)}


@cache
def _insert(dialect: Dialect, table: Table, columns: tuple[str, ...]) -> str:
    quote = dialect.identifier_preparer.quote
    marks = ", ".join([_mark(dialect)] * len(columns))
    return f"INSERT INTO {quote(table.name)} ({', '.join(map(quote, columns))}) VALUES ({marks})"


@cache
def _update(dialect: Dialect, table: Table, columns: tuple[str, ...], keys: tuple[str, ...]) -> str:
    quote, mark = dialect.identifier_preparer.quote, _mark(dialect)
    changes = ", ".join(f"{quote(name)} = {mark}" for name in columns)
    condition = " AND ".join(f"{quote(name)} = {mark}" for name in keys)
    return f"UPDATE {quote(table.name)} SET {changes} WHERE {condition}"


def _mark(dialect: Dialect) -> str:
    # Drivers that name their parameters take them by position as well.
    return "?" if dialect.paramstyle == "qmark" else "%s"
