"""Inputs and outputs on the scale that a network sees, and on that of the data."""

from typing import final

import torch
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
    """The network with what it gives decoded, where the task's targets are standardized; else as it is.

    Where the task's inputs were standardized before it saw them, it takes them in the units of the data too.
    """
    if task is not None and task.units is not None:
        return InUnits(network, task, task.units).eval()
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


def in_units(example: Tensor, task: Task | None) -> Tensor:
    """Inputs of a task in the units of the data, as ``InUnits`` takes them."""
    if task is None or task.units is None:
        return example
    whole = _of_all_channels(task, task.units)
    return example * whole.std + whole.mean


def _of_all_channels(task: Task, units: Scale) -> Scale:
    """The scale of variables and, below them, of the calendar, which stays as it is: ``(C, 1)``."""
    rest = torch.zeros(task.input_shape[0] - len(units.mean), 1)
    return Scale(torch.cat([units.mean, rest]), torch.cat([units.std, rest + 1]))


@final
class InUnits(nn.Module):
    """A forecaster of standardized variables that takes and gives them in the units of the data.

    Args:
        network: From windows ``(B, C, L)`` to ``(B, *output_shape)``, standardized.
        task: Whose windows these are.
        units: What was standardized with.
    """

    center: Tensor
    spread: Tensor
    known: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, task: Task, units: Scale) -> None:
        super().__init__()
        self.network = network
        whole = _of_all_channels(task, units)
        known = torch.ones(task.input_shape)
        if task.calendar:  # windows go on over the horizon, where the variables are 0
            known[: -task.calendar, -task.output_shape[1] :] = 0.0
        for name, value in {"center": whole.mean, "spread": whole.std, "known": known}.items():
            self.register_buffer(name, value.clone())
        self.register_buffer("mean", units.mean.clone())
        self.register_buffer("std", units.std.clone())

    def forward(self, x: Tensor) -> Tensor:
        """The steps after windows ``(B, C, L)``."""
        out: Tensor = self.network((x - self.center) / self.spread * self.known) * self.std + self.mean
        return out
