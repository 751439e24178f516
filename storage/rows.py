"""Trials as rows, and back."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, final

from sqlalchemy import BindParameter, Connection, Dialect, bindparam, select

from nasplat.architecture import Architecture
from nasplat.attempt import Attempt
from nasplat.fidelity import Fidelity
from nasplat.measurement import Cost, Failure, FailureReason, Measurement, Metric, Role
from nasplat.objective import Objective
from nasplat.storage import schema as s
from nasplat.storage.bulk import Lookup, Values, select_in
from nasplat.trial import Proposal, Trial

OBJECTIVES = tuple(f"objective_{i}" for i in range(4))

OUTCOME = (
    *("state", "told", "saved", "repeat_of", "attempts", "measurement_id", "finished_at"),
    *("failure_reason", "failure_message", "failure_traceback", "failure_seconds", "failure_gpu_seconds"),
    *OBJECTIVES,
)
"""Columns of a trial that change while it runs."""

PROPOSED = (
    *("study_id", "number", "architecture_id", "proposed", "epochs", "data_fraction", "resolution", "seed"),
    *("why", "asked_after", "identity", "asked_at"),
)
"""Columns of a trial that stay as they were when it was asked for."""

MEASUREMENT = (
    *("identity", "architecture_id", "context_id", "provenance_id"),
    *("epochs", "data_fraction", "resolution", "seed"),
    *("seconds", "gpu_seconds", "peak_memory_bytes", "created_at"),
)

ATTEMPT = (
    *("study_id", "number", "attempt", "started_at", "seconds", "ended"),
    *("worker", "host", "pid", "gpu", "exit_signal", "log"),
)

COST = (s.measurement.c.seconds, s.measurement.c.gpu_seconds, s.measurement.c.peak_memory_bytes)

TRIALS = (
    select(s.trial, *COST)
    .join(s.measurement, s.trial.c.measurement_id == s.measurement.c.id, isouter=True)
    .order_by(s.trial.c.number)
)
"""All that ``trial`` needs but metrics, artifacts and parents."""


class StudyKey(NamedTuple):
    """What writing a study's trials needs of it.

    Attributes:
        id: Its row.
        name: For messages.
        objective: Goals and constraints.
        fidelity: Its own, at which trials have objectives.
    """

    id: int
    name: str
    objective: Objective
    fidelity: Fidelity


class Details(NamedTuple):
    """What a measurement has besides its row."""

    metrics: dict[str, Metric]
    artifacts: dict[str, str]


def proposed(t: Trial, study_id: int, architecture_id: int) -> Values:
    """The values of ``PROPOSED``."""
    p = t.proposal
    architecture, fidelity = p.architecture.text, _fidelity(p)
    return (study_id, t.number, architecture_id, architecture, *fidelity, p.why, t.asked_after, t.identity, t.asked_at)


def outcome(t: Trial, study: StudyKey, measurement_id: int | None) -> Values:
    """The values of ``OUTCOME``."""
    f = t.failure
    failure: Values = (None,) * 5
    if f is not None:
        failure = (str(f.reason), storable(f.message), storable(f.traceback), f.seconds, f.gpu_seconds)
    state = (str(t.state), t.told, t.saved, t.repeat_of, t.attempts, measurement_id, t.finished_at)
    return (*state, *failure, *_objectives(t, study))


def measurement(t: Trial, cost: Cost, identity: str | None, links: tuple[int, int, int], now: float) -> Values:
    """The values of ``MEASUREMENT``; ``links`` are the ids of architecture, context and provenance."""
    paid = (cost.seconds, cost.gpu_seconds, cost.peak_memory_bytes)
    return (identity, *links, *_fidelity(t.proposal), *paid, now)


def attempt(a: Attempt, study_id: int) -> Values:
    """The values of ``ATTEMPT``."""
    w, ending = a.ending.worker, a.ending
    worker = (storable(w.name), storable(w.host), w.pid, storable(w.gpu)) if w else (None,) * 4
    what = (study_id, a.trial, a.attempt, a.started_at, a.seconds, a.ended)
    return (*what, *worker, storable(ending.exit_signal), storable(ending.log))


def trial(row: Any, architecture: Architecture, parents: tuple[int, ...], details: Mapping[int, Details]) -> Trial:
    """A trial from a row of ``TRIALS``; its measurement comes without provenance."""
    result: Measurement | Failure | None = None
    if row.measurement_id is not None:
        found = details[row.measurement_id]
        result = Measurement(found.metrics, cost(row), artifacts=found.artifacts)
    elif row.failure_reason is not None:
        # Releases before the second schema did not keep the seconds of GPUs.
        paid = (row.failure_seconds, row.failure_gpu_seconds or 0.0)
        result = Failure(FailureReason(row.failure_reason), row.failure_message, row.failure_traceback, *paid)
    fidelity = Fidelity(row.epochs, row.data_fraction, row.resolution)
    return Trial(
        number=row.number,
        proposal=Proposal(architecture, fidelity, row.seed, parents, row.why),
        asked_after=row.asked_after,
        identity=row.identity,
        outcome=result,
        told=row.told,
        saved=row.saved,
        repeat_of=row.repeat_of,
        attempts=row.attempts,
        asked_at=row.asked_at,
        finished_at=row.finished_at,
    )


def cost(row: Any) -> Cost:
    """The cost in a row with the columns ``COST``."""
    return Cost(row.seconds, row.gpu_seconds, row.peak_memory_bytes)


def details(c: Connection, ids: Sequence[int]) -> dict[int, Details]:
    """Metrics and artifacts of measurements."""
    out = {i: Details({}, {}) for i in ids}
    for row in select_in(c, select(s.metric), s.metric.c.measurement_id, ids):
        out[row.measurement_id].metrics[row.name] = Metric(row.value, Role(row.role))
    for row in select_in(c, select(s.artifact), s.artifact.c.measurement_id, ids):
        out[row.measurement_id].artifacts[row.kind] = row.path
    return out


@final
class Finder:
    """Looks measurements up by identity. The loop asks for every proposal, so the statements are compiled once."""

    def __init__(self, dialect: Dialect) -> None:
        key: BindParameter[Any] = bindparam("key")
        metric, artifact = s.metric.c, s.artifact.c
        self._measurement = Lookup(select(s.measurement.c.id, *COST).where(s.measurement.c.identity == key), dialect)
        self._metrics = Lookup(
            select(metric.name, metric.value, metric.role).where(metric.measurement_id == key), dialect
        )
        self._artifacts = Lookup(select(artifact.kind, artifact.path).where(artifact.measurement_id == key), dialect)

    def find(self, c: Connection, identity: str) -> Measurement | None:
        """The measurement of an identity without its provenance, or None."""
        found = self._measurement.rows(c, identity)
        if not found:
            return None
        row = found[0]
        metrics = {r.name: Metric(r.value, Role(r.role)) for r in self._metrics.rows(c, row.id)}
        artifacts = {r.kind: r.path for r in self._artifacts.rows(c, row.id)}
        return Measurement(metrics, cost(row), artifacts=artifacts)


def canonical_json(content: Mapping[str, Any]) -> str:
    """The same text for equal contents."""
    return json.dumps(dict(content), sort_keys=True)


def storable(text: str) -> str:
    """Text as any database takes it: a file name in an error may hold what is no Unicode, or a NUL."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def _fidelity(proposal: Proposal) -> tuple[int, float, int | None, int]:
    fidelity = proposal.fidelity
    return fidelity.epochs, fidelity.data_fraction, fidelity.resolution, proposal.seed


def _objectives(t: Trial, study: StudyKey) -> tuple[float | None, ...]:
    m, objective = t.measurement, study.objective
    if m is None or not t.proposal.is_at(study.fidelity) or not objective.feasible(m):
        return (None,) * len(OBJECTIVES)
    losses = [g.loss(m[g.metric]) if g.metric in m.metrics else None for g in objective.goals]
    return (*losses, *(None,) * (len(OBJECTIVES) - len(losses)))
