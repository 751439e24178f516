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


def die(last_words: str = "") -> Measurement:
    """Be killed as the kernel kills who takes too much memory, having printed something."""
    print(last_words)  # noqa: T201 - what is printed is under test
    os.kill(os.getpid(), signal.SIGKILL)
    return give(0.0)


def leave(code: int) -> Measurement:
    """End the process at once."""
    os._exit(code)


def flood(count: int, last_words: str) -> Measurement:
    """Print a number of bytes to the process's own output and error output, then something to read, and be killed."""
    for i in range(count // 2**20):
        os.write(1 + i % 2, b"x" * (2**20 - 1) + b"\n")
    return die(last_words)


def eat(limit: int) -> Measurement:
    """Take and keep memory step by step, up to a limit, as ``value``."""
    step = 2**24
    eaten: list[bytes] = []
    while len(eaten) * step < limit:
        eaten.append(b"\1" * step)
        time.sleep(0.01)
    return give(float(len(eaten) * step))


def sleep(seconds: float) -> Measurement:
    """Take a time."""
    time.sleep(seconds)
    return give(seconds)


def wait_for(path: str) -> Measurement:
    """Return once there is a file, or raise after a minute."""
    for _ in range(6_000):
        if Path(path).exists():
            return give(1.0)
        time.sleep(0.01)
    raise RuntimeError(f"there was no {path} for a minute")


def meet(folder: str, name: str, other: str) -> Measurement:
    """Return once another call has come to the same folder, which takes two workers."""
    (Path(folder) / name).touch()
    return wait_for(str(Path(folder) / other))
