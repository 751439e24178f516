"""The mixture by a compiled sum over its taps, for groups of few channels on a CPU; ``mixture_native.cpp`` says how.

A depthwise mixture has a few multiplications for each output and distinct tap, fewer than any transform, but torch's
convolutions cannot run irregular taps well. Nothing here exists where there is no compiler (``nasplat.native``).
"""

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nasplat.native import library
from nasplat.search_spaces.blocks.mixture_problem import Problem, mix

_SOURCE = Path(__file__).with_name("mixture_native.cpp")
SCALARS = {torch.float32: "float", torch.float64: "double"}
"""What compiled code calls a data type."""


class _Layer(ctypes.Structure):
    _fields_: ClassVar = [
        *((name, ctypes.c_int64) for name in (
            "batch", "groups", "inputs", "outputs", "rows", "columns", "out_rows", "out_columns", "row_stride",
            "column_stride", "taps",
        )),
        ("row_offsets", ctypes.POINTER(ctypes.c_int64)), ("column_offsets", ctypes.POINTER(ctypes.c_int64)),
    ]  # fmt: skip


class Grid(ctypes.Structure):
    """Where values lie on the circles of a transform: the source says more."""

    _fields_: ClassVar = [
        ("row_length", ctypes.c_int64), ("column_length", ctypes.c_int64), ("values", ctypes.c_int64),
        ("rows", ctypes.POINTER(ctypes.c_int64)), ("columns", ctypes.POINTER(ctypes.c_int64)),
    ]  # fmt: skip


@cache
def compiled() -> ctypes.CDLL | None:
    """The compiled code, or None where there is no compiler that knows what the source needs."""
    loaded = library(_SOURCE)
    if loaded is not None:
        integer, pointer = ctypes.c_int64, ctypes.c_void_p
        layer, grid = ctypes.POINTER(_Layer), ctypes.POINTER(Grid)
        arguments = {
            "forward": [layer, *[pointer] * 3, integer, integer],
            "backward": [layer, *[pointer] * 5, integer, integer],
            "spectra": [grid, pointer, integer, integer, pointer, integer, integer, integer],
            "values": [grid, pointer, integer, integer, pointer, integer, integer, integer],
        }
        for scalar in SCALARS.values():
            for name, types in arguments.items():
                function = getattr(loaded, f"{name}_{scalar}")
                function.restype, function.argtypes = None, types
    return loaded


@lru_cache(maxsize=1024)
def _layer(problem: Problem, batch: int) -> _Layer:
    """The problem as the compiled code has it; one axis is a row."""
    mixture, lift = problem.mixture, (1,) * (2 - len(problem.size))
    offsets = [(*(0,) * len(lift), *offset) for offset in problem.offsets]
    integers = ctypes.c_int64 * len(offsets)
    return _Layer(
        batch,
        mixture.groups,
        mixture.in_channels // mixture.groups,
        mixture.out_channels // mixture.groups,
        *lift,
        *problem.size,
        *lift,
        *problem.out_size,
        *lift,
        *mixture.stride,
        len(offsets),
        integers(*(row for row, _ in offsets)),
        integers(*(column for _, column in offsets)),
    )


def in_threads(part: Callable[[int, int], None], count: int, together: int = 1) -> None:
    """Calls ``part(first, last)`` over a count of things, in as many threads as torch has.

    Args:
        part: Does a range; compiled, so that it does not hold the interpreter.
        count: Of things.
        together: How many are best kept in one range.
    """
    blocks = -(-count // together)
    workers = min(torch.get_num_threads(), blocks)
    if workers <= 1:
        part(0, count)
        return
    bounds = [min(count, together * (blocks * i // workers)) for i in range(workers + 1)]
    with ThreadPoolExecutor(workers) as pool:
        for call in [pool.submit(part, first, last) for first, last in pairwise(bounds)]:
            call.result()


def _run(name: str, layer: _Layer, x: Tensor, *others: Tensor | None) -> None:
    """Calls the compiled code; groups are shared among threads."""
    function: Callable[..., None] = getattr(compiled(), f"{name}_{SCALARS[x.dtype]}")
    pointers = [None if t is None else t.data_ptr() for t in (x, *others)]
    in_threads(lambda first, last: function(ctypes.byref(layer), *pointers, first, last), layer.groups)


class _Native(torch.autograd.Function):
    """``(B, C_in, *n)`` and ``(U, C_out, C_in / g)`` to ``(B, C_out, *m)``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, problem: Problem) -> Tensor:
        x, weights = x.contiguous(), kernel.permute(1, 2, 0).contiguous()
        layer = _layer(problem, len(x))
        made = x.new_empty(len(x), kernel.shape[1], *problem.out_size)
        _run("forward", layer, x, weights, made)
        ctx.save_for_backward(x, weights)
        ctx.layer = layer
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weights = ctx.saved_tensors
        of_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        of_kernel = torch.zeros_like(weights) if ctx.needs_input_grad[1] else None
        _run("backward", ctx.layer, x, weights, gradient.contiguous(), of_x, of_kernel)
        return of_x, None if of_kernel is None else of_kernel.permute(2, 0, 1), None


def native(x: Tensor, weight: Tensor, coefficients: Tensor, problem: Problem) -> Tensor:
    """The mixture by the compiled sum over taps."""
    wide = torch.promote_types(x.dtype, torch.float32)
    kernel = mix(weight, coefficients, problem.union)
    made: Tensor = _Native.apply(x.to(wide), kernel.to(wide), problem)  # type: ignore[no-untyped-call]
    return made.to(x.dtype)
