"""Ways to make one searched convolution, and the networks that hold them, for ``benchmarks.mixture``.

``Authors`` follows the program of DASH (Shen, Khodak, Talwalkar, NeurIPS 2022; ``sjunhongshen/DASH``) step by step: the
map is padded by half of the largest field on both sides, kernels are spread by Kronecker products, padded to the
largest field and summed one after the other, padded again, mirrored and shifted, and a stride takes every s-th result.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from nasplat.search_spaces.blocks.mixture import MixtureConv, operations

Convolution = Callable[[int, int, int, int], nn.Module]
"""Channels in, channels out, the backbone's kernel size, stride → a layer."""


@dataclass(frozen=True)
class Layer:
    """One searched convolution.

    Attributes:
        channels: In and out.
        groups: Of channels.
        dims: Spatial axes.
        kernels: Mixed kernel sizes.
        dilations: Mixed dilations.
        stride: Along all axes.
    """

    channels: tuple[int, int]
    groups: int
    dims: int
    kernels: tuple[int, ...]
    dilations: tuple[int, ...]
    stride: int = 1


def sampled(alpha: Tensor) -> Tensor:
    """Coefficients: a relaxed sample at temperature 1, as in the paper."""
    noise = -torch.empty_like(alpha).exponential_().log()
    return torch.softmax(torch.log_softmax(alpha, 0) + noise, 0)


@final
class Ours(nn.Module):
    """The mixture by one of nasplat's formulations.

    Args:
        layer: Its shape.
        formulation: A name, or ``auto``.
    """

    def __init__(self, layer: Layer, formulation: str) -> None:
        super().__init__()
        mixed = operations(layer.kernels, layer.dilations, layer.dims)
        self.alpha = nn.Parameter(1e-3 * torch.randn(len(mixed)))
        self.conv = MixtureConv(
            *layer.channels, mixed, stride=layer.stride, groups=layer.groups, formulation=formulation
        )

    def forward(self, x: Tensor) -> Tensor:
        """One layer."""
        y: Tensor = self.conv(x, sampled(self.alpha))
        return y


@final
class Authors(nn.Module):
    """The mixture as the authors' program computes it."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer
        self.pairs = [(k, d) for k in layer.kernels for d in layer.dilations]
        inputs, outputs = layer.channels
        self.alpha = nn.Parameter(1e-3 * torch.randn(len(self.pairs)))
        self.weights = nn.ParameterList(
            0.01 * torch.randn(outputs, inputs // layer.groups, *[k] * layer.dims) for k, _ in self.pairs
        )
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.field = max(d * (k - 1) + 1 for k, d in self.pairs)
        for dilation in layer.dilations:
            corner = torch.zeros([dilation] * layer.dims)
            corner[(0,) * layer.dims] = 1
            self.register_buffer(f"corner{dilation}", corner)

    def forward(self, x: Tensor) -> Tensor:
        """One layer."""
        return self.mixed(x, sampled(self.alpha))

    def mixed(self, x: Tensor, coefficients: Tensor) -> Tensor:
        """The layer with given coefficients."""
        dims, half = self.layer.dims, (self.field - 1) // 2
        axes = tuple(range(-dims, 0))
        size = x.shape[2:]
        padded = functional.pad(x, [half, half] * dims)
        spectra = torch.fft.rfftn(padded, dim=axes, norm="ortho")
        length = padded.shape[2:]
        kernel = functional.pad(self._kernel(coefficients), [p for n in reversed(length) for p in (n - self.field, 0)])
        kernel = kernel.flip(axes).roll([-half] * dims, axes)
        kernel_spectra = torch.fft.rfftn(kernel, dim=axes, norm="backward")
        if self.layer.groups == 1:
            product = torch.einsum("bi...,oi...->bo...", spectra, kernel_spectra)
        else:
            product = spectra * kernel_spectra.squeeze(1)
        y = torch.fft.irfftn(product, length, axes, norm="ortho")
        for axis, n in zip(axes, size, strict=True):
            y = y.narrow(axis, half, n)
        if self.layer.stride > 1:
            pool = functional.avg_pool1d if dims == 1 else functional.avg_pool2d
            y = pool(y, 1, self.layer.stride)
        return y + self.bias.view(-1, *[1] * dims)

    def _kernel(self, coefficients: Tensor) -> Tensor:
        total: Tensor | None = None
        for coefficient, weight, (kernel, dilation) in zip(coefficients, self.weights, self.pairs, strict=True):
            corner = self.get_buffer(f"corner{dilation}")
            own = dilation * (kernel - 1) + 1
            spread = torch.kron(weight, corner)[(..., *[slice(own)] * self.layer.dims)]
            one = coefficient * functional.pad(spread, [(self.field - own) // 2] * 2 * self.layer.dims)
            total = one if total is None else total + one
        assert total is not None  # there is at least one pair
        return total

    def copy_from(self, ours: Ours) -> None:
        """Takes the weights of the same layer in our order."""
        with torch.no_grad():
            parts = torch.split(ours.conv.weight, [o.taps for o in ours.conv.operations])
            for own, part in zip(self.weights, parts, strict=True):
                own.copy_(part.permute(1, 2, 0).reshape(own.shape))


def plain(layer: Layer, kernel: int) -> nn.Module:
    """An ordinary convolution; kernels of even sizes, which ResNet1D has, are made odd."""
    kind: type[nn.Conv1d | nn.Conv2d] = nn.Conv1d if layer.dims == 1 else nn.Conv2d
    kernel += 1 - kernel % 2
    return kind(*layer.channels, kernel, layer.stride, kernel // 2, groups=layer.groups)


class _Block1d(nn.Module):
    """Three convolutions; a skip around them where the width changes, as the authors' program has it."""

    def __init__(self, inputs: int, outputs: int, convolution: Convolution) -> None:
        super().__init__()
        widths = [inputs, outputs, outputs]
        self.layers = nn.Sequential(
            *(
                nn.Sequential(convolution(width, outputs, kernel, 1), nn.BatchNorm1d(outputs), nn.ReLU())
                for width, kernel in zip(widths, (8, 5, 3), strict=True)
            )
        )
        self.shortcut = nn.Sequential(nn.Conv1d(inputs, outputs, 1), nn.BatchNorm1d(outputs))
        self.skips = inputs != outputs

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        y: Tensor = self.layers(x)
        return y + self.shortcut(x) if self.skips else y


def resnet1d(channels: int, width: int, classes: int, convolution: Convolution) -> nn.Module:
    """Three blocks of widths w, 2w, 2w, mean over time, a linear head."""
    return nn.Sequential(
        _Block1d(channels, width, convolution),
        _Block1d(width, 2 * width, convolution),
        _Block1d(2 * width, 2 * width, convolution),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(2 * width, classes),
    )


class _Block2d(nn.Module):
    """Pre-activation; the second convolution has the stride."""

    def __init__(self, inputs: int, outputs: int, stride: int, convolution: Convolution) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), convolution(inputs, outputs, 3, 1))
        self.second = nn.Sequential(nn.BatchNorm2d(outputs), nn.ReLU(), convolution(outputs, outputs, 3, stride))
        changes = stride != 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        y: Tensor = self.second(self.first(x)) + self.shortcut(x)
        return y


def wrn16(channels: int, width: int, classes: int, convolution: Convolution) -> nn.Module:
    """WRN-16-w: a convolution, three stages of two blocks, mean over the map, a linear head."""
    blocks: list[nn.Module] = [convolution(channels, 16, 3, 1)]
    inputs = 16
    for outputs, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
        blocks += [_Block2d(inputs, outputs, stride, convolution), _Block2d(outputs, outputs, 1, convolution)]
        inputs = outputs
    head = [nn.BatchNorm2d(inputs), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)]
    return nn.Sequential(*blocks, *head)


@dataclass(frozen=True)
class Shape:
    """A search of a task.

    Attributes:
        name: Of the row.
        input_shape: Channels and size.
        batch: B.
        width: Of the backbone: of its first block (1-D), or its widening factor (2-D).
        classes: Outputs.
        kernels: Mixed kernel sizes.
        dilations: Mixed dilations.
    """

    name: str
    input_shape: tuple[int, ...]
    batch: int
    width: int
    classes: int
    kernels: tuple[int, ...]
    dilations: tuple[int, ...]

    def network(self, contender: str) -> nn.Module:
        """The supernet, or with ``plain`` the backbone with its default kernels; separable, as the authors search."""
        dims = len(self.input_shape) - 1

        def convolution(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Module:
            groups = inputs if inputs == outputs and contender != "plain" else 1
            layer = Layer((inputs, outputs), groups, dims, self.kernels, self.dilations, stride)
            if contender == "plain":
                return plain(layer, kernel)
            return Authors(layer) if contender == "authors" else Ours(layer, contender)

        build = resnet1d if dims == 1 else wrn16
        return build(self.input_shape[0], self.width, self.classes, convolution)

    @property
    def operations(self) -> int:
        """How many are mixed."""
        return math.prod((len(self.kernels), len(self.dilations)))
