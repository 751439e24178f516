"""Tracing: a network's forward as a graph whose steps know which module's call they belong to."""

import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, fx, nn

from nasplat.errors import InvalidInputError

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
    """

    graph: fx.Graph
    root: nn.Module
    calls: tuple[Call, ...]
    identities: frozenset[str]

    def module(self, path: str) -> nn.Module:
        """The module at a path."""
        return self.root.get_submodule(path)

    def tensor(self, path: str) -> Tensor:
        """The parameter, buffer or constant at a path."""
        owner, _, name = path.rpartition(".")
        tensor: Tensor = getattr(self.root.get_submodule(owner), name)
        return tensor


def shown(path: str) -> str:
    """A path as its user knows it."""
    return path.removeprefix(ROOT).removeprefix(".") or "the network itself"


@torch.no_grad()
def trace(network: nn.Module, example: Tensor) -> Trace:
    """Record what a network in evaluation mode does with an input.

    Args:
        network: In evaluation mode; constants found on the way are kept beside it, not in it.
        example: What it takes, such as ``(B, C, H, W)``.

    Raises:
        InvalidInputError: If its forward depends on the values or shapes of tensors.
    """
    tracer = _Tracer()
    root = _Root(network)
    try:
        graph = tracer.trace(root)
        _Recorder(root, graph=graph).run(example)
    except _TRACING_ERRORS as error:
        module, path = tracer.current(network)
        raise InvalidInputError(
            f"cannot export {type(module).__name__} at {shown(path)}: its forward cannot be traced "
            f"({type(error).__name__}: {error}); write it without branches and loops that depend on tensors"
        ) from error
    for node in reversed(graph.nodes):
        if not node.users and (node.op == "get_attr" or node.target in _PURE):
            graph.erase_node(node)
    return Trace(graph, root, tuple(tracer.calls), frozenset(tracer.identities))


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
    """Leaves are the modules of torch; every step remembers the calls around it."""

    proxy_buffer_attributes = True

    def __init__(self) -> None:
        super().__init__()
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
        return node


def _inputs(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[str, fx.Node], ...]:
    bound = inspect.signature(module.forward).bind(*args, **kwargs).arguments
    return tuple((name, value.node) for name, value in bound.items() if isinstance(value, fx.Proxy))


@final
class _Recorder(fx.Interpreter):
    """Runs a graph once to learn what its values are."""

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        kinds = ((Tensor, "Tensor"), (torch.Size, "tuple[int, ...]"), (int, "int"), (float, "float"))
        n.meta[TYPE] = next((name for kind, name in kinds if isinstance(value, kind)), "")
        n.meta[LENGTH] = len(value) if isinstance(value, tuple) else None
        n.meta[SHAPE] = tuple(value.shape) if isinstance(value, Tensor) else None
        return value
