"""An executor with a simulated clock: parallel searches over a table in seconds instead of GPU-years."""

import heapq
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar, final

from nasplat.config import Execution
from nasplat.errors import InvalidInputError, TrialTimeoutError
from nasplat.executors import TrialExecutor, called
from nasplat.measurement import Failure, Measurement
from nasplat.worker import Report

T = TypeVar("T")


@final
@dataclass(order=True, slots=True)
class _Running:
    """A call whose result is known and not yet given, ordered by its end, then as submitted."""

    ends: float
    number: int
    future: Future[Any] = field(compare=False)
    result: Any = field(compare=False)
    error: BaseException | None = field(compare=False)


@final
class SimulatedExecutor(TrialExecutor):
    """Runs every call at once in the calling process, and gives its result when a simulated clock says so.

    A call starts when it is submitted or, if all workers are busy, when the first of them is free, and takes
    the ``cost.seconds`` of the measurement that it returns. The clock stands still but in ``wait``, which
    moves it to the end of the next call. Calls that end together are given together. Everything is
    deterministic where costs are: those of a table are, those that were measured are not. A failed call takes
    no simulated time, because what a failed look-up took is the time of this machine.

    Args:
        workers: How many calls run at a time.
        time_limit: Simulated seconds after which a call is given up with ``TrialTimeoutError``, or None.
        driver_time: Whether the real time that the caller spends between two waits passes on the simulated clock too,
            during which free workers are idle. It shows how many workers a driver can keep busy.

    Attributes:
        now: The clock, in seconds since the executor was made.
        busy_seconds: That all workers together have measured.
    """

    def __init__(self, workers: int, time_limit: float | None = None, *, driver_time: bool = False) -> None:
        super().__init__()
        self.capacity = workers
        self.now = 0.0
        self._time_limit = time_limit
        self._free_at = [0.0] * workers
        self._running: list[_Running] = []
        self._submitted = 0
        self.busy_seconds = 0.0
        self._driver_time = driver_time
        self._returned_at = time.perf_counter()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run now; the future is done when the clock has reached the call's end."""
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        started = time.perf_counter()
        self._pass_driver_time(started)
        done = called(fn, *args, **kwargs)
        error = done.exception()
        result = done.result() if error is None else None
        seconds = _seconds(result)
        if self._time_limit is not None and seconds > self._time_limit:
            seconds, result = self._time_limit, None
            error = TrialTimeoutError(f"stopped at the time limit of {self._time_limit:g} simulated seconds")
        self._returned_at = time.perf_counter()
        self.busy_seconds += seconds
        ends = max(self.now, heapq.heappop(self._free_at)) + seconds
        heapq.heappush(self._free_at, ends)
        heapq.heappush(self._running, _Running(ends, self._submitted, future, result, error))
        self._submitted += 1
        return future

    def clock(self) -> float:
        """Simulated seconds since the executor was made."""
        return self.now

    def wait(self, timeout: float | None = None) -> list[Future[Any]]:
        """Move the clock to the next end of a call, and return all calls that have ended by then.

        Args:
            timeout: Simulated seconds.
        """
        self._pass_driver_time(time.perf_counter())
        ended: list[Future[Any]] = []
        if timeout is not None and (not self._running or self._running[0].ends > self.now + timeout):
            self.now += timeout
        elif self._running:
            self.now = max(self.now, self._running[0].ends)
        while self._running and self._running[0].ends <= self.now:
            call = heapq.heappop(self._running)
            if call.error is None:
                call.future.set_result(call.result)
            else:
                call.future.set_exception(call.error)
            ended.append(call.future)
        self._returned_at = time.perf_counter()
        return ended

    def _pass_driver_time(self, until: float) -> None:
        if self._driver_time:
            self.now += until - self._returned_at


def _seconds(result: object) -> float:
    outcome = result.outcome if isinstance(result, Report) else result
    match outcome:
        case Measurement():
            return outcome.cost.seconds
        case Failure() | None:
            return 0.0
        case _:
            raise TypeError(f"a simulated call returns a Measurement or a Failure, got {type(outcome).__name__}")


def simulated(execution: Execution) -> TrialExecutor:
    """The executor that replays the costs of a table on simulated workers."""
    if execution.workers is None:
        raise InvalidInputError("say how many workers are simulated: --workers N")
    return SimulatedExecutor(execution.workers, execution.time_limit)
