"""What a worker's child process runs: one batch of calls after another. Imports no Ray, which takes memory and time."""

import os
import pickle
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

from nasplat.attempt import WorkerInfo
from nasplat.boundary import catching
from nasplat.executors import called
from nasplat.worker_process import worker_info

Call: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]]
"""Function, positional and keyword arguments."""


@final
@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a batch.

    Attributes:
        worker: The process that ran it.
        outcomes: Of each call, in order: its result, or the exception that it raised and True.
        seconds: That all calls took together.
    """

    worker: WorkerInfo
    outcomes: Sequence[tuple[Any, bool]]
    seconds: float


def run(batch: bytes) -> bytes:
    """Run a pickled list of calls one after another; gives a pickled ``Reply``."""
    calls: list[Call] = pickle.loads(batch)
    start = time.perf_counter()
    outcomes = [_outcome(*call) for call in calls]
    reply = Reply(worker_info(os.getpid()), outcomes, time.perf_counter() - start)
    with catching():  # a result may fail to pickle with any error; the others must not be lost with it
        return pickle.dumps(reply)
    return pickle.dumps(Reply(reply.worker, [_portable(*o) for o in outcomes], reply.seconds))


def hello() -> WorkerInfo:
    """The process that runs batches, once it is ready to."""
    return worker_info(os.getpid())


def _outcome(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, bool]:
    done = called(fn, *args, **kwargs)
    error = done.exception()
    return (done.result(), False) if error is None else _portable(error, True)


def _portable(value: Any, raised: bool) -> tuple[Any, bool]:
    # An exception may be pickled well and yet not be made again from that; only trying tells.
    error = called(lambda: pickle.loads(pickle.dumps(value))).exception()
    if error is None:
        return value, raised
    what = "".join(traceback.format_exception(value)) if raised else f"{type(value).__name__}: {error}"
    return RuntimeError(f"what the call {'raised' if raised else 'gave'} cannot travel by pickle: {what}"), True
