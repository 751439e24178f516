"""FLOPs from shapes are those of torch's counter, for every registered space and for networks that look at values."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import BaseTorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from nasplat import flops as module
from nasplat import registry
from nasplat.errors import InvalidInputError
from nasplat.flops import flops
from nasplat.search_spaces.nasbench201 import NasBench201
from nasplat.seeding import torch_seed
from nasplat.space import SearchSpace
from nasplat.task import Task
from nasplat.testing.proxies import SmallCNN, SmallMixer, SmallTransformer

TASKS = [
    Task("images", input_shape=(3, 32, 32), outputs=5),
    Task("text", input_shape=(16,), outputs=3, vocabulary=50),
    Task("short texts", input_shape=(16,), outputs=3, vocabulary=50, padding=0),
    Task("forecast", input_shape=(3, 48), output_shape=(3, 12), target_shape=(3, 12), real=True),
]


def counted(network: nn.Module, example: Tensor) -> int:
    """By torch, without fused transformer layers, which it cannot see into."""
    with torch.no_grad(), BaseTorchFunctionMode(), FlopCounterMode(display=False) as counter:
        network(example)
    return int(counter.get_total_flops())


def example_of(task: Task) -> Tensor:
    return torch.ones((1, *task.input_shape), dtype=task.input_dtype)


def drawn(space: SearchSpace, task: Task, times: int) -> list[nn.Module]:
    rng, found = np.random.default_rng(0), []
    for _ in range(20 * times):
        try:
            with torch_seed(0):
                found.append(space.build(space.sample(rng), task).eval())
        except InvalidInputError:
            continue
        if len(found) == times:
            break
    return found


@pytest.mark.parametrize("name", registry.names("search_space"))
def test_every_registered_space_is_counted_as_torch_counts(name: str) -> None:
    space: SearchSpace = registry.create("search_space", name)
    compared = 0
    for task in TASKS:
        for network in drawn(space, task, 2):
            assert flops(network, example_of(task)) == counted(network, example_of(task)) > 0
            compared += 1
    assert compared


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("make", [SmallCNN, SmallMixer, SmallTransformer])
def test_cnn_mixer_and_transformer(make: type[nn.Module], device: str) -> None:
    network, example = make().eval().to(device), torch.zeros(1, 3, 8, 8, device=device)
    assert flops(network, example) == counted(network, example) > 0


def test_the_layers_of_a_transformer_are_not_left_out() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 32, batch_first=True).eval()
    example = torch.zeros(1, 10, 8)
    linear = 2 * 10 * (8 * 3 * 8 + 8 * 8 + 2 * 8 * 32)
    assert flops(layer, example) == linear == counted(layer, example)


# What is and is not computed ------------------------------------------------------------------------------------


class Convolutions(nn.Module):
    """All that a convolution can be, on ``(B, 4, 12, 12)``."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(4, 8, 3, padding="same"),
            nn.Conv2d(8, 8, (1, 5), stride=(2, 1), padding=(0, 2), groups=4),
            nn.Conv2d(8, 6, 3, dilation=2, padding=2, bias=False),
            nn.MaxPool2d(3, 1, 1),
            nn.AvgPool2d(2, 2, ceil_mode=True),
            nn.ConvTranspose2d(6, 4, 2, 2),
        )
        self.series, self.volume = nn.Conv1d(4, 3, 3), nn.Conv3d(1, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(x)
        total: Tensor = self.series(x.flatten(2)).sum() + self.volume(x[:, None]).sum()
        return total


def test_convolutions_of_every_form() -> None:
    example = torch.zeros(1, 4, 12, 12)
    network = Convolutions().eval()
    assert flops(network, example) == counted(network, example)
    images = network.layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert flops(images, example) == counted(images, example)


def test_nothing_is_computed_where_shapes_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forbidden:
        def __init__(self, **_: object) -> None:
            raise AssertionError("the network was to run in earnest")

    task = TASKS[0]
    network = drawn(NasBench201(), task, 1)[0]
    expected = counted(network, example_of(task))
    monkeypatch.setattr(module, "FlopCounterMode", Forbidden)
    assert flops(network, example_of(task)) == expected


class Routed(nn.Module):
    """The sign of a value decides which layer runs, and a test of it whether the error of the first try is caught."""

    def __init__(self, *, catches: bool) -> None:
        super().__init__()
        self.first, self.small, self.large = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 200)
        self.catches = catches

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        try:
            positive = bool(x.sum() > 0)
        except Exception:
            if not self.catches:
                raise
            positive = False
        out: Tensor = self.large(x) if positive else self.small(x)
        return out


@pytest.mark.parametrize("catches", [False, True])
@pytest.mark.parametrize("bias", [-9.0, 9.0])
def test_where_a_value_decides_the_network_runs(bias: float, catches: bool) -> None:
    network = Routed(catches=catches)
    nn.init.constant_(network.first.bias, bias)
    assert flops(network, torch.zeros(1, 4)) == 2 * (16 + 4 * (200 if bias > 0 else 2))


class Masked(nn.Module):
    """A mask takes as many places as there are positive values."""

    def forward(self, x: Tensor) -> Tensor:
        kept = x[x > 0]
        return functional.linear(kept[None], torch.ones(3, len(kept)))


def test_a_mask_is_a_value() -> None:
    assert flops(Masked(), torch.tensor([[1.0, -1.0, 2.0]])) == 2 * 2 * 3


class Sized(nn.Module):
    """As many rows as a value says: of a slice, of new zeros, of a repetition."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        rows = functional.relu(x).sum().long()
        match self.way:
            case "slice":
                taken = torch.zeros(9, 4)[:rows]
            case "zeros":
                taken = torch.zeros((rows, 4))  # type: ignore[arg-type]
            case _:
                taken = torch.zeros(1, 4).repeat(rows, 1)  # type: ignore[call-overload]
        return functional.linear(taken, torch.ones(3, 4))


@pytest.mark.parametrize("way", ["slice", "zeros", "repeat"])
def test_a_size_may_be_a_value(way: str) -> None:
    assert flops(Sized(way), torch.tensor([[1.0, -7.0, 4.0, 0.0]])) == 2 * 5 * 4 * 3


def test_the_error_of_a_network_is_its_own() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        flops(nn.Linear(3, 2), torch.zeros(1, 4))
    with pytest.raises(RuntimeError, match="Calculated padded input size"):
        flops(nn.Conv2d(3, 2, 5), torch.zeros(1, 3, 4, 4))
