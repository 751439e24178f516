"""All studies, and where each stands."""

import time

import numpy as np

from nasplat.dashboards.views.context import Context, Data
from nasplat.storage.browsing import REASONS, STATES, Frame, StudyInfo, Totals, details
from nasplat.storage.browsing.totals import finished_since

_RATE_SECONDS = 60.0
"""Over which the rate of a study is counted."""
_PATIENCE_SECONDS = 0.6
"""For the counts of a study: a page shows the rest rather than nothing, and is told them as soon as they are there."""
_MOST_SHOWN = 100
"""Running trials, and failed ones."""


def studies(context: Context) -> list[Data]:
    """All studies, the newest first; those that nobody has counted yet have no ``summary`` yet."""
    drivers = details.drivers(context.database)
    out = []
    for study in context.database.studies():
        found = context.frames.totals(study, follow=False)
        out.append({**facts(study, drivers.get(study.id)), "summary": summary(context, study, found)})
    return out


def facts(study: StudyInfo, driver: Data | None) -> Data:
    """What a study is. One whose driver has fallen silent is ``lost``: it says that it runs, and nobody runs it."""
    silent = study.state == "running" and (driver is None or not driver["alive"])
    return {
        "study": study.name,
        "space": study.space,
        "task": study.task,
        "strategy": study.strategy,
        "goals": [{"metric": g.metric, "maximize": g.maximize} for g in study.goals],
        "state": "lost" if silent else study.state,
        "parent": study.parent,
        "created_at": study.created_at,
        "epochs": study.config.get("epochs"),
        "seed": study.config.get("seed"),
    }


def summary(context: Context, study: StudyInfo, found: Totals | None) -> Data | None:
    """Counts, the best trial, costs, how far and how fast the study is; None where that is still being counted."""
    if found is None:
        return None
    budget = study.config.get("budget") or {}
    best = None if found.best is None else {"number": found.best[0], "value": found.best[1]}
    return {
        "version": found.version,
        "trials": sum(found.states),
        "states": dict(zip(STATES, found.states, strict=True)),
        "saved": found.saved,
        "saved_seconds": found.saved_seconds,
        "repeats": found.repeats,
        "best": best,
        "paid_seconds": found.paid_seconds,
        "gpu_seconds": found.gpu_seconds,
        "cost": _cost(budget, found.paid_seconds, found.gpu_seconds),
        "first_at": found.first_at,
        "last_at": found.last_at,
        "progress": _progress(budget, found.measured, found.paid_seconds),
        "per_minute": _per_minute(context, study),
    }


def _cost(budget: Data, seconds: float, gpu_seconds: float) -> float | None:
    """What was paid in money, where the study has prices."""
    prices = budget.get("price_per_hour") or 0.0, budget.get("price_per_gpu_hour") or 0.0
    return (prices[0] * seconds + prices[1] * gpu_seconds) / 3600 if any(prices) else None


def _progress(budget: Data, measured: int, seconds: float) -> float | None:
    """Share of the budget that is spent, by whichever limit is nearest."""
    spent = {"trials": measured, "seconds": seconds}
    shares = [spent[name] / budget[name] for name in spent if budget.get(name)]
    return min(1.0, max(shares)) if shares else None


def _per_minute(context: Context, study: StudyInfo) -> float | None:
    """Trials that finished within the last minute; None of a study that does not run."""
    if study.state != "running":
        return None
    recent = finished_since(context.database, study, time.time() - _RATE_SECONDS)
    return recent * 60 / _RATE_SECONDS


def study(context: Context, name: str, *, patience: float | None = _PATIENCE_SECONDS) -> Data:
    """All about one study but its trials; without ``summary`` if that has not been counted within the patience."""
    info = context.database.study(name)
    found = context.frames.totals(info, patience=patience)
    driver = details.drivers(context.database).get(info.id)
    best = [found.best[0]] if found is not None and found.best is not None else []
    return {
        **facts(info, driver),
        "config": dict(info.config),
        "summary": summary(context, info, found),
        "metrics": details.metric_names(context.database, info, also=best),
        "driver": None if driver is None else _driver(driver),
    }


def _driver(driver: Data) -> Data:
    status = driver["status"] or {}
    return {
        **{name: driver[name] for name in ("host", "pid", "acquired_at", "silent_seconds", "alive")},
        "executor": status.get("executor"),
        "workers": status.get("workers", []),
        "in_flight": status.get("in_flight"),
        "capacity": status.get("capacity"),
        "awaited": status.get("awaited"),
    }


def running(context: Context, name: str) -> Data:
    """Trials that run, and the workers."""
    frame = context.frames.named(name)
    driver = details.drivers(context.database).get(frame.study.id)
    return {
        "trials": details.running(context.database, frame.study, _numbers(frame, "running")[:_MOST_SHOWN]),
        "driver": None if driver is None else _driver(driver),
    }


def failures(context: Context, name: str) -> Data:
    """The latest failed trials, and how many there are of each reason."""
    frame = context.frames.named(name)
    with frame.held():
        failed = frame.stored("state") == STATES.index("failed")
        counts = np.bincount(frame.stored("reason")[failed], minlength=len(REASONS)).tolist()
    numbers = _numbers(frame, "failed")[-_MOST_SHOWN:]
    return {
        "reasons": {str(reason): n for reason, n in zip(REASONS, counts, strict=True) if n},
        "trials": details.failures(context.database, frame.study, numbers),
    }


def _numbers(frame: Frame, state: str) -> list[int]:
    with frame.held():
        numbers: list[int] = frame.stored("number")[frame.stored("state") == STATES.index(state)].tolist()
        return numbers


def events(context: Context, name: str) -> list[Data]:
    """The latest events."""
    return details.events(context.database, context.database.study(name))
