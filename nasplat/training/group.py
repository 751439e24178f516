"""The processes that train one network together."""

from dataclasses import dataclass
from typing import Any, Self, TypeVar, final

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


@final
@dataclass(frozen=True, slots=True)
class Group:
    """The processes that share each batch of a training, as one of them sees them; by default it is alone.

    All of them call the methods that exchange something, in the same order.

    Attributes:
        rank: Position of this process, from 0.
        size: Number of processes.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> Self:
        """The group that ``torch.distributed`` was set up with, or this process alone."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def first(self) -> bool:
        """Whether this process is the one that reads, writes and answers for all."""
        return self.rank == 0

    def share(self, start: int, stop: int) -> slice:
        """The part of the examples from ``start`` to ``stop`` that falls to this process; their number is divisible."""
        count = (stop - start) // self.size
        return slice(start + self.rank * count, start + (self.rank + 1) * count)

    def wrapped(self, network: nn.Module) -> nn.Module:
        """The network to call in training: its gradients become the mean over all processes."""
        if self.size == 1:
            return network
        # Some spaces build layers that an architecture does not use, and some skip layers at random.
        return DistributedDataParallel(network, find_unused_parameters=True)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over all processes."""
        if self.size == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total / self.size

    def of_first(self, value: T) -> T:
        """What the first process gives."""
        if self.size == 1:
            return value
        given = [value]
        dist.broadcast_object_list(given)
        return given[0]

    def of_each(self, value: T) -> list[T]:
        """What each process gives, by rank."""
        if self.size == 1:
            return [value]
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, value)
        return gathered


ALONE = Group()
