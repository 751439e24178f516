"""The store over SQLAlchemy."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar, final

from sqlalchemy import Connection, Engine, Select, func, insert, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from nasplat.attempt import Attempt
from nasplat.config import StudyConfig
from nasplat.errors import InvalidInputError, StoreError, unknown_name
from nasplat.measurement import Measurement
from nasplat.space import SearchSpace
from nasplat.storage import leases, rows
from nasplat.storage import schema as s
from nasplat.storage.bulk import CHUNK
from nasplat.storage.engine import connect, open_engine, reason
from nasplat.storage.retrying import PATIENCE, Reading
from nasplat.storage.rows import Details, Finder, StudyKey
from nasplat.storage.writing import Batch, Measurements, TextIds, write_attempts
from nasplat.store import Holder, Store, StudyRecord, StudyState
from nasplat.trial import Trial

T = TypeVar("T")

_LONGEST_NAME = 200


@final
class SqlStore(Store):
    """Studies, trials and measurements in a SQL database.

    Args:
        store: A database URL, or the path of a SQLite file; tables are made where there are none. ``sqlite://`` is a
            database in memory. Or an engine on a database that has them, which becomes the store's own.
        patience: Seconds for which every call but this one waits for a server that has gone away.

    Raises:
        InvalidInputError: If the URL is malformed.
        StoreError: If the database cannot be opened, written, or has another schema.
    """

    def __init__(self, store: str | Path | Engine = "nasplat.db", *, patience: float = PATIENCE) -> None:
        self._engine = store if isinstance(store, Engine) else open_engine(store, create=True)
        self._patience = patience
        self._reading = Reading(self._engine, patience)
        self._finder = Finder(self._engine.dialect)
        self._study_keys: dict[str, StudyKey] = {}
        self._texts: TextIds = {}
        self._claims: dict[int, set[str]] = {}
        self._last_event_at = 0.0

    def close(self) -> None:
        """Release the database."""
        self._reading.close()
        self._engine.dispose()

    def another(self) -> "SqlStore | None":
        """A store of the same database for another thread."""
        if isinstance(self._engine.pool, StaticPool):
            return None
        return SqlStore(connect(self._engine.url, create=True), patience=self._patience)

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

        same = select(s.study.c.created_at).where(s.study.c.name == record.name)

        def create(c: Connection) -> None:
            created_at = c.execute(same).scalar()
            if created_at is None:
                c.execute(insert(s.study), row)
            elif created_at != row["created_at"]:  # else it is this one, and the answer was lost
                raise InvalidInputError(f"a study named {record.name!r} exists; choose another name")

        self._transact(create)

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
        # No two of a store at the same time: this is how one is known that was added though the answer was lost.
        at = self._last_event_at = max(time.time(), math.nextafter(self._last_event_at, math.inf))
        e, study_id = s.event.c, self._study(study).id
        same = select(e.id).where(e.study_id == study_id, e.at == at, e.kind == kind)

        def add(c: Connection) -> None:
            if c.execute(same).first() is None:
                c.execute(insert(s.event), {"study_id": study_id, "at": at, "kind": kind, "detail": dict(detail)})

        self._transact(add)

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
            self._study_keys[name] = StudyKey(row.id, name, config.parsed_objective(), config.fidelity)
        return self._study_keys[name]

    def _unknown_study(self, name: str) -> InvalidInputError:
        return unknown_name("study", name, self._read(lambda c: c.execute(select(s.study.c.name)).scalars().all()))

    # Trials --------------------------------------------------------------------------------------------------

    def write(
        self,
        study: str,
        trials: Sequence[Trial],
        contexts: Mapping[str, str],
        *,
        token: int | None = None,
        attempts: Sequence[Attempt] = (),
    ) -> None:
        """Insert or update trials, in one transaction."""
        key = self._study(study)
        if len({t.number for t in trials}) != len(trials):
            raise InvalidInputError(f"trials of study {study!r} to be written have the same number")
        _check_contexts(study, trials, contexts)
        if not trials and not attempts:
            return
        mine = self._claims.get(key.id)
        # A store that has made no claims, as with cheap trials, does not look for any.
        claims = mine & {t.identity for t in trials if t.outcome is not None} if mine else set()

        def write(c: Connection) -> None:
            if token is not None:
                leases.check(c, key, token)
            if trials:
                Batch(c, key, trials, contexts, self._texts).write()
            if attempts:
                write_attempts(c, key, attempts)
            if claims:
                leases.end_claims(c, key, sorted(claims))

        self._transact(write)
        if mine:
            mine -= claims

    def keep(self, trials: Sequence[Trial], contexts: Mapping[str, str]) -> int:
        """Keep the measurements of trials without the trials."""
        measured = [t for t in trials if t.measurement is not None]
        _check_contexts(None, measured, contexts)
        if not measured:
            return 0

        def keep(c: Connection) -> int:
            _, new = Measurements(c, measured, contexts, self._texts).identify(measured)
            return len(new)

        return self._transact(keep)

    def tally(self, study: str) -> tuple[int, int]:
        """How many trials a study has, and how many of them were told."""
        t = s.trial.c
        query = select(func.count(), func.count(t.told)).where(t.study_id == self._study(study).id)
        counted, told = self._read(lambda c: c.execute(query).one())
        return int(counted), int(told)

    # Leases and claims ---------------------------------------------------------------------------------------

    def acquire(self, study: str, owner: Mapping[str, Any], seconds: float, *, over: int | None = None) -> int | Holder:
        """Take a study's lease and return its token, or say who holds it."""
        key = self._study(study)
        return self._transact(lambda c: leases.acquire(c, key, owner, seconds, over))

    def renew(self, study: str, token: int, seconds: float, status: Mapping[str, Any]) -> None:
        """Make a lease hold for so many seconds from now on."""
        key = self._study(study)
        self._transact(lambda c: leases.renew(c, key, token, seconds, status))

    def release(self, study: str, token: int) -> None:
        """Give a lease and its claims back."""
        key = self._study(study)
        self._transact(lambda c: leases.release(c, key, token))
        self._claims.pop(key.id, None)

    def claim(self, study: str, token: int, identity: str) -> bool:
        """Say that this study is going to make a measurement."""
        key = self._study(study)
        granted = self._transact(lambda c: leases.claim(c, key, token, identity))
        if granted:
            self._claims.setdefault(key.id, set()).add(identity)
        return granted

    # Reading -------------------------------------------------------------------------------------------------

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
        try:
            return self._reading.run(work)
        except DBAPIError as error:
            raise StoreError(f"reading the store failed: {reason(error)}") from error

    def _transact(self, work: Callable[[Connection], T]) -> T:
        """Run work in a transaction, which may be done again: where the server went away or others were in the way."""
        self._reading.check_open()

        def once() -> T:
            with ExitStack() as undo:
                undo.callback(self._texts.clear)  # what it had inserted is not there any more
                with self._engine.begin() as connection:
                    done = work(connection)
                undo.pop_all()
            return done

        try:
            return self._reading.retrying.run(once)
        except (DBAPIError, OverflowError, UnicodeEncodeError) as error:
            said = reason(error) if isinstance(error, DBAPIError) else error
            raise StoreError(f"writing to the store failed: {said}") from error


def _check_contexts(study: str | None, trials: Sequence[Trial], contexts: Mapping[str, str]) -> None:
    if missing := [t.number for t in trials if t.measurement is not None and t.identity not in contexts]:
        of = "" if study is None else f" of study {study!r}"
        raise InvalidInputError(f"the measurements of trials {missing}{of} come without contexts")


_PARENT = s.study.alias()
_STUDIES = (
    select(s.study, _PARENT.c.name.label("parent"))
    .join(_PARENT, s.study.c.parent_id == _PARENT.c.id, isouter=True)
    .order_by(s.study.c.id)
)
_LINEAGE = select(s.lineage).order_by(s.lineage.c.number, s.lineage.c.position)
