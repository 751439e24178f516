"""Networks of three stages of equal blocks: the standard families of NDS, as pycls builds them for CIFAR.

A stem of 16 channels (3×3 convolution, batch normalization, ReLU), three stages of which the second and third halve the
map, global pooling and a linear head.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from torch import Tensor, nn

STEM = 16
"""Channels of the stem."""
STRIDES = (1, 2, 2)
"""Of the first block of each stage."""


@final
@dataclass(frozen=True)
class Stage:
    """What one stage consists of.

    Attributes:
        depth: Number of blocks.
        width: Channels of their outputs.
        ratio: By which a bottleneck divides the width; 0 for a block without a bottleneck.
        groups: Groups of a bottleneck's 3×3 convolution.
    """

    depth: int
    width: int
    ratio: int = 0
    groups: int = 1


class Residual(nn.Module):
    """ReLU of the sum of a transformation and the input, which is projected where the shape changes.

    Shapes: ``(B, C_in, H, W)`` to ``(B, C_out, H / stride, W / stride)``.
    """

    def __init__(self, transform: nn.Module, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        same = c_in == c_out and stride == 1
        self.projection = nn.Identity() if same else nn.Sequential(*_conv_bn(c_in, c_out, 1, stride))
        self.transform = transform
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        out: Tensor = self.relu(self.projection(x) + self.transform(x))
        return out


def block(stage: Stage, c_in: int, stride: int, *, residual: bool) -> nn.Module:
    """A block of a stage: a bottleneck where it has a ratio, otherwise two 3×3 convolutions."""
    width = stage.width
    if stage.ratio:
        inner = width // stage.ratio
        layers = [
            *_conv_bn(c_in, inner, 1),
            nn.ReLU(),
            *_conv_bn(inner, inner, 3, stride, groups=stage.groups),
            nn.ReLU(),
            *_conv_bn(inner, width, 1),
        ]
    else:
        layers = [*_conv_bn(c_in, width, 3, stride), nn.ReLU(), *_conv_bn(width, width, 3)]
    if residual:
        return Residual(nn.Sequential(*layers), c_in, width, stride)
    return nn.Sequential(*layers, nn.ReLU())


def stage_network(stages: Sequence[Stage], shape: tuple[int, int], *, residual: bool) -> nn.Module:
    """``(B, C, H, W)`` to ``(B, classes)``, with pycls' initialization.

    Args:
        stages: From the input on.
        shape: Channels of the input and number of classes.
        residual: Whether blocks have a skip.
    """
    layers: list[nn.Module] = [*_conv_bn(shape[0], STEM, 3), nn.ReLU()]
    c_in = STEM
    for stage, stride in zip(stages, STRIDES, strict=True):
        for number in range(stage.depth):
            layers.append(block(stage, c_in, stride if number == 0 else 1, residual=residual))
            c_in = stage.width
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c_in, shape[1]))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
    return network


def _conv_bn(c_in: int, c_out: int, kernel: int, stride: int = 1, *, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(c_out)]
