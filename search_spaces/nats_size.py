"""The size space of NATS-Bench: five layers, eight widths each, one topology; 32,768 networks.

Dong, Liu, Musial & Gabrys 2021, "NATS-Bench: Benchmarking NAS Algorithms for Architecture Topology and Size"
(TPAMI). Implemented: the published string and order, and the skeleton with its parameter and FLOP counts. The topology
is the benchmark's: the cell of NAS-Bench-201 that is best on the validation data of CIFAR-100 (#9930).
"""

from collections.abc import Mapping
from typing import ClassVar, final

from torch import Tensor, nn

from nasplat.architecture import Architecture
from nasplat.choices import Choice, Value
from nasplat.errors import InvalidArchitectureError
from nasplat.search_spaces.nasbench201 import (
    CONV3,
    EDGES,
    NONE,
    POOL,
    SKIP,
    Cell,
    NasBench201,
    ReLUConvBN,
    ResidualBlock,
)
from nasplat.space import Graph, SearchSpace
from nasplat.task import Task

WIDTHS = (8, 16, 24, 32, 40, 48, 56, 64)
"""The channels that a layer can have."""

_NAMES = tuple(f"layer{layer}" for layer in range(1, 6))
_RESIDUAL = (1, 3)
_TOPOLOGY = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"


class ShapedCell(nn.Module):
    """A cell of NAS-Bench-201 that changes the width: ``(B, C_in, H, W)`` to ``(B, C_out, H, W)``.

    Edges from the input change it. Where they have no convolution of their own, a skip becomes one of 1×1 with batch
    normalization, and pooling comes after a 1×1 ``ReLUConvBN``.
    """

    def __init__(self, cell: Cell, c_in: int, c_out: int) -> None:
        super().__init__()
        self.edges = nn.ModuleDict()
        self._c_out = c_out
        self._incoming: list[list[tuple[int, str]]] = [[] for _ in range(4)]
        for (source, target), operation in zip(EDGES, cell, strict=True):
            if operation != NONE:
                key = f"edge_{source}_{target}"
                self.edges[key] = _operation(operation, c_in if source == 0 else c_out, c_out)
                self._incoming[target].append((source, key))

    def forward(self, x: Tensor) -> Tensor:
        """The last node; zeros if no edge reaches it."""
        nodes = [x]
        for incoming in self._incoming[1:]:
            terms = [self.edges[key](nodes[source]) for source, key in incoming]
            node = terms[0] if terms else x.new_zeros(x.shape[0], self._c_out, *x.shape[2:])
            for term in terms[1:]:
                node = node + term
            nodes.append(node)
        return nodes[-1]


@final
class NatsSize(SearchSpace):
    """The widths of NATS-Bench's size space: cell, residual block, cell, residual block, cell.

    An architecture reads ``64:32:16:8:48``; indices are the benchmark's own.

    Args:
        cell: Topology of the cells as a string of NAS-Bench-201; by default the benchmark's.
    """

    name: ClassVar[str] = "nats-size"

    def __init__(self, *, cell: str = _TOPOLOGY) -> None:
        topology = NasBench201().parse(cell)
        super().__init__(
            [Choice(name, WIDTHS, ordered=True) for name in _NAMES],
            variant="" if topology.text == _TOPOLOGY else f"cell={topology.text}",
        )
        self._cell: Cell = tuple(str(operation) for _, operation in topology.values)

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        """``(B, C, H, W)`` to ``(B, classes)``: stem, the five layers, linear head."""
        if len(task.input_shape) != 3:
            raise InvalidArchitectureError(
                f"{self.name} takes images (C, H, W); the inputs of task {task.name!r} are {task.input_shape}"
            )
        widths = [int(architecture[name]) for name in _NAMES]
        c_in = widths[0]
        layers: list[nn.Module] = [
            nn.Conv2d(task.input_shape[0], c_in, 3, padding=1, bias=False),
            nn.BatchNorm2d(c_in),
        ]
        for layer, width in enumerate(widths):
            layers.append(ResidualBlock(c_in, width) if layer in _RESIDUAL else ShapedCell(self._cell, c_in, width))
            c_in = width
        layers += [nn.BatchNorm2d(c_in), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(c_in, task.outputs))

    def format(self, values: Mapping[str, Value]) -> str:
        """The official string."""
        return ":".join(str(values[name]) for name in _NAMES)

    def parse_values(self, text: str) -> dict[str, Value]:
        """The widths of an official string.

        Raises:
            InvalidArchitectureError: If it does not name five of the widths.
        """
        by_text = {str(width): width for width in WIDTHS}
        spelled = text.split(":")
        if len(spelled) != len(_NAMES) or not all(part in by_text for part in spelled):
            raise InvalidArchitectureError(
                f"{text!r} is no architecture of {self.name}: expected {len(_NAMES)} of the widths "
                f"{', '.join(by_text)} such as 64:32:16:8:48, or #index"
            )
        return dict(zip(_NAMES, (by_text[part] for part in spelled), strict=True))

    def graph(self, architecture: Architecture) -> Graph:
        """The layers as a chain."""
        layers = [
            f"{'residual /2' if layer in _RESIDUAL else 'cell'}, {architecture[name]} channels"
            for layer, name in enumerate(_NAMES)
        ]
        nodes = ("input", f"stem, {architecture[_NAMES[0]]} channels", *layers, "linear")
        return Graph(nodes, tuple((i, i + 1, "") for i in range(len(nodes) - 1)))

    def at(self, index: int) -> Architecture:
        """The architecture with an official index, 0 to 32,767: the last layer changes fastest.

        Raises:
            InvalidArchitectureError: If the index is outside.
        """
        if not 0 <= index < self.size:
            raise InvalidArchitectureError(f"{self.name} has indices 0 to {self.size - 1}, got {index}")
        values: dict[str, Value] = {}
        for name in reversed(_NAMES):
            index, position = divmod(index, len(WIDTHS))
            values[name] = WIDTHS[position]
        return self.architecture(values)

    def index(self, architecture: Architecture) -> int:
        """The official index."""
        index = 0
        for name in _NAMES:
            index = index * len(WIDTHS) + WIDTHS.index(int(architecture[name]))
        return index


def _operation(operation: str, c_in: int, c_out: int) -> nn.Module:
    if operation == SKIP:
        if c_in == c_out:
            return nn.Identity()
        return nn.Sequential(nn.Conv2d(c_in, c_out, 1, bias=False), nn.BatchNorm2d(c_out))
    if operation == POOL:
        pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        return pool if c_in == c_out else nn.Sequential(ReLUConvBN(c_in, c_out, 1), pool)
    return ReLUConvBN(c_in, c_out, 3 if operation == CONV3 else 1)
