"""What the tests have run on workers, and see of their processes."""

import os
import time
from pathlib import Path
from typing import ClassVar, final

import torch
from torch import nn

from nasplat.architecture import Architecture
from nasplat.choices import Choice
from nasplat.measurement import Measurement
from nasplat.space import SearchSpace
from nasplat.task import Task
from nasplat.testing import calls
from tests.plugins import STARTS

PATIENCE_SECONDS = 240.0
"""For what takes a few seconds where nothing else runs."""


@final
class Queueing(SearchSpace):
    """Small perceptrons: those that ``wait`` are trained once one that does not is being trained too.

    Args:
        folder: Where they know it from.
    """

    name: ClassVar[str] = "queueing"

    def __init__(self, *, folder: str) -> None:
        super().__init__([Choice("wait", (0, 1)), Choice("width", (2, 3, 4, 5), ordered=True)])
        self._begun = Path(folder) / "begun"

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        width = int(architecture["width"])
        network = nn.Sequential(nn.Flatten(), nn.Linear(16, width), nn.ReLU(), nn.Linear(width, task.outputs))
        if torch.get_default_device().type == "meta":  # only counted
            return network
        with Path(os.environ[STARTS]).open("a") as file:
            file.write(f"{architecture.text}\n")
        if not architecture["wait"]:
            self._begun.touch()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._begun.exists():
            if time.monotonic() > deadline:
                raise RuntimeError("all waited, and nobody began")
            time.sleep(0.01)
        return network


def give_or_die(value: float) -> Measurement:
    """The value, but 0 kills."""
    return calls.give(value) if value else calls.die()


def parent(pid: int) -> int:
    """The process that has started another one."""
    return int(_stat(pid)[1])


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended may stay for ever where nobody asks how, as in a container."""
    try:
        return _stat(pid)[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _stat(pid: int) -> list[str]:
    # The name before it may hold anything.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
