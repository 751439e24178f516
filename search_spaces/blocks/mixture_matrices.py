"""Discrete Fourier transforms as matrix products: the fastest where a map is small, and for kernels with few offsets.

Along each axis a transform is a product with a matrix of ``e^{-2πi f p / N}``, whose positions p may be any: those of a
stride, or the offsets of a kernel. The products give the frequencies first, which saves every transposition.
"""

from functools import lru_cache
from typing import final

import torch
from torch import Tensor

from nasplat.search_spaces.blocks.mixture_problem import Problem
from nasplat.search_spaces.blocks.mixture_spectral import Transform, spectral

Positions = tuple[int, ...]


def _angles(positions: Positions, length: int, half: bool, device: torch.device) -> Tensor:
    """``2π f p / N`` as ``(F, positions)``, reduced before it is a float so that double precision loses nothing."""
    f = torch.arange(length // 2 + 1 if half else length, device=device)
    turns = (f.unsqueeze(1) * torch.tensor(positions, device=device)) % length
    return turns.double() * (2 * torch.pi / length)


@lru_cache(maxsize=128)
def analysis(positions: Positions, length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Real values to the halves of their spectra: real parts over imaginary parts ``(2F, positions)``."""
    angles = _angles(positions, length, True, device)
    return torch.cat([angles.cos(), -angles.sin()]).to(dtype)


@lru_cache(maxsize=128)
def synthesis(positions: Positions, length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Halves of spectra ``(2F, ·)`` to real values ``(2F, positions)``: what stands for a pair counts twice."""
    angles = _angles(positions, length, True, device)
    count = torch.full((length // 2 + 1, 1), 2.0 / length, dtype=torch.double, device=device)
    count[0] = 1 / length
    if length % 2 == 0:
        count[-1] = 1 / length
    return torch.cat([angles.cos() * count, -angles.sin() * count]).to(dtype)


@lru_cache(maxsize=128)
def rotations(positions: Positions, length: int, inverse: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``e^{-2πi f p / N}``, or ``e^{+2πi f p / N} / N``: ``(N, positions)``, complex, of the precision of ``dtype``."""
    angles = _angles(positions, length, False, device)
    made = torch.polar(torch.full_like(angles, 1 / length if inverse else 1.0), angles if inverse else -angles)
    return made.to(dtype.to_complex())


def _mirrored(positions: tuple[Positions, ...]) -> tuple[Positions, ...]:
    return tuple(tuple(-p for p in own) for own in positions)


@final
class Matrices(Transform):
    """Transforms of a problem as matrix products.

    Args:
        problem: Of 1 or 2 axes.
        lengths: N along each axis; without them the shortest that nothing wraps around.
    """

    def __init__(self, problem: Problem, lengths: tuple[int, ...] | None = None) -> None:
        self.lengths = lengths or tuple(n + p for n, p in zip(problem.size, problem.reach, strict=True))
        self._inputs = tuple(tuple(range(n)) for n in problem.size)
        self._outputs = tuple(tuple(range(0, n, s)) for n, s in zip(problem.size, problem.mixture.stride, strict=True))
        self._offsets = tuple(tuple(sorted({o[axis] for o in problem.offsets})) for axis in range(len(problem.size)))
        sizes = [len(o) for o in self._offsets]
        places = [[own.index(o[axis]) for o in problem.offsets] for axis, own in enumerate(self._offsets)]
        flat = places[0] if len(sizes) == 1 else [a * sizes[1] + b for a, b in zip(*places, strict=True)]
        self._places = torch.tensor(flat)

    def data(self, x: Tensor) -> Tensor:
        """By rows, then by columns."""
        return self._spectra(x, self._inputs)

    def output(self, spectra: Tensor) -> Tensor:
        """By columns, then by rows."""
        return self._values(spectra, self._outputs)

    def gradient(self, values: Tensor) -> Tensor:
        """Mirrored positions."""
        return self._spectra(values, _mirrored(self._outputs))

    def data_gradient(self, spectra: Tensor) -> Tensor:
        """Mirrored positions."""
        return self._values(spectra, _mirrored(self._inputs))

    def _spectra(self, values: Tensor, where: tuple[Positions, ...]) -> Tensor:
        dtype, device = values.dtype, values.device
        halves = analysis(where[-1], self.lengths[-1], dtype, device) @ values.reshape(-1, values.shape[-1]).t()
        spectra = torch.complex(*halves.chunk(2))  # (F_2, rows · n_1)
        if values.ndim == 2:
            return spectra
        around = rotations(where[0], self.lengths[0], False, dtype, device)  # (N_1, n_1)
        by_row = spectra.view(len(spectra), *values.shape[:2])
        return torch.bmm(around.expand(len(spectra), -1, -1), by_row.mT).flatten(0, 1)

    def _values(self, spectra: Tensor, where: tuple[Positions, ...]) -> Tensor:
        dtype, device, rows = spectra.dtype.to_real(), spectra.device, spectra.shape[1]
        if len(where) == 2:
            around = rotations(where[0], self.lengths[0], True, dtype, device)
            by_column = spectra.view(-1, self.lengths[0], rows)
            spectra = torch.bmm(by_column.mT, around.expand(len(by_column), -1, -1)).flatten(1)  # (F_2, rows · m_1)
        halves = torch.cat([spectra.real, spectra.imag])
        made = halves.t() @ synthesis(where[-1], self.lengths[-1], dtype, device)
        return made.view(rows, *(len(own) for own in where))

    def kernel(self, values: Tensor) -> Tensor:
        """The offsets are put into the product of those of each axis."""
        dtype, device, rows = values.dtype, values.device, values.shape[1]
        mirrored = _mirrored(self._offsets)
        forward = analysis(mirrored[-1], self.lengths[-1], dtype, device)
        if len(mirrored) == 1:
            return torch.complex(*(forward @ values).chunk(2))
        sizes = tuple(map(len, mirrored))
        grid = values.new_zeros(sizes[0] * sizes[1], rows)
        grid[self._index(device)] = values
        halves = torch.matmul(forward, grid.view(*sizes, rows))  # (U_1, 2 F_2, rows)
        spectra = torch.complex(*halves.chunk(2, dim=1)).transpose(0, 1)
        around = rotations(mirrored[0], self.lengths[0], False, dtype, device)
        return torch.bmm(around.expand(len(spectra), -1, -1), spectra).flatten(0, 1)

    def kernel_gradient(self, spectra: Tensor) -> Tensor:
        """The adjoint of ``kernel`` up to scale."""
        dtype, device, rows = spectra.dtype.to_real(), spectra.device, spectra.shape[1]
        backward = synthesis(self._offsets[-1], self.lengths[-1], dtype, device).t()
        if len(self._offsets) == 2:
            around = rotations(self._offsets[0], self.lengths[0], True, dtype, device).t()  # (U_1, N_1)
            by_column = spectra.view(-1, self.lengths[0], rows)
            spectra = torch.bmm(around.expand(len(by_column), -1, -1), by_column).flatten(1)  # (F_2, U_1 · rows)
        made = backward @ torch.cat([spectra.real, spectra.imag])  # (U_2, U_1 · rows)
        if len(self._offsets) == 1:
            return made
        return made.view(len(self._offsets[1]), -1, rows).transpose(0, 1).flatten(0, 1)[self._index(device)]

    def _index(self, device: torch.device) -> Tensor:
        if self._places.device != device:
            self._places = self._places.to(device)
        return self._places


@lru_cache(maxsize=256)
def _transform(problem: Problem) -> Matrices:
    return Matrices(problem)


def matrices(x: Tensor, weight: Tensor, coefficients: Tensor, problem: Problem) -> Tensor:
    """The mixture by spectra that matrix products make."""
    return spectral(x, weight, coefficients, problem, _transform(problem))
