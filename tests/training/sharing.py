"""A space whose networks fail in one of the processes that share their training."""

import os
import signal
from typing import ClassVar, final

from torch import Tensor, distributed, nn

from nasplat.architecture import Architecture
from nasplat.choices import Choice
from nasplat.space import SearchSpace
from nasplat.task import Task


@final
class Dying(SearchSpace):
    """Linear networks; ``fault`` is what happens in the second process at the third step."""

    name: ClassVar[str] = "dying"

    def __init__(self) -> None:
        super().__init__([Choice("fault", ("none", "second dies", "second raises"))])

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        features = task.input_shape[0] * task.input_shape[1] * task.input_shape[2]
        return nn.Sequential(nn.Flatten(), nn.Linear(features, task.outputs), _Fault(str(architecture["fault"])))


class _Fault(nn.Module):
    def __init__(self, fault: str) -> None:
        super().__init__()
        self._fault = fault
        self._steps = 0

    def forward(self, x: Tensor) -> Tensor:
        self._steps += 1
        if self._steps == 3 and distributed.is_initialized() and distributed.get_rank() == 1:
            if self._fault == "second dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if self._fault == "second raises":
                raise ArithmeticError("this network raises")
        return x
