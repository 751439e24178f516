"""The mixture of depthwise convolutions as one matrix a channel, for small maps.

A convolution of a map of n positions into m is a product with an (m × n) matrix that is constant along its diagonals:
its entry (p, q) is the kernel at the offset q - s p. Its gradient is summed along the diagonals by reading the matrix
with a pitch that shifts each row.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nasplat.search_spaces.blocks.mixture_problem import Problem, mix


@lru_cache(maxsize=256)
def _diagonals(problem: Problem, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which diagonal each entry of the matrix lies on ``(m · n,)``, and which one each offset is ``(U,)``.

    Diagonals are numbered in the box of all differences q - s p, which starts at the most negative one.
    """
    entry = torch.zeros(1, 1, dtype=torch.long)
    offset = torch.zeros(len(problem.offsets), dtype=torch.long)
    axes = zip(problem.size, problem.out_size, problem.mixture.stride, strict=True)
    for axis, (n, m, s) in enumerate(axes):
        low, width = s * (m - 1), n + s * (m - 1)
        own = torch.arange(n) - s * torch.arange(m).unsqueeze(1) + low  # (m, n) of this axis
        entry = (entry[:, None, :, None] * width + own[:, None, :]).reshape(entry.shape[0] * m, entry.shape[1] * n)
        offset = offset * width + torch.tensor([o[axis] + low for o in problem.offsets])
    return entry.flatten().to(device), offset.to(device)


def _box(problem: Problem) -> int:
    """How many diagonals there are."""
    axes = zip(problem.size, problem.out_size, problem.mixture.stride, strict=True)
    return prod(n + s * (m - 1) for n, m, s in axes)


def _sum_diagonals(matrix: Tensor, problem: Problem) -> Tensor:
    """``(C, m, n)`` to the sums along diagonals ``(C, box)``."""
    dims = len(problem.size)
    sums = matrix.view(-1, *problem.out_size, *problem.size)
    for axis in range(dims):
        sums = _skew(sums, 1 + axis, 1 + dims + axis, problem.mixture.stride[axis])
    return sums.reshape(len(matrix), -1)


def _skew(values: Tensor, rows: int, columns: int, step: int) -> Tensor:
    """Sums over axis ``rows`` after row i moved back by ``step · i``; it stays with length 1, ``columns`` grows."""
    turned = values.movedim((rows, columns), (-2, -1)).flip(-2)
    *outer, m, n = turned.shape
    width = n + step * (m - 1)
    shifted = turned.new_zeros(*outer, m * width)
    strides: Sequence[int] = (*shifted.stride()[:-1], width + step, 1)
    shifted.as_strided(turned.shape, strides).copy_(turned)
    return shifted.view(*outer, m, width).sum(-2, keepdim=True).movedim((-2, -1), (rows, columns))


class _Toeplitz(torch.autograd.Function):
    """``(B, C, *n)`` and ``(U, C)`` to ``(B, C, *m)``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, problem: Problem) -> Tensor:
        entry, offset = _diagonals(problem, x.device)
        batch, channels = x.shape[:2]
        box = x.new_zeros(channels, _box(problem))
        box[:, offset] = kernel.t()
        flat = x.flatten(2).transpose(0, 1)  # (C, B, n)
        matrix = box[:, entry].view(channels, -1, flat.shape[2])
        ctx.save_for_backward(flat, matrix)
        ctx.problem = problem
        made = torch.bmm(flat, matrix.mT)
        return made.transpose(0, 1).contiguous().view(batch, channels, *problem.out_size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        flat, matrix = ctx.saved_tensors
        problem: Problem = ctx.problem
        _, offset = _diagonals(problem, flat.device)
        own = gradient.flatten(2).transpose(0, 1)  # (C, B, m)
        of_x = of_kernel = None
        if ctx.needs_input_grad[0]:
            of_x = torch.bmm(own, matrix).transpose(0, 1).contiguous().view(-1, len(matrix), *problem.size)
        if ctx.needs_input_grad[1]:
            of_kernel = _sum_diagonals(torch.bmm(own.mT, flat), problem)[:, offset].t()
        return of_x, of_kernel, None


def toeplitz(x: Tensor, weight: Tensor, coefficients: Tensor, problem: Problem) -> Tensor:
    """The mixture of depthwise convolutions by one matrix product a channel."""
    wide = torch.promote_types(x.dtype, torch.float32)
    kernel = mix(weight, coefficients, problem.union).flatten(1)
    made: Tensor = _Toeplitz.apply(x.to(wide), kernel.to(wide), problem)  # type: ignore[no-untyped-call]
    return made.to(x.dtype)
