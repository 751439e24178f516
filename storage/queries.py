"""Reading the store: filtered trials with their metrics, fronts, and what is known of each study."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar, final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, Select, exists, func, select, tuple_
from sqlalchemy.exc import DataError, DBAPIError

from nasplat.errors import InvalidInputError, StoreError, unknown_name
from nasplat.objective import Goal
from nasplat.pareto import non_dominated
from nasplat.storage import free_sql
from nasplat.storage import schema as s
from nasplat.storage.bulk import CHUNK
from nasplat.storage.columns import TRIAL_COLUMNS, TRIALS
from nasplat.storage.engine import open_engine, reason
from nasplat.storage.filters import parse_filter
from nasplat.storage.free_sql import Row
from nasplat.storage.leases import clock
from nasplat.storage.retrying import Reading
from nasplat.storage.study_rows import studies, study_row

T = TypeVar("T")

_PIECE = 250


@final
@dataclass(frozen=True, slots=True)
class Query:
    """Which trials are wanted.

    Attributes:
        study: Name of a study, or None for all.
        where: Condition on columns of ``v_trial`` and on metrics, such as ``val_accuracy > 0.9 and params < 1e5``.
        by: Goals: one orders, two or more are for ``pareto``. Empty means the study's own goals.
        limit: Most rows.
        after: Where a page starts: behind the trial of this number, or of this study and number where the page
            goes over all studies.
    """

    study: str | None = None
    where: str | None = None
    by: tuple[str, ...] = ()
    limit: int = 100
    after: int | tuple[str, int] | None = None


@final
class Reader:
    """Read-only access to a store; safe while searches write to it.

    Args:
        store: A database URL, or the path of a SQLite file.
        patience: Seconds for which a query waits for a server that has gone away; who asks is a person, mostly.

    Raises:
        InvalidInputError: If the URL is malformed.
        StoreError: If there is no store, or it has another schema.
    """

    def __init__(self, store: str | Path, *, patience: float = 10.0) -> None:
        self._engine = open_engine(store, create=False)
        self._reading = Reading(self._engine, patience)

    def close(self) -> None:
        """Release the database."""
        self._reading.close()
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # Trials --------------------------------------------------------------------------------------------------

    def page(self, query: Query) -> list[Row]:
        """Trials in the order of study and number, from behind ``query.after``; metrics are columns."""
        t = s.trial.c
        statement = TRIALS.where(*self._conditions(query)).order_by(t.study_id, t.number).limit(query.limit)
        match query.after:
            case (study, number):
                statement = statement.where(tuple_(t.study_id, t.number) > (self._study_id(study), number))
            case int(number):
                if query.study is None:
                    raise InvalidInputError(f"trial {number} of which study? A page over all studies needs both")
                statement = statement.where(t.number > number)
        return self._rows(statement)

    def top(self, query: Query) -> list[Row]:
        """The best distinct measurements by one goal, the best first.

        Raises:
            InvalidInputError: If no goal is given and none follows from the study.
        """
        t, conditions = s.trial.c, self._conditions(query)
        if query.study is None:
            return self._top_of_all(self._goals(query)[0], conditions, query.limit)
        ids = select(t.id).where(*conditions, t.repeat_of.is_(None)).limit(query.limit)
        if query.by:
            goal, metric = self._goals(query)[0], s.metric.alias()
            named = (metric.c.measurement_id == t.measurement_id) & (metric.c.name == goal.metric)
            ids = ids.join(metric, named).order_by(_best_first(metric.c.value, goal), t.number)
        else:
            ids = ids.where(t.objective_0.is_not(None)).order_by(t.objective_0, t.number)
        return self._of_trials([r.id for r in self._execute(ids)])

    def _top_of_all(self, goal: Goal, conditions: Sequence[ColumnElement[bool]], limit: int) -> list[Row]:
        # Metrics in the order of the index until enough have a trial: no trial is read but those that are shown.
        metric, t = s.metric.c, s.trial.c
        measured = (
            select(metric.measurement_id)
            .where(metric.name == goal.metric)
            .where(exists(select(t.id).where(t.measurement_id == metric.measurement_id, *conditions)))
            .order_by(_best_first(metric.value, goal), metric.measurement_id)
            .limit(limit)
        )
        return self._of_measurements([r.measurement_id for r in self._execute(measured)], conditions)

    def pareto(self, query: Query) -> list[Row]:
        """The distinct measurements that no other one beats in all goals, best first goal first.

        With a study and without goals these are its own front: trials at its fidelity that satisfy its constraints.

        Raises:
            InvalidInputError: If no goals are given and none follow from the study.
        """
        conditions, goals = self._conditions(query), self._goals(query)
        own = query.study is not None and not query.by
        table = self._table(self._objectives(goals, conditions) if own else self._metrics(goals, conditions))
        losses = table[:, 1:] if own else table[:, 1:] * np.array([-1.0 if g.maximize else 1.0 for g in goals])
        on_front = non_dominated(losses)
        order = np.argsort(losses[on_front, 0], kind="stable")
        chosen: list[int] = table[on_front][order, 0].astype(int).tolist()
        found = self._of_trials(chosen) if own else self._of_measurements(chosen, conditions)
        return [row for row in found if not own or row["repeat_of"] is None][: query.limit]

    def _objectives(self, goals: Sequence[Goal], conditions: Sequence[ColumnElement[bool]]) -> Select[Any]:
        """Trials with the losses of their study's goals."""
        losses = [s.trial.c[f"objective_{i}"] for i in range(len(goals))]
        return (
            select(s.trial.c.id, *losses).where(losses[0].is_not(None), *conditions).order_by(losses[0], s.trial.c.id)
        )

    def _metrics(self, goals: Sequence[Goal], conditions: Sequence[ColumnElement[bool]]) -> Select[Any]:
        """Measurements of trials with the metrics of the goals."""
        metrics = [s.metric.alias() for _ in goals]
        wanted = select(s.trial.c.measurement_id).where(*conditions, s.trial.c.measurement_id.is_not(None)).distinct()
        trials = wanted.subquery()
        statement = select(trials.c.measurement_id, *(m.c.value for m in metrics)).select_from(trials)
        for goal, metric in zip(goals, metrics, strict=True):
            named = (metric.c.measurement_id == trials.c.measurement_id) & (metric.c.name == goal.metric)
            statement = statement.join(metric, named)
        return statement.order_by(trials.c.measurement_id)

    def trial(self, study: str, number: int) -> Row:
        """Everything about one trial, with failure, parents and artifacts.

        Raises:
            InvalidInputError: If there is no such trial.
        """
        t, lineage, artifact = s.trial.c, s.lineage.c, s.artifact.c
        study_id = self._study_id(study)
        failure = (t.failure_message, t.failure_traceback)
        rows = self._rows(TRIALS.where(t.study_id == study_id, t.number == number).add_columns(*failure))
        if not rows:
            raise InvalidInputError(f"study {study!r} has no trial {number}")
        parents = select(lineage.parent).where(lineage.study_id == study_id, lineage.number == number)
        artifacts = select(artifact.kind, artifact.path).where(artifact.measurement_id == rows[0]["measurement_id"])
        return {
            **rows[0],
            "parents": [r.parent for r in self._execute(parents.order_by(lineage.position))],
            "artifacts": {r.kind: r.path for r in self._execute(artifacts)},
        }

    def measurements(self, space: str, fingerprint: str) -> list[Row]:
        """All measurements of an architecture: every task and fidelity, whoever paid; metrics are columns."""
        m = s.measurement.c
        asked_by = select(s.study.c.task).join_from(s.study, s.trial).where(s.trial.c.measurement_id == m.id).limit(1)
        task = asked_by.correlate(s.measurement).scalar_subquery().label("task")
        statement = (
            select(m.id.label("measurement_id"), task, m.epochs, m.data_fraction, m.resolution, m.seed, m.seconds)
            .join_from(s.measurement, s.architecture)
            .where(s.architecture.c.space == space, s.architecture.c.fingerprint == fingerprint)
            .order_by(m.epochs, m.id)
        )
        return self._rows(statement)

    # Studies -------------------------------------------------------------------------------------------------

    def studies(self) -> list[Row]:
        """All studies, oldest first, with their numbers of trials, best first goal and paid seconds."""
        return self._studies(None)

    def study(self, name: str) -> Row:
        """One row of ``studies``.

        Raises:
            InvalidInputError: If there is no such study, with the nearest name.
        """
        return self._studies(self._study_id(name))[0]

    def _studies(self, study_id: int | None) -> list[Row]:
        return [study_row(r) for r in self._execute(studies(study_id))]

    def events(self, study: str) -> list[Row]:
        """What happened in a study, in order."""
        statement = select(s.event).where(s.event.c.study_id == self._study_id(study)).order_by(s.event.c.id)
        return [{"at": r.at, "kind": r.kind, "detail": r.detail} for r in self._execute(statement)]

    def attempts(self, study: str, number: int) -> list[Row]:
        """The starts of a trial that have ended, in order: when, how, on which worker, and what it printed."""
        a = s.attempt.c
        columns = [c for c in a if c.name not in ("study_id", "number")]
        mine = (a.study_id == self._study_id(study), a.number == number)
        return self._plain(select(*columns).where(*mine).order_by(a.attempt))

    def drivers(self) -> list[Row]:
        """The studies that a driver runs, oldest first: which process, when it was last heard of, what it does."""
        d, names = s.driver.c, ("token", "host", "pid", "acquired_at", "heartbeat_at", "expires_at", "status")
        statement = select(s.study.c.name.label("study"), *(d[name] for name in names)).join(s.study)
        found = self._plain(statement.where(d.expires_at.is_not(None)).order_by(d.study_id))
        now = self._run(clock)
        return [{**row, "silent_seconds": now - row["heartbeat_at"]} for row in found]

    def proxies(self, study: str) -> list[str]:
        """The metrics that the study's architectures have at zero epochs for its task, whoever measured them.

        A study of a table has none of its own task: it takes those of any.
        """
        return sorted(
            r.name for r in self._execute(self._untrained(study).with_only_columns(s.metric.c.name).distinct())
        )

    def proxy_pairs(self, study: str, proxy: str, metric: str) -> list[tuple[float, float]]:
        """A zero-cost score, as in ``proxies``, and a trained metric of each distinct measurement that has both."""
        trained = s.metric.alias()
        statement = (
            self._untrained(study)
            .join(trained, (trained.c.measurement_id == s.trial.c.measurement_id) & (trained.c.name == metric))
            .where(s.metric.c.name == proxy)
            .with_only_columns(s.trial.c.number, func.min(s.metric.c.value), func.min(trained.c.value))
            .group_by(s.trial.c.number)
        )
        return [(float(r[1]), float(r[2])) for r in self._execute(statement)]

    def _untrained(self, study: str) -> Select[Any]:
        """Distinct trained trials of a study joined to the metrics that their architectures have at zero epochs."""
        t, m, scored = s.trial.c, s.measurement.c, s.trial.alias()
        own = self.study(study)
        statement = (
            select(t.id)
            .join(s.measurement, (m.architecture_id == t.architecture_id) & (m.epochs == 0))
            .join(s.metric, s.metric.c.measurement_id == m.id)
            .where(t.study_id == self._study_id(study), t.epochs > 0, t.state == "completed", t.repeat_of.is_(None))
        )
        if own["config"].get("benchmark"):
            return statement
        alike = select(s.study.c.id).where(s.study.c.task == own["task"])
        return statement.where(exists().where(scored.c.measurement_id == m.id, scored.c.study_id.in_(alike)))

    def sql(self, statement: str, limit: int = 10_000, *, seconds: float = 30.0) -> list[Row]:
        """The first rows of one SELECT over the documented views; it cannot write, attach or run on for ever.

        Raises:
            InvalidInputError: If the database refuses the statement, or it takes longer than ``seconds``.
        """
        return self._run(lambda _: free_sql.select(self._engine, statement, limit=limit, seconds=seconds))

    # Helpers -------------------------------------------------------------------------------------------------

    def _conditions(self, query: Query) -> list[ColumnElement[bool]]:
        """Conditions on trials alone: what they refer to is looked up in subqueries."""
        conditions: list[ColumnElement[bool]] = []
        if query.study is not None:
            conditions.append(s.trial.c.study_id == self._study_id(query.study))
        if query.where:
            conditions.append(parse_filter(query.where, self._resolve))
        return conditions

    def _resolve(self, name: str) -> ColumnElement[Any]:
        if name in TRIAL_COLUMNS:
            return TRIAL_COLUMNS[name]
        metrics = self._metric_names()
        if name not in metrics:
            raise unknown_name("metric or column", name, [*TRIAL_COLUMNS, *metrics])
        metric = s.metric.alias()
        measured = (metric.c.measurement_id == s.trial.c.measurement_id, metric.c.name == name)
        return select(metric.c.value).where(*measured).correlate(s.trial).scalar_subquery()

    def _metric_names(self) -> list[str]:
        # One seek a name through the index instead of a scan of all metrics.
        names: list[str] = []
        while True:
            query = select(func.min(s.metric.c.name))
            if names:
                query = query.where(s.metric.c.name > names[-1])
            name = self._execute(query)[0][0]
            if name is None:
                return names
            names.append(name)

    def _goals(self, query: Query) -> list[Goal]:
        if query.by:
            goals = [Goal.parse(g) for g in query.by]
            names = self._metric_names()
            for goal in goals:
                if goal.metric not in names:
                    raise unknown_name("metric", goal.metric, names)
            return goals
        if query.study is None:
            raise InvalidInputError("say by which metric (--by val_accuracy) or of which study")
        goals_of = select(s.study.c.goals).where(s.study.c.id == self._study_id(query.study))
        return [Goal.parse(g) for g in self._execute(goals_of)[0].goals]

    def _study_id(self, name: str) -> int:
        row = self._execute(select(s.study.c.id).where(s.study.c.name == name))
        if not row:
            raise unknown_name("study", name, [r[0] for r in self._execute(select(s.study.c.name))])
        return int(row[0][0])

    def _of_trials(self, ids: Sequence[int]) -> list[Row]:
        """The trials of ids, in their order."""
        rows: dict[int, Row] = {}
        for start in range(0, len(ids), CHUNK):
            statement = TRIALS.where(s.trial.c.id.in_(ids[start : start + CHUNK])).add_columns(s.trial.c.id)
            rows |= {r.pop("id"): r for r in self._rows(statement)}
        return [rows[i] for i in ids]

    def _of_measurements(self, ids: Sequence[int], conditions: Sequence[ColumnElement[bool]]) -> list[Row]:
        """The first trial that satisfies the conditions for each measurement, in the order of ``ids``."""
        t = s.trial.c
        first: dict[int, int] = {}
        for start in range(0, len(ids), CHUNK):
            of_these = t.measurement_id.in_(ids[start : start + CHUNK])
            statement = select(t.measurement_id, func.min(t.id)).where(of_these, *conditions)
            first |= {r[0]: r[1] for r in self._execute(statement.group_by(t.measurement_id))}
        return self._of_trials([first[i] for i in ids])

    def _plain(self, statement: Select[Any]) -> list[Row]:
        """Rows as dictionaries."""
        return [dict(r._mapping) for r in self._execute(statement)]

    def _rows(self, statement: Select[Any]) -> list[Row]:
        """Rows as dictionaries, the metrics of their measurements added."""
        rows = self._plain(statement)
        ids = [r["measurement_id"] for r in rows if r["measurement_id"] is not None]
        metrics: dict[int, dict[str, float]] = {}
        for start in range(0, len(ids), CHUNK):
            query = select(s.metric).where(s.metric.c.measurement_id.in_(ids[start : start + CHUNK]))
            for m in self._execute(query):
                metrics.setdefault(m.measurement_id, {})[m.name] = m.value
        return [{**r, **metrics.get(r["measurement_id"], {})} for r in rows]

    def _table(self, statement: Select[Any]) -> NDArray[np.float64]:
        """Numbers ``(N, K)``."""

        # In small pieces: ten thousand rows at a time would set the garbage collector on everything that is loaded.
        def read(c: Connection) -> list[NDArray[np.float64]]:
            return [np.array(list(map(tuple, p)), np.float64) for p in c.execute(statement).partitions(_PIECE)]

        return np.concatenate([np.empty((0, len(statement.selected_columns))), *self._run(read)])

    def _execute(self, statement: Select[Any]) -> Sequence[Any]:
        return self._run(lambda c: c.execute(statement).all())

    def _run(self, work: Callable[[Connection], T]) -> T:
        try:
            return self._reading.run(work)
        except (DataError, OverflowError, UnicodeEncodeError) as error:
            raise InvalidInputError(f"no store holds what was asked for: {getattr(error, 'orig', error)}") from error
        except DBAPIError as error:
            raise StoreError(f"reading the store failed: {reason(error)}") from error


def _best_first(value: ColumnElement[float], goal: Goal) -> ColumnElement[float]:
    return value.desc() if goal.maximize else value
