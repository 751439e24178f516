"""Standardized targets: what a network learns in place of numbers of any size."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True, slots=True)
class Standardization:
    """How a task's real targets are standardized, with statistics of the training part.

    The network gives ``(y - mean) / std``; metrics see its outputs decoded, on the scale of the data.

    Attributes:
        elementwise: Each number of a target has a mean and a deviation of its own (the published way for Darcy flow);
            otherwise all numbers of a channel, the first axis of a target, share them.
        loss_decoded: Whether the loss too compares decoded outputs with the targets as they are, as relative losses
            need it; otherwise it compares outputs with standardized targets.
    """

    elementwise: bool = False
    loss_decoded: bool = False

    def fitted(self, targets: Tensor) -> "Scale":
        """Mean and deviation of targets ``(N, *target_shape)``; the deviation of what never varies is 0."""
        values = targets.double()
        axes = (0,) if self.elementwise else tuple(axis for axis in range(values.ndim) if axis != 1)
        std, mean = torch.std_mean(values, dim=axes, correction=0, keepdim=True)
        std = torch.where(std > 1e-6 * mean.abs(), std, 0.0)
        return Scale(mean[0].float(), std[0].float())


@final
@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """Mean and deviation of targets, of shapes that broadcast against ``target_shape``.

    What never varied in the training part, such as a pressure that is 0 at a border, is known without a network:
    whatever the network gives there is decoded to the constant.
    """

    mean: Tensor
    std: Tensor

    def encode(self, targets: Tensor) -> Tensor:
        """Targets ``(B, *target_shape)`` as the network learns them."""
        std = torch.where(self.std > 0, self.std, 1.0)
        return (targets - self.mean.to(targets.device)) / std.to(targets.device)

    def decode(self, outputs: Tensor) -> Tensor:
        """Outputs ``(B, *output_shape)`` on the scale of the data."""
        return outputs * self.std.to(outputs.device) + self.mean.to(outputs.device)
