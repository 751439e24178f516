"""Pairs and tables for statistics: parents with children, untrained scores with trained metrics, architectures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select

from nasplat.storage import schema as s
from nasplat.storage.browsing.database import Database, StudyInfo
from nasplat.storage.bulk import CHUNK


@final
@dataclass(frozen=True, slots=True)
class Step:
    """A child that was made from one parent, both measured.

    Attributes:
        child: Number of its trial.
        parent: Number of its parent's.
        why: What the strategy said of it.
        before: The parent's architecture.
        after: The child's.
        gain: By how much the first goal became better; negative where it became worse.
    """

    child: int
    parent: int
    why: str
    before: str
    after: str
    gain: float


def steps(database: Database, study: StudyInfo, *, most: int) -> list[Step]:
    """The latest children with one parent each, in the order of their numbers; infeasible ones are left out."""
    parent, child, link = s.trial.alias(), s.trial.alias(), s.lineage.c
    alone = (
        select(link.number)
        .where(link.study_id == study.id)
        .group_by(link.number)
        .having(func.count() == 1)
        .order_by(link.number.desc())
        .limit(most)
        .subquery()
    )
    statement = (
        select(
            *(link.number, link.parent, child.c.why, parent.c.proposed, child.c.proposed),
            *(parent.c.objective_0.label("before"), child.c.objective_0.label("after")),
        )
        .select_from(s.lineage)
        .join(alone, alone.c.number == link.number)
        .join(child, (child.c.study_id == link.study_id) & (child.c.number == link.number))
        .join(parent, (parent.c.study_id == link.study_id) & (parent.c.number == link.parent))
        .where(link.study_id == study.id, parent.c.objective_0.is_not(None), child.c.objective_0.is_not(None))
        .order_by(link.number)
    )
    found = (Step(r[0], r[1], r[2], r[3], r[4], r.before - r.after) for r in database.rows(statement))
    return [step for step in found if np.isfinite(step.gain)]


def texts(database: Database, study: StudyInfo, numbers: Sequence[int]) -> list[str]:
    """The architectures of trials, in the order of ``numbers``."""
    t, found = s.trial.c, dict[int, str]()
    for start in range(0, len(numbers), CHUNK):
        chosen = select(t.number, t.proposed).where(
            t.study_id == study.id, t.number.in_(numbers[start : start + CHUNK])
        )
        found |= {r.number: r.proposed for r in database.rows(chosen)}
    return [found[number] for number in numbers]


def untrained_scores(
    database: Database, study: StudyInfo, numbers: Sequence[int]
) -> tuple[NDArray[np.int64], dict[str, NDArray[np.float64]]]:
    """What is known at zero epochs of the architectures of trials, whoever measured it.

    Args:
        database: Where it is.
        study: Whose trials.
        numbers: Of trials, ascending, each architecture once.

    Returns:
        The numbers ``(n,)`` and each score ``(n,)`` under its name, NaN where a trial's architecture has none. Of
        several measurements with the same seed and setting of an architecture the mean is taken.
    """
    t, m, x = s.trial.c, s.measurement.c, s.metric.c
    found: dict[str, dict[int, float]] = {}
    for start in range(0, len(numbers), CHUNK):
        statement = (
            select(t.number, x.name, func.avg(x.value).label("value"))
            .select_from(s.trial)
            .join(s.measurement, (m.architecture_id == t.architecture_id) & (m.epochs == 0))
            .join(s.metric, x.measurement_id == m.id)
            .where(t.study_id == study.id, t.number.in_(numbers[start : start + CHUNK]))
            .group_by(t.number, x.name)
        )
        for r in database.rows(statement):
            found.setdefault(r.name, {})[r.number] = r.value
    scores = {
        name: np.array([values.get(number, np.nan) for number in numbers]) for name, values in sorted(found.items())
    }
    return np.array(numbers, np.int64), scores
