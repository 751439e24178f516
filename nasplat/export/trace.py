"""Tracing: a network's forward as a graph whose steps know which module's call they belong to."""

import inspect
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, fx, nn

from nasplat.errors import InvalidInputError
from nasplat.export.values import Sized, Values, tensor_at

ROOT = "network"
"""Path of the traced network itself; its modules are ``network.stem`` and so on."""
CALLS = "calls"
"""Key of a node's meta data: the calls of composite modules it was made in, outermost first."""
TYPE = "type"
"""Key of a node's meta data: the annotation of its value."""
SHAPE = "shape"
"""Key of a node's meta data: the shape of its value, of tensors only."""
LENGTH = "length"
"""Key of a node's meta data: how many items its value has, of tuples and shapes only."""

# Steps that leave nothing behind if nobody uses what they give; others may work in place.
_PURE = (getattr, operator.getitem, "size", "dim")
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
# What a forward raises when it does with a placeholder what only a real tensor can do.
_TRACING_ERRORS = (TypeError, ValueError, RuntimeError, AttributeError, NameError, LookupError, NotImplementedError)


@final
@dataclass(frozen=True, eq=False, slots=True)
class Call:
    """One call of a module that is not of ``torch.nn``.

    Attributes:
        path: Of the module.
        module: What is called.
        inputs: Parameter of its forward and node that was passed for it.
    """

    path: str
    module: nn.Module
    inputs: tuple[tuple[str, fx.Node], ...]


@final
@dataclass(frozen=True, eq=False, slots=True)
class Trace:
    """A traced network.

    Attributes:
        graph: From one placeholder to one output; its modules and tensors are named by path.
        root: The module in which the paths are found; holds the network as ``network``.
        calls: Calls of composite modules in the order in which they ended, so that inner ones come first.
        identities: Paths of composite modules that did nothing but return their input.
        constants: Tensors that a forward makes without its input, by a path in the module that makes them.
    """

    graph: fx.Graph
    root: nn.Module
    calls: tuple[Call, ...]
    identities: frozenset[str]
    constants: Mapping[str, Tensor]

    def module(self, path: str) -> nn.Module:
        """The module at a path."""
        return self.root.get_submodule(path)

    def tensor(self, path: str) -> Tensor:
        """The parameter, buffer or constant at a path."""
        return tensor_at(self.root, self.constants, path)


def shown(path: str) -> str:
    """A path as its user knows it."""
    return path.removeprefix(ROOT).removeprefix(".") or "the network itself"


@torch.no_grad()
def trace(network: nn.Module, example: Tensor) -> Trace:
    """Record what a network in evaluation mode does with an input.

    Where the forward calculates with the sizes of its input, sizes other than the batch's become numbers, and the graph
    is that of inputs of the example's shape.

    Args:
        network: In evaluation mode; constants found on the way are kept beside it, not in it.
        example: What it takes, such as ``(B, C, H, W)``.

    Raises:
        InvalidInputError: If its forward depends on the values of tensors.
    """
    try:
        return _traced(network, example, sized=False)
    except InvalidInputError:
        return _traced(network, example, sized=True)


def _traced(network: nn.Module, example: Tensor, *, sized: bool) -> Trace:
    root = _Root(network)
    constants: dict[str, Tensor] = {}
    tracer = _Tracer(constants, Values(root, constants, example) if sized else None)
    try:
        graph = tracer.trace(root)
        _Recorder(root, graph, constants).run(example)
    except _TRACING_ERRORS as error:
        module, path = tracer.current(network)
        raise InvalidInputError(
            f"cannot export {type(module).__name__} at {shown(path)}: its forward cannot be traced "
            f"({type(error).__name__}: {error}); write it without branches and loops that depend on tensors"
        ) from error
    for node in reversed(graph.nodes):
        if not node.users and (node.op == "get_attr" or node.target in _PURE):
            graph.erase_node(node)
    return Trace(graph, root, tuple(tracer.calls), frozenset(tracer.identities), constants)


class _Root(nn.Module):
    """Holds the network, so that the network is called like every other module: with its default arguments."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.network(x)
        return out


@final
class _Tracer(fx.Tracer):
    """Leaves are the modules of torch; every step remembers the calls around it.

    Args:
        constants: Where to put tensors that come from nowhere.
        values: Where to compute each step, if sizes are to be numbers.
    """

    proxy_buffer_attributes = True

    def __init__(self, constants: dict[str, Tensor], values: Values | None) -> None:
        super().__init__()
        self._constants = constants
        self._values = values
        self.calls: list[Call] = []
        self.identities: set[str] = set()
        self._stack: list[Call] = []

    def current(self, network: nn.Module) -> tuple[nn.Module, str]:
        """Module and path of the innermost call that has not ended."""
        return (self._stack[-1].module, self._stack[-1].path) if self._stack else (network, ROOT)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is called as a whole."""
        return type(m).__module__.startswith("torch.") and not isinstance(m, _CONTAINERS)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call a module; what returns its input untouched becomes an identity, so that it keeps its place."""
        if self._values is not None and self._values.computing:
            return forward(*args, **kwargs)
        path = self.path_of_module(m)
        if self.is_leaf_module(m, path):
            return super().call_module(m, forward, args, kwargs)
        composite = type(m) is not nn.Sequential and path != ROOT
        steps = len(self.graph.nodes)
        if composite:
            self._stack.append(Call(path, m, _inputs(m, args, kwargs)))
        out = super().call_module(m, forward, args, kwargs)
        if composite:
            self.calls.append(self._stack.pop())
        if path != ROOT and len(self.graph.nodes) == steps and any(out is arg for arg in args):
            self.identities.add(path)
            return self.create_proxy("call_module", path, (out,), {})
        return out

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """Make a node that knows the calls it was made in."""
        node = super().create_node(*args, **kwargs)
        node.meta[CALLS] = tuple(self._stack)
        if self._values is not None:
            self._values.compute(node)
        return node

    def create_arg(self, a: Any) -> Any:
        """An argument of a node; a tensor that comes from nowhere belongs to the module that is being called."""
        known = isinstance(a, nn.Parameter) or any(a is buffer for buffer in self.root.buffers())
        if not isinstance(a, Tensor) or known:
            return super().create_arg(a)
        owner = self._stack[-1].path if self._stack else ROOT
        own = [path for path in self._constants if path.rpartition(".")[0] == owner]
        same = (path for path in own if _equal(self._constants[path], a))
        path = next(same, f"{owner}.constant{len(own) or ''}")
        self._constants[path] = a
        return self.create_node("get_attr", path, (), {})

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """An attribute of a module: of parameters and buffers a placeholder, unless a value is being computed."""
        if self._values is not None and self._values.computing:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """A placeholder for what a node gives."""
        return super().proxy(node) if self._values is None else Sized(node, self, self._values)


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def _inputs(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[str, fx.Node], ...]:
    bound = inspect.signature(module.forward).bind(*args, **kwargs).arguments
    return tuple((name, value.node) for name, value in bound.items() if isinstance(value, fx.Proxy))


@final
class _Recorder(fx.Interpreter):
    """Runs a graph once to learn what its values are."""

    def __init__(self, root: nn.Module, graph: fx.Graph, constants: Mapping[str, Tensor]) -> None:
        super().__init__(root, graph=graph)
        self._constants = constants

    def fetch_attr(self, target: str) -> Any:
        """A tensor of the network, or a constant."""
        return tensor_at(self.module, self._constants, target)

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        kinds = ((Tensor, "Tensor"), (torch.Size, "tuple[int, ...]"), (int, "int"), (float, "float"))
        n.meta[TYPE] = next((name for kind, name in kinds if isinstance(value, kind)), "")
        n.meta[LENGTH] = len(value) if isinstance(value, tuple) else None
        n.meta[SHAPE] = tuple(value.shape) if isinstance(value, Tensor) else None
        return value
