"""SQL that a user wrote: one SELECT that cannot write, reach other files or run on for ever."""

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias

from sqlalchemy import URL, Engine, text

from nasplat.errors import InvalidInputError

Row: TypeAlias = dict[str, Any]

_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_FORBIDDEN_FUNCTIONS = {"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer"}
_LONGEST_VALUE = 10_000_000
"""Bytes of one value or row: a function that makes text would take all memory within one step."""
_STEPS_BETWEEN_LOOKS = 100_000
_NO_SELECT = "the statement gives no rows; --sql takes one SELECT"


def select(engine: Engine, statement: str, *, limit: int, seconds: float) -> list[Row]:
    """The first rows of one SELECT.

    Args:
        engine: Of the database.
        statement: In the database's own dialect.
        limit: Most rows.
        seconds: After which it is stopped.

    Raises:
        InvalidInputError: If the database refuses the statement, or it takes too long.
        DBAPIError: If the server cannot be reached.
    """
    if "\0" in statement:
        raise InvalidInputError("the store refuses the statement: it holds a NUL")
    try:
        if engine.dialect.name == "sqlite":
            names, values = _select_sqlite(engine.url, statement, limit, seconds)
        elif (engine.dialect.name, engine.dialect.driver) == ("postgresql", "psycopg"):
            names, values = _select_postgresql(engine, statement, limit, seconds)
        else:
            raise InvalidInputError(
                f"SQL of your own cannot be kept from writing to {engine.dialect.name}: use SQLite or PostgreSQL"
            )
    except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(_refusal(error, seconds)) from error
    names = _distinct(names)
    return [dict(zip(names, row, strict=True)) for row in values]


def _select_sqlite(url: URL, statement: str, limit: int, seconds: float) -> tuple[list[str], Sequence[Any]]:
    path = Path(str(url.database)).resolve()
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=seconds)) as connection:
        _lock_down(connection, seconds)
        cursor = connection.execute(statement)
        if cursor.description is None:
            raise InvalidInputError(_NO_SELECT)
        return [column[0] for column in cursor.description], cursor.fetchmany(limit)


def _lock_down(connection: sqlite3.Connection, seconds: float) -> None:
    """Reading tables is all that is left: a file opened read-only would still allow ATTACH and PRAGMA."""
    deadline = time.monotonic() + seconds

    def authorize(action: int, first: str | None, second: str | None, *rest: str | None) -> int:
        harmless = action in _ALLOWED and second not in _FORBIDDEN_FUNCTIONS
        return sqlite3.SQLITE_OK if harmless else sqlite3.SQLITE_DENY

    connection.isolation_level = None
    connection.execute("PRAGMA query_only=ON").close()
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
    connection.set_authorizer(authorize)
    connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS_BETWEEN_LOOKS)


def _select_postgresql(engine: Engine, statement: str, limit: int, seconds: float) -> tuple[list[str], Sequence[Any]]:
    with engine.connect() as connection:
        connection.execute(text("SET TRANSACTION READ ONLY"))
        connection.execute(text(f"SET LOCAL statement_timeout = {max(1, round(1000 * seconds))}"))
        cursor: Any = connection.connection.cursor()
        try:
            # A prepared statement is a single one: without this, "COMMIT; DROP ..." would leave the transaction.
            cursor.execute(statement, prepare=True)
            if cursor.description is None:
                raise InvalidInputError(_NO_SELECT)
            return [column[0] for column in cursor.description], cursor.fetchmany(limit)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidInputError(_refusal(error, seconds)) from error


def _refusal(error: Exception, seconds: float) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if reason == "interrupted" or "statement timeout" in reason:
        return f"the statement took longer than {seconds:g} seconds; narrow it down"
    return f"the store refuses the statement: {reason}"


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, later ones of the same name numbered: a row is a dictionary."""
    out: list[str] = []
    for name in names:
        number, new = 2, name
        while new in out:
            new, number = f"{name}_{number}", number + 1
        out.append(new)
    return out
