"""Parameters and FLOPs against numbers computed by hand."""

from typing import ClassVar, final

import numpy as np
import pytest
import torch
from torch import nn

from nasplat.architecture import Architecture
from nasplat.choices import Choice
from nasplat.counting import Counts, count, count_network, peak_memory_bytes, restricted
from nasplat.errors import InvalidArchitectureError
from nasplat.objective import Constraint
from nasplat.space import SearchSpace
from nasplat.task import Task

TASK = Task("images", input_shape=(3, 8, 8), outputs=10)


@final
class Widths(SearchSpace):
    """One convolution of a chosen width; the widest cannot be built."""

    name: ClassVar[str] = "widths"

    def __init__(self) -> None:
        super().__init__([Choice("width", (4, 8, 16, 99), ordered=True)])

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        width = int(architecture["width"])
        if width == 99:
            raise InvalidArchitectureError("width 99 fits no machine")
        return nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, task.outputs),
        )


SPACE = Widths()


def test_a_network_counted_by_hand() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),  # 8·(3·9 + 1) parameters; 4·4 places of 8·27 multiply-adds
        nn.BatchNorm2d(8),  # 2·8 parameters
        nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False),  # 8·2·9 parameters; 4·4 places of as many multiply-adds
        nn.Flatten(),
        nn.Linear(8 * 4 * 4, 10),  # 10·(128 + 1) parameters; 1,280 multiply-adds
    ).eval()
    params = 8 * 28 + 16 + 144 + 1_290
    macs = 16 * 8 * 27 + 16 * 144 + 1_280
    assert count_network(network, torch.zeros(1, 3, 8, 8)) == Counts(params, 2 * macs)


def test_frozen_parameters_are_not_counted() -> None:
    network = nn.Linear(3, 2)
    network.weight.requires_grad_(False)
    assert count_network(network, torch.zeros(1, 3)) == Counts(2, 2 * 6)


@pytest.mark.parametrize("width", [4, 8, 16])
def test_an_architecture_counted_by_hand(width: int) -> None:
    counts = count(SPACE, SPACE.parse(f"width={width}"), TASK)
    assert counts == Counts(27 * width + 2 * width + 10 * width + 10, 2 * (64 * 27 * width + 10 * width))


def test_counting_needs_neither_memory_nor_random_numbers() -> None:
    before = torch.get_rng_state()
    huge = Task("huge", input_shape=(3, 100_000, 100_000), outputs=10)
    assert count(SPACE, SPACE.parse("width=4"), huge).flops > 1e12
    assert torch.equal(torch.get_rng_state(), before)


def test_constraints_on_counts_restrict_the_space() -> None:
    # 39 parameters a channel and 10: 166, 322, 634.
    space = restricted(SPACE, TASK, [Constraint("params", "<", 600.0), Constraint("params", ">=", 166.0)])
    rng = np.random.default_rng(0)
    assert {space.sample(rng)["width"] for _ in range(100)} == {4, 8, 99}


def test_what_cannot_be_built_is_left_to_its_trial() -> None:
    space = restricted(SPACE, TASK, [Constraint("flops", "<", 0.0)])
    assert space.accepts(SPACE.parse("width=99"))
    assert not space.accepts(SPACE.parse("width=4"))


def test_other_constraints_leave_the_space_as_it_is() -> None:
    assert restricted(SPACE, TASK, [Constraint("val_accuracy", ">", 0.5)]) is SPACE
    assert restricted(SPACE, TASK, []) is SPACE


def test_peak_memory_is_in_bytes() -> None:
    assert peak_memory_bytes(torch.device("cpu")) > 50e6  # torch alone takes more
