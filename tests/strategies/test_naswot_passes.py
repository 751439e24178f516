"""NASWOT's compiled passes against its definition, and what cannot be traced."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from nasplat.search_spaces.nasbench201 import EDGES, OPERATIONS, NasBench201
from nasplat.seeding import torch_seed
from nasplat.strategies.proxies import fused, tracing
from nasplat.strategies.proxies.naswot import agreement_kernel, log_determinant
from nasplat.task import Task

TASK = Task("images", input_shape=(3, 9, 9), outputs=5)


@pytest.fixture(autouse=True)
def _compiled() -> None:
    if fused.library() is None:
        pytest.skip("needs a C++ compiler (and NASPLAT_NATIVE other than 0)")


def by_definition(network: nn.Module, inputs: Tensor) -> NDArray[np.float64]:
    """``x x^T + (1 - x)(1 - x)^T`` of the binary input ``x`` at every call of a module named ReLU."""
    kernel = np.zeros((len(inputs), len(inputs)))

    def add(_module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        x = (arguments[0].reshape(len(inputs), -1) > 0).double().numpy()
        kernel[...] += x @ x.T + (1.0 - x) @ (1.0 - x).T

    for module in network.modules():
        if "ReLU" in type(module).__name__:
            module.register_forward_pre_hook(add)
    with torch.no_grad():
        network(inputs)
    return kernel


def images(batch: int, channels: int = 3, size: int = 9, *, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(batch, channels, size, size, generator=generator)
    return inputs.contiguous(memory_format=torch.channels_last)


def by_passes(network: nn.Module, inputs: Tensor) -> NDArray[np.int64]:
    """The kernel, for networks that must be traceable."""
    rectifiers = [m for m in network.modules() if "ReLU" in type(m).__name__]
    passes = fused.library()
    assert passes is not None
    return fused.agreement(passes, tracing.rectifier_inputs(network, inputs, rectifiers), len(inputs))


def assert_equal_but_for_rounding(kernel: NDArray[np.int64], expected: NDArray[np.float64]) -> None:
    """A value next to zero may have another sign, which moves a few pairs by one or two places each time."""
    np.testing.assert_array_equal(np.diagonal(kernel), np.diagonal(expected))
    np.testing.assert_array_equal(kernel, kernel.T)
    assert np.abs(kernel - expected).max() <= 4 + 1e-4 * kernel[0, 0]


# Given values ---------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    batch=st.integers(1, 9),
    channels=st.sampled_from([1, 2, 3, 4, 7, 8, 12, 16, 24, 48]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    times=st.integers(1, 3),
    seed=st.integers(0, 1000),
    last=st.booleans(),
)
def test_given_values_are_compared_exactly(
    batch: int, channels: int, height: int, width: int, times: int, seed: int, last: bool
) -> None:
    x = torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))
    x[torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < 0.2] = 0.0
    x[0, 0, 0, 0] = -0.0
    x[-1, -1, -1, -1] = math.nan
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    code = (x > 0).reshape(batch, -1).double().numpy()
    expected = times * (code @ code.T + (1.0 - code) @ (1.0 - code).T)

    class Repeated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(times):
                out: Tensor = self.relu(x)
            return out

    np.testing.assert_array_equal(by_passes(Repeated(), x), expected)


# Cells ----------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    cell=st.tuples(*[st.sampled_from(OPERATIONS)] * len(EDGES)),
    channels=st.sampled_from([4, 8, 16, 20]),
    size=st.integers(5, 19),
    cells=st.integers(1, 2),
    batch=st.integers(2, 12),
    seed=st.integers(0, 100),
)
def test_random_cells(cell: tuple[str, ...], channels: int, size: int, cells: int, batch: int, seed: int) -> None:
    space = NasBench201(channels=channels, cells=cells)
    a, b, c, d, e, f = cell
    with torch_seed(seed):
        network = space.build(space.parse(f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"), TASK).train()
    inputs = images(batch, size=size, seed=seed)
    assert_equal_but_for_rounding(by_passes(network, inputs), by_definition(network, inputs))


@pytest.mark.parametrize("index", [0, 1462, 6111, 9999])
def test_the_scores_are_those_without_passes(index: int) -> None:
    space = NasBench201(cells=2)
    with torch_seed(0):
        network = space.build(space.at(index), TASK).train()
    inputs = images(32, size=32)
    score = log_determinant(agreement_kernel(network, inputs))
    assert score == pytest.approx(log_determinant(agreement_kernel(network, inputs, compiled=False)), abs=1e-3)


# Other networks -------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """What ResNets do: rectified sums, ReLUs that overwrite, strided shortcuts, biases, affine normalization."""

    def __init__(self, *, inplace: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 5, padding=2)
        self.relu = nn.ReLU(inplace=inplace)
        self.bodies, self.shortcuts = nn.ModuleList(), nn.ModuleList()
        for inputs, outputs, stride in ((16, 16, 1), (16, 32, 2), (32, 32, 1)):
            norm = nn.BatchNorm2d(outputs)
            nn.init.uniform_(norm.weight, -1.0, 2.0)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
            first = nn.Conv2d(inputs, outputs, 3, stride, 1)
            last = nn.Conv2d(outputs, outputs, 1)
            self.bodies.append(nn.Sequential(first, norm, nn.ReLU(inplace), last, nn.BatchNorm2d(outputs)))
            self.shortcuts.append(
                nn.Identity()
                if inputs == outputs
                else nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(16, 32, 1))
            )
        self.between = nn.BatchNorm2d(32)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        for body, shortcut in zip(self.bodies, self.shortcuts, strict=True):
            out = body(x)
            out += shortcut(x)
            x = self.relu(out)
        x = self.relu(self.between(out + out))
        result: Tensor = self.head(x)
        return result


@pytest.mark.parametrize("inplace", [False, True])
def test_residual_networks(inplace: bool) -> None:
    with torch_seed(0):
        network = Residual(inplace=inplace)
    if inplace:
        # The last sum reads what the ReLU before has overwritten, as it does when the network runs.
        assert not torch.equal(network(images(6)), Residual(inplace=False)(images(6)))
    assert_equal_but_for_rounding(by_passes(network, images(6)), by_definition(network, images(6)))


@pytest.mark.parametrize("threads", [2, 3, 16])
def test_threads_change_nothing(threads: int) -> None:
    with torch_seed(0):
        network = Residual(inplace=False)
    alone = by_passes(network, images(7))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        np.testing.assert_array_equal(by_passes(network, images(7)), alone)
    finally:
        torch.set_num_threads(before)


def test_a_network_scores_the_same_whatever_was_scored_before() -> None:
    with torch_seed(0):
        one, other = Residual(inplace=False), NasBench201(channels=8, cells=1).build(NasBench201().at(77), TASK)
    first = by_passes(one, images(7))
    by_passes(other, images(20, size=13))
    np.testing.assert_array_equal(by_passes(one, images(7)), first)


def test_what_no_rectifier_depends_on_is_not_computed() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.live, self.dead = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 3, padding=1)
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.relu(self.live(x)) + self.dead(x)
            return out

    network = Branches()
    (node,) = tracing.rectifier_inputs(network, images(2), [network.relu])
    plan = fused._Plan(Counter([node]))
    computed = [c.operation for step in plan.steps.values() for c in step.convolutions]
    assert [c.weight for c in computed if isinstance(c, tracing.Convolution)] == [network.live.weight]


# What cannot be traced ------------------------------------------------------------------------------------------


class Between(nn.Module):
    """A ReLU behind something."""

    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.change = change
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.change(self.convolution(x)))
        return out


def _layers() -> Iterator[Any]:
    yield pytest.param(nn.Conv2d(8, 8, 3, padding=1, groups=2), id="groups")
    yield pytest.param(nn.Conv2d(8, 8, 3, padding=2, dilation=2), id="dilation")
    yield pytest.param(nn.Conv2d(8, 8, 3), id="no padding")
    yield pytest.param(nn.Conv2d(8, 8, 3, padding="same"), id="padding by name")
    yield pytest.param(nn.Conv2d(8, 8, (3, 1), padding=(1, 0)), id="oblong kernel")
    yield pytest.param(nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"), id="circular")
    yield pytest.param(nn.Conv2d(8, 6, 1), id="odd channels")
    yield pytest.param(nn.MaxPool2d(3, 1, 1), id="maximum")
    yield pytest.param(nn.AvgPool2d(3, 1, 1), id="padding counts")
    yield pytest.param(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(8)), id="normalization of rectified")
    yield pytest.param(nn.BatchNorm2d(8).eval(), id="running statistics")
    yield pytest.param(nn.GELU(), id="other activation")
    yield pytest.param(nn.Dropout(0.5), id="noise")
    yield pytest.param(lambda x: x + 1.0, id="constant")
    yield pytest.param(lambda x: x * x, id="product")
    yield pytest.param(lambda x: x - x.mean(), id="method")
    yield pytest.param(lambda x: x + x[:, :, :1], id="broadcast")
    yield pytest.param(lambda x: x if x.sum() > 0 else -x, id="decision")
    yield pytest.param(lambda x: x.permute(0, 2, 3, 1), id="permuted")
    yield pytest.param(lambda x: x.flatten(1), id="flattened")
    yield pytest.param(lambda x: x + torch.rand(()), id="random numbers")


@pytest.mark.parametrize("change", list(_layers()))
def test_anything_else_runs_as_it_is(change: Callable[[Tensor], Any]) -> None:
    with torch_seed(0):
        network = Between(change)
    with pytest.raises(tracing.UntraceableError):
        by_passes(network, images(5))
    with torch_seed(1):
        kernel = agreement_kernel(network, images(5))
    with torch_seed(1):
        np.testing.assert_array_equal(kernel, by_definition(network, images(5)))


def test_hooks_are_removed() -> None:
    network = Between(nn.Identity())
    by_passes(network, images(5))
    assert not any(m._forward_pre_hooks for m in network.modules())


def test_double_precision_runs_as_it_is() -> None:
    network = Between(nn.Identity()).double()
    inputs = images(5).double()
    np.testing.assert_array_equal(agreement_kernel(network, inputs), by_definition(network, inputs))
