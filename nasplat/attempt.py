"""What became of each start of a trial: where it ran, how it ended, and what it printed."""

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """Where a trial ran.

    Attributes:
        host: Name of the machine.
        pid: Of the process that measured.
        gpu: Its GPUs as ``CUDA_VISIBLE_DEVICES`` numbers them; empty on a CPU.
        name: Of the worker within its executor, such as ``ray-3``; empty where it has none.
    """

    host: str
    pid: int
    gpu: str = ""
    name: str = ""


@final
@dataclass(frozen=True, slots=True)
class Ending:
    """How a worker's process ended while it measured, as far as it is known.

    Attributes:
        worker: Which one.
        exit_signal: Such as ``SIGKILL``, or ``exit code 3``; empty where nobody could see it.
        log: The last lines that the trial printed.
    """

    worker: WorkerInfo | None = None
    exit_signal: str = ""
    log: str = ""


@final
@dataclass(frozen=True, slots=True)
class Attempt:
    """One start of a trial.

    Attributes:
        trial: Its number in the study.
        attempt: 1 for the first start.
        started_at: Seconds since the epoch, by the driver's clock.
        seconds: Until its end was known.
        ended: ``completed``, the reason of the failure, or ``lost`` where the worker died.
        ending: Worker, exit signal and last lines.
    """

    trial: int
    attempt: int
    started_at: float
    seconds: float
    ended: str
    ending: Ending


@final
@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker as it is now.

    Attributes:
        info: Where.
        busy: Calls that it holds: the one it runs, and those that wait for it.
        calls: How many it has ended.
    """

    info: WorkerInfo
    busy: int
    calls: int
