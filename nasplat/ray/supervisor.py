"""The actor that keeps one worker: it hands batches to a child process and outlives the child's death."""

import os
import sys
from dataclasses import dataclass
from typing import final

from nasplat.attempt import WorkerInfo
from nasplat.executors import ProcessExecutor
from nasplat.ray import batch
from nasplat.worker_process import WORKER_NAME


@final
@dataclass(frozen=True, slots=True)
class Started:
    """A worker that is ready.

    Attributes:
        info: Its process.
        node: Ray's name for its machine.
    """

    info: WorkerInfo
    node: str


@final
@dataclass(frozen=True, slots=True)
class Limits:
    """What a worker may take.

    Attributes:
        time: Seconds of a call, or None.
        memory: Bytes of main memory of its process, or None.
        gpus: A share of one, or a whole number; Ray has reserved them.
    """

    time: float | None
    memory: int | None
    gpus: float


@final
class Supervisor:
    """Keeps one child process that measures, through the same executor as on a single machine.

    Time limit, memory limit, exit signals and last lines are thus the process executor's. The actor itself imports
    no torch and runs no user's code, so that whatever a trial does, the batches that wait behind it are safe.

    Args:
        name: Of the worker.
        limits: Of its process.
    """

    def __init__(self, name: str, limits: Limits) -> None:
        # A spawned child imports its parent's main script, which here is Ray's: of no use to it, and slow.
        sys.modules["__main__"].__file__ = None
        os.environ[WORKER_NAME] = name
        if not limits.gpus:
            # Whether Ray hides GPUs from those that have reserved none depends on its version and settings.
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._executor = ProcessExecutor(1, limits.time, limits.memory)

    def start(self) -> Started:
        """Have the child import what it needs; returns when it can measure."""
        import ray

        future = self._executor.submit(batch.hello)
        self._executor.wait()
        return Started(future.result(), ray.get_runtime_context().get_node_id())

    def run(self, calls: bytes) -> bytes | Exception:
        """A pickled batch through the child: its pickled reply, or the error with which the child ended."""
        future = self._executor.submit(batch.run, calls)
        self._executor.wait()
        error = future.exception()
        return future.result() if error is None else error  # type: ignore[return-value]
