"""All cells of NAS-Bench-201 as one network: each edge is the weighted sum of its five operations.

As in the benchmark's one-shot searches (Dong & Yang, ICLR 2020, section 3 and appendix): all cells share their mixing,
and the operations' batch normalization has no affine parameters, which could undo the mixing.
"""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from nasplat.architecture import Architecture
from nasplat.search_spaces.nasbench201 import CONV1, CONV3, EDGES, NONE, OPERATIONS, POOL, NasBench201, operation_module
from nasplat.supernet import Mixing, Supernet
from nasplat.task import Task

_EXTENTS = {CONV1: 1.0, CONV3: 3.0, POOL: 3.0}


@final
class MixedEdge(nn.Module):
    """``Σ_j w_j · operation_j(x)``; ``(B, C, H, W)`` stays ``(B, C, H, W)``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.operations = nn.ModuleDict(
            {name: operation_module(name, channels, affine=False) for name in OPERATIONS if name != NONE}
        )

    def forward(self, x: Tensor, mixing: Mixing) -> Tensor:
        """All operations, or the chosen one: the weights of the others, zeros, are added for their gradient (GDAS)."""
        if mixing.chosen is None:
            terms = [
                weight * self.operations[name](x)
                for name, weight in zip(OPERATIONS, mixing.weights, strict=True)
                if name != NONE
            ]
            return torch.stack(terms).sum(0)
        name, weight = OPERATIONS[mixing.chosen], mixing.weights[mixing.chosen]
        result = torch.zeros_like(x) if name == NONE else self.operations[name](x)
        return weight * result + (mixing.weights.sum() - weight)


@final
class MixedCell(nn.Module):
    """A cell of mixed edges; ``(B, C, H, W)`` stays ``(B, C, H, W)``.

    Attributes:
        mixings: Of the edges, while the supernet runs.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.edges = nn.ModuleList(MixedEdge(channels) for _ in EDGES)
        self.mixings: Sequence[Mixing] = ()

    def forward(self, x: Tensor) -> Tensor:
        """The last node."""
        nodes = {0: x}
        for (source, target), edge, mixing in zip(EDGES, self.edges, self.mixings, strict=True):
            term = edge(nodes[source], mixing)
            nodes[target] = nodes[target] + term if target in nodes else term
        return nodes[len(nodes) - 1]


@final
class CellSupernet(Supernet):
    """The macro skeleton of a space with mixed cells; a decision is an edge, its options are ``OPERATIONS``.

    Args:
        space: Gives width and depth.
        task: Gives the shapes.
    """

    def __init__(self, space: NasBench201, task: Task) -> None:
        super().__init__()
        self.options = (len(OPERATIONS),) * len(EDGES)
        self.extents = (tuple(_EXTENTS.get(name, 0.0) for name in OPERATIONS),) * len(EDGES)
        self._space = space
        self.network = space.skeleton(MixedCell, task)
        self._cells = [module for module in self.network if isinstance(module, MixedCell)]

    def forward(self, x: Tensor, mixings: Sequence[Mixing]) -> Tensor:
        """``(B, C, H, W)`` to ``(B, classes)``."""
        for cell in self._cells:
            cell.mixings = mixings
        outputs: Tensor = self.network(x)
        return outputs

    def places(self, architecture: Architecture) -> tuple[int, ...]:
        """The operations in the order of the edges."""
        return tuple(OPERATIONS.index(str(value)) for _, value in architecture.values)

    def architecture(self, places: Sequence[int]) -> Architecture:
        """The cell with an operation on each edge."""
        names = [choice.name for choice in self._space.choices]
        return self._space.architecture(dict(zip(names, (OPERATIONS[place] for place in places), strict=True)))
