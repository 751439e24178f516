"""The live display of a running study."""

import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from nasplat.cli import output
from nasplat.study import Observer, Study
from nasplat.trial import Trial, TrialState

_LINE_EVERY_SECONDS = 10.0
_REMEMBERED = 50
"""Trials over which the rate is taken."""


class _Counts:
    """What the display shows, kept up to date by one call a trial; a resumed study starts with what it had."""

    def __init__(self) -> None:
        self.done = self.failed = self.saved = self.counted = 0
        self.best: float | None = None
        self._started = False
        self._done_at: deque[float] = deque(maxlen=_REMEMBERED)
        self._counted_at: deque[float] = deque(maxlen=_REMEMBERED)

    def add(self, study: Study, trial: Trial) -> None:
        if not self._started:
            self._started = True
            for earlier in study.trials:
                if earlier.told is not None and earlier.number != trial.number:
                    self._count(study, earlier)
        now = time.monotonic()
        self._done_at.append(now)
        if self._count(study, trial):
            self._counted_at.append(now)

    def _count(self, study: Study, trial: Trial) -> bool:
        """Count a finished trial; whether it is one of the budget."""
        own = trial.proposal.is_at(study.config.fidelity)
        counted = own and (trial.repeat_of is None or study.config.budget.count_repeats)
        self.done += 1
        self.failed += trial.state is TrialState.FAILED
        self.saved += trial.saved
        self.counted += counted
        goal = study.objective.goals[0]
        if own and trial.measurement is not None and study.objective.feasible(trial.measurement):
            value = trial.measurement[goal.metric]
            if self.best is None or goal.loss(value) < goal.loss(self.best):
                self.best = value
        return counted

    def text(self, study: Study) -> str:
        best = "–" if self.best is None else f"{self.best:.4g}"
        running = len(study.trials) - self.done
        rate = _rate(self._done_at)
        speed = f"{rate:.1f} trials/s" if rate >= 1 else f"{60 * rate:.1f} trials/min" if rate else "–"
        parts = [f"{self.done} done", f"{running} running", f"{self.failed} failed", f"{self.saved} saved"]
        left = self._left(study)
        return " · ".join([*parts, f"best {study.objective.goals[0].metric} {best}", speed, *([left] if left else [])])

    def _left(self, study: Study) -> str:
        budget, rate = study.config.budget.trials, _rate(self._counted_at)
        if budget is None or not rate:
            return ""
        seconds = max(budget - self.counted, 0) / rate
        return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"


def _rate(moments: Sequence[float]) -> float:
    """Events a second; 0 where there are too few to tell."""
    span = moments[-1] - moments[0] if len(moments) > 1 else 0.0
    return (len(moments) - 1) / span if span > 0 else 0.0


@contextmanager
def live(quiet: bool) -> Iterator[Observer]:
    """An observer that keeps a progress line: live on a terminal, a line every ten seconds elsewhere."""
    counts = _Counts()
    if quiet:
        yield counts.add
        return
    if not sys.stderr.isatty():
        last = time.monotonic()

        def line(study: Study, trial: Trial) -> None:
            nonlocal last
            counts.add(study, trial)
            if time.monotonic() - last >= _LINE_EVERY_SECONDS:
                last = time.monotonic()
                output.note(counts.text(study))

        yield line
        return
    columns = (TextColumn("{task.fields[name]}"), BarColumn(bar_width=30), TextColumn("{task.description}"))
    with Progress(*columns, TimeElapsedColumn(), console=output.errors_console(), transient=True) as progress:
        bar = progress.add_task("", total=None, name="searching")

        def update(study: Study, trial: Trial) -> None:
            counts.add(study, trial)
            total = study.config.budget.trials
            progress.update(
                bar,
                description=counts.text(study),
                total=total,
                completed=counts.counted,
                name=study.config.name,
            )

        yield update


@contextmanager
def observing(quiet: bool, metrics: str | None) -> Iterator[list[Observer]]:
    """The progress line, and figures for Prometheus where an address is given."""
    with live(quiet) as line:
        if metrics is None:
            yield [line]
            return
        from nasplat.metrics import PrometheusMetrics

        served = PrometheusMetrics(metrics)
        try:
            yield [line, served]
        finally:
            served.close()
