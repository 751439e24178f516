"""Stochastic depth."""

from typing import final

import torch
from torch import Tensor, nn


@final
class DropPath(nn.Module):
    """In training, a residual branch left out for some examples and scaled up for the others; shapes stay.

    Huang et al. 2016, "Deep Networks with Stochastic Depth" (ECCV), drawn for each example.

    Args:
        rate: Share of the examples, in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """``(B, …)``, whole examples of it zero."""
        if not self.training or not self.rate:
            return x
        kept = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device, dtype=x.dtype) >= self.rate
        return x * kept / (1.0 - self.rate)
