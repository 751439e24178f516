"""The live display of a running study."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from nasplat.cli import output
from nasplat.objective import Goal
from nasplat.study import Observer, Study
from nasplat.trial import Trial, TrialState

_LINE_EVERY_SECONDS = 10.0
_WINDOW_SECONDS = 30.0


class _Counts:
    """What the display shows, kept up to date by one call a trial."""

    def __init__(self) -> None:
        self.done = self.failed = self.saved = self.counted = self.scored = 0
        self.best: float | None = None
        self._moments: list[float] = []

    def add(self, study: Study, trial: Trial) -> None:
        own = trial.proposal.fidelity == study.config.fidelity
        self.done += 1
        self.failed += trial.state is TrialState.FAILED
        self.saved += trial.saved
        self.counted += own and (trial.repeat_of is None or study.config.budget.count_repeats)
        self.scored += not own
        goal = study.objective.goals[0]
        if own and trial.measurement is not None and study.objective.feasible(trial.measurement):
            value = trial.measurement[goal.metric]
            if self.best is None or goal.loss(value) < goal.loss(self.best):
                self.best = value
        now = time.monotonic()
        self._moments = [*[m for m in self._moments if now - m < _WINDOW_SECONDS][-1_000:], now]

    def rate(self) -> float:
        """Trials a second over the last half minute."""
        span = self._moments[-1] - self._moments[0] if len(self._moments) > 1 else 0.0
        return (len(self._moments) - 1) / span if span > 0 else 0.0

    def text(self, study: Study) -> str:
        goal: Goal = study.objective.goals[0]
        best = "–" if self.best is None else f"{self.best:.4g}"
        running = len(study.trials) - self.done
        rate = self.rate()
        speed = f"{rate:.1f} trials/s" if rate >= 1 else f"{60 * rate:.1f} trials/min" if rate else "–"
        parts = [f"{self.done} done", f"{running} running", f"{self.failed} failed", f"{self.saved} saved"]
        left = self._left(study, rate)
        return " · ".join([*parts, f"best {goal.metric} {best}", speed, *([left] if left else [])])

    def _left(self, study: Study, rate: float) -> str:
        budget = study.config.budget.trials
        if budget is None or not rate or not self.counted:
            return ""
        seconds = max(budget - self.counted, 0) / rate
        return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"


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
