"""The wide residual network of depth 16: Zagoruyko & Komodakis, "Wide Residual Networks", BMVC 2016.

As in DASH: pre-activation, stride on a block's second convolution, convolutions with biases and Xavier's uniform
weights with gain √2; where an output is wanted at every position no stride and no pooling.
"""

import math
from typing import final

from torch import Tensor, nn
from torch.nn import functional

from nasplat.search_spaces.dash.backbones.parts import dense_head, is_dense

_BLOCKS_A_STAGE = 2  # depth 16 = 6 · 2 + 4
_FIRST = 16


@final
class WideBlock(nn.Module):
    """BN → ReLU → conv → BN → ReLU → conv, plus the input; ``(B, C_in, *n)`` to ``(B, C_out, *n / stride)``."""

    def __init__(self, c_in: int, c_out: int, *, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, stride, padding=1)
        same = stride == 1 and c_in == c_out
        self.shortcut = nn.Identity() if same else nn.Conv2d(c_in, c_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        out = self.conv1(functional.relu(self.bn1(x)))
        out = self.conv2(functional.relu(self.bn2(out)))
        result: Tensor = out + self.shortcut(x)
        return result


def wrn(input_shape: tuple[int, ...], output_shape: tuple[int, ...], width: int, causal: bool) -> nn.Module:
    """WRN-16-width: ``(B, C, H, W)`` to ``(B, *output_shape)``; ``causal`` is for series, and left aside."""
    dense = is_dense(input_shape, output_shape)
    layers: list[nn.Module] = [nn.Conv2d(input_shape[0], _FIRST, 3, padding=1)]
    channels = _FIRST
    for stage in range(3):
        for block in range(_BLOCKS_A_STAGE):
            stride = 2 if stage > 0 and block == 0 and not dense else 1
            layers.append(WideBlock(channels, _FIRST * 2**stage * width, stride=stride))
            channels = _FIRST * 2**stage * width
    layers += [nn.BatchNorm2d(channels), nn.ReLU()]
    if dense:
        layers.append(dense_head(channels, input_shape, output_shape))
    else:
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, output_shape[0])]
    return nn.Sequential(*layers)


def initialize(network: nn.Module) -> None:
    """Weights of all convolutions by Xavier's uniform rule with gain √2, biases zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_uniform_(module.weight, gain=math.sqrt(2))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
