"""The residual network for series: Wang, Yan & Oates, "Time Series Classification from Scratch", IJCNN 2017.

As in DASH: the width follows from the number of classes; a block has a skip only where its width changes.
"""

from typing import final

from torch import Tensor, nn

from nasplat.search_spaces.dash.backbones.parts import conv1d, dense_head, is_dense

_KERNELS = (8, 5, 3)


@final
class SeriesBlock(nn.Module):
    """Three times conv → BN → ReLU, plus a 1×1 convolution of the input where the width changes.

    Shapes: ``(B, C_in, L)`` to ``(B, C_out, L)``.
    """

    def __init__(self, c_in: int, c_out: int, *, causal: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for place, kernel in enumerate(_KERNELS):
            conv = conv1d((c_in if place == 0 else c_out, c_out), kernel, causal=causal)
            layers += [conv, nn.BatchNorm1d(c_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.channel_match = nn.Sequential(nn.Conv1d(c_in, c_out, 1), nn.BatchNorm1d(c_out)) if c_in != c_out else None

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        out: Tensor = self.layers(x)
        return out if self.channel_match is None else out + self.channel_match(x)


@final
class MeanOverTime(nn.Module):
    """``(B, C, L)`` to ``(B, C)``."""

    def forward(self, x: Tensor) -> Tensor:
        """The mean."""
        return x.mean(-1)


def resnet1d(input_shape: tuple[int, ...], output_shape: tuple[int, ...], width: int, causal: bool) -> nn.Module:
    """Blocks of width, 2·width and 2·width channels: ``(B, C, L)`` to ``(B, *output_shape)``."""
    blocks = [
        SeriesBlock(c_in, c_out, causal=causal)
        for c_in, c_out in ((input_shape[0], width), (width, 2 * width), (2 * width, 2 * width))
    ]
    if is_dense(input_shape, output_shape):
        return nn.Sequential(*blocks, dense_head(2 * width, input_shape, output_shape))
    return nn.Sequential(*blocks, MeanOverTime(), nn.Linear(2 * width, output_shape[0]))


def resnet1d_width(classes: int) -> int:
    """Of the first block: 4 below 10 classes, 16 below 20, else 64."""
    return int(min(4 ** (classes // 10 + 1), 64))
