"""SQL from a web page: one SELECT over the documented views, and nothing else.

``nasplat.storage.free_sql`` serves a user who has the database file or the password anyway. A page may be open to more
people than that, so here only the views of ``docs/store.md`` can be read: on SQLite its authorizer sees to it; on
PostgreSQL the role does, and a role that could do more than read is refused.
"""

import sqlite3
import time
from contextlib import closing
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeAlias

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from nasplat.errors import InvalidInputError
from nasplat.storage.browsing.database import Database
from nasplat.storage.engine import READ_ONLY
from nasplat.storage.schema import metadata
from nasplat.storage.views import VIEWS

Answer: TypeAlias = tuple[list[str], list[list[Any]], bool]
"""Names of the columns, the rows, and whether there are more rows."""

_Access: TypeAlias = tuple[str | None, str | None, str | None]
_LONGEST = 20_000
"""Characters of a statement."""
_LONGEST_VALUE = 1_000_000
"""Bytes of one value."""
_STEPS_BETWEEN_LOOKS = 50_000
_FUNCTION_NAMES = (
    "abs avg ceil coalesce count cume_dist date datetime dense_rank exp first_value floor format glob group_concat hex "
    "ifnull iif instr json json_array_length json_extract json_type json_valid julianday lag last_value lead length "
    "like ln log log10 log2 lower ltrim max min mod nth_value ntile nullif percent_rank pow power printf quote rank "
    "replace round row_number rtrim sign sqrt strftime string_agg substr substring sum time total trim trunc typeof "
    "unicode unixepoch upper -> ->>"
)
_FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
"""What SQLite may compute: nothing that loads, reads files or tells about the machine."""


def select(database: Database, statement: str, *, limit: int, seconds: float) -> Answer:
    """The first rows of one SELECT over the documented views.

    Args:
        database: Where they are.
        statement: In the database's own dialect.
        limit: Most rows.
        seconds: After which it is stopped.

    Raises:
        InvalidInputError: If it is refused, or takes too long.
    """
    if len(statement) > _LONGEST:
        raise InvalidInputError(f"the statement has {len(statement)} characters, expected {_LONGEST} at most")
    if "\0" in statement:
        raise InvalidInputError("the store refuses the statement: it holds a NUL")
    if database.engine.dialect.name == "sqlite":
        names, rows = _select_sqlite(Path(str(database.engine.url.database)), statement, limit + 1, seconds)
    elif database.engine.dialect.name == "postgresql":
        names, rows = _select_postgresql(database.engine, statement, limit + 1, seconds)
    else:
        raise InvalidInputError(f"SQL cannot be kept from writing to {database.engine.dialect.name}")
    return names, [list(map(_plain, row)) for row in rows[:limit]], len(rows) > limit


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | None) else str(value)


def _select_sqlite(path: Path, statement: str, limit: int, seconds: float) -> tuple[list[str], list[Any]]:
    path = path.resolve()
    known, deadline = _read_by_views(path), time.monotonic() + seconds
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=seconds)) as connection:
            connection.isolation_level = None
            connection.execute("PRAGMA query_only=ON").close()
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
            connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            connection.set_authorizer(partial(_authorize, known))
            connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS_BETWEEN_LOOKS)
            cursor = connection.execute(statement)
            if cursor.description is None:
                raise InvalidInputError("the statement gives no rows; write one SELECT")
            return [column[0] for column in cursor.description], cursor.fetchmany(limit)
    except (sqlite3.Error, sqlite3.Warning, UnicodeEncodeError) as error:
        raise _refused(str(error), seconds) from error


@cache
def _read_by_views(path: Path) -> frozenset[_Access]:
    """What the views themselves read: the columns of tables, by the view that reads them.

    A statement can name a common table expression like a view, and SQLite then says that the view reads. So no name is
    trusted: what no view reads, nobody reads.
    """
    seen: set[_Access] = set()

    def note(action: int, first: str | None, second: str | None, schema: str | None, through: str | None) -> int:
        if action == sqlite3.SQLITE_READ:
            seen.add((first, second, through))
        return sqlite3.SQLITE_OK

    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        connection.set_authorizer(note)
        for view in VIEWS:
            for wanted in ("*", "COUNT(*)"):
                connection.execute(f"EXPLAIN SELECT {wanted} FROM {view}").close()  # prepared, not run
    return frozenset(seen)


def _authorize(
    known: frozenset[_Access],
    action: int,
    first: str | None,
    second: str | None,
    schema: str | None,
    through: str | None,
) -> int:
    """Whether a statement may do something; ``through`` is the innermost view or expression that it is done for."""
    if action == sqlite3.SQLITE_FUNCTION:
        allowed = (second or "").lower() in _FUNCTIONS
    elif action == sqlite3.SQLITE_READ:
        # Rows of an expression's own result are counted without a column.
        of_expression = second == "" and first not in metadata.tables and not (first or "").startswith("sqlite_")
        allowed = first in VIEWS or (first, second, through) in known or of_expression
    else:
        allowed = action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE)
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _select_postgresql(engine: Engine, statement: str, limit: int, seconds: float) -> tuple[list[str], list[Any]]:
    try:
        with engine.execution_options(**READ_ONLY).connect() as connection:
            _check_role(connection)
            connection.execute(text("SET TRANSACTION READ ONLY"))
            connection.execute(text(f"SET LOCAL statement_timeout = {max(1, round(1000 * seconds))}"))
            raw: Any = connection.connection.driver_connection
            # A cursor of the server: all that its grammar has room for is one SELECT.
            with raw.cursor("nasplat_box") as cursor:
                try:
                    cursor.execute(statement)
                    rows = cursor.fetchmany(limit)
                    return [column.name for column in cursor.description], rows
                except engine.dialect.loaded_dbapi.Error as error:
                    raise _refused(str(error), seconds) from error
    except DBAPIError as error:
        raise _refused(str(error.orig), seconds) from error


def _check_role(connection: Connection) -> None:
    mightier = connection.execute(
        text(
            "SELECT r.rolsuper OR has_table_privilege('trial', 'INSERT, UPDATE, DELETE')"
            " OR pg_has_role('pg_read_server_files', 'MEMBER') OR pg_has_role('pg_execute_server_program', 'MEMBER')"
            " FROM pg_roles r WHERE r.rolname = current_user"
        )
    ).scalar_one()
    if mightier:
        raise InvalidInputError(
            "SQL from the page needs a role that can do nothing but read the views, and this one can write: "
            "start the dashboard with one (docs/dashboard.md shows how to make it)"
        )


def _refused(said: str, seconds: float) -> InvalidInputError:
    reason = (said.strip().splitlines() or ["without a reason"])[0]
    if reason == "interrupted" or "statement timeout" in reason:
        return InvalidInputError(f"the statement took longer than {seconds:g} seconds; narrow it down")
    if "not authorized" in reason or "prohibited" in reason:
        reason += f"; what can be read: {', '.join(VIEWS)}"
    return InvalidInputError(f"the store refuses the statement: {reason}")
