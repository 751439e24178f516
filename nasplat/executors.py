"""Executors: where trials run. Each is a ``concurrent.futures.Executor`` that knows how many trials it wants."""

import concurrent.futures
import contextlib
import itertools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from queue import Empty, SimpleQueue
from typing import Any, ClassVar, TypeVar, final

from pebble import ProcessExpired, ProcessPool

from nasplat import worker_process
from nasplat.attempt import Ending, WorkerStatus
from nasplat.boundary import catching
from nasplat.config import Execution
from nasplat.errors import InvalidInputError, MemoryLimitError, TrialTimeoutError, WorkerLostError

T = TypeVar("T")

_POOL_TIMEOUT = ("Task timeout",)
"""First argument of the pool's own timeout error, which tells it from one that the call raised."""
_LEAST_MEMORY = 2**28
"""Resident bytes of a worker that has imported torch and done nothing yet."""
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
        elastic: Whether the capacity may grow while no call ends. Who could submit more looks at it now and then, and
            waits with a timeout.
    """

    elastic: ClassVar[bool] = False
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


def called(fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
    """The future of a call that is made here and now: it carries any error, and an interrupt goes through."""
    future: Future[T] = Future()
    with catching(future.set_exception):
        future.set_result(fn(*args, **kwargs))
    return future


@final
class SerialExecutor(TrialExecutor):
    """Runs every call at once in the calling process; the trainer itself looks after the time limit."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run now; an exception stays in the future, an interrupt goes through."""
        future = called(fn, *args, **kwargs)
        self._ended.put(future)
        return future


@final
class ProcessExecutor(TrialExecutor):
    """Runs calls in processes that are replaced when they die or exceed a limit.

    What a call prints is caught, from C code too: ``worker_process.take_printed`` gives it the last lines, and the
    error of one that was ended from outside has them in its ``ending``. The workers end with this process, however
    it ends.

    Args:
        workers: Number of processes.
        time_limit: Seconds after which a call's process is killed, or None.
        memory_limit: Bytes of main memory above which a call's process is killed, or None.
    """

    def __init__(self, workers: int, time_limit: float | None, memory_limit: int | None = None) -> None:
        super().__init__()
        self.capacity = workers
        self.threads = max(1, (os.cpu_count() or 1) // workers) if workers > 1 else None
        self._time_limit = time_limit
        self._memory_limit = memory_limit
        self._open: dict[int, tuple[Future[Any], Future[Any]]] = {}
        self._numbers = itertools.count(1)
        self._worked = False
        self._shut_down = False
        self._start_pool()

    def _start_pool(self) -> None:
        self._folder = worker_process.Folder()
        self._pool = ProcessPool(
            max_workers=self.capacity,
            # Spawned, not forked: forking a process whose torch threads run can deadlock.
            context=multiprocessing.get_context("spawn"),
            initializer=worker_process.prepare,
            initargs=(str(self._folder.path), os.getpid(), self._memory_limit, self._time_limit is not None),
        )

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
            self._start_pool()
        number = next(self._numbers)
        inner = self._pool.submit(worker_process.call, self._time_limit, number, fn, *args, **kwargs)
        outer: Future[T] = Future()
        outer.set_running_or_notify_cancel()
        self._open[number] = inner, outer
        outer.add_done_callback(lambda _: self._open.pop(number))
        outer.add_done_callback(self._ended.put)
        inner.add_done_callback(lambda done: self._translate(done, outer, number))
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
            self._give_up_quiet_deaths()

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

    def workers(self) -> list[WorkerStatus]:
        """The processes as they are now; what waits belongs to all of them."""
        return [
            WorkerStatus(worker_process.worker_info(state.pid), busy=int(state.call > 0), calls=state.calls)
            for state in worker_process.states(self._folder.path)
            if _exists(state.pid)
        ]

    def _end_pool(self, why: str) -> None:
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()
        # The pool forgets what it had not finished, and its threads have ended: nobody else completes these.
        for _, future in tuple(self._open.values()):
            future.set_exception(WorkerLostError(why) if self._worked or self._shut_down else _never_worked())
        self._folder.remove()

    def _translate(self, done: Future[T], outer: Future[T], number: int) -> None:
        """Copy an outcome from the pool's future to ours; called by the pool's threads."""
        if done.cancelled():  # by ourselves
            outer.set_exception(self._death(number, 0))
            return
        error = done.exception()
        if not isinstance(error, BrokenProcessPool):
            self._worked = True
        if error is None:
            outer.set_result(done.result())
        elif isinstance(error, ProcessExpired):
            outer.set_exception(self._death(number, error.exitcode))
        elif isinstance(error, BrokenProcessPool):
            outer.set_exception(WorkerLostError(str(error)) if self._worked else _never_worked())
        elif isinstance(error, TimeoutError) and error.args[:1] == _POOL_TIMEOUT:
            outer.set_exception(self._timeout(number))
        else:
            outer.set_exception(error)

    def _give_up_quiet_deaths(self) -> None:
        """The pool takes a process that exits with code 0 for one that has nothing to do any more."""
        for state in worker_process.states(self._folder.path):
            inner, _ = self._open.get(state.call, (None, None))
            if inner is not None and not _exists(state.pid):
                inner.cancel()

    def _death(self, number: int, exit_code: int) -> Exception:
        state = self._worker_of(number)
        ending = self._ending(state, _exit_signal(exit_code))
        if state is not None and state.stopped_at_bytes:
            taken, limit = state.stopped_at_bytes / 2**30, (self._memory_limit or 0) / 2**30
            return MemoryLimitError(f"stopped at {taken:.2f} GiB, above the memory limit of {limit:.2f} GiB", ending)
        return WorkerLostError(f"the worker process died with {ending.exit_signal}", ending)

    def _timeout(self, number: int) -> Exception:
        ending = self._ending(self._worker_of(number), "")
        return TrialTimeoutError(f"stopped at the time limit of {self._time_limit:g} seconds", ending)

    def _worker_of(self, number: int) -> worker_process.WorkerState | None:
        """The process that runs a call or died in it, which the pool does not always tell."""
        return next((state for state in worker_process.states(self._folder.path) if state.call == number), None)

    def _ending(self, state: worker_process.WorkerState | None, exit_signal: str) -> Ending:
        if state is None:  # it had ended the call already, or had not begun
            return Ending(None, exit_signal)
        log = worker_process.last_lines(self._folder.path, state.pid)
        worker_process.forget(self._folder.path, state.pid)
        return Ending(worker_process.worker_info(state.pid), exit_signal, log)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's, with the number of one that has ended
        return False
    return True


def _exit_signal(code: int) -> str:
    if code == signal.SIGTERM:  # on which the pool's processes exit by themselves, with its number
        return "SIGTERM"
    names = {-s: s.name for s in signal.Signals}
    return names.get(code, f"exit code {code}")


def _never_worked() -> InvalidInputError:
    # Trying again, as after a lost worker, would not help.
    return InvalidInputError(
        "the worker processes die before they can do anything; a script that starts them must keep what it runs under "
        "'if __name__ == \"__main__\":', because every worker imports it"
    )


def serial(execution: Execution) -> TrialExecutor:
    """The executor that runs trials one by one in this process."""
    if execution.workers not in (1, None):
        raise InvalidInputError(f"the serial executor has 1 worker, got {execution.workers}; use --executor process")
    if execution.memory_limit is not None:
        raise InvalidInputError("the serial executor cannot keep a memory limit; use --executor process")
    return SerialExecutor()


def process(execution: Execution) -> TrialExecutor:
    """The executor that runs trials in worker processes of this machine."""
    cores = os.cpu_count() or 1
    workers = cores if execution.workers is None else execution.workers
    if not 1 <= workers <= 16 * cores:
        raise InvalidInputError(f"workers must be 1 or more and not far above the {cores} cores, got {workers}")
    if execution.memory_limit is not None and execution.memory_limit < _LEAST_MEMORY:
        raise InvalidInputError(
            f"memory_limit is in bytes, of which a worker takes about {_LEAST_MEMORY} before its first trial; "
            f"got {execution.memory_limit}"
        )
    return ProcessExecutor(workers, execution.time_limit, execution.memory_limit)
