"""What the tests have run on workers, and see of their processes."""

from pathlib import Path

from nasplat.measurement import Measurement
from nasplat.testing import calls


def give_or_die(value: float) -> Measurement:
    """The value, but 0 kills."""
    return calls.give(value) if value else calls.die()


def parent(pid: int) -> int:
    """The process that has started another one."""
    return int(_stat(pid)[1])


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended may stay for ever where nobody asks how, as in a container."""
    try:
        return _stat(pid)[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _stat(pid: int) -> list[str]:
    # The name before it may hold anything.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
