"""The convolutions of any network: which of them can be searched, and how they are replaced."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, final

import torch
from torch import Tensor, nn

from nasplat.search_spaces.blocks.mixture_definition import CausalConv1d, Operation, effective, padding

LEFT_ALONE = ("downsample", "pool", "shortcut", "channel_match")
"""Parts of names of modules whose convolutions match shapes instead of looking around."""

_SEARCHED = (nn.Conv1d, nn.Conv2d, CausalConv1d)


@final
@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution whose kernel size and dilation can be chosen: its output is as large as its input, but for stride.

    Attributes:
        name: Of the module in its network.
        own: The operation that the network came with; of an even kernel size that looks to both sides, the next smaller
            odd one.
        stride: For each spatial axis.
        causal: Whether it looks at a position and back.
        size: Of its input map, for each spatial axis.
    """

    name: str
    own: Operation
    stride: tuple[int, ...]
    causal: bool
    size: tuple[int, ...]

    def convolution(self, network: nn.Module, operation: Operation) -> nn.Conv1d | nn.Conv2d:
        """The layer of a network with another operation: ``(B, C_in, *n)`` to ``(B, C_out, *ceil(n / stride))``.

        Weights are drawn as torch draws them.
        """
        old: Any = network.get_submodule(self.name)
        kind: type[Any] = nn.Conv2d if len(self.stride) == 2 else CausalConv1d if self.causal else nn.Conv1d
        made: nn.Conv1d | nn.Conv2d = kind(
            old.in_channels,
            old.out_channels,
            operation.kernel,
            old.stride,
            0 if self.causal else tuple(before for before, _ in padding(operation, causal=False)),
            operation.dilation,
            old.groups,
            old.bias is not None,
        )
        return made


@lru_cache(maxsize=10_000)
def cut(operation: Operation, size: tuple[int, ...], stride: tuple[int, ...], causal: bool) -> Operation:
    """``effective``, remembered: a search asks for few operations again and again."""
    return effective(operation, size, stride=stride, causal=causal)


def find_layers(network: nn.Module, input_shape: Sequence[int]) -> list[Layer]:
    """The convolutions of a network that can be searched, in the order in which it declares them.

    These are modules of exactly the type ``nn.Conv1d``, ``nn.Conv2d`` or ``CausalConv1d`` with kernels of equal sides
    whose output is a ``stride``-th of their input, unless their name says that they match shapes (``LEFT_ALONE``).

    Args:
        network: On the meta device, where finding them costs nothing, or on any other.
        input_shape: Of one input.
    """
    sizes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def watch(name: str) -> Any:
        def note(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            sizes[name] = (tuple(inputs[0].shape[2:]), tuple(output.shape[2:]))

        return note

    found = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, _SEARCHED)
        and type(module) in _SEARCHED
        and len(set(module.kernel_size)) == len(set(module.dilation)) == 1
        and not any(part in name for part in LEFT_ALONE)
    }
    hooks = [module.register_forward_hook(watch(name)) for name, module in found.items()]
    device = next(network.parameters()).device
    try:
        with torch.no_grad():
            network.eval()(torch.empty((1, *input_shape), device=device))
    finally:
        for hook in hooks:
            hook.remove()
    layers = [_layer(name, module, sizes[name][0]) for name, module in found.items() if name in sizes]
    return [layer for layer in layers if _thinned(layer.size, layer.stride) == sizes[layer.name][1]]


def replace_layers(network: nn.Module, replacements: Mapping[str, nn.Module]) -> None:
    """Put modules in the place of those of some names."""
    for name, module in replacements.items():
        parent, _, own = name.rpartition(".")
        setattr(network.get_submodule(parent), own, module)


def _thinned(size: tuple[int, ...], stride: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-n // s) for n, s in zip(size, stride, strict=True))


def _layer(name: str, module: nn.Conv1d | nn.Conv2d, size: tuple[int, ...]) -> Layer:
    causal = isinstance(module, CausalConv1d)
    kernel = module.kernel_size[0]
    if not causal and kernel % 2 == 0:
        kernel = max(1, kernel - 1)
    dims = len(module.stride)
    return Layer(
        name,
        Operation((kernel,) * dims, (module.dilation[0],) * dims),
        tuple(module.stride),
        causal,
        size,
    )
