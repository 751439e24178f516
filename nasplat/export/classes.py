"""Blocks that differ in numbers only become one class with parameters."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

from nasplat.export.blocks import Block, Part
from nasplat.export.body import Body, identifier
from nasplat.export.constructors import Argument

NETWORK = "Network"
"""The generated class that is the whole network."""

_TAKEN = ("Any", "F", "FOLDER", "Iterator", "Path", "Sequence", "TOLERANCE", "Tensor")
"""Names that the bundle's module has already."""

Slot: TypeAlias = tuple[str, Argument]
"""An argument of a constructor call inside a class, and its name."""


@final
@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a generated class.

    Attributes:
        name: Of the parameter.
        default: As source, or None where it is required.
        type: Its annotation, empty if unknown.
    """

    name: str
    default: str | None
    type: str


@final
@dataclass(frozen=True, slots=True)
class Class:
    """A class to be written.

    Attributes:
        name: Of the class.
        title: Name of the class in the original network.
        uses: How many modules are made of it.
        parameters: Of its constructor, required ones first.
        statements: What its constructor makes: attribute, whether it is a buffer, expression.
        body: Its forward.
    """

    name: str
    title: str
    uses: int
    parameters: tuple[Parameter, ...]
    statements: tuple[tuple[str, bool, str], ...]
    body: Body


def classes(root: Block) -> list[Class]:
    """The classes of a network, each after the ones that it uses; the last is the network."""
    levels: dict[int, list[Part]] = {}
    _levels(root, levels)
    made: list[Class] = []
    taken = [NETWORK, *_TAKEN]
    for level in sorted(levels):
        groups: dict[object, list[Part]] = {}
        for part in levels[level]:
            if part.block is not None:
                key = (part.block.title, tuple(_form(p) for p in part.block.parts), part.block.body)
                groups.setdefault(key, []).append(part)
        for parts in groups.values():
            name = identifier(parts[0].kind, taken)
            taken.append(name)
            made.append(_unified(name, parts))
    whole = Part("", root.path, NETWORK, block=root)
    return [*made, _unified(NETWORK, [whole])]


def _levels(block: Block, levels: dict[int, list[Part]]) -> int:
    """Sort the parts below a block that need a class by how deep classes nest in them; give the block's depth."""
    depth = 0
    for part in block.parts:
        for one in (part, *_members(part)):
            if one.block is not None:
                level = _levels(one.block, levels)
                if one not in levels.setdefault(level, []):
                    levels[level].append(one)
                depth = max(depth, level + 1)
    return depth


def _members(part: Part) -> Iterator[Part]:
    for member in part.parts:
        yield member
        yield from _members(member)


def _form(part: Part) -> object:
    """What must be equal for two parts to differ in the values of arguments only."""
    return part.attribute, part.kind, tuple(part.arguments), tuple(_form(p) for p in part.parts)


def _slots(part: Part) -> Iterator[Slot]:
    yield from part.arguments.items()
    for member in part.parts:
        yield from _slots(member)


def _unified(name: str, parts: Sequence[Part]) -> Class:
    """One class for some parts; they become calls of it."""
    instances = [part.block for part in parts if part.block is not None]
    rows = [[slot for p in block.parts for slot in _slots(p)] for block in instances]
    owners = [p.attribute for p in instances[0].parts for _ in _slots(p)]
    found: dict[tuple[str, ...], tuple[Parameter, list[Argument]]] = {}
    texts: list[tuple[str, bool]] = []  # of every slot, and whether it must be written
    for owner, column in zip(owners, zip(*rows, strict=True), strict=True):
        arguments = [argument for _, argument in column]
        values = tuple(a.value for a in arguments)
        if len(set(values)) == 1:
            texts.append((values[0], values[0] != arguments[0].default))
            continue
        taken = [parameter.name for parameter, _ in found.values()]
        label = column[0][0]
        parameter, _ = found.get(values, (_parameter(label, owner, taken, arguments), arguments))
        if arguments[0].default is None or arguments[0].default != parameter.default:
            parameter = Parameter(parameter.name, None, parameter.type)
        found[values] = (parameter, arguments)
        texts.append((parameter.name, True))
    ordered = sorted(found.values(), key=lambda item: item[0].default is not None)
    for index, part in enumerate(parts):
        part.kind = name
        part.arguments = {
            parameter.name: Argument(arguments[index].value, parameter.default, parameter.type)
            for parameter, arguments in ordered
        }
    remaining = iter(texts)
    statements = tuple((p.attribute, p.kind.startswith("torch.zeros"), _call(p, remaining)) for p in instances[0].parts)
    parameters = tuple(parameter for parameter, _ in ordered)
    return Class(name, instances[0].title, len(parts), parameters, statements, instances[0].body)


def _parameter(label: str, owner: str, taken: Sequence[str], arguments: Sequence[Argument]) -> Parameter:
    name = label if label not in taken and label != "size" else f"{owner}_{label}"
    kinds = sorted({a.type for a in arguments})
    return Parameter(identifier(name, taken), arguments[0].default, "" if "" in kinds else " | ".join(kinds))


def _call(part: Part, texts: Iterator[tuple[str, bool]]) -> str:
    """The expression that makes a part; takes the texts of its slots."""
    given = {name: next(texts) for name in part.arguments}
    if "{size}" in part.kind:
        return part.kind.format(size=given["size"][0])
    members = [_call(member, texts) for member in part.parts]
    required = [given[name][0] for name, argument in part.arguments.items() if argument.default is None]
    optional = [
        f"{name}={given[name][0]}"
        for name, argument in part.arguments.items()
        if argument.default is not None and given[name][1]
    ]
    return f"{part.kind}({', '.join([*_runs(members), *required, *optional])})"


def _runs(members: Sequence[str]) -> list[str]:
    """Three or more equal modules in a row as a comprehension."""
    out: list[str] = []
    index = 0
    while index < len(members):
        end = index
        while end < len(members) and members[end] == members[index]:
            end += 1
        count = end - index
        many = [f"*({members[index]} for _ in range({count}))"]
        out.extend(many if count > 2 else members[index:end])
        index = end
    return out
