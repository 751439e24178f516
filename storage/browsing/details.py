"""Single rows and what hangs on them: trials, architectures, failures, events, what runs."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from sqlalchemy import Select, func, select

from nasplat.errors import InvalidInputError
from nasplat.lease import LEASE_SECONDS
from nasplat.storage import schema as s
from nasplat.storage.browsing.database import Database, StudyInfo
from nasplat.storage.bulk import CHUNK
from nasplat.storage.columns import TRIALS
from nasplat.storage.leases import clock

Row: TypeAlias = dict[str, Any]


def trials(database: Database, study: StudyInfo, numbers: Sequence[int]) -> list[Row]:
    """Trials with their metrics as columns, in the order of ``numbers``; failed ones have ``seconds`` as well."""
    t = s.trial.c
    found: dict[int, Row] = {}
    for start in range(0, len(numbers), CHUNK):
        chosen = (t.study_id == study.id, t.number.in_(numbers[start : start + CHUNK]))
        statement = TRIALS.where(*chosen).add_columns(t.failure_message, t.failure_seconds, t.failure_gpu_seconds)
        for row in database.dicts(statement):
            for cost in ("seconds", "gpu_seconds"):
                failed = row.pop(f"failure_{cost}")
                row[cost] = failed if row[cost] is None else row[cost]
            found[row["number"]] = row
    metrics = _metrics(database, [r["measurement_id"] for r in found.values() if r["measurement_id"] is not None])
    return [{**found[n], **metrics.get(found[n]["measurement_id"], {})} for n in numbers if n in found]


def _metrics(database: Database, measurements: Sequence[int]) -> dict[int, dict[str, float]]:
    out: dict[int, dict[str, float]] = {}
    for start in range(0, len(measurements), CHUNK):
        for m in database.rows(
            select(s.metric).where(s.metric.c.measurement_id.in_(measurements[start : start + CHUNK]))
        ):
            out.setdefault(m.measurement_id, {})[m.name] = m.value
    return out


def metric_names(database: Database, study: StudyInfo, *, also: Sequence[int] = ()) -> list[str]:
    """The metrics of a study, sorted: of all its trials, or of some hundred where there are more, and of ``also``."""
    t, m = s.trial.c, s.metric.c
    newest = database.rows(select(func.max(t.number)).where(t.study_id == study.id))[0][0]
    numbers = {*also, *np.linspace(0, newest or 0, _SAMPLE).astype(int).tolist()}
    chosen = (t.study_id == study.id, t.number.in_(sorted(numbers)))
    names = select(m.name).distinct().join(s.trial, t.measurement_id == m.measurement_id).where(*chosen)
    return sorted(r.name for r in database.rows(names))


_SAMPLE = 300


def trial(database: Database, study: StudyInfo, number: int) -> Row:
    """All about one trial: metrics with their roles, failure, starts, parents and children, artifacts.

    Raises:
        InvalidInputError: If there is no such trial.
    """
    t, artifact = s.trial.c, s.artifact.c
    statement = TRIALS.where(t.study_id == study.id, t.number == number)
    rows = database.dicts(statement.add_columns(t.failure_message, t.failure_traceback, t.failure_seconds))
    if not rows:
        raise InvalidInputError(f"study {study.name!r} has no trial {number}")
    measurement = rows[0]["measurement_id"]
    a = s.attempt.c
    starts = select(*(c for c in a if c.name not in ("study_id", "number"))).where(a.study_id == study.id)
    files = select(artifact.kind, artifact.path).where(artifact.measurement_id == measurement)
    metrics = select(s.metric.c.name, s.metric.c.role, s.metric.c.value).where(s.metric.c.measurement_id == measurement)
    return {
        **rows[0],
        "metrics": database.dicts(metrics.order_by(s.metric.c.name)),
        "starts": database.dicts(starts.where(a.number == number).order_by(a.attempt)),
        "artifacts": {r.kind: r.path for r in database.rows(files)},
        "parents": _relatives(database, study, number, parents=True),
        "children": _relatives(database, study, number, parents=False),
        "provenance": _provenance(database, measurement),
    }


def _provenance(database: Database, measurement: int | None) -> str | None:
    statement = select(s.provenance.c.content).join(s.measurement).where(s.measurement.c.id == measurement)
    found = database.rows(statement)
    return str(found[0][0]) if found else None


def _relatives(database: Database, study: StudyInfo, number: int, *, parents: bool) -> list[Row]:
    line = s.lineage.c
    wanted, given = (line.parent, line.number) if parents else (line.number, line.parent)
    related = select(wanted).where(line.study_id == study.id, given == number)
    numbers = [r[0] for r in database.rows(related.order_by(line.number).limit(_MOST_RELATIVES))]
    # Found one by one: joined, SQLite may read the trials of the whole study first.
    t = s.trial.c
    return database.dicts(_BRIEF.where(t.study_id == study.id, t.number.in_(numbers)).order_by(t.number))


_MOST_RELATIVES = 200
_BRIEF: Select[Any] = select(
    s.trial.c.number, s.trial.c.proposed.label("architecture"), s.trial.c.state, s.trial.c.why, s.trial.c.objective_0
)


def ancestors(database: Database, study: StudyInfo, number: int, *, most: int = 60) -> list[Row]:
    """The line of first parents of a trial, itself first, the nearest ``most``."""
    line: list[Row] = []
    seen: set[int] = set()
    current: int | None = number
    while current is not None and current not in seen and len(line) < most:
        seen.add(current)
        found = database.dicts(_BRIEF.where(s.trial.c.study_id == study.id, s.trial.c.number == current))
        line += found
        parent = select(func.min(s.lineage.c.parent)).where(
            s.lineage.c.study_id == study.id, s.lineage.c.number == current, s.lineage.c.position == 0
        )
        current = database.rows(parent)[0][0]
    return line


def architecture(database: Database, space: str, fingerprint: str) -> Row:
    """An architecture with all its measurements at every fidelity, and the trials that proposed it.

    Raises:
        InvalidInputError: If it is not in the store.
    """
    a, m, t = s.architecture.c, s.measurement.c, s.trial.c
    found = database.dicts(
        select(a.id, a.space, a.fingerprint, a.text).where(a.space == space, a.fingerprint == fingerprint)
    )
    if not found:
        raise InvalidInputError(f"the store has no architecture {fingerprint!r} of space {space!r}")
    key = found[0].pop("id")
    measured = (
        select(m.id, m.epochs, m.data_fraction, m.resolution, m.seed, m.seconds, m.gpu_seconds, m.peak_memory_bytes)
        .where(m.architecture_id == key)
        .order_by(m.epochs, m.id)
        .limit(_MOST_RELATIVES)
    )
    rows = database.dicts(measured)
    metrics = _metrics(database, [r["id"] for r in rows])
    proposed = (
        select(s.study.c.name.label("study"), t.number, t.epochs, t.state, t.why, t.proposed, t.objective_0)
        .join(s.study, s.study.c.id == t.study_id)
        .where(t.architecture_id == key)
        .order_by(t.id)
        .limit(_MOST_RELATIVES)
    )
    return {
        **found[0],
        "measurements": [{**r, "metrics": metrics.get(r["id"], {})} for r in rows],
        "trials": database.dicts(proposed),
    }


def failures(database: Database, study: StudyInfo, numbers: Sequence[int]) -> list[Row]:
    """Failed trials with reason and traceback, the newest first."""
    t = s.trial.c
    columns = (t.number, t.proposed.label("architecture"), t.attempts, t.finished_at, t.failure_seconds)
    why = (t.failure_reason, t.failure_message, t.failure_traceback)
    chosen = select(*columns, *why).where(t.study_id == study.id, t.number.in_(numbers))
    return database.dicts(chosen.order_by(t.number.desc()))


def events(database: Database, study: StudyInfo, *, most: int = 200) -> list[Row]:
    """The latest events of a study, the newest first."""
    e = s.event.c
    statement = select(e.id, e.at, e.kind, e.detail).where(e.study_id == study.id).order_by(e.at.desc()).limit(most)
    return database.dicts(statement)


def drivers(database: Database) -> dict[int, Row]:
    """Who runs studies, by the study's id; ``alive`` is whether the driver's lease holds."""
    d = s.driver.c
    names = ("study_id", "host", "pid", "acquired_at", "heartbeat_at", "expires_at", "status")
    found = database.dicts(select(*(d[name] for name in names)).where(d.expires_at.is_not(None)))
    if not found:
        return {}
    now = database.run(clock)
    return {
        row["study_id"]: {**row, "silent_seconds": now - row["heartbeat_at"], "alive": _is_alive(row, now)}
        for row in found
    }


def _is_alive(driver: Mapping[str, Any], now: float) -> bool:
    return now - float(driver["heartbeat_at"]) < LEASE_SECONDS


def running(database: Database, study: StudyInfo, numbers: Sequence[int]) -> list[Row]:
    """Trials that run, the oldest first, with their fidelity and for how long they have run."""
    t = s.trial.c
    columns = (t.number, t.proposed.label("architecture"), t.epochs, t.data_fraction, t.resolution, t.seed)
    chosen = select(*columns, t.attempts, t.why, t.asked_at).where(t.study_id == study.id, t.number.in_(numbers))
    now = time.time()
    rows = database.dicts(chosen.order_by(t.number))
    return [{**r, "running_seconds": max(0.0, now - r["asked_at"])} for r in rows]
