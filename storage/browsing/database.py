"""Connections that can only read, for many threads at a time."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar, final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, Select, event, func, select, text
from sqlalchemy.exc import DBAPIError

from nasplat.errors import InvalidInputError, StoreError, unknown_name
from nasplat.objective import Goal
from nasplat.storage import schema as s
from nasplat.storage.columns import TRIAL_COLUMNS
from nasplat.storage.engine import READ_ONLY, open_engine, reason, shown
from nasplat.storage.filters import parse_filter
from nasplat.storage.retrying import Retrying

T = TypeVar("T")


@final
@dataclass(frozen=True, slots=True)
class StudyInfo:
    """What a study is.

    Attributes:
        id: In the database.
        name: Of the study.
        space: Key of its search space.
        task: Name of its task.
        strategy: Name of its strategy.
        goals: What it looks for.
        config: All its settings, as JSON data.
        state: Where it stands.
        parent: Name of the study that it retrains or tunes, or None.
        created_at: Seconds since 1970.
    """

    id: int
    name: str
    space: str
    task: str
    strategy: str
    goals: tuple[Goal, ...]
    config: Mapping[str, Any]
    state: str
    parent: str | None
    created_at: float


@final
class Database:
    """Read-only access to a store; may be shared between threads.

    Each connection is told to refuse writes by the database itself, whatever is asked of it.

    Args:
        store: A database URL, or the path of a SQLite file.
        patience: Seconds for which a query waits for a server that has gone away.

    Attributes:
        engine: Gives out the connections.
        shown: The store as people may see it, without its password.

    Raises:
        InvalidInputError: If the URL is malformed.
        StoreError: If there is no store, or it has another schema.
    """

    def __init__(self, store: str | Path, *, patience: float = 10.0) -> None:
        self.engine = open_engine(store, create=False)
        self.shown = shown(self.engine.url)
        self._retrying = Retrying(self.engine, patience)
        self._stopped = False
        self._busy: dict[int, Any] = {}
        event.listen(self.engine, "connect", self._forbid_writing)
        self.engine.dispose()  # the connection that looked at the schema can still write
        self._reading = self.engine.execution_options(**READ_ONLY, isolation_level="AUTOCOMMIT")

    def _forbid_writing(self, dbapi: Any, record: object) -> None:
        if self.engine.dialect.name == "sqlite":
            dbapi.execute("PRAGMA query_only=ON").close()
        elif self.engine.dialect.name == "postgresql":
            cursor = dbapi.cursor()
            cursor.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
            cursor.close()
            dbapi.commit()

    def close(self) -> None:
        """Release the connections."""
        self.engine.dispose()

    def stop(self) -> None:
        """Have what is being read, and whatever is asked from now on, end with a StoreError; from any thread."""
        self._stopped = True
        for connection in list(self._busy.values()):
            if self.engine.dialect.name == "sqlite":
                connection.interrupt()
            else:
                connection.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def run(self, work: Callable[[Connection], T]) -> T:
        """What work on a connection returns; it may be done twice.

        Raises:
            StoreError: If the database cannot be reached or read.
        """

        def once() -> T:
            with self._reading.connect() as connection:
                key = threading.get_ident()
                self._busy[key] = connection.connection.dbapi_connection
                try:
                    if self._stopped:
                        raise StoreError("the store is not read any more: the program that reads it ends")
                    return work(connection)
                finally:
                    self._busy.pop(key, None)

        try:
            return self._retrying.run(once)
        except (OverflowError, UnicodeEncodeError) as error:
            raise InvalidInputError(f"no store holds what was asked for: {error}") from error
        except DBAPIError as error:
            raise StoreError(f"reading the store failed: {reason(error)}") from error
        except self.engine.dialect.loaded_dbapi.Error as error:
            raise StoreError(f"reading the store failed: {error}") from error

    def rows(self, statement: Select[Any]) -> Sequence[Any]:
        """The rows of a statement."""
        return self.run(lambda c: c.execute(statement).all())

    def dicts(self, statement: Select[Any]) -> list[dict[str, Any]]:
        """The rows of a statement as dictionaries."""
        return [dict(r._mapping) for r in self.rows(statement)]

    def records(self, statement: Select[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        """The rows of a statement as an array of records, ``(N,)``: for many rows of numbers and nulls."""

        def read(connection: Connection) -> NDArray[Any]:
            # The driver's own rows: those of SQLAlchemy would take a third of the time.
            cursor: Any = connection.execute(statement).cursor
            return np.fromiter(cursor, dtype)

        return self.run(read)

    def changes(self) -> Callable[[], bool]:
        """A function that says whether somebody may have written since it was last called.

        It keeps a connection of its own, and must be called from one thread at a time.
        """
        if self.engine.dialect.name != "sqlite":
            return lambda: True
        seen: list[int] = []
        connection = self._reading.connect()

        def changed() -> bool:
            version = int(connection.execute(text("PRAGMA data_version")).scalar_one())
            news = seen != [version]
            seen[:] = [version]
            return news

        return changed

    # Studies and names -------------------------------------------------------------------------------------------

    def studies(self) -> list[StudyInfo]:
        """All studies, the newest first."""
        return [_info(r) for r in self.rows(_STUDIES.order_by(s.study.c.id.desc()))]

    def study(self, name: str) -> StudyInfo:
        """The study of a name.

        Raises:
            InvalidInputError: If there is none, with the nearest name.
        """
        found = self.rows(_STUDIES.where(s.study.c.name == name))
        if not found:
            raise unknown_name("study", name, [r[0] for r in self.rows(select(s.study.c.name))])
        return _info(found[0])

    def metrics(self) -> list[str]:
        """Names of all metrics of the store, sorted."""
        # One seek a name through the index instead of a scan of all metrics.
        names: list[str] = []
        while True:
            query = select(func.min(s.metric.c.name))
            if names:
                query = query.where(s.metric.c.name > names[-1])
            name = self.rows(query)[0][0]
            if name is None:
                return names
            names.append(name)

    def condition(self, where: str) -> ColumnElement[bool]:
        """A condition on trials, such as ``val_accuracy > 0.9 and params < 1e5``, as SQL with bound values.

        Raises:
            InvalidInputError: If it cannot be read, or names what is not there.
        """
        return parse_filter(where, self._resolve)

    def _resolve(self, name: str) -> ColumnElement[Any]:
        if name in TRIAL_COLUMNS:
            return TRIAL_COLUMNS[name]
        metrics = self.metrics()
        if name not in metrics:
            raise unknown_name("metric or column", name, [*TRIAL_COLUMNS, *metrics])
        metric = s.metric.alias()
        measured = (metric.c.measurement_id == s.trial.c.measurement_id, metric.c.name == name)
        return select(metric.c.value).where(*measured).correlate(s.trial).scalar_subquery()


_PARENT = s.study.alias()
_STUDIES = select(s.study, _PARENT.c.name.label("parent")).join(
    _PARENT, s.study.c.parent_id == _PARENT.c.id, isouter=True
)


def _info(r: Any) -> StudyInfo:
    goals = tuple(map(Goal.parse, r.goals))
    return StudyInfo(r.id, r.name, r.space, r.task, r.strategy, goals, r.config, r.state, r.parent, float(r.created_at))
