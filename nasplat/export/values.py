"""What the steps of a graph give, computed while it is traced, so that sizes can be told from the batch's."""

import operator
from collections.abc import Iterator, Mapping
from typing import Any, final

import torch
from torch import Tensor, fx, nn


@final
class Values:
    """The values of nodes for two batches, of two inputs and of three: a size that is the same in both is a number.

    Args:
        root: The module in which the paths of nodes are found.
        constants: Tensors that are nowhere in it, by path.
        example: Inputs ``(B, ...)``, of which the first is taken.

    Attributes:
        computing: Whether modules are being called to compute a value, not to be traced.
    """

    def __init__(self, root: nn.Module, constants: Mapping[str, Tensor], example: Tensor) -> None:
        self._root = root
        self._constants = constants
        self._examples = tuple(torch.cat([example[:1]] * batch) for batch in (2, 3))
        self._of: dict[fx.Node, tuple[Any, ...]] = {}
        self.computing = False

    def __getitem__(self, node: fx.Node) -> tuple[Any, ...]:
        return self._of[node]

    def compute(self, node: fx.Node) -> None:
        """Compute a node from those before it."""
        if node.op == "output":
            return
        self.computing = True
        try:
            self._of[node] = self._examples if node.op == "placeholder" else tuple(self._value(node, i) for i in (0, 1))
        finally:
            self.computing = False

    def _value(self, node: fx.Node, batch: int) -> Any:
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda used: self._of[used][batch])
        if node.op == "get_attr":
            return tensor_at(self._root, self._constants, str(node.target))
        if node.op == "call_module":
            return self._root.get_submodule(str(node.target))(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        assert callable(node.target)  # the only other kind of step calls a function
        return node.target(*args, **kwargs)


def tensor_at(root: nn.Module, constants: Mapping[str, Tensor], path: str) -> Tensor:
    """The parameter, buffer or constant at a path."""
    if path in constants:
        return constants[path]
    owner, _, name = path.rpartition(".")
    tensor: Tensor = getattr(root.get_submodule(owner), name)
    return tensor


@final
class Sized(fx.Proxy):
    """A placeholder for a tensor whose sizes are numbers where they do not depend on the batch."""

    def __init__(self, node: fx.Node, tracer: fx.Tracer, values: Values) -> None:
        super().__init__(node, tracer)
        self._values = values

    def __getattr__(self, name: str) -> Any:
        """Sizes as numbers, everything else as a step."""
        found = self._values[self.node]
        if isinstance(found[0], Tensor):
            if name == "shape":
                return self._shape()
            if name in ("ndim", "dtype"):
                return getattr(found[0], name)
            if name == "size":
                return lambda dim=None: self._shape() if dim is None else self._shape()[dim]
            if name == "dim":
                return lambda: found[0].ndim
        return super().__getattr__(name)

    def __len__(self) -> int:
        one, other = (len(value) for value in self._values[self.node])
        return one if one == other else super().__len__()

    def __getitem__(self, index: object) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.getitem, (self, index), {})

    def __iter__(self) -> Iterator[fx.Proxy]:
        return iter([self[index] for index in range(len(self))])

    def __setitem__(self, index: object, value: object) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, index, value), {})

    def _shape(self) -> tuple[Any, ...]:
        shape: Any = super().__getattr__("shape")
        one, other = (value.shape for value in self._values[self.node])
        return tuple(a if a == b else shape[i] for i, (a, b) in enumerate(zip(one, other, strict=True)))
