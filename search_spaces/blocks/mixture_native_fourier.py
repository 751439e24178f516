"""The mixture by compiled Fourier transforms that write spectra with frequencies first; the ``.cpp`` beside says how.

Libraries transform one map after the other, which is slow for maps as small as those of networks, and their spectra
have to be turned before they can be multiplied as matrices.
"""

import ctypes
from collections.abc import Iterable
from functools import cache, lru_cache
from itertools import product
from pathlib import Path
from typing import ClassVar, final

from torch import Tensor

from nasplat.native import library
from nasplat.search_spaces.blocks.mixture_fourier import good_lengths
from nasplat.search_spaces.blocks.mixture_native import SCALARS, in_threads
from nasplat.search_spaces.blocks.mixture_problem import Problem
from nasplat.search_spaces.blocks.mixture_spectral import Transform, spectral

_SOURCE = Path(__file__).with_name("mixture_native_fourier.cpp")
_MAPS_AT_A_TIME = 32  # of single precision, half as many of double


class _Grid(ctypes.Structure):
    _fields_: ClassVar = [
        ("row_length", ctypes.c_int64), ("column_length", ctypes.c_int64), ("values", ctypes.c_int64),
        ("rows", ctypes.POINTER(ctypes.c_int64)), ("columns", ctypes.POINTER(ctypes.c_int64)),
    ]  # fmt: skip


@cache
def _compiled() -> ctypes.CDLL | None:
    loaded = library(_SOURCE)
    if loaded is not None:
        integer, pointer = ctypes.c_int64, ctypes.c_void_p
        for name, scalar in product(("spectra", "values"), SCALARS.values()):
            function = getattr(loaded, f"{name}_{scalar}")
            function.restype = None
            function.argtypes = [
                ctypes.POINTER(_Grid), pointer, integer, integer, pointer, integer, integer, integer,
            ]  # fmt: skip
    return loaded


def available() -> bool:
    """Whether there is a compiler that knows what the source needs."""
    return _compiled() is not None


@final
class CompiledTransforms(Transform):
    """The compiled transforms of a problem.

    Args:
        problem: Of 1 or 2 axes.
    """

    def __init__(self, problem: Problem) -> None:
        self._lengths = good_lengths(problem)
        self._problem = problem
        self._inputs = self._grid(product(*map(range, problem.size)))
        steps = zip(problem.size, problem.mixture.stride, strict=True)
        self._outputs = self._grid(product(*(range(0, n, s) for n, s in steps)))
        self._offsets = self._grid(problem.offsets)
        self._mirrored = self._grid([tuple(-o for o in offset) for offset in problem.offsets])

    def _grid(self, positions: Iterable[tuple[int, ...]]) -> _Grid:
        """Positions, as long as those that share a row follow each other."""
        lift = (0,) * (2 - len(self._lengths))
        lengths = (*(1 for _ in lift), *self._lengths)
        places = [tuple(p % n for p, n in zip((*lift, *own), lengths, strict=True)) for own in positions]
        integers = ctypes.c_int64 * len(places)
        return _Grid(*lengths, len(places), integers(*(r for r, _ in places)), integers(*(c for _, c in places)))

    def data(self, values: Tensor, *, output: bool) -> Tensor:
        """Maps lie one after the other."""
        grid = self._outputs if output else self._inputs
        return self._spectra(grid, values.contiguous(), len(values), grid.values, 1)

    def data_inverse(self, spectra: Tensor, *, output: bool) -> Tensor:
        """As they came."""
        grid, size = (self._outputs, self._problem.out_size) if output else (self._inputs, self._problem.size)
        maps = spectra.shape[1]
        made = spectra.new_empty(maps, *size, dtype=spectra.dtype.to_real())
        self._values(grid, made, grid.values, 1, spectra)
        return made

    def kernel(self, values: Tensor) -> Tensor:
        """Kernels lie side by side."""
        return self._spectra(self._mirrored, values.contiguous(), values.shape[1], 1, values.shape[1])

    def kernel_inverse(self, spectra: Tensor) -> Tensor:
        """As they came."""
        kernels = spectra.shape[1]
        made = spectra.new_empty(self._offsets.values, kernels, dtype=spectra.dtype.to_real())
        self._values(self._offsets, made, 1, kernels, spectra)
        return made

    def _spectra(self, grid: _Grid, values: Tensor, maps: int, map_pitch: int, value_pitch: int) -> Tensor:
        frequencies = (grid.column_length // 2 + 1) * grid.row_length
        made = values.new_empty(frequencies, maps, dtype=values.dtype.to_complex())
        function = getattr(_compiled(), f"spectra_{SCALARS[values.dtype]}")
        start, end = values.data_ptr(), made.data_ptr()
        in_threads(
            lambda a, b: function(ctypes.byref(grid), start, map_pitch, value_pitch, end, maps, a, b),
            maps,
            _MAPS_AT_A_TIME,
        )
        return made

    def _values(self, grid: _Grid, made: Tensor, map_pitch: int, value_pitch: int, spectra: Tensor) -> None:
        function = getattr(_compiled(), f"values_{SCALARS[made.dtype]}")
        spectra = spectra.resolve_conj().contiguous()
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
