"""The columns of a trial as users see them; their names are those of ``v_trial``."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Table, select

from nasplat.storage import schema as s

_WHAT = (
    *("epochs", "data_fraction", "resolution", "seed", "why", "state", "saved", "repeat_of", "attempts"),
    "failure_reason",
)
_WHEN = ("asked_at", "finished_at", "measurement_id")
_COST = ("seconds", "gpu_seconds", "peak_memory_bytes")


def _looked_up(table: Table, column: str, key: str) -> ColumnElement[Any]:
    """A column of what a trial refers to, as an expression on the trial alone."""
    return select(table.c[column]).where(table.c.id == s.trial.c[key]).correlate(s.trial).scalar_subquery()


TRIAL_COLUMNS: Mapping[str, ColumnElement[Any]] = {
    "study": _looked_up(s.study, "name", "study_id"),
    "space": _looked_up(s.architecture, "space", "architecture_id"),
    "architecture": s.trial.c.proposed,
    "fingerprint": _looked_up(s.architecture, "fingerprint", "architecture_id"),
    **{name: s.trial.c[name] for name in ("number", *_WHAT, *_WHEN)},
    **{name: _looked_up(s.measurement, name, "measurement_id") for name in _COST},
}
"""What conditions may name: each refers to ``trial`` alone, so that it fits into any query over trials."""

TRIALS = (
    select(
        s.study.c.name.label("study"),
        s.trial.c.number,
        s.architecture.c.space,
        s.trial.c.proposed.label("architecture"),
        s.architecture.c.fingerprint,
        *(s.trial.c[name] for name in _WHAT),
        *(s.measurement.c[name] for name in _COST),
        *(s.trial.c[name] for name in _WHEN),
    )
    .select_from(s.trial)
    .join(s.study, s.study.c.id == s.trial.c.study_id)
    .join(s.architecture, s.architecture.c.id == s.trial.c.architecture_id)
    .join(s.measurement, s.measurement.c.id == s.trial.c.measurement_id, isouter=True)
)
"""Trials with what they refer to, metrics aside."""
