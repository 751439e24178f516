"""Work on a database that is done again where it can be: the server is away for a while, or two writers met."""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar, final

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError

from nasplat.errors import StoreError
from nasplat.storage.engine import READ_ONLY, reason, shown

T = TypeVar("T")

PATIENCE = 300.0
"""Seconds for which a server that has gone away is waited for."""

_log = logging.getLogger("nasplat")

_FIRST_DELAY, _LONGEST_DELAY = 0.1, 5.0
_CONFLICTS = 10
"""Starts of a transaction that meets rows or locks of another one."""

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_AWAY = ("08", "57P01", "57P02", "57P03", "57P05", "53300")
"""Connection exceptions; shut down, crashed, starting up, idle for too long; too many connections."""
_MEETING = ("40001", "40P01")
"""Serialization failure, deadlock."""


@final
class Retrying:
    """Does work again until it succeeds or there is no hope; all of it may be done twice.

    Args:
        engine: Of the database.
        patience: Seconds for which a server that has gone away is waited for.
    """

    def __init__(self, engine: Engine, patience: float) -> None:
        self._postgresql = engine.dialect.name == "postgresql"
        self._shown = shown(engine.url)
        self._patience = patience

    def run(self, work: Callable[[], T]) -> T:
        """What the work returns.

        Raises:
            StoreError: If the server stays away.
            DBAPIError: For anything else that the database says.
        """
        met = 0
        while True:
            try:
                return self._when_back(work)
            except DBAPIError as error:
                met += 1
                if met == _CONFLICTS or not _is_conflict(error):
                    raise
                time.sleep(random.uniform(0.0, 0.01 * met))

    def _when_back(self, work: Callable[[], T]) -> T:
        """Do the work, waiting for the server where it is away."""
        try:
            return work()
        except DBAPIError as error:
            if not self._is_away(error):
                raise
        # The connection may have died in a restart that is over by now, so once more before anyone hears of it.
        lost_at, delay, warned = time.monotonic(), _FIRST_DELAY, False
        while True:
            try:
                result = work()
            except DBAPIError as error:
                if not self._is_away(error):
                    raise
                if time.monotonic() + delay > lost_at + self._patience:
                    raise StoreError(
                        f"the store {self._shown} could not be reached for {self._patience:g} seconds: "
                        f"{reason(error)}; what was written is safe, and nasplat resume goes on when it is back"
                    ) from error
                if not warned:
                    text = "the store %s cannot be reached: %s; trying again for up to %g seconds"
                    _log.warning(text, self._shown, reason(error), self._patience)
                    warned = True
                time.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(2 * delay, _LONGEST_DELAY)
                continue
            if warned:
                _log.warning("the store %s is back after %.1f seconds", self._shown, time.monotonic() - lost_at)
            return result

    def _is_away(self, error: DBAPIError) -> bool:
        if not self._postgresql or error.connection_invalidated:
            return error.connection_invalidated
        state = _sqlstate(error)
        # What happens before there is a connection comes without a state: refused, timed out, starting up.
        return isinstance(error, OperationalError | InterfaceError) and (not state or state.startswith(_AWAY))


@final
class Reading:
    """A connection that only reads, made anew where the server has dropped it.

    Args:
        engine: Of the database.
        patience: Seconds for which a server that has gone away is waited for.

    Attributes:
        retrying: Does the work again.
    """

    def __init__(self, engine: Engine, patience: float) -> None:
        # Each read is one statement, so it needs no transaction around it.
        self._engine = engine.execution_options(**READ_ONLY, isolation_level="AUTOCOMMIT")
        self._connection: Connection | None = None
        self._closed = False
        self.retrying = Retrying(engine, patience)

    def close(self) -> None:
        """Release the connection."""
        self._closed = True
        if self._connection is not None:
            self._connection.close()

    def run(self, work: Callable[[Connection], T]) -> T:
        """What the work returns.

        Raises:
            StoreError: If the store is closed, or the server stays away.
            DBAPIError: For anything else that the database says.
        """
        self.check_open()
        return self.retrying.run(lambda: work(self._connected()))

    def check_open(self) -> None:
        """Refuse a store that is closed."""
        if self._closed:
            raise StoreError("the store is closed")

    def _connected(self) -> Connection:
        if self._connection is not None and self._connection.invalidated:
            self._connection.close()
            self._connection = None
        if self._connection is None:
            self._connection = self._engine.connect()
        return self._connection


def _is_conflict(error: DBAPIError) -> bool:
    """Whether another writer was in the way, who is done by now."""
    return isinstance(error, IntegrityError) or _sqlstate(error) in _MEETING


def _sqlstate(error: DBAPIError) -> str:
    # psycopg's name, and that of others.
    return getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None) or ""
