"""Trials at work: starts them on an executor, and says what became of each."""

import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias, final

from nasplat.attempt import Attempt, Ending
from nasplat.errors import MemoryLimitError, TrialEndedError, TrialTimeoutError, WorkerLostError
from nasplat.executors import TrialExecutor
from nasplat.measurement import Failure, FailureReason, Measurement
from nasplat.recorder import EXPENSIVE_SECONDS
from nasplat.trial import Trial
from nasplat.worker import BenchConfig, Report, measure

Outcome: TypeAlias = Measurement | Failure

_MAX_ATTEMPTS = 3
"""Starts of a trial whose workers die, before it fails as lost."""
_REASONS: Mapping[type[TrialEndedError], FailureReason] = {
    WorkerLostError: FailureReason.LOST,
    TrialTimeoutError: FailureReason.TIMED_OUT,
    MemoryLimitError: FailureReason.OUT_OF_MEMORY,
}


class End(NamedTuple):
    """A trial that ended.

    Attributes:
        trial: As it was while it ran.
        outcome: What it gave.
        saved: Whether nothing was paid for it.
        seconds: From its start to its end.
        attempt: The start that ended, where it is worth a record.
    """

    trial: Trial
    outcome: Outcome
    saved: bool = False
    seconds: float = 0.0
    attempt: Attempt | None = None


class Loss(NamedTuple):
    """A trial whose worker died, and that is to be started again.

    Attributes:
        trial: As it will be.
        attempt: The start that was lost.
        message: What the executor said.
    """

    trial: Trial
    attempt: Attempt
    message: str


class _Start(NamedTuple):
    """A trial that runs: since when by the executor's clock, and by the calendar."""

    trial: Trial
    clock: float
    at: float


@final
class Crew:
    """The trials that an executor has.

    Args:
        executor: Runs them; stays the caller's to shut down.
        bench: What workers measure with.
    """

    def __init__(self, executor: TrialExecutor, bench: BenchConfig) -> None:
        self._executor = executor
        execution = bench.execution
        if execution.threads is None:
            bench = replace(bench, execution=replace(execution, threads=executor.threads))
        self._bench = bench
        self._running: dict[Future[Any], _Start] = {}

    def __len__(self) -> int:
        return len(self._running)

    @property
    def capacity(self) -> int:
        """Trials that keep every worker busy."""
        return self._executor.capacity

    @property
    def elastic(self) -> bool:
        """Whether the capacity may grow while nothing ends."""
        return self._executor.elastic

    def clock(self) -> float:
        """By which trials are dated."""
        return self._executor.clock()

    def start(self, trial: Trial) -> None:
        """Hand a trial to the executor."""
        start = _Start(trial, self._executor.clock(), time.time())
        self._running[self._executor.submit(measure, self._bench, trial.proposal)] = start

    def wait(self, timeout: float | None = None) -> list[End | Loss]:
        """What has ended since the last call, in the order of trials; as ``TrialExecutor.wait``."""
        ended = [self._what_became_of(future) for future in self._executor.wait(timeout)]
        return sorted(ended, key=lambda end: end.trial.number)

    def status(self) -> dict[str, Any]:
        """Workers and trials as plain data; called from any thread."""
        workers = [
            {"name": w.info.name, "host": w.info.host, "pid": w.info.pid, "gpu": w.info.gpu, "busy": w.busy}
            for w in self._executor.workers()
        ]
        return {"in_flight": len(self._running), "capacity": self._executor.capacity, "workers": workers}

    def _what_became_of(self, future: Future[Any]) -> End | Loss:
        start = self._running.pop(future)
        trial, seconds = start.trial, self._executor.clock() - start.clock
        error = future.exception()
        outcome: Outcome
        match error:
            case None:
                report: Report = future.result()
                outcome, ending = report.outcome, Ending(report.worker, log=report.log)
            case WorkerLostError() if trial.attempts < _MAX_ATTEMPTS:
                lost = _attempt(start, seconds, "lost", error.ending)
                return Loss(replace(trial, attempts=trial.attempts + 1), lost, str(error))
            case TrialEndedError():
                reason = next(r for kind, r in _REASONS.items() if isinstance(error, kind))
                gpu_seconds = seconds * self._bench.execution.gpus_per_worker
                outcome, ending = Failure(reason, str(error), seconds=seconds, gpu_seconds=gpu_seconds), error.ending
            case _:
                raise error
        ended = str(outcome.reason) if isinstance(outcome, Failure) else "completed"
        telling = seconds >= EXPENSIVE_SECONDS or ending.log or ended != "completed" or trial.attempts > 1
        attempt = _attempt(start, seconds, ended, ending) if telling else None
        return End(trial, outcome, seconds=seconds, attempt=attempt)


def _attempt(start: _Start, seconds: float, ended: str, ending: Ending) -> Attempt:
    return Attempt(start.trial.number, start.trial.attempts, start.at, seconds, ended, ending)
