"""A space of 50 tiny networks with conditional choices, on which a test can look at every architecture."""

from typing import ClassVar, final

from torch import nn

from nasplat.architecture import Architecture
from nasplat.choices import Choice, When
from nasplat.space import SearchSpace
from nasplat.task import Task


@final
class ToySpace(SearchSpace):
    """Linear layers on flattened inputs: up to two hidden ones, each with a width and an activation."""

    name: ClassVar[str] = "toy"
    references: ClassVar = {"linear": {"depth": 0, "norm": "no"}}

    def __init__(self) -> None:
        first, second = When("depth", (1, 2)), When("depth", (2,))
        super().__init__(
            [
                Choice("depth", (0, 1, 2), ordered=True),
                Choice("width0", (2, 4, 8), ordered=True, when=first),
                Choice("activation0", ("relu", "tanh"), when=first),
                Choice("width1", (2, 4, 8), ordered=True, when=second),
                Choice("norm", ("no", "yes")),
            ]
        )

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        """``(B, *input_shape)`` to ``(B, outputs)``."""
        features = 1
        for side in task.input_shape:
            features *= side
        layers: list[nn.Module] = [nn.Flatten()]
        if architecture["norm"] == "yes":
            layers.append(nn.BatchNorm1d(features))
        for layer in range(int(architecture["depth"])):
            width = int(architecture[f"width{layer}"])
            tanh = architecture.chosen.get(f"activation{layer}") == "tanh"
            layers += [nn.Linear(features, width), nn.Tanh() if tanh else nn.ReLU()]
            features = width
        return nn.Sequential(*layers, nn.Linear(features, task.outputs))
