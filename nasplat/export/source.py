"""Generated source: the classes of a traced network, folded to readable lines."""

from dataclasses import dataclass
from itertools import pairwise
from typing import final

from torch import Tensor, fx, nn

from nasplat.export.blocks import blocks, weights
from nasplat.export.classes import NETWORK, Class, classes
from nasplat.export.trace import SHAPE, trace

WIDTH = 100
"""Characters a line."""
_OPEN, _CLOSE = "([{", ")]}"


@final
@dataclass(frozen=True, eq=False, slots=True)
class Source:
    """A network as source.

    Attributes:
        text: Class definitions; the last is ``Network``. They need ``nn``, ``Tensor``, and where they occur
            ``torch``, ``F``, ``math`` and ``operator``.
        weights: Tensors by their name in ``Network``, on the network's device.
    """

    text: str
    weights: dict[str, Tensor]


def generate(network: nn.Module, example: Tensor) -> Source:
    """Source and weights of a network in evaluation mode.

    Args:
        network: In evaluation mode. Whatever depends on the mode is written as it is in that mode, but for the
            modules of torch, such as dropout, which keep both.
        example: What it takes, such as ``(B, C, H, W)``.

    Raises:
        InvalidInputError: If the network cannot be traced or a step of it cannot be written as source.
    """
    traced = trace(network, example)
    root = blocks(traced)
    shapes = _shapes(traced.graph)
    texts = [_class(c, shapes if c.name == NETWORK else "") for c in classes(root)]
    return Source("\n\n\n".join(texts), weights(root, traced))


def _shapes(graph: fx.Graph) -> str:
    nodes = list(graph.nodes)
    given, result = nodes[0].meta.get(SHAPE), nodes[-1].meta.get(SHAPE)
    return f"{_batched(given)} to {_batched(result)}" if given and result else ""


def _batched(shape: tuple[int, ...]) -> str:
    return f"({', '.join(['B', *map(str, shape[1:])])})"


def _class(made: Class, shapes: str) -> str:
    title = f"``{made.title}`` of the original network" + (f"; {made.uses} of them" if made.uses > 1 else "")
    doc = f"The network: {shapes}" if shapes else title
    head = [f"class {made.name}(nn.Module):", f'    """{doc}."""', ""]
    return "\n".join([*head, *_constructor(made), *_forward(made)])


def _constructor(made: Class) -> list[str]:
    if not made.statements:
        return []
    parameters = ["self", *(_annotated(p.name, p.type, p.default) for p in made.parameters)]
    lines = [*fold(f"def __init__({', '.join(parameters)}) -> None:", 4), "        super().__init__()"]
    for attribute, buffer, expression in made.statements:
        text = f'self.register_buffer("{attribute}", {expression})' if buffer else f"self.{attribute} = {expression}"
        lines.extend(fold(text, 8))
    return [*lines, ""]


def _forward(made: Class) -> list[str]:
    inputs = ["self", *(_annotated(name, kind) for name, kind in made.body.inputs)]
    returns = f" -> {made.body.output}" if made.body.output else ""
    lines = fold(f"def forward({', '.join(inputs)}){returns}:", 4)
    for line in made.body.lines:
        lines.extend(fold(line, 8))
    return lines


def _annotated(name: str, kind: str, default: str | None = None) -> str:
    typed = f"{name}: {kind}" if kind else name
    sign = " = " if kind else "="
    return typed if default is None else f"{typed}{sign}{default}"


def fold(text: str, indent: int) -> list[str]:
    """A statement on as many lines as it needs: what is in its last bracket goes to lines of its own."""
    line = " " * indent + text
    if len(line) <= WIDTH:
        return [line]
    found = _outermost(text)
    if found is None:
        return [line]
    start, end, commas = found
    edges = [start, *commas, end]
    items = [text[a + 1 : b].strip() for a, b in pairwise(edges)]
    items = [item for item in items if item]
    joined = " " * (indent + 4) + ", ".join(items)
    if len(joined) <= WIDTH and not text[: start + 1].endswith("nn.Sequential("):
        return [" " * indent + text[: start + 1], joined, " " * indent + text[end:]]
    # A comma after a lone comprehension or generator would make another thing of it.
    trailing = "" if len(items) == 1 and " for " in items[0] else ","
    lines = [" " * indent + text[: start + 1]]
    for item in items:
        folded = fold(item + trailing, indent + 4)
        lines.extend(folded)
    lines.append(" " * indent + text[end:])
    return lines


def _outermost(text: str) -> tuple[int, int, list[int]] | None:
    """The longest bracket at the top level of a text: its ends, and the commas directly in it."""
    found: tuple[int, int, list[int]] | None = None
    depth, start, quote = 0, 0, ""
    commas: list[int] = []
    for index, character in enumerate(text):
        if quote:
            quote = "" if character == quote and text[index - 1] != "\\" else quote
        elif character in "\"'":
            quote = character
        elif character in _OPEN:
            depth += 1
            if depth == 1:
                start, commas = index, []
        elif character in _CLOSE:
            depth -= 1
            if depth == 0 and index - start > (found[1] - found[0] if found else 1):
                found = (start, index, commas)
        elif character == "," and depth == 1:
            commas.append(index)
    return found
