"""The store over SQLAlchemy."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, final

from sqlalchemy import Connection, Select, insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from nasplat.config import StudyConfig
from nasplat.errors import InvalidInputError, StoreError, unknown_name
from nasplat.measurement import Measurement
from nasplat.space import SearchSpace
from nasplat.storage import rows
from nasplat.storage import schema as s
from nasplat.storage.bulk import CHUNK
from nasplat.storage.engine import READ_ONLY, open_engine
from nasplat.storage.rows import Details, Finder, StudyKey
from nasplat.storage.writing import Batch, TextIds
from nasplat.store import Store, StudyRecord, StudyState
from nasplat.trial import Trial

T = TypeVar("T")

_ATTEMPTS = 10
"""Of a transaction that meets rows which another process has inserted in the meantime."""
_LONGEST_NAME = 200


@final
class SqlStore(Store):
    """Studies, trials and measurements in a SQL database.

    Args:
        store: A database URL, or the path of a SQLite file; tables are made where there are none. ``sqlite://`` is a
            database in memory.

    Raises:
        InvalidInputError: If the URL is malformed.
        StoreError: If the database cannot be opened, written, or has another schema.
    """

    def __init__(self, store: str | Path = "nasplat.db") -> None:
        self._engine = open_engine(store, create=True)
        # Each read is one statement, so it needs no transaction around it.
        options = {**READ_ONLY, "isolation_level": "AUTOCOMMIT"}
        self._reading = self._engine.connect().execution_options(**options)
        self._finder = Finder(self._engine.dialect)
        self._study_keys: dict[str, StudyKey] = {}
        self._texts: TextIds = {}

    def close(self) -> None:
        """Release the database."""
        self._reading.close()
        self._engine.dispose()

    # Studies -------------------------------------------------------------------------------------------------

    def create_study(self, record: StudyRecord) -> None:
        """Add a study."""
        if not 1 <= len(record.name) <= _LONGEST_NAME:
            raise InvalidInputError(f"a study's name has 1 to {_LONGEST_NAME} characters, got {len(record.name)}")
        row = {
            "name": record.name,
            "space": record.space,
            "task": record.task,
            "strategy": record.strategy,
            "goals": list(record.goals),
            "config": dict(record.config),
            "state": str(record.state),
            "parent_id": self._study(record.parent).id if record.parent is not None else None,
            "created_at": time.time(),
        }
        try:
            self._transact(lambda c: c.execute(insert(s.study), row), retry_conflicts=False)
        except IntegrityError as error:
            raise InvalidInputError(f"a study named {record.name!r} exists; choose another name") from error

    def study(self, name: str) -> StudyRecord:
        """The study of a name."""
        found = self._records(_STUDIES.where(s.study.c.name == name))
        if not found:
            raise self._unknown_study(name)
        return found[0]

    def studies(self) -> list[StudyRecord]:
        """All studies, oldest first."""
        return self._records(_STUDIES)

    def set_state(self, study: str, state: StudyState) -> None:
        """Change where a study stands."""
        self._update_study(study, state=str(state))

    def set_config(self, study: str, config: Mapping[str, Any]) -> None:
        """Replace a study's configuration."""
        self._update_study(study, config=dict(config))
        self._study_keys.pop(study, None)

    def add_event(self, study: str, kind: str, detail: Mapping[str, Any]) -> None:
        """Note that something happened."""
        row = {"study_id": self._study(study).id, "at": time.time(), "kind": kind, "detail": dict(detail)}
        self._transact(lambda c: c.execute(insert(s.event), row))

    def _records(self, query: Select[Any]) -> list[StudyRecord]:
        return [
            StudyRecord(r.name, r.config, r.space, r.task, r.strategy, tuple(r.goals), StudyState(r.state), r.parent)
            for r in self._read(lambda c: c.execute(query).all())
        ]

    def _update_study(self, study: str, **values: Any) -> None:
        statement = update(s.study).where(s.study.c.id == self._study(study).id).values(**values)
        self._transact(lambda c: c.execute(statement))

    def _study(self, name: str) -> StudyKey:
        if name not in self._study_keys:
            query = select(s.study.c.id, s.study.c.config).where(s.study.c.name == name)
            row = self._read(lambda c: c.execute(query).first())
            if row is None:
                raise self._unknown_study(name)
            config = StudyConfig.from_json(row.config)
            self._study_keys[name] = StudyKey(row.id, config.parsed_objective(), config.fidelity)
        return self._study_keys[name]

    def _unknown_study(self, name: str) -> InvalidInputError:
        return unknown_name("study", name, self._read(lambda c: c.execute(select(s.study.c.name)).scalars().all()))

    # Trials --------------------------------------------------------------------------------------------------

    def write(self, study: str, trials: Sequence[Trial], contexts: Mapping[str, str]) -> None:
        """Insert or update trials, in one transaction."""
        key = self._study(study)
        if len({t.number for t in trials}) != len(trials):
            raise InvalidInputError(f"trials of study {study!r} to be written have the same number")
        if missing := [t.number for t in trials if t.measurement is not None and t.identity not in contexts]:
            raise InvalidInputError(f"the measurements of trials {missing} of study {study!r} come without contexts")
        if trials:
            self._transact(lambda c: Batch(c, key, trials, contexts, self._texts).write())

    def trials(self, study: str, space: SearchSpace) -> Iterator[Trial]:
        """The trials of a study in the order of their numbers."""
        study_id = self._study(study).id
        parents: dict[int, list[int]] = {}
        ordered = _LINEAGE.where(s.lineage.c.study_id == study_id)
        for row in self._read(lambda c: c.execute(ordered).all()):
            parents.setdefault(row.number, []).append(row.parent)
        of_study = rows.TRIALS.where(s.trial.c.study_id == study_id).limit(CHUNK)
        page = self._page(of_study)
        while page[0]:
            for row in page[0]:
                yield rows.trial(row, space.parse(row.proposed), tuple(parents.get(row.number, ())), page[1])
            page = self._page(of_study.where(s.trial.c.number > page[0][-1].number))

    def _page(self, query: Select[Any]) -> tuple[Sequence[Any], dict[int, Details]]:
        """Rows of ``rows.TRIALS`` with the details of their measurements."""
        found = self._read(lambda c: c.execute(query).all())
        ids = [r.measurement_id for r in found if r.measurement_id is not None]
        return found, self._read(lambda c: rows.details(c, ids))

    def find(self, identity: str) -> Measurement | None:
        """The measurement of an identity, whoever paid for it."""
        return self._read(lambda c: self._finder.find(c, identity))

    # Transactions --------------------------------------------------------------------------------------------

    def _read(self, work: Callable[[Connection], T]) -> T:
        if self._reading.closed:
            raise StoreError("the store is closed")
        try:
            return work(self._reading)
        except DBAPIError as error:
            raise StoreError(f"reading the store failed: {error.orig}") from error

    def _transact(self, work: Callable[[Connection], T], *, retry_conflicts: bool = True) -> T:
        """Run work in a transaction; again where another process has inserted the same row in the meantime."""
        if self._reading.closed:
            raise StoreError("the store is closed")
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self._engine.begin() as connection:
                    return work(connection)
            except IntegrityError as error:
                if not retry_conflicts:
                    raise
                self._texts.clear()
                if attempt == _ATTEMPTS:
                    raise StoreError(f"writing to the store failed {attempt} times: {error.orig}") from error
            except (DBAPIError, OverflowError, UnicodeEncodeError) as error:
                self._texts.clear()
                raise StoreError(f"writing to the store failed: {getattr(error, 'orig', error)}") from error
            except BaseException:
                self._texts.clear()
                raise
        raise AssertionError  # the last attempt returns or raises


_PARENT = s.study.alias()
_STUDIES = (
    select(s.study, _PARENT.c.name.label("parent"))
    .join(_PARENT, s.study.c.parent_id == _PARENT.c.id, isouter=True)
    .order_by(s.study.c.id)
)
_LINEAGE = select(s.lineage).order_by(s.lineage.c.number, s.lineage.c.position)
