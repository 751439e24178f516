"""Studies with what is counted of their trials."""

from typing import Any

from sqlalchemy import Select, case, func, select

from nasplat.objective import Goal
from nasplat.storage import schema as s
from nasplat.storage.free_sql import Row


def studies(study_id: int | None) -> Select[Any]:
    """All studies, oldest first, or one of them, with the numbers of their trials, best first goal and paid seconds."""
    t, m = s.trial.c, s.measurement.c
    seconds = func.coalesce(m.seconds, t.failure_seconds, 0.0)
    counted = (
        select(
            t.study_id,
            func.count().label("trials"),
            func.sum(case((t.state == "completed", 1), else_=0)).label("completed"),
            func.sum(case((t.state == "failed", 1), else_=0)).label("failed"),
            func.sum(case((t.saved, 1), else_=0)).label("saved"),
            func.sum(case((t.saved, 0.0), else_=seconds)).label("paid_seconds"),
            func.min(t.objective_0).label("objective_0"),
        )
        .join(s.measurement, m.id == t.measurement_id, isouter=True)
        .group_by(t.study_id)
    )
    if study_id is not None:
        counted = counted.where(t.study_id == study_id)
    counts = counted.subquery()
    statement = (
        select(s.study, counts).join(counts, counts.c.study_id == s.study.c.id, isouter=True).order_by(s.study.c.id)
    )
    return statement if study_id is None else statement.where(s.study.c.id == study_id)


def study_row(r: Any) -> Row:
    """A row of ``studies`` as plain data."""
    return {
        "study": r.name,
        "state": r.state,
        "space": r.space,
        "task": r.task,
        "strategy": r.strategy,
        "goal": r.goals[0],
        "best": None if r.objective_0 is None else Goal.parse(r.goals[0]).loss(r.objective_0),
        "trials": r.trials or 0,
        "completed": r.completed or 0,
        "failed": r.failed or 0,
        "saved": r.saved or 0,
        "paid_seconds": r.paid_seconds or 0.0,
        "config": r.config,
    }
