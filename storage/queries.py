"""Reading the store: filtered trials with their metrics, fronts, and free SQL that cannot write."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias, final

import numpy as np
from sqlalchemy import ColumnElement, Select, column, create_engine, event, func, select, table, text
from sqlalchemy.exc import DBAPIError

from nasplat.errors import InvalidInputError, StoreError, unknown_name
from nasplat.objective import Goal
from nasplat.pareto import non_dominated
from nasplat.storage import schema as s
from nasplat.storage.engine import READ_ONLY, open_engine
from nasplat.storage.filters import parse_filter

Row: TypeAlias = dict[str, Any]

_SQL_SECONDS = 30


@final
@dataclass(frozen=True, slots=True)
class Query:
    """Which trials are wanted.

    Attributes:
        study: Name of a study, or None for all.
        where: Condition on columns of ``v_trial`` and on metrics, such as ``val_accuracy > 0.9 and params < 1e5``.
        by: Goals: one orders, two or more are for ``pareto``. Empty means the study's own goals.
        limit: Most rows.
        after: Number of the trial behind which a page in the order of numbers starts.
    """

    study: str | None = None
    where: str | None = None
    by: tuple[str, ...] = ()
    limit: int = 100
    after: int | None = None


@final
class Reader:
    """Read-only access to a store; safe while searches write to it.

    Args:
        store: A database URL, or the path of a SQLite file.

    Raises:
        InvalidInputError: If the URL is malformed.
        StoreError: If there is no store, or it has another schema.
    """

    def __init__(self, store: str | Path) -> None:
        self._engine = open_engine(store, create=False)
        self._connection = self._engine.connect().execution_options(**READ_ONLY)

    def close(self) -> None:
        """Release the database."""
        self._connection.close()
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # Trials --------------------------------------------------------------------------------------------------

    def page(self, query: Query) -> list[Row]:
        """Trials in the order of study and number, from behind ``query.after``; metrics are columns."""
        statement = self._select(query).order_by(s.trial.c.study_id, s.trial.c.number)
        if query.after is not None:
            statement = statement.where(s.trial.c.number > query.after)
        return self._rows(statement.limit(query.limit))

    def top(self, query: Query) -> list[Row]:
        """The best distinct measurements by one goal, the best first.

        Raises:
            InvalidInputError: If no goal is given and none follows from the study.
        """
        if not query.by and query.study is not None:
            statement = self._select(query).where(s.trial.c.objective_0.is_not(None), s.trial.c.repeat_of.is_(None))
            return self._rows(statement.order_by(s.trial.c.objective_0, s.trial.c.number).limit(query.limit))
        goal = self._goals(query)[0]
        metric = s.metric.alias()
        statement = (
            self._select(query)
            .join(metric, (metric.c.measurement_id == s.trial.c.measurement_id) & (metric.c.name == goal.metric))
            .where(s.trial.c.saved.is_(False))
        )
        best_first = metric.c.value.desc() if goal.maximize else metric.c.value
        return self._rows(statement.order_by(best_first).limit(query.limit))

    def pareto(self, query: Query) -> list[Row]:
        """The distinct measurements that no other one beats in all goals, best first goal first."""
        goals = self._goals(query)
        metrics = [s.metric.alias() for _ in goals]
        base = self._select(query).where(s.trial.c.repeat_of.is_(None))
        for goal, metric in zip(goals, metrics, strict=True):
            on = (metric.c.measurement_id == s.trial.c.measurement_id) & (metric.c.name == goal.metric)
            base = base.join(metric, on)
        points = self._execute(base.with_only_columns(s.trial.c.id, *(m.c.value for m in metrics)))
        if not points:
            return []
        table = np.array(points, dtype=np.float64)
        losses = table[:, 1:] * np.array([-1.0 if g.maximize else 1.0 for g in goals])
        on_front = non_dominated(losses)
        chosen = table[on_front][np.argsort(losses[on_front, 0], kind="stable"), 0].astype(int)
        rows = {r["id"]: r for r in self._rows(_trials().where(s.trial.c.id.in_(chosen.tolist())), keep_id=True)}
        return [{k: v for k, v in rows[i].items() if k != "id"} for i in chosen.tolist()][: query.limit]

    def trial(self, study: str, number: int) -> Row:
        """Everything about one trial, with failure, parents and artifacts.

        Raises:
            InvalidInputError: If there is no such trial.
        """
        rows = self._rows(self._select(Query(study=study)).where(s.trial.c.number == number))
        if not rows:
            raise InvalidInputError(f"study {study!r} has no trial {number}")
        study_id = self._study_id(study)
        failure = self._execute(
            select(s.trial.c.failure_message, s.trial.c.failure_traceback).where(
                s.trial.c.study_id == study_id, s.trial.c.number == number
            )
        )[0]
        parents = select(s.lineage.c.parent).where(s.lineage.c.study_id == study_id, s.lineage.c.number == number)
        measurement_id = rows[0]["measurement_id"]
        artifacts = select(s.artifact.c.kind, s.artifact.c.path).where(s.artifact.c.measurement_id == measurement_id)
        return {
            **rows[0],
            "failure_message": failure.failure_message,
            "failure_traceback": failure.failure_traceback,
            "parents": [r.parent for r in self._execute(parents.order_by(s.lineage.c.position))],
            "artifacts": {r.kind: r.path for r in self._execute(artifacts)},
        }

    def measurements(self, space: str, fingerprint: str) -> list[Row]:
        """All measurements of an architecture at every fidelity, whoever paid; metrics are columns."""
        statement = (
            select(
                s.measurement.c.id.label("measurement_id"),
                *(s.measurement.c[c] for c in ("epochs", "data_fraction", "resolution", "seed", "seconds")),
            )
            .join(s.architecture)
            .where(s.architecture.c.space == space, s.architecture.c.fingerprint == fingerprint)
            .order_by(s.measurement.c.epochs, s.measurement.c.id)
        )
        return self._with_metrics([dict(r._mapping) for r in self._execute(statement)])

    # Studies -------------------------------------------------------------------------------------------------

    def studies(self) -> list[Row]:
        """All studies, oldest first, with their numbers of trials, best first goal and paid seconds."""
        best = (
            select(s.trial.c.study_id, func.min(s.trial.c.objective_0).label("objective_0"))
            .group_by(s.trial.c.study_id)
            .subquery()
        )
        cost, saved = (
            table("v_cost", *(column(c) for c in ("study", "trials", "completed", "failed", "paid_seconds"))),
            table("v_saved", column("study"), column("saved_trials"), column("saved_seconds")),
        )
        statement = (
            select(s.study, best.c.objective_0, cost, saved.c.saved_trials, saved.c.saved_seconds)
            .join(best, best.c.study_id == s.study.c.id, isouter=True)
            .join(cost, cost.c.study == s.study.c.name, isouter=True)
            .join(saved, saved.c.study == s.study.c.name, isouter=True)
            .order_by(s.study.c.id)
        )
        rows = []
        for r in self._execute(statement):
            goal = Goal.parse(r.goals[0])
            rows.append(
                {
                    "study": r.name,
                    "state": r.state,
                    "space": r.space,
                    "task": r.task,
                    "strategy": r.strategy,
                    "goal": r.goals[0],
                    "best": None if r.objective_0 is None else goal.loss(r.objective_0),
                    "trials": r.trials or 0,
                    "completed": r.completed or 0,
                    "failed": r.failed or 0,
                    "saved": r.saved_trials or 0,
                    "paid_seconds": r.paid_seconds or 0.0,
                    "config": r.config,
                }
            )
        return rows

    def study(self, name: str) -> Row:
        """One row of ``studies``.

        Raises:
            InvalidInputError: If there is no such study, with the nearest name.
        """
        rows = {r["study"]: r for r in self.studies()}
        if name not in rows:
            raise unknown_name("study", name, rows)
        return rows[name]

    def events(self, study: str) -> list[Row]:
        """What happened in a study, in order."""
        statement = select(s.event).where(s.event.c.study_id == self._study_id(study)).order_by(s.event.c.id)
        return [{"at": r.at, "kind": r.kind, "detail": r.detail} for r in self._execute(statement)]

    def proxies(self, study: str) -> list[str]:
        """The metrics that the study's architectures have at zero epochs, whoever measured them."""
        return sorted(
            {r.name for r in self._execute(self._untrained(study).with_only_columns(s.metric.c.name).distinct())}
        )

    def proxy_pairs(self, study: str, proxy: str, metric: str) -> list[tuple[float, float]]:
        """A zero-cost score and a trained metric of each distinct measurement of a study that has both."""
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
        t = s.trial.c
        return (
            select(t.id)
            .join(
                s.measurement,
                (s.measurement.c.architecture_id == t.architecture_id) & (s.measurement.c.epochs == 0),
            )
            .join(s.metric, s.metric.c.measurement_id == s.measurement.c.id)
            .where(
                t.study_id == self._study_id(study),
                t.epochs > 0,
                t.state == "completed",
                t.repeat_of.is_(None),
            )
        )

    # Free SQL ------------------------------------------------------------------------------------------------

    def sql(self, statement: str, limit: int = 10_000) -> list[Row]:
        """The rows of one SELECT over the documented views; it cannot write, attach or run on for ever.

        Raises:
            InvalidInputError: If the database refuses the statement.
        """
        engine = create_engine(self._engine.url, hide_parameters=True)
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _lock_down_sqlite)
        try:
            with engine.connect() as connection:
                if engine.dialect.name == "postgresql":
                    connection.execute(text("SET TRANSACTION READ ONLY"))
                    connection.execute(text(f"SET LOCAL statement_timeout = '{_SQL_SECONDS}s'"))
                result = connection.exec_driver_sql(statement)
                if not result.returns_rows:
                    raise InvalidInputError("the statement gives no rows; --sql takes one SELECT")
                return [dict(r._mapping) for r in result.fetchmany(limit)]
        except (DBAPIError, sqlite3.Error) as error:
            reason = str(getattr(error, "orig", error)).strip().splitlines()[0]
            raise InvalidInputError(f"the store refuses the statement: {reason}") from error
        finally:
            engine.dispose()

    # Helpers -------------------------------------------------------------------------------------------------

    def _select(self, query: Query) -> Select[Any]:
        statement = _trials()
        if query.study is not None:
            statement = statement.where(s.trial.c.study_id == self._study_id(query.study))
        if query.where:
            statement = statement.where(parse_filter(query.where, self._resolve))
        return statement

    def _resolve(self, name: str) -> ColumnElement[Any]:
        columns = {c.name: c for c in _trials().selected_columns}
        if name in columns:
            found: ColumnElement[Any] = columns[name]
            return found.element if hasattr(found, "element") else found
        metrics = self._metric_names()
        if name not in metrics:
            raise unknown_name("metric or column", name, [*columns, *metrics])
        metric = s.metric.alias()
        return (
            select(metric.c.value)
            .where(metric.c.measurement_id == s.trial.c.measurement_id, metric.c.name == name)
            .scalar_subquery()
        )

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
            for goal in goals:
                if goal.metric not in (names := self._metric_names()):
                    raise unknown_name("metric", goal.metric, names)
            return goals
        if query.study is None:
            raise InvalidInputError("say by which metric (--by val_accuracy) or of which study")
        goals_json: Sequence[str] = self._execute(select(s.study.c.goals).where(s.study.c.name == query.study))[0][0]
        return [Goal.parse(g) for g in goals_json]

    def _study_id(self, name: str) -> int:
        row = self._execute(select(s.study.c.id).where(s.study.c.name == name))
        if not row:
            raise unknown_name("study", name, [r[0] for r in self._execute(select(s.study.c.name))])
        return int(row[0][0])

    def _rows(self, statement: Select[Any], *, keep_id: bool = False) -> list[Row]:
        if keep_id:
            statement = statement.add_columns(s.trial.c.id)
        return self._with_metrics([dict(r._mapping) for r in self._execute(statement)])

    def _with_metrics(self, rows: list[Row]) -> list[Row]:
        ids = [r["measurement_id"] for r in rows if r["measurement_id"] is not None]
        metrics: dict[int, dict[str, float]] = {}
        for start in range(0, len(ids), 500):
            query = select(s.metric).where(s.metric.c.measurement_id.in_(ids[start : start + 500]))
            for m in self._execute(query):
                metrics.setdefault(m.measurement_id, {})[m.name] = m.value
        return [{**r, **metrics.get(r["measurement_id"], {})} for r in rows]

    def _execute(self, statement: Select[Any]) -> Sequence[Any]:
        try:
            rows = self._connection.execute(statement).all()
            self._connection.commit()
        except DBAPIError as error:
            raise StoreError(f"reading the store failed: {error.orig}") from error
        return rows


def _trials() -> Select[Any]:
    t, m = s.trial.c, s.measurement.c
    return (
        select(
            s.study.c.name.label("study"),
            t.number,
            s.architecture.c.space,
            t.proposed.label("architecture"),
            s.architecture.c.fingerprint,
            *(
                t.epochs,
                t.data_fraction,
                t.resolution,
                t.seed,
                t.why,
                t.state,
                t.saved,
                t.repeat_of,
                t.attempts,
            ),
            *(t.failure_reason, m.seconds, m.gpu_seconds, m.peak_memory_bytes, t.asked_at, t.finished_at),
            t.measurement_id,
        )
        .select_from(s.trial)
        .join(s.study, s.study.c.id == t.study_id)
        .join(s.architecture, s.architecture.c.id == t.architecture_id)
        .join(s.measurement, m.id == t.measurement_id, isouter=True)
    )


_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_STEPS_BETWEEN_LOOKS = 1_000_000


def _lock_down_sqlite(dbapi: sqlite3.Connection, record: object) -> None:
    """Only reading, through an authorizer: opening a file read-only alone would still allow ATTACH and PRAGMA."""
    import time

    deadline = time.monotonic() + _SQL_SECONDS

    def authorize(action: int, first: str | None, second: str | None, *rest: str | None) -> int:
        harmless = action in _ALLOWED and second not in (
            "load_extension",
            "readfile",
            "writefile",
            "zeroblob",
        )
        return sqlite3.SQLITE_OK if harmless else sqlite3.SQLITE_DENY

    dbapi.isolation_level = None
    dbapi.execute("PRAGMA query_only=ON").close()
    dbapi.set_authorizer(authorize)
    dbapi.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS_BETWEEN_LOOKS)
