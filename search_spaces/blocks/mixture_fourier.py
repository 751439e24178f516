"""The mixture by fast Fourier transforms: real ones, at sizes that libraries are fast at, as few as can be."""

from functools import lru_cache
from typing import Any, final

import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.autograd.function import once_differentiable

from nasplat.search_spaces.blocks.mixture_matrices import Matrices
from nasplat.search_spaces.blocks.mixture_problem import Problem, mix
from nasplat.search_spaces.blocks.mixture_spectral import Transform, spectral


def good_lengths(problem: Problem) -> tuple[int, ...]:
    """Lengths of the transforms along each axis, at least n + p."""
    return tuple(int(next_fast_len(n + p, real=True)) for n, p in zip(problem.size, problem.reach, strict=True))


def spread(values: Tensor, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Maps ``(*, *m)`` at every s-th position of zeros ``(*, *n)``."""
    if all(s == 1 for s in stride):
        return values
    wide = values.new_zeros(*values.shape[: -len(size)], *size)
    thin(wide, stride).copy_(values)
    return wide


def crop(values: Tensor, size: tuple[int, ...]) -> Tensor:
    """The first positions ``(*, *n)`` of maps, a view."""
    for axis, length in enumerate(size, -len(size)):
        values = values.narrow(axis, 0, length)
    return values


def thin(values: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Every s-th position ``(*, *m)`` of maps ``(*, *n)``, a view."""
    steps: list[Any] = [slice(None, None, s) for s in stride]
    return values[(..., *steps)]


@final
class FastTransforms(Transform):
    """Data by fast transforms, turned to have frequencies first; kernels, which have few offsets, by matrix products.

    Args:
        problem: Of 1 or 2 axes.
    """

    def __init__(self, problem: Problem) -> None:
        self.lengths = good_lengths(problem)
        self._problem = problem
        self._kernels = Matrices(problem, self.lengths)
        self._axes = tuple(range(-len(self.lengths), 0))

    def data(self, x: Tensor) -> Tensor:
        """Maps to spectra."""
        return self._turned(torch.fft.rfftn(x, self.lengths, self._axes))

    def output(self, spectra: Tensor) -> Tensor:
        """Spectra to maps, of which the stride's positions are kept."""
        made = self._values(spectra.t().contiguous())
        return thin(made, self._problem.mixture.stride).contiguous()

    def gradient(self, values: Tensor) -> Tensor:
        """Maps spread by the stride to conjugate spectra."""
        wide = spread(values, self._problem.size, self._problem.mixture.stride)
        return self._turned(torch.fft.rfftn(wide, self.lengths, self._axes).conj())

    def data_gradient(self, spectra: Tensor) -> Tensor:
        """Conjugate spectra to maps."""
        return self._values(spectra.conj().t().resolve_conj().contiguous()).contiguous()

    def _turned(self, spectra: Tensor) -> Tensor:
        if len(self.lengths) == 2:  # as the matrices have them: the halved axis first
            spectra = spectra.mT
        turned: Tensor = spectra.flatten(1).t().contiguous().resolve_conj()
        return turned

    def _values(self, spectra: Tensor) -> Tensor:
        if len(self.lengths) == 2:
            spectra = spectra.view(len(spectra), -1, self.lengths[0]).mT
        return crop(torch.fft.irfftn(spectra, self.lengths, self._axes), self._problem.size)

    def kernel(self, values: Tensor) -> Tensor:
        """Kernels to spectra."""
        return self._kernels.kernel(values)

    def kernel_gradient(self, spectra: Tensor) -> Tensor:
        """Spectra to kernels."""
        return self._kernels.kernel_gradient(spectra)


@lru_cache(maxsize=256)
def _transform(problem: Problem) -> FastTransforms:
    return FastTransforms(problem)


def fourier(x: Tensor, weight: Tensor, coefficients: Tensor, problem: Problem) -> Tensor:
    """The mixture by products of spectra that fast transforms make; any groups."""
    return spectral(x, weight, coefficients, problem, _transform(problem))


class _Depthwise(torch.autograd.Function):
    """``(B, C, *n)`` and ``(U, C)`` to ``(B, C, *m)``: spectra stay beside their map, and are multiplied one by one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, problem: Problem) -> Tensor:
        lengths, axes = good_lengths(problem), tuple(range(-len(problem.size), 0))
        places = problem.places(x.device)
        # -o: the kernel of a correlation, mirrored
        grid = x.new_zeros(kernel.shape[1], *lengths)
        grid.permute(*range(1, grid.ndim), 0)[tuple(-p for p in places)] = kernel
        spectra = torch.fft.rfftn(grid, dim=axes)
        data = torch.fft.rfftn(x, lengths, axes)
        ctx.save_for_backward(data, spectra)
        ctx.problem, ctx.lengths, ctx.axes = problem, lengths, axes
        made = crop(torch.fft.irfftn(data * spectra, lengths, axes), problem.size)
        return thin(made, problem.mixture.stride).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        data, spectra = ctx.saved_tensors
        problem: Problem = ctx.problem
        wide = spread(gradient, problem.size, problem.mixture.stride)
        own = torch.fft.rfftn(wide, ctx.lengths, ctx.axes)
        of_x = of_kernel = None
        if ctx.needs_input_grad[0]:
            made = torch.fft.irfftn(own * spectra.conj(), ctx.lengths, ctx.axes)
            of_x = crop(made, problem.size).contiguous()
        if ctx.needs_input_grad[1]:
            products = torch.linalg.vecdot(own, data, dim=0)  # conjugates its first argument
            made = torch.fft.irfftn(products, ctx.lengths, ctx.axes)
            of_kernel = made.permute(*range(1, made.ndim), 0)[problem.places(made.device)]
        return of_x, of_kernel, None


def fourier_depthwise(x: Tensor, weight: Tensor, coefficients: Tensor, problem: Problem) -> Tensor:
    """The mixture of depthwise convolutions by fast transforms."""
    wide = torch.promote_types(x.dtype, torch.float32)
    kernel = mix(weight, coefficients, problem.union).flatten(1)
    made: Tensor = _Depthwise.apply(x.to(wide), kernel.to(wide), problem)  # type: ignore[no-untyped-call]
    return made.to(x.dtype)
