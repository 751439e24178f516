"""What the tests of executors have run: functions of a module, so that they travel to any worker."""

import os
import signal
import time
from pathlib import Path

from nasplat.measurement import Cost, Measurement, Metric, Role


def give(value: float, *, twice: bool = False) -> Measurement:
    """A measurement with one metric, ``value``, and a cost of one second."""
    return Measurement({"value": Metric(2 * value if twice else value, Role.NONE)}, Cost(seconds=1.0))


def process_id() -> Measurement:
    """The number of the process that runs the call, as ``value``."""
    return give(os.getpid())


def fail(message: str) -> Measurement:
    """Raise a ``ValueError``."""
    raise ValueError(message)


def time_out(message: str) -> Measurement:
    """Raise a ``TimeoutError`` of its own, as a call to some server may."""
    raise TimeoutError(message)


def die() -> Measurement:
    """Be killed as the kernel kills who takes too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)
    return give(0.0)


def sleep(seconds: float) -> Measurement:
    """Take a time."""
    time.sleep(seconds)
    return give(seconds)


def meet(folder: str, name: str, other: str) -> Measurement:
    """Return once another call has come to the same folder, which takes two workers."""
    (Path(folder) / name).touch()
    for _ in range(6_000):
        if (Path(folder) / other).exists():
            return give(1.0)
        time.sleep(0.01)
    raise RuntimeError(f"{name} has waited a minute for {other}")
