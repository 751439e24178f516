"""The contract of a zero-cost proxy."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nasplat.errors import InvalidInputError
from nasplat.measurement import Measurement, Role
from nasplat.objective import Goal


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, targets)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What a proxy is given beside the network.

    Attributes:
        inputs: Normalized, ``(B, ...)``; images lie in memory channels last.
        targets: ``(B, ...)``.
        loss: The task's, from outputs and targets to a scalar.
        seed: Of all randomness of a proxy.
    """

    inputs: Tensor
    targets: Tensor
    loss: Callable[[Tensor, Tensor], Tensor] = _cross_entropy
    seed: int = 0

    def generator(self, purpose: str) -> torch.Generator:
        """A generator on the CPU, so that all devices see the same numbers; one stream a seed and purpose."""
        digest = hashlib.blake2b(f"{self.seed}:{purpose}".encode(), digest_size=7).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


@final
@dataclass(frozen=True, slots=True)
class ZeroCostProxy:
    """A training-free score of a network.

    Attributes:
        name: Metric name under which the score is recorded.
        compute: From an untrained network in training mode and a batch to a score; it may be infinite. Where it needs
            random numbers they come from ``batch.generator``. The network may be changed unless ``preserves`` says
            otherwise: it is thrown away.
        maximize: Whether a higher score promises a better network.
        role: Whether it looks at data.
        version: Raised whenever the same network would get another score.
        preserves: Whether the network (weights, buffers, gradients, modes, hooks) stays as it was, so that the next
            proxy may use the same one.
    """

    name: str
    compute: Callable[[nn.Module, Batch], float]
    maximize: bool = True
    role: Role = Role.SEARCH
    version: int = 1
    preserves: bool = False

    @property
    def goal(self) -> Goal:
        """The metric and its direction."""
        return Goal(self.name, self.maximize)


@final
@dataclass(frozen=True, slots=True)
class Combination:
    """Proxies whose ranks are summed: each is a metric of its own, and a rank exists only within a set.

    Attributes:
        name: Of the whole: ``naswot+synflow``.
        parts: One proxy or more.
        logarithmic: Whether logarithms of ranks are summed, which counts places near the worst one more.
    """

    name: str
    parts: tuple[ZeroCostProxy, ...]
    logarithmic: bool = False

    def __post_init__(self) -> None:
        names = [part.name for part in self.parts]
        if not names or len(set(names)) != len(names):
            raise InvalidInputError(f"a combination of proxies names one or more different ones, got {self.name!r}")

    @property
    def goals(self) -> tuple[Goal, ...]:
        """Metric and direction of each part."""
        return tuple(part.goal for part in self.parts)

    def losses(self, measurements: Sequence[Measurement]) -> list[float]:
        """One number for each of a set of measurements, smaller is better; equals share the mean of their places."""
        from scipy.stats import rankdata

        if not measurements:
            return []
        merits = [[-part.goal.loss(m[part.name]) for m in measurements] for part in self.parts]
        ranks = rankdata(np.array(merits, dtype=np.float64), axis=1)  # (parts, measurements), 1 the worst
        combined = np.log(ranks / len(measurements)).sum(0) if self.logarithmic else ranks.sum(0)
        return [-float(value) for value in combined]
