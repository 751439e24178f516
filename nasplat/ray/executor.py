"""Runs trials on a Ray cluster, on as many workers as it has room for while nodes come and go."""

import math
import pickle
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, ClassVar, TypeVar, final

from nasplat.attempt import Ending, WorkerStatus
from nasplat.config import Execution
from nasplat.errors import InvalidInputError, WorkerLostError
from nasplat.executors import TrialExecutor, called
from nasplat.ray import cluster
from nasplat.ray.batch import Reply
from nasplat.ray.pace import Kind, Pace, QueuedCall, Worker, kind_of
from nasplat.ray.supervisor import Limits, Started, Supervisor

import ray  # after the module that says what to do where there is none  # isort: skip

T = TypeVar("T")

_SOON_SECONDS = 0.25
"""Until we look after a worker was lost: the cluster knows about its place a little later than we."""
_LOOK_SECONDS = 2.0
"""How often we look which nodes there are."""
_GRACE_SECONDS = 60.0
"""How long after the time limit a worker may be silent: a new process imports torch, the network is slow."""
_MAX_FAILED_STARTS = 3
"""Workers that fail to start, with none that ever did, before we say that none will."""

_MAX_GIST = 1_000
"""Characters of what Ray says about a loss."""


@final
class RayExecutor(TrialExecutor):
    """Runs calls on actors of a Ray cluster, each of which keeps one process that measures.

    Cheap calls travel in batches, expensive ones one by one. What merely waited at a worker that is lost is given to
    another one; the call that it ran ends with ``WorkerLostError``. Lost workers are replaced.

    Args:
        execution: Address, resources of a worker, number of workers and limits.

    Raises:
        InvalidInputError: If there is no cluster, or none of its nodes has room for one worker.
    """

    elastic: ClassVar[bool] = True

    def __init__(self, execution: Execution) -> None:
        super().__init__()
        self.threads = max(1, int(execution.cpus_per_worker))
        self._execution = execution
        self._needs = cluster.demand(execution)
        _check_workers(execution, self._needs)
        self._events: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._open: set[Future[Any]] = set()
        self._queue: deque[QueuedCall] = deque()
        self._workers: dict[str, Worker] = {}
        self._idle: dict[Worker, None] = {}
        self._short: dict[Worker, None] = {}
        self._ready = 0
        self._numbers = 0
        self._failed_starts = 0
        self._pace = Pace()
        self._latest: Kind = ()
        self._broken: Exception | None = None
        self._shut_down = False
        connected = cluster.connect(execution.address or "auto", execution.runtime_env)
        with ExitStack() as on_error:
            on_error.callback(cluster.disconnect)
            cluster.check_feasible(self._needs)
            # A connection that was there has no runtime environment, or another one.
            self._actor_class = self._make_actor_class({} if connected else execution.runtime_env)
            self._look()
            on_error.pop_all()

    def _make_actor_class(self, runtime_env: Mapping[str, Any]) -> Any:
        execution = self._execution
        others = {name: n for name, n in self._needs.items() if name not in ("CPU", "GPU")}
        options: dict[str, Any] = {
            "num_cpus": execution.cpus_per_worker,
            "num_gpus": execution.gpus_per_worker,
            "resources": others,
            "max_restarts": 0,
        }
        if runtime_env:
            options["runtime_env"] = dict(runtime_env)
        try:
            return ray.remote(**options)(Supervisor)
        except (ValueError, TypeError) as error:
            raise InvalidInputError(f"Ray cannot reserve {self._needs} for a worker: {error}") from error

    # Calls ---------------------------------------------------------------------------------------------------

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Queue a call; function, arguments and result travel by pickle, so workers must be able to import them.

        Raises:
            RuntimeError: After ``shutdown``.
        """
        if self._shut_down:
            raise RuntimeError("the executor was shut down")
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        self._open.add(future)
        future.add_done_callback(self._open.discard)
        future.add_done_callback(self._ended.put)
        if self._broken is not None:
            future.set_exception(self._broken)
            return future
        self._latest = kind_of(fn, args)
        self._queue.append(QueuedCall((fn, args, kwargs), self._latest, future))
        self._dispatch(more_to_come=True)
        self._set_capacity()
        return future

    def wait(self, timeout: float | None = None) -> list[Future[Any]]:
        """As every executor; workers are looked after while we wait."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while self._ended.empty() and (left := deadline - time.monotonic()) >= 0:
            self._step(left)
        return super().wait(0)

    def workers(self) -> list[WorkerStatus]:
        """Those that have started; called from any thread."""
        started = [w for w in tuple(self._workers.values()) if w.started is not None]
        return [WorkerStatus(w.info, sum(map(len, tuple(w.batches))), w.calls) for w in started]

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers, and the connection if it was made here; without ``cancel_futures`` after all calls.

        Nobody but the caller's thread moves calls on, so that ``wait`` makes no difference.
        """
        if self._shut_down:
            return
        while self._open and not cancel_futures:
            self._step(math.inf)
        self._shut_down = True
        for worker in self._workers.values():
            ray.kill(worker.actor)
        self._workers.clear()
        self._end_all(WorkerLostError("the executor was stopped"))
        cluster.disconnect()

    def _end_all(self, error: Exception) -> None:
        self._queue.clear()
        for future in tuple(self._open):
            future.set_exception(error)

    # The driver's side of the workers --------------------------------------------------------------------------

    def _step(self, patience: float) -> None:
        """Give out work, and take in the next events, or look at the cluster if it is time to."""
        self._dispatch()
        until_look = self._look_at - time.monotonic()
        try:
            self._events.get(timeout=max(0.0, min(patience, until_look)))()
            while True:
                self._events.get_nowait()()
        except Empty:
            if time.monotonic() >= self._look_at:
                self._look()
        self._dispatch()
        self._set_capacity()

    def _when_done(self, ref: Any, handle: Callable[[Future[Any]], None]) -> None:
        # Completion comes to us from Ray's threads: asking for it would cost more the more workers there are.
        ref.future().add_done_callback(lambda done: self._events.put(partial(handle, done)))

    def _look(self) -> None:
        """See which nodes there are; let go of workers that are gone, kill silent ones and start new ones."""
        now = time.monotonic()
        self._look_at = now + _LOOK_SECONDS
        self._room = cluster.room(self._needs)
        limit = self._execution.time_limit
        for worker in tuple(self._workers.values()):
            if worker.started is None:
                continue
            if not worker.batches and worker.started.node not in self._room.nodes:
                self._lose(worker, "its node has left")
            elif limit is not None and worker.batches and now > worker.since + limit + _GRACE_SECONDS:
                self._lose(worker, f"it is silent since {limit + _GRACE_SECONDS:g} seconds")
        self._start_workers()
        self._set_capacity()

    def _start_workers(self) -> None:
        if self._broken is not None:
            return
        wanted = self._execution.workers
        if wanted is None:
            # One that waits for its place shows that what looks free is taken.
            waiting = any(worker.started is None for worker in self._workers.values())
            more = 0 if waiting else min(self._room.workers - len(self._workers), self._room.free)
            wanted = max(1, len(self._workers) + more)
        limits = Limits(self._execution.time_limit, self._execution.memory_limit, self._execution.gpus_per_worker)
        while len(self._workers) < wanted:
            self._numbers += 1
            name = f"ray-{self._numbers}"
            worker = self._workers[name] = Worker(name, self._actor_class.remote(name, limits))
            self._when_done(worker.actor.start.remote(), partial(self._on_started, worker))

    def _on_started(self, worker: Worker, done: Future[Started]) -> None:
        if self._workers.get(worker.name) is not worker:
            return
        error = done.exception()
        if error is None:
            worker.started = done.result()
            self._ready += 1
            self._failed_starts = 0
            self._place(worker)
            return
        # Its place is taken by another one at the next look, not at once: the cause may be there still.
        del self._workers[worker.name]
        ray.kill(worker.actor)
        never = not self._pace.known and not self._ready
        self._failed_starts += 1
        hopeless = isinstance(error, ray.exceptions.RuntimeEnvSetupError | ray.exceptions.ActorUnschedulableError)
        if never and (hopeless or self._failed_starts >= _MAX_FAILED_STARTS):
            self._broken = InvalidInputError(
                "no worker can be started on the Ray cluster; each node needs nasplat, and the driver's versions of "
                f"Python and Ray, or a runtime_env that brings them: {_gist(error)}"
            )
            self._end_all(self._broken)

    # Batches ---------------------------------------------------------------------------------------------------

    def _set_capacity(self) -> None:
        # Before anything is known, workers that are about to start count, so that work is there when they have.
        workers = self._ready if self._pace.known else max(self._ready, min(len(self._workers), self._room.workers))
        self.capacity = max(1, workers) * self._pace.batch_size(self._latest) * self._pace.depth(self._latest)

    def _place(self, worker: Worker) -> None:
        """Put a worker where the next batch looks for one."""
        self._idle.pop(worker, None)
        self._short.pop(worker, None)
        if self._workers.get(worker.name) is not worker or worker.started is None:
            return
        if not worker.batches:
            self._idle[worker] = None
        elif len(worker.batches) < self._pace.depth(worker.batches[0][0].kind):
            self._short[worker] = None

    def _dispatch(self, *, more_to_come: bool = False) -> None:
        while self._queue:
            first = self._queue[0]
            size = 1 if first.alone else self._pace.batch_size(first.kind)
            wanted = size
            if self._idle:
                worker = next(iter(self._idle))
                if more_to_come:
                    wanted = size if size == 1 else size * len(self._idle)
                else:
                    wanted = size = min(size, math.ceil(len(self._queue) / len(self._idle)))
            elif self._short and self._pace.depth(first.kind) > 1:
                worker = next(iter(self._short))
            else:
                return
            if len(self._queue) < wanted:
                return
            self._send(worker, self._take(size))

    def _take(self, size: int) -> list[QueuedCall]:
        calls = [self._queue.popleft()]
        while len(calls) < size and self._queue and self._queue[0].kind == calls[0].kind and not self._queue[0].alone:
            calls.append(self._queue.popleft())
        return calls

    def _take_back(self, calls: list[QueuedCall], *, alone: bool) -> None:
        for call in reversed(calls):
            call.alone |= alone
            self._queue.appendleft(call)

    def _send(self, worker: Worker, calls: list[QueuedCall]) -> None:
        pickled = called(pickle.dumps, [call.call for call in calls])
        error = pickled.exception()
        if error is not None:
            if len(calls) == 1:
                calls[0].future.set_exception(error)
            else:
                self._take_back(calls, alone=True)
            return
        if not worker.batches:
            worker.since = time.monotonic()
        worker.batches.append(calls)
        self._place(worker)
        self._when_done(worker.actor.run.remote(pickled.result()), partial(self._on_ended, worker, calls))

    def _on_ended(self, worker: Worker, calls: list[QueuedCall], done: Future[bytes | Exception]) -> None:
        if self._workers.get(worker.name) is not worker:
            return  # it was lost, and the calls went elsewhere
        error = done.exception()
        if isinstance(error, ray.exceptions.RayError) and not isinstance(error, ray.exceptions.RayTaskError):
            self._lose(worker, _gist(error))
            return
        worker.batches.remove(calls)
        worker.since = time.monotonic()
        worker.calls += len(calls)
        answer = done.result() if error is None else error
        if isinstance(answer, bytes):
            self._deliver(worker, calls, pickle.loads(answer))
        elif len(calls) > 1:
            # One of them has ended the process, and nobody knows which; in a batch of its own it does so again.
            self._take_back(calls, alone=True)
        else:
            calls[0].future.set_exception(answer)
        self._place(worker)

    def _deliver(self, worker: Worker, calls: list[QueuedCall], reply: Reply) -> None:
        assert worker.started is not None  # only those that have started are given calls
        if reply.worker.pid != worker.started.info.pid:
            worker.started = replace(worker.started, info=reply.worker)
        self._pace.learn(calls[0].kind, reply.seconds / len(calls))
        for call, (value, raised) in zip(calls, reply.outcomes, strict=True):
            if raised:
                call.future.set_exception(value)
            else:
                call.future.set_result(value)

    def _lose(self, worker: Worker, why: str) -> None:
        """Let go of a worker, dead or not: what it ran is lost, what waited there goes elsewhere."""
        del self._workers[worker.name]
        self._ready -= 1
        self._place(worker)
        ray.kill(worker.actor)
        self._look_at = min(self._look_at, time.monotonic() + _SOON_SECONDS)
        for calls in reversed(worker.batches):
            if calls is not worker.batches[0]:
                self._take_back(calls, alone=False)
            elif len(calls) > 1:
                self._take_back(calls, alone=True)
            else:
                message = f"worker {worker.name} on {worker.info.host} was lost: {why}"
                calls[0].future.set_exception(WorkerLostError(message, Ending(worker.info)))


def _gist(error: BaseException) -> str:
    """What Ray says, without its tables of identifiers."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith("\t")]
    return " ".join(lines)[:_MAX_GIST]


def _check_workers(execution: Execution, needs: Mapping[str, float]) -> None:
    if execution.workers is None and not needs:
        raise InvalidInputError(
            "a worker that needs no resources fits everywhere without end; give workers, or cpus_per_worker above 0"
        )
    if execution.device.startswith("cuda") and not execution.gpus_per_worker:
        raise InvalidInputError(f"device {execution.device!r} on Ray needs gpus_per_worker, such as 1 or 0.25")
    if execution.device.startswith("cuda:"):
        raise InvalidInputError(f"Ray decides which GPU a worker has; use device 'cuda', got {execution.device!r}")


def ray_executor(execution: Execution) -> TrialExecutor:
    """The executor that runs trials on a Ray cluster."""
    return RayExecutor(execution)
