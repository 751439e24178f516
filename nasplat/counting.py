"""Parameters, FLOPs and memory of networks."""

import resource
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import torch
from torch import nn

from nasplat.architecture import Architecture
from nasplat.errors import InvalidArchitectureError
from nasplat.flops import flops
from nasplat.objective import Constraint
from nasplat.space import SearchSpace
from nasplat.task import Task


@final
@dataclass(frozen=True, slots=True)
class Counts:
    """Size of a network.

    Attributes:
        params: Trainable numbers.
        flops: Floating point operations of a forward pass of one example: 2 a multiply-add, of convolutions and
            matrix products, as ``torch.utils.flop_counter`` counts them.
    """

    params: int
    flops: int


def count(space: SearchSpace, architecture: Architecture, task: Task) -> Counts:
    """Counts of an architecture for a task, from shapes alone: nothing is allocated or computed.

    Raises:
        InvalidArchitectureError: If it cannot be built for the task.
    """
    with torch.device("meta"):
        network = space.build(architecture, task).eval()
        example = torch.empty((1, *task.input_shape), dtype=task.input_dtype)
    return count_network(network, example)


COUNTED = frozenset({"params", "flops"})
"""Metrics that are known before anything is measured."""


def restricted(space: SearchSpace, task: Task, constraints: Iterable[Constraint]) -> SearchSpace:
    """The space without architectures that violate a constraint on ``params`` or ``flops``.

    Constraints on other metrics are left to the objective, which sees them once they are measured.
    """
    counted = [c for c in constraints if c.metric in COUNTED]
    if not counted:
        return space

    @lru_cache(maxsize=100_000)
    def accepts(architecture: Architecture) -> bool:
        try:
            counts = count(space, architecture, task)
        except InvalidArchitectureError:
            return True  # measuring it fails, and so its trial says why
        return all(c.holds(getattr(counts, c.metric)) for c in counted)

    return space.restricted(accepts)


def count_network(network: nn.Module, example: torch.Tensor) -> Counts:
    """Counts of a network for inputs ``(1, ...)`` like the example."""
    params = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return Counts(params, flops(network, example))


def peak_memory_bytes(device: torch.device) -> int:
    """Highest memory since the last reset on a GPU; the process's resident peak on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
