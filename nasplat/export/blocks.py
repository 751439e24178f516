"""A traced network as blocks: one for each module of the original whose forward stands on its own."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, fx, nn

from nasplat.export.body import Body, body, identifier
from nasplat.export.constructors import Argument, constructor
from nasplat.export.expressions import literal
from nasplat.export.trace import CALLS, ROOT, SHAPE, TYPE, Call, Trace, shown


@final
@dataclass(eq=False)
class Part:
    """What a class makes in its constructor: a module, a parameter or a buffer.

    Attributes:
        attribute: Its name there, or its index in a Sequential.
        path: Where it is in the original network.
        kind: What is called to make it, such as ``nn.Conv2d``; for tensors the whole expression with ``{size}``.
        arguments: Of that call, by parameter.
        parts: The modules of a Sequential, in order.
        block: Of a module that gets a class of its own.
    """

    attribute: str
    path: str
    kind: str
    arguments: dict[str, Argument] = field(default_factory=dict)
    parts: tuple["Part", ...] = ()
    block: "Block | None" = None


@final
@dataclass(frozen=True, eq=False, slots=True)
class Block:
    """A module of the original network that gets a class of its own.

    Attributes:
        path: Where it is.
        title: Name of its class there.
        parts: What it is made of.
        body: Its forward.
    """

    path: str
    title: str
    parts: tuple[Part, ...]
    body: Body


def blocks(traced: Trace) -> Block:
    """The network as a block of blocks.

    A module is a block if each of its calls does the same, has one output, and nobody else uses what is in it; the
    steps of other modules are written where they are called.
    """
    return _Blocks(traced).root()


@final
class _Blocks:
    def __init__(self, traced: Trace) -> None:
        self._traced = traced
        self._graph = traced.graph
        self._blocks: dict[str, Block] = {}
        self._replaced: dict[fx.Node, fx.Node] = {}  # outputs of calls that are one step now, and the step

    def root(self) -> Block:
        for path, calls in self._calls().items():
            regions = [[n for n in self._steps() if call in n.meta[CALLS]] for call in calls]
            if self._stands_alone(path, regions):
                self._outline(path, calls, regions)
        return self._block(ROOT, self._graph)

    def _calls(self) -> dict[str, list[Call]]:
        calls: dict[str, list[Call]] = {}
        for call in self._traced.calls:
            calls.setdefault(call.path, []).append(call)
        return calls

    def _steps(self) -> Iterator[fx.Node]:
        return (n for n in self._graph.nodes if n.op.startswith("call_"))

    def _stands_alone(self, path: str, regions: list[list[fx.Node]]) -> bool:
        if path in self._traced.identities or not all(regions):
            return False
        for region in regions:
            inside = set(region)
            if len([n for n in region if any(user not in inside for user in n.users)]) != 1:
                return False
            if any(n.op == "call_module" and not _within(path, n.target) for n in region):
                return False
        every = {node for region in regions for node in region}
        for node in self._graph.nodes:
            if node.op == "call_module" and _within(path, node.target) and node not in every:
                return False
            if node.op == "get_attr" and _within(path, node.target) and not every.issuperset(node.users):
                return False
        return True

    def _outline(self, path: str, calls: list[Call], regions: list[list[fx.Node]]) -> None:
        """Make a block of a module, and each of its calls one step."""
        inputs = [self._inputs(path, call, region) for call, region in zip(calls, regions, strict=True)]
        found = [self._block(path, _copy(region, given)) for given, region in zip(inputs, regions, strict=True)]
        if any(other.body != found[0].body or _shape(other) != _shape(found[0]) for other in found[1:]):
            return
        self._blocks[path] = found[0]
        for region, given in zip(regions, inputs, strict=True):
            output = next(n for n in region if any(user not in set(region) for user in n.users))
            with self._graph.inserting_after(region[-1]):
                arguments = tuple(self._current(node) for node in given.values())
                step = self._graph.create_node("call_module", path, arguments)
            step.meta = {CALLS: region[0].meta[CALLS], TYPE: output.meta.get(TYPE), SHAPE: output.meta.get(SHAPE)}
            step.meta[CALLS] = _outside(step.meta[CALLS], path)
            for user in [user for user in output.users if user not in region]:
                user.replace_input_with(output, step)
            self._replaced[output] = step
            for node in reversed(region):
                self._graph.erase_node(node)
        for node in list(self._graph.nodes):
            if node.op == "get_attr" and not node.users:
                self._graph.erase_node(node)

    def _inputs(self, path: str, call: Call, region: list[fx.Node]) -> dict[str, fx.Node]:
        """The nodes from outside that a region uses, by name: parameters of the call first, in their order."""
        inside = set(region)
        used = [
            node
            for step in region
            for node in step.all_input_nodes
            if node not in inside and not (node.op == "get_attr" and _within(path, node.target))
        ]
        inputs: dict[str, fx.Node] = {}
        for name, given in call.inputs:
            node = self._current(given)
            if node in used and node not in inputs.values():
                inputs["x" if name == "input" else name] = node
        for node in used:
            if node not in inputs.values():
                inputs[identifier("x", inputs)] = node
        return inputs

    def _current(self, node: fx.Node) -> fx.Node:
        """The node that now stands for a node."""
        while node in self._replaced:
            node = self._replaced[node]
        return node

    def _block(self, path: str, graph: fx.Graph) -> Block:
        chains = _collapse(path, graph, self._traced)
        parts: list[Part] = []
        attributes: dict[str, str] = {}
        for node in graph.nodes:
            target = str(node.target)
            if node.op not in ("call_module", "get_attr") or target in attributes:
                continue
            attributes[target] = self._attribute(path, target, attributes.values())
            if node.op == "get_attr":
                parts.append(_tensor_part(attributes[target], target, self._traced))
            else:
                parts.append(self._part(attributes[target], target, chains))
        title = type(self._traced.module(path)).__name__
        return Block(path, title, tuple(parts), body(graph, attributes, path))

    def _attribute(self, path: str, target: str, taken: Iterable[str]) -> str:
        """The path within the block as a name; without the name of a ModuleDict whose keys say enough."""
        owner, _, key = target.rpartition(".")
        relative = target.removeprefix(f"{path}.").removeprefix("_tensor_")
        keyed = _within(ROOT, target) and isinstance(self._traced.module(owner), nn.ModuleDict)
        short = keyed and key.isidentifier() and key not in set(taken)
        return identifier(key if short else relative, taken, attribute=True)

    def _part(self, attribute: str, path: str, chains: Mapping[str, tuple[str, ...]]) -> Part:
        if path in chains:
            parts = tuple(self._part(str(i), child, chains) for i, child in enumerate(chains[path]))
            return Part(attribute, path, "nn.Sequential", parts=parts)
        if path in self._blocks:
            block = self._blocks[path]
            return Part(attribute, path, block.title, block=block)
        if path in self._traced.identities:
            return Part(attribute, path, "nn.Identity")
        module = self._traced.module(path)
        return Part(attribute, path, f"nn.{type(module).__name__}", constructor(module, shown(path)))


def _within(path: str, target: object) -> bool:
    return str(target).startswith(f"{path}.")


def _outside(calls: tuple[Call, ...], path: str) -> tuple[Call, ...]:
    """The calls around the call of a module."""
    return calls[: next(i for i, call in enumerate(calls) if call.path == path)]


def _copy(region: list[fx.Node], inputs: Mapping[str, fx.Node]) -> fx.Graph:
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for name, node in inputs.items():
        copies[node] = graph.placeholder(name)
        copies[node].meta = dict(node.meta)
    for step in region:
        for node in step.all_input_nodes:
            if node not in copies:
                copies[node] = graph.node_copy(node)
        copies[step] = graph.node_copy(step, copies.__getitem__)
    inside = set(region)
    graph.output(copies[next(n for n in region if any(user not in inside for user in n.users))])
    return graph


def _shape(block: Block) -> list[tuple[str, str, str]]:
    return [(part.attribute, part.path, part.kind) for part in block.parts]


def _tensor_part(attribute: str, path: str, traced: Trace) -> Part:
    tensor = traced.tensor(path)
    shape = tuple(tensor.shape)
    size = literal(shape[0] if len(shape) == 1 else shape)
    dtype = "" if tensor.dtype is torch.float32 else f", dtype={tensor.dtype}"
    kind = f"torch.zeros({{size}}{dtype})"
    if isinstance(tensor, nn.Parameter):
        kind = f"nn.Parameter({kind}{'' if tensor.requires_grad else ', requires_grad=False'})"
    return Part(attribute, path, kind, {"size": Argument(size, None, "int" if len(shape) == 1 else "tuple[int, ...]")})


def _collapse(path: str, graph: fx.Graph, traced: Trace) -> dict[str, tuple[str, ...]]:
    """Make one step of each Sequential or list of modules that are called once each, one after the other.

    Returns:
        The paths of their modules, by the path of the step.
    """
    targets = [str(n.target) for n in graph.nodes if n.op == "call_module"]
    containers = sorted(_containers(path, targets, traced), key=lambda c: -c.count("."))
    chains: dict[str, tuple[str, ...]] = {}
    for container in containers:
        children = tuple(f"{container}.{i}" for i in range(len(list(traced.module(container).children()))))
        steps = _chain(graph, children)
        if not steps:
            continue
        target = f"{path}.layers" if container == path else container
        with graph.inserting_after(steps[-1]):
            step = graph.create_node("call_module", target, steps[0].args)
        step.meta = dict(steps[-1].meta)
        steps[-1].replace_all_uses_with(step)
        for node in reversed(steps):
            graph.erase_node(node)
        chains[target] = children
    return chains


def _containers(path: str, targets: Iterable[str], traced: Trace) -> Iterator[str]:
    """Paths of the Sequentials and lists between a module and what it calls, with numbers as names."""
    above = {t[:i] for t in targets for i in range(len(path), len(t)) if t[i] == "." and t.startswith(path)}
    for container in above:
        module = traced.module(container)
        names = [name for name, _ in module.named_children()]
        numbered = names == [str(i) for i in range(len(names))]
        plain = type(module) in (nn.Sequential, nn.ModuleList)
        if numbered and (plain or (container == path and isinstance(module, nn.Sequential))):
            yield container


def _chain(graph: fx.Graph, children: tuple[str, ...]) -> list[fx.Node]:
    """The steps that call the children in order, each with nothing but what the one before gave; or none."""
    calls = [n for n in graph.nodes if n.op == "call_module" and n.target in children]
    if [n.target for n in calls] != list(children) or any(len(n.args) != 1 or n.kwargs for n in calls):
        return []
    for before, after in pairwise(calls):
        if after.args[0] is not before or list(before.users) != [after]:
            return []
    return calls if isinstance(calls[0].args[0], fx.Node) else []


def weights(block: Block, traced: Trace, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of the network under the names that the generated class gives them."""
    tensors: dict[str, Tensor] = {}
    for part in block.parts:
        tensors.update(_part_weights(part, traced, prefix + part.attribute))
    return tensors


def _part_weights(part: Part, traced: Trace, name: str) -> dict[str, Tensor]:
    if part.block is not None:
        return weights(part.block, traced, f"{name}.")
    if part.parts:
        return {k: v for p in part.parts for k, v in _part_weights(p, traced, f"{name}.{p.attribute}").items()}
    if "{size}" in part.kind:
        return {name: traced.tensor(part.path)}
    if part.path in traced.identities:
        return {}
    return {f"{name}.{key}": tensor for key, tensor in traced.module(part.path).state_dict().items()}
