"""The trials of one study: a page of the table, the curve of the best so far, points to draw, the Pareto front."""

import json
import struct
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from nasplat.dashboards.views.context import Context, Data, plain
from nasplat.errors import InvalidInputError
from nasplat.objective import Goal
from nasplat.pareto import non_dominated
from nasplat.storage.browsing import COLUMNS, Frame, details

MOST_POINTS = 200_000
"""Of one drawing."""
X_AXES = ("order", "cost", "elapsed")
GOAL = "goal"
"""Name of a column: the first goal's metric, of the trials that count."""


@final
@dataclass(frozen=True, slots=True)
class Selection:
    """Which trials, and in which order.

    Attributes:
        where: A condition, or nothing.
        sort: The column that orders.
        descending: Whether the largest comes first.
        offset: How many come before the page.
        limit: Rows of the page.
    """

    where: str | None = None
    sort: str = "number"
    descending: bool = False
    offset: int = 0
    limit: int = 100


def table(context: Context, name: str, chosen: Selection) -> Data:
    """A page of the trials of a study, and how many there are in all."""
    frame = context.frames.named(name)
    with frame.held():
        places = frame.sorted_places(chosen.sort, chosen.descending, chosen.where)
        numbers = frame.stored("number")[places[chosen.offset : chosen.offset + chosen.limit]].tolist()
        total = len(places)
    rows = details.trials(context.database, frame.study, numbers)
    return {"total": total, "trials": len(frame), "offset": chosen.offset, "rows": rows}


def curve(context: Context, name: str, x: str) -> Data:
    """The best value so far of the first goal: each improvement, and where the axis ends.

    Args:
        context: The store.
        name: Of the study.
        x: ``order``, ``cost`` or ``elapsed``.
    """
    if x not in X_AXES:
        raise InvalidInputError(f"the curve is drawn over one of {', '.join(X_AXES)}, got {x!r}")
    frame = context.frames.named(name)
    with frame.held():
        found: Data = frame.memo(("curve", x), lambda: _curve(frame, x))
        return found


def _curve(frame: Frame, x: str) -> Data:
    axis, places = frame.column(x), best_places(frame)
    values = frame.goal()[places]
    end = float(np.nanmax(axis)) if np.isfinite(axis).any() else 0.0
    return {
        "x": x,
        "end": end,
        "steps": [
            [a, b, n] for a, b, n in zip(axis[places].tolist(), values.tolist(), _numbers(frame, places), strict=True)
        ],
    }


def best_places(frame: Frame) -> NDArray[np.intp]:
    """Places of the trials that were better than all that had finished before them."""
    done = frame.finishing()
    losses = frame.stored("objective_0")[done]
    losses = np.where(np.isfinite(losses), losses, np.inf)
    before = np.concatenate([[np.inf], np.minimum.accumulate(losses)[:-1]]) if len(losses) else losses
    return done[losses < before]


def _numbers(frame: Frame, places: NDArray[np.intp]) -> list[int]:
    numbers: list[int] = frame.stored("number")[places].tolist()
    return numbers


@final
@dataclass(frozen=True, slots=True)
class Axes:
    """What is drawn.

    Attributes:
        x: Column or metric.
        y: Column or metric.
        color: Column or metric, or nothing.
        where: A condition, or nothing.
        most: Points; of more trials so many are drawn at random.
        after: Trials that the caller has already: only those behind them are given.
    """

    x: str
    y: str
    color: str | None = None
    where: str | None = None
    most: int = MOST_POINTS
    after: int = 0


def points(context: Context, name: str, axes: Axes) -> bytes:
    """Trials as columns of 32-bit numbers.

    Four bytes with the length of a JSON text, the text, filled up with blanks to a multiple of four, and then the
    columns one after the other: numbers of the trials as unsigned integers, x, y and colour as floats; all
    little-endian.
    """
    frame = context.frames.named(name)
    with frame.held():
        xs, ys = _column(frame, axes.x), _column(frame, axes.y)
        drawn = np.isfinite(xs) & np.isfinite(ys) & frame.matching(axes.where)
        if GOAL in (axes.x, axes.y):
            drawn &= frame.stored("repeat_of") < 0
        places = np.flatnonzero(drawn)
        matched = len(places)
        places = places[np.searchsorted(frame.stored("number")[places], axes.after) :]
        if len(places) > axes.most:
            places = np.sort(np.random.default_rng(0).choice(places, axes.most, replace=False))
        columns = [frame.stored("number")[places].astype("<u4"), xs[places].astype("<f4"), ys[places].astype("<f4")]
        columns.append(_column(frame, axes.color)[places].astype("<f4") if axes.color else np.zeros(len(places), "<f4"))
        last = int(frame.stored("number")[-1]) if len(frame) else -1
    header = {"count": len(places), "matched": matched, "last": last, "version": frame.version}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 4)
    return struct.pack("<I", len(text)) + text + b"".join(c.tobytes() for c in columns)


def _column(frame: Frame, name: str) -> NDArray[np.float64]:
    return frame.goal() if name == GOAL else frame.column(name)


def front(context: Context, name: str, x: Goal, y: Goal, where: str | None) -> Data:
    """What no other trial of a study beats in two metrics, and the hypervolume that it dominates.

    The hypervolume's reference is the worst value of each metric among the trials that satisfy the condition.
    """
    frame = context.frames.named(name)
    with frame.held():
        found: Data = frame.memo(("front", x, y, where), lambda: _front(frame, x, y, where))
        return found


def _front(frame: Frame, x: Goal, y: Goal, where: str | None) -> Data:
    if x.metric == y.metric:
        raise InvalidInputError(f"a front needs two different metrics, got {x.metric!r} twice")
    xs, ys = _column(frame, x.metric), _column(frame, y.metric)
    places = np.flatnonzero(np.isfinite(xs) & np.isfinite(ys) & frame.matching(where) & (frame.stored("repeat_of") < 0))
    losses = np.stack([xs[places] * (-1 if x.maximize else 1), ys[places] * (-1 if y.maximize else 1)], axis=1)
    chosen = _staircase(losses)
    worst = losses.max(0) if len(losses) else np.zeros(2)
    on_front = places[chosen]
    return plain(  # type: ignore[no-any-return]
        {
            "trials": len(places),
            "points": np.stack([frame.stored("number")[on_front], xs[on_front], ys[on_front]], axis=1),
            "hypervolume": _hypervolume(losses[chosen], worst),
            "reference": [-worst[0] if x.maximize else worst[0], -worst[1] if y.maximize else worst[1]],
        }
    )


def _staircase(losses: NDArray[np.float64]) -> NDArray[np.intp]:
    """Indices of the non-dominated points of ``(N, 2)``, by their first coordinate, equal points once."""
    if not len(losses):
        return np.empty(0, np.intp)
    # What is not among the best of its first coordinate cannot be on the front; few are left for the general rule.
    order = np.lexsort((losses[:, 1], losses[:, 0]))
    second = losses[order, 1]
    better = np.concatenate([[True], second[1:] < np.minimum.accumulate(second)[:-1]])
    candidates = order[better]
    on_front: NDArray[np.intp] = candidates[non_dominated(losses[candidates])]
    return on_front


def _hypervolume(front: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Area between a front, sorted by its first coordinate, and the reference; smaller coordinates are better."""
    right = np.concatenate([front[1:, 0], reference[:1]])
    return float(((right - front[:, 0]) * (reference[1] - front[:, 1])).sum())


def known_columns(metrics: list[str]) -> list[str]:
    """All that may be drawn and sorted by."""
    return [*COLUMNS, *metrics]


def trial(context: Context, name: str, number: int) -> Data:
    """All about one trial."""
    info = context.database.study(name)
    return details.trial(context.database, info, number)
