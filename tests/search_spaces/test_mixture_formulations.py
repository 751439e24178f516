"""Every formulation of the mixture is the definition: outputs and all gradients."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nasplat.search_spaces.blocks.mixture import FORMULATIONS, operations
from nasplat.search_spaces.blocks.mixture_problem import Mixture, Problem, problem

CPU = torch.device("cpu")
NAMES = [name for name in FORMULATIONS if name != "results"]


@dataclass(frozen=True)
class Case:
    """A layer and what goes in."""

    mixture: Mixture
    size: tuple[int, ...]
    batch: int

    @property
    def problem(self) -> Problem:
        return problem(self.mixture, self.size)

    def inputs(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Input, weights and coefficients."""
        source = torch.Generator().manual_seed(0)
        mixture = self.mixture
        taps = sum(o.taps for o in mixture.operations)
        shapes = (
            (self.batch, mixture.in_channels, *self.size),
            (taps, mixture.out_channels, mixture.in_channels // mixture.groups),
            (len(mixture.operations),),
        )
        x, weight, coefficients = (torch.randn(s, generator=source, dtype=torch.double).to(dtype) for s in shapes)
        return x.requires_grad_(), weight.requires_grad_(), coefficients.requires_grad_()


def step(name: str, case: Case, dtype: torch.dtype) -> list[Tensor]:
    """The output and the gradients of input, weights and coefficients."""
    inputs = case.inputs(dtype)
    made = FORMULATIONS[name].apply(*inputs, case.problem)
    target = torch.randn(made.shape, generator=torch.Generator().manual_seed(1), dtype=torch.double).to(dtype)
    return [made.detach(), *torch.autograd.grad(made, inputs, target)]


def errors(name: str, case: Case, dtype: torch.dtype) -> list[float]:
    """How far each is from the definition in double precision, relative."""
    truth = step("results", case, torch.double)
    return [
        float((own - true).norm() / max(float(true.norm()), 1e-12))
        for own, true in zip(step(name, case, dtype), truth, strict=True)
    ]


def able(name: str, case: Case) -> bool:
    return FORMULATIONS[name].able(case.problem, CPU)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    dims = draw(st.sampled_from([1, 2]))
    causal = dims == 1 and draw(st.booleans())
    longest = 40 if dims == 1 else 11
    size = tuple(draw(st.integers(1, longest)) for _ in range(dims))
    each = st.tuples(*[st.integers(1, 9) if causal else st.sampled_from([1, 3, 5, 7, 9])] * dims)
    kernels = draw(st.lists(each, min_size=1, max_size=3))
    dilations = draw(st.lists(st.tuples(*[st.integers(1, 15)] * dims), min_size=1, max_size=3))
    kind = draw(st.sampled_from(["dense", "grouped", "depthwise", "multiplied"]))
    groups = 1 if kind == "dense" else draw(st.integers(2, 4))
    inputs, outputs = {"grouped": (2, 3), "depthwise": (1, 1), "multiplied": (1, 2), "dense": (3, 2)}[kind]
    mixture = Mixture(
        operations(kernels, dilations, dims),
        groups * inputs,
        groups * outputs,
        tuple(draw(st.integers(1, 3)) for _ in range(dims)),
        groups,
        causal,
    )
    return Case(mixture, size, draw(st.integers(1, 3)))


@given(case=cases())
@settings(max_examples=300)
def test_every_formulation_is_the_definition(case: Case) -> None:
    dead = torch.ones(len(case.inputs(torch.double)[1]), dtype=torch.bool)
    dead[list(case.problem.union.live)] = False
    truth = step("results", case, torch.double)
    assert truth[2][dead].count_nonzero() == 0
    for name in NAMES:
        if not able(name, case):
            continue
        own = step(name, case, torch.double)
        for what, mine, true in zip(("output", "x", "weight", "coefficients"), own, truth, strict=True):
            assert float((mine - true).norm()) <= 1e-10 * max(float(true.norm()), 1e-6), (name, what)
        assert own[2][dead].count_nonzero() == 0, name


def layer(kernels: list[int], dilations: list[int], channels: tuple[int, int, int], *shape: int) -> Case:
    """A centred layer of stride 1; shape is the batch and the size."""
    dims = len(shape) - 1
    mixture = Mixture(operations(kernels, dilations, dims), channels[0], channels[1], (1,) * dims, channels[2], False)
    return Case(mixture, shape[1:], shape[0])


PUBLISHED = [
    layer([3, 5, 7, 9], [1, 3, 7, 15], (3, 5, 1), 18, 16, 16),
    layer([3, 5, 7, 9], [1, 3, 7, 15], (4, 4, 4), 17, 32, 32),
    layer([3, 5, 7], [1, 3, 7], (4, 4, 4), 5, 16, 52),
    layer([3, 7, 11, 15, 19], [1, 3, 7, 15], (6, 8, 1), 33, 46),
    layer([3, 7, 11, 15, 19], [1, 3, 7, 15], (4, 4, 4), 3, 500),
    layer([3, 5, 7, 9, 11, 13, 15], [1, 3, 7, 15, 31, 63, 127], (2, 4, 1), 2, 300),
]
"""Kernels and dilations of published tasks, batches that fill a vector of examples and do not."""


@pytest.mark.parametrize("case", PUBLISHED, ids=lambda case: "x".join(map(str, (case.batch, *case.size))))
@pytest.mark.parametrize("name", NAMES)
def test_single_precision_loses_no_more_than_torch_does(name: str, case: Case) -> None:
    if not able(name, case):
        pytest.skip("not a problem of this formulation, or no compiler")
    assert max(errors(name, case, torch.float32)) < 2e-6


@pytest.mark.parametrize("name", FORMULATIONS)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    for mixture, size in (
        (Mixture(operations([3, 5], [1, 2], 2), 2, 2, (2, 1), 2, False), (4, 3)),
        (Mixture(operations([2, 3], [1, 3], 1), 2, 2, (1,), 2, True), (6,)),
    ):
        case = Case(mixture, size, 2)
        if able(name, case):
            assert torch.autograd.gradcheck(
                lambda x, w, c, own=case.problem: FORMULATIONS[name].apply(x, w, c, own), case.inputs(torch.double)
            )


@pytest.mark.parametrize("name", FORMULATIONS)
def test_only_the_gradients_that_are_wanted_are_made(name: str) -> None:
    case = layer([3, 5], [1, 3], (2, 2, 2), 2, 6, 5)
    if not able(name, case):
        pytest.skip("no compiler")
    whole = step(name, case, torch.double)
    for wanted in range(3):
        inputs = [t if i == wanted else t.detach() for i, t in enumerate(case.inputs(torch.double))]
        made = FORMULATIONS[name].apply(inputs[0], inputs[1], inputs[2], case.problem)
        target = torch.randn(made.shape, generator=torch.Generator().manual_seed(1), dtype=torch.double)
        torch.testing.assert_close(torch.autograd.grad(made, inputs[wanted], target)[0], whole[1 + wanted])


@pytest.mark.parametrize("name", FORMULATIONS)
def test_training_may_follow_inference(name: str) -> None:
    case = layer([3, 5], [1, 4], (2, 2, 2), 2, 7, 6)  # a problem of this test alone: what is kept is made in inference
    if not able(name, case):
        pytest.skip("no compiler")
    with torch.inference_mode():
        made = FORMULATIONS[name].apply(*case.inputs(torch.double), case.problem)
    torch.testing.assert_close(step(name, case, torch.double)[0], made.clone())


@pytest.mark.parametrize("name", FORMULATIONS)
def test_a_map_may_lie_anyhow_in_memory(name: str) -> None:
    case = layer([3, 5], [1, 3], (4, 4, 4), 3, 6, 5)
    if not able(name, case):
        pytest.skip("no compiler")
    x, weight, coefficients = (t.detach() for t in case.inputs(torch.double))
    apply = FORMULATIONS[name].apply
    turned = x.to(memory_format=torch.channels_last)
    assert not turned.is_contiguous()
    torch.testing.assert_close(
        apply(turned, weight, coefficients, case.problem), apply(x, weight, coefficients, case.problem)
    )


@pytest.mark.parametrize("name", ["native", "native-fourier"])
def test_threads_change_no_bit(name: str) -> None:
    case = layer([3, 5, 9], [1, 3], (6, 6, 6), 40, 9, 7)
    if not able(name, case):
        pytest.skip("no compiler")
    alone = step(name, case, torch.float32)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        together = step(name, case, torch.float32)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


def test_offsets_that_operations_share_are_computed_once() -> None:
    # 9 taps at distance 1 and 9 at distance 3 share -3, 0 and 3; those at 7 and 15 share the centre alone
    case = layer([3, 5, 7, 9], [1, 3, 7, 15], (1, 1, 1), 1, 1000)
    assert len(case.problem.offsets) == 9 + 6 + 8 + 8
    assert case.problem.union.slots == 31
    assert [str(o) for o in case.problem.merged[0]] == ["k9d1", "k9d3", "k9d7", "k9d15"]


def test_dead_taps_shorten_the_transform() -> None:
    from nasplat.search_spaces.blocks.mixture_fourier import good_lengths

    # a field of 121 positions on a map of 8 is one of 15
    assert good_lengths(layer([3, 5, 7, 9], [1, 3, 7, 15], (1, 1, 1), 1, 8, 8).problem) == (15, 15)
