"""The NASWOT kernel against its definition, in exact integers."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nasplat import registry
from nasplat.errors import InvalidInputError
from nasplat.evaluators.zero_cost import ZeroCostEvaluator
from nasplat.fidelity import Fidelity
from nasplat.measurement import Role
from nasplat.proxy import Batch
from nasplat.search_spaces.nasbench201 import NasBench201
from nasplat.seeding import torch_seed
from nasplat.strategies.proxies import naswot as module
from nasplat.strategies.proxies.naswot import agreement_kernel, log_determinant, naswot
from nasplat.task import Task, classification
from nasplat.trial import Proposal

SPACE = NasBench201(channels=4, cells=2)
TASK = Task("images", input_shape=(3, 16, 16), outputs=10)

CELLS = {
    "resnet": ("3x3", "3x3", "3x3", "skip", "3x3", "3x3"),
    "best for CIFAR-10": ("3x3", "3x3", "3x3", "skip", "3x3", "1x1"),
    "all 1x1": ("1x1",) * 6,
    "one tensor under several names": ("skip", "3x3", "1x1", "1x1", "3x3", "avg"),
    "a branch that leads nowhere": ("3x3", "none", "3x3", "skip", "none", "none"),
    "a convolution of nothing": ("none", "3x3", "1x1", "none", "3x3", "avg"),
    "input and output not connected": ("3x3", "1x1", "1x1", "none", "none", "none"),
    "no convolution": ("avg", "skip", "avg", "skip", "none", "avg"),
}
SHORT = {"skip": "skip_connect", "1x1": "nor_conv_1x1", "3x3": "nor_conv_3x3", "avg": "avg_pool_3x3"}


def official(short: Sequence[str]) -> str:
    a, b, c, d, e, f = (SHORT.get(s, s) for s in short)
    return f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"


def by_definition(network: nn.Module, inputs: Tensor) -> NDArray[np.float64]:
    """``x x^T + (1 - x)(1 - x)^T`` of the binary input ``x`` at every call of a module named ReLU."""
    kernel = np.zeros((len(inputs), len(inputs)))

    def add(_module: nn.Module, arguments: tuple[Tensor, ...], _output: Tensor) -> None:
        x = (arguments[0].reshape(len(inputs), -1) > 0).double().numpy()
        kernel[...] += x @ x.T + (1.0 - x) @ (1.0 - x).T

    hooks = [m.register_forward_hook(add) for m in network.modules() if "ReLU" in type(m).__name__]
    with torch.no_grad():
        network(inputs)
    for hook in hooks:
        hook.remove()
    return kernel


def images(batch: int = 24, size: int = 16) -> Tensor:
    inputs = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))
    return inputs.contiguous(memory_format=torch.channels_last)


def network_of(cell: str, space: NasBench201 = SPACE) -> nn.Module:
    with torch_seed(0):
        network = space.build(space.parse(cell), TASK)
    return network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload, no-any-return]


@pytest.fixture(params=["integers", "floats", "floats in parts"])
def _products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way to multiply codes, whatever this machine would choose."""
    monkeypatch.setattr(module, "_has_integer_product", lambda code: request.param == "integers")
    if request.param == "floats in parts":
        monkeypatch.setattr(module, "_EXACT_COLUMNS", 100)


@pytest.mark.usefixtures("_products")
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS.keys())
def test_the_kernel_is_the_definition(cell: Sequence[str]) -> None:
    kernel = agreement_kernel(network_of(official(cell)), images(), compiled=False)
    assert kernel.dtype == np.int64
    np.testing.assert_array_equal(kernel, by_definition(network_of(official(cell)), images()))


def test_the_kernel_is_the_definition_at_full_size() -> None:
    space, cell = NasBench201(), official(CELLS["one tensor under several names"])
    inputs = images(32, 32)
    kernel = agreement_kernel(network_of(cell, space), inputs, compiled=False)
    np.testing.assert_array_equal(kernel, by_definition(network_of(cell, space), inputs))


def test_random_cells_in_the_default_layout() -> None:
    rng = np.random.default_rng(5)
    inputs = images().contiguous()
    for _ in range(10):
        cell = SPACE.sample(rng).text
        one, other = network_of(cell), network_of(cell)
        np.testing.assert_array_equal(agreement_kernel(one, inputs, compiled=False), by_definition(other, inputs))


def test_every_relu_but_the_last_counts_twice() -> None:
    kernel = agreement_kernel(network_of(official(CELLS["a branch that leads nowhere"])), images())
    # Two convolutions in each of two cells a stage; two more ReLUs in each residual block; one before the head.
    stages = [4 * 16 * 16, 8 * 8 * 8, 16 * 4 * 4]
    between = [stages[0] + stages[1], stages[1] + stages[2]]
    assert set(np.diagonal(kernel)) == {2 * (2 * 2 * sum(stages) + sum(between)) + stages[2]}


def test_a_network_that_tells_nothing_apart_scores_minus_infinity() -> None:
    network = network_of(official(["none"] * 6))
    assert naswot.compute(network, Batch(images(), torch.zeros(24, dtype=torch.int64))) == -math.inf


def test_the_score_is_the_log_determinant() -> None:
    kernel = agreement_kernel(network_of("resnet"), images())
    expected = np.log(np.abs(np.linalg.eigvalsh(kernel.astype(np.float64)))).sum()
    assert log_determinant(kernel) == pytest.approx(expected, rel=1e-10)
    assert naswot.compute(network_of("resnet"), Batch(images(), torch.zeros(24))) == log_determinant(kernel)


class InPlace(nn.Module):
    """ReLUs that are shared, overwrite their input, and see one tensor before and after a change."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 40)
        self.relu = nn.ReLU()
        self.overwriting = nn.LeakyReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        total: Tensor = self.relu(x)
        x.neg_()
        total = total + self.relu(x) + self.relu(x)
        total = total + self.overwriting(x)
        total = total + self.relu(x)
        return total


class Temporaries(nn.Module):
    """Inputs of one shape that come and go, so that memory and identities would be reused."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(())
        for shift in torch.linspace(-1.0, 1.0, 20):
            total = total + self.relu(x + shift).sum()
        return total


@pytest.mark.usefixtures("_products")
@pytest.mark.parametrize("make", [InPlace, Temporaries])
def test_any_network_with_relus(make: Callable[[], nn.Module]) -> None:
    with torch_seed(0):
        network, inputs = make(), torch.randn(16, 6)
    np.testing.assert_array_equal(agreement_kernel(network, inputs), by_definition(network, inputs))


class Functional(nn.Module):
    """Activation functions without modules, one of which overwrites its input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 30), nn.Linear(30, 20)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu(self.first(x), inplace=True)
        return torch.tanh(self.second(x))


def test_without_relu_modules_all_activation_functions_count_once() -> None:
    with torch_seed(0):
        network, inputs = Functional(), torch.randn(16, 6)
    first = network.first(inputs)
    second = network.second(first.relu())
    x = (torch.cat([first, second], 1) > 0).double()
    expected = x @ x.T + (1.0 - x) @ (1.0 - x).T
    np.testing.assert_array_equal(agreement_kernel(network, inputs), expected.numpy())


def test_a_network_without_activation_functions_is_refused() -> None:
    network = nn.Sequential(nn.Linear(6, 8), nn.Softmax(1), nn.Linear(8, 2))
    with pytest.raises(InvalidInputError, match="calls none with the batch of 4 as first dimension; use another proxy"):
        agreement_kernel(network, torch.randn(4, 6))


class Uncalled(nn.Module):
    """A ReLU that is there and never called."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.relu = nn.Linear(6, 2), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        return out


def test_relus_that_are_not_called_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="has some but calls none; use another proxy"):
        agreement_kernel(Uncalled(), torch.randn(4, 6))


def test_a_relu_that_does_not_see_the_batch_is_refused() -> None:
    network = nn.Sequential(nn.Flatten(0), nn.ReLU())
    with pytest.raises(InvalidInputError, match=r"the batch of 4 as first dimension .* ReLU got \(24,\)"):
        agreement_kernel(network, torch.randn(4, 6))
    assert_no_hooks(network)


def assert_no_hooks(network: nn.Module) -> None:
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in network.modules())


def test_hooks_are_removed() -> None:
    network = network_of("resnet")
    agreement_kernel(network, images())
    assert_no_hooks(network)


def test_scores_through_the_evaluator_depend_on_cell_and_seed_alone() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (60, 3, 8, 8), dtype=np.uint8)
    task = classification("noise", search=(pictures, np.arange(60) % 3))
    evaluator = ZeroCostEvaluator(SPACE, task, [registry.load("proxy", "naswot")[0]], batch_size=16)

    def score(name: str, seed: int) -> float:
        measurement = evaluator.measure(Proposal(SPACE.parse(name), Fidelity(0), seed))
        assert measurement.metrics["naswot"].role is Role.SEARCH
        return measurement["naswot"]

    first = score("resnet", 0)
    assert score("best-cifar10", 0) != first
    assert score("resnet", 1) != first
    assert score("resnet", 0) == first


# ReLUs that are called as functions -----------------------------------------------------------------------------


class Mixed(nn.Module):
    """ReLU as a module, as functions that keep or overwrite their input, in a block of that name, and a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.block, self.last = nn.Linear(6, 20), ReLULinear(20, 30), nn.Linear(30, 10)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(x))
        x = nn.functional.relu(self.block(x), inplace=True)
        return torch.sigmoid(self.last(x)).relu()


class ReLULinear(nn.Module):
    """A block that is called ReLU, and calls one: both count."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(torch.relu(x - 0.1))
        return out


def codes_of(x: Tensor) -> NDArray[np.float64]:
    code = (x > 0).double()
    return (code @ code.T + (1.0 - code) @ (1.0 - code).T).numpy()


def test_relus_count_as_modules_and_as_functions() -> None:
    with torch_seed(0):
        network, inputs = Mixed(), torch.randn(16, 6)
    with torch.no_grad():
        first = network.first(inputs)
        into_block = first.relu()
        second = network.block(into_block)
        gate = torch.sigmoid(network.last(second.relu()))
    expected = sum(codes_of(x) for x in (first, into_block, into_block - 0.1, second, gate))
    np.testing.assert_array_equal(agreement_kernel(network, inputs), expected)
    assert_no_hooks(network)


class ReLUNet(nn.Module):
    """A network whose own name says ReLU, of images, with one module and one function."""

    def __init__(self, *, function: bool) -> None:
        super().__init__()
        self.stem, self.body, self.relu = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.relu(self.stem(x)))
        return (nn.functional.relu(x) if self.function else self.relu(x)).mean((2, 3))


def test_a_function_counts_as_the_module_would_compiled_or_not() -> None:
    kernels = []
    for function in (True, False):
        with torch_seed(0):
            network = ReLUNet(function=function)
        kernels += [agreement_kernel(network, images(), compiled=compiled) for compiled in (True, False)]
        assert_no_hooks(network)
    assert kernels[0][0, 0] == 2 * 8 * 16 * 16  # the image itself is no code, whatever the network is called
    np.testing.assert_array_equal(kernels[0], kernels[1])
    np.testing.assert_array_equal(kernels[1], kernels[3])
    assert np.abs(kernels[2] - kernels[3]).max() <= 4


def test_a_function_that_does_not_see_the_batch_is_refused() -> None:
    class Flattened(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.relu(x).flatten())

    with pytest.raises(InvalidInputError, match=r"the batch of 4 as first dimension .* relu got \(24,\)"):
        agreement_kernel(Flattened(), torch.randn(4, 6))
