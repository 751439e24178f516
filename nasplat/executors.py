"""Executors: where trials run. Each is a ``concurrent.futures.Executor`` that knows how many trials it wants."""

import concurrent.futures
import contextlib
import importlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from queue import Empty, SimpleQueue
from typing import Any, TypeVar, final

from pebble import ProcessExpired, ProcessPool

from nasplat.attempt import WorkerStatus
from nasplat.config import Execution
from nasplat.errors import InvalidInputError, TrialTimeoutError, WorkerLostError

T = TypeVar("T")

_POOL_TIMEOUT = ("Task timeout",)
"""First argument of the pool's own timeout error, which tells it from one that the call raised."""
_PATIENCE_SECONDS = 1.0
"""How often a wait looks whether the pool is still there."""


class TrialExecutor(concurrent.futures.Executor):
    """Runs calls on workers.

    A future raises ``WorkerLostError`` when its worker died, ``TrialTimeoutError`` when the call was stopped at
    the time limit and ``MemoryLimitError`` when it was stopped at the memory limit; the executor itself goes on in all
    three cases. ``submit`` and ``wait`` are called from one thread, and a future may need ``wait`` to become done.

    An executor's factory takes the ``Execution``, and raises ``InvalidInputError`` for what cannot be had.

    Attributes:
        capacity: Calls in flight that keep every worker busy; it may change while workers join and leave.
        threads: Of torch in each worker, so that all workers of a machine together use each core once; None leaves
            torch's own setting.
    """

    capacity: int = 1
    threads: int | None = None

    def __init__(self) -> None:
        self._ended: SimpleQueue[Future[Any]] = SimpleQueue()

    def clock(self) -> float:
        """Seconds since the epoch, or simulated seconds, by which trials are dated."""
        return time.time()

    def wait(self, timeout: float | None = None) -> list[Future[Any]]:
        """The futures that have become done since the last call, each once, in the order in which they ended.

        Args:
            timeout: Seconds after which to return with nothing; None waits for the first one, and may be given only
                while something is in flight.
        """
        try:
            ended = [self._ended.get(timeout=timeout)]
        except Empty:
            return []
        with contextlib.suppress(Empty):
            while True:
                ended.append(self._ended.get_nowait())
        return ended

    def workers(self) -> list[WorkerStatus]:
        """The workers as they are now; called from any thread."""
        return []


@final
class SerialExecutor(TrialExecutor):
    """Runs every call at once in the calling process; the trainer itself looks after the time limit."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run now; an exception stays in the future, an interrupt goes through."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - the contract of submit: the future carries any error
            future.set_exception(error)
        self._ended.put(future)
        return future


@final
class ProcessExecutor(TrialExecutor):
    """Runs calls in processes that are replaced when they die or exceed the time limit.

    Args:
        workers: Number of processes.
        time_limit: Seconds after which a call's process is killed, or None.
    """

    def __init__(self, workers: int, time_limit: float | None) -> None:
        super().__init__()
        self.capacity = workers
        self.threads = max(1, (os.cpu_count() or 1) // workers) if workers > 1 else None
        self._time_limit = time_limit
        self._pool = self._new_pool()
        self._open: set[Future[Any]] = set()
        self._worked = False
        self._shut_down = False

    def _new_pool(self) -> ProcessPool:
        # Spawned, not forked: forking a process whose torch threads run can deadlock.
        context = multiprocessing.get_context("spawn")
        return ProcessPool(max_workers=self.capacity, context=context, initializer=_prepare)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Queue a call; function, arguments and result travel by pickle between our own processes.

        Raises:
            RuntimeError: After ``shutdown``.
        """
        if self._shut_down:
            raise RuntimeError("the executor was shut down")
        if not self._pool.active:
            # An idle worker that dies takes the whole pool with it.
            self._end_pool("the worker pool broke")
            self._pool = self._new_pool()
        inner = self._pool.submit(fn, self._time_limit, *args, **kwargs)
        outer: Future[T] = Future()
        outer.set_running_or_notify_cancel()
        self._open.add(outer)
        outer.add_done_callback(self._open.discard)
        outer.add_done_callback(self._ended.put)
        inner.add_done_callback(lambda done: self._translate(done, outer))
        return outer

    def wait(self, timeout: float | None = None) -> list[Future[Any]]:
        """As every executor; a pool that breaks while we wait ends what it had."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = _PATIENCE_SECONDS if deadline is None else min(_PATIENCE_SECONDS, deadline - time.monotonic())
            ended = super().wait(max(0.0, left))
            if ended or (deadline is not None and time.monotonic() >= deadline):
                return ended
            if not self._pool.active:
                self._end_pool("the worker pool broke")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers; what runs is stopped at once with ``cancel_futures``, and its futures say so."""
        self._shut_down = True
        if cancel_futures:
            self._pool.stop()  # type: ignore[no-untyped-call]
        else:
            self._pool.close()  # type: ignore[no-untyped-call]
        if wait:
            self._pool.join()
            self._end_pool("the executor was stopped")

    def _end_pool(self, why: str) -> None:
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()
        # The pool forgets what it had not finished, and its threads have ended: nobody else completes these.
        for future in tuple(self._open):
            future.set_exception(WorkerLostError(why) if self._worked or self._shut_down else _never_worked())

    def _translate(self, done: Future[T], outer: Future[T]) -> None:
        """Copy an outcome from the pool's future to ours; called by the pool's threads."""
        error = done.exception()
        if not isinstance(error, BrokenProcessPool):
            self._worked = True
        if error is None:
            outer.set_result(done.result())
        elif isinstance(error, ProcessExpired):
            outer.set_exception(WorkerLostError(f"the worker process died with exit code {error.exitcode}"))
        elif isinstance(error, BrokenProcessPool):
            outer.set_exception(WorkerLostError(str(error)) if self._worked else _never_worked())
        elif isinstance(error, TimeoutError) and error.args[:1] == _POOL_TIMEOUT:
            outer.set_exception(TrialTimeoutError(f"stopped at the time limit of {self._time_limit:g} seconds"))
        else:
            outer.set_exception(error)


def _never_worked() -> InvalidInputError:
    # Trying again, as after a lost worker, would not help.
    return InvalidInputError(
        "the worker processes die before they can do anything; a script that starts them must keep what it runs under "
        "'if __name__ == \"__main__\":', because every worker imports it"
    )


def _prepare() -> None:
    # Ctrl-C reaches the whole process group; only the driver decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What takes seconds to import is imported now, not within the first trial's time limit.
    importlib.import_module("nasplat.worker")


def serial(execution: Execution) -> TrialExecutor:
    """The executor that runs trials one by one in this process."""
    if execution.workers not in (1, None):
        raise InvalidInputError(f"the serial executor has 1 worker, got {execution.workers}; use --executor process")
    return SerialExecutor()


def process(execution: Execution) -> TrialExecutor:
    """The executor that runs trials in worker processes of this machine."""
    cores = os.cpu_count() or 1
    workers = cores if execution.workers is None else execution.workers
    if not 1 <= workers <= 16 * cores:
        raise InvalidInputError(f"workers must be 1 or more and not far above the {cores} cores, got {workers}")
    return ProcessExecutor(workers, execution.time_limit)
