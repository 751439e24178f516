"""The mixture by torch's own convolutions: one for each operation, or one for each dilation."""

import torch
from torch import Tensor

from nasplat.search_spaces.blocks.mixture_definition import convolve, kernel_of, mixed_results
from nasplat.search_spaces.blocks.mixture_problem import Problem, mix


def results(x: Tensor, weight: Tensor, coefficients: Tensor, problem: Problem) -> Tensor:
    """The definition."""
    mixture = problem.mixture
    return mixed_results(
        x,
        weight.to(x.dtype),
        coefficients,
        mixture.operations,
        stride=mixture.stride,
        groups=mixture.groups,
        causal=mixture.causal,
    )


def merged(x: Tensor, weight: Tensor, coefficients: Tensor, problem: Problem) -> Tensor:
    """The kernels of one dilation are summed into the largest of them: as many convolutions as live dilations."""
    mixture = problem.mixture
    operations, layout = problem.merged
    mixed = mix(weight, coefficients, layout).to(x.dtype)
    total: Tensor | None = None
    for own, operation in zip(torch.split(mixed, [o.taps for o in operations]), operations, strict=True):
        kernel = kernel_of(own, operation)
        one = convolve(x, kernel, operation, stride=mixture.stride, groups=mixture.groups, causal=mixture.causal)
        total = one if total is None else total + one
    assert total is not None  # the centre is always live
    return total
