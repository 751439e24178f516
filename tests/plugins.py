"""A search space and tasks from "somebody else's package", for tests: named as ``tests.plugins:…``."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor, nn

from nasplat.architecture import Architecture
from nasplat.choices import Choice
from nasplat.errors import InvalidArchitectureError
from nasplat.space import SearchSpace
from nasplat.task import Task, classification
from nasplat.testing import calls
from nasplat.training.recipe import Recipe

STARTS = "NASPLAT_TEST_STARTS"
"""Environment variable with a file to which every network that is built for training adds a line."""


def blobs() -> Task:
    """Two classes of 4×4 images that differ in brightness: 80 to search on, 40 for the test."""
    rng = np.random.default_rng(0)

    def part(count: int) -> tuple[np.ndarray, np.ndarray]:
        y = np.arange(count) % 2
        return (rng.integers(0, 128, (count, 1, 4, 4)) + 100 * y[:, None, None, None]).astype(np.uint8), y

    return classification("blobs", search=part(80), test=part(40), recipe=Recipe(lr=0.05, batch_size=16))


class _Nan(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.tensor(float("nan"))


def happen(fault: str) -> None:
    """What a fault does when a network is built to train."""
    match fault:
        case "raises":
            raise RuntimeError("this architecture raises")
        case "invalid":
            raise InvalidArchitectureError("the map has no pixel left")
        case "memory":
            torch.empty(10**15)
        case "hangs" | "slow":
            time.sleep(3600 if fault == "hangs" else 2)
        case "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exits":
            sys.exit(3)
        case "prints":
            for descriptor in 512 * (1, 2):
                os.write(descriptor, (2**20 - 1) * b"x" + b"\n")
            os.write(1, b"that was a gigabyte\n")
        case "eats":
            calls.eat(4 * 2**30)


@final
class Faulty(SearchSpace):
    """Small perceptrons of 8 widths × 4 seeds-like choices; ``fault`` is what happens when one is built to train."""

    name: ClassVar[str] = "faulty"

    def __init__(self, *, faults: str = "none") -> None:
        super().__init__(
            [
                Choice("fault", tuple(faults.split("+"))),
                Choice("width", (2, 3, 4, 5, 6, 7, 8, 9), ordered=True),
                Choice("act", ("relu", "tanh", "gelu", "silu")),
            ]
        )

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        width = int(architecture["width"])
        act = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "silu": nn.SiLU}[str(architecture["act"])]()
        features = int(np.prod(task.input_shape))
        network = nn.Sequential(nn.Flatten(), nn.Linear(features, width), act, nn.Linear(width, task.outputs))
        if torch.get_default_device().type == "meta":  # only counted
            return network
        if STARTS in os.environ:
            with Path(os.environ[STARTS]).open("a") as file:
                file.write(f"{architecture.text}\n")
        happen(str(architecture["fault"]))
        if architecture["fault"] == "nan":
            network.append(_Nan())
        return network
