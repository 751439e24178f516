"""Studies against each other: anytime curves with bands over seeds, and whether the difference is chance."""

import itertools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from nasplat.dashboards.views.context import Context, Data, plain
from nasplat.dashboards.views.trials import X_AXES, best_places
from nasplat.errors import InvalidInputError
from nasplat.storage.browsing import Frame

MOST_STUDIES = 60
_GRID = 120
_OWN = ("name", "seed")
"""Settings in which the runs of one method differ."""


def compare(context: Context, names: Sequence[str], x: str) -> Data:
    """Best values over trials, cost or time of studies; those that differ in their seeds alone are one group.

    Groups are compared at the largest place on the axis that all their runs have reached, pair by pair with the
    Mann-Whitney test, adjusted by Holm's method.

    Raises:
        InvalidInputError: If the studies do not look for the same metric.
    """
    if x not in X_AXES:
        raise InvalidInputError(f"studies are compared over one of {', '.join(X_AXES)}, got {x!r}")
    if not 0 < len(names) <= MOST_STUDIES:
        raise InvalidInputError(f"choose between one study and {MOST_STUDIES} to compare, got {len(names)}")
    frames = [context.frames.named(name) for name in dict.fromkeys(names)]
    goals = {str(frame.study.goals[0]) for frame in frames}
    if len(goals) > 1:
        raise InvalidInputError(f"the studies look for different things ({', '.join(sorted(goals))}): choose others")
    curves = {frame.study.name: _curve(frame, x) for frame in frames}
    groups: dict[str, list[Frame]] = {}
    for frame in frames:
        rest = {key: value for key, value in frame.study.config.items() if key not in _OWN}
        groups.setdefault(json.dumps(rest, sort_keys=True), []).append(frame)
    members = list(groups.values())
    end = min((curve[0][-1] for curve in curves.values() if len(curve[0])), default=0.0)
    maximize = frames[0].study.goals[0].maximize
    shown = [_group(group, curves, end) for group in members]
    return plain(  # type: ignore[no-any-return]
        {
            "x": x,
            "goal": {"metric": frames[0].study.goals[0].metric, "maximize": maximize},
            "common_end": end,
            "groups": shown,
            "tests": _tests(shown, maximize=maximize),
            "differences": _differences(frames),
        }
    )


def _curve(frame: Frame, x: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places on the axis and the best value from there on; the last place is the end of the run."""
    with frame.held():
        axis, places = frame.column(x), best_places(frame)
        done = frame.finishing()
        ends = axis[done[-1:]]
        values = frame.goal()[places]
        return np.concatenate([axis[places], ends]), np.concatenate([values, values[-1:]])[: len(places) + len(ends)]


def _group(group: Sequence[Frame], curves: Any, end: float) -> Data:
    info = group[0].study
    starts = [curves[f.study.name][0][0] for f in group if len(curves[f.study.name][1])]
    low = max(starts, default=0.0)
    stop = min((curves[f.study.name][0][-1] for f in group if len(curves[f.study.name][0])), default=0.0)
    grid = np.unique(np.concatenate([np.linspace(low, stop, _GRID), [end]])) if starts else np.empty(0)
    grid = grid[(grid >= low) & (grid <= stop)]
    values = np.array([_at(curves[f.study.name], grid) for f in group])
    finals = [float(_at(curves[f.study.name], np.array([end]))[0]) for f in group]
    filled = bool(len(grid)) and bool(len(values))
    return {
        "label": info.strategy,
        "space": info.space,
        "task": info.task,
        "studies": [f.study.name for f in group],
        "grid": grid,
        "median": np.median(values, axis=0) if filled else [],
        "low": np.min(values, axis=0) if filled else [],
        "high": np.max(values, axis=0) if filled else [],
        "finals": finals,
    }


def _at(curve: tuple[NDArray[np.float64], NDArray[np.float64]], grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """The best value of a run at places on the axis, NaN before its first."""
    axis, values = curve
    if not len(values):
        return np.full(len(grid), np.nan)
    places = np.searchsorted(axis, grid, side="right") - 1
    found: NDArray[np.float64] = np.where(places >= 0, values[np.clip(places, 0, None)], np.nan)
    return found


def _tests(groups: Sequence[Data], *, maximize: bool) -> list[Data]:
    pairs = []
    for first, second in itertools.combinations(range(len(groups)), 2):
        a, b = (np.array([v for v in groups[g]["finals"] if np.isfinite(v)]) for g in (first, second))
        row: Data = {"first": first, "second": second, "n": [len(a), len(b)], "p": None, "superiority": None}
        if len(a) and len(b):
            gains = np.sign(a[:, None] - b[None, :]) * (1 if maximize else -1)
            row["superiority"] = float((gains > 0).mean() + (gains == 0).mean() / 2)
        if len(a) > 1 and len(b) > 1:
            row["p"] = float(stats.mannwhitneyu(a, b).pvalue)
        pairs.append(row)
    tested = sorted((row for row in pairs if row["p"] is not None), key=lambda row: row["p"])
    highest = 0.0
    for rank, row in enumerate(tested):
        highest = row["adjusted"] = min(1.0, max(highest, row["p"] * (len(tested) - rank)))
    return pairs


def _differences(frames: Sequence[Frame]) -> list[Data]:
    """Settings in which the studies differ, with the value of each."""
    configs = [frame.study.config for frame in frames]
    out = []
    for key in dict.fromkeys(key for config in configs for key in config):
        values = [json.dumps(config.get(key), sort_keys=True) for config in configs]
        if key != "name" and len(set(values)) > 1:
            out.append({"setting": key, "values": values})
    return out
