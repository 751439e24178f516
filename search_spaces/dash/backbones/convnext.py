"""ConvNeXt-T: Liu et al., "A ConvNet for the 2020s", CVPR 2022. Its depthwise 7×7 convolutions are what is searched."""

from typing import final

import torch
from torch import Tensor, nn

from nasplat.errors import InvalidArchitectureError
from nasplat.search_spaces.dash.backbones.parts import refuse_dense

_DEPTHS = (3, 3, 9, 3)
_LAYER_SCALE = 1e-6
_PATCH = 4


@final
class ChannelNorm(nn.Module):
    """Layer normalization over channels; ``(B, C, H, W)`` stays ``(B, C, H, W)``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Channels go last and come back."""
        out: Tensor = self.norm(x.permute(0, 2, 3, 1))
        return out.permute(0, 3, 1, 2)


@final
class ConvNextBlock(nn.Module):
    """Depthwise convolution → norm → linear → GELU → linear, plus the input; ``(B, C, H, W)`` stays as it is."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.wide = nn.Linear(channels, 4 * channels)
        self.narrow = nn.Linear(4 * channels, channels)
        self.scale = nn.Parameter(torch.full((channels,), _LAYER_SCALE))

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        out = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        out = self.scale * self.narrow(nn.functional.gelu(self.wide(out)))
        result: Tensor = x + out.permute(0, 3, 1, 2)
        return result


def convnext(input_shape: tuple[int, ...], output_shape: tuple[int, ...], width: int, causal: bool) -> nn.Module:
    """Four stages of width to 8·width channels: ``(B, C, H, W)`` to ``(B, K)``; ``causal`` is left aside.

    Raises:
        InvalidArchitectureError: If the image is too small for the strides.
    """
    refuse_dense("convnext", input_shape, output_shape)
    if min(input_shape[1:]) < _PATCH * 8:
        raise InvalidArchitectureError(f"backbone convnext takes images from 32 pixels a side, got {input_shape}")
    widths = [width * 2**stage for stage in range(len(_DEPTHS))]
    layers: list[tuple[str, nn.Module]] = []
    for stage, (channels, depth) in enumerate(zip(widths, _DEPTHS, strict=True)):
        if stage == 0:
            smaller = nn.Sequential(nn.Conv2d(input_shape[0], channels, _PATCH, _PATCH), ChannelNorm(channels))
        else:
            smaller = nn.Sequential(ChannelNorm(widths[stage - 1]), nn.Conv2d(widths[stage - 1], channels, 2, 2))
        layers.append((f"downsample{stage}", smaller))
        layers.append((f"stage{stage}", nn.Sequential(*(ConvNextBlock(channels) for _ in range(depth)))))
    network = nn.Sequential()
    for name, module in layers:
        network.add_module(name, module)
    network.add_module("average", nn.AdaptiveAvgPool2d(1))
    network.add_module("flatten", nn.Flatten())
    network.add_module("norm", nn.LayerNorm(widths[-1], eps=1e-6))
    network.add_module("head", nn.Linear(widths[-1], output_shape[0]))
    return network
