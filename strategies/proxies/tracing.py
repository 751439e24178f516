"""What a network computes, as a graph, without computing it: its own code runs on stand-ins for feature maps.

Known are convolutions, batch normalization over the batch, sums, ReLU and average pooling: what cells of NAS-Bench-201,
ResNets and their kin are made of. Whatever comes after a head's global pooling is left alone.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from nasplat.boundary import catching


@final
@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """The network's input.

    Attributes:
        tensor: ``(B, C, H, W)``.
    """

    tensor: Tensor


@final
@dataclass(frozen=True, slots=True, eq=False)
class Zero:
    """A map of zeros."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Convolution:
    """Convolution of a value; square kernel of odd size, padded by half of it.

    Attributes:
        of: Its input.
        weight: ``(outputs, inputs, kernel, kernel)``.
        bias: ``(outputs,)``.
        stride: In both directions.
    """

    of: "Value"
    weight: Tensor
    bias: Tensor | None
    stride: int


@final
@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """Batch normalization with the statistics of the batch.

    Attributes:
        of: Its input.
        weight: ``(C,)``.
        bias: ``(C,)``.
        epsilon: Added to the variance.
    """

    of: "Value"
    weight: Tensor | None
    bias: Tensor | None
    epsilon: float


@final
@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Mean of the part of a square window that lies inside the map.

    Attributes:
        of: Its input.
        kernel: Side of the window.
        stride: In both directions.
        padding: How far the first window begins outside.
    """

    of: "Value"
    kernel: int
    stride: int
    padding: int


@final
@dataclass(frozen=True, slots=True, eq=False)
class Sum:
    """Sum of values, from the left."""

    terms: tuple["Value", ...]


Operation: TypeAlias = Source | Zero | Convolution | Norm | Pool | Sum
Shape: TypeAlias = tuple[int, int, int]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A feature map.

    Attributes:
        operation: What it comes from.
        shape: ``(C, H, W)``.
    """

    operation: Operation
    shape: Shape

    @property
    def places(self) -> int:
        """Values an example."""
        channels, height, width = self.shape
        return channels * height * width


@final
@dataclass(frozen=True, slots=True)
class Value:
    """A node as it is or rectified."""

    node: Node
    rectified: bool = False


class UntraceableError(Exception):
    """The network does something that is not known here."""


def rectifier_inputs(network: nn.Module, inputs: Tensor, rectifiers: Sequence[nn.Module]) -> Counter[Node]:
    """Which maps the rectifiers are given, and how often.

    A rectified map has the same positive places as the map itself and stands for it.

    Args:
        network: Its code runs, and buffers such as the number of batches seen change.
        inputs: ``(B, C, H, W)``.
        rectifiers: Modules of the network.

    Raises:
        UntraceableError: If the network cannot be traced.
    """
    seen: Counter[Node] = Counter()

    def see(_module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if not arguments or not isinstance(arguments[0], _StandIn) or arguments[0].value is None:
            raise UntraceableError("a ReLU of something else than a feature map")
        seen[arguments[0].value.node] += 1

    if inputs.ndim != 4:
        raise UntraceableError("no images")
    _, channels, height, width = inputs.shape
    handles = [rectifier.register_forward_pre_hook(see) for rectifier in rectifiers]
    try:
        # If this fails, the network runs in earnest, with the random numbers that it would have had.
        with catching(_untraceable), torch.no_grad(), torch.random.fork_rng(devices=[]):
            network(_StandIn(Value(Node(Source(inputs), (channels, height, width)))))
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _untraceable(error: Exception) -> NoReturn:
    # A stand-in is no tensor; with one, the network may well be in order.
    raise UntraceableError(str(error)) from error


@final
class _StandIn:
    """Stands for a tensor in the network's code.

    Args:
        value: None for what comes after a head's global pooling.
    """

    __slots__ = ("value",)

    def __init__(self, value: Value | None) -> None:
        self.value = value

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Sequence[type],
        arguments: tuple[Any, ...] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        known = _FUNCTIONS.get(function)
        if known is None:
            raise UntraceableError(f"{getattr(function, '__name__', function)} is not known")
        if any(isinstance(a, _StandIn) and a.value is None for a in arguments):
            return _StandIn(None)
        result: Any = known(*arguments, **(options or {}))
        return result

    def __getattr__(self, name: str) -> Any:
        raise UntraceableError(f"the network asks for {name} of a feature map")

    def dim(self) -> int:
        """Of ``(B, C, H, W)``."""
        if self.value is None:
            raise UntraceableError("the network asks for the dimensions of its head")
        return 4

    def flatten(self, *_: int) -> "_StandIn":
        """Only of a head."""
        if self.value is not None:
            raise UntraceableError("the network flattens a feature map")
        return self

    def __add__(self, other: object) -> "_StandIn":
        if not isinstance(other, _StandIn):
            raise UntraceableError("a feature map plus something else")
        return _sum(self, other)

    def __iadd__(self, other: object) -> "_StandIn":
        # As with a tensor, whoever else holds the stand-in sees the change.
        self.value = (self + other).value
        return self


def _value(x: object) -> Value:
    if not isinstance(x, _StandIn) or x.value is None:
        raise UntraceableError("something else than a feature map")
    return x.value


def _is_zero(value: Value) -> bool:
    return isinstance(value.node.operation, Zero)


def _sum(x: _StandIn, y: object, *, alpha: float = 1) -> _StandIn:
    a, b = _value(x), _value(y)
    if alpha != 1 or a.node.shape != b.node.shape:
        raise UntraceableError("a sum of unequal maps")
    if _is_zero(b):
        return x
    return _StandIn(b if _is_zero(a) else Value(Node(Sum((a, b)), a.node.shape)))


def _relu(x: object, inplace: bool = False) -> _StandIn:
    rectified = Value(_value(x).node, rectified=True)
    if inplace and isinstance(x, _StandIn):
        x.value = rectified
        return x
    return _StandIn(rectified)


def _zeros(x: object, **_: Any) -> _StandIn:
    return _StandIn(Value(Node(Zero(), _value(x).node.shape)))


def _convolution(
    x: object,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> _StandIn:
    value = _value(x)
    outputs, inputs, kernel, other = weight.shape
    channels, height, width = value.node.shape
    (step, step_x), by = _pair(stride), (kernel // 2, kernel // 2)
    if kernel != other or kernel % 2 == 0 or step != step_x or _pair(padding) != by or _pair(dilation) != (1, 1):
        raise UntraceableError("a convolution of another form")
    if groups != 1 or inputs != channels or outputs % 4 or not _plain(weight) or not _plain(bias):
        raise UntraceableError("a convolution of another kind")
    shape = (outputs, -(-height // step), -(-width // step))
    if _is_zero(value) and bias is None:
        return _StandIn(Value(Node(Zero(), shape)))
    return _StandIn(Value(Node(Convolution(value, weight, bias, step), shape)))


def _normalization(
    x: object,
    _mean: Tensor | None,
    _variance: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> _StandIn:
    value = _value(x)
    if not training or value.rectified or not _plain(weight) or not _plain(bias):
        raise UntraceableError("a batch normalization of another kind")
    if _is_zero(value):
        if bias is not None and bool(bias.any()):
            raise UntraceableError("a constant map")
        return _StandIn(value)
    return _StandIn(Value(Node(Norm(value, weight, bias, eps), value.node.shape)))


def _pool(
    x: object,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> _StandIn:
    value = _value(x)
    (kernel, kernel_x), (pad, pad_x) = _pair(kernel_size), _pair(padding)
    step, step_x = _pair(stride) if stride else (kernel, kernel_x)
    if kernel != kernel_x or pad != pad_x or step != step_x or divisor_override or (pad and count_include_pad):
        raise UntraceableError("an average pooling of another form")
    channels, height, width = value.node.shape
    height, width = (_windows(size, kernel, step, pad, ceil_mode) for size in (height, width))
    shape = (channels, height, width)
    return _StandIn(Value(Node(Zero() if _is_zero(value) else Pool(value, kernel, step, pad), shape)))


def _windows(size: int, kernel: int, stride: int, padding: int, ceil_mode: bool) -> int:
    """How many windows torch's pooling lays along a side."""
    room = size + 2 * padding - kernel
    windows = (-(-room // stride) if ceil_mode else room // stride) + 1
    # None of them begins in the padding on the right.
    return windows - 1 if ceil_mode and (windows - 1) * stride >= size + padding else windows


def _head(*_: object, **__: object) -> _StandIn:
    return _StandIn(None)


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) in (1, 2):
        return int(value[0]), int(value[-1])
    raise UntraceableError(f"{value!r} is no pair")


def _plain(tensor: Tensor | None) -> bool:
    return tensor is None or (tensor.dtype == torch.float32 and tensor.device.type == "cpu")


_FUNCTIONS: dict[Callable[..., Any], Callable[..., _StandIn]] = {
    torch.conv2d: _convolution,
    functional.batch_norm: _normalization,
    functional.relu: _relu,
    torch.relu: _relu,
    torch.add: _sum,
    torch.zeros_like: _zeros,
    functional.avg_pool2d: _pool,
    functional.adaptive_avg_pool2d: _head,
    torch.flatten: _head,
    functional.linear: _head,
}
