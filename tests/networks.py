"""Networks of "somebody else", for tests of scores: named as ``tests.networks:…``."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class Plain(nn.Module):
    """Images ``(B, 3, 8, 8)`` to three classes, ReLU called as a function."""

    activation: Callable[[Tensor], Tensor] = staticmethod(functional.relu)

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.first(x))
        x = self.activation(self.second(x))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


class Smooth(Plain):
    """The same with GELU."""

    activation = staticmethod(functional.gelu)


class Squashed(Plain):
    """The same with the tensor's own tanh."""

    @staticmethod
    def activation(x: Tensor) -> Tensor:
        return x.tanh()


class Linear(Plain):
    """The same with nothing."""

    @staticmethod
    def activation(x: Tensor) -> Tensor:
        return x


def wide() -> nn.Module:
    return Plain(16)


def flat() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 2))


def words() -> nn.Module:
    return nn.Sequential(nn.Embedding(20, 6), nn.Flatten(), nn.Linear(30, 64), nn.SiLU(), nn.Linear(64, 2))


def lazy() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(4))


def broken() -> nn.Module:
    raise RuntimeError("out of ideas")


def text() -> str:
    return "a network"


def with_width(width: int) -> nn.Module:
    return Plain(width)


for _width in range(1, 25):
    globals()[f"width_{_width}"] = functools.partial(Plain, _width)

finished = nn.Linear(2, 2)
number = 3


def recurrent() -> nn.Module:
    return nn.Sequential(nn.Flatten(2), nn.LSTM(64, 4, batch_first=True), Last())


class Last(nn.Module):
    def forward(self, x: tuple[Tensor, object]) -> Tensor:
        return torch.mean(x[0], 1)
