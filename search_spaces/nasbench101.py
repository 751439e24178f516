"""The cell space of NAS-Bench-101: graphs of up to seven vertices and nine edges, an operation on each vertex.

Ying et al. 2019, "NAS-Bench-101: Towards Reproducible Neural Architecture Search" (ICML). Implemented: pruning,
the published graph hash, the channels of the vertices, the macro skeleton with its parameter counts, and the
published initialization. 423,624 cells are different by the hash.

An architecture is the whole upper triangle of a 7×7 adjacency matrix and five operations, as in the benchmark's own
searches; most of these 510 million assignments are redundant and some are no cell. Two assignments are the same
architecture if their pruned graphs have the same hash. What has no path from input to output, or more than nine
edges after pruning, is never drawn by ``sample``, ``mutate``, ``crossover`` or ``neighbors``; it can be named, and
``build`` refuses it with the reason.
"""

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias, final

import torch
from torch import Tensor, nn

from nasplat.architecture import Architecture
from nasplat.choices import Choice, Value
from nasplat.errors import InvalidArchitectureError, InvalidInputError, unknown_name
from nasplat.space import Graph, SearchSpace
from nasplat.task import Task

INPUT, OUTPUT = "input", "output"
CONV3, CONV1, POOL = "conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3"
OPERATIONS = (CONV3, CONV1, POOL)
"""The operations of inner vertices, in the order in which the published hash numbers them."""
VERTICES, EDGES = 7, 9
"""Most vertices and edges of a cell."""

Matrix: TypeAlias = tuple[tuple[int, ...], ...]
"""Upper triangular: ``matrix[source][target]`` is 1 where there is an edge."""

_PAIRS = tuple(itertools.combinations(range(VERTICES), 2))
_EDGE_NAMES = tuple(f"{source}->{target}" for source, target in _PAIRS)
_OPERATION_NAMES = tuple(f"op{vertex}" for vertex in range(1, VERTICES - 1))
_FORM = (
    "the digits of an adjacency matrix, row by row, ':' and the operations, such as 001000000:input,maxpool3x3,output"
)


@final
@dataclass(frozen=True)
class Cell:
    """A labelled graph whose vertices are in the order of the computation.

    Attributes:
        matrix: Its edges.
        operations: Of all vertices; the first is ``input``, the last ``output``.
    """

    matrix: Matrix
    operations: tuple[str, ...]

    @property
    def edges(self) -> int:
        """How many there are."""
        return sum(map(sum, self.matrix))

    def pruned(self) -> "Cell | None":
        """Without the vertices that lie on no path from input to output; None if there is no such path."""
        last = len(self.matrix) - 1
        reached, reaching = {0}, {last}
        for vertex in range(1, last + 1):
            if any(self.matrix[source][vertex] for source in reached):
                reached.add(vertex)
        for vertex in range(last - 1, -1, -1):
            if any(self.matrix[vertex][target] for target in reaching):
                reaching.add(vertex)
        if last not in reached:
            return None
        kept = sorted(reached & reaching)
        matrix = tuple(tuple(self.matrix[source][target] for target in kept) for source in kept)
        return Cell(matrix, tuple(self.operations[vertex] for vertex in kept))

    def hash(self) -> str:
        """The published graph hash, equal for isomorphic cells; ``module_hash`` of the official files.

        Every vertex starts from its degrees and label and takes in its neighbours' hashes once for each vertex.
        """
        size = range(len(self.matrix))
        labels = [-1, *(OPERATIONS.index(operation) for operation in self.operations[1:-1]), -2]
        sources = [[s for s in size if self.matrix[s][v]] for v in size]
        targets = [[t for t in size if self.matrix[v][t]] for v in size]
        hashes = [_md5(str((len(targets[v]), len(sources[v]), labels[v]))) for v in size]
        for _ in size:
            before = ["".join(sorted([hashes[s] for s in sources[v]])) for v in size]
            after = ["".join(sorted([hashes[t] for t in targets[v]])) for v in size]
            hashes = [_md5(f"{before[v]}|{after[v]}|{hashes[v]}") for v in size]
        return _md5(str(sorted(hashes)))


def vertex_channels(c_in: int, c_out: int, matrix: Matrix) -> list[int]:
    """The channels of every vertex of a pruned cell.

    Vertices that lead to the output share its channels evenly, the first ones having one more where that leaves a
    remainder; any other one has as many as the widest that it leads to.
    """
    last = len(matrix) - 1
    channels = [c_in] + [0] * (last - 1) + [c_out]
    ends = [vertex for vertex in range(1, last) if matrix[vertex][last]]
    for position, vertex in enumerate(ends):
        channels[vertex] = c_out // len(ends) + (position < c_out % len(ends))
    for vertex in range(last - 1, 0, -1):
        if vertex not in ends:
            channels[vertex] = max(channels[t] for t in range(vertex + 1, last) if matrix[vertex][t])
    return channels


class ConvBNReLU(nn.Sequential):
    """Convolution without bias → batch normalization → ReLU; ``(B, C_in, H, W)`` to ``(B, C_out, H, W)``.

    Kernels are drawn as TensorFlow's variance scaling does: normal, cut at two deviations, variance 1 / fan-in.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int) -> None:
        conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=False)
        # A normal distribution that is cut at two deviations has .87962566 of its deviation left.
        deviation = 1 / (math.sqrt(c_in * kernel * kernel) * 0.87962566103423978)
        nn.init.trunc_normal_(conv.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
        # Batch statistics as in the benchmark: the running ones keep .997 of themselves a step.
        super().__init__(conv, nn.BatchNorm2d(c_out, momentum=1 - 0.997), nn.ReLU())


class CellModule(nn.Module):
    """One cell: ``(B, C_in, H, W)`` to ``(B, C_out, H, W)``.

    An inner vertex sums its inputs, cut to its channels, and applies its operation. The output concatenates its inner
    inputs. Edges from the input are 1×1 projections; the one to the output is added to what was concatenated.
    """

    def __init__(self, cell: Cell, c_in: int, c_out: int) -> None:
        super().__init__()
        last = len(cell.matrix) - 1
        self._channels = vertex_channels(c_in, c_out, cell.matrix)
        self._sources = [[s for s in range(1, v) if cell.matrix[s][v]] for v in range(last + 1)]
        self.projections = nn.ModuleDict()
        self.vertices = nn.ModuleList()
        for vertex in range(1, last + 1):
            if cell.matrix[0][vertex]:
                self.projections[str(vertex)] = ConvBNReLU(c_in, self._channels[vertex], 1)
            self.vertices.append(_operation(cell.operations[vertex], self._channels[vertex]))

    def forward(self, x: Tensor) -> Tensor:
        """The cell's output."""
        tensors = [x]
        for vertex, operation in enumerate(self.vertices, start=1):
            terms = [tensors[source] for source in self._sources[vertex]]
            if vertex < len(self.vertices):
                terms = [_cut(term, self._channels[vertex]) for term in terms]
            elif len(terms) > 1:
                terms = [torch.cat(terms, 1)]
            if str(vertex) in self.projections:
                terms.append(self.projections[str(vertex)](x))
            total = terms[0]
            for term in terms[1:]:
                total = total + term
            tensors.append(operation(total))
        return tensors[-1]


def _embedded(matrix: Sequence[Sequence[int]], operations: Sequence[str]) -> dict[str, Value]:
    """The values of a graph, its output the seventh vertex."""
    last = len(matrix) - 1
    values: dict[str, Value] = dict.fromkeys(_EDGE_NAMES, 0)
    for source, target in itertools.combinations(range(last + 1), 2):
        values[f"{source}->{VERTICES - 1 if target == last else target}"] = matrix[source][target]
    padded = [*operations[1:-1], *[OPERATIONS[0]] * (VERTICES - len(operations))]
    return values | dict(zip(_OPERATION_NAMES, padded, strict=True))


_INCEPTION = _embedded(
    (
        (0, 1, 1, 1, 0, 1, 0),
        (0, 0, 0, 0, 0, 0, 1),
        (0, 0, 0, 0, 0, 0, 1),
        (0, 0, 0, 0, 1, 0, 0),
        (0, 0, 0, 0, 0, 0, 1),
        (0, 0, 0, 0, 0, 0, 1),
        (0, 0, 0, 0, 0, 0, 0),
    ),
    (INPUT, CONV1, CONV3, CONV3, CONV3, POOL, OUTPUT),
)
_RESNET = _embedded(((0, 1, 0, 1), (0, 0, 1, 0), (0, 0, 0, 1), (0, 0, 0, 0)), (INPUT, CONV3, CONV3, OUTPUT))


@final
class NasBench101(SearchSpace):
    """The cells of NAS-Bench-101 in their macro skeleton: three stacks of three cells, the stem 128 wide.

    An architecture reads as a record of the official file does, the digits of the adjacency matrix and the operations
    with a colon between: ``001000000:input,maxpool3x3,output`` for a smaller graph, which ``parse`` takes, and all
    seven vertices when it is written.

    Args:
        channels: Width of the stem and of the first stack; it doubles from stack to stack.
        cells: Cells a stack; 3 in the benchmark, 1 is the cheap setting for scores.
    """

    name: ClassVar[str] = "nasbench101"
    references: ClassVar[Mapping[str, Mapping[str, Value]]] = {"inception": _INCEPTION, "resnet": _RESNET}

    def __init__(self, *, channels: int = 128, cells: int = 3) -> None:
        changed = []
        for option, value, lowest, published in (("channels", channels, VERTICES - 2, 128), ("cells", cells, 1, 3)):
            if value < lowest:
                raise InvalidInputError(f"{option} of {self.name} must be {lowest} or more, got {value}")
            if value != published:
                changed.append(f"{option}={value}")
        edges = [Choice(name, (0, 1), ordered=True) for name in _EDGE_NAMES]
        super().__init__(
            [*edges, *(Choice(name, OPERATIONS) for name in _OPERATION_NAMES)],
            variant=",".join(changed),
        )
        self._channels = channels
        self._cells = cells
        self._accepts = _is_cell

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        """``(B, C, H, W)`` to ``(B, classes)``: stem, three stacks with max pooling between, linear head.

        Raises:
            InvalidArchitectureError: If the graph is no cell of the benchmark, or the task has no images.
        """
        if len(task.input_shape) != 3:
            raise InvalidArchitectureError(
                f"{self.name} takes images (C, H, W); the inputs of task {task.name!r} are {task.input_shape}"
            )
        cell = _valid(architecture.chosen)
        c_in = c_out = self._channels
        layers: list[nn.Module] = [ConvBNReLU(task.input_shape[0], c_in, 3)]
        for stack in range(3):
            if stack > 0:
                # The mode matters for odd sizes only: TensorFlow's "same" pooling pads them.
                layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
                c_out *= 2
            for _ in range(self._cells):
                layers.append(CellModule(cell, c_in, c_out))
                c_in = c_out
        head = nn.Linear(c_out, task.outputs)
        nn.init.xavier_uniform_(head.weight)
        nn.init.zeros_(head.bias)
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)

    def canonical(self, values: Mapping[str, Value]) -> str:
        """The published hash of the pruned graph."""
        pruned = _cell(values).pruned()
        return "disconnected" if pruned is None else pruned.hash()

    def format(self, values: Mapping[str, Value]) -> str:
        """All seven vertices, such as ``0100000…:input,conv3x3-bn-relu,…,output``."""
        cell = _cell(values)
        return "".join(str(bit) for row in cell.matrix for bit in row) + ":" + ",".join(cell.operations)

    def parse_values(self, text: str) -> dict[str, Value]:
        """The values of a graph of two to seven vertices; the vertices that it lacks are joined to nothing.

        Raises:
            InvalidArchitectureError: If the text has another form or an unknown operation.
        """
        digits, _, spelled = text.partition(":")
        operations = spelled.split(",")
        size = len(operations)
        rows = [digits[start : start + size] for start in range(0, len(digits), size)]
        if (
            not 2 <= size <= VERTICES
            or len(digits) != size * size
            or (operations[0], operations[-1]) != (INPUT, OUTPUT)
            or not set(digits) <= {"0", "1"}
            or any("1" in row[: vertex + 1] for vertex, row in enumerate(rows))
        ):
            raise InvalidArchitectureError(
                f"{text!r} is no architecture of {self.name}: expected {_FORM}, of 2 to {VERTICES} vertices and upper "
                f"triangular, a reference ({', '.join(self.references)}) or #index"
            )
        for operation in operations[1:-1]:
            if operation not in OPERATIONS:
                raise InvalidArchitectureError(str(unknown_name(f"operation of {self.name}", operation, OPERATIONS)))
        return _embedded([[int(digit) for digit in row] for row in rows], operations)

    def graph(self, architecture: Architecture) -> Graph:
        """The pruned cell; where nothing is left of it, all that was given."""
        given = _cell(architecture.chosen)
        cell = given.pruned() or given
        pairs = itertools.combinations(range(len(cell.matrix)), 2)
        return Graph(cell.operations, tuple((s, t, "") for s, t in pairs if cell.matrix[s][t]))


def _cell(values: Mapping[str, Value]) -> Cell:
    """All seven vertices."""
    matrix = [[0] * VERTICES for _ in range(VERTICES)]
    for (source, target), name in zip(_PAIRS, _EDGE_NAMES, strict=True):
        matrix[source][target] = int(values[name])
    return Cell(tuple(map(tuple, matrix)), (INPUT, *(str(values[name]) for name in _OPERATION_NAMES), OUTPUT))


def _valid(values: Mapping[str, Value]) -> Cell:
    """The pruned cell, if it is one of the benchmark's."""
    pruned = _cell(values).pruned()
    if pruned is None:
        raise InvalidArchitectureError("the graph is no cell of NAS-Bench-101: no path leads from input to output")
    if pruned.edges > EDGES:
        raise InvalidArchitectureError(
            f"the graph is no cell of NAS-Bench-101: expected at most {EDGES} edges on paths from input to output, "
            f"got {pruned.edges}"
        )
    return pruned


def _is_cell(architecture: Architecture) -> bool:
    pruned = _cell(architecture.chosen).pruned()
    return pruned is not None and pruned.edges <= EDGES


def _operation(operation: str, channels: int) -> nn.Module:
    if operation == OUTPUT:
        return nn.Identity()
    if operation == POOL:
        return nn.MaxPool2d(3, 1, 1)
    return ConvBNReLU(channels, channels, 1 if operation == CONV1 else 3)


def _cut(x: Tensor, channels: int) -> Tensor:
    return x if x.shape[1] == channels else x[:, :channels]


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
