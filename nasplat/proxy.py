"""The contract of a zero-cost proxy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from torch import nn

from nasplat.measurement import Role
from nasplat.task import Data


@final
@dataclass(frozen=True, slots=True)
class ZeroCostProxy:
    """A training-free score of a network.

    Attributes:
        name: Metric name under which the score is recorded.
        compute: From an untrained network in training mode and a batch of normalized inputs ``(B, ...)`` with
            targets ``(B,)`` to a score; it may be infinite. The network may be changed: it is thrown away.
        maximize: Whether a higher score promises a better network.
        role: Whether it looks at data.
        version: Raised whenever the same network would get another score.
        preserves: Whether weights and buffers stay as they were, so that the next proxy may use the same network.
    """

    name: str
    compute: Callable[[nn.Module, Data], float]
    maximize: bool = True
    role: Role = Role.SEARCH
    version: int = 1
    preserves: bool = False
