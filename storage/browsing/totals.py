"""How a study stands in a few numbers."""

from dataclasses import dataclass
from typing import Any, final

from sqlalchemy import ColumnElement, func, select

from nasplat.storage import schema as s
from nasplat.storage.browsing.database import Database, StudyInfo

STATES = ("waiting", "running", "completed", "failed")
"""The states of trials."""


@final
@dataclass(frozen=True, slots=True)
class Totals:
    """Counts and sums over the trials of a study.

    Attributes:
        states: How many trials are in each of ``STATES``.
        saved: How many were answered by the store.
        saved_seconds: What those cost when they were measured.
        repeats: How many proposed what the study had proposed before.
        measured: How many were completed at the study's own fidelity, repeats aside.
        paid_seconds: What the others cost, those that failed included.
        gpu_seconds: Of GPUs, likewise.
        first_at: When the first trial was asked for, in seconds since 1970; None without trials.
        last_at: When the last one finished; None where none has.
        best: Number of the first of the best trials, and its value of the first goal; None where no trial counts.
        version: Of the columns that this was counted in; 0 where it was counted by the database.
    """

    states: tuple[int, ...]
    saved: int
    saved_seconds: float
    repeats: int
    measured: int
    paid_seconds: float
    gpu_seconds: float
    first_at: float | None
    last_at: float | None
    best: tuple[int, float] | None
    version: int = 0


def totals(database: Database, study: StudyInfo) -> Totals:
    """Counted by the database, which takes a fifth of the time that reading the trials takes."""
    (row,) = database.rows(
        select(*(value.label(name) for name, value in _sums(study.config.get("epochs")).items()))
        .join(s.measurement, s.measurement.c.id == s.trial.c.measurement_id, isouter=True)
        # With the number SQLite goes through the trials in the order in which they were written.
        .where(s.trial.c.study_id == study.id, s.trial.c.number >= 0)
    )
    found = dict(row._mapping)
    return Totals(states=tuple(found.pop(state) for state in STATES), best=_best(database, study), **found)


def _sums(epochs: Any) -> dict[str, ColumnElement[Any]]:
    t, m = s.trial.c, s.measurement.c

    def count(condition: ColumnElement[bool]) -> ColumnElement[Any]:
        return func.count().filter(condition)

    def total(seconds: ColumnElement[float], condition: ColumnElement[bool]) -> ColumnElement[Any]:
        return func.coalesce(func.sum(seconds).filter(condition), 0.0)

    return {
        **{state: count(t.state == state) for state in STATES},
        "saved": count(t.saved),
        "saved_seconds": total(m.seconds, t.saved),
        "repeats": func.count(t.repeat_of),
        "measured": count((t.state == "completed") & t.repeat_of.is_(None) & (t.epochs == epochs)),
        "paid_seconds": total(func.coalesce(m.seconds, t.failure_seconds), ~t.saved),
        "gpu_seconds": total(func.coalesce(m.gpu_seconds, t.failure_gpu_seconds), ~t.saved),
        "first_at": func.min(t.asked_at),
        "last_at": func.max(t.finished_at),
    }


def _best(database: Database, study: StudyInfo) -> tuple[int, float] | None:
    # Two seeks in the index by objectives, which holds what is better as smaller.
    t = s.trial.c
    mine = t.study_id == study.id
    finite = (t.objective_0 > -float("inf")) & (t.objective_0 < float("inf"))
    ((loss,),) = database.rows(select(func.min(t.objective_0)).where(mine, finite))
    if loss is None:
        return None
    # Of a sum, or SQLite would go through all trials in the order of their numbers.
    ((number,),) = database.rows(select(func.min(t.number + 0)).where(mine, t.objective_0 == loss))
    return number, -loss if study.goals[0].maximize else loss


def finished_since(database: Database, study: StudyInfo, moment: float) -> int:
    """How many of the study's latest 10,000 trials have finished after a moment, in seconds since 1970."""
    t = s.trial.c
    newest = select(func.max(t.number)).where(t.study_id == study.id).scalar_subquery()
    latest = (t.study_id == study.id) & (t.number > newest - _LATEST)
    ((count,),) = database.rows(select(func.count()).select_from(s.trial).where(latest, t.finished_at > moment))
    return int(count)


_LATEST = 10_000
