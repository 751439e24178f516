"""The store over SQLAlchemy."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar, final

from sqlalchemy import Column, Connection, Table, bindparam, insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from nasplat.architecture import Architecture
from nasplat.config import StudyConfig
from nasplat.errors import InvalidInputError, StoreError, unknown_name
from nasplat.fidelity import Fidelity
from nasplat.measurement import Cost, Failure, FailureReason, Measurement, Metric, Role
from nasplat.objective import Objective
from nasplat.space import SearchSpace
from nasplat.storage import schema as s
from nasplat.storage.engine import READ_ONLY, open_engine
from nasplat.store import Store, StudyRecord, StudyState
from nasplat.trial import Proposal, Trial

T = TypeVar("T")

_ATTEMPTS = 5
_CHUNK = 500
"""Keys in one ``IN`` list; SQLite allows 32,766 parameters, older ones 999."""


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
        self.engine = open_engine(store, create=True)
        self._reading = self.engine.connect().execution_options(**READ_ONLY)
        self._study_ids: dict[str, tuple[int, Objective, Fidelity]] = {}
        self._ids: dict[tuple[str, str], int] = {}

    def close(self) -> None:
        """Release the database."""
        self._reading.close()
        self.engine.dispose()

    # Studies -------------------------------------------------------------------------------------------------

    def create_study(self, record: StudyRecord) -> None:
        """Add a study."""
        row = {
            "name": record.name,
            "space": record.space,
            "task": record.task,
            "strategy": record.strategy,
            "goals": list(record.goals),
            "config": dict(record.config),
            "state": str(record.state),
            "parent_id": self._study(record.parent)[0] if record.parent else None,
            "created_at": time.time(),
        }
        try:
            self._transact(lambda c: c.execute(insert(s.study), row), retry_conflicts=False)
        except IntegrityError as error:
            raise InvalidInputError(f"a study named {record.name!r} exists; choose another name") from error

    def study(self, name: str) -> StudyRecord:
        """The study of a name."""
        records = {r.name: r for r in self.studies()}
        if name not in records:
            raise unknown_name("study", name, records)
        return records[name]

    def studies(self) -> list[StudyRecord]:
        """All studies, oldest first."""
        parent = s.study.alias()
        query = (
            select(s.study, parent.c.name.label("parent"))
            .join(parent, s.study.c.parent_id == parent.c.id, isouter=True)
            .order_by(s.study.c.id)
        )
        return [
            StudyRecord(r.name, r.config, r.space, r.task, r.strategy, tuple(r.goals), StudyState(r.state), r.parent)
            for r in self._read(query)
        ]

    def set_state(self, study: str, state: StudyState) -> None:
        """Change where a study stands."""
        self._update_study(study, state=str(state))

    def set_config(self, study: str, config: Mapping[str, Any]) -> None:
        """Replace a study's configuration."""
        self._update_study(study, config=dict(config))

    def add_event(self, study: str, kind: str, detail: Mapping[str, Any]) -> None:
        """Note that something happened."""
        row = {"study_id": self._study(study)[0], "at": time.time(), "kind": kind, "detail": dict(detail)}
        self._transact(lambda c: c.execute(insert(s.event), row))

    def _update_study(self, study: str, **values: Any) -> None:
        statement = update(s.study).where(s.study.c.id == self._study(study)[0]).values(**values)
        self._transact(lambda c: c.execute(statement))

    def _study(self, name: str) -> tuple[int, Objective, Fidelity]:
        if name not in self._study_ids:
            row = next(iter(self._read(select(s.study.c.id, s.study.c.config).where(s.study.c.name == name))), None)
            if row is None:
                raise unknown_name("study", name, (r.name for r in self.studies()))
            config = StudyConfig.from_json(row.config)
            self._study_ids[name] = (row.id, config.parsed_objective(), config.fidelity)
        return self._study_ids[name]

    # Trials --------------------------------------------------------------------------------------------------

    def write(self, study: str, trials: Sequence[Trial], contexts: Mapping[str, str]) -> None:
        """Insert or update trials, in one transaction."""
        self._study(study)
        for start in range(0, len(trials), _CHUNK):
            chunk = trials[start : start + _CHUNK]
            self._transact(lambda c, chunk=chunk: self._write(c, study, chunk, contexts))  # type: ignore[misc]

    def _write(self, c: Connection, study: str, trials: Sequence[Trial], contexts: Mapping[str, str]) -> None:
        study_id, objective, fidelity = self._study(study)
        architectures = self._architecture_ids(c, [t.proposal.architecture for t in trials])
        measurements = self._measurement_ids(c, trials, contexts, architectures)
        rows = []
        for t in trials:
            key = (t.proposal.architecture.space, t.proposal.architecture.fingerprint)
            own = t.proposal.fidelity == fidelity
            row = _trial_row(t, objective if own else None)
            measured = measurements[t.identity] if t.measurement is not None else None
            rows.append(
                {
                    "study_id": study_id,
                    "architecture_id": architectures[key],
                    "measurement_id": measured,
                    **row,
                }
            )
        numbers = [t.number for t in trials]
        known = set(
            c.execute(
                select(s.trial.c.number).where(s.trial.c.study_id == study_id, s.trial.c.number.in_(numbers))
            ).scalars()
        )
        if known:
            changed = [{**r, "b_study": study_id, "b_number": r["number"]} for r in rows if r["number"] in known]
            c.execute(_UPDATE_TRIAL, changed)
        if new := [r for r in rows if r["number"] not in known]:
            c.execute(insert(s.trial), new)
            parents = [
                {"study_id": study_id, "number": t.number, "position": i, "parent": parent}
                for t in trials
                if t.number not in known
                for i, parent in enumerate(t.proposal.parents)
            ]
            if parents:
                c.execute(insert(s.lineage), parents)

    def _architecture_ids(self, c: Connection, subjects: Iterable[Architecture]) -> dict[tuple[str, str], int]:
        rows = {
            (a.space, a.fingerprint): {"space": a.space, "fingerprint": a.fingerprint, "text": a.text} for a in subjects
        }
        ids: dict[tuple[str, str], int] = {}
        for space in {space for space, _ in rows}:
            mine = {fingerprint: row for (sp, fingerprint), row in rows.items() if sp == space}
            condition = s.architecture.c.space == space
            found = _ensure(c, s.architecture, s.architecture.c.fingerprint, mine, condition)[0]
            ids.update({(space, fingerprint): i for fingerprint, i in found.items()})
        return ids

    def _measurement_ids(
        self,
        c: Connection,
        trials: Sequence[Trial],
        contexts: Mapping[str, str],
        architectures: Mapping[tuple[str, str], int],
    ) -> dict[str, int]:
        measured = {t.identity: t for t in trials if t.measurement is not None}
        if not measured:
            return {}
        now = time.time()
        rows = {}
        for identity, t in measured.items():
            assert t.measurement is not None  # selected above
            rows[identity] = {
                "identity": identity,
                "architecture_id": architectures[t.proposal.architecture.space, t.proposal.architecture.fingerprint],
                "context_id": self._content_id(c, s.context, contexts[identity]),
                "provenance_id": self._content_id(c, s.provenance, _json(t.measurement.provenance)),
                **_fidelity_row(t.proposal),
                "seconds": t.measurement.cost.seconds,
                "gpu_seconds": t.measurement.cost.gpu_seconds,
                "peak_memory_bytes": t.measurement.cost.peak_memory_bytes,
                "created_at": now,
            }
        ids, new = _ensure(c, s.measurement, s.measurement.c.identity, rows)
        metrics = [
            {"measurement_id": ids[i], "name": name, "role": str(m.role), "value": m.value}
            for i in new
            for name, m in measured[i].measurement.metrics.items()  # type: ignore[union-attr]
        ]
        artifacts = [
            {"measurement_id": ids[i], "kind": kind, "path": path}
            for i in new
            for kind, path in measured[i].measurement.artifacts.items()  # type: ignore[union-attr]
        ]
        if metrics:
            c.execute(insert(s.metric), metrics)
        if artifacts:
            c.execute(insert(s.artifact), artifacts)
        return ids

    def _content_id(self, c: Connection, table: Table, content: str) -> int:
        key = (table.name, content)
        if key not in self._ids:
            digest = blake2b(content.encode(), digest_size=16).hexdigest()
            ids, _ = _ensure(c, table, table.c.digest, {digest: {"digest": digest, "content": content}})
            self._ids[key] = ids[digest]
        return self._ids[key]

    def trials(self, study: str, space: SearchSpace) -> Iterator[Trial]:
        """The trials of a study in the order of their numbers."""
        study_id = self._study(study)[0]
        parents: dict[int, list[int]] = {}
        lineage = (
            select(s.lineage).where(s.lineage.c.study_id == study_id).order_by(s.lineage.c.number, s.lineage.c.position)
        )
        for row in self._read(lineage):
            parents.setdefault(row.number, []).append(row.parent)
        last = -1
        while True:
            page = self._read(
                select(
                    s.trial,
                    s.measurement.c.seconds,
                    s.measurement.c.gpu_seconds,
                    s.measurement.c.peak_memory_bytes,
                )
                .join(s.measurement, s.trial.c.measurement_id == s.measurement.c.id, isouter=True)
                .where(s.trial.c.study_id == study_id, s.trial.c.number > last)
                .order_by(s.trial.c.number)
                .limit(_CHUNK)
            )
            if not page:
                return
            last = page[-1].number
            details = self._details([r.measurement_id for r in page if r.measurement_id is not None])
            for row in page:
                yield _trial(row, space.parse(row.proposed), tuple(parents.get(row.number, ())), details)

    def _details(self, ids: Sequence[int]) -> dict[int, tuple[dict[str, Metric], dict[str, str]]]:
        out: dict[int, tuple[dict[str, Metric], dict[str, str]]] = {i: ({}, {}) for i in ids}
        for row in self._read(select(s.metric).where(s.metric.c.measurement_id.in_(ids))):
            out[row.measurement_id][0][row.name] = Metric(row.value, Role(row.role))
        for row in self._read(select(s.artifact).where(s.artifact.c.measurement_id.in_(ids))):
            out[row.measurement_id][1][row.kind] = row.path
        return out

    def find(self, identity: str) -> Measurement | None:
        """The measurement of an identity, whoever paid for it."""
        rows = self._read(_FIND, {"identity": identity})
        if not rows:
            return None
        metrics, artifacts = self._details([rows[0].id])[rows[0].id]
        return Measurement(metrics, _cost(rows[0]), artifacts=artifacts)

    # Transactions --------------------------------------------------------------------------------------------

    def _read(self, query: Any, parameters: Mapping[str, Any] | None = None) -> Sequence[Any]:
        try:
            rows = self._reading.execute(query, parameters or {}).all()
            self._reading.commit()
        except OperationalError as error:
            raise StoreError(f"reading the store failed: {error.orig}") from error
        return rows

    def _transact(self, work: Callable[[Connection], T], *, retry_conflicts: bool = True) -> T:
        """Run work in a transaction; again where another process has inserted the same row in the meantime."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self.engine.begin() as connection:
                    return work(connection)
            except IntegrityError:
                self._ids.clear()
                if not retry_conflicts or attempt == _ATTEMPTS:
                    raise
            except DBAPIError as error:
                raise StoreError(f"writing to the store failed: {error.orig}") from error
        raise AssertionError  # the last attempt returns or raises


def _ensure(
    c: Connection,
    table: Table,
    key: Column[str],
    rows: Mapping[str, Mapping[str, Any]],
    condition: Any = None,
) -> tuple[dict[str, int], list[str]]:
    """Insert the rows whose key is not there yet; the id of every key, and which keys are new."""
    query = select(key, table.c.id).where(key.in_(list(rows)))
    if condition is not None:
        query = query.where(condition)
    ids: dict[str, int] = {k: i for k, i in c.execute(query)}
    new = [k for k in rows if k not in ids]
    if new:
        c.execute(insert(table), [dict(rows[k]) for k in new])
        ids.update({k: i for k, i in c.execute(query)})
    return ids, new


def _fidelity_row(proposal: Proposal) -> dict[str, Any]:
    fidelity = proposal.fidelity
    return {
        "epochs": fidelity.epochs,
        "data_fraction": fidelity.data_fraction,
        "resolution": fidelity.resolution,
        "seed": proposal.seed,
    }


def _trial_row(t: Trial, objective: Objective | None) -> dict[str, Any]:
    losses: tuple[float, ...] = ()
    if objective is not None and t.measurement is not None and objective.feasible(t.measurement):
        losses = objective.losses(t.measurement)
    failure = t.failure
    return {
        "number": t.number,
        "proposed": t.proposal.architecture.text,
        **_fidelity_row(t.proposal),
        "why": t.proposal.why,
        "asked_after": t.asked_after,
        "identity": t.identity,
        "state": str(t.state),
        "told": t.told,
        "saved": t.saved,
        "repeat_of": t.repeat_of,
        "attempts": t.attempts,
        "failure_reason": str(failure.reason) if failure else None,
        "failure_message": failure.message if failure else None,
        "failure_traceback": failure.traceback if failure else None,
        "failure_seconds": failure.seconds if failure else None,
        **{f"objective_{i}": losses[i] if i < len(losses) else None for i in range(4)},
        "asked_at": t.asked_at,
        "finished_at": t.finished_at,
    }


def _trial(
    row: Any, architecture: Architecture, parents: tuple[int, ...], details: Mapping[int, tuple[Any, Any]]
) -> Trial:
    outcome: Measurement | Failure | None = None
    if row.measurement_id is not None:
        metrics, artifacts = details[row.measurement_id]
        outcome = Measurement(metrics, _cost(row), artifacts=artifacts)
    elif row.failure_reason is not None:
        reason = FailureReason(row.failure_reason)
        outcome = Failure(reason, row.failure_message, row.failure_traceback, row.failure_seconds)
    fidelity = Fidelity(row.epochs, row.data_fraction, row.resolution)
    return Trial(
        number=row.number,
        proposal=Proposal(architecture, fidelity, row.seed, parents, row.why),
        asked_after=row.asked_after,
        identity=row.identity,
        outcome=outcome,
        told=row.told,
        saved=row.saved,
        repeat_of=row.repeat_of,
        attempts=row.attempts,
        asked_at=row.asked_at,
        finished_at=row.finished_at,
    )


def _cost(row: Any) -> Cost:
    return Cost(row.seconds, row.gpu_seconds, int(row.peak_memory_bytes))


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(dict(content), sort_keys=True)


_FIND = select(
    s.measurement.c.id,
    s.measurement.c.seconds,
    s.measurement.c.gpu_seconds,
    s.measurement.c.peak_memory_bytes,
).where(s.measurement.c.identity == bindparam("identity"))
_UPDATE_TRIAL = (
    update(s.trial)
    .where(s.trial.c.study_id == bindparam("b_study"), s.trial.c.number == bindparam("b_number"))
    .values(
        {
            name: bindparam(name)
            for name in (
                *("state", "told", "saved", "repeat_of", "attempts", "measurement_id", "finished_at"),
                *("failure_reason", "failure_message", "failure_traceback", "failure_seconds"),
                *(f"objective_{i}" for i in range(4)),
            )
        }
    )
)
