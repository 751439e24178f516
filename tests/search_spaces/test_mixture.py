"""The mixture as a module: operations, their canonical form, derived convolutions, precision, refusals."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nasplat.errors import InvalidInputError
from nasplat.search_spaces.blocks import mixture_native
from nasplat.search_spaces.blocks.mixture import FORMULATIONS, MixtureConv, Operation, effective, operations
from nasplat.search_spaces.blocks.mixture_definition import convolve
from nasplat.seeding import torch_seed


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.double)


def computed(name: str) -> str:
    """The formulation, if this machine has what it needs."""
    if name.startswith("native") and mixture_native.compiled() is None:
        pytest.skip("no compiler")
    return name


def test_kernels_are_outermost() -> None:
    mixed = operations([3, 5], [1, 4], 2)
    assert list(map(str, mixed)) == ["k3d1", "k3d4", "k5d1", "k5d4"]
    assert mixed[3] == Operation((5, 5), (4, 4))
    assert mixed[3].field == (17, 17)
    assert mixed[3].taps == 25
    assert str(operations([(3, 1)], [2], 2)[0]) == "k3x1d2"


@pytest.mark.parametrize(
    ("kernels", "dilations", "size", "distinct"),
    [
        ([3, 5, 7, 9], [1, 3, 7, 15], (32, 32), 14),
        ([3, 5, 7, 9], [1, 3, 7, 15], (16, 16), 11),
        ([3, 5, 7, 9], [1, 3, 7, 15], (8, 8), 8),
        ([3, 7, 11, 15, 19], [1, 3, 7, 15], (46,), 16),
    ],
)
def test_operations_that_differ_on_a_map(
    kernels: list[int], dilations: list[int], size: tuple[int, ...], distinct: int
) -> None:
    assert len({effective(o, size) for o in operations(kernels, dilations, len(size))}) == distinct


@given(data=st.data())
def test_effective_operations_are_equal_where_functions_are(data: st.DataObject) -> None:
    dims = data.draw(st.sampled_from([1, 2]))
    causal = dims == 1 and data.draw(st.booleans())
    size = tuple(data.draw(st.integers(1, 9)) for _ in range(dims))
    stride = tuple(data.draw(st.integers(1, 3)) for _ in range(dims))
    kernel = st.tuples(*[st.sampled_from([1, 2, 3, 4] if causal else [1, 3, 5, 7])] * dims)
    pair = [Operation(data.draw(kernel), data.draw(st.tuples(*[st.integers(1, 9)] * dims))) for _ in range(2)]
    x = numbers(1, 1, *size)

    def response(operation: Operation) -> Tensor:
        ones = torch.ones(1, 1, *operation.kernel, dtype=torch.double)
        return convolve(x, ones, operation, stride=stride, groups=1, causal=causal)

    cut = [effective(o, size, stride=stride, causal=causal) for o in pair]
    for whole, live in zip(pair, cut, strict=True):
        torch.testing.assert_close(response(whole), response(live))
        assert effective(live, size, stride=stride, causal=causal) == live
    # sums of different random numbers are different
    assert (cut[0] == cut[1]) == torch.allclose(response(pair[0]), response(pair[1]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("causal", [False, True])
def test_a_derived_convolution_is_the_mixture_at_a_corner(causal: bool) -> None:
    mixed = operations([2, 5] if causal else [3, 5], [1, 4], 1)
    layer = MixtureConv(4, 6, mixed, stride=2, groups=2, causal=causal).double()
    assert layer.bias is not None
    nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(0))
    x = numbers(2, 4, 11)
    for index, operation in enumerate(mixed):
        derived = layer.derived(index)
        assert isinstance(derived, nn.Conv1d)
        assert derived.kernel_size == operation.kernel
        torch.testing.assert_close(derived(x), layer(x, torch.eye(4).double()[index]))
        before = layer.weight.detach().clone()
        nn.init.zeros_(derived.weight)
        torch.testing.assert_close(layer.weight.detach(), before)


def test_a_derived_convolution_of_images_is_torch_s_own() -> None:
    layer = MixtureConv(3, 5, operations([3, 7], [1, 3], 2), stride=(2, 1), bias=False).double()
    derived = layer.derived(3)
    assert type(derived) is nn.Conv2d
    assert derived.bias is None
    x = numbers(2, 3, 9, 6)
    torch.testing.assert_close(derived(x), layer(x, torch.eye(4).double()[3]))


@pytest.mark.parametrize("name", FORMULATIONS)
def test_the_bias_learns_as_that_of_a_convolution(name: str) -> None:
    layer = MixtureConv(4, 4, operations([3, 5], [1, 2], 2), stride=(1, 2), groups=4).double()
    layer.formulation = computed(name)
    made = layer(numbers(2, 4, 5, 6), torch.eye(4).double()[2])
    derived = layer.derived(2)
    target = numbers(*made.shape)
    assert layer.bias is not None
    assert derived.bias is not None
    torch.testing.assert_close(
        torch.autograd.grad(made, layer.bias, target),
        torch.autograd.grad(derived(numbers(2, 4, 5, 6)), derived.bias, target),
    )


def test_it_starts_small_and_from_the_seed() -> None:
    def made() -> MixtureConv:
        with torch_seed(3):
            return MixtureConv(16, 16, operations([3, 5, 7, 9], [1, 3], 2))

    layer = made()
    assert layer.weight.shape == (2 * (9 + 25 + 49 + 81), 16, 16)
    assert torch.equal(layer.weight, made().weight)
    assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.01)
    assert layer.bias is not None
    assert layer.bias.count_nonzero() == 0


@pytest.mark.parametrize("name", ["auto", *FORMULATIONS])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    layer = MixtureConv(4, 4, operations([3, 5], [1, 2], 2), groups=4)
    x, coefficients = numbers(2, 4, 6, 7).float(), torch.softmax(numbers(4), 0).float()
    layer.formulation = "results"
    truth = layer(x, coefficients).detach()
    layer = layer.to(dtype)
    layer.formulation = computed(name)
    made = layer(x.to(dtype), coefficients)
    assert made.dtype == dtype
    made.float().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == dtype
    assert float((made.detach().float() - truth).norm() / truth.norm()) < 0.02


def test_automatic_precision() -> None:
    layer = MixtureConv(4, 4, operations([3, 5], [1, 2], 1), groups=4)
    x, coefficients = numbers(2, 4, 9).float(), torch.softmax(numbers(4), 0).float()
    with torch.autocast("cpu", torch.bfloat16):
        made = layer(x, coefficients)
        made.float().sum().backward()
    assert made.dtype == torch.bfloat16
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32
    assert float((made.float() - layer(x, coefficients)).detach().norm() / made.detach().float().norm()) < 0.02


def test_shapes_can_be_asked_for_without_data() -> None:
    with torch.device("meta"):
        layer = MixtureConv(3, 8, operations([3, 9], [1, 15], 2), stride=(2, 3))
        assert layer(torch.empty(5, 3, 17, 9), torch.empty(4)).shape == (5, 8, 9, 3)


def test_a_copy_is_another_layer() -> None:
    layer = MixtureConv(2, 2, operations([3], [1], 1))
    other = copy.deepcopy(layer)
    x = numbers(1, 2, 5).float()
    torch.testing.assert_close(layer(x, torch.ones(1)), other(x, torch.ones(1)))
    nn.init.zeros_(other.weight)
    assert layer.weight.count_nonzero() > 0
    assert "k3d1" in repr(layer)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"operations": ()}, "a mixture needs operations"),
        ({"groups": 3}, "3 groups do not divide 4 and 4 channels"),
        ({"causal": True}, "causal mixtures are 1-D"),
        ({"operations": operations([4], [1], 2)}, "centred operations have odd kernels, got k4d1"),
        ({"stride": (1, 2, 3)}, "expected a positive stride for each of 2 axes"),
        ({"stride": 0}, "expected a positive stride for each of 2 axes"),
    ],
)
def test_what_is_no_convolution_is_refused(arguments: dict[str, object], message: str) -> None:
    chosen: dict[str, object] = {"operations": operations([3], [1], 2)} | arguments
    with pytest.raises(InvalidInputError, match=message):
        MixtureConv(4, 4, **chosen)  # type: ignore[arg-type]


def test_wrong_inputs_are_refused() -> None:
    layer = MixtureConv(4, 4, operations([3], [1, 2], 2))
    with pytest.raises(
        InvalidInputError, match=r"expected inputs \(B, 4, H, W\) without empty axes, got \(1, 3, 5, 5\)"
    ):
        layer(torch.zeros(1, 3, 5, 5), torch.ones(2))
    with pytest.raises(InvalidInputError, match="expected 2 coefficients, one for each operation, got"):
        layer(torch.zeros(1, 4, 5, 5), torch.ones(3))
    with pytest.raises(InvalidInputError, match="expected an operation from 0 to 1, got 2"):
        layer.derived(2)
    with pytest.raises(InvalidInputError, match="a kernel size and a dilation for each of 1 or 2 spatial axes"):
        Operation((3, 3), (1,))
    with pytest.raises(InvalidInputError, match="kernel sizes and dilations are 1 or more"):
        Operation((3,), (0,))
    with pytest.raises(InvalidInputError, match="expected kernel sizes and dilations for 2 axes"):
        operations([(3,)], [(1,)], 2)
    with pytest.raises(InvalidInputError, match="expected a positive size for each axis"):
        effective(Operation((3,), (1,)), (0,))
