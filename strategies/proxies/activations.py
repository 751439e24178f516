"""What goes into and comes out of a network's activation functions, whether they are called as modules or not."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from nasplat.errors import InvalidInputError
from nasplat.torch_calls import TorchCalls

See: TypeAlias = Callable[[Tensor, Tensor], None]
"""Called with the input and the output of an activation function."""

_FUNCTIONS = frozenset(
    {
        torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, functional.relu, functional.relu_,
        torch.rrelu, torch.selu, torch.selu_, torch.celu, torch.celu_, torch.prelu,
        torch.tanh, torch.tanh_, Tensor.tanh, Tensor.tanh_, functional.tanh,
        torch.sigmoid, torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_, functional.sigmoid,
        functional.relu6, functional.leaky_relu, functional.leaky_relu_, functional.elu, functional.elu_,
        functional.rrelu, functional.selu, functional.celu, functional.prelu,
        functional.gelu, functional.silu, functional.mish, functional.hardswish, functional.hardtanh,
        functional.hardsigmoid, functional.softplus, functional.logsigmoid, functional.softsign,
    }
)  # fmt: skip
"""Elementwise activation functions; a call of one inside another is not seen, so each counts once."""
_RECTIFIERS = frozenset(function for function in _FUNCTIONS if "relu" in function.__name__)


def watch(network: nn.Module, inputs: Tensor, see: See) -> None:
    """Run the network once, without gradients, and show every activation function that sees the batch.

    Args:
        network: Run as it is; batch normalization in training mode moves its statistics.
        inputs: ``(B, ...)``.
        see: Called with input and output of each call, in order; both may be overwritten afterwards.

    Raises:
        InvalidInputError: If no activation function has an input ``(B, ...)``.
    """
    watcher = _Watcher(len(inputs), see)
    with torch.no_grad(), watcher:
        network(inputs)
    if not watcher.calls:
        raise InvalidInputError(
            "this proxy reads the signs of what goes into activation functions (ReLU, GELU, SiLU, …), and this network "
            f"calls none with the batch of {len(inputs)} as first dimension; use another proxy (what fused layers such "
            "as nn.LSTM do inside cannot be seen)"
        )


@contextmanager
def called_rectifiers(modules: Iterable[nn.Module], see: Callable[[str, Any], None]) -> Iterator[None]:
    """Show every ReLU that the code run inside the block calls as a function.

    Args:
        modules: What these call as their own is not shown: they are ReLUs themselves.
        see: Called with the function's name and its input, before the input may be overwritten.
    """
    watcher = _CallWatcher(see)
    handles = []
    for module in modules:
        handles.append(module.register_forward_pre_hook(watcher.enter))
        handles.append(module.register_forward_hook(watcher.leave))
    try:
        with watcher:
            yield
    finally:
        for handle in handles:
            handle.remove()


@final
class _CallWatcher(TorchCalls):
    def __init__(self, see: Callable[[str, Any], None]) -> None:
        super().__init__()
        self._see = see
        self._inside = 0

    def enter(self, _module: nn.Module, _arguments: object) -> None:
        """A module begins whose calls are its own."""
        self._inside += 1

    def leave(self, _module: nn.Module, _arguments: object, _output: object) -> None:
        """It has ended."""
        self._inside -= 1

    def called(self, function: Callable[..., Any], arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        """Show a rectifier's input, unless a module that is watched calls it."""
        if function in _RECTIFIERS and not self._inside:
            self._see(function.__name__, arguments[0] if arguments else options.get("input"))
        return function(*arguments, **options)


@final
class _Watcher(TorchCalls):
    def __init__(self, batch: int, see: See) -> None:
        super().__init__()
        self.calls = 0
        self._batch = batch
        self._see = see

    def called(self, function: Callable[..., Any], arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        """Show what an activation function gets and gives."""
        if function not in _FUNCTIONS:
            return function(*arguments, **options)
        x = arguments[0] if arguments else options.get("input")
        if not isinstance(x, Tensor) or x.ndim < 2 or len(x) != self._batch:
            return function(*arguments, **options)
        overwrites = (
            options.get("inplace", False) is True
            or function.__name__.endswith("_")
            or any(a is True for a in arguments[1:])
        )
        before = x.clone() if overwrites else x
        output = function(*arguments, **options)
        self.calls += 1
        self._see(before, output)
        return output
