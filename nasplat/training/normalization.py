"""Inputs with mean 0 and deviation 1 a channel."""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional


@final
@dataclass(frozen=True, slots=True)
class Normalization:
    """Mean and standard deviation a channel, from the data that is trained on; none where inputs stay as they are."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, inputs: Tensor, *, scaled: bool = False) -> "Normalization":
        """Statistics of inputs ``(N, C, ...)`` over everything but the channels; exact for uint8.

        A channel that is constant gets a standard deviation of 1. Token ids (int64) and inputs that are scaled already
        have no statistics and stay as they are.
        """
        if scaled or inputs.dtype == torch.int64:
            return cls((), ())
        means, stds = [], []
        for channel in inputs.unbind(1):
            mean, std = _byte_statistics(channel) if inputs.dtype == torch.uint8 else _statistics(channel)
            means.append(mean)
            stds.append(std if std > 1e-6 * abs(mean) else 1.0)
        return cls(tuple(means), tuple(stds))

    def apply(self, inputs: Tensor) -> Tensor:
        """Inputs ``(B, C, ...)`` as float32 with mean 0 and standard deviation 1 a channel; token ids as they are."""
        if not self.mean:
            return inputs if inputs.dtype == torch.int64 else inputs.float()
        mean = torch.tensor(self.mean, dtype=torch.float32, device=inputs.device)
        variance = torch.tensor(self.std, dtype=torch.float32, device=inputs.device).square()
        # Batch normalization with fixed statistics is one pass over the data instead of two.
        return functional.batch_norm(inputs.float(), mean, variance, eps=0.0)


def _byte_statistics(values: Tensor) -> tuple[float, float]:
    counts = torch.bincount(values.flatten(), minlength=256).double()
    levels = torch.arange(256, dtype=torch.float64)
    mean = float((counts * levels).sum() / values.numel())
    return mean, math.sqrt(float((counts * (levels - mean).square()).sum() / values.numel()))


def _statistics(values: Tensor) -> tuple[float, float]:
    std, mean = torch.std_mean(values.double(), correction=0)
    return float(mean), float(std)
