"""A graph as the statements of a ``forward``, with names that a person would choose."""

import builtins
import keyword
import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import final

from torch import fx, nn

from nasplat.errors import InvalidInputError
from nasplat.export.expressions import ATOM, Source, UnknownValueError, expression, literal
from nasplat.export.trace import LENGTH, TYPE, shown

_INLINE = 60
"""Characters up to which a step is written inside the next one."""
_UPDATES = frozenset({operator.add, operator.sub, operator.mul, operator.truediv})
"""What may be written as ``x = x + y``."""
_RESERVED = frozenset({"F", "nn", "np", "torch", "math", "operator", "self", "Tensor", *keyword.kwlist, *dir(builtins)})


@final
@dataclass(frozen=True, slots=True)
class Body:
    """A forward method.

    Attributes:
        inputs: Name and annotation of every parameter.
        output: Annotation of what it returns.
        lines: Its statements.
    """

    inputs: tuple[tuple[str, str], ...]
    output: str
    lines: tuple[str, ...]


def identifier(text: str, taken: Iterable[str], *, attribute: bool = False) -> str:
    """A valid name near a text that is not taken yet; for attributes, none that ``nn.Module`` has itself."""
    name = re.sub(r"_+", "_", re.sub(r"\W", "_", text, flags=re.ASCII)).strip("_") or "value"
    if name[0].isdigit():
        name = f"layer{name}"
    if keyword.iskeyword(name) or (attribute and hasattr(nn.Module(), name)) or (not attribute and name in _RESERVED):
        name = f"{name}_"
    taken = set(taken)
    numbered = (f"{name}{'' if name[-1].isalpha() else '_'}{i}" for i in range(2, len(taken) + 3))
    return name if name not in taken else next(n for n in numbered if n not in taken)


def body(graph: fx.Graph, attributes: Mapping[str, str], where: str) -> Body:
    """A graph as source.

    Args:
        graph: With one output.
        attributes: Names in the generated class of the modules and tensors that it uses, by path.
        where: Path of the module it comes from, for errors.

    Raises:
        InvalidInputError: If a step has no source.
    """
    return _Writer(graph, attributes, where).body()


@final
class _Writer:
    def __init__(self, graph: fx.Graph, attributes: Mapping[str, str], where: str) -> None:
        self._attributes = attributes
        self._where = where
        self._nodes = list(graph.nodes)
        self._steps = [n for n in self._nodes if n.op not in ("placeholder", "get_attr")]
        self._sources: dict[fx.Node, Source] = {}
        self._names: dict[fx.Node, str] = {}
        self._lines: list[str] = []
        self._flowing: set[str] = set()  # names of the inputs

    def body(self) -> Body:
        inputs = []
        for node in self._nodes:
            if node.op == "placeholder":
                self._name(node, identifier(str(node.target), self._names.values()))
                self._flowing.add(self._names[node])
                inputs.append((self._names[node], node.meta.get(TYPE, "")))
            elif node.op == "get_attr":
                self._sources[node] = (f"self.{self._attributes[str(node.target)]}", ATOM)
        inlined = self._inlined()
        ends = self._last_uses(inlined)
        result = self._steps[-1].args[0]
        for step, node in enumerate(self._steps[:-1]):
            if node in self._names:
                continue
            source = self._expression(node)
            last = step == len(self._steps) - 2
            if node in inlined and (last or len(source[0]) <= _INLINE):
                self._sources[node] = source
                continue
            if not node.users:
                self._lines.append(source[0])
                continue
            items = _items(node)
            if items:
                base = self._choose(node, step, {})
                names = [self._name(n, identifier(f"{base}{i}", self._names.values())) for i, n in enumerate(items)]
                self._lines.append(f"{', '.join(names)}{',' if len(names) == 1 else ''} = {source[0]}")
                continue
            self._lines.append(f"{self._name(node, self._choose(node, step, ends))} = {source[0]}")
        self._lines.append(f"return {literal(result, lambda n: self._sources[n][0])}")
        output = result.meta.get(TYPE, "") if isinstance(result, fx.Node) else ""
        return Body(tuple(inputs), output, tuple(self._lines))

    def _expression(self, node: fx.Node) -> Source:
        try:
            return expression(node, self._attributes, self._sources)
        except UnknownValueError as error:
            raise InvalidInputError(
                f"cannot export the forward of {shown(self._where)}: {error} cannot be written as source; use "
                "functions of torch, torch.nn.functional and operators only"
            ) from error

    def _name(self, node: fx.Node, name: str) -> str:
        self._names[node] = name
        self._sources[node] = (name, ATOM)
        return name

    def _inlined(self) -> set[fx.Node]:
        """Steps that only the next step uses, once.

        Written inside it they are still computed before it and after all others, which matters where something works
        in place.
        """
        found = set()
        for node, following in pairwise(self._steps):
            if list(node.users) == [following] and _uses(following, node) == 1:
                found.add(node)
        return found

    def _last_uses(self, inlined: set[fx.Node]) -> dict[fx.Node, int]:
        """The statement, as the index of its step, that uses a node last."""
        ends: dict[fx.Node, int] = {}
        end = len(self._steps)
        for index in reversed(range(len(self._steps))):
            node = self._steps[index]
            end = end if node in inlined else index
            for used in node.all_input_nodes:
                ends[used] = max(ends.get(used, 0), end)
        return ends

    def _choose(self, node: fx.Node, step: int, ends: Mapping[fx.Node, int]) -> str:
        """The name of an input that nobody needs any more, or a new one that tells what was done."""
        target = node.target
        for used in self._inputs(node) if ends else ():
            over = ends[used] <= step and used.meta.get(TYPE) == node.meta.get(TYPE)
            if over and (self._names[used] in self._flowing or node.op == "call_method" or target in _UPDATES):
                return self._names[used]
        return identifier(self._hint(node), self._names.values())

    def _hint(self, node: fx.Node) -> str:
        """What a value could be called: after the module, method or function it comes from."""
        target = node.target
        if node in self._names:
            return self._names[node]
        if node.op == "call_module":
            return self._attributes[str(target)]
        if isinstance(target, str):
            return target
        if target is getattr:
            return str(node.args[1])
        source = node.args[0] if node.args else None
        if target is operator.getitem and isinstance(source, fx.Node):
            index = node.args[1]
            return f"{self._hint(source)}{index if isinstance(index, int) and index >= 0 else '_part'}"
        return getattr(target, "__name__", "value")

    def _inputs(self, node: fx.Node) -> list[fx.Node]:
        """Named nodes in the statement of a node."""
        found: list[fx.Node] = []
        for used in node.all_input_nodes:
            if used in self._names:
                found.append(used)
            elif used.op != "get_attr":
                found.extend(self._inputs(used))
        return found


def _uses(user: fx.Node, node: fx.Node) -> int:
    count = 0

    def visit(argument: fx.Node) -> fx.Node:
        nonlocal count
        count += argument is node
        return argument

    fx.map_arg((user.args, user.kwargs), visit)
    return count


def _items(node: fx.Node) -> list[fx.Node]:
    """The nodes of a tuple's items in order, if that is all that it is used for; else none."""
    items: dict[int, fx.Node] = {}
    for user in node.users:
        if user.target is operator.getitem and user.args[0] is node and isinstance(user.args[1], int):
            items[user.args[1]] = user
    length = node.meta.get(LENGTH)
    if length is None or len(node.users) != length or set(items) != set(range(length)):
        return []
    return [items[index] for index in range(length)]
