"""All trials of one study as columns of numbers, which follow a search that is running."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Select, case, func, select

from nasplat.errors import InvalidInputError, unknown_name
from nasplat.measurement import FailureReason
from nasplat.storage import schema as s
from nasplat.storage.browsing.database import Database, StudyInfo
from nasplat.storage.browsing.totals import STATES, Totals
from nasplat.storage.bulk import CHUNK

Array: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]
Places: TypeAlias = NDArray[np.intp]

FINISHED = STATES.index("completed")
"""A frame holds the index of a trial's state: of this one and later ones nothing changes any more."""

REASONS = ("unknown", *FailureReason)
"""Why trials fail; a frame holds the index of one of them."""
_DTYPE = np.dtype(
    [
        *((name, "i8") for name in ("number", "measurement", "repeat_of")),
        *((name, "u1") for name in ("state", "saved", "reason")),
        *((name, "i4") for name in ("epochs", "attempts")),
        *((name, "f8") for name in ("seconds", "gpu_seconds", "asked_at", "finished_at", "objective_0")),
    ]
)
_PAIR = np.dtype([("number", "i8"), ("value", "f8")])
COLUMNS = ("number", "state", "epochs", "attempts", "seconds", "gpu_seconds", "order", "cost", "elapsed")
"""What may be drawn and sorted by beside metrics: the last three are the place of a trial in the order of finishing,
the paid seconds up to then and the seconds since the study's first proposal."""
_MOST_EXTRAS = 40
"""Columns of metrics and conditions that a frame keeps."""


@final
@dataclass(slots=True)
class _Extra:
    """A column that is read when it is wanted, up to ``rows``; ``stale`` rows have changed since."""

    values: Array
    rows: int = 0
    stale: set[int] = field(default_factory=set)


@final
class Frame:
    """The trials of one study in the order of their numbers; may be shared between threads.

    Args:
        database: Where they are.
        study: Which one.

    Attributes:
        study: As it was when it was last looked at.
        version: Grows when a trial is added or changes.
        ready: Whether it has been read.
    """

    def __init__(self, database: Database, study: StudyInfo) -> None:
        self._database = database
        self.study = study
        self.version = 0
        self.ready = False
        self._lock = threading.RLock()
        self._rows = np.empty(0, _DTYPE)
        self._count = 0
        self._pending: set[int] = set()
        self._extras: dict[tuple[str, str], _Extra] = {}
        self._memo: dict[Any, tuple[int, Any]] = {}

    @contextmanager
    def held(self) -> Iterator[None]:
        """A block in which no other thread brings the columns up to date."""
        with self._lock:
            yield

    @property
    def bytes(self) -> int:
        """Memory that the columns take."""
        return int(self._rows.nbytes + sum(e.values.nbytes for e in self._extras.values()))

    def __len__(self) -> int:
        return self._count

    # Following the database --------------------------------------------------------------------------------------

    def refresh(self) -> bool:
        """Read what is new, and say whether there is anything."""
        with self._lock:
            changed = self._read_pending()
            last = int(self._rows["number"][self._count - 1]) if self._count else -1
            changed |= self._append(_TRIALS.where(*self._mine(), s.trial.c.number > last))
            self.version += changed
            self.ready = True
            return changed

    def _mine(self) -> tuple[ColumnElement[bool], ...]:
        return (s.trial.c.study_id == self.study.id,)

    def _append(self, statement: Select[Any]) -> bool:
        new = self._database.records(_ordered(statement), _DTYPE)
        if not len(new):
            return False
        count = self._count + len(new)
        if count > len(self._rows):
            grown = np.empty(max(count, len(self._rows) * 3 // 2), _DTYPE)
            grown[: self._count] = self._rows[: self._count]
            self._rows = grown
        self._rows[self._count : count] = new
        self._pending |= set((np.flatnonzero(new["state"] < FINISHED) + self._count).tolist())
        self._count = count
        return True

    def _read_pending(self) -> bool:
        changed, places = False, sorted(self._pending)
        numbers = self._rows["number"][places].tolist()
        for start in range(0, len(places), CHUNK):
            statement = _TRIALS.where(*self._mine(), s.trial.c.number.in_(numbers[start : start + CHUNK]))
            rows = self._database.records(_ordered(statement), _DTYPE)
            for place, row in zip(places[start : start + CHUNK], rows, strict=True):
                if row.tobytes() != self._rows[place].tobytes():
                    self._rows[place] = row
                    changed = True
                    for extra in self._extras.values():
                        extra.stale.add(place)
                if row["state"] >= FINISHED:
                    self._pending.discard(place)
        return changed

    # Columns -----------------------------------------------------------------------------------------------------

    def stored(self, name: str) -> NDArray[Any]:
        """A column as it is stored, ``(N,)``; not to be kept beyond a block of ``held``."""
        column: NDArray[Any] = self._rows[name][: self._count]
        return column

    def column(self, name: str) -> Array:
        """One of ``COLUMNS``, an objective or a metric as numbers ``(N,)``, NaN where a trial has none.

        Raises:
            InvalidInputError: If there is none of that name.
        """
        with self._lock:
            if name in ("order", "cost", "elapsed"):
                return self._run_columns()[name]
            if name in _DTYPE.names and name not in ("measurement", "repeat_of", "reason"):  # type: ignore[operator]
                return self.stored(name).astype(float)
            return self._metric(name)

    def goal(self) -> Array:
        """The first goal's metric of the trials that count, ``(N,)``: NaN for others, such as infeasible ones."""
        losses = self.stored("objective_0")
        values: Array = -losses if self.study.goals[0].maximize else losses.copy()
        values[~np.isfinite(values)] = np.nan
        return values

    def _metric(self, name: str) -> Array:
        extra = self._extra("metric", name, lambda: self._check_metric(name))

        def read(condition: ColumnElement[bool]) -> Select[Any]:
            return (
                select(s.trial.c.number, s.metric.c.value)
                .join(s.metric, s.metric.c.measurement_id == s.trial.c.measurement_id)
                .where(*self._mine(), s.metric.c.name == name, condition)
            )

        return self._filled(extra, read, np.nan)

    def _check_metric(self, name: str) -> None:
        if name not in (metrics := self._database.metrics()):
            raise unknown_name("metric or column", name, [*COLUMNS, *metrics])

    def matching(self, where: str | None) -> Mask:
        """Which trials satisfy a condition, ``(N,)``; without one, all.

        Raises:
            InvalidInputError: If it cannot be read.
        """
        with self._lock:
            if not where:
                return np.ones(self._count, dtype=bool)
            wanted = self._database.condition(where)
            extra = self._extra("where", where, lambda: None)

            def read(condition: ColumnElement[bool]) -> Select[Any]:
                return select(s.trial.c.number, 1.0 + 0 * s.trial.c.number).where(*self._mine(), wanted, condition)

            return self._filled(extra, read, 0.0) > 0

    def _extra(self, kind: str, name: str, check: Callable[[], None]) -> _Extra:
        key = kind, name
        if key not in self._extras:
            check()
            if len(self._extras) >= _MOST_EXTRAS:
                del self._extras[next(iter(self._extras))]
            self._extras[key] = _Extra(np.empty(0))
        return self._extras[key]

    def _filled(self, extra: _Extra, read: Callable[[ColumnElement[bool]], Select[Any]], empty: float) -> Array:
        numbers = self.stored("number")
        if len(extra.values) < self._count:
            extra.values = np.concatenate([extra.values, np.full(len(self._rows) - len(extra.values), empty)])
        wanted = [s.trial.c.number >= int(numbers[extra.rows])] if extra.rows < self._count else []
        stale = sorted(place for place in extra.stale if place < extra.rows)
        extra.values[stale] = empty
        for start in range(0, len(stale), CHUNK):
            wanted.append(s.trial.c.number.in_(numbers[stale[start : start + CHUNK]].tolist()))
        for condition in wanted:
            found = self._database.records(read(condition), _PAIR)
            found = found[found["number"] <= numbers[-1]]  # what has come since is read with the next refresh
            extra.values[np.searchsorted(numbers, found["number"])] = found["value"]
        extra.rows = self._count
        extra.stale.clear()
        return extra.values[: self._count]

    # What follows from the columns --------------------------------------------------------------------------------

    def memo(self, key: Any, compute: Callable[[], Any]) -> Any:
        """What was computed for this version of the columns under a key."""
        with self._lock:
            if key not in self._memo or self._memo[key][0] != self.version:
                if len(self._memo) >= _MOST_EXTRAS:
                    self._memo.clear()
                self._memo[key] = self.version, compute()
            return self._memo[key][1]

    def finishing(self) -> Places:
        """Places of the finished trials in the order in which they finished."""
        return np.asarray(self.memo("finishing", self._finishing))

    def _finishing(self) -> Places:
        done = np.flatnonzero(self.stored("state") >= FINISHED)
        return done[np.lexsort((self.stored("number")[done], self.stored("finished_at")[done]))]

    def paid(self) -> Array:
        """Seconds that were paid for each trial."""
        seconds = np.nan_to_num(self.stored("seconds"), nan=0.0)
        return np.where(self.stored("saved") > 0, 0.0, seconds)

    def totals(self) -> Totals:
        """Counts and sums over all trials."""
        found: Totals = self.memo("totals", self._totals)
        return found

    def _totals(self) -> Totals:
        saved, done, seconds = self.stored("saved") > 0, self.finishing(), self.paid()
        own = self.stored("epochs") == self.study.config.get("epochs")
        distinct = (self.stored("state") == STATES.index("completed")) & (self.stored("repeat_of") < 0)
        gpu_seconds = np.where(saved, 0.0, np.nan_to_num(self.stored("gpu_seconds"), nan=0.0))
        return Totals(
            states=tuple(np.bincount(self.stored("state"), minlength=len(STATES)).tolist()),
            saved=int(saved.sum()),
            saved_seconds=float(np.nansum(np.where(saved, self.stored("seconds"), 0.0))),
            repeats=int((self.stored("repeat_of") >= 0).sum()),
            measured=int((distinct & own).sum()),
            paid_seconds=float(seconds.sum()),
            gpu_seconds=float(gpu_seconds.sum()),
            first_at=float(self.stored("asked_at").min()) if len(self) else None,
            last_at=float(self.stored("finished_at")[done[-1]]) if len(done) else None,
            best=self._best(),
            version=self.version,
        )

    def _best(self) -> tuple[int, float] | None:
        losses = self.stored("objective_0")
        losses = np.where(np.isfinite(losses), losses, np.inf)
        if not np.isfinite(losses).any():
            return None
        place = int(np.argmin(losses))
        return int(self.stored("number")[place]), float(self.goal()[place])

    def _run_columns(self) -> dict[str, Array]:
        def compute() -> dict[str, Array]:
            done = self.finishing()
            out = {name: np.full(self._count, np.nan) for name in ("order", "cost", "elapsed")}
            out["order"][done] = np.arange(1, len(done) + 1)
            out["cost"][done] = np.cumsum(self.paid()[done])
            first = np.nanmin(self.stored("asked_at")) if self._count else 0.0
            out["elapsed"][done] = self.stored("finished_at")[done] - first
            return out

        found: dict[str, Array] = self.memo("run columns", compute)
        return found

    def sorted_places(self, by: str, descending: bool, where: str | None) -> Places:
        """Places of the trials that satisfy a condition, in the order of a column; those without a value come last."""
        with self._lock:

            def compute() -> Places:
                places = np.flatnonzero(self.matching(where))
                if by == "number":
                    return places[::-1] if descending else places
                values = self.column(by)[places]
                keys = -values if descending else values
                return places[np.argsort(keys, kind="stable")]

            return np.asarray(self.memo(("sorted", by, descending, where), compute))


def _ordered(statement: Select[Any]) -> Select[Any]:
    return statement.order_by(s.trial.c.number)


def _columns() -> Sequence[ColumnElement[Any]]:
    t, m = s.trial.c, s.measurement.c
    computed: dict[str, ColumnElement[Any]] = {
        "measurement": func.coalesce(t.measurement_id, 0),
        "repeat_of": func.coalesce(t.repeat_of, -1),
        "state": case({name: i for i, name in enumerate(STATES)}, value=t.state, else_=0),
        "saved": case((t.saved, 1), else_=0),
        "reason": case({name: i for i, name in enumerate(REASONS)}, value=t.failure_reason, else_=0),
        "seconds": func.coalesce(m.seconds, t.failure_seconds),
        "gpu_seconds": func.coalesce(m.gpu_seconds, t.failure_gpu_seconds),
    }
    assert _DTYPE.names is not None  # it is structured
    return [computed[name].label(name) if name in computed else t[name] for name in _DTYPE.names]


_TRIALS = select(*_columns()).join(s.measurement, s.measurement.c.id == s.trial.c.measurement_id, isouter=True)


def check_columns(names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse names that are no columns.

    Raises:
        InvalidInputError: With the nearest one that is.
    """
    for name in names:
        if name not in known:
            raise unknown_name("column", name, known)
    if len(set(names)) != len(names):
        raise InvalidInputError(f"columns {', '.join(names)} are named twice; name each once")
