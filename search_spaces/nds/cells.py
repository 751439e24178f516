"""Networks of cells with two inputs: the five design spaces of NDS that come from architecture search.

A cell sees the outputs of the two cells before it, as nodes 0 and 1. Each further node is the sum of two operations on
earlier nodes. The output concatenates all further nodes, or only the loose ones that no other node uses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import torch
from torch import Tensor, nn

from nasplat.search_spaces.nds.operations import NONE, FactorizedReduce, ReLUConvBN, operation

Branch: TypeAlias = tuple[str, int]
"""An operation and the node that it is applied to."""
Cell: TypeAlias = tuple[tuple[Branch, Branch], ...]
"""Both branches of every node from node 2 on."""


@final
@dataclass(frozen=True)
class Genotype:
    """The two cells of a network: one that keeps the map, one that halves it."""

    normal: Cell
    reduce: Cell


def output_nodes(cell: Cell, *, loose: bool) -> tuple[int, ...]:
    """The nodes that the output concatenates."""
    used = {source for node in cell for _, source in node} if loose else set()
    return tuple(node for node in range(2, len(cell) + 2) if node not in used)


def canonical_cell(cell: Cell) -> str:
    """A string that is equal exactly for cells that are the same up to the order of nodes and of branches.

    The smallest of the spellings over all orders in which the nodes can be computed, found node by node; what ``none``
    is applied to does not matter.
    """
    orders: list[dict[int, int]] = [{0: 0, 1: 1}]
    spelled: list[str] = []
    for place in range(2, len(cell) + 2):
        ready = [
            (_spelling(pair, order), {**order, node: place})
            for order in orders
            for node, pair in enumerate(cell, start=2)
            if node not in order and all(operation == NONE or source in order for operation, source in pair)
        ]
        spelled.append(min(spelling for spelling, _ in ready))
        orders = [order for spelling, order in ready if spelling == spelled[-1]]
    return "|".join(spelled)


def _spelling(pair: tuple[Branch, Branch], position: Mapping[int, int]) -> str:
    return "+".join(sorted(f"{name}~{0 if name == NONE else position[source]}" for name, source in pair))


class CellModule(nn.Module):
    """One cell: two maps in, the concatenated nodes out, of ``channels`` channels each.

    Args:
        cell: What to compute.
        c_in: Channels of the cell before the last one and of the last one.
        channels: Of every node.
        outputs: Nodes that the output concatenates.
        reduction: Whether the map is halved, by the operations on the inputs.
        after_reduction: Whether the last cell halved the map, so that the one before it must be halved too.
    """

    def __init__(
        self,
        cell: Cell,
        c_in: tuple[int, int],
        channels: int,
        *,
        outputs: Sequence[int],
        reduction: bool,
        after_reduction: bool,
    ) -> None:
        super().__init__()
        self._channels = channels
        self._outputs = tuple(outputs)
        self._stride = 2 if reduction else 1
        first: nn.Module = (FactorizedReduce if after_reduction else ReLUConvBN)(c_in[0], channels)
        self.inputs = nn.ModuleList([first, ReLUConvBN(c_in[1], channels)])
        self.branches = nn.ModuleDict()
        self._nodes: list[list[tuple[str, int]]] = []
        for node, pair in enumerate(cell, start=2):
            terms = []
            for branch, (name, source) in enumerate(pair):
                if name != NONE:
                    key = f"{node}_{branch}"
                    self.branches[key] = operation(name, channels, self._stride if source < 2 else 1)
                    terms.append((key, source))
            self._nodes.append(terms)

    def forward(self, x_0: Tensor, x_1: Tensor) -> Tensor:
        """The concatenated output nodes."""
        nodes = [self.inputs[0](x_0), self.inputs[1](x_1)]
        height, width = (-(-size // self._stride) for size in x_1.shape[2:])
        for terms in self._nodes:
            values = [self.branches[key](nodes[source]) for key, source in terms]
            node = values[0] if values else x_1.new_zeros(x_1.shape[0], self._channels, height, width)
            for value in values[1:]:
                node = node + value
            nodes.append(node)
        return torch.cat([nodes[node] for node in self._outputs], 1)


class CellNetwork(nn.Module):
    """``(B, C, H, W)`` to ``(B, classes)``: stem, ``depth`` cells, global pooling, linear head.

    The cells at a third and at two thirds of the depth halve the map and double the channels.

    Args:
        genotype: The cells.
        shape: Channels of the input and number of classes.
        width: Channels of a node in the first cells.
        depth: Number of cells.
        loose: Whether cells output only the nodes that no other node uses.
    """

    def __init__(self, genotype: Genotype, shape: tuple[int, int], *, width: int, depth: int, loose: bool) -> None:
        super().__init__()
        stem = 3 * width
        self.stem = nn.Sequential(nn.Conv2d(shape[0], stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem))
        self.cells = nn.ModuleList()
        c_in, after_reduction = (stem, stem), False
        for number in range(depth):
            reduction = number in (depth // 3, 2 * depth // 3)
            width = 2 * width if reduction else width
            cell = genotype.reduce if reduction else genotype.normal
            outputs = output_nodes(cell, loose=loose)
            self.cells.append(
                CellModule(cell, c_in, width, outputs=outputs, reduction=reduction, after_reduction=after_reduction)
            )
            c_in, after_reduction = (c_in[1], len(outputs) * width), reduction
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(c_in[1], shape[1])

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        before = last = self.stem(x)
        for cell in self.cells:
            before, last = last, cell(before, last)
        out: Tensor = self.head(self.pool(last))
        return out


def _cell(text: str) -> Cell:
    """The cell that a string such as ``skip_connect~0+none~1|…`` spells."""
    nodes = []
    for node in text.split("|"):
        (a, i), (b, j) = (branch.split("~") for branch in node.split("+"))
        nodes.append(((a, int(i)), (b, int(j))))
    return tuple(nodes)


PUBLISHED: Mapping[str, tuple[str, Genotype]] = {
    "NASNet": (
        "NASNet",
        Genotype(
            _cell(
                "sep_conv_5x5~1+sep_conv_3x3~0|sep_conv_5x5~0+sep_conv_3x3~0|avg_pool_3x3~1+skip_connect~0|"
                "avg_pool_3x3~0+avg_pool_3x3~0|sep_conv_3x3~1+skip_connect~1"
            ),
            _cell(
                "sep_conv_5x5~1+sep_conv_7x7~0|max_pool_3x3~1+sep_conv_7x7~0|avg_pool_3x3~1+sep_conv_5x5~0|"
                "skip_connect~3+avg_pool_3x3~2|sep_conv_3x3~2+max_pool_3x3~1"
            ),
        ),
    ),
    "PNASNet": (
        "PNAS",
        Genotype(
            *[
                _cell(
                    "sep_conv_5x5~0+max_pool_3x3~0|sep_conv_7x7~1+max_pool_3x3~1|sep_conv_5x5~1+sep_conv_3x3~1|"
                    "sep_conv_3x3~4+max_pool_3x3~1|sep_conv_3x3~0+skip_connect~1"
                )
            ]
            * 2
        ),
    ),
    "AmoebaNet": (
        "Amoeba",
        Genotype(
            _cell(
                "avg_pool_3x3~0+max_pool_3x3~1|sep_conv_3x3~0+sep_conv_5x5~2|sep_conv_3x3~0+avg_pool_3x3~3|"
                "sep_conv_3x3~1+skip_connect~1|skip_connect~0+avg_pool_3x3~1"
            ),
            _cell(
                "avg_pool_3x3~0+sep_conv_3x3~1|max_pool_3x3~0+sep_conv_7x7~2|sep_conv_7x7~0+avg_pool_3x3~1|"
                "max_pool_3x3~0+max_pool_3x3~1|conv_7x1_1x7~0+sep_conv_3x3~5"
            ),
        ),
    ),
    "DARTS_V1": (
        "DARTS",
        Genotype(
            _cell(
                "sep_conv_3x3~1+sep_conv_3x3~0|skip_connect~0+sep_conv_3x3~1|skip_connect~0+sep_conv_3x3~1|"
                "sep_conv_3x3~0+skip_connect~2"
            ),
            _cell(
                "max_pool_3x3~0+max_pool_3x3~1|skip_connect~2+max_pool_3x3~0|max_pool_3x3~0+skip_connect~2|"
                "skip_connect~2+avg_pool_3x3~0"
            ),
        ),
    ),
    "DARTS_V2": (
        "DARTS",
        Genotype(
            _cell(
                "sep_conv_3x3~0+sep_conv_3x3~1|sep_conv_3x3~0+sep_conv_3x3~1|sep_conv_3x3~1+skip_connect~0|"
                "skip_connect~0+dil_conv_3x3~2"
            ),
            _cell(
                "max_pool_3x3~0+max_pool_3x3~1|skip_connect~2+max_pool_3x3~1|max_pool_3x3~0+skip_connect~2|"
                "skip_connect~2+max_pool_3x3~1"
            ),
        ),
    ),
}
"""Published cells by name, with the design space that each belongs to."""
