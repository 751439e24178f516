"""What a measurement of an architecture gives: metrics with the role of their data, cost and provenance."""

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self, final

from nasplat.errors import NonFiniteError


class Role(enum.StrEnum):
    """Which data a metric came from. Strategies are never told metrics of role ``test``."""

    NONE = "none"
    """No data: counts of the network, such as ``params``."""
    SEARCH = "search"
    """The search data: training and validation parts."""
    TEST = "test"
    """The test data, read after selection only."""


@final
@dataclass(frozen=True, slots=True)
class Metric:
    """One number and the role of the data it came from; it may be infinite, never NaN."""

    value: float
    role: Role

    def __post_init__(self) -> None:
        if math.isnan(self.value):
            raise NonFiniteError("a metric must not be NaN: fail the trial instead")


@final
@dataclass(frozen=True, slots=True)
class Cost:
    """What a measurement cost; zero where it does not apply.

    Attributes:
        seconds: Wall-clock time, simulated where a table replays it.
        gpu_seconds: The same times the number of GPUs it held.
        peak_memory_bytes: Highest memory allocated on the device, or the process's resident peak on a CPU.
    """

    seconds: float = 0.0
    gpu_seconds: float = 0.0
    peak_memory_bytes: int = 0


@final
@dataclass(frozen=True, slots=True)
class Measurement:
    """The outcome of a completed trial.

    Attributes:
        metrics: By name; treat as read-only.
        cost: What it cost when it was paid for.
        provenance: What produced it: versions, device, host; plain data.
        artifacts: Paths of files it left, by kind (``weights``).
    """

    metrics: Mapping[str, Metric]
    cost: Cost = field(default_factory=Cost)
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)
    artifacts: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> float:
        return self.metrics[name].value

    def without_test(self) -> Self:
        """The measurement as a strategy may see it."""
        if all(m.role is not Role.TEST for m in self.metrics.values()):
            return self
        return replace(self, metrics={n: m for n, m in self.metrics.items() if m.role is not Role.TEST})


class FailureReason(enum.StrEnum):
    """Why a trial has no measurement."""

    OUT_OF_MEMORY = "out-of-memory"
    NON_FINITE = "non-finite"
    TIMED_OUT = "timed-out"
    INVALID = "invalid"
    LOST = "lost"
    ERROR = "error"


@final
@dataclass(frozen=True, slots=True)
class Failure:
    """The outcome of a failed trial; never turned into a number.

    Attributes:
        reason: The kind.
        message: What was said.
        traceback: Where, if it was an exception.
        seconds: That it took, and that were paid.
        gpu_seconds: The same times the number of GPUs it held.
    """

    reason: FailureReason
    message: str
    traceback: str = ""
    seconds: float = 0.0
    gpu_seconds: float = 0.0
