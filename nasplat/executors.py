"""Executors: where trials run. Each is a ``concurrent.futures.Executor`` that knows how many trials it wants."""

import concurrent.futures
import importlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import Any, TypeVar, final

from pebble import ProcessExpired, ProcessPool

from nasplat.errors import InvalidInputError, TrialTimeoutError, WorkerLostError

T = TypeVar("T")


class TrialExecutor(concurrent.futures.Executor):
    """Runs calls on workers.

    A future raises ``WorkerLostError`` when its worker died and ``TrialTimeoutError`` when the call was stopped at
    the time limit; the executor itself goes on in both cases. ``submit`` and ``wait`` are called from one thread.

    Attributes:
        capacity: Calls in flight that keep every worker busy.
    """

    capacity: int = 1

    def wait(self, pending: Collection[Future[T]]) -> set[Future[T]]:
        """Block until one or more of the pending futures are done, and return those."""
        return concurrent.futures.wait(pending, return_when=concurrent.futures.FIRST_COMPLETED).done


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
        return future


@final
class ProcessExecutor(TrialExecutor):
    """Runs calls in processes that are replaced when they die or exceed the time limit.

    Args:
        workers: Number of processes.
        time_limit: Seconds after which a call's process is killed, or None.
    """

    def __init__(self, workers: int, time_limit: float | None) -> None:
        self.capacity = workers
        self._time_limit = time_limit
        # Spawned, not forked: forking a process whose torch threads run can deadlock.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPool(max_workers=workers, context=context, initializer=_prepare)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Queue a call; function, arguments and result travel by pickle between our own processes."""
        inner = self._pool.submit(fn, self._time_limit, *args, **kwargs)
        outer: Future[T] = Future()
        outer.set_running_or_notify_cancel()
        inner.add_done_callback(lambda done: _translate(done, outer, self._time_limit))
        return outer

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers; what runs is stopped at once with ``cancel_futures``."""
        if cancel_futures:
            self._pool.stop()  # type: ignore[no-untyped-call]
        else:
            self._pool.close()  # type: ignore[no-untyped-call]
        if wait:
            self._pool.join()


def _prepare() -> None:
    # Ctrl-C reaches the whole process group; only the driver decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What takes seconds to import is imported now, not within the first trial's time limit.
    importlib.import_module("nasplat.worker")


def _translate(done: Future[T], outer: Future[T], time_limit: float | None) -> None:
    if done.cancelled():
        outer.set_exception(WorkerLostError("the executor was stopped"))
        return
    error = done.exception()
    if error is None:
        outer.set_result(done.result())
    elif isinstance(error, ProcessExpired):
        outer.set_exception(WorkerLostError(f"the worker process died with exit code {error.exitcode}"))
    elif isinstance(error, TimeoutError) and not isinstance(error, TrialTimeoutError):
        outer.set_exception(TrialTimeoutError(f"stopped at the time limit of {time_limit:g} seconds"))
    else:
        outer.set_exception(error)


def serial(workers: int, time_limit: float | None) -> TrialExecutor:
    """The executor that runs trials one by one in this process."""
    if workers != 1:
        raise InvalidInputError(f"the serial executor has 1 worker, got {workers}; use --executor process")
    return SerialExecutor()


def process(workers: int, time_limit: float | None) -> TrialExecutor:
    """The executor that runs trials in worker processes of this machine."""
    if not 1 <= workers <= 16 * (os.cpu_count() or 1):
        raise InvalidInputError(
            f"workers must be 1 or more and not far above the {os.cpu_count()} cores, got {workers}"
        )
    return ProcessExecutor(workers, time_limit)
