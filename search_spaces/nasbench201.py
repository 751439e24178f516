"""The cell space of NAS-Bench-201: six edges between four nodes, five operations an edge, 15,625 cells.

Dong & Yang 2020, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search" (ICLR),
which is also the topology space of NATS-Bench. Implemented: the published string and index both ways, the
macro skeleton with its parameter and FLOP counts, and the benchmark's own notion of isomorphism.

Deviation: an edge ``none`` computes nothing instead of multiplying by zero. Values and parameters are the
same; the weights of a branch that leads nowhere get no gradient instead of a zero one.
"""

import itertools
import random
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, TypeAlias, final

import torch
from torch import Tensor, nn

from nasplat.architecture import Architecture
from nasplat.choices import Choice, Value
from nasplat.errors import InvalidArchitectureError, InvalidInputError, unknown_name
from nasplat.space import Graph, SearchSpace
from nasplat.supernet import Supernet, WeightSharing
from nasplat.task import Task

NONE, SKIP, CONV1, CONV3, POOL = "none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"
OPERATIONS = (NONE, SKIP, CONV1, CONV3, POOL)
"""The operations in the order in which the benchmark enumerates its cells."""

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""``(source, target)`` of every edge, in the order of the official string."""

Cell: TypeAlias = tuple[str, ...]
"""One operation an edge, in the order of ``EDGES``."""

_NODES = 4
_NAMES = tuple(f"{source}->{target}" for source, target in EDGES)
_SHUFFLE_SEED = 88
_FORM = "|op~0|+|op~0|op~1|+|op~0|op~1|op~2|"


class ReLUConvBN(nn.Sequential):
    """ReLU → convolution without bias → batch normalization.

    Shapes: ``(B, C_in, H, W)`` to ``(B, C_out, ceil(H / stride), ceil(W / stride))``.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int, *, stride: int = 1, affine: bool = True) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(c_out, affine=affine),
        )


class CellModule(nn.Module):
    """One cell: every node is the sum of its incoming edges; ``(B, C, H, W)`` stays ``(B, C, H, W)``.

    A node with a single skip is its source itself, the same tensor object, so that whoever watches the ReLUs'
    inputs can tell that they are equal.
    """

    def __init__(self, cell: Cell, channels: int) -> None:
        super().__init__()
        self.edges = nn.ModuleDict()
        self._incoming: list[list[tuple[int, str]]] = [[] for _ in range(_NODES)]
        for (source, target), operation in zip(EDGES, cell, strict=True):
            if operation != NONE:
                key = f"edge_{source}_{target}"
                self.edges[key] = operation_module(operation, channels)
                self._incoming[target].append((source, key))

    def forward(self, x: Tensor) -> Tensor:
        """The last node; zeros if no edge reaches it."""
        nodes = [x]
        for incoming in self._incoming[1:]:
            terms = [self.edges[key](nodes[source]) for source, key in incoming]
            node = terms[0] if terms else torch.zeros_like(x)
            for term in terms[1:]:
                node = node + term
            nodes.append(node)
        return nodes[-1]


class ResidualBlock(nn.Module):
    """Halves the map: two 3×3 ``ReLUConvBN`` beside average pooling with a 1×1 convolution.

    Shapes: ``(B, C_in, H, W)`` to ``(B, C_out, ceil(H / 2), ceil(W / 2))``.
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv_a = ReLUConvBN(c_in, c_out, 3, stride=2)
        self.conv_b = ReLUConvBN(c_out, c_out, 3)
        self.shortcut = nn.Sequential(
            # The mode matters for odd sizes only, where the pooled map must fit the convolved one.
            nn.AvgPool2d(2, 2, ceil_mode=True),
            nn.Conv2d(c_in, c_out, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Both ways, summed."""
        out: Tensor = self.shortcut(x) + self.conv_b(self.conv_a(x))
        return out


@final
class NasBench201(SearchSpace, WeightSharing):
    """The 15,625 cells of NAS-Bench-201 in their macro skeleton.

    Indices are the benchmark's own: ``parse("#6111")`` is the best cell for CIFAR-10. Two cells count as the
    same if the benchmark's isomorphism with zeroized edges says so (``cell_string``): 6,466 classes. Cells of
    a class may differ in convolutions that lead nowhere, and so in their parameters.

    Args:
        channels: Width of the first stage; the others have twice and four times as many.
        cells: Cells a stage; 5 in the benchmark, 1 is the cheap setting for scores.
        isomorphism: Whether isomorphic cells count as the same. Without it every string is measured for
            itself, as in experiments on the benchmark's table that do not know about isomorphism.
    """

    name: ClassVar[str] = "nasbench201"
    references: ClassVar[Mapping[str, Mapping[str, Value]]] = {
        "resnet": dict(zip(_NAMES, (CONV3, CONV3, CONV3, SKIP, CONV3, CONV3), strict=True)),
        "best-cifar10": dict(zip(_NAMES, (CONV3, CONV3, CONV3, SKIP, CONV3, CONV1), strict=True)),
    }
    cheap: ClassVar[Mapping[str, Any]] = {"cells": 1}

    def __init__(self, *, channels: int = 16, cells: int = 5, isomorphism: bool = True) -> None:
        changed = [] if isomorphism else ["isomorphism=False"]
        for option, value, published in (("channels", channels, 16), ("cells", cells, 5)):
            if value < 1:
                raise InvalidInputError(f"{option} of {self.name} must be 1 or more, got {value}")
            if value != published:
                changed.append(f"{option}={value}")
        super().__init__([Choice(name, OPERATIONS) for name in _NAMES], variant=",".join(changed))
        self._channels = channels
        self._cells = cells
        self._isomorphism = isomorphism

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        """``(B, C, H, W)`` to ``(B, classes)``: stem, three stages with residual blocks between, linear head.

        Weights are drawn in the order of the published network, with torch's default initialization.
        """
        cell = _cell(architecture.chosen)
        return self.skeleton(lambda channels: CellModule(cell, channels), task)

    def skeleton(self, make_cell: Callable[[int], nn.Module], task: Task) -> nn.Sequential:
        """The macro skeleton around cells that are made by their channels."""
        if len(task.input_shape) != 3:
            raise InvalidArchitectureError(
                f"{self.name} takes images (C, H, W); the inputs of task {task.name!r} are {task.input_shape}"
            )
        width = self._channels
        stem = nn.Conv2d(task.input_shape[0], width, 3, padding=1, bias=False)
        layers: list[nn.Module] = [stem, nn.BatchNorm2d(width)]
        for stage in range(3):
            if stage > 0:
                layers.append(ResidualBlock(width, 2 * width))
                width *= 2
            layers += [make_cell(width) for _ in range(self._cells)]
        layers += [nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(width, task.outputs))

    def supernet(self, task: Task) -> Supernet:
        """All cells at once: each edge mixes the five operations, the same way in every cell."""
        from nasplat.search_spaces.nasbench201_supernet import CellSupernet

        return CellSupernet(self, task)

    def canonical(self, values: Mapping[str, Value]) -> str:
        """``cell_string`` with zeroized edges, or the official string without isomorphism."""
        return cell_string(_cell(values)) if self._isomorphism else self.format(values)

    def format(self, values: Mapping[str, Value]) -> str:
        """The official string."""
        return _official(_cell(values))

    def parse_values(self, text: str) -> dict[str, Value]:
        """The operations of an official string ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``.

        Raises:
            InvalidArchitectureError: If the text has another form or an unknown operation.
        """
        spelled = re.findall(r"\|([^|~]*)~(\d+)(?=\|)", text)
        if len(spelled) != len(EDGES) or text != _official([operation for operation, _ in spelled]):
            raise InvalidArchitectureError(
                f"{text!r} is no architecture of {self.name}: expected {_FORM}, "
                f"a reference ({', '.join(self.references)}) or #index"
            )
        for operation, _ in spelled:
            if operation not in OPERATIONS:
                raise InvalidArchitectureError(str(unknown_name(f"operation of {self.name}", operation, OPERATIONS)))
        return dict(zip(_NAMES, (operation for operation, _ in spelled), strict=True))

    def graph(self, architecture: Architecture) -> Graph:
        """The cell: four nodes, and an edge for every operation but ``none``."""
        edges = zip(EDGES, _cell(architecture.chosen), strict=True)
        return Graph(
            ("input", "node 1", "node 2", "output"),
            tuple((source, target, operation) for (source, target), operation in edges if operation != NONE),
        )

    def at(self, index: int) -> Architecture:
        """The architecture with an official index, 0 to 15,624.

        Raises:
            InvalidArchitectureError: If the index is outside.
        """
        if not 0 <= index < self.size:
            raise InvalidArchitectureError(f"{self.name} has indices 0 to {self.size - 1}, got {index}")
        return self.architecture(dict(zip(_NAMES, _enumeration()[index], strict=True)))

    def index(self, architecture: Architecture) -> int:
        """The official index."""
        return _positions()[_cell(architecture.chosen)]


def cell_string(cell: Cell, *, zeroize: bool = True) -> str:
    """The benchmark's name for the function that a cell computes, equal for isomorphic cells.

    A node is the sorted sum of its terms, and a skip is its source. With ``zeroize``, an edge that is
    ``none`` or starts at a node of which nothing is left is ``#`` (6,466 classes); without, ``none`` is an
    operation like any other (12,751).
    """
    nodes = ["0"]
    operations = iter(cell)
    for target in range(1, _NODES):
        nodes.append("+".join(sorted(_term(next(operations), nodes[s], zeroize) for s in range(target))))
    return nodes[-1]


def _term(operation: str, source: str, zeroize: bool) -> str:
    if zeroize and (operation == NONE or source == "#"):
        return "#"
    return source if operation == SKIP else f"({source})@{operation}"


def operation_module(operation: str, channels: int, *, affine: bool = True) -> nn.Module:
    """One operation but ``none``; ``(B, C, H, W)`` stays ``(B, C, H, W)``."""
    if operation == SKIP:
        return nn.Identity()
    if operation == POOL:
        return nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    return ReLUConvBN(channels, channels, 1 if operation == CONV1 else 3, affine=affine)


def _cell(values: Mapping[str, Value]) -> Cell:
    return tuple(str(values[name]) for name in _NAMES)


def _official(cell: Sequence[str]) -> str:
    a, b, c, d, e, f = cell
    return f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"


@cache
def _enumeration() -> tuple[Cell, ...]:
    """All cells by official index: in the order of ``OPERATIONS``, last edge fastest, then shuffled once."""
    cells = list(itertools.product(OPERATIONS, repeat=len(EDGES)))
    random.Random(_SHUFFLE_SEED).shuffle(cells)
    return tuple(cells)


@cache
def _positions() -> dict[Cell, int]:
    return {cell: index for index, cell in enumerate(_enumeration())}
