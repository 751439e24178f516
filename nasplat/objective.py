"""What a study looks for: metrics with directions, and constraints on metrics."""

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self, final

from nasplat.errors import InvalidInputError, unknown_name
from nasplat.measurement import Measurement, Role

_MINIMIZED = ("loss", "params", "flops", "error", "seconds", "_ms", "_bytes", "_per_byte")
"""Endings of metric names that are better when smaller, unless the user says otherwise."""

_RELATIONS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_NAME = r"[A-Za-z][\w.-]*"


@final
@dataclass(frozen=True, slots=True)
class Goal:
    """A metric and its direction."""

    metric: str
    maximize: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``val_accuracy``, ``max val_accuracy`` or ``min params``.

        A bare name is minimized when it ends like a cost (``loss``, ``params``, ``flops``, ``_ms``, …).

        Raises:
            InvalidInputError: If the text has another form.
        """
        match = re.fullmatch(rf"\s*(?:(min|max)(?:imize)?[\s:]+)?({_NAME})\s*", text)
        if match is None:
            raise InvalidInputError(f"an objective is 'METRIC', 'max METRIC' or 'min METRIC', got {text!r}")
        direction, metric = match.groups()
        return cls(metric, direction == "max" if direction else not metric.endswith(_MINIMIZED))

    def loss(self, value: float) -> float:
        """The value negated where it is maximized, so that smaller is better."""
        return -value if self.maximize else value

    def __str__(self) -> str:
        return f"{'max' if self.maximize else 'min'} {self.metric}"


@final
@dataclass(frozen=True, slots=True)
class Constraint:
    """A bound on a metric, such as ``params <= 1e6``."""

    metric: str
    relation: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``METRIC <= NUMBER`` (or ``>=``, ``<``, ``>``).

        Raises:
            InvalidInputError: If the text has another form.
        """
        match = re.fullmatch(rf"\s*({_NAME})\s*(<=|>=|<|>)\s*(\S+)\s*", text)
        try:
            bound = float(match[3]) if match else math.nan
        except ValueError:
            bound = math.nan
        if match is None or math.isnan(bound):
            raise InvalidInputError(f"a constraint is 'METRIC <= NUMBER' (or >=, <, >), got {text!r}")
        return cls(match[1], match[2], bound)

    def holds(self, value: float) -> bool:
        """Whether a value of the metric satisfies the bound."""
        return _RELATIONS[self.relation](value, self.bound)

    def __str__(self) -> str:
        short = f"{self.bound:g}"
        return f"{self.metric} {self.relation} {short if float(short) == self.bound else repr(self.bound)}"


@final
@dataclass(frozen=True, slots=True)
class Objective:
    """One goal or more, and constraints. The first goal ranks architectures where one number is needed."""

    goals: tuple[Goal, ...]
    constraints: tuple[Constraint, ...] = ()

    def __post_init__(self) -> None:
        names = [g.metric for g in self.goals]
        if not names or len(set(names)) != len(names) or len(names) > 4:
            raise InvalidInputError(f"an objective has one to four different metrics, got {names}")

    def losses(self, measurement: Measurement) -> tuple[float, ...]:
        """One number a goal, smaller is better; all infinite where a constraint is violated."""
        if not self.feasible(measurement):
            return (math.inf,) * len(self.goals)
        return tuple(g.loss(measurement[g.metric]) for g in self.goals)

    def feasible(self, measurement: Measurement) -> bool:
        """Whether every constraint on a metric that the measurement has is satisfied."""
        return all(c.holds(measurement[c.metric]) for c in self.constraints if c.metric in measurement.metrics)

    def check_metrics(self, available: Mapping[str, Role], *, test_allowed: bool) -> None:
        """Refuse goals and constraints on metrics that no measurement will have, or that a search must not see.

        Raises:
            InvalidInputError: Naming the metric, and the nearest valid one.
        """
        for metric in (*(g.metric for g in self.goals), *(c.metric for c in self.constraints)):
            if metric not in available:
                raise unknown_name("metric", metric, available)
            if available[metric] is Role.TEST and not test_allowed:
                raise InvalidInputError(
                    f"{metric!r} comes from the test data, which no search may see; take a metric of the search data"
                )
