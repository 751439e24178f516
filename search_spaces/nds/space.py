"""The design spaces of NDS as one search space with an option ``set``.

Radosavovic, Johnson, Xie, Lo & Dollár 2019, "On Network Design Spaces for Visual Recognition" (ICCV): five spaces of
cells from architecture search (NASNet, Amoeba, PNAS, ENAS, DARTS) and four standard families (ResNet, ResNeXt-A,
ResNeXt-B, Vanilla), for CIFAR. Implemented: the published numbers of architectures and the networks with their
published parameter counts. Auxiliary heads, drop path and the networks for ImageNet are not.

The paper gives how many widths and depths there are, first, last and about evenly in the logarithm; the values of
ResNet's and Vanilla's grids, and those of the cell-based spaces, are ours. A file of results that has others says which
(``nasplat.tables.nds``), and the options ``widths`` and ``depths`` take them.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, final

from torch import nn

from nasplat.architecture import Architecture
from nasplat.choices import Choice, Value
from nasplat.errors import InvalidArchitectureError, InvalidInputError, unknown_name
from nasplat.search_spaces.nds.cells import PUBLISHED, Cell, CellNetwork, Genotype, canonical_cell, output_nodes
from nasplat.search_spaces.nds.operations import NONE, SETS
from nasplat.search_spaces.nds.stages import STRIDES, Stage, stage_network
from nasplat.space import Graph, SearchSpace
from nasplat.task import Task

_CELLS = ("normal", "reduce")
_LOOSE = ("NASNet", "Amoeba", "ENAS")
"""Sets whose cells output the loose nodes only."""


class _Family(ABC):
    """What the sets of one kind have in common: their choices, strings and networks."""

    choices: tuple[Choice, ...]
    form: str

    @abstractmethod
    def format(self, values: Mapping[str, Value]) -> str:
        """The string of an architecture."""

    @abstractmethod
    def parse(self, text: str) -> dict[str, Value] | None:
        """Its inverse; None if the text has another form."""

    @abstractmethod
    def from_json(self, net: Mapping[str, Any]) -> dict[str, Value]:
        """The values of a network as the official files describe it; KeyError, TypeError, ValueError if it is none."""

    @abstractmethod
    def canonical(self, values: Mapping[str, Value]) -> str:
        """Equal for the same networks."""

    @abstractmethod
    def graph(self, values: Mapping[str, Value]) -> Graph:
        """The drawing."""

    @abstractmethod
    def build(self, values: Mapping[str, Value], shape: tuple[int, int]) -> nn.Module:
        """The network for a number of channels and of classes."""


@final
class _Cells(_Family):
    """Cells of ``nodes`` nodes, repeated to a depth, from a width on."""

    form = "w16d8[op~0+op~1|…][…] with both cells, w16d8[NAME] with a published one"

    def __init__(self, name: str, widths: Sequence[int], depths: Sequence[int]) -> None:
        widths, depths = widths or (16, 24, 32, 64, 96), depths or (4, 8, 12, 16, 20)
        _require(all(width % 2 == 0 for width in widths), f"widths of {name} must be even", widths)
        _require(min(depths) >= 2, f"depths of {name} must be 2 or more", depths)
        self._set = name
        self._loose = name in _LOOSE
        self._nodes = range(2, 6 if name == "DARTS" else 7)
        choices = [Choice("width", tuple(widths), ordered=True), Choice("depth", tuple(depths), ordered=True)]
        for cell in _CELLS:
            for node in self._nodes:
                for branch in "ab":
                    choices.append(Choice(f"{cell}.{node}{branch}.op", SETS[name]))
                    choices.append(Choice(f"{cell}.{node}{branch}.in", tuple(range(node))))
        self.choices = tuple(choices)

    def format(self, values: Mapping[str, Value]) -> str:
        genotype = self._genotype(values)
        cells = (
            "|".join("+".join(f"{operation}~{source}" for operation, source in node) for node in cell)
            for cell in (genotype.normal, genotype.reduce)
        )
        return f"w{values['width']}d{values['depth']}" + "".join(f"[{cell}]" for cell in cells)

    def parse(self, text: str) -> dict[str, Value] | None:
        published = re.fullmatch(r"w(\d{1,9})d(\d{1,9})\[(\w+)\]", text)
        if published is not None:
            known = {name: genotype for name, (owner, genotype) in PUBLISHED.items() if owner == self._set}
            if published[3] not in known:
                raise InvalidArchitectureError(
                    str(unknown_name(f"published cell of the set {self._set}", published[3], known))
                )
            genotype = known[published[3]]
            return self._values(int(published[1]), int(published[2]), (genotype.normal, genotype.reduce))
        match = re.fullmatch(r"w(\d{1,9})d(\d{1,9})\[([^\]]*)\]\[([^\]]*)\]", text)
        cells = (
            [[re.fullmatch(r"(\w+)~(\d)\+(\w+)~(\d)", n) for n in match[i].split("|")] for i in (3, 4)] if match else []
        )
        if match is None or any(len(cell) != len(self._nodes) or None in cell for cell in cells):
            return None
        spelled = [tuple(((n[1], int(n[2])), (n[3], int(n[4]))) for n in cell if n) for cell in cells]
        return self._values(int(match[1]), int(match[2]), (spelled[0], spelled[1]))

    def from_json(self, net: Mapping[str, Any]) -> dict[str, Value]:
        genotype = net["genotype"]
        cells: list[Cell] = []
        for name in _CELLS:
            branches = [(str(operation), int(source)) for operation, source in genotype[name]]
            cell = tuple(zip(branches[::2], branches[1::2], strict=True))
            if len(cell) != len(self._nodes):
                raise ValueError(f"its {name} cell has {len(cell)} nodes, those of {self._set} {len(self._nodes)}")
            outputs, given = output_nodes(cell, loose=self._loose), sorted(genotype[f"{name}_concat"])
            if given != list(outputs):
                raise ValueError(f"its {name} cell outputs the nodes {given}, one of {self._set} {list(outputs)}")
            cells.append(cell)
        return self._values(int(net["width"]), int(net["depth"]), (cells[0], cells[1]))

    def canonical(self, values: Mapping[str, Value]) -> str:
        genotype = self._genotype(values)
        cells = "/".join(canonical_cell(cell) for cell in (genotype.normal, genotype.reduce))
        return f"{values['width']},{values['depth']}:{cells}"

    def graph(self, values: Mapping[str, Value]) -> Graph:
        nodes: list[str] = []
        edges: list[tuple[int, int, str]] = []
        genotype = self._genotype(values)
        for name, cell in zip(_CELLS, (genotype.normal, genotype.reduce), strict=True):
            first = len(nodes)
            nodes += [
                f"{name}: before last",
                f"{name}: last",
                *(f"node {node}" for node in self._nodes),
                f"{name}: output",
            ]
            for node, pair in zip(self._nodes, cell, strict=True):
                edges += [(first + source, first + node, operation) for operation, source in pair if operation != NONE]
            edges += [(first + node, len(nodes) - 1, "") for node in output_nodes(cell, loose=self._loose)]
        return Graph(tuple(nodes), tuple(edges))

    def build(self, values: Mapping[str, Value], shape: tuple[int, int]) -> nn.Module:
        width, depth = int(values["width"]), int(values["depth"])
        return CellNetwork(self._genotype(values), shape, width=width, depth=depth, loose=self._loose)

    def _values(self, width: int, depth: int, cells: tuple[Cell, Cell]) -> dict[str, Value]:
        values: dict[str, Value] = {"width": width, "depth": depth}
        for name, cell in zip(_CELLS, cells, strict=True):
            for node, pair in zip(self._nodes, cell, strict=True):
                for branch, (operation, source) in zip("ab", pair, strict=True):
                    values |= {f"{name}.{node}{branch}.op": operation, f"{name}.{node}{branch}.in": source}
        return values

    def _genotype(self, values: Mapping[str, Value]) -> Genotype:
        def branch(key: str) -> tuple[str, int]:
            return str(values[f"{key}.op"]), int(values[f"{key}.in"])

        normal, reduce = (
            tuple((branch(f"{name}.{node}a"), branch(f"{name}.{node}b")) for node in self._nodes) for name in _CELLS
        )
        return Genotype(normal, reduce)


@final
class _Stages(_Family):
    """Three stages with a depth and a width each, and in ResNeXt a bottleneck ratio and a number of groups."""

    def __init__(self, name: str, widths: Sequence[int], depths: Sequence[int]) -> None:
        self._residual = name != "Vanilla"
        self._bottleneck = name.startswith("ResNeXt")
        self.form = "3x16r2g4-3x32r1g1-3x64r4g2" if self._bottleneck else "9x16-9x32-9x64"
        self.form += ", depth x width of each stage" + (" with ratio and groups" if self._bottleneck else "")
        powers = tuple(2**power for power in range(5))
        if self._bottleneck:
            depths, groups = depths or powers, powers if name == "ResNeXt-B" else powers[:3]
            widths = widths or tuple((64 if name == "ResNeXt-B" else 16) * power for power in powers)
            divisor = 4 * groups[-1]
            _require(all(w % divisor == 0 for w in widths), f"widths of {name} must be multiples of {divisor}", widths)
            extra = [("ratio", powers[:3]), ("groups", groups)]
        else:
            depths = depths or (1, 2, 3, 4, 6, 8, 12, 16, 24)
            widths = widths or (16, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256)
            extra = []
        grids = [("depth", tuple(depths)), ("width", tuple(widths)), *extra]
        self._numbers = tuple(number for number, _ in grids)
        self.choices = tuple(
            Choice(f"{number}{stage}", options, ordered=True)
            for stage in range(len(STRIDES))
            for number, options in grids
        )

    def format(self, values: Mapping[str, Value]) -> str:
        signs = {"depth": "", "width": "x", "ratio": "r", "groups": "g"}
        return "-".join(
            "".join(f"{signs[number]}{values[f'{number}{stage}']}" for number in self._numbers)
            for stage in range(len(STRIDES))
        )

    def parse(self, text: str) -> dict[str, Value] | None:
        form = r"(\d{1,9})x(\d{1,9})" + (r"r(\d{1,9})g(\d{1,9})" if self._bottleneck else "")
        stages = [re.fullmatch(form, part) for part in text.split("-")]
        if len(stages) != len(STRIDES) or None in stages:
            return None
        return {
            f"{number}{stage}": int(spelled)
            for stage, match in enumerate(stages)
            if match is not None
            for number, spelled in zip(self._numbers, match.groups(), strict=True)
        }

    def from_json(self, net: Mapping[str, Any]) -> dict[str, Value]:
        if tuple(net["ss"]) != STRIDES:
            raise ValueError(f"its stages have strides {net['ss']}, those of the set {list(STRIDES)}")
        given = {"depth": net["ds"], "width": net["ws"]}
        if self._bottleneck:
            # A multiplier of the width: 0.25 for a bottleneck of a quarter.
            given |= {"ratio": [round(1 / m) if m < 1 else m for m in net["bot_muls"]], "groups": net["num_gs"]}
        for number, column in given.items():
            if len(column) != len(STRIDES):
                raise ValueError(f"it has a {number} for {len(column)} stages, expected {len(STRIDES)}")
        return {f"{number}{stage}": int(column[stage]) for number, column in given.items() for stage in range(3)}

    def canonical(self, values: Mapping[str, Value]) -> str:
        return self.format(values)

    def graph(self, values: Mapping[str, Value]) -> Graph:
        nodes = ("input", "stem", *(f"stage {part}" for part in self.format(values).split("-")), "linear")
        return Graph(nodes, tuple((i, i + 1, "") for i in range(len(nodes) - 1)))

    def build(self, values: Mapping[str, Value], shape: tuple[int, int]) -> nn.Module:
        stages = [
            Stage(**{number: int(values[f"{number}{stage}"]) for number in self._numbers})
            for stage in range(len(STRIDES))
        ]
        return stage_network(stages, shape, residual=self._residual)


FAMILIES: Mapping[str, type[_Cells] | type[_Stages]] = {
    **dict.fromkeys(SETS, _Cells),
    **dict.fromkeys(("ResNet", "ResNeXt-A", "ResNeXt-B", "Vanilla"), _Stages),
}
"""The sets, named as the official files are."""


@final
class Nds(SearchSpace):
    """One of the design spaces of NDS.

    A string of the cell-based sets has both cells, ``w16d8[op~input+op~input|…][…]``, and ``parse`` takes the name of
    published ones in their place, ``w36d20[DARTS_V2]``; one of the standard families has depth and width of each stage,
    ``9x16-9x32-9x64``, and ratio and groups, ``3x16r2g4-…``. ``parse`` also takes a network as the official files
    describe it, the JSON object under ``net``. Architectures count as the same that differ in the order of nodes or
    branches only.

    Args:
        set: NASNet, Amoeba, PNAS, ENAS, DARTS, ResNet, ResNeXt-A, ResNeXt-B or Vanilla.
        widths: Widths to choose from in place of the set's own.
        depths: Depths likewise.
    """

    name: ClassVar[str] = "nds"

    def __init__(self, *, set: str = "DARTS", widths: Sequence[int] = (), depths: Sequence[int] = ()) -> None:
        if set not in FAMILIES:
            raise unknown_name(f"set of {self.name}", set, FAMILIES)
        grids = {"widths": _grid("widths", widths), "depths": _grid("depths", depths)}
        changed = [f"set={set}"] if set != "DARTS" else []
        changed += [f"{option}={':'.join(map(str, grid))}" for option, grid in grids.items() if grid]
        self._family = FAMILIES[set](set, **grids)
        super().__init__(self._family.choices, variant=",".join(changed))

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        """``(B, C, H, W)`` to ``(B, classes)``, weights drawn as pycls draws them."""
        if len(task.input_shape) != 3:
            raise InvalidArchitectureError(
                f"{self.name} takes images (C, H, W); the inputs of task {task.name!r} are {task.input_shape}"
            )
        return self._family.build(architecture.chosen, (task.input_shape[0], task.outputs))

    def canonical(self, values: Mapping[str, Value]) -> str:
        """The string with nodes and branches in a fixed order."""
        return self._family.canonical(values)

    def format(self, values: Mapping[str, Value]) -> str:
        """Such as ``w16d8[…][…]`` or ``9x16-9x32-9x64``."""
        return self._family.format(values)

    def parse_values(self, text: str) -> dict[str, Value]:
        """The values of a string, or of a network of the official files in JSON.

        Raises:
            InvalidArchitectureError: If the text has another form or describes a network of another set.
        """
        if text.startswith("{"):
            try:
                return self._family.from_json(json.loads(text))
            except (ArithmeticError, KeyError, TypeError, ValueError, RecursionError) as error:
                raise InvalidArchitectureError(f"{text!r} is no network of {self.key}: {error}") from error
        values = self._family.parse(text)
        if values is None:
            raise InvalidArchitectureError(
                f"{text!r} is no architecture of {self.key}: expected {self._family.form}, or #index"
            )
        return values

    def graph(self, architecture: Architecture) -> Graph:
        """Both cells, or the stages as a chain."""
        return self._family.graph(architecture.chosen)


def _grid(option: str, values: Sequence[int]) -> tuple[int, ...]:
    """Options of a choice in ascending order."""
    numbers = all(type(value) is int and value > 0 for value in values)
    _require(
        numbers and len({*values}) == len(values), f"{option} of nds must be whole numbers from 1, none twice", values
    )
    return tuple(sorted(values))


def _require(holds: bool, what: str, got: Sequence[int]) -> None:
    if not holds:
        raise InvalidInputError(f"{what}, got {', '.join(map(str, got))}")
