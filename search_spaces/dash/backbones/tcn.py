"""The temporal convolutional network of Bai, Kolter & Koltun, arXiv:1803.01271, 2018.

Deviation: no weight normalization, which a mixture of kernels has no counterpart of.
"""

from typing import final

from torch import Tensor, nn
from torch.nn import functional

from nasplat.search_spaces.dash.backbones.parts import conv1d, dense_head, is_dense

_LEVELS = 8
_KERNEL = 7
_DROPOUT = 0.2


@final
class TemporalBlock(nn.Module):
    """Twice conv → ReLU → dropout, plus the input, then ReLU; ``(B, C_in, L)`` to ``(B, C_out, L)``."""

    def __init__(self, c_in: int, c_out: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = conv1d((c_in, c_out), _KERNEL, dilation=dilation, causal=True)
        self.conv2 = conv1d((c_out, c_out), _KERNEL, dilation=dilation, causal=True)
        self.dropout = nn.Dropout(_DROPOUT)
        self.downsample = nn.Conv1d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        out = self.dropout(functional.relu(self.conv1(x)))
        out = self.dropout(functional.relu(self.conv2(out)))
        return functional.relu(out + self.downsample(x))


@final
class LastStep(nn.Module):
    """``(B, C, L)`` to ``(B, C)``."""

    def forward(self, x: Tensor) -> Tensor:
        """The last position, which has seen all of them."""
        return x[..., -1]


def tcn(input_shape: tuple[int, ...], output_shape: tuple[int, ...], width: int, causal: bool) -> nn.Module:
    """Eight levels with dilations 1 to 128, which look back whatever ``causal`` says: to ``(B, *output_shape)``."""
    channels = (input_shape[0], *(width for _ in range(_LEVELS)))
    blocks = [TemporalBlock(channels[level], channels[level + 1], 2**level) for level in range(_LEVELS)]
    if is_dense(input_shape, output_shape):
        return nn.Sequential(*blocks, dense_head(width, input_shape, output_shape))
    return nn.Sequential(*blocks, LastStep(), nn.Linear(width, output_shape[0]))
