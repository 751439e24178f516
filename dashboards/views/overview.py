"""All studies, and where each stands."""

import time
from typing import Any

import numpy as np

from nasplat.dashboards.views.context import Context, Data, plain
from nasplat.storage.browsing import REASONS, STATES, Frame, StudyInfo, details

_RATE_SECONDS = 60.0
"""Over which the rate of a study is counted."""
_MOST_SHOWN = 100
"""Running trials, and failed ones."""


def studies(context: Context) -> list[Data]:
    """All studies, the newest first; those that are still being read have no ``summary`` yet."""
    drivers = details.drivers(context.database)
    out = []
    for study in context.database.studies():
        frame = context.frames.if_read(study)
        driver = drivers.get(study.id)
        out.append({**facts(study, driver), "summary": None if frame is None else summary(frame)})
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


def summary(frame: Frame) -> Data:
    """Counts, the best trial, costs, and how far the study is."""
    with frame.held():
        found: Data = frame.memo("summary", lambda: _counted(frame))
        return {**found, "per_minute": _rate(frame)}


def _counted(frame: Frame) -> Data:
    states = np.bincount(frame.stored("state"), minlength=len(STATES))
    seconds, objective = frame.paid(), frame.objective(0)
    own = frame.stored("epochs") == frame.study.config.get("epochs")
    news = (frame.stored("state") == STATES.index("completed")) & (frame.stored("repeat_of") < 0) & own
    saved = frame.stored("saved") > 0
    gpu = np.where(saved, 0.0, np.nan_to_num(frame.stored("gpu_seconds"), nan=0.0))
    best = None
    if np.isfinite(objective).any():
        losses = frame.stored("objective_0")
        place = int(np.nanargmin(np.where(np.isfinite(losses), losses, np.nan)))
        best = {"number": int(frame.stored("number")[place]), "value": float(objective[place])}
    return plain(  # type: ignore[no-any-return]
        {
            "version": frame.version,
            "trials": len(frame),
            "states": dict(zip(STATES, states, strict=True)),
            "saved": saved.sum(),
            "saved_seconds": np.nansum(np.where(saved, frame.stored("seconds"), 0.0)),
            "repeats": (frame.stored("repeat_of") >= 0).sum(),
            "best": best,
            "paid_seconds": seconds.sum(),
            "gpu_seconds": gpu.sum(),
            "cost": _cost(frame.study.config.get("budget") or {}, seconds.sum(), gpu.sum()),
            "first_at": np.nanmin(frame.stored("asked_at")) if len(frame) else None,
            "last_at": frame.stored("finished_at")[frame.finishing()[-1]] if len(frame.finishing()) else None,
            "progress": _progress(frame.study.config.get("budget") or {}, int(news.sum()), float(seconds.sum())),
        }
    )


def _cost(budget: Data, seconds: float, gpu_seconds: float) -> float | None:
    """What was paid in money, where the study has prices."""
    prices = budget.get("price_per_hour") or 0.0, budget.get("price_per_gpu_hour") or 0.0
    return (prices[0] * seconds + prices[1] * gpu_seconds) / 3600 if any(prices) else None


def _progress(budget: Data, measured: int, seconds: float) -> float | None:
    """Share of the budget that is spent, by whichever limit is nearest."""
    spent = {"trials": measured, "seconds": seconds}
    shares = [spent[name] / budget[name] for name in spent if budget.get(name)]
    return min(1.0, max(shares)) if shares else None


def _rate(frame: Frame) -> float:
    done = frame.finishing()[-10_000:]
    recent = frame.stored("finished_at")[done] > time.time() - _RATE_SECONDS
    return float(recent.sum() * 60 / _RATE_SECONDS)


def study(context: Context, name: str) -> Data:
    """All about one study but its trials."""
    frame = context.frames.named(name)
    info = frame.study
    driver = details.drivers(context.database).get(info.id)
    return {
        **facts(info, driver),
        "config": dict(info.config),
        "summary": summary(frame),
        "metrics": _metrics(context, frame),
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


def _metrics(context: Context, frame: Frame) -> list[str]:
    """The metrics that a sample of the study's measurements has."""
    with frame.held():
        numbers = frame.stored("number")[frame.stored("measurement") > 0]
        sample = numbers[np.unique(np.linspace(0, len(numbers) - 1, 20).astype(int))].tolist() if len(numbers) else []
    rows = details.trials(context.database, frame.study, sample)
    return sorted({name for row in rows for name, value in _extra(row).items() if isinstance(value, float)})


def _extra(row: Data) -> dict[str, Any]:
    own = {"seconds", "gpu_seconds", "asked_at", "finished_at", "data_fraction"}
    return {name: value for name, value in row.items() if name not in own}


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
