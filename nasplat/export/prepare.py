"""Inputs and outputs on the scale that a network sees, and on that of the data."""

from typing import final

from torch import Tensor, nn
from torch.nn import functional

from nasplat.scaling import Scale
from nasplat.task import Task
from nasplat.training.trainer import Normalization


def prepared(inputs: Tensor, normalization: Normalization, resolution: int | None) -> Tensor:
    """Inputs ``(B, C, ...)`` as in the data, images resized to squares if a side is given, then normalized."""
    if resolution is not None and inputs.shape[-2:] != (resolution, resolution):
        inputs = functional.interpolate(inputs, (resolution, resolution), mode="bilinear", antialias=True)
    return normalization.apply(inputs)


def on_the_scale_of_the_data(network: nn.Module, task: Task | None) -> nn.Module:
    """The network with what it gives decoded, where the task's targets are standardized; else as it is."""
    if task is None or "standardization" not in task.particulars:
        return network
    return Decoded(network, task.scale).eval()


@final
class Decoded(nn.Module):
    """What a network gives, ``(B, *output_shape)``, on the scale of the targets.

    Args:
        network: Gives standardized numbers.
        scale: How they were standardized.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, scale: Scale) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", scale.mean.clone())
        self.register_buffer("std", scale.std.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Decoded outputs."""
        out: Tensor = self.network(x) * self.std + self.mean
        return out
