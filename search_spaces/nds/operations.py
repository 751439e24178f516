"""The operations of the cell-based design spaces, each from ``(B, C, H, W)`` to ``(B, C, H / stride, W / stride)``.

As in DARTS, from which pycls took them: ReLU first, then convolutions without bias, then batch normalization. Odd maps
are halved upwards.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

NONE, SKIP = "none", "skip_connect"

SETS: Mapping[str, tuple[str, ...]] = {
    "NASNet": (
        SKIP,
        "conv_3x1_1x3",
        "conv_7x1_1x7",
        "dil_conv_3x3",
        "avg_pool_3x3",
        "max_pool_3x3",
        "max_pool_5x5",
        "max_pool_7x7",
        "conv_1x1",
        "conv_3x3",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "sep_conv_7x7",
    ),
    "Amoeba": (
        SKIP,
        "sep_conv_3x3",
        "sep_conv_5x5",
        "sep_conv_7x7",
        "avg_pool_3x3",
        "max_pool_3x3",
        "dil_sep_conv_3x3",
        "conv_7x1_1x7",
    ),
    "PNAS": (
        "sep_conv_3x3",
        "sep_conv_5x5",
        "sep_conv_7x7",
        "conv_7x1_1x7",
        SKIP,
        "avg_pool_3x3",
        "max_pool_3x3",
        "dil_conv_3x3",
    ),
    "ENAS": (SKIP, "sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3"),
    "DARTS": (
        NONE,
        "max_pool_3x3",
        "avg_pool_3x3",
        SKIP,
        "sep_conv_3x3",
        "sep_conv_5x5",
        "dil_conv_3x3",
        "dil_conv_5x5",
    ),
}
"""What each design space chooses from."""

_NAME = re.compile(r"(?P<kind>[a-z_]+)_(?P<kernel>\d)x\d(?:_\dx\d)?")


class ReLUConvBN(nn.Sequential):
    """ReLU → 1×1 convolution → batch normalization; ``(B, C_in, H, W)`` to ``(B, C_out, H, W)``."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(nn.ReLU(), nn.Conv2d(c_in, c_out, 1, bias=False), nn.BatchNorm2d(c_out))


class FactorizedReduce(nn.Module):
    """Halves a map with two 1×1 convolutions, one of them a pixel further.

    Shapes: ``(B, C_in, H, W)`` to ``(B, C_out, H / 2, W / 2)``.
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.conv_a = nn.Conv2d(c_in, c_out // 2, 1, 2, bias=False)
        self.conv_b = nn.Conv2d(c_in, c_out // 2, 1, 2, bias=False)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        """Both convolutions, concatenated."""
        x = self.relu(x)
        shifted = nn.functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        out: Tensor = self.norm(torch.cat((self.conv_a(x), self.conv_b(shifted)), 1))
        return out


def operation(name: str, channels: int, stride: int) -> nn.Module:
    """The module of an operation other than ``none``."""
    if name == SKIP:
        return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)
    match = _NAME.fullmatch(name)
    assert match is not None  # names come from SETS
    kind, kernel = match["kind"], int(match["kernel"])
    if kind == "max_pool":
        return nn.MaxPool2d(kernel, stride, kernel // 2)
    if kind == "avg_pool":
        return nn.AvgPool2d(kernel, stride, kernel // 2, count_include_pad=False)
    if name in ("conv_3x1_1x3", "conv_7x1_1x7"):
        return nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, (1, kernel), (1, stride), (0, kernel // 2), bias=False),
            nn.Conv2d(channels, channels, (kernel, 1), (stride, 1), (kernel // 2, 0), bias=False),
            nn.BatchNorm2d(channels),
        )
    if kind == "conv":
        conv = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, bias=False)
        return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(channels))
    dilation = 2 if kind.startswith("dil") else 1
    first = _depthwise(channels, kernel, stride, dilation)
    if kind == "dil_conv":
        return nn.Sequential(*first)
    return nn.Sequential(*first, *_depthwise(channels, kernel, 1, dilation))


def _depthwise(channels: int, kernel: int, stride: int, dilation: int) -> list[nn.Module]:
    padding = dilation * (kernel - 1) // 2
    return [
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
    ]
