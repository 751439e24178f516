"""The mixture as products of spectra, whatever transform makes them: the pass and its hand-written gradients.

With zeros around the map, a convolution is circular on a length ``N ≥ n + p``, p the longest live offset: what wraps
around meets zeros, or lands where nobody looks. With spectra ``X = Σ_p x_p e^{-2πi f·p/N}`` and
``H = Σ_o u_o e^{+2πi f·o/N}`` the output is the inverse of ``Y = X Hᵀ`` at the positions of the stride. With the
conjugate spectrum Ḡ of the output's gradient, the gradients are the inverse of ``conj(Ḡ H)`` at all positions and that
of ``Ḡᵀ X`` at the offsets: three products and four transforms of data a step, and no conjugation, because the conjugate
spectrum of a map is the spectrum of the mirrored one. Spectra of real maps are kept by halves, frequencies first
``(F, B, C)``, so that the products are batched matrix products.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nasplat.search_spaces.blocks.mixture_problem import Problem, mix


class Transform(ABC):
    """Discrete Fourier transforms for one problem: real maps ``(rows, *n)``, complex spectra ``(F, rows)``."""

    @abstractmethod
    def data(self, x: Tensor) -> Tensor:
        """X of inputs ``(rows, *n)``."""

    @abstractmethod
    def output(self, spectra: Tensor) -> Tensor:
        """The inverse at the positions of outputs ``(rows, *m)``."""

    @abstractmethod
    def gradient(self, values: Tensor) -> Tensor:
        """Conjugate spectra of maps ``(rows, *m)`` whose values lie at the positions of outputs."""

    @abstractmethod
    def data_gradient(self, spectra: Tensor) -> Tensor:
        """The inverse of conjugate spectra at the positions of inputs ``(rows, *n)``."""

    @abstractmethod
    def kernel(self, values: Tensor) -> Tensor:
        """H of kernels ``(U, rows)`` at the problem's offsets."""

    @abstractmethod
    def kernel_gradient(self, spectra: Tensor) -> Tensor:
        """The inverse at the problem's offsets ``(U, rows)``."""


class _Product(torch.autograd.Function):
    """``(B, C_in, *n)`` and ``(U, C_out, C_in / g)`` to ``(B, C_out, *m)``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, groups: int, transform: Transform) -> Tensor:
        batch, channels = x.shape[:2]
        data = _grouped(transform.data(x.flatten(0, 1)), batch, channels, groups)
        spectra = transform.kernel(kernel.flatten(1))
        spectra = spectra.view(-1, kernel.shape[1] // groups, kernel.shape[2])  # (F·g, C_out / g, C_in / g)
        ctx.save_for_backward(data, spectra)
        ctx.groups, ctx.transform, ctx.shapes = groups, transform, (x.shape, kernel.shape)
        made = transform.output(_flat(torch.bmm(data, spectra.mT), groups))
        return made.view(batch, kernel.shape[1], *made.shape[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        data, spectra = ctx.saved_tensors
        (x_shape, kernel_shape), groups, transform = ctx.shapes, ctx.groups, ctx.transform
        own = _grouped(transform.gradient(gradient.flatten(0, 1)), x_shape[0], kernel_shape[1], groups)
        of_x = of_kernel = None
        if ctx.needs_input_grad[0]:
            of_x = transform.data_gradient(_flat(torch.bmm(own, spectra), groups)).view(x_shape)
        if ctx.needs_input_grad[1]:
            products = torch.bmm(own.mT, data).view(len(own) // groups, -1)
            of_kernel = transform.kernel_gradient(products).view(kernel_shape)
        return of_x, of_kernel, None, None


def _grouped(spectra: Tensor, batch: int, channels: int, groups: int) -> Tensor:
    """``(F, B·C)`` to ``(F·g, B, C / g)``."""
    if groups == 1:
        return spectra.view(-1, batch, channels)
    return spectra.view(-1, batch, groups, channels // groups).transpose(1, 2).flatten(0, 1)


def _flat(spectra: Tensor, groups: int) -> Tensor:
    """``(F·g, B, C / g)`` to ``(F, B·C)``."""
    if groups == 1:
        return spectra.flatten(1)
    return spectra.view(-1, groups, *spectra.shape[1:]).transpose(1, 2).flatten(1)


def spectral(x: Tensor, weight: Tensor, coefficients: Tensor, problem: Problem, transform: Transform) -> Tensor:
    """The mixture by products of spectra, in single precision at least."""
    wide = torch.promote_types(x.dtype, torch.float32)
    kernel = mix(weight, coefficients, problem.union)
    made: Tensor = _Product.apply(  # type: ignore[no-untyped-call]
        x.to(wide), kernel.to(wide), problem.mixture.groups, transform
    )
    return made.to(x.dtype)
