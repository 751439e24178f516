"""A space of small networks that draw random numbers while they are trained, and a task for them."""

from collections.abc import Mapping
from typing import Any, ClassVar, final

import numpy as np
from torch import Tensor, nn

from nasplat.architecture import Architecture
from nasplat.choices import Choice
from nasplat.quality import cross_entropy
from nasplat.space import SearchSpace
from nasplat.task import Task, classification
from nasplat.training.recipe import Recipe

RECIPE = Recipe(lr=0.05, batch_size=16, crop=1, flip=True, cutout=2, label_smoothing=0.1, warmup_epochs=1.0)
STEPS = 5
"""Steps of an epoch on the training part."""


def noise() -> Task:
    """Noise whose mean tells the class: 100 images to search on, 40 for the test."""
    rng = np.random.default_rng(0)

    def part(count: int) -> tuple[np.ndarray, np.ndarray]:
        y = np.arange(count) % 4
        return rng.normal(size=(count, 3, 8, 8)) + 0.2 * y[:, None, None, None], y

    return classification("noise", search=part(100), test=part(40), recipe=RECIPE)


@final
class Small(SearchSpace):
    """Two convolutions with batch normalization and dropout; ``lr`` is a setting of the training."""

    name: ClassVar[str] = "small"

    def __init__(self) -> None:
        super().__init__([Choice("width", (4, 8)), Choice("dropout", (0.0, 0.5)), Choice("lr", (0.05, 0.01))])

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        width = int(architecture["width"])
        return nn.Sequential(
            nn.Conv2d(task.input_shape[0], width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout(float(architecture["dropout"])),
            nn.Conv2d(width, width, 3, stride=2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, task.outputs),
        )

    def recipe(self, architecture: Architecture) -> Mapping[str, Any]:
        return {"lr": architecture["lr"]}


class CountedLoss:
    """Cross-entropy that counts training steps and evaluations, and can do something at a step."""

    def __init__(self) -> None:
        self.steps = 0
        self.evaluations = 0

    def __call__(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        if outputs.requires_grad:
            self.steps += 1
            self.at(self.steps)
        else:
            self.evaluations += 1
        return cross_entropy(outputs, targets, label_smoothing)

    def at(self, step: int) -> None:
        """Called before each step's loss, counted from 1."""


class Interrupted(CountedLoss):
    """Fails at a step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._step = step

    def at(self, step: int) -> None:
        if step == self._step:
            raise ConnectionError("the storage went away")


@final
class Plain(SearchSpace):
    """Two convolutions without batch normalization, and a layer that is never used."""

    name: ClassVar[str] = "plain"

    def __init__(self) -> None:
        super().__init__([Choice("width", (4, 8))])

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        return _WithUnused(task.input_shape[0], int(architecture["width"]), task.outputs)


class _WithUnused(nn.Module):
    def __init__(self, channels: int, width: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.unused = nn.Conv2d(width, width, 1)
        self.second = nn.Conv2d(width, width, 3, stride=2)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x).relu()).relu()
        out: Tensor = self.head(x.mean((2, 3)))
        return out
