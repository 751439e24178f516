"""FLOPs of a network from the shapes that go through it, as ``torch.utils.flop_counter`` counts them.

The network's own code runs, but its convolutions, linear layers, normalizations and activation functions compute
nothing: each gives a tensor of the right shape with whatever is in it. That is right as long as no value decides what
is computed next. So only functions are let through that are known to look at shapes alone; at the first other one this
gives up, and the network runs in earnest under torch's counter.

Either way a function mode is on, with which torch's own transformer layers do without their fused kernels: the counter
cannot see into those, and would leave most of the layer out.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import BaseTorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from nasplat.boundary import catching
from nasplat.torch_calls import TorchCalls

_Result: TypeAlias = tuple[Any, int] | None
"""What a function gives, of the right shape, and its FLOPs; None where only the function itself can tell."""


def flops(network: nn.Module, example: Tensor) -> int:
    """FLOPs of a forward pass, without gradients: 2 a multiply-add, of convolutions and matrix products.

    Args:
        network: In evaluation mode.
        example: ``(1, ...)``, on the network's device, which may be ``meta``.
    """
    with torch.no_grad():
        shapes = _Shapes()
        # What is wrong with the network itself is raised when it runs in earnest.
        with catching(shapes.give_up), shapes:
            network(example)
        if not shapes.gave_up:
            return shapes.flops
        with BaseTorchFunctionMode(), FlopCounterMode(display=False) as counter:
            network(example)
    return int(counter.get_total_flops())


class _ValueNeededError(Exception):
    """A function may look at values."""


@final
class _Shapes(TorchCalls):
    """Counts.

    Attributes:
        flops: So far.
        gave_up: Whether there was a function that may look at values, and the count means nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self.gave_up = False

    def give_up(self, error: Exception) -> None:
        """The network has raised an error among these shapes."""
        self.gave_up = True

    def called(self, function: Callable[..., Any], arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        """Count what is known, and give a tensor of the right shape."""
        known = _KNOWN.get(function)
        result = None if known is None else known(*arguments, **options)
        if result is not None:
            self.flops += result[1]
            return result[0]
        if function in _PRODUCTS:
            with FlopCounterMode(display=False) as counter:
                product = function(*arguments, **options)
            self.flops += int(counter.get_total_flops())
            return product
        free = known is not None or function in _FREE
        if not free or (function is Tensor.__getitem__ and _looks(arguments[1])) or _is_sized(function, arguments):
            self.gave_up = True  # the network may catch what is raised
            raise _ValueNeededError(str(function))
        return function(*arguments, **options)


def _looks(index: Any) -> bool:
    """Whether an index may take places by the values of a tensor."""
    parts = list(index) if isinstance(index, tuple) else [index]
    bounds = [bound for part in parts if isinstance(part, slice) for bound in (part.start, part.stop, part.step)]
    return not all(part is None or part is Ellipsis or isinstance(part, int | slice) for part in [*parts, *bounds])


def _is_sized(function: Callable[..., Any], arguments: tuple[Any, ...]) -> bool:
    """Whether a size comes from the value of a tensor."""
    if function not in _SIZED:
        return False
    sizes = arguments if function in _FACTORIES else arguments[1:]
    flat = [size for given in sizes for size in (given if isinstance(given, tuple | list) else (given,))]
    return any(isinstance(size, Tensor) for size in flat)


def _same(x: Tensor, *_: Any, **__: Any) -> _Result:
    return x, 0


def _elementwise(x: Any, y: Any, *_: Any, **__: Any) -> _Result:
    scalar = isinstance(y, int | float)
    alike = isinstance(x, Tensor) and isinstance(y, Tensor) and x.shape == y.shape and x.dtype == y.dtype
    return (x, 0) if alike or (scalar and isinstance(x, Tensor) and x.is_floating_point()) else None


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> _Result:
    sides = weight.ndim - 2
    if x.ndim != weight.ndim or isinstance(padding, str) or x.shape[1] != groups * weight.shape[1]:
        return None
    steps, pads, gaps = (
        (v,) * sides if isinstance(v, int) else tuple(v) * (sides // len(v)) for v in (stride, padding, dilation)
    )
    places = [
        (size + 2 * pad - gap * (kernel - 1) - 1) // step + 1
        for size, kernel, step, pad, gap in zip(x.shape[2:], weight.shape[2:], steps, pads, gaps, strict=True)
    ]
    if min(places) < 1:
        return None  # torch says what is wrong
    last = sides == 2 and any(t.is_contiguous(memory_format=torch.channels_last) for t in (x, weight))
    layout = torch.channels_last if last else torch.contiguous_format
    out = torch.empty((len(x), len(weight), *places), dtype=x.dtype, device=x.device, memory_format=layout)
    return out, conv_flop_count(list(x.shape), list(weight.shape), list(out.shape))


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> _Result:
    if x.ndim < 2 or weight.ndim != 2 or x.shape[-1] != weight.shape[1]:
        return None
    return x.new_empty((*x.shape[:-1], len(weight))), 2 * x.numel() * len(weight)


def _pool(x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, *rest: Any, **named: Any) -> _Result:
    whole = all(isinstance(v, int) for v in (kernel_size, stride, padding)) and not rest and not named.get("ceil_mode")
    return (x, 0) if whole and stride == 1 and kernel_size == 2 * padding + 1 else None


_SAME = (
    functional.relu, functional.relu6, functional.leaky_relu, functional.prelu, functional.elu, functional.selu,
    functional.celu, functional.gelu, functional.silu, functional.mish, functional.hardswish, functional.hardsigmoid,
    functional.hardtanh, functional.softplus, functional.sigmoid, functional.tanh, functional.softmax,
    functional.log_softmax, functional.dropout, functional.dropout1d, functional.dropout2d, functional.batch_norm,
    functional.layer_norm, functional.group_norm, functional.instance_norm, torch.relu, torch.sigmoid, torch.tanh,
    torch.softmax, Tensor.relu, Tensor.sigmoid, Tensor.tanh, Tensor.softmax,
)  # fmt: skip
_ELEMENTWISE = (
    torch.add, torch.mul, torch.sub, Tensor.add, Tensor.mul, Tensor.sub, Tensor.__add__, Tensor.__mul__, Tensor.__sub__,
    Tensor.__radd__, Tensor.__rmul__, Tensor.__iadd__, Tensor.__imul__, Tensor.add_, Tensor.mul_, Tensor.div,
    Tensor.__truediv__,
)  # fmt: skip
_KNOWN: dict[Callable[..., Any], Callable[..., _Result]] = {
    **dict.fromkeys(_SAME, _same),
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    torch.conv1d: _convolution,
    torch.conv2d: _convolution,
    torch.conv3d: _convolution,
    functional.linear: _linear,
    functional.avg_pool2d: _pool,
    functional.max_pool2d: _pool,
}
_PRODUCTS = frozenset(
    {
        torch.conv1d, torch.conv2d, torch.conv3d, functional.linear, torch.matmul, torch.mm, torch.bmm, torch.addmm,
        torch.baddbmm, torch.einsum, Tensor.matmul, Tensor.__matmul__, Tensor.mm, Tensor.bmm,
        functional.multi_head_attention_forward, functional.scaled_dot_product_attention, functional.bilinear,
        functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d,
    }
)  # fmt: skip
"""They run under torch's counter, one by one, where the shape of what they give is not known above."""
_ATTRIBUTES = ("shape", "ndim", "dtype", "device", "is_cuda", "is_nested", "requires_grad", "layout", "mT", "T")
_FREE = frozenset(
    {
        *(getattr(Tensor, name).__get__ for name in _ATTRIBUTES), Tensor.size, Tensor.dim, Tensor.numel, Tensor.stride,
        Tensor.is_contiguous, Tensor.is_floating_point, Tensor.__len__, Tensor.__getitem__, Tensor.flatten,
        Tensor.unflatten, Tensor.reshape, Tensor.view, Tensor.permute, Tensor.transpose, Tensor.movedim, Tensor.squeeze,
        Tensor.unsqueeze, Tensor.expand, Tensor.expand_as, Tensor.repeat, Tensor.contiguous, Tensor.clone, Tensor.chunk,
        Tensor.split, Tensor.unbind, Tensor.mean, Tensor.sum, Tensor.amax, Tensor.amin, Tensor.roll, Tensor.unfold,
        Tensor.float, Tensor.neg, Tensor.tensor_split, Tensor.to, Tensor.type_as, Tensor.bool, Tensor.long, Tensor.ne,
        Tensor.__ne__, Tensor.eq, Tensor.__eq__, Tensor.gt, Tensor.__gt__, Tensor.lt, Tensor.__lt__, Tensor.__invert__,
        Tensor.logical_not, Tensor.masked_fill, Tensor.where, Tensor.clamp, Tensor.cumsum, Tensor.exp, Tensor.sqrt,
        Tensor.rsqrt, Tensor.square, Tensor.new_zeros, Tensor.new_ones, Tensor.new_empty, torch.flatten,
        torch.unflatten, torch.reshape, torch.permute, torch.transpose, torch.movedim, torch.squeeze, torch.unsqueeze,
        torch.cat, torch.concat, torch.stack, torch.chunk, torch.split, torch.unbind, torch.mean, torch.sum, torch.roll,
        torch.tensor_split, torch.masked_fill, torch.is_floating_point, torch.zeros, torch.ones, torch.empty,
        torch.arange, torch.zeros_like, torch.ones_like, torch.empty_like, functional.pad,
        functional.adaptive_avg_pool1d, functional.adaptive_avg_pool2d, functional.adaptive_max_pool2d,
        functional.max_pool1d, functional.interpolate, functional.unfold, functional.embedding, functional.glu,
        functional.pixel_shuffle, functional.normalize,
    }
)  # fmt: skip
"""They run, at no FLOPs; what they give has a shape that no value decides, unless a size is a tensor."""
_FACTORIES = frozenset({torch.zeros, torch.ones, torch.empty, torch.arange})
_SIZED = _FACTORIES | {
    Tensor.unflatten, Tensor.reshape, Tensor.view, Tensor.expand, Tensor.repeat, Tensor.split, Tensor.chunk,
    Tensor.tensor_split, Tensor.new_zeros, Tensor.new_ones, Tensor.new_empty, torch.unflatten, torch.reshape,
    torch.split, torch.chunk, torch.tensor_split, functional.pad,
}  # fmt: skip
