"""A space whose networks fail in one of the processes that share their training."""

import os
import signal
import time
from pathlib import Path
from typing import ClassVar, final

import torch
from torch import Tensor, distributed, nn

from nasplat.architecture import Architecture
from nasplat.choices import Choice
from nasplat.space import SearchSpace
from nasplat.task import Task


@final
class Dying(SearchSpace):
    """Linear networks; ``fault`` is what happens at the third step, in the second process where it says so.

    Args:
        started: File that the third step makes.
    """

    name: ClassVar[str] = "dying"

    def __init__(self, *, started: str = os.devnull) -> None:
        super().__init__([Choice("fault", ("none", "second dies", "second raises", "is nan", "hangs"))])
        self._started = started

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        features = task.input_shape[0] * task.input_shape[1] * task.input_shape[2]
        fault = _Fault(str(architecture["fault"]), self._started)
        return nn.Sequential(nn.Flatten(), nn.Linear(features, task.outputs), fault)


class _Fault(nn.Module):
    def __init__(self, fault: str, started: str) -> None:
        super().__init__()
        self._fault = fault
        self._started = started
        self._steps = 0

    def forward(self, x: Tensor) -> Tensor:
        self._steps += 1
        if self._steps != 3:
            return x
        Path(self._started).touch()
        second = distributed.is_initialized() and distributed.get_rank() == 1
        match self._fault:
            case "second dies" if second:
                os.kill(os.getpid(), signal.SIGKILL)
            case "second raises" if second:
                raise ArithmeticError("this network raises")
            case "is nan":
                return x * torch.nan
            case "hangs":
                time.sleep(3600)
        return x
