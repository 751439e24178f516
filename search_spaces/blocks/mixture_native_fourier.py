"""The mixture by compiled Fourier transforms that write spectra with frequencies first (``mixture_native.cpp``).

Libraries transform one map after the other, which is slow for maps as small as those of networks, and their spectra
have to be turned before they can be multiplied as matrices.
"""

import ctypes
from collections.abc import Iterable
from functools import lru_cache
from itertools import product
from math import prod
from typing import final

from torch import Tensor

from nasplat.search_spaces.blocks.mixture_fourier import good_lengths
from nasplat.search_spaces.blocks.mixture_native import SCALARS, Grid, compiled, in_threads
from nasplat.search_spaces.blocks.mixture_problem import Problem
from nasplat.search_spaces.blocks.mixture_spectral import Transform, spectral

_MAPS_AT_A_TIME = 32  # of single precision, half as many of double


@final
class CompiledTransforms(Transform):
    """The compiled transforms of a problem.

    Args:
        problem: Of 1 or 2 axes.
    """

    def __init__(self, problem: Problem) -> None:
        self._lengths = good_lengths(problem)
        self._problem = problem
        steps = list(zip(problem.size, problem.mixture.stride, strict=True))
        self._inputs = self._grids(product(*(range(n) for n, _ in steps)))
        self._outputs = self._grids(product(*(range(0, n, s) for n, s in steps)))
        self._offsets = self._grids(problem.offsets)

    def _grids(self, positions: Iterable[tuple[int, ...]]) -> tuple[Grid, Grid]:
        """Positions, and mirrored ones."""
        each = list(positions)
        return self._grid(each), self._grid([tuple(-p for p in own) for own in each])

    def _grid(self, positions: Iterable[tuple[int, ...]]) -> Grid:
        """Positions, as long as those that share a row follow each other."""
        lift = (0,) * (2 - len(self._lengths))
        lengths = (*(1 for _ in lift), *self._lengths)
        places = [tuple(p % n for p, n in zip((*lift, *own), lengths, strict=True)) for own in positions]
        integers = ctypes.c_int64 * len(places)
        return Grid(*lengths, len(places), integers(*(r for r, _ in places)), integers(*(c for _, c in places)))

    def data(self, x: Tensor) -> Tensor:
        """Maps lie one after the other."""
        return self._spectra(self._inputs[0], x.contiguous(), len(x), prod(self._problem.size), 1)

    def output(self, spectra: Tensor) -> Tensor:
        """At the positions of the stride alone."""
        return self._maps(self._outputs[0], spectra, self._problem.out_size)

    def gradient(self, values: Tensor) -> Tensor:
        """Mirrored positions."""
        return self._spectra(self._outputs[1], values.contiguous(), len(values), prod(self._problem.out_size), 1)

    def data_gradient(self, spectra: Tensor) -> Tensor:
        """Mirrored positions."""
        return self._maps(self._inputs[1], spectra, self._problem.size)

    def kernel(self, values: Tensor) -> Tensor:
        """Kernels lie side by side; they are mirrored, because a layer correlates."""
        return self._spectra(self._offsets[1], values.contiguous(), values.shape[1], 1, values.shape[1])

    def kernel_gradient(self, spectra: Tensor) -> Tensor:
        """Kernels side by side."""
        kernels = spectra.shape[1]
        made = spectra.new_empty(len(self._problem.offsets), kernels, dtype=spectra.dtype.to_real())
        self._values(self._offsets[0], made, 1, kernels, spectra)
        return made

    def _maps(self, grid: Grid, spectra: Tensor, size: tuple[int, ...]) -> Tensor:
        made = spectra.new_empty(spectra.shape[1], *size, dtype=spectra.dtype.to_real())
        self._values(grid, made, prod(size), 1, spectra)
        return made

    def _spectra(self, grid: Grid, values: Tensor, maps: int, map_pitch: int, value_pitch: int) -> Tensor:
        frequencies = (grid.column_length // 2 + 1) * grid.row_length
        made = values.new_empty(frequencies, maps, dtype=values.dtype.to_complex())
        function = getattr(compiled(), f"spectra_{SCALARS[values.dtype]}")
        start, end = values.data_ptr(), made.data_ptr()
        in_threads(
            lambda a, b: function(ctypes.byref(grid), start, map_pitch, value_pitch, end, maps, a, b),
            maps,
            _MAPS_AT_A_TIME,
        )
        return made

    def _values(self, grid: Grid, made: Tensor, map_pitch: int, value_pitch: int, spectra: Tensor) -> None:
        function = getattr(compiled(), f"values_{SCALARS[made.dtype]}")
        spectra = spectra.contiguous()
        maps, start, end = spectra.shape[1], made.data_ptr(), spectra.data_ptr()
        in_threads(
            lambda a, b: function(ctypes.byref(grid), start, map_pitch, value_pitch, end, maps, a, b),
            maps,
            _MAPS_AT_A_TIME,
        )


@lru_cache(maxsize=256)
def _transform(problem: Problem) -> CompiledTransforms:
    return CompiledTransforms(problem)


def native_fourier(x: Tensor, weight: Tensor, coefficients: Tensor, problem: Problem) -> Tensor:
    """The mixture by products of spectra that compiled transforms make."""
    return spectral(x, weight, coefficients, problem, _transform(problem))
