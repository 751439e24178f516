"""Trials that take a known time and nothing else, as a table: ``benchmarks.workload:sleeping:1,10``."""

import time
from collections.abc import Mapping
from typing import Any, final

from nasplat.errors import InvalidInputError
from nasplat.evaluator import Evaluator
from nasplat.fidelity import Fidelity
from nasplat.measurement import Cost, Measurement, Metric, Role
from nasplat.space import SearchSpace
from nasplat.task import Task
from nasplat.trial import Proposal


@final
class Workload(Evaluator):
    """Each architecture has a time of its own, log-uniform between two bounds, that its measurement takes.

    Args:
        shortest: Seconds.
        longest: Seconds.
        sleeps: Whether a measurement really takes that time, or only says so, for a simulated clock.
    """

    task = Task("workload", input_shape=(3, 32, 32), outputs=10)

    def __init__(self, shortest: float, longest: float, *, sleeps: bool) -> None:
        self._shortest, self._longest, self._sleeps = shortest, longest, sleeps

    def repeats(self, fidelity: Fidelity) -> int:
        """Any number of seeds."""
        return 1_000_000

    def context(self, fidelity: Fidelity) -> Mapping[str, Any]:
        """The bounds."""
        return {"evaluator": "workload", "seconds": [self._shortest, self._longest]}

    def metrics(self, fidelity: Fidelity) -> Mapping[str, Role]:
        """A made-up accuracy, and when the worker began and ended, in seconds since the epoch."""
        return {"val_accuracy": Role.SEARCH, "began_at": Role.NONE, "ended_at": Role.NONE}

    def measure(self, proposal: Proposal) -> Measurement:
        """Take the time."""
        u = int(proposal.architecture.fingerprint[:12], 16) / 16**12
        seconds = self._shortest * (self._longest / self._shortest) ** u
        began = time.time()
        if self._sleeps:
            time.sleep(seconds)
        metrics = {
            "val_accuracy": Metric(int(proposal.architecture.fingerprint[12:24], 16) / 16**12, Role.SEARCH),
            "began_at": Metric(began, Role.NONE),
            "ended_at": Metric(time.time(), Role.NONE),
        }
        return Measurement(metrics, Cost(seconds))


def _bounds(text: str) -> tuple[float, float]:
    try:
        shortest, longest = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InvalidInputError(f"a workload has its shortest and longest seconds, 1,10; got {text!r}") from error
    return shortest, longest


def sleeping(space: SearchSpace, bounds: str, *, trust_files: bool = False) -> Workload:
    """Trials that sleep."""
    return Workload(*_bounds(bounds), sleeps=True)


def simulated(space: SearchSpace, bounds: str, *, trust_files: bool = False) -> Workload:
    """Trials for a simulated clock."""
    return Workload(*_bounds(bounds), sleeps=False)
